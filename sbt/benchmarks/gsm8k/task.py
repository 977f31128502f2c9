"""GSM8K (Cobbe et al. 2021): school arithmetic, eight-shot, the solution is generated. JSON lines: question, answer.

Protocol "standard": exact match behind both filters of lm_eval/tasks/gsm8k/gsm8k.yaml (0.4.13). Protocol "paper":
the 0.3-era task, which stops at any colon and compares the number behind "####" only.
"""

import re
from collections import Counter
from collections.abc import Sequence

from sbt.benchmarks import check_protocol
from sbt.benchmarks.common import language
from sbt.benchmarks.gsm8k import SOURCE
from sbt.utils import checks
from sbt.utils.errors import DataError

# "paper": lm_eval/tasks/gsm8k.py@c2f6136 (June 2023), GradeSchoolMath8K; a ":" in a solution ends it there.
PAPER_UNTIL = [":", "Question:", "Question"]
INVALID = "[invalid]"
_STRICT = re.compile(r"#### (\-?[0-9\.\,]+)")
_FLEXIBLE = re.compile(r"(-?[$0-9.,]{2,})|(-?[0-9]+)")
_IGNORED = tuple(map(re.compile, (",", r"\$", r"(?s).*#### ", r"\.$")))


class Gsm8k(language.LanguageTask):
    """Docs {question, answer}; an answer ends in "#### 42"."""

    name, source, file = "gsm8k", SOURCE, "gsm8k/gsm8k.yaml"
    hub = {"test": "test-00000-of-00001.parquet", "train": "train-00000-of-00001.parquet"}
    files = {"test": ("test.jsonl",), "train": ("train.jsonl",)}
    split, shots, shots_split, label = "test", 8, "train", "answer"
    metrics = {"standard": ("exact_match_strict", "exact_match_flexible"), "paper": ("acc",)}

    def doc(self, row: dict, where: str) -> dict:
        """A checked doc; DataError where the answer does not end in "#### 42"."""
        doc = {field: checks.text(row, field, where) for field in ("question", "answer")}
        if not _STRICT.search(doc["answer"]):
            raise DataError(f"{where}: 'answer' has no number behind '#### '. Write it as its last line, '#### 42'")
        return doc

    def requests(
        self, docs: Sequence[dict], examples: Sequence[dict] = (), *, protocol: str = "standard", **how
    ) -> dict[str, list[dict]]:
        """As `LanguageTask.requests`; protocol "paper" has the stop strings of the harness of that time."""
        asked = super().requests(docs, examples, protocol=protocol, **how)
        until = {"until": PAPER_UNTIL} if protocol == "paper" else {}
        return {part: [one | until for one in requests] for part, requests in asked.items()}

    def labels(self, docs: Sequence[dict]) -> list[str]:
        """The gold number of every doc, as exact match compares it."""
        return [plain(doc["answer"]) for doc in docs]

    def per_item(
        self, docs: Sequence[dict], results: Sequence[str], protocol: str = "standard"
    ) -> dict[str, list[float]]:
        """The protocol's metrics of every item, 1.0 or 0.0, and whether no number is behind "####" (`invalid`)."""
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

    def baselines(self, docs: Sequence[dict]) -> dict[str, float]:
        """Guessing gives nothing; always giving the commonest number of the data gives its share."""
        (number, times), *_ = Counter(self.labels(docs)).most_common(1)
        return {"chance": 0.0, f"always #### {number}": times / len(docs)}


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


GSM8K = Gsm8k()
