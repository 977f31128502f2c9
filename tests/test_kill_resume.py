"""`kill -9` at any moment, then the same command: the results are those of an uninterrupted run, bit for bit."""

import json
import os
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


def start(root: Path, outputs: Path) -> subprocess.Popen:
    environment = os.environ | {"SBT_ROOT": str(root), "SBT_OUTPUTS": str(outputs), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "sbt", "run", "tiny"]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def results(outputs: Path) -> dict[str, str]:
    return {done.parent.name: json.loads(done.read_text())["result"] for done in sorted(outputs.glob("tiny/*/DONE"))}


def test_killed_in_training_and_scoring_and_between_steps(project, tmp_path):
    whole = start(project, tmp_path / "whole")
    said, _ = whole.communicate(timeout=900)
    assert whole.returncode == 0, said
    expected = results(tmp_path / "whole")
    assert len(expected) == 4

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
