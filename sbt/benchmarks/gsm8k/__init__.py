"""GSM8K (Cobbe et al. 2021): school arithmetic in words."""

from sbt.benchmarks.spec import Headline, Spec
from sbt.data.registry import BenchmarkFiles, Source, hub_file

_HUB = ("openai/gsm8k", "e53f048856ff4f594e959d75785d2c2d37b678ee")
SOURCE = Source(
    "gsm8k",
    "GSM8K, test and train",
    (
        hub_file(_HUB, "main/test-00000-of-00001.parquet", 0),
        hub_file(_HUB, "main/train-00000-of-00001.parquet", 0),
    ),
    page="https://github.com/openai/grade-school-math",
)
_PAPER = (
    (
        "a solution ends at any colon; only the number behind #### counts",
        "lm_eval/tasks/gsm8k.py@c2f6136",
    ),
)
SPEC = Spec(
    name="gsm8k",
    title="GSM8K",
    kind="text",
    table="Language ability",
    headline=(Headline("all", "exact_match_flexible", "GSM8K", chance=0.0),),
    about="School arithmetic in words, eight-shot; the last number of the written solution counts",
    notebook="52_language_ability",
    task="sbt.benchmarks.gsm8k.task:GSM8K",
    per_item="sbt.benchmarks.gsm8k.task:GSM8K.item_scores",
    sources={"sources.gsm8k": BenchmarkFiles(SOURCE)},
    protocols={"standard": (), "paper": _PAPER},
    items=1319,
    tokens=250,
)
