"""Training by several processes through `accelerate launch`, as if it were one in the notebook: same progress, same
history, an error in a process as itself; nothing goes on running when the notebook stops.

result = launch(spec, run.path("scratch/trainer"), settings, engine="ddp", processes=2, progress=run.progress)
"""

import contextlib
import importlib.util
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import psutil
import torch
from torch import nn

from sbt import errors, paths
from sbt.errors import ParameterError, RunError
from sbt.files import write_json, write_jsonl, writing
from sbt.text import nearest
from sbt.training.settings import EXTRA, Result, Settings, World
from sbt.training.sft import Run, load, prepare, result, sft
from sbt.training.spec import build, rows_of
from sbt.training.trainer import Progress

ENGINES = ("ddp", "fsdp", "zero2", "zero3")
LOG, JOB = "launch.log", "job.json"
PORT = 29500  # that several machines meet at; one machine takes a free one
_POLL, _PATIENCE = 0.1, 5.0  # seconds between two looks at the processes, and until they are killed
# what the launcher says of an ended process, while it ends and in its report at the end
_SIGNALS = (
    re.compile(r"exitcode\s*: -(?P<signal>\d+)\) local_rank: (?P<rank>\d+)"),
    re.compile(r"rank\s*: (?P<rank>\d+) \(local_rank: \d+\)\s+exitcode\s*: -(?P<signal>\d+)"),
    re.compile(r"exitcode\s*: -(?P<signal>\d+)"),
)
_TERMINATED = 15  # how the launcher ends the processes that are left when one has failed


def launch(
    spec: Mapping,
    folder: Path,
    settings: Settings,
    engine: str = "ddp",
    processes: int = 2,
    machines: int = 1,
    machine_rank: int = 0,
    main_address: str = "",
    progress: Progress | None = None,
    *,
    built: tuple[nn.Module, object] | None = None,
) -> Result:
    """Train what `spec` describes (see `spec.build`) and return the history and the model with its trained weights.

    `engine` "" trains in this process (`sft`); "ddp", "fsdp", "zero2" and "zero3" train in `processes` (over all
    `machines`), each on its GPU, "ddp" on the CPU too where there is none. A step sees `processes` times
    `settings.batch_size * settings.accumulation` rows, the very ones that one process with as much more accumulation
    sees. On several machines the same call is made on each, with its `machine_rank`, the `main_address` of the first
    one and a `folder` that all of them share. `built` is what `build(spec)` gave, if the notebook has it already.

    The processes write to `folder/launch.log` and checkpoints as `sft` does: the same call after a kill goes on.
    An error in a process is raised here with its type, message and rank; RunError where a process was killed.
    """
    world = _world(engine, processes, machines, machine_rank, main_address)
    model, processor = built if built is not None else build(spec)
    rows = rows_of(spec)
    if not engine:
        return sft(model, processor, rows, folder, settings, progress=progress)
    folder = Path(folder).absolute()
    run = prepare(model, processor, rows, folder, settings, world)
    if run.start < run.total:
        job = _write_job(spec, rows, folder, settings, world)
        command = _command(job, settings, world, machines, machine_rank, main_address)
        follow(command, folder, processes, progress)
    return _collect(run, settings)


def follow(command: Sequence[str], folder: Path, processes: int, progress: Progress | None = None) -> None:
    """Run the launcher's `command` to its end, telling `progress` what the first process says.

    Whatever ends this call ends the processes too. Raises what a process raised, or RunError.
    """
    environment = os.environ | {"SBT_ROOT": str(paths.root()), "PYTHONUNBUFFERED": "1"}
    with writing(folder / LOG), open(folder / LOG, "wb") as log:
        # a session of its own: an interrupt of the notebook reaches this process, which ends the others in order
        started = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )
        try:
            read = 0
            while True:
                code = started.poll()
                read = _tell(_events(folder, 0), read, progress)
                if code is not None:
                    break
                time.sleep(_POLL)
        finally:
            _end(started)
    if code:
        raise _error(folder, processes, code)


