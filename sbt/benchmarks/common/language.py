"""What text benchmarks share, and `LanguageTask`: the whole of one of the five language benchmarks.

task = language.get("boolq");  docs = task.load(folder);  task.requests(docs);  task.rows(docs, answers, arm="base")
"""

import json
import random
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from pyarrow import parquet

from sbt import benchmarks
from sbt.benchmarks import check_protocol
from sbt.benchmarks.common import answers as answer_files
from sbt.data import download
from sbt.data.registry import HUB, Source
from sbt.report import stats
from sbt.utils import checks, paths
from sbt.utils.errors import DataError, ParameterError, RunError
from sbt.utils.files import read_jsonl
from sbt.utils.text import nearest

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PROTOCOLS = ("standard", "paper")
PERMUTED = "labels permuted"
Parts = Sequence | Mapping[str, Sequence]  # docs, requests or results: in one list, or by part


def published_file(source: Source, name: str) -> Path:
    """One file of a source, downloaded once, of its pinned revision and with its digest.

    RunError names every place that was asked, what each said, and what to do instead.
    """
    try:
        files = download.fetch(
            source, paths.downloads(), only=lambda file: file.name == name, progress=lambda *told: None
        )
    except RunError as error:
        raise RunError(f"{error}\nOr set the data parameter to a folder with the publishers' files") from error
    return files[name]


def parquet_rows(source: Source, name: str) -> list[dict]:
    """The rows of one Parquet file of a source, as `published_file` fetches it."""
    return parquet.read_table(published_file(source, name)).to_pylist()


def item_scores(
    samples: Sequence[Mapping], benchmark: str, scores: Mapping[str, str], items: str | list[str] = "id"
) -> dict[str, pd.DataFrame]:
    """A table of items x arms for each of `scores`, {its name: key of the samples}, from the samples of a step.

    `items` are the keys that name an item. Samples of other benchmarks, and without that score, are left out; a table
    without any sample is, too.
    """
    own = pd.DataFrame([row for row in samples if row.get("benchmark", benchmark) == benchmark])
    tables = {name: own[own[key].notna()] for name, key in scores.items() if key in own}
    return {
        name: table.pivot(index=items, columns="arm", values=scores[name]).astype(float)
        for name, table in tables.items()
        if len(table)
    }


