"""BoolQ (Clark et al. 2019): yes or no, from a passage."""

from sbt.benchmarks.spec import Headline, Spec

SPEC = Spec(
    name="boolq",
    title="BoolQ",
    kind="text",
    table="Language ability",
    headline=(Headline("all", "acc", "BoolQ", chance=0.5),),
    about="Is the answer to a question about a passage yes? Zero-shot.",
    notebook="52_language_ability",
    task="sbt.benchmarks.boolq.task",
    per_item="sbt.benchmarks.boolq.task:item_scores",
    protocols={"standard": (), "paper": ()},
    items=3270,
    tokens=140,
)
