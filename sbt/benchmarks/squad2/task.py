"""SQuAD 2.0 (Rajpurkar et al. 2018): answer from a passage, or say there is none; zero-shot. `dev-v2.0.json`.

Scores are those of the official script, evaluate-v2.0.py: 0 to 1 here, times 100 in metric rows, as it prints them.

The answer is generated up to a line break; beside it the log-likelihood of " unanswerable" is the probability of no
answer (lm_eval/tasks/squadv2/task.py, 0.4.13). Protocol "paper" (0.3: lm_eval/tasks/squad.py) is the same.
"""

import math
import re
import string
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from sbt.benchmarks import check_protocol
from sbt.benchmarks.common import answers as answer_files
from sbt.benchmarks.common import language
from sbt.benchmarks.squad2 import SOURCE
from sbt.report import stats
from sbt.utils import checks, paths
from sbt.utils.errors import DataError, RunError
from sbt.utils.files import read_json

_METRICS = ("exact", "f1", "HasAns_exact", "HasAns_f1", "NoAns_exact", "NoAns_f1", "best_exact", "best_f1")
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalize(text: str) -> str:
    """Lower case, without ASCII punctuation, then without the words a, an, the; single blanks."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def golds(texts: Sequence[str]) -> list[str]:
    """The normalised answers that are not empty; the empty one alone where there is none: "unanswerable"."""
    return [plain for plain in map(normalize, texts) if plain] or [""]


def exact(answer: str, texts: Sequence[str]) -> float:
    """1.0 if the normalised answer is one of the gold answers; of no gold answers, only if it is empty."""
    return float(normalize(answer) in golds(texts))


def f1(answer: str, texts: Sequence[str]) -> float:
    """Best F1 of the answer's words, as a bag, with those of a gold answer; where one has none, 1.0 if neither has."""
    words = Counter(normalize(answer).split())
    return max(_f1(words, Counter(gold.split())) for gold in golds(texts))


def _f1(words: Counter, gold: Counter) -> float:
    if not words or not gold:
        return float(words == gold)
    shared = (words & gold).total()
    precision, recall = shared / words.total(), shared / gold.total()
    return 2 * precision * recall / (precision + recall) if shared else 0.0


def best(
    scores: Sequence[float], no_answer: Sequence[float], answerable: Sequence[bool], answers: Sequence[str]
) -> tuple[list[float], float]:
    """Item scores at the threshold whose mean is highest (best_exact, best_f1), and that threshold.

    From no answer at all, answers are let in one by one by rising probability of having none, equals in the order of
    the file; the first highest sum wins. An unanswerable item's answer counts as wrong unless its text is empty, as it
    stands: a blank is an answer here, though `exact` takes it for none.
    """
    held = [float(not known) for known in answerable]
    given = [s if known else float(not a) for s, known, a in zip(scores, answerable, answers, strict=True)]
    order = sorted(range(len(held)), key=lambda place: no_answer[place])
    total = highest = sum(held)
    kept = 0
    for count, place in enumerate(order, start=1):
        total += given[place] - held[place]
        if total > highest:
            highest, kept = total, count
    for place in order[:kept]:
        held[place] = given[place]
    return held, no_answer[order[kept - 1]] if kept else 0.0


