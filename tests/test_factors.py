"""Shares of factors: known effects come out and shares add up; variants of the rows change what they say."""

import numpy as np
import pandas as pd
import pytest
from datasets import Dataset

from sbt.data import conversations
from sbt.report import factors
from sbt.study import plan
from sbt.training import varied
from sbt.utils.errors import DataError, ParameterError

LEVELS = {"words": ["shuffled", "kept"], "pictures": ["none", "other", "right"], "style": ["short", "sentence"]}


def scored(effect: dict[str, float], runs: int = 1) -> pd.DataFrame:
    """300 items whose scores are the sum of the effects of an arm's levels, with noise that items share."""
    rng = np.random.default_rng(0)
    items, table = rng.normal(0, 0.2, 300), {}
    for name in ["base", *factors.cells(LEVELS)]:
        level = sum(effect.get(part, 0) for part in name.split("-")) + (0.1 if name != "base" else 0)
        for run in range(runs):
            column = name if runs == 1 or name == "base" else f"{name} (run {run + 1})"
            table[column] = level + items + rng.normal(0, 0.02, 300) + rng.normal(0, 0.01)
    return pd.DataFrame(table)


@pytest.mark.parametrize("runs", [1, 2])
def test_known_effects_come_out_and_shares_add_up(runs: int) -> None:
    found = factors.shares(scored({"kept": 0.3, "right": 0.1}, runs), LEVELS)
    assert found.effect[["words", "pictures", "style"]].tolist() == pytest.approx([0.3, 0.1, 0.0], abs=0.02)
    assert found.gain[["words", "pictures", "style", factors.ANY]].tolist() == pytest.approx(
        [0.6, 0.2, 0, 0.2], abs=0.06
    )
    assert found.gain.sum() == pytest.approx(1) and found.variance.sum() == pytest.approx(1)
    assert found.variance["words"] > 0.8 > 0.05 > abs(found.variance[factors.TOGETHER])
    assert found.gain_low["words"] > 0.5 and found.gain_low["style"] < 0.05
    for name in ("effect", "gain", "variance"):
        kept = found[[f"{name}_low", name, f"{name}_high"]].dropna()
        assert (kept.diff(axis=1).iloc[:, 1:] >= 0).all(axis=None), name
    assert factors.answer(found, "mc2").startswith("Of the gain in mc2: words ")


def test_what_factors_do_together_is_shared_between_them() -> None:
    gains = np.zeros((2, 2))
    gains[1, 1] = 1.0  # neither does it alone
    assert factors._parts(gains)[:2, 1].tolist() == [0.5, 0.5] and factors._parts(gains)[3, 2] == pytest.approx(1 / 3)


def test_an_arm_that_is_missing_is_named() -> None:
    with pytest.raises(DataError, match="'kept-right-sentence' was not scored"):
        factors.shares(scored({}).drop(columns="kept-right-sentence"), LEVELS)


def rows() -> Dataset:
    made = []
    for number in range(6):
        turns = [("user", f"what is in picture {number} ?"), ("assistant", "a red star .")] * 2
        messages = [{"role": role, "content": [{"type": "text", "text": text}]} for role, text in turns]
        messages[0]["content"].insert(0, {"type": "image", "text": None})
        messages[0]["content"][1]["text"] = "\n" + turns[0][1]
        made.append({"id": str(number), "images": [f"{number % 3}.png"], "messages": messages})
    return Dataset.from_list(made)


def test_a_variant_changes_one_thing() -> None:
    given = rows()
    assert varied(given) is given
    short, other, blind, mixed = (
        varied(given, **one)
        for one in ({"turns": 1}, {"pictures": "other"}, {"pictures": "none"}, {"words": "shuffled"})
    )
    assert [len(one["messages"]) for one in short] == [2] * 6 and short["images"] == given["images"]
    assert all(a != b for a, b in zip(other["images"], given["images"], strict=True))
    assert other["messages"] == given["messages"] and other["images"][0] == other["images"][3]
    assert not any(blind["images"]) and conversations.said(blind[0])[0][1] == "what is in picture 0 ?"
    for one, was in zip(mixed, given, strict=True):
        said, before = conversations.said(one), conversations.said(was)
        assert [sorted(text.split()) for _, text in said] == [sorted(text.split()) for _, text in before]
    assert mixed["messages"] != given["messages"] and mixed["images"] == given["images"]
    for wrong in ({"pictures": "noise"}, {"word": "kept"}, {"turns": -1}):
        with pytest.raises(ParameterError, match=f"variant.*{next(iter(wrong))}"):
            varied(given, **wrong)
    with pytest.raises(ParameterError, match="one picture only"):
        varied(given.select([0, 3]), pictures="other")


def test_the_study_of_factors_is_a_full_factorial() -> None:
    whole, _ = plan.load("embedded-factors")
    steps = {step.values["arm"]: step.values for step in whole.steps if step.notebook == "30_instruction_tuning"}
    levels = next(step.values for step in whole.steps if step.notebook == "73_factors")
    levels = dict(zip(levels["factors"], (some.split() for some in levels["levels"]), strict=True))
    assert set(steps) == set(factors.cells(levels)) and len(steps) == 24
    for name, values in steps.items():
        words, pictures, style, length = name.split("-")
        variant = {"words": words, "pictures": pictures, "turns": 1 if length == "short" else 0}
        assert values["variant"] == variant and values["data"] == f"10_data-{style}"
    assert len({values["max_steps"] * values["batch_size"] * values["accumulation"] for values in steps.values()}) == 1
