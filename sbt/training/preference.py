"""Direct preference optimisation (Rafailov et al. 2023), by TRL, over this project's collator and checkpoints.

TRL's own collator tokenises prompt and answer apart, which puts a blank token before every answer with Llama's
tokenizers; it cuts without a word, encodes every picture four times a step and refuses stored reference values for
pictures; and a full model resumes from its initial weights. Here both conversations go whole through `Collator`, the
reference's log-probabilities are computed once and kept, and a picture is encoded once a pair and step.
"""

import contextlib
import copy
import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
import torch
from accelerate.utils import gather_object
from datasets import Dataset
from torch import nn
from transformers import LlavaForConditionalGeneration, PreTrainedTokenizerBase, ProcessorMixin, set_seed
from trl import DPOConfig, DPOTrainer

from sbt.data import preferences
from sbt.models import Arm
from sbt.training import train as supervised
from sbt.training.checkpoints import ExactResume
from sbt.training.collator import IGNORED, Collator
from sbt.training.inspect import response_logprobs
from sbt.training.settings import Result, Settings, World
from sbt.training.train import HISTORY, Run, arguments, order, resumed, training
from sbt.training.trainer import Progress, TrainingMonitor, core_of
from sbt.utils.errors import DataError, ParameterError
from sbt.utils.files import read_json, write_json

REFERENCE = "reference.json"
_LOGGED = {"rewards/accuracies": "preferred", "rewards/margins": "margin", "logps/chosen": "chosen_logp"}


@dataclass(frozen=True)
class PreferenceSettings(Settings):
    """Settings of a preference run. The defaults are the paper's: beta 0.1, log-probabilities summed over the answer.

    `average` divides them by the answer's length. `label_smoothing` is the share of labels taken to be wrong (robust
    DPO). `sft_weight` adds the likelihood of the chosen answer. `ld_alpha` weighs the words by which the longer answer
    exceeds the shorter one (LD-DPO); 1 is DPO. ParameterError for values out of range.
    """

    beta: float = 0.1
    average: bool = False
    label_smoothing: float = 0.0
    sft_weight: float = 0.0
    ld_alpha: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        limits = {"beta": (1e-9, 1e9), "label_smoothing": (0, 0.499), "sft_weight": (0, 1e9), "ld_alpha": (0, 1)}
        for name, (low, high) in limits.items():
            if not low <= (value := getattr(self, name)) <= high:
                raise ParameterError(f"{name} must lie between {low:g} and {high:g}, found {value!r}")
        if self.average and (self.label_smoothing or self.ld_alpha != 1):
            raise ParameterError("average goes with neither label_smoothing nor ld_alpha: set one of them")
        if self.group_by_length or self.eval_steps:
            raise ParameterError("group_by_length and eval_steps are not for pairs: set them to false and 0")

    def losses(self) -> dict[str, float]:
        """TRL's names of the losses and their weights."""
        main = "sigmoid_norm" if self.average else "robust" if self.label_smoothing else "sigmoid"
        return {main: 1.0} | ({"sft": self.sft_weight} if self.sft_weight else {})


class Pairs:
    """Batches of pairs: all chosen conversations, then all rejected ones, and which tokens are an answer's.

    `rows` of a call name pairs by number. A picture is given once, for both conversations (see `pictures_twice`). With
    `reference`, a batch has its pairs' values and their `count`. The number after the last stands for no pair: it is
    left out, and a batch of nothing else becomes one pair that counts 0 (several processes: `collator.Order`).
    """

    def __init__(self, collator: Collator, pairs: Sequence[dict]) -> None:
        self.collator, self.pairs, self.reference = collator, pairs, {}

    def __call__(self, rows: Sequence[dict]) -> dict[str, torch.Tensor]:
        numbers = [row["pair"] for row in rows if row["pair"] < len(self.pairs)]
        count, numbers = len(numbers), numbers or [0]
        asked = [self.pairs[number] for number in numbers]
        batch = self.collator([_said(pair, side) for side in ("chosen", "rejected") for pair in asked])
        batch["completion_mask"] = (batch.pop("labels") != IGNORED).long()
        if "pixel_values" in batch:
            batch["pixel_values"] = batch["pixel_values"].chunk(2)[0]
        if self.reference:
            batch["count"] = count  # not a tensor: reading one would wait for the device
            for place, side in enumerate(("chosen", "rejected")):
                values = [self.reference[number][place] for number in numbers]
                batch[f"ref_{side}_logps"] = torch.tensor(values, dtype=torch.float32)
        return batch


