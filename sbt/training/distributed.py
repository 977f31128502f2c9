"""Training by one process or by several through `accelerate launch`, with the same progress, history and errors.

spec = {"model": {"arm": "outputs/embedded/20_connector/model"},
        "train": {"policy": {"connector": "full", "language_model": "full"}, "seed": 0}, "rows": "rows.jsonl"}
result = launch(spec, run.path("scratch/trainer"), settings, engine="ddp", processes=2, progress=run.progress)

A spec is a JSON value: the notebook and every worker build the model from it by the same code. The folder `launch` in
the trainer's folder holds the job, the launcher's output and one file of events for each process.
"""

import contextlib
import importlib.util
import json
import os
import re
import shlex
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
from datasets import Dataset
from torch import nn
from transformers import PreTrainedTokenizerBase, ProcessorMixin

from sbt.data import prepare as prepared_data
from sbt.models import assemble, load_arm, load_language_model, set_trainable
from sbt.models.quantize import make_room
from sbt.training import preference
from sbt.training import train as supervised
from sbt.training.preference import PreferenceSettings
from sbt.training.settings import Result, Settings, World
from sbt.training.train import Run, load
from sbt.training.trainer import Progress
from sbt.utils import errors, paths
from sbt.utils.errors import ParameterError, RunError
from sbt.utils.files import read_jsonl, write_json, write_jsonl, writing
from sbt.utils.progress import note
from sbt.utils.text import nearest

Rows = Sequence[dict] | Dataset
Built = tuple[nn.Module, ProcessorMixin | PreTrainedTokenizerBase, Rows]

# settings -> the module that has `prepare`, `train` and `result` for them
TRAINERS = {Settings: supervised, PreferenceSettings: preference}
ENGINES = ("ddp", "fsdp", "zero2", "zero3")
PORT = 29500  # where several machines meet; one machine takes a free port
LOG, JOB = "launch.log", "job.json"
_POLL, _PATIENCE = 0.1, 5.0  # seconds between two looks at the processes, and until they are killed
# how the launcher reports a process that a signal ended: while it ends, and in its summary
_SIGNALS = (
    re.compile(r"exitcode\s*: -(?P<signal>\d+)\) local_rank: (?P<local>\d+)"),
    re.compile(r"rank\s*: (?P<rank>\d+) \(local_rank: \d+\)\s+exitcode\s*: -(?P<signal>\d+)"),
    re.compile(r"exitcode\s*: -(?P<signal>\d+)"),
)
_TERMINATED = 15  # the signal by which the launcher ends the remaining processes when one has failed


def build_model_and_rows(spec: Mapping) -> Built:
    """The model of a spec, frozen and freed as it says, its processor, and the rows to train on.

    `model`: `{"arm": reference, ...}` with arguments of `models.load_arm`; `{"language_model": ..., "vision_tower":
    ..., ...}` with those of `models.assemble`, or without a tower those of `models.load_language_model`. `train`:
    arguments of `models.set_trainable` (policy, lora, seed). `rows`: a list or data set, taken as it is; a JSON-lines
    file; or a folder of prepared data, mapped and not read. ParameterError where rows or model are missing.
    """
    if (rows := spec.get("rows")) is None:
        raise ParameterError("spec: no 'rows': name a JSON-lines file or a folder of a prepared data set")
    if isinstance(rows, str | Path):
        path = paths.resolve(str(rows))
        rows = prepared_data.load(path) if path.is_dir() else read_jsonl(path)
    given = dict(spec.get("model") or {})
    if "arm" in given:
        arm = load_arm(given.pop("arm"), **given)
        model, processor = arm.model, arm.processor
    elif "vision_tower" in given:
        model, processor = assemble(**given)
    elif "language_model" in given:
        model, processor = load_language_model(given.pop("language_model"), **given)
    else:
        raise ParameterError("spec: 'model' names neither an 'arm' nor a 'language_model'")
    return set_trainable(model, **(spec.get("train") or {"policy": {}})), processor, rows


def formats(tuning: str, precision: str, engine: str = "") -> dict[str, str]:
    """`load`: the format to read weights in; `frozen`: the format of those that stay frozen ("" for as they are).

    Weights that train are never rounded to half precision; FSDP needs one format in all of a shard.
    """
    load = "float32" if tuning == "full" or engine == "fsdp" else precision
    return {"load": load, "frozen": "" if engine == "fsdp" else precision}


