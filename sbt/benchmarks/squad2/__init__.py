"""SQuAD 2.0 (Rajpurkar et al. 2018): answers from a passage, or none."""

from sbt.benchmarks.spec import Headline, Spec
from sbt.data.registry import BenchmarkFiles, Source, hub_file

_HUB = ("rajpurkar/squad_v2", "3ffb306f725f7d2ce8394bc1873b24868140c412")
SOURCE = Source(
    "squad2",
    "SQuAD 2.0, validation",
    (hub_file(_HUB, "squad_v2/validation-00000-of-00001.parquet", 0),),
    page="https://rajpurkar.github.io/SQuAD-explorer",
)
SPEC = Spec(
    name="squad2",
    title="SQuAD 2.0",
    kind="text",
    table="Language ability",
    headline=(Headline("all", "f1", "SQuAD 2.0 F1 (of 100)", chance=None, best=100.0),),
    about="Answers from a passage, or that it holds none; zero-shot",
    notebook="52_language_ability",
    task="sbt.benchmarks.squad2.task:SQUAD2",
    per_item="sbt.benchmarks.squad2.task:SQUAD2.item_scores",
    sources={"sources.squad2": BenchmarkFiles(SOURCE)},
    protocols={"standard": (), "paper": ()},
    items=11873,
    tokens=200,
)
