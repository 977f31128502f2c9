"""The launcher's processes as the notebook sees them: progress while they run, the error of one that failed as itself,
and an end for all of them whenever the notebook stops.

Each machine has a folder of its own, `launch/machine-<rank>`; `events.<rank>.jsonl` counts processes over all of them.
"""

import contextlib
import json
import os
import re
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from sbt.training.trainer import Progress
from sbt.utils import errors, paths
from sbt.utils.errors import RunError
from sbt.utils.files import writing

LOG, JOB, BEAT = "launch.log", "job.json", "beat"
_POLL, _PATIENCE = 0.1, 5.0  # seconds between two looks at the processes, and until they are killed
# what the launcher says of an ended process, while it ends and in its report at the end
_SIGNALS = (
    re.compile(r"exitcode\s*: -(?P<signal>\d+)\) local_rank: (?P<local>\d+)"),
    re.compile(r"rank\s*: (?P<rank>\d+) \(local_rank: \d+\)\s+exitcode\s*: -(?P<signal>\d+)"),
    re.compile(r"exitcode\s*: -(?P<signal>\d+)"),
)
_TERMINATED = 15  # how the launcher ends the processes that are left when one has failed


def machine_folder(folder: Path, machine_rank: int) -> Path:
    """Where one machine keeps its job, its log and its processes' events, below the run's `folder`."""
    return Path(folder) / "launch" / f"machine-{machine_rank}"


def follow(
    command: Sequence[str], own: Path, processes: int, progress: Progress | None = None, *, first: int = 0
) -> None:
    """Run the launcher's `command` to its end in the machine's folder `own`, telling `progress` what process 0 says.

    `first` is the lowest number of a process of this machine. Whatever ends this call ends its processes too. Raises
    what a process raised, or RunError.
    """
    environment = os.environ | {"SBT_ROOT": str(paths.root()), "PYTHONUNBUFFERED": "1"}
    with writing(own / LOG), open(own / LOG, "wb") as log:
        beat = own / BEAT
        beat.touch()
        since = beat.stat().st_mtime  # by the clock of the disk: those of several machines differ
        # a session of its own: an interrupt of the notebook reaches this process, which ends the others in order
        started = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )
        try:
            read = 0
            while True:
                code = started.poll()
                read = _tell(_events(own, 0, since), read, progress)
                if code is not None:
                    break
                with contextlib.suppress(OSError):  # what `join` looks for; a hiccup of the disk ends no run
                    beat.touch()
                time.sleep(_POLL)
        finally:
            beat.unlink(missing_ok=True)
            _end(started)
    if code:
        raise _error(own, processes, code, first=first, since=since)


def _events(own: Path, rank: int, since: float = 0.0) -> list[dict]:
    """What a process, of any machine, has said since then; a line that is still being written is left for later."""
    events = []
    for file in sorted(own.parent.glob(f"machine-*/events.{rank}.jsonl")):
        with contextlib.suppress(FileNotFoundError):  # its machine is just beginning
            if file.stat().st_mtime >= since or file.parent == own:
                events += [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n")[:-1]]
    return events


def _tell(events: list[dict], read: int, progress: Progress | None) -> int:
    for event in events[read:]:
        if progress is not None and "step" in event:
            progress(event["step"], event["total"], **event["numbers"])
    return len(events)


def _end(started: subprocess.Popen) -> None:
    """End the launcher and whatever it started. Checkpoints are whole at any moment, so a kill harms nothing."""
    try:
        launcher = psutil.Process(started.pid)
        family = [launcher, *launcher.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    _, alive = psutil.wait_procs(family, timeout=_PATIENCE)
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    started.wait()


def _error(own: Path, processes: int, code: int, *, first: int = 0, since: float = 0.0) -> Exception:
    """The error that ended the run: a killed process, else an error of this package, else the first one of all."""
    log = (own / LOG).read_text(encoding="utf-8", errors="replace")
    where = f"The whole output is in {paths.shown(own / LOG)}"
    for ended in (ended.groupdict() for pattern in _SIGNALS for ended in pattern.finditer(log)):
        if (signal := int(ended["signal"])) != _TERMINATED:
            rank = ended.get("rank") or (str(first + int(ended["local"])) if "local" in ended else "")
            which = f"process {rank} of {processes}" if rank else f"one of {processes} processes"
            return RunError(
                f"{which} was killed by signal {signal} (9: often for lack of memory). The same call goes on from the "
                f"last checkpoint. {where}"
            )
    failed = [{**event, "rank": rank} for rank in range(processes) for event in _events(own, rank, since)]
    failed = sorted((event for event in failed if "error" in event), key=lambda event: event["time"])
    for event in failed:  # the others fail because this one did
        if event["module"] == errors.__name__:
            return getattr(errors, event["error"])(f"process {event['rank']} of {processes}: {event['message']}")
    if failed:
        event = failed[0]
        return RunError(f"process {event['rank']} of {processes}: {event['error']}: {event['message']}. {where}")
    last = next((line for line in reversed(log.splitlines()) if line.strip()), "it said nothing")
    return RunError(f"the processes could not be started (status {code}): {last.strip()}. {where}")
