"""MathQA (Amini et al. 2019): word problems with five options."""

from sbt.benchmarks.spec import Headline, Spec

SPEC = Spec(
    name="mathqa",
    title="MathQA",
    kind="text",
    table="Language ability",
    headline=(Headline("all", "acc_norm", "MathQA", chance=0.2),),
    about="Word problems with five options, four-shot.",
    notebook="52_language_ability",
    task="sbt.benchmarks.mathqa.task",
    per_item="sbt.benchmarks.mathqa.task:item_scores",
    protocols={"standard": (), "paper": ()},
    items=2985,
    tokens=90,
)
