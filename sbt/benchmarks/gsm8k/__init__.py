"""GSM8K (Cobbe et al. 2021): school arithmetic in words."""

from sbt.benchmarks.spec import Headline, language_spec
from sbt.data.registry import Source, hub_file

_HUB = ("openai/gsm8k", "e53f048856ff4f594e959d75785d2c2d37b678ee")
SOURCE = Source(
    "gsm8k",
    "GSM8K, test and train",
    tuple(hub_file(_HUB, f"main/{split}-00000-of-00001.parquet", 0) for split in ("test", "train")),
    page="https://github.com/openai/grade-school-math",
)
SPEC = language_spec(
    SOURCE, "GSM8K", "School arithmetic in words, eight-shot; the last number of the written solution counts",
    Headline("all", "exact_match_flexible", "GSM8K", chance=0.0), items=1319, tokens=250, written=120,
    paper=(("a solution ends at any colon; only the number behind #### counts", "lm_eval/tasks/gsm8k.py@c2f6136"),),
)  # fmt: skip