class PairTrainer(ExactResume, DPOTrainer):
    """DPOTrainer over `Pairs`, with this project's checkpoints.

    Each pair of an optimizer step counts alike, however its batches and processes share them: TRL's means count the
    pairs of a short batch more. After init, set `run`.
    """

    run: Run

    def _prepare_dataset(self, dataset: Dataset, *args: object, **kwargs: object) -> Dataset:
        """Leave the rows as they are: the collator reads and checks them."""
        return dataset

    def compute_loss(self, model: nn.Module, inputs: dict, *args: object, **kwargs: object) -> torch.Tensor:
        """TRL's loss of a batch, times what makes the mean over batches and processes one over the step's pairs."""
        inputs = dict(inputs)
        count, settings, processes = inputs.pop("count"), self.run.settings, self.run.world.processes
        done = self.state.global_step % settings.steps_per_epoch(len(self.run.rows), processes)
        each = settings.rows_per_step(processes)
        pairs = min(each, len(self.run.rows) - done * each)
        with mock.patch.object(self.accelerator, "gather", partial(self._gathered, self.accelerator.gather, count)):
            loss = super().compute_loss(model, inputs, *args, **kwargs)
        return loss * (count * self.current_gradient_accumulation_steps * processes / pairs)

    def _gathered(self, gather: Callable, count: int, values: torch.Tensor) -> torch.Tensor:
        """The values of the pairs of all processes, each with pairs of its own number; single figures as they are."""
        if values.dim() == 0 or self.run.world.processes == 1:
            return gather(values)
        missing = self.run.settings.batch_size - count
        found = gather(torch.nn.functional.pad(values[:count], (0, missing), value=math.nan))
        return found[~found.isnan()]


def prepare(
    model: nn.Module,
    processor: ProcessorMixin | PreTrainedTokenizerBase,
    pairs: Sequence[dict],
    folder: Path,
    settings: PreferenceSettings,
    world: World | None = None,
    heldout: Sequence[dict] = (),
) -> Run:
    """`train.prepare` for `preferences.pairs`. The model is its own reference, as it is when the first call begins.

    In every call, a resume too, it must be the starting one. DataError for an empty answer, ParameterError for an
    engine that cuts the model.
    """
    if world is not None and world.engine not in ("", "ddp"):
        raise ParameterError(f"engine {world.engine!r} is not for dpo: set it to 'ddp', or to '' for one process")
    for pair in pairs:
        if not pair["chosen"].strip() or not pair["rejected"].strip():
            raise DataError(f"pair {pair['id']!r}: an answer is empty. Drop the pair")
    rows = [_said(pair, side) for pair in pairs for side in ("chosen", "rejected")]
    run = supervised.prepare(model, processor, rows, folder, settings, world, heldout)
    return dataclasses.replace(run, rows=pairs, total=settings.total_steps(len(pairs), run.world.processes))


def result(run: Run, log: list[dict]) -> Result:
    """`train.result` with TRL's figures of the rewards.

    `preferred` is the share of pairs whose chosen answer gained more than the rejected one; beside it stand `margin`
    and `chosen_logp`.
    """
    made = supervised.result(run, log)
    return dataclasses.replace(made, history=_with_rewards(made.history, log))


