"""`sbt fetch` against a loopback hub, and what then runs with HF_HUB_OFFLINE: real clients, processes of their own."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_hub import FakeHub, commit_of

from sbt.data.fetch import needed
from sbt.utils import hub, paths
from sbt.utils.files import read_json

PLAN = """
title: tiny
steps:
  - name: 10_data
    notebook: 10_data_preparation
    set: {instruct_data: me/rows, tokenizer: me/lm, vision_tower: me/clip@main, sample: 0}
  - name: 51_ethics
    notebook: 51_ethics
    set: {base: me/lm, ethics_data: hub}
  - name: 64_unicorn
    notebook: 64_unicorn
    set: {unicorn_data: "", images: hub, tasks: [oodcv-vqa]}
"""
OFFLINE = """
from pathlib import Path
from sbt import models
from sbt.data import training_sets
from sbt.utils import hub, paths
hub.pin(paths.outputs() / "tiny", [])
models.assemble("me/lm", "me/clip@main", seed=0)
found = training_sets.find("me/rows", paths.downloads())
print(len(training_sets.make(found, paths.outputs() / "rows")["inputs"]), hub.used)
"""


@pytest.fixture
def command(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess]:
    """Runs words in a project of its own, which has one study, against a hub with a model, a tower and a data set."""
    root, served = tmp_path / "project", tmp_path / "served"
    (root / "params" / "tiny").mkdir(parents=True)
    (root / "params" / "tiny" / "plan.yaml").write_text(PLAN)
    (root / "notebooks").symlink_to(paths.notebooks())
    for name in ("llm", "clip"):
        folder = served / "models" / "me" / name.replace("llm", "lm")
        shutil.copytree(paths.assets() / name, folder)
        (folder / "training_args.bin").write_bytes(b"a pickle")
    turns = [{"from": "human", "value": "What?"}, {"from": "gpt", "value": "That."}]
    rows = served / "datasets" / "me" / "rows" / "rows.json"
    rows.parent.mkdir(parents=True)
    rows.write_text(json.dumps([{"id": str(n), "conversations": turns} for n in range(5)]))

    with FakeHub(served) as running:
        places = {"HF_HOME": str(tmp_path / "hf"), "SBT_ROOT": str(root), "SBT_OUTPUTS": str(root / "outputs")}
        env = os.environ | places | {"HF_ENDPOINT": running.url, "no_proxy": "*", "HF_HUB_DISABLE_XET": "1"}
        env = {name: value for name, value in env.items() if name not in ("HF_HUB_OFFLINE", hub.VARIABLE)}

        def run(*words: str, offline: bool = False) -> subprocess.CompletedProcess:
            more = {"HF_HUB_OFFLINE": "1"} if offline else {}
            return subprocess.run([sys.executable, *words], env=env | more, capture_output=True, text=True, cwd=root)

        run.root = root
        yield run


def test_a_study_is_fetched_and_then_read_without_a_network(command: Callable) -> None:
    first = command("-m", "sbt", "fetch", "tiny")
    assert first.returncode == 1, first.stderr
    assert "[1/4] model me/lm: done" in first.stdout and "OOD-CV" in first.stdout
    assert "by hand only" in first.stdout and "by hand only" not in first.stderr
    assert "1 of 4 could not be fetched; the same command goes on from here:" in first.stderr
    assert "  data ethics: cm_test.csv cannot be had:" in first.stderr
    pinned = read_json(command.root / "outputs" / "tiny" / hub.PINS)
    names = {"me/lm": "me/lm", "me/clip@main": "me/clip", "datasets/me/rows": "me/rows"}
    assert pinned == {name: commit_of(repo) for name, repo in names.items()}
    later = command("-c", OFFLINE, offline=True)
    assert later.returncode == 0, later.stderr
    assert later.stdout.strip() == f"1 {pinned}"
    again = command("-m", "sbt", "fetch", "tiny")
    assert [line.split()[-1] for line in again.stdout.splitlines()[2:4]] == ["here", "here"], again.stdout
    refused = command("-m", "sbt", "fetch", "tiny", offline=True)
    assert refused.returncode == 2 and "HF_HUB_OFFLINE is set" in refused.stderr


def test_the_files_that_loading_reads() -> None:
    beside = ["config.json", "tokenizer.model", "merges.txt", "chat_template.jinja"]
    others = ["README.md", "original/consolidated.00.pth", "training_args.bin", "model.msgpack"]
    assert needed([*beside, *others, "model.safetensors", "pytorch_model.bin"]) == [*beside, "model.safetensors"]
    assert needed([*beside, *others, "pytorch_model-1.bin"]) == [*beside, "pytorch_model-1.bin"]
