"""Steps that do not need each other run at once: together, one after the other, stopped, and when one fails."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import STUDY, write_notebook

from sbt.__main__ import main
from sbt.study import plan
from sbt.utils import env

# Comes to its end only if the other one is at work at the same time.
MEET = [
    STUDY.format(step="10_left") + 'other: str = "10_right"  # the step to meet\npatience: float = 20.0  # seconds\n'
    "fails: bool = False  # end in an error\n",
    'import sbt\nrun = sbt.begin(globals())\np = run.p',
    "import os\nimport time\n\n_ = run.path('pid').write_text(str(os.getpid()))\n"
    "assert not p.fails, 'as asked'\ndeadline = time.monotonic() + p.patience\n"
    "while not (run.folder.parent / p.other / 'pid').exists():\n"
    "    assert time.monotonic() < deadline, 'nobody came'\n    time.sleep(0.05)",
    "run.finish()",
]
PLAN = """\
title: Two that meet, and one after them
jobs: {jobs}
steps:
  - {{name: 10_left, notebook: 10_meet}}
  - {{name: 10_right, notebook: 10_meet, set: {{other: 10_left}}}}
  - {{name: 20_after, notebook: 10_meet, set: {{other: 10_left}}, needs: [10_left, 10_right]}}
"""


@pytest.fixture
def meeting(project: Path) -> Path:
    write_notebook(project / "notebooks" / "10_meet.ipynb", MEET)
    (project / "params" / "tiny" / "plan.yaml").write_text(PLAN.format(jobs=2))
    return project


def done(root: Path) -> list[str]:
    return sorted(file.parent.name for file in root.glob("outputs/tiny/*/DONE"))


def test_two_steps_run_at_once_and_a_third_after_them(meeting: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["run", "tiny"]) == 0
    assert done(meeting) == ["10_left", "10_right", "20_after"]
    lines = [line.split("]")[1].split()[:2] for line in capsys.readouterr().out.splitlines() if line.startswith("[")]
    assert sorted(lines[:2]) == [["10_left", "begins,"], ["10_right", "begins,"]]
    assert lines[4:] == [["20_after", "begins,"], ["20_after", "done"]]


def test_cores_are_shared_by_what_runs(meeting: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(env, "cores", lambda: 6)
    write_notebook(
        meeting / "notebooks" / "10_meet.ipynb",
        [*MEET[:-1], "_ = run.path('threads').write_text(os.environ.get('OMP_NUM_THREADS', 'all'))", MEET[-1]],
    )
    assert main(["run", "tiny"]) == 0
    assert main(["run", "tiny", "--only", "20_after", "--force"]) == 0
    outputs = meeting / "outputs" / "tiny"
    found = [(outputs / step / "threads").read_text() for step in ("10_left", "10_right", "20_after")]
    assert found == ["3", "3", "all"] and (outputs / "20_after.stale" / "threads").read_text() == "3"


def test_control_one_at_a_time_they_never_meet(meeting: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["run", "tiny", "--jobs", "1", "--set", "patience=1.0"]) == 1
    assert "10_left: cell In [4]: AssertionError: nobody came" in capsys.readouterr().err
    assert done(meeting) == ["10_right"]  # it starts after 10_left gave up, and finds its file


def test_after_a_failure_nothing_begins_and_what_runs_is_kept(meeting: Path, capsys: pytest.CaptureFixture) -> None:
    (meeting / "params" / "tiny" / "plan.yaml").write_text(
        PLAN.format(jobs=2).replace("{other: 10_left}}\n", "{other: 10_left, fails: true}}\n", 1)
    )
    assert main(["run", "tiny"]) == 1
    assert "10_right: cell In [4]: AssertionError: as asked" in capsys.readouterr().err
    assert done(meeting) == ["10_left"]


@pytest.mark.parametrize("ended_by", [signal.SIGINT, signal.SIGKILL])
def test_whatever_ends_the_command_ends_its_notebooks(meeting: Path, ended_by: signal.Signals) -> None:
    # where the tests themselves run in the background, SIGINT is ignored, and what they start inherits that
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); from sbt.__main__ import main; "
    )
    words = ["run", "tiny", "--set", "other=nobody", "--set", "patience=90.0"]
    command = [sys.executable, "-c", f"{code} sys.exit(main({words}))"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    files = [meeting / "outputs" / "tiny" / step / "pid" for step in ("10_left", "10_right")]
    deadline = time.monotonic() + 60
    while not all(file.exists() and file.read_text() for file in files):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    kernels = [int(file.read_text()) for file in files]
    process.send_signal(ended_by)
    out, err = process.communicate(timeout=30)
    deadline = time.monotonic() + 20
    while any(alive(kernel) for kernel in kernels):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    if ended_by == signal.SIGINT:
        assert process.returncode == 130 and out.count("interrupted in") == 2
        assert err.strip() == "stopped; the same command goes on from here"


def alive(pid: int) -> bool:
    """Whether a process works; one that ended and that nobody has asked about is a zombie."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()
    return bool(state) and not state.startswith("Z")


def test_how_many_run_at_once(meeting: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(env, "cores", lambda: 64)
    assert plan.load("tiny")[0].side_by_side() == 2
    (meeting / "params" / "tiny" / "plan.yaml").write_text(PLAN.format(jobs=0))
    assert plan.load("tiny")[0].side_by_side() == plan.MOST_JOBS
    (meeting / "params" / "tiny" / "plan.yaml").write_text("card: T4\n" + PLAN.format(jobs=0))
    assert plan.load("tiny")[0].side_by_side() == 1
    assert main(["run", "tiny", "--jobs", "-1"]) == 2
    assert "--jobs -1: at least 1" in capsys.readouterr().err
