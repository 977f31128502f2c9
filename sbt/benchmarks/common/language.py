"""What the five language benchmarks share. `LanguageTask` is the whole of one of them, for `evaluate_text`.

task = language.get("boolq");  docs = task.load(folder);  task.requests(docs);  task.rows(docs, answers, arm="base")
"""

import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sbt import benchmarks
from sbt.benchmarks import check_protocol
from sbt.benchmarks.common import published, samples
from sbt.data.registry import HUB, Source
from sbt.report import stats
from sbt.utils import paths
from sbt.utils.errors import DataError, ParameterError, RunError
from sbt.utils.files import read_jsonl
from sbt.utils.text import nearest

PROTOCOLS = ("standard", "paper")
PERMUTED = "labels permuted"

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class LanguageTask:
    """One language benchmark. A subclass sets the names below and says how a row is read and an item is scored.

    name: as in its SPEC. source, hub: its published data, and the Parquet file of each split. file: its task file
    below `lm_eval/tasks`. files: the publishers' file names of each split. split: the one that is scored. shots: the
    number of few-shot examples, which are those of `shots_split`. metrics: by protocol, the headline last. scale:
    what scores are multiplied by in metric rows.
    Results are, one an item, log-likelihoods of the options in the harness's order, a text, or (text, log-likelihood).
    """

    name = ""
    source: Source
    hub: Mapping[str, str] = {}
    file = ""
    files: Mapping[str, Sequence[str]] = {}
    split = "validation"
    shots = 0
    shots_split = ""
    metrics: Mapping[str, Sequence[str]] = {"standard": ("acc",), "paper": ("acc",)}
    scale = 1.0

    def load(self, source: Path | str, split: str = "") -> list[dict]:
        """Checked docs of a split from a file, a folder with the publishers' files, or "hub"; its own by default."""
        split = split or self.split
        if str(source) == HUB:
            return self.from_rows(published.parquet_rows(self.source, self.hub[split]), f"{self.name} {split}, hub")
        path = split_file(source, split, self.files)
        return self.from_rows(self.read(path), paths.shown(path))

    def read(self, path: Path) -> Sequence[dict]:
        """The rows of a publishers' file."""
        return read_jsonl(path)

    def from_rows(self, rows: Sequence[dict], name: str) -> list[dict]:
        """Docs of the publishers' or the hub's rows; DataError names the row at fault."""
        return [self.doc(row, where) for where, row in listed(rows, name)]

    def doc(self, row: dict, where: str) -> dict:
        """A checked doc in the fields of the task file; `where` names the row in errors."""
        raise NotImplementedError

    def examples(self, source: Path | str) -> list[dict]:
        """The few-shot examples to choose from; [] for a zero-shot benchmark."""
        return self.load(source, self.shots_split) if self.shots else []

    def requests(
        self,
        docs: Sequence[dict],
        examples: Sequence[dict] = (),
        *,
        protocol: str = "standard",
        fewshot: str = "first",
        conversation: str = "",
        tokenizer: "PreTrainedTokenizerBase | None" = None,
    ) -> list[dict] | dict[str, list[dict]]:
        """What is asked, one request a doc (MMLU: by subject). `fewshot`: see `harness.task`."""
        from sbt.inference import harness  # here: those who only read samples need no lm_eval

        check_protocol(protocol, PROTOCOLS)
        over = harness.task(self.file, docs, examples=examples, fewshot=fewshot)
        return harness.requests(over, tokenizer, shots=self.shots, conversation=conversation)

    def labels(self, docs: Sequence[dict]) -> list:
        """The right option's place, or the right answer or answers, of every doc."""
        raise NotImplementedError

    def per_item(self, docs: Sequence[dict], results: Sequence, protocol: str = "standard") -> dict[str, list[float]]:
        """Scores of every item, from 0 to 1, among them the protocol's metrics."""
        raise NotImplementedError

    def permuted(self, docs: Sequence[dict], seed: int) -> list[dict]:
        """The control: the same docs with answers at random."""
        raise NotImplementedError

    def baselines(self, docs: Sequence[dict]) -> dict[str, float]:
        """What needs no model reaches: guessing, and always the same answer."""
        raise NotImplementedError

    def rows(
        self, docs: Sequence[dict], results: Sequence, *, arm: str, seed: int = 0, protocol: str = "standard", **more
    ) -> list[dict]:
        """Metric rows with 95 % intervals over items: the protocol's metrics, and those of the control."""
        parts = {"all": docs, PERMUTED: self.permuted(docs, seed)}
        scores = {subset: self.per_item(part, results, protocol) for subset, part in parts.items()}
        named = {"arm": arm, "benchmark": self.name, "protocol": protocol, **more}
        return metric_rows(scores, self.metrics[protocol], seed=seed, scale=self.scale, **named)

    def samples(self, docs: Sequence[dict], results: Sequence, *, arm: str, protocol: str = "standard") -> list[dict]:
        """One record an item: arm, id, label, result and scores."""
        scores = self.per_item(docs, results, protocol)
        return [
            {"arm": arm, "id": name, "label": label, "result": result, **{one: scores[one][n] for one in scores}}
            for n, (name, label, result) in enumerate(zip(self.ids(docs), self.labels(docs), results, strict=True))
        ]

    def ids(self, docs: Sequence[dict]) -> Sequence:
        """A name for every item: its place among the docs, from 0."""
        return range(len(docs))

    def headline(self, protocol: str = "standard") -> str:
        """The metric that the report shows."""
        return self.metrics[protocol][-1]

    def compared(self, docs: Sequence[dict], results: Sequence, protocol: str = "standard") -> dict[str, list[float]]:
        """The headline metric of every item, by which arms are compared."""
        return {self.name: self.per_item(docs, results, protocol)[self.headline(protocol)]}

    def item_scores(self, records: Sequence[dict]) -> dict:
        """The same from the samples of a step, as a table of items x arms: see `common.samples`."""
        return samples.item_scores(records, self.name, {self.name: self.headline()})


