"""`kill -9` at any moment, then the same command: the results are those of an uninterrupted run, bit for bit."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sbt.utils import paths

PLAN = """
title: a few steps of everything
steps:
  - {name: 10_data, notebook: 10_data_preparation,
     set: {pretrain: 48, instruct: 48, instruct_images: 24, captions: 8, pope: 8, heldout: 4}}
  - {name: 20_connector, notebook: 20_connector_pretraining, set: {max_steps: 8, batch_size: 8, save_steps: 1},
     needs: [10_data]}
  - {name: 30_mm-full, notebook: 30_instruction_tuning, set: {max_steps: 8, batch_size: 8, save_steps: 1},
     needs: [10_data, 20_connector]}
  - {name: 50_truthfulqa, notebook: 50_truthfulqa, set: {batch_size: 4}, needs: [10_data, 30_mm-full]}
"""
# Where the process is killed: as soon as this file of a step is there and the step is not finished.
KILLS = (
    ("20_connector", "scratch/trainer/checkpoints/*/checkpoint-[2-7]/trainer_state.json"),
    ("30_mm-full", "scratch/trainer/checkpoints/*/checkpoint-[2-7]/trainer_state.json"),
    ("50_truthfulqa", "scratch/answers/*/*.jsonl"),
)


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A project of its own: the real notebooks and package, a study of a few steps."""
    root = tmp_path_factory.mktemp("project")
    for name in ("notebooks", "sbt"):
        (root / name).symlink_to(paths.package().parent / name)
    (root / "params" / "tiny").mkdir(parents=True)
    (root / "params" / "tiny" / "plan.yaml").write_text(PLAN)
    return root


def start(root: Path, outputs: Path, *words: str) -> subprocess.Popen:
    environment = os.environ | {"SBT_ROOT": str(root), "SBT_OUTPUTS": str(outputs), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "sbt", "run", "tiny", *words]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def results(outputs: Path) -> dict[str, str]:
    return {done.parent.name: json.loads(done.read_text())["result"] for done in sorted(outputs.glob("tiny/*/DONE"))}


@pytest.fixture(scope="module")
def whole(project, tmp_path_factory) -> Path:
    """Outputs of the study, run without an interruption."""
    outputs = tmp_path_factory.mktemp("whole")
    running = start(project, outputs)
    said, _ = running.communicate(timeout=900)
    assert running.returncode == 0, said
    assert len(results(outputs)) == 4
    return outputs


@pytest.mark.parametrize("step", ["30_mm-full", "50_truthfulqa"])
def test_killed_at_random_moments(project, whole, step):
    """`make test-kills` makes twenty kills of each step; the seconds are drawn, and printed where a test fails."""
    expected, folder, drawn = results(whole), whole / "tiny" / step, random.Random(os.environ.get("SBT_SEED", "0"))
    recorded = json.loads((folder / "manifest.json").read_text())
    longest, kills, made = 2 * recorded["seconds"] + 8, int(os.environ.get("SBT_KILLS", "1")), 0
    while made < kills:
        shutil.rmtree(folder)
        for _ in range(4):  # in one run of the step
            running = start(project, whole, "--only", step)
            seconds = drawn.uniform(0, longest)
            try:
                said, _ = running.communicate(timeout=seconds)
                assert running.returncode == 0, said
            except subprocess.TimeoutExpired:
                running.send_signal(signal.SIGKILL)
                running.communicate()
                made += 1
            print(f"{step}: {'killed' if running.returncode else 'ended'} after {seconds:.2f} s")
            if made == kills or not running.returncode:
                break
        last = start(project, whole, "--only", step)
        said, _ = last.communicate(timeout=900)
        assert last.returncode == 0, said
        assert results(whole) == expected
        again = json.loads((folder / "manifest.json").read_text())
        for name, output in recorded["outputs"].items():
            assert again["outputs"][name]["sha256"] == output["sha256"], name
        assert again["outputs"].keys() == recorded["outputs"].keys()


def test_killed_in_training_and_scoring_and_between_steps(project, whole, tmp_path):
    expected = results(whole)
    killed = tmp_path / "killed"
    for step, pattern in KILLS:
        running = start(project, killed)
        folder = killed / "tiny" / step
        while running.poll() is None and not any(folder.glob(pattern)):
            time.sleep(0.02)
        assert running.poll() is None, f"{step} was over before it could be killed: {running.communicate()[0]}"
        running.send_signal(signal.SIGKILL)
        running.communicate()
        assert not (folder / "DONE").exists()
    last = start(project, killed)
    said, _ = last.communicate(timeout=900)
    assert last.returncode == 0, said
    assert results(killed) == expected
    again = start(project, killed)
    said, _ = again.communicate(timeout=120)
    assert again.returncode == 0 and results(killed) == expected
