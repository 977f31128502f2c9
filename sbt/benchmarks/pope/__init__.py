"""POPE (Li et al. 2023): is the object in the picture?"""

from sbt.benchmarks.common.protocol import DIFFERENCES
from sbt.benchmarks.spec import Headline, Spec

_TASK = "sbt.benchmarks.pope.task"
SPEC = Spec(
    name="pope",
    title="POPE",
    kind="vision",
    table="Vision",
    headline=(
        Headline("adversarial", "accuracy", "POPE accuracy (adversarial)", chance=0.5),
        Headline("adversarial", "f1", "POPE F1 (adversarial)"),
        Headline("heldout", "f1", "POPE F1 (held-out pairs)"),
    ),
    about="Yes/no questions about which objects a picture shows, in three official splits",
    notebook="63_pope",
    per_item=f"{_TASK}:per_item",
    score_files=f"{_TASK}:score_files",
    answer_keys="question_id and answer; or question and answer, one a question in their order",
    protocols={
        "standard": (),
        "paper": (
            *DIFFERENCES,
            (
                'with its end sign, "No###" is no word that the parser knows, and counts as yes',
                "UCSC-VLAA/Sight-Beyond-Text: llava/eval/mmoverall/pope_metric.py@47f96a3, lines 15-20",
            ),
        ),
    },
    items=9_000,
    tokens=20,
)
