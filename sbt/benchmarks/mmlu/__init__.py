"""MMLU (Hendrycks et al. 2021): questions of 57 school and university subjects."""

from sbt.benchmarks.spec import Headline, language_spec
from sbt.data.registry import Source, hub_file

_HUB = ("cais/mmlu", "c30699e8356da336a370243923dbaf21066bb9fe")
SOURCE = Source(
    "mmlu",
    "MMLU, all subjects",
    tuple(hub_file(_HUB, f"all/{split}-00000-of-00001.parquet", 0) for split in ("test", "dev")),
    page="https://github.com/hendrycks/test",
)
SPEC = language_spec(
    SOURCE, "MMLU", "57 school and university subjects, four options, five-shot",
    Headline("all", "acc", "MMLU", chance=0.25), options="A to D", items=14042, tokens=110,
    paper=(("two tokens are generated, and the first letter counts", "llava/eval/mmlu/evaluate_mmlu.py@47f96a3"),),
)  # fmt: skip
