"""Intervals and tests: against formulas where there are some, and against resampling written out."""

import time
import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
import scipy.stats

from sbt.report import stats


def test_interval_of_a_mean_is_that_of_the_normal_approximation() -> None:
    values = np.random.default_rng(0).normal(3.0, 2.0, 400)
    mean, low, high = stats.bootstrap(values)
    error = values.std() / 20
    assert mean == pytest.approx(values.mean(), abs=1e-12)
    assert (low, high) == (
        pytest.approx(mean - 1.96 * error, abs=0.06 * error),
        pytest.approx(mean + 1.96 * error, abs=0.06 * error),
    )


def test_right_and_wrong_answers_take_the_short_cut_and_agree_with_the_long_way() -> None:
    right = (np.arange(300) % 3 == 0).astype(float)
    short = stats.bootstrap(right)
    long = stats.bootstrap(right + np.arange(300) * 1e-9)  # no two values alike
    assert short[0] == pytest.approx(1 / 3) and short == pytest.approx(long, abs=0.004)
    error = np.sqrt(1 / 3 * 2 / 3 / 300)
    assert short[2] - short[1] == pytest.approx(2 * 1.96 * error, rel=0.05)


def test_seeded_and_different_for_another_seed() -> None:
    values = np.random.default_rng(1).normal(size=50)
    assert stats.bootstrap(values, seed=3) == stats.bootstrap(values, seed=3) != stats.bootstrap(values, seed=4)
    one, two = stats.paired(values, values * 0.5, seed=3), stats.paired(values, values * 0.5, seed=3)
    assert one == two


def test_no_variation_no_width_and_no_items_an_error() -> None:
    assert stats.bootstrap([0.5] * 7) == (0.5, 0.5, 0.5)
    assert stats.bootstrap([True]) == (1.0, 1.0, 1.0)
    for call in (lambda: stats.bootstrap([]), lambda: stats.paired([], [])):
        with pytest.raises(ValueError, match="no items"):
            call()
    with pytest.raises(ValueError, match="3 and 2"):
        stats.paired([1, 2, 3], [1, 2])
    with pytest.raises(ValueError, match="3 items but 2 group names"):
        stats.bootstrap([1, 2, 3], groups=["a", "b"])


def test_groups_are_drawn_whole() -> None:
    """Ten equal answers about each of 40 pictures are 40 observations, not 400."""
    picture = np.repeat(np.arange(40), 10)
    values = np.random.default_rng(2).normal(size=40)[picture]
    mean, low, high = stats.bootstrap(values, groups=picture)
    _, alone_low, alone_high = stats.bootstrap(values)
    assert mean == pytest.approx(values.mean())
    assert (high - low) / (alone_high - alone_low) == pytest.approx(np.sqrt(10), rel=0.06)
    names = np.array([f"{n}.png" for n in picture])  # names serve as well as numbers, in any order
    order = np.random.default_rng(3).permutation(400)
    assert stats.bootstrap(values[order], groups=names[order])[0] == pytest.approx(mean)


def test_groups_of_different_size_keep_their_weight() -> None:
    values, groups = [1.0, 1.0, 1.0, 0.0], ["a", "a", "a", "b"]
    mean, low, high = stats.bootstrap(values, groups=groups)
    assert (mean, low, high) == (0.75, 0.0, 1.0)  # both from a, both from b, or one of each


def f1(hits: np.ndarray, said: np.ndarray, true: np.ndarray) -> float:
    return 2 * hits.sum() / (said.sum() + true.sum())


def test_interval_of_a_ratio_equals_resampling_written_out() -> None:
    rng = np.random.default_rng(4)
    true = rng.random(200) < 0.5
    said = np.where(rng.random(200) < 0.8, true, ~true)
    hits = (true & said).astype(float)
    value, low, high = stats.ratio(said.astype(float) + true, 2 * hits)
    drawn = [f1(hits[pick], said[pick], true[pick]) for pick in rng.integers(0, 200, (4000, 200))]
    assert value == pytest.approx(f1(hits, said, true))
    assert (low, high) == pytest.approx(tuple(np.percentile(drawn, [2.5, 97.5])), abs=0.01)


