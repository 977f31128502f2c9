"""Direct preference optimisation (Rafailov et al. 2023), by TRL, over this project's collator and checkpoints.

TRL's own collator tokenises prompt and answer apart, which puts a blank token before every answer with Llama's
tokenizers; it cuts without a word, encodes every picture four times a step and refuses stored reference values for
pictures; and a full model resumes from its initial weights. Here both conversations go whole through `Collator`, the
reference's log-probabilities are computed once and kept, and a picture is encoded once a pair and step.
"""

import contextlib
import copy
import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from datasets import Dataset
from torch import nn
from transformers import LlavaForConditionalGeneration, PreTrainedTokenizerBase, ProcessorMixin, set_seed
from trl import DPOConfig, DPOTrainer

from sbt.data import preferences
from sbt.models import Arm
from sbt.training.collator import IGNORED, Collator
from sbt.training.inspect import response_logprobs
from sbt.training.settings import Result, Settings
from sbt.training.train import HISTORY, Run, arguments, load, prepare, result, resumed, sft, training
from sbt.training.trainer import ExactResume, Progress, TrainingMonitor, core_of
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

    `rows` of a call name pairs by number. A picture is given once, for both conversations (see `pictures_twice`).
    """

    def __init__(self, collator: Collator, pairs: Sequence[dict]) -> None:
        self.collator, self.pairs, self.reference = collator, pairs, {}

    def __call__(self, rows: Sequence[dict]) -> dict[str, torch.Tensor]:
        asked = [self.pairs[row["pair"]] for row in rows]
        batch = self.collator([_said(pair, side) for side in ("chosen", "rejected") for pair in asked])
        batch["completion_mask"] = (batch.pop("labels") != IGNORED).long()
        if "pixel_values" in batch:
            batch["pixel_values"] = batch["pixel_values"].chunk(2)[0]
        for place, side in enumerate(("chosen", "rejected")):
            if self.reference:
                values = [self.reference[row["pair"]][place] for row in rows]
                batch[f"ref_{side}_logps"] = torch.tensor(values, dtype=torch.float32)
        return batch


class PairTrainer(ExactResume, DPOTrainer):
    """DPOTrainer over `Pairs`, with this project's checkpoints."""

    def _prepare_dataset(self, dataset: Dataset, *args: object, **kwargs: object) -> Dataset:
        """Leave the rows as they are: the collator reads and checks them."""
        return dataset


def dpo(
    model: nn.Module,
    processor: ProcessorMixin | PreTrainedTokenizerBase,
    pairs: Sequence[dict],
    folder: Path,
    settings: PreferenceSettings,
    *,
    progress: Progress | None = None,
) -> Result:
    """Train `model` in place on `preferences.pairs`; it is its own reference, as it is when the call begins.

    `Result.history` has `preferred` (share of pairs whose chosen answer gained more than the rejected one), `margin`
    and `chosen_logp`. Resumes as `sft` does. The model must be the starting one in every call, a resume too. Raises
    DataError for an empty answer or a row that cannot be trained on, and what `sft` raises.
    """
    for pair in pairs:
        if not pair["chosen"].strip() or not pair["rejected"].strip():
            raise DataError(f"pair {pair['id']!r}: an answer is empty. Drop the pair")
    rows = [_said(pair, side) for pair in pairs for side in ("chosen", "rejected")]
    run = prepare(model, processor, rows, folder, settings)
    run = dataclasses.replace(run, rows=pairs, total=settings.total_steps(len(pairs)))
    log = _train(run, progress) if run.start < run.total else load(run)
    made = result(run, log)
    return dataclasses.replace(made, history=_with_rewards(made.history, log))


def _train(run: Run, progress: Progress | None) -> list[dict]:
    settings, processor = run.settings, run.processor
    batches = Pairs(Collator(processor, settings.conversation, image_place=settings.image_place), run.rows)
    numbered = Dataset.from_dict({"pair": list(range(len(run.rows)))})
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
            args=arguments(settings, run.folder, run.total, kind=DPOConfig, **more),
            train_dataset=numbered,
            processing_class=processor,
            data_collator=batches,
            callbacks=[TrainingMonitor(run.total, settings.save_minutes, progress, run.folder.parents[1] / HISTORY)],
        )
        trainer.ref_model, trainer.precompute_ref_logps = None, True
        batches.reference = _reference(trainer, run)
        set_seed(settings.seed)
        return resumed(trainer, run)


def _reference(trainer: PairTrainer, run: Run) -> list[list[float]]:
    """Log-probabilities (nats) of each pair's chosen and rejected answer under the starting model.

    They are computed once: the run's folder is named by its rows and its starting weights, so a file there is theirs.
    """
    file = run.folder / REFERENCE
    if file.is_file():
        return read_json(file)
    trainer.model.eval()
    values, numbers = [], list(range(len(run.rows)))
    for start in range(0, len(numbers), run.settings.batch_size):
        asked = numbers[start : start + run.settings.batch_size]
        batch = trainer._prepare_inputs(trainer.data_collator([{"pair": number} for number in asked]))
        chosen, rejected = trainer.compute_ref_log_probs(trainer.model, batch)
        values += [list(pair) for pair in zip(chosen.float().tolist(), rejected.float().tolist(), strict=True)]
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


METHODS = {"dpo": (PreferenceSettings, dpo), **dict.fromkeys(("rejection", "steerlm", "sft"), (Settings, sft))}
