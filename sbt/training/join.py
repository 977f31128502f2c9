"""Lend another machine's processes to a run whose notebook is on the first: python -m sbt.training.join FOLDER RANK

FOLDER is what `launch` was given (a notebook's `scratch/trainer`), on a disk that the machines share.
"""

import shutil
import sys
import time
from pathlib import Path

from sbt.training.launch import own_job, start
from sbt.training.processes import BEAT, JOB, machine_folder
from sbt.utils import paths
from sbt.utils.errors import ParameterError, RunError, SbtError
from sbt.utils.files import read_json, writing

WAIT, _POLL = 600.0, 0.2  # seconds for the first machine to begin, and between two looks


def join(folder: Path, machine_rank: int, seconds: float = WAIT) -> None:
    """Run this machine's share of the run in `folder` to its end. Only the first machine keeps results.

    Waits so many `seconds` for the first machine: RunError if it does not train by then. ParameterError for a
    `machine_rank` that the run has not; else raises as `launch` does.
    """
    folder = Path(folder).absolute()
    first = machine_folder(folder, 0)
    _wait(first, seconds)
    job = read_json(first / JOB)
    if not 0 < machine_rank < job["machines"]:
        raise ParameterError(f"the run has {job['machines']} machines: RANK {machine_rank} must be 1 or more and less")
    own = machine_folder(folder, machine_rank)
    with writing(own):
        shutil.rmtree(own, ignore_errors=True)
        own.mkdir(parents=True)
    start(own_job({**job, "folder": str(folder)}, machine_rank), machine_rank)


def _wait(first: Path, seconds: float) -> None:
    """Until the first machine's notebook is seen at work: a job that it was killed in lies there too."""
    deadline, seen = time.monotonic() + seconds, set()
    while len(seen) < 2:
        if (first / BEAT).exists():
            seen.add((first / BEAT).stat().st_mtime_ns)
        if time.monotonic() >= deadline:
            raise RunError(f"{paths.shown(first)}: the first machine is not training. Start its notebook, then this")
        time.sleep(_POLL)


def main(arguments: list[str]) -> int:
    """The command; its exit status."""
    try:
        if len(arguments) != 2 or not arguments[1].isdigit():
            raise ParameterError("two values are needed: the shared folder, and this machine's rank from 1")
        join(paths.resolve(arguments[0]), int(arguments[1]))
    except SbtError as error:
        print(f"sbt.training.join: {error}", file=sys.stderr)
        return 1
    print("the run has ended; its results are the first machine's")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
