"""Checkpoints of a run in progress: the trained tensors and the trainer's state, whole or not used at all.

Only what trains is saved (8 MB for a connector, not 13 GB). A checkpoint is written aside, closed with the SHA-256 of
each of its files, then renamed. One that a kill cut off, or whose files have changed since, is never resumed from.
"""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import psutil
import torch
from accelerate.utils import recursively_apply
from datasets import Dataset
from safetensors.torch import save_file
from torch import nn
from torch.utils.data import Sampler
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME
from transformers.trainer_utils import TrainOutput

from sbt.data.prepare import TOKENS
from sbt.models.arms import weights_sample
from sbt.models.llava import read_safetensors
from sbt.models.silence import safe_save
from sbt.training.collator import parts_of
from sbt.training.settings import Settings, World
from sbt.utils import env, paths
from sbt.utils.errors import CheckpointError, DataError, RunError
from sbt.utils.files import file_hash, read_json, sha256, write_json

WEIGHTS, COMPLETE, STATE, RUN = "trained.safetensors", "complete.json", "trainer_state.json", "run.json"
_PREFIX = "checkpoint-"


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters that train, by name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def save_weights(model: nn.Module, folder: Path, gathered: dict[str, torch.Tensor] | None = None) -> None:
    """Write the trained tensors; `gathered` is the whole state where each process holds only a part of the model.

    CheckpointError where a tensor that trains is not in it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    wanted = trained(model)
    if gathered is not None:
        if absent := sorted(set(wanted) - set(gathered)):
            raise CheckpointError(f"{paths.shown(folder)}: the engine gathered no {absent[0]}: weights are not saved")
        wanted = {name: gathered[name] for name in wanted}
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in wanted.items()}
    save_file(state, folder / WEIGHTS)


def host_copy(state: dict) -> dict | None:
    """`state`, nested as it is, with each tensor copied to host memory, also where it lies there.

    None where the copy would take more than half of the memory (bytes) that is free.
    """
    sizes = []
    recursively_apply(lambda tensor: sizes.append(tensor.nbytes), state)
    within_limit = env.memory_gb() * env.GB - psutil.Process().memory_info().rss  # of a container
    if min(psutil.virtual_memory().available, within_limit) < 2 * sum(sizes):
        return None
    return recursively_apply(lambda tensor: tensor.detach().to("cpu", copy=True), state)


def not_finite(model: nn.Module, gathered: dict[str, torch.Tensor] | None = None) -> str:
    """The name of a trained tensor that holds a NaN or an infinity; "" if there is none. Computed where it lies."""
    wanted = trained(model)
    tensors = wanted if gathered is None else {name: gathered[name] for name in wanted if name in gathered}
    return next((name for name, tensor in tensors.items() if not torch.isfinite(tensor.detach()).all()), "")


def load_weights(model: nn.Module, folder: Path) -> None:
    """Put the trained tensors back; CheckpointError unless they are exactly those that train now."""
    state, wanted = read_safetensors(Path(folder) / WEIGHTS), trained(model)
    if {k: v.shape for k, v in state.items()} != {k: v.shape for k, v in wanted.items()}:
        odd = sorted(set(state) ^ set(wanted)) or ["shapes"]
        raise CheckpointError(
            f"{paths.shown(Path(folder) / WEIGHTS)}: not the weights that train in this run ({odd[0]}). "
            "Delete the folder to start anew"
        )
    with torch.no_grad():
        for name, parameter in wanted.items():
            parameter.copy_(state[name])


def publish(staged: Path, folder: Path, keep: int) -> None:
    """Close the checkpoint in `staged`, move it into `folder` in one step, then drop all but the newest `keep`."""
    final = folder / staged.name
    found = sorted(file for file in staged.rglob("*") if file.is_file())  # sharded engines write folders
    files = {file.relative_to(staged).as_posix(): file_hash(file) for file in found}
    write_json(staged / COMPLETE, files)
    shutil.rmtree(final, ignore_errors=True)  # a damaged one of the same step
    os.replace(staged, final)
    for old in _numbered(folder)[keep:]:
        shutil.rmtree(old, ignore_errors=True)


def newest(folder: Path, say: Callable[[str], None] = lambda words: None) -> Path | None:
    """The newest checkpoint whose files all have their recorded SHA-256; None if there is none.

    `say` gets a sentence for every damaged checkpoint that is passed over.
    """
    for checkpoint in _numbered(folder):
        if not (wrong := _damage(checkpoint)):
            return checkpoint
        say(f"{paths.shown(checkpoint)} is damaged ({wrong}): training goes on from the checkpoint before, or anew")
    return None


def step_of(checkpoint: Path | None) -> int:
    """Optimizer steps done at a checkpoint; 0 for None."""
    return int(checkpoint.name.removeprefix(_PREFIX)) if checkpoint else 0


class ExactResume:
    """Lets a trainer of TRL's resume with the very same weights. After init, set `folder` and `keep` (checkpoints).

    `order`, if set, draws the rows. It asks for the epoch itself, because accelerate's loader for several processes
    starts again with the order of epoch 0 after a resume (transformers PR #40691, accelerate #2016).

    One process that holds the whole model stops only while weights and optimizer are copied to host memory; a thread
    writes the copy while training goes on. A checkpoint is written in place where that memory does not hold the copy.
    """

    folder: Path
    keep: int
    order: Sampler[int] | None = None
    copied: dict | None = None  # while a checkpoint begins: what the thread is to write
    written: Future | None = None  # done when the thread has published the checkpoint

    def train(self, *args: object, **kwargs: object) -> TrainOutput:
        """Train. When this returns or raises, nothing writes a checkpoint any more."""
        with ThreadPoolExecutor(max_workers=1) as self.writer:
            made = super().train(*args, **kwargs)
            self._wait_until_written()
        return made

    def _wait_until_written(self) -> None:
        """Wait for the checkpoint that the thread writes, if any; raise what writing it raised."""
        written, self.written = self.written, None
        if written is not None:
            written.result()

    def _maybe_log_save_evaluate(self, *args: object, **kwargs: object) -> None:
        """At each step: an error of the thread ends the run."""
        if self.written is not None and self.written.done():
            self._wait_until_written()
        super()._maybe_log_save_evaluate(*args, **kwargs)

    def _get_train_sampler(self, *args: object, **kwargs: object) -> Sampler[int] | None:
        return self.order if self.order is not None else super()._get_train_sampler(*args, **kwargs)

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        """Save the trained tensors only; sharded engines pass the gathered state. RunError for a NaN or infinity."""
        if not self.args.should_save:
            return
        model = self.accelerator.unwrap_model(self.model)
        if wrong := not_finite(model, state_dict):
            sound = step_of(newest(self.folder))
            raise RunError(
                f"weights are not finite after step {self.state.global_step} ({wrong}) and are not saved; the last "
                f"sound checkpoint is of step {sound}: lower learning_rate, or train in float32 or bf16"
            )
        if self.copied is None:
            save_weights(model, Path(output_dir), state_dict)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        """Leave the optimizer's state, where it is copied, to the thread."""
        if self.copied is None:
            super()._save_optimizer_and_scheduler(output_dir)
        else:
            Path(output_dir).mkdir(parents=True, exist_ok=True)
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir) / SCHEDULER_NAME)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        """Load by parameter name: transformers looks for the names on disk and restores nothing of a full LLaVA."""
        if self.is_deepspeed_enabled or self.is_fsdp_enabled:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            target = self.accelerator.unwrap_model(model if model is not None else self.model)
            load_weights(target, Path(resume_from_checkpoint))

    def _save_checkpoint(self, model: nn.Module, trial: object) -> None:
        """Write aside and rename: transformers writes in place, so a kill leaves half a checkpoint.

        The last checkpoint needs no optimizer state.
        """
        self._wait_until_written()
        staging = self.folder / "writing"
        final = self.state.global_step >= self.state.max_steps
        if self.args.should_save:
            shutil.rmtree(staging, ignore_errors=True)
        self.accelerator.wait_for_everyone()  # before the others write their random state into it
        engine = self.is_fsdp_enabled or self.is_deepspeed_enabled
        if self.accelerator.num_processes == 1 and not (engine or final):
            weights = trained(self.accelerator.unwrap_model(self.model))
            self.copied = host_copy({"weights": weights, "optimizer": self.optimizer.state_dict()})
        self.args.output_dir, self.args.save_only_model = str(staging), final
        try:
            with safe_save(self.folder):
                super()._save_checkpoint(model, trial)
        finally:
            self.args.output_dir, self.args.save_only_model = str(self.folder), False
            copied, self.copied = self.copied, None
        self.accelerator.wait_for_everyone()  # until they have
        staged = staging / f"checkpoint-{self.state.global_step}"
        if copied is not None:
            self.written = self.writer.submit(self._write, staged, copied)
        elif self.args.should_save:
            self._publish(staged)
        self.accelerator.wait_for_everyone()

    def _write(self, staged: Path, copied: dict) -> None:
        """Complete the checkpoint in `staged` with what was copied, and publish it."""
        with safe_save(self.folder):
            save_weights(self.accelerator.unwrap_model(self.model), staged, copied["weights"])
            torch.save(copied["optimizer"], staged / OPTIMIZER_NAME)
        copied.clear()  # its memory is free before the next checkpoint asks for some
        self._publish(staged)

    def _publish(self, staged: Path) -> None:
        publish(staged, self.folder, self.keep)
        shutil.rmtree(staged.parent, ignore_errors=True)

    def create_model_card(self, *args: object, **kwargs: object) -> None:
        """Write no model card: a checkpoint is not a release."""

    def _send_telemetry(self) -> None:
        """Send no telemetry."""