class Squad2(language.LanguageTask):
    """Docs {id, title, context, question, answers: {text, answer_start}}; no answer is an empty list of texts.

    Results are (text, log-likelihood of " unanswerable").
    """

    name, source, file = "squad2", SOURCE, "squadv2/squadv2.yaml"
    hub = {"validation": "validation-00000-of-00001.parquet"}
    files = {"validation": ("dev-v2.0.json",), "train": ("train-v2.0.json",)}
    metrics = {"standard": _METRICS, "paper": _METRICS}
    scale, label = 100.0, "answers"

    def read(self, path: Path) -> list[dict]:
        """The publishers' articles of paragraphs of questions, as flat rows."""
        content, name = read_json(path), paths.shown(path)
        if not isinstance(content, dict) or "data" not in content:
            raise DataError(f"{name}: expected an object with 'data': is this SQuAD 2.0's own file?")
        return list(_questions(content["data"], name))

    def from_rows(self, rows: Sequence[dict], name: str) -> list[dict]:
        """Docs of the rows; DataError names an empty text, answers that are no texts, an id that is there twice."""
        docs = super().from_rows(rows, name)
        checks.once((doc["id"] for doc in docs), f"{name}, row ", "id")
        return docs

    def doc(self, row: dict, where: str) -> dict:
        """A checked doc of a flat row."""
        where = f"{where} (id {row.get('id')!r})"
        doc = {field: checks.text(row, field, where) for field in ("id", "title", "context", "question")}
        answers = checks.key(row, "answers", where)
        texts = answers.get("text") if isinstance(answers, dict) else None
        if not isinstance(texts, list) or not all(isinstance(one, str) and one.strip() for one in texts):
            raise DataError(f"{where}: 'answers' must hold a list 'text' of texts, found {answers!r}")
        return {**doc, "answers": answers}

    def headline(self, protocol: str = "standard") -> str:
        """F1, the number that is published."""
        return "f1"

    def labels(self, docs: Sequence[dict]) -> list[list[str]]:
        """The gold answers of every doc; none where it has no answer."""
        return [doc["answers"]["text"] for doc in docs]

    def per_item(
        self, docs: Sequence[dict], results: Sequence[tuple[str, float]], protocol: str = "standard"
    ) -> dict[str, list[float]]:
        """`exact`, `f1`, `best_exact`, `best_f1` (0 to 1) of every item, its `no_answer` probability, `answerable`.

        The probability is rounded to 32 bits, as `evaluate`'s squad_v2 does. Only best_* read it: a generated
        "unanswerable" is not turned into an empty answer, for the harness's threshold is 1.0, and so counts as wrong.
        """
        check_protocol(protocol, language.PROTOCOLS)
        answers, golds = [answer for answer, _ in results], self.labels(docs)
        if any(math.isnan(value) for _, value in results):
            raise RunError("a log-likelihood is not a number: the model overflows. Load it with dtype float32")
        no_answer = [float(np.float32(math.exp(value))) for _, value in results]
        answerable = [bool(texts) for texts in golds]
        scores = {}
        for name, judge in (("exact", exact), ("f1", f1)):
            raw = [judge(answer, texts) for answer, texts in zip(answers, golds, strict=True)]
            scores[name] = raw
            scores[f"best_{name}"], _ = best(raw, no_answer, answerable, answers)
        return {**scores, "no_answer": no_answer, "answerable": [float(one) for one in answerable]}

    def rows(
        self, docs: Sequence[dict], results: Sequence, *, arm: str, seed: int = 0, protocol: str = "standard", **more
    ) -> list[dict]:
        """Metric rows times 100 with 95 % intervals over items, those of best_* at the threshold found on all items.

        HasAns_* and NoAns_* are over the questions with and without answer, left out where there are none of them; so
        are best_* where no probability of having no answer is known (-inf).
        """
        docs, results = language.flat(docs), language.flat(results)
        known = any(value > -math.inf for _, value in results)
        named = {"arm": arm, "benchmark": self.name, "protocol": protocol, "scale": self.scale, "seed": seed, **more}
        metric_rows = []
        for subset, judged in (("all", docs), (language.PERMUTED, self.permuted(docs, seed))):
            scores = self.per_item(judged, results, protocol)
            for name in self.metrics[protocol]:
                kind, _, plain = name.rpartition("_")
                wanted = {"HasAns": (1.0,), "NoAns": (0.0,)}.get(kind, (0.0, 1.0))
                pairs = zip(scores[plain if kind != "best" else name], scores["answerable"], strict=True)
                values = [value for value, answerable in pairs if answerable in wanted]
                if values and (known or kind != "best"):
                    metric_rows.append(stats.metric_row(values, subset=subset, metric=name, **named))
        return metric_rows

    def ids(self, docs: Sequence[dict]) -> list[str]:
        """SQuAD's own ids."""
        return [doc["id"] for doc in docs]

    def result(self, row: answer_files.Row, doc: dict, protocol: str) -> tuple[str, float]:
        """The text, and the log-likelihood of " unanswerable" where the row has it."""
        known = answer_files.loglikelihoods(row, 1) if "loglikelihoods" in row[1] else [-math.inf]
        return answer_files.text(row), known[0]

    def baselines(self, docs: Sequence[dict]) -> dict[str, float]:
        """`exact`, times 100, of always answering nothing, and of always writing "unanswerable"."""
        always = {"always nothing": "", "always unanswerable": "unanswerable"}
        golds = self.labels(docs)
        return {name: 100 * sum(exact(text, one) for one in golds) / len(docs) for name, text in always.items()}


SQUAD2 = Squad2()


def _questions(articles: object, name: str) -> Iterator[dict]:
    for where, article in checks.listed(articles, f"{name}, data"):
        title = checks.text(article, "title", where)
        for place, paragraph in checks.listed(checks.key(article, "paragraphs", where), f"{where}, paragraphs"):
            context = checks.text(paragraph, "context", place)
            for spot, one in checks.listed(checks.key(paragraph, "qas", place), f"{place}, qas"):
                found = checks.key(one, "answers", spot)
                if not isinstance(found, list):
                    raise DataError(f"{spot}: 'answers' must be a list, found {found!r}")
                pairs = [(_field(a, "text", spot), _field(a, "answer_start", spot)) for a in found]
                if bool(checks.key(one, "is_impossible", spot)) == bool(pairs):
                    raise DataError(f"{spot}: {len(pairs)} answers, but is_impossible is {one['is_impossible']}")
                answers = {"text": [text for text, _ in pairs], "answer_start": [start for _, start in pairs]}
                own = {field: checks.key(one, field, spot) for field in ("id", "question")}
                yield {**own, "title": title, "context": context, "answers": answers}


def _field(answer: object, field: str, where: str) -> object:
    if not isinstance(answer, dict):
        raise DataError(f"{where}: an answer must be an object with text and answer_start, found {answer!r}")
    return checks.key(answer, field, where)