def _world(engine: str, processes: int, machines: int, machine_rank: int, main_address: str) -> World:
    if not engine:
        return World()
    if engine not in ENGINES:
        raise ParameterError(f"engine {engine!r} is unknown{nearest(engine, ENGINES)}; '' trains in the notebook")
    if processes < 2 or machines < 1 or processes % machines or not 0 <= machine_rank < machines:
        raise ParameterError(
            f"processes={processes}, machines={machines}, machine_rank={machine_rank}: there must be two processes at "
            "least, as many on each machine, and the machines' ranks count from 0"
        )
    if machines > 1 and not main_address:
        raise ParameterError("several machines need main_address, the address of the one with machine_rank 0")
    gpus, here = torch.cuda.device_count(), processes // machines
    if engine.startswith("zero") and importlib.util.find_spec("deepspeed") is None:
        raise ParameterError(f"engine {engine!r} needs DeepSpeed: {EXTRA}; 'fsdp' shards without it")
    if engine != "ddp" and not gpus:
        raise ParameterError(f"engine {engine!r} needs GPUs: without one there is 'ddp', or '' for one process")
    if 0 < gpus < here:
        raise ParameterError(f"{here} processes on this machine but {gpus} GPUs: each process needs its own")
    return World(processes, 0, engine)


def _write_job(spec: Mapping, rows: object, folder: Path, settings: Settings, world: World) -> Path:
    """The job as a file for the workers, the events of an earlier one removed."""
    own = folder / "launch"
    with writing(own):
        shutil.rmtree(own, ignore_errors=True)
        own.mkdir(parents=True)
    given = dict(spec)
    if not isinstance(given["rows"], str | Path):
        given["rows"] = str(write_jsonl(own / "rows.jsonl", rows))
    me = psutil.Process()
    job = {
        "spec": json.loads(json.dumps(given, default=str)),
        "settings": asdict(settings),
        "folder": str(folder),
        "processes": world.processes,
        "engine": world.engine,
        "parent": {"pid": me.pid, "created": me.create_time()},
    }
    return write_json(own / JOB, job)


def _command(
    job: Path, settings: Settings, world: World, machines: int, machine_rank: int, main_address: str
) -> list[str]:
    here = world.processes // machines
    options = {
        "config_file": paths.package() / "training" / "engines" / f"{world.engine}.yaml",
        "num_processes": world.processes,
        "num_machines": machines,
        "machine_rank": machine_rank,
        "main_process_port": PORT if machines > 1 else _free_port(),
        "mixed_precision": "bf16" if settings.bf16 else "fp16" if settings.fp16 else "no",
        "num_cpu_threads_per_process": settings.threads or max(1, (os.cpu_count() or 1) // here),
    }
    if machines > 1:
        options["main_process_ip"] = main_address
    flags = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    launcher = [sys.executable, "-m", "accelerate.commands.launch"]
    return [*launcher, *flags, "--module", "sbt.training.worker", str(job)]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _collect(run: Run, settings: Settings) -> Result:
    again = prepare(run.model, run.processor, run.rows, run.folder.parents[1], settings, run.world)
    if again.start < again.total:
        raise RunError(
            f"{paths.shown(run.folder)}: the processes ended but their last checkpoint is not there. On several "
            "machines `folder` must be one that all of them share"
        )
    return replace(result(again, load(again)), resumed_from=run.start)


def _events(folder: Path, rank: int) -> list[dict]:
    """What a process has said so far; a line that is still being written is left for later."""
    try:
        text = (folder / "launch" / f"events.{rank}.jsonl").read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in text.split("\n")[:-1]]


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


def _error(folder: Path, processes: int, code: int) -> Exception:
    """The error that ended the run: a killed process, else an error of this package, else the first one of all."""
    log = (folder / LOG).read_text(encoding="utf-8", errors="replace")
    where = f"The whole output is in {paths.shown(folder / LOG)}"
    for ended in (ended.groupdict() for pattern in _SIGNALS for ended in pattern.finditer(log)):
        if (signal := int(ended["signal"])) != _TERMINATED:
            which = f"process {ended['rank']} of {processes}" if "rank" in ended else f"one of {processes} processes"
            return RunError(
                f"{which} was killed by signal {signal} (9: often for lack of memory). The same call goes on from the "
                f"last checkpoint. {where}"
            )
    failed = [{**event, "rank": rank} for rank in range(processes) for event in _events(folder, rank)]
    failed = sorted((event for event in failed if "error" in event), key=lambda event: event["time"])
    for event in failed:  # the others fail because this one did
        if event["module"] == errors.__name__:
            return getattr(errors, event["error"])(f"process {event['rank']} of {processes}: {event['message']}")
    if failed:
        event = failed[0]
        return RunError(f"process {event['rank']} of {processes}: {event['error']}: {event['message']}. {where}")
    last = next((line for line in reversed(log.splitlines()) if line.strip()), "it said nothing")
    return RunError(f"the processes could not be started (status {code}): {last.strip()}. {where}")