def test_ratio_with_nothing_below_is_zero() -> None:
    assert stats.ratio([0.0, 0.0], [0.0, 0.0]) == (0.0, 0.0, 0.0)
    value, low, high = stats.ratio([0.0, 0.0, 1.0], [0.0, 0.0, 1.0])  # some resamples have nothing below either
    assert (value, low, high) == (1.0, 0.0, 1.0)


def test_paired_difference_sees_what_two_intervals_do_not() -> None:
    rng = np.random.default_rng(5)
    hard = rng.normal(0, 1, 300)
    a, b = hard + 0.1 + rng.normal(0, 0.2, 300), hard
    found = stats.paired(a, b)
    assert found["delta"] == pytest.approx((a - b).mean()) and found["n"] == 300
    assert 0 < found["low"] < found["delta"] < found["high"] and found["p"] < 0.001
    assert stats.bootstrap(a)[1] < stats.bootstrap(b)[2]  # apart, the intervals overlap
    swapped = stats.paired(b, a)
    assert swapped["delta"] == -found["delta"] and swapped["low"] == pytest.approx(-found["high"], abs=0.005)


def test_p_is_that_of_the_exact_sign_flip_test() -> None:
    difference = [1.0, 2.0, 3.0, 4.0]
    # of 16 sign patterns two are as extreme as the observed one: all plus, all minus
    assert stats.paired(difference, [0.0] * 4)["p"] == 2 / 16
    assert stats.paired([1.0, 0.0], [1.0, 0.0])["p"] == 1.0
    # grouped, the two pairs are flipped together: all of 4 patterns but +- and -+ are as extreme
    assert stats.paired(difference, [0.0] * 4, groups=list("aabb"))["p"] == 2 / 4


@pytest.mark.parametrize(("better", "worse"), [(0, 0), (1, 0), (7, 2), (40, 31), (31, 40), (25, 25), (600, 480)])
def test_right_or_wrong_answers_get_the_exact_mcnemar_test(better: int, worse: int) -> None:
    a = np.repeat([1.0, 0.0, 1.0, 0.0], [better, worse, 30, 20])
    b = np.repeat([0.0, 1.0, 1.0, 0.0], [better, worse, 30, 20])
    found = stats.paired(a, b)
    expected = scipy.stats.binomtest(better, better + worse).pvalue if better + worse else 1.0
    assert found["p"] == pytest.approx(expected, rel=1e-9) and found["test"] == "exact"
    assert stats.paired(a * 0.3, b * 0.3)["p"] == found["p"]  # the magnitude is none of the test's business


def flipped_exactly(difference: np.ndarray) -> float:
    """scipy's paired permutation test over all patterns of signs."""
    test = scipy.stats.permutation_test(
        (difference, np.zeros_like(difference)),
        lambda x, y, axis: np.mean(x - y, axis),
        permutation_type="samples",
        n_resamples=1e6,
    )
    return test.pvalue


def test_few_differences_are_enumerated_and_many_drawn() -> None:
    rng = np.random.default_rng(11)
    few = rng.normal(0.4, 1, 12)
    found = stats.paired(np.append(few, np.zeros(50)), np.zeros(62))  # what is equal does not count
    assert found["p"] == pytest.approx(flipped_exactly(few), abs=1e-12) and found["test"] == "exact"
    rounded = np.round(few, 1)  # many sums are equal but for their last digits
    assert stats.paired(rounded, np.zeros(12))["p"] == pytest.approx(flipped_exactly(rounded), abs=1e-12)
    more = rng.normal(0.3, 1, stats.ENUMERATED + 3)
    drawn = stats.paired(more, np.zeros_like(more))
    assert drawn["test"] == "permutation"
    assert drawn["p"] == pytest.approx(flipped_exactly(more), abs=0.015)
    assert drawn["p"] != stats.paired(more, np.zeros_like(more), seed=1)["p"]