def record(folder: Path, identity: dict) -> list[str]:
    """Record a run's settings in its `folder`; how they differ from those of each other run with a checkpoint.

    A run with other settings, rows or weights has another folder, so it starts from step 0. `dtype: auto` can do that
    on another card. Nothing is said once the run has checkpoints of its own.
    """
    said = []
    for other in sorted(folder.parent.glob(f"*/{RUN}")):
        if _numbered(folder) or other.parent == folder or not (kept := _numbered(other.parent)):
            continue
        with contextlib.suppress(DataError):
            before = read_json(other)
            names = [name for name in sorted({*before, *identity}) if before.get(name) != identity.get(name)]
            changes = ", ".join(f"{name} {before.get(name)!r} -> {identity.get(name)!r}" for name in names)
            remedy = " To go on from it, set dtype to its format." if {"bf16", "fp16"} & set(names) else ""
            said.append(
                f"{paths.shown(kept[0])} is of a run that differs in {changes or 'its rows or starting weights'}: "
                f"this one starts from step 0.{remedy}"
            )
    write_json(folder / RUN, identity)
    return said


def identity_of(settings: Settings, world: World | None = None) -> dict:
    """The settings that decide the weights, as JSON values; with several processes, their number and engine too."""
    identity = settings.identity()
    if world is not None and world.processes > 1:
        identity |= {"processes": world.processes, "engine": world.engine}
    return json.loads(json.dumps(identity, default=str))


