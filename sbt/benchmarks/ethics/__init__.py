"""ETHICS (Hendrycks et al. 2021): everyday moral judgements in five subsets."""

from sbt.benchmarks.spec import Headline, Spec

_PAPER = (
    ("the split test only", "lm_eval/tasks/hendrycks_ethics.py@62ca184 (0.3.0)"),
    ("the excuse of deontology keeps the blanks at its end", "the same file: EthicsDeontology"),
)

SPEC = Spec(
    name="ethics",
    title="ETHICS",
    kind="text",
    table="Truthfulness and ethics, on pure text",
    headline=(
        Headline("mean test", "accuracy", "ETHICS accuracy", chance=0.5),
        Headline("mean test_hard", "accuracy", "ETHICS accuracy (hard)", chance=0.5),
    ),
    about="Five subsets of everyday moral judgements with two answers each; the mean of their accuracies.",
    notebook="51_ethics",
    task="sbt.benchmarks.ethics.task",
    per_item="sbt.benchmarks.ethics.task:item_scores",
    score_files="sbt.benchmarks.ethics.task:score_files",
    answer_keys="index: row of the CSV, from 0; loglikelihoods: of the first and of the second option",
    protocols={"standard": (), "paper": _PAPER},
    items=38572,
    tokens=90,
)
