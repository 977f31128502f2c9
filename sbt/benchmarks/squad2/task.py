"""SQuAD 2.0 (Rajpurkar et al. 2018): answer from a passage, or say there is none; zero-shot. `dev-v2.0.json`.

The answer is generated up to a line break; beside it the log-likelihood of " unanswerable" is the probability of no
answer (lm_eval/tasks/squadv2/task.py, 0.4.13). Protocol "paper" (0.3: lm_eval/tasks/squad.py) is the same.
"""

import math
from collections.abc import Sequence

import numpy as np

from sbt.benchmarks import check_protocol
from sbt.benchmarks.common import language
from sbt.benchmarks.common.samples import item_scores as scores_of_items
from sbt.benchmarks.squad2 import metric as squad
from sbt.benchmarks.squad2.files import SPLIT, from_rows, load
from sbt.utils.errors import RunError

__all__ = ["CONTINUATION", "KIND", "METRICS", "NAME", "SHOTS", "SPLIT", "TASK", "UNTIL", "baselines", "from_rows",
           "labels", "load", "per_item", "permuted", "rows", "samples"]  # fmt: skip
NAME, TASK, SHOTS = "squad2", "squadv2", 0
KIND = {"standard": "both", "paper": "both"}
UNTIL = {"standard": ("\n",), "paper": ("\n",)}
CONTINUATION = " unanswerable"
_METRICS = ("exact", "f1", "HasAns_exact", "HasAns_f1", "NoAns_exact", "NoAns_f1", "best_exact", "best_f1")
METRICS = {"standard": _METRICS, "paper": _METRICS}


def labels(docs: Sequence[dict]) -> list[list[str]]:
    """The gold answers of every doc; none where it has no answer."""
    return [doc["answers"]["text"] for doc in docs]


def per_item(
    docs: Sequence[dict], results: Sequence[tuple[str, float]], protocol: str = "standard"
) -> dict[str, list[float]]:
    """`exact`, `f1`, `best_exact`, `best_f1` (0 to 1) of every item, its `no_answer` probability, `answerable`.

    The probability is rounded to 32 bits, as `evaluate`'s squad_v2 does. Only best_* read it: a generated
    "unanswerable" is never turned into an empty answer (squad.thresholded), and so counts as wrong everywhere.
    """
    check_protocol(protocol, language.PROTOCOLS)
    answers, golds = [answer for answer, _ in results], labels(docs)
    if any(math.isnan(value) for _, value in results):
        raise RunError("a log-likelihood is not a number: the model overflows. Load it with dtype float32")
    no_answer = [float(np.float32(math.exp(value))) for _, value in results]
    answerable = [bool(texts) for texts in golds]
    found = {}
    for metric, judge in (("exact", squad.exact), ("f1", squad.f1)):
        raw = [judge(answer, texts) for answer, texts in zip(answers, golds, strict=True)]
        found[metric] = squad.thresholded(raw, no_answer, answerable)
        found[f"best_{metric}"], _ = squad.best(raw, no_answer, answerable, answers)
    return {**found, "no_answer": no_answer, "answerable": [float(one) for one in answerable]}


def rows(
    docs: Sequence[dict], results: Sequence, *, arm: str, seed: int = 0, protocol: str = "standard", **same
) -> list[dict]:
    """Metric rows times 100 with 95 % intervals over items, those of best_* at the threshold found on all items.

    HasAns_* and NoAns_* are over the questions with and without answer, left out where there are none of them.
    """
    found, named = [], {"arm": arm, "benchmark": NAME, "protocol": protocol, "scale": 100.0, "seed": seed, **same}
    for subset, judged in (("all", docs), (language.PERMUTED, permuted(docs, seed))):
        scores = per_item(judged, results, protocol)
        for metric in METRICS[protocol]:
            kind, _, name = metric.rpartition("_")
            wanted = {"HasAns": (1.0,), "NoAns": (0.0,)}.get(kind, (0.0, 1.0))
            pairs = zip(scores[name if kind != "best" else metric], scores["answerable"], strict=True)
            if values := [value for value, answerable in pairs if answerable in wanted]:
                found.append(language.metric_row(values, subset=subset, metric=metric, **named))
    return found


def samples(docs: Sequence[dict], results: Sequence, *, arm: str, protocol: str = "standard") -> list[dict]:
    """One record an item under SQuAD's own id."""
    return language.records([doc["id"] for doc in docs], labels(docs), results, per_item(docs, results, protocol), arm)


def permuted(docs: Sequence[dict], seed: int) -> list[dict]:
    """The control: every question with the answers of another one."""
    answers = language.exchanged([doc["answers"] for doc in docs], seed)
    return [{**doc, "answers": one} for doc, one in zip(docs, answers, strict=True)]


def baselines(docs: Sequence[dict]) -> dict[str, float]:
    """`exact`, times 100, of always answering nothing, and of always writing "unanswerable"."""
    always = {"always nothing": "", "always unanswerable": "unanswerable"}
    return {
        name: 100 * sum(squad.exact(text, golds) for golds in labels(docs)) / len(docs)
        for name, text in always.items()
    }


def item_scores(samples: Sequence[dict]) -> dict:
    """Scores of the items by arm, from the samples of a step: see `common.samples`."""
    return scores_of_items(samples, NAME, {NAME: "f1"})
