"""Intervals and tests: against formulas where there are some, and against resampling written out."""

import tracemalloc

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


def test_right_or_wrong_answers_have_the_interval_of_the_formula() -> None:
    right = (np.arange(300) % 3 == 0).astype(float)
    short = stats.bootstrap(right)
    long = stats.bootstrap(right + np.arange(300) * 1e-9)  # no two values alike: resampled
    assert short[0] == pytest.approx(1 / 3) and short == pytest.approx(long, abs=0.006)
    error = np.sqrt(1 / 3 * 2 / 3 / 300)
    assert short[2] - short[1] == pytest.approx(2 * 1.96 * error, rel=0.05)


@pytest.mark.parametrize("n", [10, 50, 500])
@pytest.mark.parametrize("p", [0.02, 0.3, 0.5, 0.98])
def test_intervals_of_shares_cover_the_truth_in_95_of_100_studies(n: int, p: float) -> None:
    """Computed from the binomial distribution, not drawn. Above 97 % only where the next smaller set is below 93 %."""
    held = [low <= p <= high for _, low, high in (stats.bootstrap([1.0] * k + [0.0] * (n - k)) for k in range(n + 1))]
    chances = scipy.stats.binom.pmf(range(n + 1), n, p)
    coverage = chances[held].sum()
    inside = np.flatnonzero(held)
    ends = chances[[inside[0], inside[-1]]]
    smaller = coverage - ends[np.isclose(ends, ends.min())].sum()  # both ends where the distribution is symmetric
    assert coverage >= 0.93 and (coverage <= 0.97 or smaller < 0.93), coverage


def share_coverage(p: float, groups: int, size: int, alike: float, studies: int = 600) -> float:
    """Share of studies whose interval holds `p`, where the items of a group correlate by `alike`."""
    rng, held = np.random.default_rng([groups, round(100 * p)]), 0
    names = np.repeat(np.arange(groups), size)
    for _ in range(studies):
        of_group = rng.beta(p * (1 - alike) / alike, (1 - p) * (1 - alike) / alike, groups)
        _, low, high = stats.bootstrap((rng.random((groups, size)) < of_group[:, None]).ravel() * 1.0, groups=names)
        held += low <= p <= high
    return held / studies


def test_intervals_of_shares_hold_for_items_in_few_groups() -> None:
    """Eight groups of twenty. At the edges of the scale they are too wide: nothing tells how alike a group is."""
    assert all(0.93 <= share_coverage(p, 8, 20, 0.2) <= 0.985 for p in (0.3, 0.5))
    assert all(share_coverage(p, 8, 20, 0.2) >= 0.93 for p in (0.02, 0.98))


def test_intervals_at_the_edge_are_neither_empty_nor_outside() -> None:
    assert stats.bootstrap([0] * 12) == (0.0, 0.0, pytest.approx(0.282, abs=0.001))
    assert stats.ratio([2.0] * 8, [0.0] * 8)[2] > 0.2  # an F1 of 0, on eight items
    assert stats.over_runs([[1, 0, 1], [0, 0, 1]]) == (0.5, 0.0, 1.0)
    rng = np.random.default_rng(20)
    _, low, high = stats.over_runs([(rng.random(30) < 0.95) * 1.0 for _ in range(3)])
    assert 0 <= low < high <= 1
    assert stats.bootstrap(rng.beta(8, 0.3, 6))[2] <= 1
    assert stats.ratio([2.0] * 8, [0.0] * 8, share=False) == (0.0, 0.0, 0.0)  # a difference that is none


def test_interval_and_test_agree_about_zero() -> None:
    assert stats.paired([1] * 5, [0] * 5) == {
        "delta": 1.0,
        "low": 0.0,
        "high": 1.0,
        "p": 0.0625,
        "n": 5,
        "test": "exact",
    }
    rng = np.random.default_rng(21)
    for _ in range(150):
        size, lead = rng.integers(4, 40), rng.random() * 0.5
        for a, b in (
            ((rng.random(size) < 0.4 + lead) * 1.0, (rng.random(size) < 0.4) * 1.0),
            (rng.normal(lead, 1, size), rng.normal(0, 1, size)),
        ):
            found = stats.paired(a, b, resamples=500)
            assert (found["low"] <= 0 <= found["high"]) == (found["p"] > 0.05), found
            assert found["low"] <= found["delta"] <= found["high"]