def test_drawn_signs_are_fair_and_independent() -> None:
    values = np.random.default_rng(12).normal(size=19)
    drawn = stats._flipped(values, 40_000, 0)
    size = np.sqrt((values**2).sum())
    assert abs(drawn.mean()) < 4 * size / 200 and drawn.std() == pytest.approx(size, rel=0.02)
    signs = np.array([stats._flipped(np.eye(19)[k] * 2**k, 2000, 3) for k in (0, 7, 8, 18)])
    assert set(np.abs(signs).max(axis=1)) == {1.0, 2.0**7, 2.0**8, 2.0**18} and (signs != 0).all()
    assert np.abs(np.corrcoef(signs) - np.eye(4)).max() < 0.1


def test_holm_by_hand_and_against_the_definition() -> None:
    assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert stats.holm([0.5, 0.9]) == [1.0, 1.0] and stats.holm([]) == [] and stats.holm([0.2]) == [0.2]
    p = np.random.default_rng(13).random(30) ** 3
    adjusted = np.array(stats.holm(p))
    for level in (0.01, 0.05, 0.3):  # step down: reject the smallest while it is below level / (how many are left)
        ordered = np.sort(p)
        passed = ordered <= level / np.arange(30, 0, -1)
        rejected = ordered[: 30 if passed.all() else passed.argmin()]
        assert sorted(p[adjusted <= level]) == sorted(rejected)
    assert (adjusted >= p).all() and (np.diff(adjusted[np.argsort(p)]) >= 0).all()
    for wrong in ([0.1, 1.2], [-0.1], [float("nan")]):
        with pytest.raises(ValueError, match="between 0 and 1"):
            stats.holm(wrong)


def test_a_table_is_corrected_as_a_whole() -> None:
    rows = [{"arm": "a", "p": 0.01}, {"arm": "b", "p": 0.04}]
    assert stats.corrected(rows) == [{"arm": "a", "p": 0.01, "p_holm": 0.02}, {"arm": "b", "p": 0.04, "p_holm": 0.04}]
    assert "p_holm" not in rows[0] and stats.corrected([]) == []


def test_one_run_is_a_plain_bootstrap() -> None:
    rng = np.random.default_rng(14)
    groups = np.arange(90) // 4
    for values in (rng.normal(size=90), (rng.random(90) < 0.4).astype(float)):
        assert stats.over_runs([values]) == stats.bootstrap(values)
        assert stats.over_runs([values], groups=groups) == pytest.approx(stats.bootstrap(values, groups=groups))
        other = rng.normal(size=90)
        found = stats.paired_runs([values], [other], seed=2)
        assert found == {**stats.paired(values, other, seed=2), "runs_a": 1, "runs_b": 1}


def test_runs_that_agree_add_nothing_and_runs_that_differ_widen_the_interval() -> None:
    values = np.random.default_rng(15).normal(size=200)
    alone, same = stats.bootstrap(values), stats.over_runs([values] * 4)
    assert same == pytest.approx(alone, abs=1e-9)
    mean, low, high = stats.over_runs([values - 0.5, values, values + 0.5])
    assert mean == pytest.approx(values.mean())
    # two variances: of the items' mean, and of the mean of three runs that vary by 0.5
    expected = np.sqrt(values.var() / 200 + 0.5**2 / 3)
    assert high - low == pytest.approx(2 * 1.96 * expected, rel=0.12) and high - low > 2.5 * (alone[2] - alone[1])


def test_two_levels_cover_the_truth_where_items_alone_do_not() -> None:
    rng = np.random.default_rng(16)
    both = alone = 0
    for _ in range(200):
        items, runs = rng.normal(size=(1, 100)), rng.normal(0, 0.2, (6, 1))
        scores = items + runs + rng.normal(0, 0.3, (6, 100))
        _, low, high = stats.over_runs(list(scores), resamples=400)
        both += low <= 0 <= high
        _, low, high = stats.bootstrap(scores[0], resamples=400)
        alone += low <= 0 <= high
    assert both / 200 >= 0.88 > alone / 200


