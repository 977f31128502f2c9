"""GSM8K (Cobbe et al. 2021): school arithmetic, eight-shot, the solution is generated. JSON lines: question, answer.

Protocol "standard": exact match behind both filters of lm_eval/tasks/gsm8k/gsm8k.yaml (0.4.13). Protocol "paper":
the 0.3-era task, which stops at any colon and compares the number behind "####" only.
"""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from sbt.benchmarks import check_protocol
from sbt.benchmarks.common import language
from sbt.benchmarks.common.samples import item_scores as scores_of_items
from sbt.utils import paths
from sbt.utils.errors import DataError
from sbt.utils.files import read_jsonl

NAME, TASK, SHOTS, SPLIT, SHOTS_SPLIT = "gsm8k", "gsm8k", 8, "test", "train"
KIND = {"standard": "generation", "paper": "generation"}
# "paper": lm_eval/tasks/gsm8k.py@c2f6136 (June 2023), GradeSchoolMath8K; a ":" in a solution ends it there.
UNTIL = {"standard": ("Question:", "</s>", "<|im_end|>"), "paper": (":", "Question:", "Question")}
METRICS = {"standard": ("exact_match_strict", "exact_match_flexible"), "paper": ("acc",)}
FILES = {"test": ("test.jsonl",), "train": ("train.jsonl",)}
INVALID = "[invalid]"
_STRICT = re.compile(r"#### (\-?[0-9\.\,]+)")
_FLEXIBLE = re.compile(r"(-?[$0-9.,]{2,})|(-?[0-9]+)")
_IGNORED = tuple(map(re.compile, (",", r"\$", r"(?s).*#### ", r"\.$")))


def load(path: Path | str, split: str = SPLIT) -> list[dict]:
    """Docs {question, answer} of a file, or of the split's file in a folder."""
    path = language.source(path, split, FILES)
    return from_rows(read_jsonl(path), paths.shown(path))


def from_rows(rows: Sequence[dict], name: str) -> list[dict]:
    """Docs of the publisher's or the hub's rows; DataError names the row whose answer does not end in "#### 42"."""
    docs = []
    for where, row in language.listed(rows, name):
        doc = {field: language.text(row, field, where) for field in ("question", "answer")}
        if not _STRICT.search(doc["answer"]):
            raise DataError(f"{where}: 'answer' has no number behind '#### '. Write it as its last line, '#### 42'")
        docs.append(doc)
    return docs


def strict(answer: str) -> str:
    """The first number behind "#### ", else "[invalid]": filter "strict-match"."""
    found = _STRICT.search(answer)
    return found[1].strip() if found else INVALID


def flexible(answer: str) -> str:
    """The last thing that looks like a number, else "[invalid]": filter "flexible-extract"."""
    found = _FLEXIBLE.findall(answer)
    return next(part for part in found[-1] if part).strip() if found else INVALID


def plain(answer: str) -> str:
    """What exact match compares: without thousands' commas, dollars, all before "#### ", a final period; lower case.

    In the order of the yaml's `regexes_to_ignore` (lm_eval/api/metrics.py: exact_match_hf_evaluate).
    """
    for ignored in _IGNORED:
        answer = ignored.sub("", answer)
    return answer.lower()


def labels(docs: Sequence[dict]) -> list[str]:
    """The gold number of every doc, as exact match compares it."""
    return [plain(doc["answer"]) for doc in docs]


def per_item(docs: Sequence[dict], results: Sequence[str], protocol: str = "standard") -> dict[str, list[float]]:
    """The protocol's METRICS of every item, 1.0 or 0.0, and whether there is no number behind "####" (`invalid`)."""
    check_protocol(protocol, language.PROTOCOLS)
    pairs, marked = list(zip(docs, results, strict=True)), [strict(answer) for answer in results]
    invalid = {"invalid": [float(answer == INVALID) for answer in marked]}
    if protocol == "paper":
        found = [answer.replace(",", "") for answer in marked]
        golds = [strict(doc["answer"]).replace(",", "") for doc in docs]
        return {"acc": [float(one == gold) for one, gold in zip(found, golds, strict=True)]} | invalid
    return {
        f"exact_match_{name}": [float(plain(read(answer)) == plain(doc["answer"])) for doc, answer in pairs]
        for name, read in (("strict", strict), ("flexible", flexible))
    } | invalid


def rows(
    docs: Sequence[dict], results: Sequence[str], *, arm: str, seed: int = 0, protocol: str = "standard", **same
) -> list[dict]:
    """Metric rows with 95 % intervals over items: the protocol's METRICS, also against exchanged answers."""
    parts = {"all": docs, language.PERMUTED: permuted(docs, seed)}
    scores = {subset: per_item(part, results, protocol) for subset, part in parts.items()}
    same = {"arm": arm, "benchmark": NAME, "protocol": protocol, **same}
    return language.metric_rows(scores, METRICS[protocol], seed=seed, **same)


def samples(docs: Sequence[dict], results: Sequence[str], *, arm: str, protocol: str = "standard") -> list[dict]:
    """One record an item; its id is its place among the docs, from 0."""
    return language.records(range(len(docs)), labels(docs), results, per_item(docs, results, protocol), arm)


def permuted(docs: Sequence[dict], seed: int) -> list[dict]:
    """The control: every question with the answer of another one."""
    answers = language.exchanged([doc["answer"] for doc in docs], seed)
    return [{**doc, "answer": answer} for doc, answer in zip(docs, answers, strict=True)]


def baselines(docs: Sequence[dict]) -> dict[str, float]:
    """Guessing gives nothing; always giving the commonest number of the data gives its share."""
    (number, times), *_ = Counter(labels(docs)).most_common(1)
    return {"chance": 0.0, f"always #### {number}": times / len(docs)}


def item_scores(samples: Sequence[dict]) -> dict:
    """Scores of the items by arm, from the samples of a step: see `common.samples`."""
    return scores_of_items(samples, NAME, {NAME: "exact_match_flexible"})
