"""MathQA (Amini et al. 2019): word problems with five options."""

from sbt.benchmarks.spec import Headline, Spec
from sbt.data.registry import BenchmarkFiles, Source, hub_file

_HUB = ("regisss/math_qa", None)
SOURCE = Source(
    "mathqa",
    "MathQA, test and train",
    (
        hub_file(_HUB, "data/test-00000-of-00001.parquet", 0),
        hub_file(_HUB, "data/train-00000-of-00001.parquet", 0),
    ),
    page="https://math-qa.github.io",
)
SPEC = Spec(
    name="mathqa",
    title="MathQA",
    kind="text",
    table="Language ability",
    headline=(Headline("all", "acc_norm", "MathQA", chance=0.2),),
    about="Word problems with five options, four-shot",
    notebook="52_language_ability",
    task="sbt.benchmarks.mathqa.task:MATHQA",
    per_item="sbt.benchmarks.mathqa.task:MATHQA.item_scores",
    sources={"sources.mathqa": BenchmarkFiles(SOURCE)},
    protocols={"standard": (), "paper": ()},
    items=2985,
    tokens=90,
)