def flat(parts: Sequence | Mapping[str, Sequence]) -> list:
    """Docs, requests or results in one list, where they are by subject; a list as it is."""
    return [one for part in parts.values() for one in part] if isinstance(parts, Mapping) else list(parts)


class ChoiceTask(LanguageTask):
    """A benchmark whose items have one right option of `options`, which `label` of a doc names.

    `values` are what `label` holds for each option.
    """

    options: Sequence[str] = ()
    label = "label"
    values: Sequence = ()

    def labels(self, docs: Sequence[dict]) -> list[int]:
        """Place of the right option of every doc."""
        return [self.values.index(doc[self.label]) for doc in docs]

    def per_item(self, docs: Sequence[dict], results: Sequence, protocol: str = "standard") -> dict[str, list[float]]:
        """`acc` of every item, 1.0 or 0.0, and whether options are `tied` for the likeliest: the first counts."""
        check_protocol(protocol, PROTOCOLS)
        right, tied = accuracy(results, self.labels(docs), [[1] * len(self.options)] * len(docs))
        return {"acc": right, "tied": tied}

    def permuted(self, docs: Sequence[dict], seed: int) -> list[dict]:
        """The control: one option an item at random, as permuting the labels within each item gives."""
        rng = random.Random(seed)
        return [{**doc, self.label: self.values[rng.randrange(len(self.options))]} for doc in docs]

    def baselines(self, docs: Sequence[dict]) -> dict[str, float]:
        """Accuracy of guessing, and of always giving the same option."""
        golds = self.labels(docs)
        always = {f"always {name}": golds.count(place) / len(golds) for place, name in enumerate(self.options)}
        return {"chance": 1 / len(self.options), **always}


def get(name: str) -> LanguageTask:
    """A language benchmark by name; ParameterError with a suggestion for another one."""
    known = [spec.name for spec in benchmarks.specs().values() if spec.notebook == "52_language_ability"]
    if name not in known:
        raise ParameterError(f"language benchmark {name!r} is unknown{nearest(str(name), known)}")
    return benchmarks.get(name).load("task")


def locate(names: Sequence[str], given: Mapping[str, str], folder: Path) -> dict[str, Path | str]:
    """Where each benchmark's data is: what is `given` for it, else its folder below `folder`.

    ParameterError for a name in `given` that is not among `names`.
    """
    if strange := [name for name in given if name not in names]:
        raise ParameterError(f"sources names {strange[0]!r}, which is not asked{nearest(strange[0], names)}")
    return {name: given.get(name) or folder / name for name in names}


def split_file(path: Path | str, split: str, names: Mapping[str, Sequence[str]]) -> Path:
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


def exchanged(golds: Sequence, seed: int) -> list:
    """The control where answers are written, not chosen: every item gets another item's, by a seeded ring."""
    order = random.Random(seed).sample(range(len(golds)), len(golds))
    after = dict(zip(order, order[1:] + order[:1], strict=True))
    return [golds[after[place]] for place in range(len(golds))]
