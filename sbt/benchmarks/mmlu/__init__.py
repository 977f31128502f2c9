"""MMLU (Hendrycks et al. 2021): questions of 57 school and university subjects."""

from sbt.benchmarks.spec import Headline, Spec
from sbt.data.registry import BenchmarkFiles, Source, hub_file

_HUB = ("cais/mmlu", "c30699e8356da336a370243923dbaf21066bb9fe")
SOURCE = Source(
    "mmlu",
    "MMLU, all subjects",
    (
        hub_file(_HUB, "all/test-00000-of-00001.parquet", 0),
        hub_file(_HUB, "all/dev-00000-of-00001.parquet", 0),
    ),
    page="https://github.com/hendrycks/test",
)
_PAPER = (
    (
        "two tokens are generated, and the first letter counts",
        "llava/eval/mmlu/evaluate_mmlu.py@47f96a3",
    ),
)
SPEC = Spec(
    name="mmlu",
    title="MMLU",
    kind="text",
    table="Language ability",
    headline=(Headline("all", "acc", "MMLU", chance=0.25),),
    about="57 school and university subjects, four options, five-shot",
    notebook="52_language_ability",
    task="sbt.benchmarks.mmlu.task:MMLU",
    per_item="sbt.benchmarks.mmlu.task:MMLU.item_scores",
    sources={"sources.mmlu": BenchmarkFiles(SOURCE)},
    protocols={"standard": (), "paper": _PAPER},
    items=14042,
    tokens=110,
)