def fingerprint(model: nn.Module, rows: Dataset, settings: Settings, world: World | None = None) -> str:
    """16 hex digits that name the run: settings, rows (images by file name) and a sample of the starting weights.

    The same rows give the same name wherever they come from. With several processes, their number and engine count
    too: optimizer state and random numbers are kept by process.
    """
    identity = identity_of(settings, world)
    if settings.group_by_length and TOKENS in rows.column_names:
        identity |= {"lengths": TOKENS}  # other lengths, another order
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True, default=str).encode())
    for row in rows:
        digest.update(_row_bytes(row))
    digest.update(json.dumps(sorted(trained(model))).encode() + weights_sample(model).encode())
    return sha256(digest.digest())[:16]


def _row_bytes(row: dict) -> bytes:
    """A row, however it is written. Images count by file name: their folders differ from machine to machine."""
    turns = [
        (turn["role"], [(part["type"], part.get("text") or "") for part in parts_of(turn)]) for turn in row["messages"]
    ]
    images = [name.rpartition("/")[2] for name in row.get("images") or ()]
    return json.dumps([str(row["id"]), images, turns]).encode()


def _numbered(folder: Path) -> list[Path]:
    found = [path for path in folder.glob(f"{_PREFIX}*") if path.name.removeprefix(_PREFIX).isdigit()]
    return sorted(found, key=step_of, reverse=True)


def _damage(checkpoint: Path) -> str:
    """What is wrong with a checkpoint's files; "" if nothing is."""
    try:
        files, state = read_json(checkpoint / COMPLETE), read_json(checkpoint / STATE)
        for name, digest in files.items():
            if not (checkpoint / name).is_file():
                return f"{name} is missing"
            if file_hash(checkpoint / name) != digest:
                return f"{name} has changed since it was written"
        return "" if state["global_step"] == step_of(checkpoint) else f"{STATE} is of another step"
    except (DataError, OSError, AttributeError, KeyError, TypeError) as error:
        return f"{COMPLETE} or {STATE} cannot be read: {type(error).__name__}"
