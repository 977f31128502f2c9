"""DPO over the project's collator and checkpoints, beside the stock trainer where that goes wrong or does more."""

import copy
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny
import torch
from datasets import Dataset
from tiny_fixtures import small  # noqa: F401 - a fixture
from trl import DPOConfig, DPOTrainer

from sbt import models, templates
from sbt.training import Result, launch, preference
from sbt.training.collator import IGNORED, Collator
from sbt.training.preference import Pairs, PreferenceSettings
from sbt.utils.errors import DataError, ParameterError

POLICIES = {
    "full": {"connector": "full", "language_model": "full"},
    "lora": {"connector": "frozen", "language_model": "lora"},
}
SETTINGS = PreferenceSettings(
    learning_rate=1e-3, max_steps=4, batch_size=3, accumulation=2, save_steps=2, save_minutes=0, warmup_ratio=0
)


def dpo(
    model: object, processor: object, some: list, folder: Path, settings: PreferenceSettings, **more: object
) -> Result:
    return launch({}, folder, settings, "", built=(model, processor, some), **more)


def pairs(images: list[str], count: int = 8) -> list[dict]:
    """Every fourth pair is text alone."""
    made = []
    for n in range(count):
        answers = {"chosen": "a red box", "rejected": "no" * (n % 2 + 1)}
        image = images[n % len(images)] if n % 4 else ""
        made.append({"id": str(n), "image": image, "question": f"What is it {n % 3}?", **answers})
    return made


def built(small: SimpleNamespace, policy: str) -> tuple:  # noqa: F811
    model, processor = models.assemble(small.llm, small.clip)
    return models.set_trainable(model, POLICIES[policy], {"r": 4, "lora_dropout": 0.1}), processor


def run(folder: Path, small: SimpleNamespace, policy: str, settings: PreferenceSettings = SETTINGS, **options: object):  # noqa: F811
    model, processor = built(small, policy)
    return dpo(model, processor, pairs(small.images), folder, settings, **options)


@pytest.mark.parametrize("policy", POLICIES)
def test_it_begins_at_ln_2_and_a_killed_run_ends_with_the_very_same_weights(
    tmp_path: Path,
    small: SimpleNamespace,  # noqa: F811
    policy: str,
) -> None:
    whole = run(tmp_path / "whole", small, policy)
    assert abs(whole.history["loss"].iloc[0] - math.log(2)) < 1e-6 and whole.history["margin"].iloc[-1] > 0
    with pytest.raises(tiny.Killed):
        run(tmp_path / "cut", small, policy, progress=tiny.killed_at(3))
    resumed = run(tmp_path / "cut", small, policy)
    assert (whole.resumed_from, resumed.resumed_from) == (0, 2)
    assert resumed.weights_sha256 == whole.weights_sha256 and resumed.history.equals(whole.history)
    assert run(tmp_path / "cut", small, policy).resumed_from == 4


def stock(folder: Path, small: SimpleNamespace, steps: int = 4) -> DPOTrainer:  # noqa: F811
    """TRL's trainer with a live reference, on the same tokens; each picture is given for both answers, as there."""
    model, processor = built(small, "full")
    processor.chat_template = templates.load("v1")
    given = preference.arguments(replace(SETTINGS, max_steps=steps), folder, steps, kind=DPOConfig, beta=0.1)
    data = Dataset.from_list([{"pair": n} for n in range(len(pairs(small.images)))])
    made = Pairs(Collator(processor, "v1"), pairs(small.images))

    def collate(asked: list[dict]) -> dict:
        batch = made(asked)
        return batch | ({"pixel_values": batch["pixel_values"].repeat(2, 1, 1, 1)} if "pixel_values" in batch else {})

    class Unprepared(DPOTrainer):
        def _prepare_dataset(self, dataset: Dataset, *args: object, **kwargs: object) -> Dataset:
            return dataset

    return Unprepared(model=model, ref_model=copy.deepcopy(model), args=given, train_dataset=data,
                      processing_class=processor, data_collator=collate)  # fmt: skip


