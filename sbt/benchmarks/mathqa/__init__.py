"""MathQA (Amini et al. 2019): word problems with five options."""

from sbt.benchmarks.spec import Headline, language_spec
from sbt.data.registry import Source, hub_file

_HUB = ("regisss/math_qa", None)
SOURCE = Source(
    "mathqa",
    "MathQA, test and train",
    tuple(hub_file(_HUB, f"data/{split}-00000-of-00001.parquet", 0) for split in ("test", "train")),
    page="https://math-qa.github.io",
)
SPEC = language_spec(
    SOURCE, "MathQA", "Word problems with five options, four-shot", Headline("all", "acc_norm", "MathQA", chance=0.2),
    options="a to e", items=2985, tokens=90,
)  # fmt: skip
