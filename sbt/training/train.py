"""One training run: from rows and settings to trained weights and their history, resumable at any step."""

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from datasets import Dataset, Features, List, Value, concatenate_datasets
from torch import nn
from transformers import PreTrainedTokenizerBase, ProcessorMixin, TrainingArguments, set_seed
from transformers.trainer_callback import PrinterCallback
from trl import SFTConfig

from sbt import templates
from sbt.data.prepare import TOKENS
from sbt.models import Arm, silence_libraries, weights_sha256
from sbt.models.freeze import check_frozen
from sbt.training import checkpoints
from sbt.training.checkpoints import ExactResume
from sbt.training.collator import Collator, Order, Padded, has_images, parts_of, row_lengths
from sbt.training.gpu import SHARDED, Prepared, attention_by_row, can_lay_flat, checkpointing, lean_adapters
from sbt.training.inspect import heldout_loss
from sbt.training.settings import Result, Settings, World
from sbt.training.trainer import (
    LlavaSFTTrainer,
    Progress,
    TrainingMonitor,
    core_of,
    images_unchecked,
    model_restored,
    threads,
    whole_forward,
)
from sbt.utils.errors import DataError, ParameterError, RunError, SbtError
from sbt.utils.files import read_json, writing
from sbt.utils.progress import note

HISTORY = "history.jsonl"  # grows in the trainer's folder while a run trains
HELDOUT = "heldout_loss"
_NEVER = 10**9
_ANSWERS_ONLY = {"assistant_only_loss": True, "dataset_kwargs": {"skip_prepare_dataset": True}}
_COLUMNS = {name: name for name in ("step", "epoch", "loss", "learning_rate", "grad_norm")}
_COLUMNS |= {"mean_token_accuracy": "accuracy"}


@dataclass(frozen=True)
class Run:
    """A run ready to train; `last` is the checkpoint to go on from."""

    model: nn.Module
    processor: ProcessorMixin | PreTrainedTokenizerBase
    rows: Dataset
    folder: Path
    settings: Settings
    world: World
    total: int
    last: Path | None
    heldout: Sequence[dict] = ()

    @property
    def start(self) -> int:
        """Optimizer steps done before."""
        return checkpoints.step_of(self.last)


def sft(
    model: nn.Module,
    processor: ProcessorMixin | PreTrainedTokenizerBase,
    rows: Sequence[dict] | Dataset,
    folder: Path,
    settings: Settings,
    *,
    heldout: Sequence[dict] = (),
    progress: Progress | None = None,
) -> Result:
    """Train `model` in place on `rows` (loss on assistant turns only) and return the history.

    What trains is what `set_trainable` left free. Checkpoints go to `folder/checkpoints/<fingerprint>`: the same call
    after a kill resumes there and ends with the very same weights; after a finished run it loads them and takes no
    step. `folder/history.jsonl` grows with every step.
    `heldout` are rows whose loss is measured as `settings.eval_steps` says; that changes no weight.
    `progress(step, total, loss=...)` is called each step. Raises DataError for a row that cannot be trained on,
    RunError for a loss or weights that are not finite and for weights that never get a gradient, ParameterError for
    settings that this machine cannot serve.
    """
    run = prepare(model, processor, rows, folder, settings, heldout=heldout)
    log = train(run, progress) if run.start < run.total else load(run)
    return result(run, log)


def prepare(
    model: nn.Module,
    processor: ProcessorMixin | PreTrainedTokenizerBase,
    rows: Sequence[dict] | Dataset,
    folder: Path,
    settings: Settings,
    world: World | None = None,
    heldout: Sequence[dict] = (),
) -> Run:
    """Check everything, make the run's folder and find its newest checkpoint; the same in every process of `world`."""
    world = world or World()
    if len(rows) == 0:
        raise DataError("no rows to train on")
    settings.check_available()
    if settings.eval_steps and not len(heldout):
        raise ParameterError("eval_steps is set, but no rows are held out. Set it to 0, or keep rows from training")
    if settings.eval_steps and world.engine in ("fsdp", "zero3"):
        raise ParameterError(f"eval_steps: engine {world.engine!r} has no whole model to measure. Set it to 0")
    check_frozen(model)
    trained = checkpoints.trained(model)
    if not trained:
        raise ParameterError("every parameter is frozen: call set_trainable before training")
    if settings.fp16 and any(tensor.dtype == torch.float16 for tensor in trained.values()):
        raise ParameterError("fp16 computes over trained weights of float32: load the model with dtype float32")
    processor.chat_template = templates.load(settings.conversation)
    rows = arrow_rows(rows, vision=isinstance(processor, ProcessorMixin))
    own = Path(folder) / "checkpoints" / checkpoints.fingerprint(model, rows, settings, world)
    with writing(own):
        own.mkdir(parents=True, exist_ok=True)
    for words in checkpoints.record(own, checkpoints.identity_of(settings, world)) if world.rank == 0 else ():
        note(words)
    total = settings.total_steps(len(rows), world.processes)
    return Run(model, processor, rows, own, settings, world, total, checkpoints.newest(own, note), heldout)


