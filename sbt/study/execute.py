"""Executes one notebook with papermill, in a process of its own that ends when the one that started it does.

A process and not a thread: papermill changes the working directory of its whole process while a notebook runs.
"""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

from sbt.utils import env, files, paths
from sbt.utils.errors import SbtError

KERNEL_DIED = (
    "the kernel died: the system ended it, probably for memory (this machine has {:.0f} GB). Close other programs or "
    "lower the batch size; the same command resumes the work"
)
PATIENCE = 10.0  # seconds for a stopped notebook to shut its kernel down
STARTS = 3  # a kernel binds its ports after they were found free: of two that start together, one may find them taken
NO_START = "the kernel did not start in {} attempts. Does `python -m ipykernel --version` work in this environment?"


class Execution:
    """A notebook at work: `source` with `values` as its parameters, saved to `output` after every cell.

    `threads`: for its computations; 0 for as many as the libraries take by themselves.
    """

    def __init__(self, source: Path, output: Path, values: dict, threads: int = 0) -> None:
        limits = {"OMP_NUM_THREADS": str(threads)} if threads and "OMP_NUM_THREADS" not in os.environ else {}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "sbt.study.execute"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | paths.environment() | limits,
            start_new_session=True,  # Ctrl-C is for the process that started it, which ends all it has started
        )
        job = {"source": str(source), "output": str(output), "values": values}
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()  # and left open: its end tells the other process that this one died

    def problem(self) -> str | None:
        """What went wrong, in words; empty where nothing did; None while the notebook is at work."""
        if self._process.poll() is None:
            return None
        said = self._process.stdout.read().splitlines()
        self._close()
        if self._process.returncode or not said:
            return f"the process that executed it ended with status {self._process.returncode}"
        return json.loads(said[-1])

    def stop(self) -> None:
        """End it and its kernel, wherever they are."""
        self._process.terminate()
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._close()

    def _close(self) -> None:
        self._process.stdin.close()
        self._process.stdout.close()


def execute(source: str, output: str, values: dict) -> str:
    """Execute a notebook in this process; the problem in words, or an empty string."""
    import papermill
    from nbclient.exceptions import DeadKernelError

    try:
        with files.writing(Path(output)):
            return _started(source, output, values)
    except papermill.PapermillExecutionError as error:
        return f"cell In [{error.exec_count}]: {error.ename}: {error.evalue.strip()}"
    except DeadKernelError:
        return KERNEL_DIED.format(env.memory_gb())
    except SbtError as error:
        return str(error)


def _started(source: str, output: str, values: dict) -> str:
    """Execute the notebook, and again where its kernel ended before any cell ran; the problem in words."""
    import papermill

    for _ in range(STARTS):
        try:
            papermill.execute_notebook(
                source, output, values, kernel_name="python3", language="python", progress_bar=False,
                cwd=paths.notebooks(), extra_arguments=["--log-level=50"],
            )  # fmt: skip
            return ""
        except RuntimeError as error:  # papermill's own errors are others: this one is of the kernel's start
            if not any(words in str(error) for words in ("kernel_info", "didn't respond")):
                raise
    return NO_START.format(STARTS)


def _end_with_parent() -> None:
    os.read(sys.stdin.fileno(), 1)  # returns when the other end is closed; the kernel looks after its own parent
    os._exit(1)


if __name__ == "__main__":
    job = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        print(json.dumps(execute(**job)), flush=True)
    except KeyboardInterrupt:
        sys.exit(130)
