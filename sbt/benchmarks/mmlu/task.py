"""MMLU (Hendrycks et al. 2021): 57 subjects, four options, five-shot; the publisher's folder of CSVs (mmlu_files).

Protocol "standard": log-likelihood of the letter, lm_eval/tasks/mmlu/default (0.4.13). Protocol "paper": the authors'
own script, which generates two tokens (UCSC-VLAA/Sight-Beyond-Text: llava/eval/mmlu/evaluate_mmlu.py@47f96a3).
"""

from collections.abc import Mapping, Sequence

from sbt.benchmarks import check_protocol
from sbt.benchmarks.common import language
from sbt.benchmarks.common.samples import item_scores as scores_of_items
from sbt.benchmarks.mmlu.files import CATEGORIES, LETTERS, SPLIT, category, from_rows, load
from sbt.benchmarks.mmlu.paper import MAX_NEW_TOKENS, MAX_PROMPT_TOKENS, paper_correct, paper_prompt, shots_that_fit

__all__ = ["CATEGORIES", "KIND", "LETTERS", "MAX_NEW_TOKENS", "MAX_PROMPT_TOKENS", "METRICS", "NAME", "SHOTS",
           "SHOTS_SPLIT", "SPLIT", "TASK", "UNTIL", "baselines", "category", "flat", "from_rows", "labels", "load",
           "paper_correct", "paper_prompt", "per_item", "permuted", "rows", "samples", "shots_that_fit"]  # fmt: skip
NAME, SHOTS, SHOTS_SPLIT = "mmlu", 5, "dev"
TASK = "mmlu_{}".format  # TASK("anatomy") is the harness's name
KIND = {"standard": "choice", "paper": "generation"}
UNTIL: dict[str, tuple[str, ...]] = {"paper": ()}
METRICS = {"standard": ("acc",), "paper": ("acc",)}


def flat(docs: Sequence[dict] | Mapping[str, Sequence[dict]]) -> list[dict]:
    """The docs of all subjects in one list; every function below takes either form, results always in this order."""
    return [doc for part in docs.values() for doc in part] if isinstance(docs, Mapping) else list(docs)


def labels(docs: Sequence[dict] | Mapping) -> list[int]:
    """Place of the right choice, 0 to 3, of every doc."""
    return [doc["answer"] for doc in flat(docs)]


def per_item(docs: Sequence[dict] | Mapping, results: Sequence, protocol: str = "standard") -> dict[str, list[float]]:
    """`acc` of every item; "standard" takes four log-likelihoods an item and adds `tied`, "paper" takes a text."""
    check_protocol(protocol, language.PROTOCOLS)
    golds = labels(docs)
    if protocol == "paper":
        return {"acc": [float(paper_correct(a, LETTERS[gold])) for a, gold in zip(results, golds, strict=True)]}
    right, tied = language.accuracy(results, golds, [(1, 1, 1, 1)] * len(golds))
    return {"acc": right, "tied": tied}


def rows(
    docs: Sequence[dict] | Mapping, results: Sequence, *, arm: str, seed: int = 0, protocol: str = "standard", **same
) -> list[dict]:
    """Accuracy over all questions (the harness's and the authors' number), of permuted labels, categories, subjects.

    `acc_macro` is the mean over subjects, each counted once; its interval too is over questions.
    """
    docs = flat(docs)
    hits, named = per_item(docs, results, protocol)["acc"], {"arm": arm, "benchmark": NAME, "protocol": protocol}
    scores = {"all": {"acc": hits}, language.PERMUTED: per_item(permuted(docs, seed), results, protocol)}
    for place in (lambda subject: category(subject, protocol), str):
        names = [place(doc["subject"]) for doc in docs]
        for name in [*(one for one in CATEGORIES if one in names), *sorted(set(names) - set(CATEGORIES))]:
            scores[name] = {"acc": [hit for hit, own in zip(hits, names, strict=True) if own == name]}
    found = language.metric_rows(scores, METRICS[protocol], seed=seed, **named, **same)
    sizes = {name: len(values["acc"]) for name, values in scores.items()}
    weights = [1 / sizes[doc["subject"]] for doc in docs]
    macro = language.metric_row(hits, weights=weights, subset="all", metric="acc_macro", seed=seed, **named, **same)
    return [found[0], macro, *found[1:]]


def samples(docs: Sequence[dict] | Mapping, results: Sequence, *, arm: str, protocol: str = "standard") -> list[dict]:
    """One record an item; its id is "SUBJECT/PLACE", places from 0 within the subject."""
    seen: dict[str, int] = {}
    ids = []
    for doc in flat(docs):
        ids.append(f"{doc['subject']}/{seen.get(doc['subject'], 0)}")
        seen[doc["subject"]] = seen.get(doc["subject"], 0) + 1
    return language.records(ids, labels(docs), results, per_item(docs, results, protocol), arm)


def permuted(docs: Sequence[dict] | Mapping, seed: int) -> list[dict]:
    """The control: the same docs with random answers, in one list."""
    golds = language.guessed([4] * len(flat(docs)), seed)
    return [{**doc, "answer": gold} for doc, gold in zip(flat(docs), golds, strict=True)]


def baselines(docs: Sequence[dict] | Mapping) -> dict[str, float]:
    """Accuracy of guessing and of always answering the same letter."""
    return language.constant(labels(docs), LETTERS)


def item_scores(samples: Sequence[dict]) -> dict:
    """Scores of the items by arm, from the samples of a step: see `common.samples`."""
    return scores_of_items(samples, NAME, {NAME: "acc"})
