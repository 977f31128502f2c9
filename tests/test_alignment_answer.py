"""What the report says of preference alignment: a case for each way that the differences can fall."""

import dataclasses
from pathlib import Path

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
    assert cost.startswith("Visual tuning cost full some of language ability (mean of boolq) (-0.2")
    assert back.startswith("In language ability (mean of boolq), beside full, dpo (+0.1")
    assert "]) brought some back; best (+0.000" in back and back.endswith("]) changed nothing to speak of")
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
    assert cost.startswith("Visual tuning cost full none of language ability (mean of boolq) to speak of (+0.000")
    assert "best (+0.1" in back and "added some" in back and "dpo (-0.1" in back and "cost some more" in back
    assert parts == "dpo is not shown to be higher than full, so no part of it can be called length or label noise"
    assert said(results(base=0.7, full=0.9, dpo=0.9))[0].startswith("Visual tuning cost full none of language ability")


def test_what_cannot_be_told_says_so_and_why() -> None:
    rng = np.random.default_rng(1)
    arms = ("base", "full", "dpo", "best")
    few = pd.DataFrame({arm: (rng.random(30) < 0.8) * 1.0 for arm in arms})
    cost, back, _ = said(collect.Results([], {}, {"boolq": few}, {}))
    assert cost.startswith("Whether visual tuning cost full some of language ability (mean of boolq) cannot be told (")
    assert "of dpo (" in back and back.endswith("]) nothing can be told")
    _, _, parts = said(results(base=0.9, full=0.7, dpo=0.8, best=0.7))  # without the controls
    assert "what is label noise cannot be told (the study has no arm for random_labels)" in parts
    assert "what is length cannot be told (the study has no arm for length_matched)" in parts
    guessing = said(results(base=0.5, full=0.3, dpo=0.3))[0]
    assert "cannot be told (neither arm is shown to be above guessing" in guessing


@pytest.mark.parametrize(
    ("left", "words"),
    [((0.08, 0.04, 0.12), "answers +0.080 [+0.040, +0.120] is left, so it is not length alone"),
     ((0.01, -0.03, 0.05), "answers +0.010 [-0.030, +0.050] is left, so how much is length cannot be told")],
)  # fmt: skip
def test_a_judge_tells_what_is_left_at_equal_length(tmp_path: Path, left: tuple, words: str) -> None:
    row = {"arm": "dpo", "benchmark": "mtbench", "delta": 0.1, "low": 0.09, "high": 0.11}
    row |= dict(zip(("at equal length", "its low", "its high"), left, strict=True))
    pd.DataFrame([row, row | {"arm": "best"}]).to_csv(tmp_path / "differences.csv", index=False)
    judged = results(name="mtbench", base=0.9, full=0.7, dpo=0.8, noisy=0.72)
    judged = dataclasses.replace(judged, folders={"mtbench": {"71": tmp_path}})
    (tmp_path / "params.yaml").write_text("compare: full\n")
    assert said(judged)[-1].endswith(words)
    (tmp_path / "params.yaml").write_text("compare: base\n")  # of another difference
    assert said(judged)[-1].endswith("what is length cannot be told (the study has no arm for length_matched)")


def test_the_cost_is_told_by_both_measures() -> None:
    found = results(base=0.9, full=0.7, dpo=0.7)
    found.scores["mtbench"] = results(base=0.7, full=0.7, dpo=0.8).scores["boolq"]
    judged, ability, back, _ = said(found)
    assert judged.startswith("Visual tuning cost full none of the score on MT-Bench (0 to 1) to speak of (+0.000")
    assert ability.startswith("Visual tuning cost full some of language ability (mean of boolq) (-0.2")
    assert back.startswith("In the score on MT-Bench (0 to 1), beside full, dpo (+0.1") and back.endswith("added some")


def test_what_alignment_did_to_sight_is_told_of_the_arms_that_were_asked() -> None:
    found = results(base=0.9, full=0.7, dpo=0.8, best=0.7)
    assert not any("POPE" in one for one in said(found))
    found.scores["POPE"] = results(full=0.7, dpo=0.6).scores["boolq"]  # `best` was not asked
    sight = said(found)[-1]
    assert sight.startswith("On POPE, beside full, dpo (-0.1") and sight.endswith("answered fewer questions rightly")


def test_a_study_without_aligned_arms_says_nothing_and_a_judge_stands_in() -> None:
    assert said(results(base=0.9, full=0.7), other="lora") == []
    assert said(results(base=0.9, dpo=0.7)) == []  # the arm that was aligned was not scored
    assert said(results(name="mc2", base=0.9, full=0.7, dpo=0.8)) == []
    judged = said(results(name="mtbench", base=0.9, full=0.7, dpo=0.8))
    assert judged[0].startswith("Visual tuning cost full some of the score on MT-Bench (0 to 1) (-0.2")
