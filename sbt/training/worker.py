"""One of several training processes, started by `accelerate launch` (see `distributed`): -m sbt.training.worker JOB

It writes its events (start, each step, end or error) to `events.<rank>.jsonl` beside the job.
"""

import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import psutil
import torch

from sbt.training.distributed import TRAINERS, build_model_and_rows
from sbt.training.settings import World

SECONDS = 0.5  # between two looks at the process that started the run


def tell(folder: Path, rank: int, **event: object) -> None:
    """Append an event of a process to its file, whole and at once."""
    with open(folder / f"events.{rank}.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps({"time": time.time(), **event}) + "\n")


def follow_parent(pid: int, created: float, end: Callable[[], None] = lambda: os._exit(1)) -> threading.Thread:
    """End this process as soon as the notebook's process is gone: if that one is killed, it cannot end others."""

    def look() -> None:
        while True:
            try:
                if abs(psutil.Process(pid).create_time() - created) > 1:
                    break  # another process has this number by now
            except psutil.NoSuchProcess:
                break
            time.sleep(SECONDS)
        end()

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    return thread


def work(job: dict, rank: int, folder: Path) -> None:
    """Train this process's share of the job."""

    def progress(step: int, total: int, **numbers: float) -> None:
        tell(folder, rank, step=step, total=total, numbers=numbers)

    world = World(job["processes"], rank, job["engine"])
    model, processor, rows = build_model_and_rows(job["spec"])
    kind, by = next((kind, by) for kind, by in TRAINERS.items() if kind.__name__ == job["method"])
    run = by.prepare(model, processor, rows, Path(job["folder"]), kind(**job["settings"]), world, job["heldout"])
    if run.start < run.total:
        by.train(run, progress)


def main(arguments: list[str]) -> int:
    """Run one process of the job in the file that the arguments name; return the exit status."""
    job = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))
    rank = int(os.environ.get("RANK", "0"))
    folder = Path(arguments[0]).parent
    tell(folder, rank, began=os.getpid())
    if os.environ.get("GROUP_RANK", "0") == "0":  # the notebook runs on the first machine only
        follow_parent(**job["parent"])
    try:
        if torch.cuda.is_available():  # before a weight is loaded: those of 4 bits stay on the GPU they are put on
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        work(job, rank, folder)
    except BaseException as error:
        tell(folder, rank, error=type(error).__name__, module=type(error).__module__, message=str(error))
        traceback.print_exc()
        sys.stderr.flush()
        return 1
    tell(folder, rank, done=True)
    return 0


if __name__ == "__main__":
    # exit at once: a process group that waits for a failed member would never let go
    status = main(sys.argv[1:])
    sys.stdout.flush()
    os._exit(status)
