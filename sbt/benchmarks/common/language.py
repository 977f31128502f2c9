"""What the five language benchmarks share: where their files lie, checks of rows, choices, controls, metric rows.

mmlu, gsm8k, mathqa, boolq and squad2 have one shape: NAME, TASK, SHOTS, SPLIT, KIND, METRICS, load, from_rows, labels,
per_item, rows, samples, baselines, permuted. `results`, one an item, are log-likelihoods of the options in the
harness's order (KIND "choice"), a text ("generation"), or text and log-likelihood ("both").
"""

import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from sbt.report import stats
from sbt.utils import paths
from sbt.utils.errors import DataError, ParameterError, RunError
from sbt.utils.text import nearest

PROTOCOLS = ("standard", "paper")
PERMUTED = "labels permuted"


def source(path: Path | str, split: str, names: Mapping[str, Sequence[str]]) -> Path:
    """The file itself, or the split's file in the folder: the first of its publishers' names that is there."""
    path = paths.resolve(str(path))
    if not path.is_dir():
        return path
    if split not in names:
        raise ParameterError(f"split {split!r} is unknown here{nearest(split, names)}")
    if found := [path / name for name in names[split] if (path / name).is_file()]:
        return found[0]
    raise DataError(f"{paths.shown(path)} holds no {' or '.join(names[split])}. Put it there, or name the file")


def listed(rows: object, name: str) -> list[tuple[str, dict]]:
    """("NAME, row NUMBER", row), numbers from 1; DataError unless `rows` is a list of objects, at least one."""
    rows = list(rows) if isinstance(rows, Iterable) and not isinstance(rows, str | Mapping) else []
    if not rows:
        raise DataError(f"{name}: expected a list of questions, at least one")
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise DataError(f"{name}, row {number}: expected an object, found {str(row)[:40]!r}")
    return [(f"{name}, row {number}", row) for number, row in enumerate(rows, start=1)]


def key(row: Mapping, name: str, where: str) -> object:
    """A value of the row; DataError names the missing key and those that are there."""
    if name not in row:
        raise DataError(f"{where} has no {name!r}, only {', '.join(map(repr, row))}: is this another data set?")
    return row[name]


def text(row: Mapping, name: str, where: str) -> str:
    """A text of the row, as it stands; DataError where it is missing, empty or no text."""
    value = key(row, name, where)
    if not isinstance(value, str) or not value.strip():
        found = "is empty" if isinstance(value, str) else f"must be a text, found {value!r}"
        raise DataError(f"{where}: {name!r} {found}. Mend or remove that row")
    return value


def chosen(values: Sequence[float], lengths: Sequence[int]) -> tuple[int, bool]:
    """Place of the likeliest option, the first of equals as in the harness (argmax), and whether there are equals.

    Log-likelihoods are divided by `lengths`. RunError for one that is not a number: argmax would take it for the best.
    """
    scores = [value / length for value, length in zip(values, lengths, strict=True)]
    if any(score != score for score in scores):
        raise RunError("a log-likelihood is not a number: the model overflows. Load it with dtype float32")
    best = max(scores)
    return scores.index(best), scores.count(best) > 1


def accuracy(
    results: Sequence[Sequence[float]], golds: Sequence[int], lengths: Sequence[Sequence[int]]
) -> tuple[list[float], list[float]]:
    """1.0 for every item whose likeliest option is the gold one; 1.0 for every item where options tie for it."""
    found = [chosen(values, sizes) for values, sizes in zip(results, lengths, strict=True)]
    return (
        [float(place == gold) for (place, _), gold in zip(found, golds, strict=True)],
        [float(tied) for _, tied in found],
    )


def metric_row(values: Sequence[float], *, seed: int, scale: float = 1.0, weights: Sequence = (), **named) -> dict:
    """One metric row: the (weighted) mean of the items' scores with its 95 % bootstrap interval, times `scale`."""
    below = list(weights) or [1.0] * len(values)
    above = [weight * value for weight, value in zip(below, values, strict=True)]
    value, low, high = (scale * number for number in stats.ratio(below, above, seed=seed))
    measured = {"value": value, "low": low, "high": high, "n": len(values)}
    first = {name: named.pop(name) for name in ("arm", "benchmark", "subset", "metric")}
    return {**first, **measured, **named}


def metric_rows(scores: Mapping[str, Mapping[str, Sequence]], metrics: Sequence[str], **named) -> list[dict]:
    """Rows of every metric in every subset, from `scores` = {subset: {metric: the items' scores}}."""
    return [
        metric_row(values[metric], subset=subset, metric=metric, **named)
        for subset, values in scores.items()
        for metric in metrics
    ]


def records(ids: Sequence, golds: Sequence, results: Sequence, scores: Mapping[str, Sequence], arm: str) -> list[dict]:
    """One record an item: arm, id, label (the gold option's place, the gold answer or answers), result and scores."""
    items = enumerate(zip(ids, golds, results, strict=True))
    return [
        {"arm": arm, "id": name, "label": gold, "result": result, **{one: scores[one][n] for one in scores}}
        for n, (name, gold, result) in items
    ]


def guessed(counts: Sequence[int], seed: int) -> list[int]:
    """The control: one option an item at random, as permuting the labels within each item gives; leads to chance."""
    rng = random.Random(seed)
    return [rng.randrange(count) for count in counts]


def exchanged(golds: Sequence, seed: int) -> list:
    """The control where answers are written, not chosen: every item gets another item's, by a seeded ring."""
    order = random.Random(seed).sample(range(len(golds)), len(golds))
    after = dict(zip(order, order[1:] + order[:1], strict=True))
    return [golds[after[place]] for place in range(len(golds))]


def constant(golds: Sequence[int], names: Sequence[str]) -> dict[str, float]:
    """Accuracy of guessing, and of always giving the same option: what every score is to be read against."""
    always = {f"always {name}": golds.count(place) / len(golds) for place, name in enumerate(names)}
    return {"chance": 1 / len(names), **always}