def test_seeded_and_different_for_another_seed() -> None:
    values = np.random.default_rng(1).normal(size=50)
    assert stats.bootstrap(values, seed=3) == stats.bootstrap(values, seed=3) != stats.bootstrap(values, seed=4)
    one, two = stats.paired(values, values * 0.5, seed=3), stats.paired(values, values * 0.5, seed=3)
    assert one == two


def test_no_variation_no_width_and_no_items_an_error() -> None:
    assert stats.bootstrap([0.5] * 7) == (0.5, 0.5, 0.5)
    assert stats.bootstrap([True])[::2] == (1.0, 1.0) and stats.bootstrap([True])[1] < 0.5
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
    assert mean == 0.75 and 0 <= low < 0.1 and high > 0.95  # two groups that differ say next to nothing


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
    more = rng.normal(0.3, 1, 18)
    drawn = stats.paired(more, np.zeros_like(more))
    assert drawn["test"] == "permutation"
    assert drawn["p"] == pytest.approx(flipped_exactly(more), abs=0.015)
    assert drawn["p"] != stats.paired(more, np.zeros_like(more), seed=1)["p"]


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
    some = [{"p": None}, {"p": 0.02}, {"p": 0.04}]  # what has no p counts in no correction
    assert [row["p_holm"] for row in stats.corrected(some)] == [None, pytest.approx(0.04), pytest.approx(0.04)]


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
    assert same == pytest.approx(alone, abs=0.02)
    mean, low, high = stats.over_runs([values - 0.5, values, values + 0.5])
    assert mean == pytest.approx(values.mean())
    # two variances: of the mean of the items, and of the mean of three runs (two degrees of freedom)
    items, runs = values.var(ddof=1) / 200, 0.5**2 / 3
    degrees = (items + runs) ** 2 / (items**2 / 199 + runs**2 / 2)
    assert high - low == pytest.approx(2 * scipy.stats.t.ppf(0.975, degrees) * np.sqrt(items + runs), rel=1e-6)


@pytest.mark.parametrize("runs", [2, 3, 5])
def test_two_levels_cover_the_truth_where_items_alone_do_not(runs: int) -> None:
    rng, both, alone, differ = np.random.default_rng(16), 0, 0, 0
    for _ in range(400):
        items = rng.normal(size=(1, 100))
        a, b = (items + rng.normal(0, 0.2, (runs, 1)) + rng.normal(0, 0.3, (runs, 100)) for _ in range(2))
        _, low, high = stats.over_runs(list(a))
        both += low <= 0 <= high
        _, low, high = stats.bootstrap(a[0], resamples=400)
        alone += low <= 0 <= high
        found = stats.paired_runs(list(a), list(b))
        differ += found["low"] <= 0 <= found["high"]
        assert (found["p"] is None) == (runs < stats.FEW_RUNS)
    assert both / 400 >= 0.9 > alone / 400 and differ / 400 >= 0.9


def test_difference_of_arms_of_several_runs() -> None:
    rng = np.random.default_rng(17)
    items = rng.normal(size=300)
    a = [items + 0.5 + shift + rng.normal(0, 0.1, 300) for shift in (-0.1, -0.05, 0.0, 0.05, 0.1)]
    found = stats.paired_runs(a, [items], seed=1)
    assert found["delta"] == pytest.approx(np.mean(a) - items.mean()) and (found["runs_a"], found["runs_b"]) == (5, 1)
    assert found["test"] == "t" and found["n"] == 300 and found["p"] < 0.01
    assert 0.25 < found["low"] < 0.5 < found["high"] < 0.75  # items cancel; what remains is the spread of the runs
    back = stats.paired_runs([items], a, seed=1)
    assert back["delta"] == -found["delta"] and back["high"] < 0
    apart = stats.paired_runs([items + 1, items - 1], [items + 0.9, items - 1.2])
    assert apart["low"] < 0 < apart["high"]  # items alone would call the difference certain
    assert apart["p"] is None and apart["test"] == "too few runs"
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


def test_resampling_needs_little_memory() -> None:
    values = np.random.default_rng(9).normal(size=4_000)
    tracemalloc.start()
    stats.paired(values, np.zeros(4_000), resamples=1_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 31e6  # all signs at once would be 1,000 x 4,000 x 8 bytes = 32 MB