def launch(
    spec: Mapping,
    folder: Path,
    settings: Settings,
    engine: str = "ddp",
    processes: int = 2,
    machines: int = 1,
    main_address: str = "",
    progress: Progress | None = None,
    *,
    built: Built | None = None,
    heldout: Sequence[dict] = (),
) -> Result:
    """Train what `spec` describes (see `build_model_and_rows`); return the history and the trained model.

    `settings` tell the method: `PreferenceSettings` train on pairs (`preference.dpo`), `Settings` on conversations
    (`sft`). `engine` "" trains in this process. "ddp", "fsdp", "zero2" and "zero3" train in `processes` (over all
    `machines`), each on its GPU; "ddp" works on the CPU too. A step sees `processes` times `settings.batch_size *
    settings.accumulation` rows: the very rows that one process with more accumulation sees. `built` is what
    `build_model_and_rows(spec)` gave, if the notebook has it already; its weights leave the GPU before the processes
    start (those of 4 bits cannot be moved and stay). `heldout` as in `sft`; not with "fsdp" and "zero3".

    Several machines need a `folder` on a disk that they share, the same paths, and port PORT of this machine, whose
    address is `main_address`. The command to run on each other machine (`accelerate launch`) is printed.

    Checkpoints are as with `sft`: the same call after a kill goes on. An error in a process is raised here with its
    type, message and rank; RunError where a process was killed.
    """
    world = _world(engine, processes, machines, main_address)
    model, processor, rows = built if built is not None else build_model_and_rows(spec)
    folder, by = Path(folder).absolute(), TRAINERS[type(settings)]
    run = by.prepare(model, processor, rows, folder, settings, world, heldout)
    if not engine:
        return by.result(run, by.train(run, progress) if run.start < run.total else load(run))
    if run.start < run.total:
        make_room(run.model)
        job = _write_job(spec, run, folder, heldout if settings.eval_steps else ())
        command = _command(job, settings, world, machines, main_address)
        if machines > 1:
            others = shlex.join(command).replace("--machine_rank 0", "--machine_rank MACHINE_RANK")
            note(f"Run this now on each other machine, with its MACHINE_RANK from 1 on:\n{others}")
        follow(command, job.parent, processes, progress)
    again = by.prepare(model, processor, rows, folder, settings, world, heldout)
    if again.start < again.total:
        raise RunError(f"{paths.shown(run.folder)}: the processes ended, but the last checkpoint is missing")
    return replace(by.result(again, load(again)), resumed_from=run.start)


def follow(command: Sequence[str], own: Path, processes: int, progress: Progress | None = None) -> None:
    """Run the launcher's `command` to its end, telling `progress` the steps of process 0 from its events in `own`.

    Whatever ends this call ends the processes too. Raises the error of the process that failed, or RunError.
    """
    environment = os.environ | {"SBT_ROOT": str(paths.root()), "PYTHONUNBUFFERED": "1"}
    with writing(own / LOG), open(own / LOG, "wb") as log:
        # a session of its own: an interrupt of the notebook reaches this process only, which ends the others in order
        launcher = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )
        try:
            told = 0
            while True:
                code = launcher.poll()
                events = _events(own, 0)
                for event in events[told:]:
                    if progress is not None and "step" in event:
                        progress(event["step"], event["total"], **event["numbers"])
                told = len(events)
                if code is not None:
                    break
                time.sleep(_POLL)
        finally:
            _end(launcher)
    if code:
        raise _error(own, processes, code)


def _world(engine: str, processes: int, machines: int, main_address: str) -> World:
    if not engine:
        return World()
    if engine not in ENGINES:
        raise ParameterError(f"engine {engine!r} is unknown{nearest(engine, ENGINES)}; '' trains in the notebook")
    if processes < 1 or machines < 1 or processes % machines:
        raise ParameterError(
            f"processes={processes}, machines={machines}: an engine needs a process or more, and the same number on "
            "each machine"
        )
    if processes == 1:
        note(f"engine {engine!r} with one process spreads nothing")
    if machines > 1 and not main_address:
        raise ParameterError("several machines need main_address, the address of the machine this notebook runs on")
    gpus, here = torch.cuda.device_count(), processes // machines
    if engine.startswith("zero") and importlib.util.find_spec("deepspeed") is None:
        raise ParameterError(f"engine {engine!r} needs DeepSpeed: pip install -e '.[multi-gpu]'; 'fsdp' does without")
    if engine != "ddp" and not gpus:
        raise ParameterError(f"engine {engine!r} needs GPUs: without one there is 'ddp', or '' for one process")
    if 0 < gpus < here:
        raise ParameterError(f"{here} processes on this machine but {gpus} GPUs: each process needs its own")
    return World(processes, 0, engine)


