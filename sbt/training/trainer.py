"""A subclass of TRL's SFTTrainer that works around faults of TRL 1.16 and transformers 5.23.

Each override names the fault. A test shows for each that the stock trainer has it.
"""

import contextlib
import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import torch
import torch.distributed as dist
from peft import PeftModel
from torch import nn
from transformers import (
    LlavaForConditionalGeneration,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_pt_utils import nested_gather
from transformers.utils import ModelOutput
from trl import SFTTrainer
from trl.trainer import utils as trl_utils

from sbt.training.checkpoints import ExactResume
from sbt.utils.errors import RunError
from sbt.utils.files import write_jsonl, writing

Progress = Callable[..., None]


class LlavaSFTTrainer(ExactResume, SFTTrainer):
    """SFTTrainer for LLaVA.

    `heldout`, if set, measures the loss on held-out rows every `eval_steps` steps and after the last one. The figures
    of `log_steps` steps are read from the device at once.
    """

    heldout: Callable[[], float] | None = None
    eval_steps: int = 0
    log_steps: int = 1

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self.accuracies: list[torch.Tensor] = []  # of the batches of the present step
        self.waiting: list[tuple[int, float, float, torch.Tensor]] = []  # of steps that are not logged yet

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict,
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The loss over a batch of `gpu.Prepared`, in which labels are picked already.

        TRL's computes the head for every token on a CPU, and waits for the device several times a batch to find the
        labelled ones and to read its figures. Here figures stay on the device until they are logged.
        """
        inputs = {name: value for name, value in inputs.items() if name != "labels"}
        places = inputs.pop("places")

        def keep(module: nn.Module, given: tuple, output: ModelOutput) -> ModelOutput:
            output.last_hidden_state = output.last_hidden_state.flatten(0, 1)[places][None]
            return output

        hook = core_of(self.accelerator.unwrap_model(model)).base_model.register_forward_hook(keep)
        try:  # each position that is left has a label, so there is nothing to look for
            with mock.patch.object(trl_utils, "_use_triton", lambda device: False):
                output = model(**inputs, use_cache=False, fused_lm_head=True)
        finally:
            hook.remove()
        loss = -output.log_probs.sum() / num_items_in_batch.clamp(min=1) * self.accelerator.num_processes
        counts = torch.stack([output.is_top1.sum(), output.label_mask.sum()])
        right, labels = self.accelerator.gather(counts).view(-1, 2).sum(dim=0)
        self.accuracies.append(right / labels.clamp(min=1))
        return loss

    def _maybe_log_save_evaluate(
        self,
        tr_loss: torch.Tensor,
        grad_norm: torch.Tensor | float | None,
        *args: object,
        learning_rate: float | None = None,
    ) -> None:
        """Keep a step's figures on the device; log those of `log_steps` steps at once, and before a checkpoint.

        Reading a figure waits until the device has computed it, and the device then waits for its next work.
        """
        step = self.state.global_step
        if step > self._globalstep_last_logged:
            loss = nested_gather(tr_loss, self.args.parallel_mode).mean()
            norm = torch.as_tensor(grad_norm, device=loss.device)
            figures = torch.stack([one.float() for one in (loss, norm, *self.accuracies)])
            self.waiting.append((step, self.state.epoch, learning_rate, figures))
            self.accuracies.clear()
            tr_loss.zero_()
            self._globalstep_last_logged = step
            if self.control.should_save or self._measured(step) or step % self.log_steps == 0:
                self.log_waiting()
        self.control.should_log = False
        super()._maybe_log_save_evaluate(tr_loss, grad_norm, *args, learning_rate=learning_rate)

    def log_waiting(self) -> None:
        """Log the steps whose figures are still on the device, each as if it were the present one."""
        waiting, present = self.waiting, (self.state.global_step, self.state.epoch)
        self.waiting = []
        figures = iter(torch.cat([numbers for *_, numbers in waiting]).tolist())
        self.store_flos()
        try:
            for step, epoch, rate, numbers in waiting:
                self.state.global_step, self.state.epoch = step, epoch
                loss, norm, *right = (next(figures) for _ in numbers)
                self._total_loss_scalar += loss
                accuracy = {"mean_token_accuracy": sum(right) / len(right)}
                self.log({"loss": loss, "grad_norm": norm, "learning_rate": rate, **accuracy})
        finally:
            self.state.global_step, self.state.epoch = present

    def _measured(self, step: int) -> bool:
        """Whether the loss on held-out rows is due, or the run ends."""
        return step == self.state.max_steps or bool(self.heldout and step % self.eval_steps == 0)

    def log(self, logs: dict[str, float], *args: object, **kwargs: object) -> None:
        """Add the loss on held-out rows where it is due. The trainer's own evaluation would draw random numbers."""
        if self.heldout and "loss" in logs and self._measured(self.state.global_step):
            with self.compute_loss_context_manager():
                logs["heldout_loss"] = self.heldout()
        super().log(logs, *args, **kwargs)


def core_of(model: nn.Module) -> nn.Module:
    """The model under PEFT's wrapper, if there is one."""
    return model.get_base_model() if isinstance(model, PeftModel) else model


class TrainingMonitor(TrainerCallback):
    """Stops at a loss that is not finite, asks for timed checkpoints, reports progress, appends to `history` (a file).

    Pass `progress` and `history` in the first process only. A resumed run rewrites `history` up to its checkpoint.
    """

    def __init__(
        self,
        total: int,
        save_minutes: float,
        progress: Progress | None,
        history: Path | None = None,
        log_steps: int = 1,
    ) -> None:
        self.total, self.every, self.progress, self.history = total, save_minutes * 60, progress, history
        self.log_steps, self.saved = log_steps, time.monotonic()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        if self.history is not None:
            write_jsonl(self.history, [entry for entry in state.log_history if "loss" in entry])

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        looks = self.every > 0 and state.global_step % self.log_steps == 0  # processes that agree wait for each other
        if looks and _agreed(time.monotonic() - self.saved > self.every, args.device):
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
        if self.history is not None:
            with writing(self.history), open(self.history, "a", encoding="utf-8") as file:
                file.write(json.dumps(state.log_history[-1]) + "\n")
        if self.progress is not None:
            self.progress(state.global_step, self.total, loss=logs["loss"])


def _agreed(wanted: bool, device: torch.device) -> bool:
    """The first process's wish: clocks differ, and a checkpoint that only one process begins would never end."""
    if not dist.is_initialized():
        return wanted
    flag = torch.tensor(int(wanted), device=device)
    dist.broadcast(flag, src=0)
    return bool(flag.item())


@contextlib.contextmanager
def whole_forward(model: nn.Module) -> Iterator[None]:
    """While open, a batch without images also runs tower and connector, on a black image of weight 0.

    Without it such a batch has no path to the connector, so stage 1 has nothing to train; and processes that exchange
    gradients or shards wait for each other at every module, so one that skips the connector hangs them all
    (haotian-liu/LLaVA #699, which uses a dummy image too). Nothing changes for a language model.
    """
    core = core_of(model)
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
def images_unchecked(model: nn.Module) -> Iterator[None]:
    """While open, transformers does not count placeholders against images: it waits for the device to do so.

    The collator has counted them, row by row.
    """
    core = core_of(model)
    if not isinstance(core, LlavaForConditionalGeneration):
        yield
        return

    def mask(input_ids: torch.Tensor, **kwargs: object) -> torch.Tensor:
        return (input_ids == core.config.image_token_id).unsqueeze(-1)

    core.model.get_placeholder_mask = mask
    try:
        yield
    finally:
        del core.model.get_placeholder_mask


@contextlib.contextmanager
def model_restored(model: nn.Module) -> Iterator[None]:
    """Undo what a trainer does to a model: it wraps `forward` once more each time and sets `config.use_cache`.

    Liger exchanges functions in transformers' modules, for all models of the process.
    """
    core = core_of(model)
    modules = [sys.modules[kind] for kind in {type(part).__module__ for part in core.modules()}]
    before = [(vars(one), dict(vars(one))) for one in modules if one.__name__.startswith("transformers.models.")]
    config = vars(core.config)
    use_cache = {"use_cache": config["use_cache"]} if "use_cache" in config else {}
    for module in (core, model):
        module.__dict__.pop("forward", None)
    try:
        yield
    finally:
        for module in (core, model):
            module.__dict__.pop("forward", None)
        config.pop("use_cache", None)
        config.update(use_cache)
        for names, old in before:
            names.update(old)


@contextlib.contextmanager
def threads(number: int) -> Iterator[None]:
    """Let torch use `number` threads; 0 keeps the present number."""
    before = torch.get_num_threads()
    if number > 0:
        torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
