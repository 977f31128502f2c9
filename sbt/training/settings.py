"""The values of a training run (`Settings`) and what the run returns (`Result`)."""

import importlib.util
import math
import os
import re
from dataclasses import asdict, dataclass, fields

import pandas as pd
import torch
from torch import nn
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK, get_available_reporting_integrations
from transformers.training_args import OptimizerNames

from sbt.data.conversations import check_place
from sbt.training import loss_mask
from sbt.utils import env
from sbt.utils.errors import ParameterError
from sbt.utils.text import nearest

PADDING_FREE = ("auto", "on", "off")
SHARES = {"none": 0.0, "half": 0.5, "all": 1.0}  # of the blocks that are computed again in the backward pass
SCHEDULES = (  # transformers' other ones need values of their own
    "linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup", "inverse_sqrt",
)  # fmt: skip
EXTRA = 'pip install -e ".[gpu]"'
_FREE = (  # settings that change no weight
    "gradient_checkpointing", "save_steps", "save_minutes", "save_total_limit", "eval_steps", "threads", "workers",
    "log_steps", "report_to",
)  # fmt: skip
_READERS = 8  # processes at most: a picture takes 4 to 12 ms, a step with a hundred of them a second or more
_OF_BITSANDBYTES = re.compile(r"adamw_8bit|.*(bnb|paged|lion|ademamix).*")


@dataclass(frozen=True)
class World:
    """The processes that train one model together: their number, the rank of this one, their engine.

    `engine` is "" for one process in the notebook, else "ddp", "fsdp", "zero2" or "zero3".
    """

    processes: int = 1
    rank: int = 0
    engine: str = ""