def load(run: Run) -> list[dict]:
    """Load the weights of a finished run into its model; return its log. The stock trainer would train a step more."""
    checkpoints.load_weights(run.model, run.last)
    return read_json(run.last / checkpoints.STATE)["log_history"]


def result(run: Run, log: list[dict]) -> Result:
    """The Result of a finished run; RunError if no trained parameter ever got a gradient."""
    run.model.eval()
    history = _history(log)
    if not (history["grad_norm"] > 0).any():
        raise RunError("no parameter ever received a gradient: the rows give the trained part nothing to learn from")
    digest = weights_sha256(run.model, trained_only=True)
    return Result(run.model, history, run.total, digest, resumed_from=run.start)


def train(run: Run, progress: Progress | None = None) -> list[dict]:
    """Train from the run's last checkpoint to the end, in each process of its world; return the log of all steps."""
    settings, several = run.settings, run.world.processes > 1
    watched = (progress, run.folder.parents[1] / HISTORY) if run.world.rank == 0 else (None, None)
    collator = Collator(run.processor, settings.conversation, settings.loss, settings.image_place)
    core = core_of(run.model)
    flat = settings.flat() and can_lay_flat(core)
    collator = Prepared(Padded(collator) if several else collator, flat)
    with training(run), images_unchecked(run.model), attention_by_row(core, flat):
        settings = _with_checkpointing(run, collator)
        trainer = LlavaSFTTrainer(
            model=run.model,
            args=arguments(settings, run.folder, run.total, several, **_ANSWERS_ONLY),
            train_dataset=_with_stand_in(run.rows) if several else run.rows,
            processing_class=run.processor,
            data_collator=collator,
            callbacks=[TrainingMonitor(run.total, settings.save_minutes, *watched, settings.steps_logged())],
        )
        trainer.order, trainer.log_steps = order(run, trainer), settings.steps_logged()
        if settings.eval_steps and run.world.rank == 0:
            info = {"image_place": settings.image_place}
            arm = Arm(trainer.model, run.processor, "", settings.conversation, info)
            trainer.heldout = partial(heldout_loss, arm, run.heldout, settings.conversation, settings.batch_size)
            trainer.eval_steps = settings.eval_steps
        return resumed(trainer, run)


def _with_checkpointing(run: Run, collate: Prepared) -> Settings:
    """The run's settings with its choice of blocks to compute again; the first process tells it, and why."""
    settings = run.settings
    if settings.gradient_checkpointing != "auto":
        return settings
    if torch.cuda.is_available() and not getattr(run.model, "is_quantized", False):
        run.model.to(torch.device("cuda", torch.cuda.current_device()))
    choice = checkpointing(run.model, run.rows, collate, settings, run.world.engine)
    if run.world.rank == 0 and torch.cuda.is_available():
        note(f"gradient checkpointing of {choice.value} of the blocks: {choice.reason}")
    return replace(settings, gradient_checkpointing=choice.value)


@contextlib.contextmanager
def training(run: Run) -> Iterator[None]:
    """While open, a trainer may be built and run over the run's model, from its seed; the model is put right after."""
    half = torch.cuda.is_available() and (run.settings.bf16 or run.settings.fp16)
    with (
        writing(run.folder),
        silence_libraries(),
        threads(run.settings.threads),
        model_restored(run.model),
        whole_forward(run.model),
        lean_adapters(run.model, half and run.world.engine not in SHARDED),
    ):
        set_seed(run.settings.seed)
        yield


def resumed(trainer: ExactResume, run: Run) -> list[dict]:
    """Run a trainer from the run's last checkpoint to the end; return the log of all steps."""
    trainer.remove_callback(PrinterCallback)
    trainer.folder, trainer.keep = run.folder, run.settings.save_total_limit
    try:
        trainer.train(resume_from_checkpoint=str(run.last) if run.last else None)
    except SbtError as error:  # of a process that reads rows: torch puts the whole traceback into it
        if not str(error).startswith("Caught "):
            raise
        raise type(error)(str(error).rstrip().splitlines()[-1].partition(": ")[2]) from error
    return trainer.state.log_history


