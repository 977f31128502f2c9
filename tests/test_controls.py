"""The controls: every picture is exchanged for another one, or for none."""

import pandas as pd
import pytest

from sbt.benchmarks.common import controls


def test_shuffling_leaves_no_picture_in_its_place_and_loses_none():
    names = [f"{k}.png" for k in range(50)]
    for seed in range(20):
        shown = controls.pictures(names, "shuffled", seed)
        assert sorted(shown.values()) == sorted(names)
        assert all(name != other for name, other in shown.items())
    assert controls.pictures(names, "shuffled", 1) == controls.pictures(names[::-1], "shuffled", 1)


def test_the_real_and_the_blank_condition(tmp_path):
    assert controls.pictures(["a"], "real", 0) == {"a": "a"}
    shown = controls.shown(tmp_path, ["a"], "blank", 0)
    assert shown["a"].getextrema() == ((128, 128),) * 3


@pytest.mark.parametrize(("names", "condition"), [(["a"], "shuffled"), (["a", "b"], "mirrored")])
def test_what_cannot_be_shown_is_an_error(names, condition):
    with pytest.raises(ValueError, match="alone|none of"):
        controls.pictures(names, condition, 0)


def metric_rows(arm, **scores):
    return [
        {"arm": arm, "subset": subset.replace("_", ", "), "value": value, "low": value - 0.1, "high": value + 0.1}
        for subset, value in scores.items()
    ]


def test_an_arm_sees_only_where_its_interval_is_above_the_blind_level_and_both_controls():
    rows = metric_rows("looks", count=0.9, count_shuffled=0.6, count_blank=0.5, color=0.9, color_shuffled=0.85,
                       color_blank=0.5)  # fmt: skip
    rows += metric_rows("guesses", count=0.55, count_shuffled=0.5, count_blank=0.5, color=0.5, color_shuffled=0.5,
                        color_blank=0.5)  # fmt: skip
    table = controls.compared(pd.DataFrame(rows), {"count": 0.5, "color": 0.5})
    assert table.sees.to_dict() == {
        ("looks", "count"): True,
        ("looks", "color"): False,  # the shuffled score lies within its interval
        ("guesses", "count"): False,
        ("guesses", "color"): False,
    }
    assert table.loc[("looks", "count"), "left"] == 0.25 and table.left.isna().sum() == 3
    assert table.loc[("looks", "count"), "real"] == "0.90 [0.80, 1.00]"
    told = "looks: sees in count; not shown to see in color\nguesses: not shown to see in count, color"
    assert controls.verdicts(table) == told
    assert not controls.compared(pd.DataFrame(rows), {"count": 0.85, "color": 0.5}).sees.any()


def test_subsets_are_split_into_task_and_condition():
    rows = pd.DataFrame({"subset": ["real", "count", "count, blank", "shuffled, answer number", "flickr30k, real"]})
    found = controls.split(rows)
    assert list(found.task) == ["all", "count", "count", "answer number", "flickr30k"]
    assert list(found.condition) == ["real", "real", "blank", "shuffled", "real"]


def test_the_blind_levels_are_the_commonest_label_of_a_kind_and_words_about_another_picture():
    assert controls.commonest(["a", "b", "a", "a"], ["yes", "2", "no", "no"]) == ["no", "2", "no", "no"]
    items = [{"image": f"{k % 3}.png", "references": [f"about {k % 3}"]} for k in range(6)]
    said = controls.others(items, 0)
    assert all(told != item["references"][0] for told, item in zip(said, items, strict=True)) and said[:3] == said[3:]


def test_the_figure_has_a_panel_a_condition_and_the_levels():
    rows = metric_rows("a", count=0.9, count_shuffled=0.6, count_blank=0.5)
    axes = controls.figure(pd.DataFrame(rows), "t", {"count": 0.5}).axes
    assert [axis.get_title() for axis in axes] == list(controls.CONDITIONS)
    assert all([0.5, 0.5] in [list(line.get_xdata()) for line in axis.lines] for axis in axes)
