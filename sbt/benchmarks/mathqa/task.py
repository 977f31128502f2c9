"""MathQA (Amini et al. 2019): word problems with five options, four-shot. A JSON list: Problem, options, correct.

Prompt: lm_eval/tasks/mathqa/mathqa.yaml (0.4.13); "paper" (0.3, lm_eval/tasks/mathqa.py) asks and scores the same.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from sbt.benchmarks.common import language
from sbt.benchmarks.mathqa import SOURCE
from sbt.utils import checks
from sbt.utils.errors import DataError
from sbt.utils.files import read_json

# The harness's own reading of "a ) 24 , b ) 120 , ..." (lm_eval/tasks/mathqa/utils.py).
_OPTIONS = re.compile(r"[abcd] \) .*?, |e \) .*?$")
_LETTER = re.compile(r"(?:^|, )\s*[abcde] \) ")


class MathQA(language.ChoiceTask):
    """Docs {Problem, options, correct}; the options are five, "a ) 1 , b ) 2 , ..."."""

    name, source, file = "mathqa", SOURCE, "mathqa/mathqa.yaml"
    hub = {"test": "test-00000-of-00001.parquet", "train": "train-00000-of-00001.parquet"}
    files = {"test": ("test.json",), "train": ("train.json",), "validation": ("dev.json", "validation.json")}
    split, shots, shots_split = "test", 4, "train"
    metrics = {"standard": ("acc", "acc_norm"), "paper": ("acc", "acc_norm")}
    options, values, label = "abcde", "abcde", "correct"

    def read(self, path: Path) -> Sequence[dict]:
        """The rows of a JSON list."""
        return read_json(path)

    def doc(self, row: dict, where: str) -> dict:
        """A checked doc; DataError where there are not five options and one answer."""
        doc = {field: checks.text(row, field, where) for field in ("Problem", "options", "correct")}
        if doc["correct"] not in tuple(self.values):
            raise DataError(f"{where}: 'correct' must be one of {', '.join(self.values)}, found {doc['correct']!r}")
        found = choices(doc)
        if len(found) != len(self.options) or not all(found):
            read = f"{len(found)} options, {sum(map(bool, found))} of them with text, are read from {doc['options']!r}"
            raise DataError(f"{where}: {read}. Write all five as 'a ) 1 , b ) 2 , ...', or remove that row")
        return doc

    def from_rows(self, rows: Sequence[dict], name: str) -> list[dict]:
        """Docs of the rows. It prints how many have options that the harness cuts at a comma within them."""
        docs = super().from_rows(rows, name)
        if count := sum(map(cut, docs)):
            print(f"{name}: of {count} of {len(docs)} questions an option is cut at a comma, as the harness cuts it")
        return docs

    def per_item(self, docs: Sequence[dict], results: Sequence, protocol: str = "standard") -> dict[str, list[float]]:
        """`acc` and `acc_norm` of every item, and whether options are `tied` before normalisation.

        acc_norm divides a log-likelihood by the option's length in characters, without the blank before it
        (lm_eval/api/task.py: process_results, completion_len; 0.3: MultipleChoiceTask).
        """
        scores = super().per_item(docs, results, protocol)
        lengths = [[len(choice) for choice in choices(doc)] for doc in docs]
        return scores | {"acc_norm": language.accuracy(results, self.labels(docs), lengths)[0]}


def choices(doc: dict) -> list[str]:
    """The options as the harness scores them: without letter, and without the comma and blanks behind."""
    return [found[4:].rstrip(" ,") for found in _OPTIONS.findall(doc["options"])]


def cut(doc: dict) -> bool:
    """Whether the harness reads less of an option than stands there: "1 , 000" becomes "1"."""
    whole = [part.rstrip(" ,") for part in _LETTER.split(doc["options"])[1:]]
    return whole != choices(doc)


MATHQA = MathQA()