def test_stored_reference_and_shared_features_train_as_a_live_reference_does(
    tmp_path: Path,
    small: SimpleNamespace,  # noqa: F811
) -> None:
    seen = {"stock": 0, "ours": 0}
    with models.silence_libraries():
        live = stock(tmp_path / "stock", small)
        for model in (live.model, live.ref_model):
            count(model, seen, "stock")
        live.train()
    model, processor = built(small, "full")
    count(model, seen, "ours")
    ours = dpo(model, processor, pairs(small.images), tmp_path / "ours", SETTINGS)
    losses = [entry["loss"] for entry in live.state.log_history if "loss" in entry]
    assert ours.history["loss"].tolist() == pytest.approx(losses, abs=1e-5)
    for name, parameter in live.model.named_parameters():
        assert torch.allclose(parameter, model.get_parameter(name), atol=1e-5), name
    assert seen["ours"] < seen["stock"] / 2  # the reference's own pass included


def count(model: torch.nn.Module, seen: dict, name: str) -> None:
    """Count the pictures that go through the vision tower."""

    def add(module: torch.nn.Module, args: tuple, given: dict) -> None:
        seen[name] += len(args[0] if args else given["pixel_values"])

    model.model.vision_tower.register_forward_pre_hook(add, with_kwargs=True)


def test_an_answers_tokens_are_those_of_supervised_training(small: SimpleNamespace) -> None:  # noqa: F811
    _, processor = built(small, "full")
    some, collator = pairs(small.images), Collator(processor, "v1")
    batch = Pairs(collator, some)([{"pair": n} for n in range(len(some))])
    plain = collator([preference._said(one, side) for side in ("chosen", "rejected") for one in some])
    assert torch.equal(batch["completion_mask"].bool(), plain["labels"] != IGNORED)
    assert torch.equal(batch["input_ids"], plain["input_ids"])
    assert batch["pixel_values"].shape[0] * 2 == plain["pixel_values"].shape[0]


def test_a_language_model_is_aligned_too(tmp_path: Path, small: SimpleNamespace) -> None:  # noqa: F811
    model, tokenizer = models.load_language_model(small.llm)
    model = models.set_trainable(model, {"language_model": "full"})
    some = [one | {"image": ""} for one in pairs(small.images)]
    made = dpo(model, tokenizer, some, tmp_path, replace(SETTINGS, sft_weight=0.5, label_smoothing=0.1, ld_alpha=0.5))
    assert made.history["loss"].notna().all() and made.steps == 4


def test_what_was_learned_shows_on_pairs(tmp_path: Path, small: SimpleNamespace) -> None:  # noqa: F811
    before, after = (models.Arm(*built(small, "full"), name, "v1", {}) for name in ("before", "after"))
    some = pairs(small.images)
    assert preference.gains(before, after, some, 3) == pytest.approx([0.0] * len(some), abs=1e-4)
    dpo(after.model, after.processor, some, tmp_path, SETTINGS)
    assert preference.gains(before, after, some, 3).mean() > 0


def test_wrong_values_and_empty_answers_are_named(tmp_path: Path, small: SimpleNamespace) -> None:  # noqa: F811
    model, processor = built(small, "full")
    some = pairs(small.images)
    with pytest.raises(DataError, match="pair '3': an answer is empty"):
        dpo(model, processor, [*some[:3], some[3] | {"rejected": " "}], tmp_path, SETTINGS)
    assert not list(tmp_path.iterdir())
    wrong = [{"beta": 0}, {"label_smoothing": 0.5}, {"ld_alpha": 2}, {"eval_steps": 2}]
    for given in (*wrong, {"average": True, "ld_alpha": 0.5}):
        with pytest.raises(ParameterError, match=next(iter(given))):
            replace(SETTINGS, **given)