@dataclass(frozen=True)
class Settings:
    """Values of one run. The schedule is over `max_steps`, or `epochs` over the rows where that is 0.

    `image_place` is where an image stands in its turn (`conversations.IMAGE_PLACES`). `loss` holds values of
    `loss_mask.LossMaskConfig`; None trains the response only. `save_steps` and `save_minutes` write a checkpoint every
    so many steps or minutes, 0 being never; the last step is always saved; the newest `save_total_limit` are kept.
    `eval_steps` measures the loss on held-out rows every so many steps and after the last, 0 being never. `threads` 0
    leaves torch's own number; `workers` are processes that read rows, 0 being as many as the machine's cores suggest
    beside a GPU, and none without one. The figures of `log_steps` steps are read from the device at once (0: of ten on
    a GPU, else of each step). `report_to` is a tracker of transformers' (trackio, tensorboard, wandb), or "none".

    `batch_size` is one process's: a step sees `batch_size * accumulation` rows of each process. `group_by_length`
    draws each step from rows with an image or from rows without one, rows of similar length together. `padding_free`
    lays the rows of a batch end to end, so that no padding is computed: "auto" on a GPU, "on", or "off"; the gradient
    is the same. `gradient_checkpointing` computes "half" or "all" of the blocks again in the backward pass, which
    takes less memory and more time; "auto" is the least that fits the GPU (`gpu.checkpointing`). `bf16` and `fp16`
    compute in half precision over weights of float32. `optimizer` is a name of transformers', "adamw_torch" being its
    fused form on a GPU; those of bitsandbytes, and `liger` (its layer kernels), need the extra `gpu`.
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
    image_place: str = "as_written"
    loss: dict | None = None
    seed: int = 0
    bf16: bool = False
    fp16: bool = False
    optimizer: str = "adamw_torch"
    liger: bool = False
    group_by_length: bool = False
    padding_free: str = "auto"
    gradient_checkpointing: str = "none"
    save_steps: int = 0
    save_minutes: float = 10.0
    save_total_limit: int = 1
    eval_steps: int = 0
    threads: int = 0
    workers: int = 0
    log_steps: int = 0
    report_to: str = "none"

    def __post_init__(self) -> None:
        positive = {"learning_rate", "batch_size", "accumulation", "save_total_limit"}
        for name, value in asdict(self).items():
            if name in positive and not (isinstance(value, int | float) and value > 0):
                raise ParameterError(f"{name} must be a number above 0, found {value!r}")
        for name in ("eval_steps", "workers", "log_steps"):
            if not isinstance(value := getattr(self, name), int) or value < 0:
                raise ParameterError(f"{name} must be a whole number from 0 on, found {value!r}")
        loss_mask.parse(self.loss)
        check_place(self.image_place)
        if not 0 <= self.warmup_ratio <= 1:
            raise ParameterError(f"warmup_ratio is a share of the steps, from 0 to 1, found {self.warmup_ratio!r}")
        if self.max_steps <= 0 and self.epochs <= 0:
            raise ParameterError("either max_steps or epochs must be above 0")
        if self.bf16 and self.fp16:
            raise ParameterError("bf16 and fp16 exclude each other: set one of them to false")
        known = {
            "padding_free": PADDING_FREE,
            "gradient_checkpointing": (*SHARES, "auto"),
            "optimizer": [name.value for name in OptimizerNames],
            "schedule": SCHEDULES,
            "report_to": ["none", *INTEGRATION_TO_CALLBACK],
        }
        for name, values in known.items():
            if (value := getattr(self, name)) not in values:
                raise ParameterError(f"{name} {value!r} is unknown{nearest(str(value), values)}")

    @classmethod
    def of(cls, values: object, precision: str, **more: object) -> "Settings":
        """Settings from those attributes of `values` (a notebook's parameters) that are named as fields.

        `precision` is the format to compute in (`env.choose_dtype`). Values in `more` win. `loss` is only taken from
        `more`: in a notebook it is a variant's name.
        """
        apart = {"loss", "bf16", "fp16"}
        named = {field.name for field in fields(cls)} - apart
        given = {name: value for name, value in vars(values).items() if name in named}
        return cls(**{**given, "bf16": precision == "bfloat16", "fp16": precision == "float16", **more})

    def check_available(self) -> None:
        """Raise ParameterError where this machine lacks what the settings need; it says what to install or set."""
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
        if self.report_to not in ("none", *get_available_reporting_integrations()):
            raise ParameterError(
                f"report_to {self.report_to!r} needs its package: pip install {self.report_to}, or set it to none"
            )

    def readers(self) -> int:
        """Processes that read rows for one training process: `workers`, or what its share of the cores allows."""
        if self.workers or not torch.cuda.is_available():
            return self.workers
        return max(1, min(_READERS, env.cores() // max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1"))) - 1))

    def steps_logged(self) -> int:
        """Steps whose figures are read at once: `log_steps`, or what suits the machine."""
        return self.log_steps or (10 if torch.cuda.is_available() else 1)

    def flat(self) -> bool:
        """Whether rows are laid end to end, as far as these settings and this machine go."""
        return self.padding_free == "on" or (self.padding_free == "auto" and torch.cuda.is_available())

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

    def identity(self) -> dict:
        """The values that decide the weights; a run with others is another run."""
        return {name: value for name, value in asdict(self).items() if name not in _FREE}


@dataclass(frozen=True)
class Result:
    """A finished run: `history` (step, epoch, loss, learning_rate, grad_norm, accuracy), complete after a resume too.

    With `Settings.eval_steps`, `history` also has `heldout_loss`, NaN at steps where it was not measured. `model` is
    the trained one; `weights_sha256` is over the trained tensors;
    `resumed_from` is the step of the checkpoint that the run went on from, 0 if none.
    """

    model: nn.Module
    history: pd.DataFrame
    steps: int
    weights_sha256: str
    resumed_from: int = 0

    def loss_sentence(self) -> str:
        """How far the loss fell: the mean of the first five logged steps against that of the last five."""
        losses = self.history["loss"]
        first, last = losses.iloc[:5].mean(), losses.iloc[-5:].mean()
        verb = "fell" if last < first else "did not fall: it went"
        return f"The loss {verb} from {first:.2f} to {last:.2f} ({last / first - 1:+.0%}) in {self.steps} steps."


def _need(module: str, what: str, instead: str) -> None:
    if importlib.util.find_spec(module) is None:
        raise ParameterError(f"{what} needs {module.replace('_', '-')}: {EXTRA}; {instead}")
