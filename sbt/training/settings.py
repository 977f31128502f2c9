"""What a training run is told (`Settings`) and what it hands back (`Result`)."""

import importlib.util
import math
import re
from dataclasses import asdict, dataclass, fields

import pandas as pd
import torch
from torch import nn
from transformers.training_args import OptimizerNames

from sbt.training import loss_mask
from sbt.utils.errors import ParameterError
from sbt.utils.text import nearest

EXTRA = 'pip install -e ".[gpu]"'
_OF_BITSANDBYTES = re.compile(r"adamw_8bit|.*(bnb|paged|lion|ademamix).*")


@dataclass(frozen=True)
class World:
    """The processes that train one model together: how many there are, which one this is, by which engine.

    `engine` is "" for one process in the notebook, else "ddp", "fsdp", "zero2" or "zero3".
    """

    processes: int = 1
    rank: int = 0
    engine: str = ""


@dataclass(frozen=True)
class Settings:
    """Values of one run. The schedule is over `max_steps`, or `epochs` over the rows where that is 0.

    `lora` (LoraConfig values, {} for the paper's) wraps a model that has no adapters yet. `loss` says
    what is trained on, by the knobs of `loss_masks`, None being the response only. `save_steps` and `save_minutes`
    add checkpoints on the way, 0 being never; the last step is always saved. `logging_steps` averages
    the history over that many steps. `threads` 0 leaves torch's own number; `workers` are processes that read rows.

    `batch_size` is one process's: a step sees `batch_size * accumulation` rows of each process. `group_by_length`
    draws each step from rows with an image or from rows without one, rows of similar length together. `bf16` and
    `fp16` compute in half precision over weights of float32. `optimizer` is a name of transformers'; those of
    bitsandbytes, and `liger` (its layer kernels), need the extra `gpu`.
    """

    learning_rate: float = 2.0e-5
    max_steps: int = 0
    epochs: float = 1.0
    batch_size: int = 32
    accumulation: int = 1
    warmup_ratio: float = 0.03
    schedule: str = "cosine"
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    conversation: str = "v1"
    lora: dict | None = None
    loss: dict | None = None
    seed: int = 0
    bf16: bool = False
    fp16: bool = False
    optimizer: str = "adamw_torch"
    liger: bool = False
    group_by_length: bool = False
    gradient_checkpointing: bool = False
    save_steps: int = 0
    save_minutes: float = 10.0
    save_total_limit: int = 1
    logging_steps: int = 1
    threads: int = 0
    workers: int = 0

    def __post_init__(self) -> None:
        positive = {"learning_rate", "batch_size", "accumulation", "logging_steps", "save_total_limit"}
        for name, value in asdict(self).items():
            if name in positive and not (isinstance(value, int | float) and value > 0):
                raise ParameterError(f"{name} must be a number above 0, found {value!r}")
        loss_mask.parse(self.loss)
        if self.max_steps <= 0 and self.epochs <= 0:
            raise ParameterError("either max_steps or epochs must be above 0")
        if self.bf16 and self.fp16:
            raise ParameterError("bf16 and fp16 exclude each other: set one of them to false")
        known = [name.value for name in OptimizerNames]
        if self.optimizer not in known:
            raise ParameterError(f"optimizer {self.optimizer!r} is unknown{nearest(self.optimizer, known)}")

    @classmethod
    def of(cls, values: object, precision: str, **more: object) -> "Settings":
        """Settings from the attributes of `values` that are named as its fields, a notebook's parameters say.

        `precision` is what is computed in (`env.choose_dtype`). `more` goes before `values`; what `set_trainable` has
        applied, and `loss`, which names a variant there, come by it or not at all.
        """
        apart = {"lora", "loss", "bf16", "fp16"}
        named = {field.name for field in fields(cls)} - apart
        given = {name: value for name, value in vars(values).items() if name in named}
        return cls(**{**given, "bf16": precision == "bfloat16", "fp16": precision == "float16", **more})

    def check_available(self) -> None:
        """ParameterError where this machine lacks what the settings ask for, with what to install or to set."""
        gpu = torch.cuda.is_available()
        if self.fp16 and not gpu:
            raise ParameterError("fp16 needs a GPU: set fp16 to false, or bf16 to true")
        if self.bf16 and gpu and not torch.cuda.is_bf16_supported(including_emulation=False):
            raise ParameterError("this GPU has no bf16: set bf16 to false and fp16 to true")
        if _OF_BITSANDBYTES.fullmatch(self.optimizer):
            _need("bitsandbytes", f"optimizer {self.optimizer!r}", "adamw_torch does without")
        if self.liger:
            _need("liger_kernel", "liger", "training is the same without it, only slower")
            if not gpu:
                raise ParameterError("liger needs a GPU: set liger to false")

    def rows_per_step(self, processes: int = 1) -> int:
        """Rows of one optimizer step over all processes."""
        return self.batch_size * self.accumulation * processes

    def steps_per_epoch(self, rows: int, processes: int = 1) -> int:
        """Optimizer steps over all rows once; the last may be smaller."""
        return math.ceil(rows / self.rows_per_step(processes))

    def total_steps(self, rows: int, processes: int = 1) -> int:
        """Optimizer steps of the whole run."""
        each = self.steps_per_epoch(rows, processes)
        return self.max_steps if self.max_steps > 0 else max(1, round(self.epochs * each))

    def samples(self, rows: int, steps: int, processes: int = 1) -> int:
        """Rows seen after `steps` optimizer steps, counting repetitions."""
        epochs, rest = divmod(steps, self.steps_per_epoch(rows, processes))
        return epochs * rows + min(rest * self.rows_per_step(processes), rows)

    def identity(self) -> dict:
        """The values that decide the weights; a run with others is another run."""
        free = {"save_steps", "save_minutes", "save_total_limit", "logging_steps", "threads", "workers"}
        return {name: value for name, value in asdict(self).items() if name not in free}


@dataclass(frozen=True)
class Result:
    """A finished run: `history` (step, epoch, loss, learning_rate, grad_norm, accuracy), complete after a resume too.

    `model` is the trained one (with `Settings.lora`, the wrapped one); `weights_sha256` is over what trained;
    `resumed_from` is the step a checkpoint brought the run to, 0 if none.
    """

    model: nn.Module
    history: pd.DataFrame
    steps: int
    samples_seen: int
    weights_sha256: str
    resumed_from: int = 0


def _need(module: str, what: str, instead: str) -> None:
    if importlib.util.find_spec(module) is None:
        raise ParameterError(f"{what} needs {module.replace('_', '-')}: {EXTRA}; {instead}")