def _write_job(spec: Mapping, run: Run, folder: Path, heldout: Sequence[dict]) -> Path:
    """The job as a file for the workers, in an emptied folder. They end when this process ends."""
    own = folder / "launch"
    with writing(own):
        shutil.rmtree(own, ignore_errors=True)
        own.mkdir(parents=True)
    me = psutil.Process()
    job = {
        "spec": json.loads(json.dumps({**spec, "rows": str(_rows_file(spec, run.rows, own))}, default=str)),
        "heldout": list(heldout),
        "method": type(run.settings).__name__,
        "settings": asdict(run.settings),
        "folder": str(folder),
        "processes": run.world.processes,
        "engine": run.world.engine,
        "parent": {"pid": me.pid, "created": me.create_time()},
    }
    return write_json(own / JOB, job)


def _rows_file(spec: Mapping, rows: Rows, folder: Path) -> Path | str:
    """Where workers find the rows: where the spec says, or a copy in `folder`."""
    if isinstance(given := spec["rows"], str | Path):
        return given
    if not isinstance(rows, Dataset):  # pairs
        return write_jsonl(folder / "rows.jsonl", rows)
    with writing(folder / "rows"), prepared_data.quiet():
        rows.save_to_disk(str(folder / "rows"))
    return folder / "rows"


def _command(job: Path, settings: Settings, world: World, machines: int, main_address: str) -> list[str]:
    here = world.processes // machines
    options = {
        "config_file": paths.package() / "training" / "engines" / f"{world.engine}.yaml",
        "num_processes": world.processes,
        "num_machines": machines,
        "machine_rank": 0,
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


def _events(own: Path, rank: int) -> list[dict]:
    """The events that a process has written so far; a line that is still being written is left for later."""
    with contextlib.suppress(FileNotFoundError):  # the process has not started yet
        text = (own / f"events.{rank}.jsonl").read_text(encoding="utf-8")
        return [json.loads(line) for line in text.split("\n")[:-1]]
    return []


def _end(launcher: subprocess.Popen) -> None:
    """End the launcher and whatever it started. Checkpoints are whole at any moment, so a kill harms nothing."""
    try:
        process = psutil.Process(launcher.pid)
        family = [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    _, alive = psutil.wait_procs(family, timeout=_PATIENCE)
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    launcher.wait()


def _error(own: Path, processes: int, code: int) -> Exception:
    """The error that ended the run: a killed process, else an error of this package, else the first of all errors."""
    log = (own / LOG).read_text(encoding="utf-8", errors="replace")
    where = f"The whole output is in {paths.shown(own / LOG)}"
    for ended in (ended.groupdict() for pattern in _SIGNALS for ended in pattern.finditer(log)):
        if (signal := int(ended["signal"])) != _TERMINATED:
            rank = ended.get("rank") or ended.get("local")
            which = f"process {rank} of {processes}" if rank else f"one of {processes} processes"
            return RunError(
                f"{which} was killed by signal {signal} (9: often for lack of memory). The same call goes on from the "
                f"last checkpoint. {where}"
            )
    failed = [{**event, "rank": rank} for rank in range(processes) for event in _events(own, rank)]
    failed = sorted((event for event in failed if "error" in event), key=lambda event: event["time"])
    for event in failed:  # the others fail because this one did
        if event["module"] == errors.__name__:
            return getattr(errors, event["error"])(f"process {event['rank']} of {processes}: {event['message']}")
    if failed:
        event = failed[0]
        return RunError(f"process {event['rank']} of {processes}: {event['error']}: {event['message']}. {where}")
    last = next((line for line in reversed(log.splitlines()) if line.strip()), "it said nothing")
    return RunError(f"the processes could not be started (status {code}): {last.strip()}. {where}")
