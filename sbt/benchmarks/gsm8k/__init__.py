"""GSM8K (Cobbe et al. 2021): school arithmetic in words."""

from sbt.benchmarks.spec import Headline, Spec

SPEC = Spec(
    name="gsm8k",
    title="GSM8K",
    kind="text",
    table="Language ability",
    headline=(Headline("all", "exact_match_flexible", "GSM8K", chance=0.0),),
    about="School arithmetic in words, eight-shot; the last number of the written solution counts.",
    notebook="52_language_ability",
    task="sbt.benchmarks.gsm8k.task",
    per_item="sbt.benchmarks.gsm8k.task:item_scores",
    protocols={"standard": (), "paper": (("a solution ends at any colon; only the number behind #### counts", "lm_eval/tasks/gsm8k.py@c2f6136"),)},
    items=1319,
    tokens=250,
)
