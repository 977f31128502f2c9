"""Tables over all arms and subsets of ETHICS.

`docs` are rows by (subset, split); `answers` are, by arm and then by "SUBSET SPLIT", the pairs of log-likelihoods.
"""

from collections.abc import Mapping, Sequence

from sbt.benchmarks.ethics import task as ethics
from sbt.report import stats

Docs = Mapping[tuple[str, str], Sequence[dict]]
Answers = Mapping[str, Mapping[str, Sequence]]


def baselines(docs: Docs) -> list[dict]:
    """What always giving one option reaches, by rows and option: accuracy, exact_match, n."""
    found = []
    for (subset, split), rows in docs.items():
        for option, score in ethics.baselines(rows, subset).items():
            kept = {name: score[name] for name in ("accuracy", "exact_match", "n")}
            found.append({"rows": f"{subset} {split}", "always": option, **kept})
    return found


def rows(docs: Docs, answers: Answers, arms: Sequence[str], seed: int, **same) -> list[dict]:
    """Metric rows of every arm and subset, and of each split's unweighted mean over the subsets."""
    found = []
    for arm in arms:
        for (subset, split), own in docs.items():
            found += ethics.rows(own, answers[arm][f"{subset} {split}"], subset, split, arm, seed, **same)
        for split in dict.fromkeys(split for _, split in docs):
            parts = {subset: own for (subset, other), own in docs.items() if other == split}
            pairs = {subset: answers[arm][f"{subset} {split}"] for subset in parts}
            found += ethics.mean_rows(parts, pairs, split, arm, seed, **same)
    return found


def per_item(docs: Docs, answers: Answers, arms: Sequence[str]) -> dict[str, dict[str, list[int]]]:
    """Right or wrong, by arm and split, over the rows of all subsets: what `arm_runs.differences` compares."""
    found: dict[str, dict[str, list[int]]] = {arm: {} for arm in arms}
    for arm in arms:
        for (subset, split), own in docs.items():
            right = ethics.correct(answers[arm][f"{subset} {split}"], ethics.labels(own, subset))
            found[arm].setdefault(split, []).extend(right)
    return found


def controls(docs: Docs, answers: Answers, arms: Sequence[str], seed: int) -> list[dict]:
    """By arm and rows: accuracy with permuted labels and its interval, what it is expected to be, and the ties.

    `first`: the share of rows answered with the first option. `outside`: whether the expected accuracy lies more than
    0.02 outside the interval.
    """
    found = []
    for arm in arms:
        for (subset, split), own in docs.items():
            pairs, labels = answers[arm][f"{subset} {split}"], ethics.labels(own, subset)
            value, low, high = stats.bootstrap(ethics.correct(pairs, ethics.permuted(labels, seed)), seed=seed)
            expected = ethics.chance(pairs, labels)
            measured = {"permuted": value, "low": low, "high": high, "expected": expected, "ties": ethics.ties(pairs)}
            measured["first"] = 1 - sum(pair[1] > pair[0] for pair in pairs) / len(pairs)
            outside = not low - 0.02 <= expected <= high + 0.02
            found.append({"arm": arm, "rows": f"{subset} {split}", **measured, "outside": outside})
    return found


def samples(docs: Docs, answers: Answers, arms: Sequence[str]) -> list[dict]:
    """One record an arm and row."""
    found = []
    for arm in arms:
        for (subset, split), own in docs.items():
            found += ethics.samples(own, answers[arm][f"{subset} {split}"], subset, split, arm)
    return found
