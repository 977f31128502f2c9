"""Executes one notebook with papermill, in a process of its own that ends when the one that started it does.

A process and not a thread: papermill changes the working directory of its whole process while a notebook runs. The
processes are copies of one that has imported papermill, since importing it takes longer than starting a kernel.
"""

import multiprocessing
import os
import threading
from collections.abc import Mapping
from multiprocessing.connection import Connection
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
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["papermill", __name__])


class Execution:
    """A notebook at work: `source` with `values` as its parameters, saved to `output` after every cell.

    `threads`: for its computations; 0 for as many as the libraries take by themselves.
    """

    def __init__(self, source: Path, output: Path, values: dict, threads: int = 0) -> None:
        limits = {"OMP_NUM_THREADS": str(threads)} if threads and "OMP_NUM_THREADS" not in os.environ else {}
        environment = os.environ | paths.environment() | limits
        self._result, theirs = PROCESSES.Pipe()
        job = (theirs, environment, str(source), str(output), values)
        self._process = PROCESSES.Process(target=_execute_here, args=job, daemon=True)
        self._process.start()
        theirs.close()  # from a closed pipe the other process learns that this one has ended

    def problem(self) -> str | None:
        """What went wrong, in words; empty where nothing did; None while the notebook is at work."""
        if not self._result.poll():
            return None
        try:
            return self._result.recv()
        except (EOFError, ConnectionError):
            self._process.join()
            return f"the process that executed it ended with status {self._process.exitcode}"
        finally:
            self._end()

    def stop(self) -> None:
        """End it and its kernel, wherever they are."""
        self._process.terminate()
        self._end()

    def _end(self) -> None:
        self._process.join(PATIENCE)
        self._process.kill()
        self._process.join()
        self._process.close()
        self._result.close()


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


def _execute_here(result: Connection, environment: Mapping[str, str], source: str, output: str, values: dict) -> None:
    """Execute a notebook in this new process, and send the problem."""
    os.setsid()  # Ctrl-C is for the process that started this one, which ends all it has started
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the terminal belongs to the lines of progress
    os.environ.clear()  # it was that of the copied process
    os.environ.update(environment)
    threading.Thread(target=_end_with_parent, args=[result], daemon=True).start()
    result.send(execute(source, output, values))


def _end_with_parent(result: Connection) -> None:
    result.poll(None)  # nothing is ever sent here: it returns when the other end is closed
    os._exit(1)  # the kernel looks after its own parent