def test_difference_of_arms_of_several_runs() -> None:
    rng = np.random.default_rng(17)
    items = rng.normal(size=300)
    a = [items + 0.5 + shift + rng.normal(0, 0.1, 300) for shift in (-0.1, 0.0, 0.1)]
    found = stats.paired_runs(a, [items], seed=1)
    assert found["delta"] == pytest.approx(np.mean(a) - items.mean()) and (found["runs_a"], found["runs_b"]) == (3, 1)
    assert found["test"] == "bootstrap" and found["n"] == 300 and found["p"] < 0.01
    assert 0.25 < found["low"] < 0.5 < found["high"] < 0.75  # items cancel; what remains is the spread of the runs
    back = stats.paired_runs([items], a, seed=1)
    assert back["delta"] == -found["delta"] and back["high"] < 0
    apart = stats.paired_runs([items + 1, items - 1], [items + 0.9, items - 1.2])
    assert apart["low"] < 0 < apart["high"] and apart["p"] > 0.3  # items alone would call the difference certain
    assert stats.paired(items, items + 0.1 + rng.normal(0, 0.1, 300))["p"] < 0.001
    grouped = stats.paired_runs(a, [items, items], groups=np.arange(300) // 5)
    assert grouped["delta"] == pytest.approx(found["delta"])


def test_runs_must_fit_together() -> None:
    for call in (
        lambda: stats.over_runs([]),
        lambda: stats.paired_runs([], [[1.0]]),
        lambda: stats.paired_runs([[1.0]], []),
    ):
        with pytest.raises(ValueError, match="no runs"):
            call()
    with pytest.raises(ValueError, match="same items: 2 and 3 scores"):
        stats.over_runs([[1.0, 2.0, 3.0], [1.0, 2.0]])
    with pytest.raises(ValueError, match="same items: 2 and 3 scores"):
        stats.paired_runs([[1.0, 2.0, 3.0]] * 2, [[1.0, 2.0]])
    with pytest.raises(ValueError, match="finite"):
        stats.bootstrap([1.0, float("nan")])


def test_p_is_uniform_where_the_arms_are_alike() -> None:
    rng = np.random.default_rng(6)
    found = [stats.paired(rng.normal(size=60), rng.normal(size=60), resamples=400)["p"] for _ in range(200)]
    assert 0.01 <= np.mean(np.array(found) < 0.05) <= 0.10


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(7)
    inside = 0
    for _ in range(300):
        _, low, high = stats.bootstrap((rng.random(200) < 0.7).astype(float), resamples=1000)
        inside += low <= 0.7 <= high
    assert 0.91 <= inside / 300 <= 0.98


def seconds(call: Callable[[], object]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


def test_large_benchmarks_take_seconds() -> None:
    """20,000 items, 10,000 resamples: about 1.2 s of one core at most; the margin is for slow machines."""
    rng = np.random.default_rng(8)
    a, b, c = rng.normal(size=(3, 20_000))
    right = (a > 0).astype(float)
    # a measure of the machine: random numbers alone are most of the work, and need twice as many here
    drawing = seconds(lambda: [rng.integers(0, 20_000, 20_000) for _ in range(2000)]) * 5
    limit = max(2.0, 4 * drawing)
    calls = {
        "bootstrap": lambda: stats.bootstrap(a),
        "ratio": lambda: stats.ratio(np.abs(b), a),
        "paired": lambda: stats.paired(a, b),
        "rounded": lambda: stats.bootstrap(np.round(a, 3)),
        "over_runs": lambda: stats.over_runs([a, b, c]),
        "paired_runs": lambda: stats.paired_runs([a, b], [c]),
        "exact": lambda: stats.paired(right, 1 - right),
    }
    taken = {name: seconds(call) for name, call in calls.items()}
    assert {name: found for name, found in taken.items() if found > limit} == {}
    assert seconds(lambda: stats.bootstrap(right)) < 0.5


def test_resampling_needs_little_memory() -> None:
    values = np.random.default_rng(9).normal(size=20_000)
    tracemalloc.start()
    stats.paired(values, np.zeros(20_000), resamples=200)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 25e6  # all signs at once would be 200 x 20,000 x 8 bytes = 32 MB here, and 1.6 GB for 10,000
