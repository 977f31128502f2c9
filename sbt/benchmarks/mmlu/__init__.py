"""MMLU (Hendrycks et al. 2021): questions of 57 school and university subjects."""

from sbt.benchmarks.spec import Headline, Spec

SPEC = Spec(
    name="mmlu",
    title="MMLU",
    kind="text",
    table="Language ability",
    headline=(Headline("all", "acc", "MMLU", chance=0.25),),
    about="57 school and university subjects, four options, five-shot.",
    notebook="52_language_ability",
    task="sbt.benchmarks.mmlu.task",
    per_item="sbt.benchmarks.mmlu.task:item_scores",
    protocols={"standard": (), "paper": (("two tokens are generated, and the first letter counts", "llava/eval/mmlu/evaluate_mmlu.py@47f96a3"),)},
    items=14042,
    tokens=110,
)
