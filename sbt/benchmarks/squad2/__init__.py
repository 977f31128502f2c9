"""SQuAD 2.0 (Rajpurkar et al. 2018): answers from a passage, or none."""

from sbt.benchmarks.spec import Headline, Spec

SPEC = Spec(
    name="squad2",
    title="SQuAD 2.0",
    kind="text",
    table="Language ability",
    headline=(Headline("all", "f1", "SQuAD 2.0 F1 (of 100)", chance=None, best=100.0),),
    about="Answers from a passage, or that it holds none; zero-shot.",
    notebook="52_language_ability",
    task="sbt.benchmarks.squad2.task",
    per_item="sbt.benchmarks.squad2.task:item_scores",
    protocols={"standard": (), "paper": ()},
    items=11873,
    tokens=200,
)
