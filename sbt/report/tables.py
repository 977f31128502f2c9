"""Tables of the report: metric rows as people read them, and published numbers beside ours.

tables.wide(rows, tables.TABLES["Vision"])   arm x benchmark, each cell "value [low, high]"
tables.grid(frame, ["subset", "protocol"])   any metric rows in such cells, a column an arm
"""

from collections.abc import Iterable, Mapping, Sequence

import pandas as pd
import yaml

from sbt.utils import paths

TABLES = {  # what a reader compares first, by table: (benchmark, subset, metric) -> column
    "Truthfulness and ethics, on pure text": {
        ("truthfulqa", "all", "mc1"): "TruthfulQA mc1",
        ("truthfulqa", "all", "mc2"): "TruthfulQA mc2",
        ("truthfulqa-gen", "all", "rougeL_acc"): "TruthfulQA generation (ROUGE-L acc)",
        ("ethics", "mean test", "accuracy"): "ETHICS accuracy",
        ("ethics", "mean test_hard", "accuracy"): "ETHICS accuracy (hard)",
    },
    "Language ability": {
        ("mmlu", "all", "acc"): "MMLU",
        ("gsm8k", "all", "exact_match_flexible"): "GSM8K",
        ("mathqa", "all", "acc_norm"): "MathQA",
        ("boolq", "all", "acc"): "BoolQ",
        ("squad2", "all", "f1"): "SQuAD 2.0 F1 (of 100)",
    },
    "Vision": {
        ("mme", "perception", "score"): "MME perception",
        ("vqav2", "real", "accuracy"): "VQAv2 accuracy",
        ("captions", "real", "CIDEr"): "captions CIDEr",
        ("pope", "adversarial", "accuracy"): "POPE accuracy (adversarial)",
        ("pope", "adversarial", "f1"): "POPE F1 (adversarial)",
        ("pope", "heldout", "f1"): "POPE F1 (held-out pairs)",
        ("unicorn", "oodcv-vqa", "accuracy"): "OODCV-VQA accuracy",
        ("unicorn", "sketchy-vqa", "accuracy"): "Sketchy-VQA accuracy",
        ("visual contribution", "held out", "visual contribution"): "visual contribution (nats a token)",
    },
}
HEADLINE = {key: column for columns in TABLES.values() for key, column in columns.items()}


def cell(row: Mapping, digits: int = 2) -> str:
    """A value with its interval; a number without one is not shown."""
    return f"{row['value']:.{digits}f} [{row['low']:.{digits}f}, {row['high']:.{digits}f}]"


def grid(
    rows: pd.DataFrame, index: str | list[str], columns: str | list[str] = "arm", digits: int = 2
) -> pd.DataFrame:
    """Metric rows as a table of "value [low, high]", in their own order; a dash where there is none."""
    shown = rows.assign(cell=[cell(row, digits) for row in rows.to_dict("records")])
    return shown.pivot_table("cell", index, columns, aggfunc="first", sort=False).fillna("–")


def wide(rows: Iterable[dict], columns: dict = HEADLINE) -> pd.DataFrame:
    """Arms as rows, headline metrics as columns; a dash where an arm was not scored."""
    found: dict[str, dict[str, str]] = {}
    for row in rows:
        column = columns.get((row["benchmark"], row["subset"], row["metric"]))
        if column and row["low"] is not None:
            found.setdefault(row["arm"], {}).setdefault(column, cell(row))  # of two protocols the first
    order = [column for column in columns.values() if any(column in cells for cells in found.values())]
    return pd.DataFrame(found).T.reindex(columns=order).fillna("–").rename_axis("arm")


def as_text(rows: Iterable[dict]) -> str:
    """The headline tables as plain text, each below its title; a table without any arm is left out."""
    tables = {title: wide(rows, columns) for title, columns in TABLES.items()}
    return "\n\n".join(f"{title}\n{table.to_string()}" for title, table in tables.items() if len(table)) + "\n"


def signed(row: Mapping) -> str:
    """A difference with its interval: "+0.21 [+0.15, +0.27]"."""
    return f"{row['delta']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]"


def published(rows: Iterable[dict], arms: Sequence[str] = ("base", "mm-full", "mm-lora")) -> pd.DataFrame:
    """Published results whose metric we compute too, how each was read, and `ours` of some arms beside them."""
    ours: dict[tuple[str, str], dict[str, float]] = {}
    for row in rows:
        key = row["benchmark"], row["metric"]
        shown = key[0], row["subset"], key[1]
        if row["arm"] in arms and shown in HEADLINE and row["subset"] != "heldout":
            ours.setdefault(key, {}).setdefault(row["arm"], row["value"])  # of two protocols the first
    table = pd.DataFrame(yaml.safe_load((paths.package() / "published.yaml").read_text(encoding="utf-8")))
    keys = zip(table["benchmark"], table["metric"], strict=True)
    said = {key: ", ".join(f"{arm} {value:.2f}" for arm, value in found.items()) for key, found in ours.items()}
    return table.assign(ours=[said.get(key, "not computed") for key in keys])
