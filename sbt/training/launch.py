"""Training by several processes through `accelerate launch`, as if it were one in the notebook: same progress, same
history, an error in a process as itself; nothing goes on running when the notebook stops.

result = launch(spec, run.path("scratch/trainer"), settings, engine="ddp", processes=2, progress=run.progress)
"""

import importlib.util
import json
import os
import shutil
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import psutil
import torch
from datasets import Dataset
from torch import nn

from sbt.models.quantize import make_room
from sbt.training.processes import JOB, follow, machine_folder
from sbt.training.settings import Result, Settings, World
from sbt.training.spec import build, rows_of, save_rows
from sbt.training.train import Run, load, prepare, result, sft
from sbt.training.trainer import Progress
from sbt.utils import paths
from sbt.utils.errors import ParameterError, RunError
from sbt.utils.files import read_json, write_json, writing
from sbt.utils.progress import note
from sbt.utils.text import nearest

ENGINES = ("ddp", "fsdp", "zero2", "zero3")
PORT = 29500  # that several machines meet at; one machine takes a free one
_SHARED = 60.0  # seconds that a folder of several machines may lag behind


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
    sees. `built` is what `build(spec)` gave, if the notebook has it already; its weights leave the GPU before the
    processes begin (those of 4 bits cannot be moved and stay there).

    Several machines need a `folder` that they share, the files that the spec names at the same paths, and port PORT of
    the first one, whose address is `main_address`. A notebook runs on the first alone, and the others lend it their
    processes: `python -m sbt.training.join FOLDER MACHINE_RANK`. A script may make this same call on each, with its
    `machine_rank`; all return the same.

    The processes write to `folder/launch/machine-<rank>/launch.log` and checkpoints as `sft` does: the same call after
    a kill goes on. An error in a process is raised here with its type, message and rank; RunError where a process was
    killed.
    """
    world = _world(engine, processes, machines, machine_rank, main_address)
    model, processor = built if built is not None else build(spec)
    rows = rows_of(spec)
    if not engine:
        return sft(model, processor, rows, folder, settings, progress=progress)
    folder = Path(folder).absolute()
    run = prepare(model, processor, rows, folder, settings, world)
    if run.start < run.total:
        if machines > 1 and machine_rank == 0:
            note(f"Now on each of the other machines: python -m sbt.training.join {paths.shown(folder)} MACHINE_RANK")
        make_room(run.model)
        job = _write_job(spec, rows, folder, settings, world, machines, machine_rank, main_address)
        start(job, machine_rank, progress)
    return _collect(run, settings, machines)


def start(file: Path, machine_rank: int = 0, progress: Progress | None = None) -> None:
    """Run the share of one machine in the job of `file`, in its folder, to the end; raises as `launch` does."""
    job = read_json(file)
    first = machine_rank * job["processes"] // job["machines"]
    follow(_command(file, job, machine_rank), file.parent, job["processes"], progress, first=first)


def own_job(job: Mapping, machine_rank: int) -> Path:
    """The job of one machine as a file in its folder, whose workers end with this process."""
    me = psutil.Process()
    parent = {"pid": me.pid, "created": me.create_time()}
    return write_json(machine_folder(Path(job["folder"]), machine_rank) / JOB, {**job, "parent": parent})


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
        raise ParameterError(f"engine {engine!r} needs DeepSpeed: pip install -e '.[multi-gpu]'; 'fsdp' shards without it")
    if engine != "ddp" and not gpus:
        raise ParameterError(f"engine {engine!r} needs GPUs: without one there is 'ddp', or '' for one process")
    if 0 < gpus < here:
        raise ParameterError(f"{here} processes on this machine but {gpus} GPUs: each process needs its own")
    return World(processes, 0, engine)


def _write_job(
    spec: Mapping,
    rows: Sequence[dict] | Dataset,
    folder: Path,
    settings: Settings,
    world: World,
    machines: int,
    machine_rank: int,
    main_address: str,
) -> Path:
    """The job as a file for the workers of this machine; what an earlier one left in its folder is removed."""
    own = machine_folder(folder, machine_rank)
    with writing(own):
        shutil.rmtree(own, ignore_errors=True)
        own.mkdir(parents=True)
    job = {
        "spec": json.loads(json.dumps({**spec, "rows": str(save_rows(spec, rows, own))}, default=str)),
        "settings": asdict(settings),
        "folder": str(folder),
        "processes": world.processes,
        "engine": world.engine,
        "machines": machines,
        "main_address": main_address,
        "port": PORT if machines > 1 else _free_port(),
    }
    return own_job(job, machine_rank)


def _command(file: Path, job: Mapping, machine_rank: int) -> list[str]:
    settings, here = job["settings"], job["processes"] // job["machines"]
    options = {
        "config_file": paths.package() / "training" / "engines" / f"{job['engine']}.yaml",
        "num_processes": job["processes"],
        "num_machines": job["machines"],
        "machine_rank": machine_rank,
        "main_process_port": job["port"],
        "mixed_precision": "bf16" if settings["bf16"] else "fp16" if settings["fp16"] else "no",
        "num_cpu_threads_per_process": settings["threads"] or max(1, (os.cpu_count() or 1) // here),
    }
    if job["machines"] > 1:
        options["main_process_ip"] = job["main_address"]
    flags = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    launcher = [sys.executable, "-m", "accelerate.commands.launch"]
    return [*launcher, *flags, "--module", "sbt.training.worker", str(file)]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _collect(run: Run, settings: Settings, machines: int) -> Result:
    deadline = time.monotonic() + (_SHARED if machines > 1 else 0)
    while True:
        again = prepare(run.model, run.processor, run.rows, run.folder.parents[1], settings, run.world)
        if again.start >= again.total:
            return replace(result(again, load(again)), resumed_from=run.start)
        if time.monotonic() >= deadline:
            raise RunError(
                f"{paths.shown(run.folder)}: the processes ended but their last checkpoint is not there. On several "
                "machines `folder` must be one that all of them share"
            )
        time.sleep(1)