def order(run: Run, trainer: ExactResume) -> Order | None:
    """The order of the rows; None (the trainer's own) for one process that does not group them."""
    settings, processes = run.settings, run.world.processes
    if processes == 1 and not settings.group_by_length:
        return None
    grouping = {"lengths": row_lengths(run.rows), "images": has_images(run.rows)} if settings.group_by_length else {}
    return Order(
        len(run.rows),
        settings.rows_per_step(processes),
        seed=settings.seed,
        fill=settings.batch_size * processes if processes > 1 else 1,
        epoch=lambda: trainer.state.global_step // settings.steps_per_epoch(len(run.rows), processes),
        **grouping,
    )


def arguments(
    settings: Settings, folder: Path, total: int, several: bool = False, kind: type = SFTConfig, **more: object
) -> TrainingArguments:
    """TRL's arguments of a run, of the trainer's `kind`, with `more` values of its own."""
    gpu = torch.cuda.is_available()
    fused = gpu and settings.optimizer == "adamw_torch"  # the plain one makes a copy of all that trains
    made = kind(
        output_dir=str(folder),
        max_steps=total,
        per_device_train_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.accumulation,
        learning_rate=settings.learning_rate,
        # warm-up begins at a rate of 0: were it the whole of a run, one step would change nothing
        warmup_steps=min(math.ceil(settings.warmup_ratio * total), total - 1),
        lr_scheduler_type=settings.schedule,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        optim="adamw_torch_fused" if fused else settings.optimizer,
        seed=settings.seed,
        data_seed=settings.seed,
        bf16=settings.bf16,
        fp16=settings.fp16,
        use_liger_kernel=settings.liger,
        use_cpu=not gpu,
        gradient_checkpointing=settings.gradient_checkpointing != "none",
        gradient_checkpointing_kwargs={"every_n_layers": 2} if settings.gradient_checkpointing == "half" else None,
        max_length=None,  # TRL's default cuts at 1024, which can remove every answer of a row without a word
        remove_unused_columns=False,
        dataloader_num_workers=settings.readers(),
        dataloader_pin_memory=gpu,
        accelerator_config={"non_blocking": gpu},  # the next batch is copied while this one is computed
        logging_steps=1,  # a window across a checkpoint would be averaged differently after a resume
        logging_nan_inf_filter=False,
        ddp_find_unused_parameters=False if several else None,  # `whole_forward` leaves none unused
        save_strategy="steps",
        save_steps=settings.save_steps or _NEVER,
        report_to=settings.report_to,
        disable_tqdm=True,
        **more,
    )
    if not several and made.device.type == "cuda":
        made._n_gpu = 1  # with two GPUs in sight it would be nn.DataParallel, which TRL refuses
    return made


def _history(log: list[dict]) -> pd.DataFrame:
    entries = [entry for entry in log if "loss" in entry]
    kept = _COLUMNS | ({HELDOUT: HELDOUT} if any(HELDOUT in entry for entry in entries) else {})
    return pd.DataFrame([{new: entry.get(old, math.nan) for old, new in kept.items()} for entry in entries])


def arrow_rows(rows: Sequence[dict] | Dataset, *, vision: bool) -> Dataset:
    """The rows as an Arrow data set, which TRL needs; without the images column for a text-only model.

    A prepared data set stays mapped from its files.
    """
    names = ["id", "messages", *(["images"] if vision else [])]
    if isinstance(rows, Dataset):
        if not vision and any(has_images(rows)):
            raise DataError("the data set has images, on which a language model cannot train. Prepare its text twin")
        return rows.select_columns([name for name in (*names, TOKENS) if name in rows.column_names])
    plain = []
    for row in rows:
        if not vision and row.get("images"):
            raise DataError(f"row {row.get('id')!r}: a language model cannot train on images. Use text_twin(rows)")
        messages = [{"role": message["role"], "content": parts_of(message)} for message in row["messages"]]
        plain.append({"id": str(row["id"]), "messages": messages, "images": row.get("images")})
    text = Value("string")
    kinds = {"id": text, "messages": List({"role": text, "content": List({"type": text, "text": text})})}
    return Dataset.from_list(plain, features=Features(kinds | {"images": List(text)})).select_columns(names)


def _with_stand_in(rows: Dataset) -> Dataset:
    """The rows and one without id, for `Padded`."""
    return concatenate_datasets([rows, Dataset.from_list([{**rows[0], "id": None}], features=rows.features)])
