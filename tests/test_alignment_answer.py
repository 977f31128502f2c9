"""What the report says of preference alignment: a case for each way that the differences can fall."""

import numpy as np
import pandas as pd
import pytest

from sbt import benchmarks
from sbt.report import alignment, collect

SPECS = benchmarks.specs()
ROLES = {"dpo": "dpo", "noisy": "random_labels", "equal": "length_matched", "best": "rejection"}


def results(count: int = 4000, name: str = "boolq", **levels: float) -> collect.Results:
    """Scores of `count` items; an arm that scores more is right wherever one that scores less is."""
    luck = np.random.default_rng(0).permutation((np.arange(count) + 0.5) / count)
    return collect.Results([], {}, {name: pd.DataFrame({arm: (luck < one) * 1.0 for arm, one in levels.items()})}, {})


def said(found: collect.Results, **roles: str) -> list[str]:
    roles = roles or ROLES
    made = pd.DataFrame([{"arm": arm, "role": role} for arm, role in roles.items()], columns=["arm", "role"])
    return alignment.answers(found, made, SPECS, tuned="full")


def test_what_was_lost_and_brought_back_and_is_neither_length_nor_noise() -> None:
    cost, back, parts = said(results(base=0.9, full=0.7, dpo=0.8, noisy=0.72, equal=0.8, best=0.7))
    assert cost.startswith("Visual tuning cost full language ability (mean of boolq) (-0.2")
    assert back.startswith("Beside full, dpo (+0.1") and "brought some back; best (+0.000" in back
    assert back.endswith("changed nothing to speak of")
    assert parts.startswith("Of what dpo gained, random labels give less, so the preferences count (+0.0")
    assert "pairs of equal length give as much, so it is not length (+0.000" in parts


@pytest.mark.parametrize(
    ("noisy", "equal", "words"),
    [(0.8, 0.72, ("random labels give as much", "which are fewer, give less, so length may be a part")),
     (0.86, 0.86, ("random labels give more", "pairs of equal length give more"))],
)  # fmt: skip
def test_a_gain_may_be_noise_or_length(noisy: float, equal: float, words: tuple[str, str]) -> None:
    _, _, parts = said(results(base=0.9, full=0.7, dpo=0.8, noisy=noisy, equal=equal, best=0.7))
    assert all(word in parts for word in words)


def test_nothing_lost_and_nothing_gained() -> None:
    cost, back, parts = said(results(base=0.7, full=0.7, dpo=0.6, best=0.8))
    assert cost.startswith("Visual tuning cost full no language ability (mean of boolq) to speak of (+0.000")
    assert "best (+0.1" in back and "raised it" in back and "dpo (-0.1" in back and "lowered it" in back
    assert parts == "dpo is not shown to be higher than full, so no part of it can be called length or label noise"
    assert said(results(base=0.7, full=0.9, dpo=0.9))[0].startswith("Visual tuning cost full no language ability")


def test_what_cannot_be_told_says_so_and_why() -> None:
    rng = np.random.default_rng(1)
    arms = ("base", "full", "dpo", "best")
    few = pd.DataFrame({arm: (rng.random(30) < 0.8) * 1.0 for arm in arms})
    cost, back, _ = said(collect.Results([], {}, {"boolq": few}, {}))
    assert cost.startswith("What visual tuning cost full in language ability (mean of boolq) cannot be told (")
    assert "cannot be told" in back and "[" in back
    _, _, parts = said(results(base=0.9, full=0.7, dpo=0.8, best=0.7))  # without the controls
    assert "what is label noise cannot be told (the study has no arm for random_labels)" in parts
    assert "what is length cannot be told (the study has no arm for length_matched)" in parts
    guessing = said(results(base=0.5, full=0.3, dpo=0.3))[0]
    assert "cannot be told (neither arm is shown to be above guessing" in guessing


def test_a_study_without_aligned_arms_says_nothing_and_a_judge_stands_in() -> None:
    assert said(results(base=0.9, full=0.7), other="lora") == []
    assert said(results(base=0.9, dpo=0.7)) == []  # the arm that was aligned was not scored
    assert said(results(name="mc2", base=0.9, full=0.7, dpo=0.8)) == []
    judged = said(results(name="mtbench", base=0.9, full=0.7, dpo=0.8))
    assert judged[0].startswith("Visual tuning cost full MT-Bench (-0.2")