class LanguageTask:
    """One language benchmark. A subclass sets the names below and has these methods:

    doc(row, where): a checked doc, in the fields of the task file, of a row of the publishers or the hub.
    labels(docs): the right option's place, or the right answer or answers, of every doc. per_item(docs, results,
    protocol): scores of every item, from 0 to 1, among them the protocol's metrics. baselines(docs): what guessing
    and always the same answer reach.

    name: as in its SPEC. source, hub: its published data, and the Parquet file of each split. file: its task file
    below `lm_eval/tasks`. files: the publishers' file names of each split. split: the one that is scored. shots: the
    number of few-shot examples, which are those of `shots_split`. metrics: by protocol, the headline last. scale:
    what scores are multiplied by in metric rows. label: the field of a doc that holds the right answer.
    Results are, one an item, log-likelihoods of the options in the harness's order, a text, or (text, log-likelihood);
    they come by part, as the requests, or in one list.
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
    label = "label"

    def load(self, source: Path | str, split: str = "") -> list[dict]:
        """Checked docs of a split from a file, a folder with the publishers' files, or "hub"; its own by default."""
        split = split or self.split
        if str(source) == HUB:
            return self.from_rows(parquet_rows(self.source, self.hub[split]), f"{self.name} {split}, hub")
        path = split_file(source, split, self.files)
        return self.from_rows(self.read(path), paths.shown(path))

    def read(self, path: Path) -> Sequence[dict]:
        """The rows of a publishers' file."""
        return read_jsonl(path)

    def from_rows(self, rows: Sequence[dict], name: str) -> list[dict]:
        """Docs of the publishers' or the hub's rows; DataError names the row at fault."""
        return [self.doc(row, where) for where, row in checks.listed(rows, name)]

    def examples(self, source: Path | str) -> list[dict]:
        """The few-shot examples to choose from; [] for a zero-shot benchmark."""
        return self.load(source, self.shots_split) if self.shots else []

    def requests(
        self, docs: Sequence[dict], examples: Sequence[dict] = (), *, protocol: str = "standard",
        fewshot: str = "first", conversation: str = "", tokenizer: "PreTrainedTokenizerBase | None" = None,
    ) -> dict[str, list[dict]]:  # fmt: skip
        """What is asked by part, one request a doc: one part, or one a subject. `fewshot`: see `harness.task`."""
        from sbt.inference import harness  # here: those who only read samples need no lm_eval

        check_protocol(protocol, PROTOCOLS)
        over = harness.task(self.file, docs, examples=examples, fewshot=fewshot)
        return {self.name: harness.requests(over, tokenizer, shots=self.shots, conversation=conversation)}

    def permuted(self, docs: Sequence[dict], seed: int) -> list[dict]:
        """The control: every question with the answer, the doc's field `label`, of another one."""
        answers = exchanged([doc[self.label] for doc in docs], seed)
        return [{**doc, self.label: answer} for doc, answer in zip(docs, answers, strict=True)]

    def rows(
        self, docs: Parts, results: Parts, *, arm: str, seed: int = 0, protocol: str = "standard", **more
    ) -> list[dict]:
        """Metric rows with 95 % intervals over items: the protocol's metrics, and those of the control."""
        docs, results = flat(docs), flat(results)
        parts = {"all": docs, PERMUTED: self.permuted(docs, seed)}
        scores = {subset: self.per_item(part, results, protocol) for subset, part in parts.items()}
        named = {"arm": arm, "benchmark": self.name, "protocol": protocol, **more}
        return metric_rows(scores, self.metrics[protocol], seed=seed, scale=self.scale, **named)

    def samples(self, docs: Parts, results: Parts, *, arm: str, protocol: str = "standard") -> list[dict]:
        """One record an item: arm, id, label, result and scores."""
        docs, results = flat(docs), flat(results)
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

    def compared(self, docs: Parts, results: Parts, protocol: str = "standard") -> dict[str, list[float]]:
        """The headline metric of every item, by which arms are compared."""
        return {self.name: self.per_item(flat(docs), flat(results), protocol)[self.headline(protocol)]}

    def item_scores(self, records: Sequence[dict]) -> dict:
        """The same from the samples of a step, as a table of items x arms."""
        return item_scores(records, self.name, {self.name: self.headline()})

    def result(self, row: answer_files.Row, doc: dict, protocol: str) -> object:
        """What a row of an answer file says, as `per_item` takes it; None where it chooses no option."""
        return answer_files.text(row)

    def score_files(
        self, answers: Path | str, references: Path | str | None = None, protocol: str = "standard"
    ) -> dict[str, float | int]:
        """The protocol's metrics, as metric rows have them, and n, of a file of answers (`common.answers`).

        A row names its item by `id`, as `ids` gives it, or stands in the order of the questions. `references` is what
        `load` takes. A log of the harness holds its questions and needs none; beside them it must answer them all.
        DataError names the row at fault. `unparsed` answers choose no option, and are wrong.
        """
        check_protocol(protocol, PROTOCOLS)
        name, path = paths.shown(answers), Path(answers)
        texts = answer_files.one_object(path, str) or {}  # {id: text}, as SQuAD's script wants it
        if not texts or texts.keys() & {"id", *answer_files.TEXTS}:
            rows = answer_files.read(path)
        else:
            rows = [(f"{name}, key {key!r}", {"id": key, "answer": said}) for key, said in texts.items()]
        logged = [row["doc"] for _, row in rows if "doc" in row]
        logged = self.from_rows(logged, name) if logged and len(logged) == len(rows) else []
        if references is None and not logged:
            whose = f"{self.name} needs --references, the benchmark's own file"
            raise ParameterError(f"{whose}: only a log of the harness holds its questions")
        docs = logged if references is None else flat(self.load(paths.resolve(str(references))))
        if logged:
            rows = self._identified(rows, logged, docs)
        rows = answer_files.in_order(rows, "id", list(self.ids(docs)), name)
        results = [self.result(row, doc, protocol) for row, doc in zip(rows, docs, strict=True)]
        unparsed = {"unparsed": results.count(None)} if None in results else {}
        results = [self.wrong(doc) if one is None else one for doc, one in zip(docs, results, strict=True)]
        found = self.rows(docs, results, arm="", protocol=protocol)
        return {row["metric"]: row["value"] for row in found if row["subset"] == "all"} | {"n": len(docs)} | unparsed

    def _identified(self, rows: Sequence, logged: Sequence[dict], docs: Sequence[dict]) -> list[answer_files.Row]:
        """The rows of a log with the ids of their questions, which are found by what they hold, among the docs."""
        ids: dict[str, list] = {}  # several where a question stands there twice
        for name, doc in zip(self.ids(docs), docs, strict=True):
            ids.setdefault(json.dumps(doc, sort_keys=True), []).append(name)
        found = []
        for (where, row), doc in zip(rows, logged, strict=True):
            left = ids.get(json.dumps(doc, sort_keys=True))
            if not left:
                asked = str(next(iter(doc.values())))[:60]
                raise DataError(f"{where}: this question is not in the reference file: {asked!r}")
            found.append((where, row | {"id": left.pop(0)}))
        return found


