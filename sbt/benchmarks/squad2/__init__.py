"""SQuAD 2.0 (Rajpurkar et al. 2018): answers from a passage, or none."""

from sbt.benchmarks.spec import Headline, language_spec
from sbt.data.registry import Source, hub_file

_HUB = ("rajpurkar/squad_v2", "3ffb306f725f7d2ce8394bc1873b24868140c412")
SOURCE = Source(
    "squad2",
    "SQuAD 2.0, validation",
    (hub_file(_HUB, "squad_v2/validation-00000-of-00001.parquet", 0),),
    page="https://rajpurkar.github.io/SQuAD-explorer",
)
SPEC = language_spec(
    SOURCE, "SQuAD 2.0", "Answers from a passage, or that it holds none; zero-shot",
    Headline("all", "f1", "SQuAD 2.0 F1 (of 100)", chance=None), items=11873, tokens=200, written=8,
    keys=" (and, for best_*, loglikelihoods: that of ' unanswerable'), or the official object of texts",
)  # fmt: skip
