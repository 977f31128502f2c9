"""BoolQ (Clark et al. 2019): is the answer to a question about a passage yes? Zero-shot; the options are no and yes.

Reads Google's files (`dev.jsonl`: question, passage, answer, title) and SuperGLUE's (`val.jsonl`: question,
passage, label). Prompt: lm_eval/tasks/super_glue/boolq/default.yaml (0.4.13); "paper" (0.3, `BoolQ`) scores the same.
"""

from sbt.benchmarks.boolq import SOURCE
from sbt.benchmarks.common import language
from sbt.utils import checks
from sbt.utils.errors import DataError


class BoolQ(language.ChoiceTask):
    """Docs {question, passage, label}, label 0 (no) or 1 (yes)."""

    name, source, file = "boolq", SOURCE, "super_glue/boolq/default.yaml"
    hub = {"validation": "boolq.parquet"}
    files = {"validation": ("dev.jsonl", "val.jsonl"), "train": ("train.jsonl",)}
    options, values = ("no", "yes"), (0, 1)

    def doc(self, row: dict, where: str) -> dict:
        """A doc of Google's, SuperGLUE's or the hub's row; DataError names what it lacks."""
        question, passage = (checks.text(row, name, where) for name in ("question", "passage"))
        label = row["label"] if "label" in row else checks.key(row, "answer", where)
        if type(label) not in (bool, int) or label not in (0, 1):
            hint = f"found {label!r}. The test set has no labels"
            raise DataError(f"{where}: the label must be true, false, 0 or 1, {hint}")
        # SuperGLUE, which the task reads, has the title in the passage; without it the prompt would be another one.
        title = f"{checks.text(row, 'title', where)} -- " if "title" in row else ""
        return {"question": question, "passage": title + passage, "label": int(label)}


BOOLQ = BoolQ()