def train(run: Run, progress: Progress | None = None) -> list[dict]:
    """Train from the run's last checkpoint to the end, in each process of its world; return the log of all steps."""
    settings, processor, several = run.settings, run.processor, run.world.processes > 1
    watched = (progress, run.folder.parents[1] / HISTORY) if run.world.rank == 0 else (None, None)
    batches = Pairs(Collator(processor, settings.conversation, image_place=settings.image_place), run.rows)
    numbered = Dataset.from_dict({"pair": list(range(len(run.rows) + several))})  # the last one stands for no pair
    losses = settings.losses()
    more = {
        "beta": settings.beta, "loss_type": list(losses), "loss_weights": list(losses.values()),
        "label_smoothing": settings.label_smoothing, "ld_alpha": None if settings.ld_alpha == 1 else settings.ld_alpha,
        "disable_dropout": True,
    }  # fmt: skip
    with training(run), pictures_twice(run.model):
        trainer = PairTrainer(
            model=run.model,
            ref_model=copy.copy(run.model),  # shares all weights and is dropped: only stored values are used
            args=arguments(settings, run.folder, run.total, several, kind=DPOConfig, **more),
            train_dataset=numbered,
            processing_class=processor,
            data_collator=batches,
            callbacks=[TrainingMonitor(run.total, settings.save_minutes, *watched)],
        )
        trainer.run, trainer.order = run, order(run, trainer)
        trainer.ref_model, trainer.precompute_ref_logps = None, True
        batches.reference = _reference(trainer, run)
        set_seed(settings.seed)
        return resumed(trainer, run)


def _reference(trainer: PairTrainer, run: Run) -> list[list[float]]:
    """Log-probabilities (nats) of each pair's chosen and rejected answer under the starting model.

    They are computed once: the run's folder is named by its rows and its starting weights, so a file there is theirs.
    Each process computes its share.
    """
    file = run.folder / REFERENCE
    if file.is_file():
        return read_json(file)
    trainer.model.eval()
    values, numbers = [], list(range(len(run.rows)))[run.world.rank :: run.world.processes]
    for start in range(0, len(numbers), run.settings.batch_size):
        asked = numbers[start : start + run.settings.batch_size]
        batch = trainer._prepare_inputs(trainer.data_collator([{"pair": number} for number in asked]))
        chosen, rejected = trainer.compute_ref_log_probs(trainer.model, batch)
        values += [list(pair) for pair in zip(chosen.float().tolist(), rejected.float().tolist(), strict=True)]
    # a process gets past this when all have looked for the file, so they agree on whether it was there
    values = dict(gather_object(list(zip(numbers, values, strict=True))))
    values = [values[number] for number in range(len(run.rows))]
    if run.world.rank == 0:
        write_json(file, values)
    return values


def gains(before: Arm, after: Arm, pairs: Sequence[dict], batch_size: int) -> np.ndarray:
    """By how many nats `after` prefers each pair's chosen answer more than `before` does: (pairs,).

    DPO makes this gain large on the pairs it trains on; on others, the share above 0 says what was learned.
    """

    def preference(arm: Arm) -> np.ndarray:
        sides = ([_said(pair, side) for pair in pairs] for side in ("chosen", "rejected"))
        chosen, rejected = (response_logprobs(arm, rows, arm.conversation, batch_size)[0] for rows in sides)
        return chosen - rejected

    return preference(after) - preference(before)


@contextlib.contextmanager
def pictures_twice(model: nn.Module) -> Iterator[None]:
    """While open, a batch's pictures are encoded once: its chosen and its rejected half are about the same ones."""
    core = core_of(model)
    if not isinstance(core, LlavaForConditionalGeneration):
        yield
        return
    once = core.model.get_image_features

    def twice(*args: object, **kwargs: object) -> object:
        output = once(*args, **kwargs)
        output.pooler_output = [*output.pooler_output, *output.pooler_output]
        return output

    core.model.get_image_features = twice
    try:
        yield
    finally:
        del core.model.get_image_features


def _said(pair: dict, side: str) -> dict:
    return preferences.conversation(pair, pair["question"], pair[side], f"{pair['id']} {side}")


def _with_rewards(history: pd.DataFrame, log: list[dict]) -> pd.DataFrame:
    """The history without SFT's accuracy, with what TRL logs of the rewards by step."""
    logged = pd.DataFrame([entry for entry in log if "loss" in entry])
    named = {old: new for old, new in _LOGGED.items() if old in logged}
    return history.drop(columns="accuracy", errors="ignore").merge(
        logged[["step", *named]].rename(columns=named), on="step", how="left"
    )


SETTINGS = {"dpo": PreferenceSettings, **dict.fromkeys(("rejection", "steerlm", "sft"), Settings)}  # by method