def flat(parts: Parts) -> list:
    """Docs, requests or results in one list, where they are by part; a list as it is."""
    return [one for part in parts.values() for one in part] if isinstance(parts, Mapping) else list(parts)


class ChoiceTask(LanguageTask):
    """A benchmark whose items have one right option of `options`, which `label` of a doc names.

    `values` are what `label` holds for each option.
    """

    options: Sequence[str] = ()
    values: Sequence = ()

    def labels(self, docs: Sequence[dict]) -> list[int]:
        """Place of the right option of every doc."""
        return [self.values.index(doc[self.label]) for doc in docs]

    def per_item(self, docs: Sequence[dict], results: Sequence, protocol: str = "standard") -> dict[str, list[float]]:
        """`acc` of every item, 1.0 or 0.0, and whether options are `tied` for the likeliest: the first counts."""
        check_protocol(protocol, PROTOCOLS)
        right, tied = accuracy(results, self.labels(docs), [[1] * len(self.options)] * len(docs))
        return {"acc": right, "tied": tied}

    def result(self, row: answer_files.Row, doc: dict, protocol: str) -> object:
        """Log-likelihoods of the options; of an answer in words 0 for the option that it names and -1 for others."""
        if "loglikelihoods" in row[1]:
            return answer_files.loglikelihoods(row, len(self.options))
        chosen = self.option(answer_files.text(row))
        return None if chosen is None else self._choice(chosen)

    def _choice(self, chosen: int) -> list[float]:
        return [float(place == chosen) - 1 for place in range(len(self.options))]

    def wrong(self, doc: dict) -> list[float]:
        """The result of an answer that chooses no option: as one that chooses a wrong one."""
        return self._choice((self.labels([doc])[0] + 1) % len(self.options))

    def option(self, said: str) -> int | None:
        """Place of the option that an answer in words names, None where it names none: a letter, or its first word."""
        from sbt.benchmarks.common import letters  # here, so that nothing else waits for the client of endpoints

        if all(len(one) == 1 for one in self.options):
            return letters.parse(said, "".join(self.options).upper())
        word = re.match(r"\W*(\w*)", said)[1].lower()
        return self.options.index(word) if word in self.options else None

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


def locate(names: Sequence[str], given: Mapping[str, str], folder: Path | None) -> dict[str, Path | str]:
    """Where each benchmark's data is: what is `given` for it, else its folder below `folder`, if a step makes one.

    ParameterError for a name in `given` that is not among `names`, and for a benchmark that has no data at all.
    """
    if strange := [name for name in given if name not in names]:
        raise ParameterError(f"sources names {strange[0]!r}, which is not asked{nearest(strange[0], names)}")
    if folder is None and (missing := [name for name in names if not given.get(name)]):
        raise ParameterError(f"no data of {', '.join(missing)}: set it in sources, or data to a step that makes it")
    return {name: given.get(name) or folder / name for name in names}


def split_file(path: Path | str, split: str, names: Mapping[str, Sequence[str]]) -> Path:
    """The file itself, or the split's file in the folder: the first of its publishers' names that is there."""
    path = paths.resolve(str(path))
    if not path.is_dir():
        return path
    if split not in names:
        raise ParameterError(f"split {split!r} is unknown here{nearest(split, names)}")
    for name in names[split]:
        if (path / name).is_file():
            return path / name
    raise DataError(f"{paths.shown(path)} holds no {' or '.join(names[split])}. Put it there, or name the file")


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


def metric_rows(scores: Mapping[str, Mapping[str, Sequence]], metrics: Sequence[str], **named) -> list[dict]:
    """Rows of every metric in every subset, from `scores` = {subset: {metric: the items' scores}}."""
    return [
        stats.metric_row(values[metric], subset=subset, metric=metric, **named)
        for subset, values in scores.items()
        for metric in metrics
    ]


def exchanged(golds: Sequence, seed: int) -> list:
    """The control for answers that are written: every item gets the answer to another one, drawn with the seed."""
    order = random.Random(seed).sample(range(len(golds)), len(golds))
    after = dict(zip(order, order[1:] + order[:1], strict=True))
    return [golds[after[place]] for place in range(len(golds))]
