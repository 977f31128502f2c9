"""TRL's SFTTrainer with its known faults mended.

Each override says which fault; a test for every one of them shows that the stock trainer has it.
"""

import contextlib
import math
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.distributed as dist
from peft import PeftModel
from torch import nn
from torch.utils.data import Sampler
from transformers import (
    LlavaForConditionalGeneration,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.utils import ModelOutput
from trl import SFTTrainer

from sbt.models.silence import safe_save
from sbt.training import checkpoints
from sbt.training.collator import IGNORED
from sbt.utils.errors import RunError

Progress = Callable[..., None]


class MendedTrainer(SFTTrainer):
    """Resumes with the very same weights; set `folder` and `keep` (number of checkpoints) after making it.

    `order`, if set, draws the rows. It asks for the epoch itself: the stock loader of several processes, when it skips
    what was trained before a resume, begins with the order of the first epoch again.
    """

    folder: Path
    keep: int
    order: Sampler[int] | None = None

    def _get_train_sampler(self, *args: object, **kwargs: object) -> Sampler[int] | None:
        return self.order if self.order is not None else super()._get_train_sampler(*args, **kwargs)

    def compute_loss(self, model: nn.Module, inputs: dict, *args: object, **kwargs: object) -> object:
        """Mended: without a GPU the stock one computes the head of every token, also of those without a label."""
        if inputs["labels"].device.type != "cpu":
            return super().compute_loss(model, inputs, *args, **kwargs)
        following = inputs.pop("labels")[:, 1:]
        labelled = following != IGNORED
        inputs["shift_labels"] = following[labelled][None]

        def keep(module: nn.Module, given: tuple, output: ModelOutput) -> ModelOutput:
            output.last_hidden_state = output.last_hidden_state[:, :-1][labelled][None]
            return output

        hook = _core(self.accelerator.unwrap_model(model)).base_model.register_forward_hook(keep)
        try:
            return super().compute_loss(model, inputs, *args, **kwargs)
        finally:
            hook.remove()

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        """Only what trains. Sharded engines hand over the state that they gathered."""
        if self.args.should_save:
            checkpoints.save_weights(self.accelerator.unwrap_model(self.model), Path(output_dir), state_dict)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        """Mended: the stock one restores no weight of a fully trained LLaVA (its keys have other names on disk)."""
        if self.is_deepspeed_enabled or self.is_fsdp_enabled:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            target = self.accelerator.unwrap_model(model if model is not None else self.model)
            checkpoints.load_weights(target, Path(resume_from_checkpoint))

    def _save_checkpoint(self, model: nn.Module, trial: object) -> None:
        """Mended: written aside and renamed, so a kill leaves no half one. The last needs no optimizer state."""
        staging = self.folder / "writing"
        final = self.state.global_step >= self.state.max_steps
        if self.args.should_save:
            shutil.rmtree(staging, ignore_errors=True)
        self.accelerator.wait_for_everyone()  # before the others write their random state into it
        self.args.output_dir, self.args.save_only_model = str(staging), final
        try:
            with safe_save(self.folder):
                super()._save_checkpoint(model, trial)
        finally:
            self.args.output_dir, self.args.save_only_model = str(self.folder), False
        self.accelerator.wait_for_everyone()  # until they have
        if self.args.should_save:
            checkpoints.publish(staging / f"checkpoint-{self.state.global_step}", self.folder, self.keep)
            shutil.rmtree(staging, ignore_errors=True)
        self.accelerator.wait_for_everyone()

    def create_model_card(self, *args: object, **kwargs: object) -> None:
        """None: a checkpoint is no release."""

    def _send_telemetry(self) -> None:
        """None: a run reports to nobody."""


def _core(model: nn.Module) -> nn.Module:
    return model.get_base_model() if isinstance(model, PeftModel) else model


class Watch(TrainerCallback):
    """Stops at a loss that is no number, asks for timed checkpoints, tells progress."""

    def __init__(self, total: int, save_minutes: float, progress: Progress | None) -> None:
        self.total, self.every, self.progress = total, save_minutes * 60, progress
        self.saved = time.monotonic()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        if self.every > 0 and _agreed(time.monotonic() - self.saved > self.every, args.device):
            control.should_save = True

    def on_save(self, *args: object, **kwargs: object) -> None:
        self.saved = time.monotonic()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict | None = None,
        **kwargs: object,
    ) -> None:
        if not logs or "loss" not in logs:
            return
        if not math.isfinite(logs["loss"]):
            raise RunError(
                f"the loss is {logs['loss']} at step {state.global_step}: "
                "lower learning_rate, or train in float32 or bf16"
            )
        if self.progress is not None:
            self.progress(state.global_step, self.total, loss=logs["loss"])


def _agreed(wanted: bool, device: torch.device) -> bool:
    """What the first process wants: clocks differ, and a checkpoint that one of them alone begins never ends."""
    if not dist.is_initialized():
        return wanted
    flag = torch.tensor(int(wanted), device=device)
    dist.broadcast(flag, src=0)
    return bool(flag.item())


@contextlib.contextmanager
def whole_forward(model: nn.Module) -> Iterator[None]:
    """While open, tower and connector also run on a batch without images, on a black one that counts nothing.

    Mended: such a batch has no path to the connector, and stage 1 has nothing else to train; and processes that
    exchange gradients, or parts of layers, wait for each other at every module: one that leaves the connector out
    stops them all. haotian-liu/LLaVA has a dummy image for it. Nothing changes for a language model.
    """
    core = _core(model)
    if not isinstance(core, LlavaForConditionalGeneration):
        yield
        return
    size, blind = core.config.vision_config.image_size, [False]

    def look(module: nn.Module, args: tuple, given: dict) -> None:
        blind[0] = given.get("pixel_values") is None

    def add(module: nn.Module, args: tuple, embedded: torch.Tensor) -> torch.Tensor | None:
        if not blind[0]:
            return None
        black = embedded.new_zeros(1, 3, size, size)
        features = core.model.get_image_features(pixel_values=black, return_dict=True).pooler_output
        return embedded + 0.0 * torch.cat(list(features)).sum().to(embedded.dtype)

    hooks = (
        core.model.register_forward_pre_hook(look, with_kwargs=True),
        core.get_input_embeddings().register_forward_hook(add),
    )
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextlib.contextmanager
def own_forward(model: nn.Module) -> Iterator[None]:
    """Every trainer wraps `forward` of the object once more; take the wrapping off before and after."""
    core = _core(model)
    for module in (core, model):
        module.__dict__.pop("forward", None)
    try:
        yield
    finally:
        for module in (core, model):
            module.__dict__.pop("forward", None)


@contextlib.contextmanager
def threads(number: int) -> Iterator[None]:
    """Let torch use so many threads, 0 for as many as before."""
    before = torch.get_num_threads()
    if number > 0:
        torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
