"""Published results, and ours beside those that were measured on the same.

published.load()   published.beside(rows, collect.arms(study), base="meta-llama/Llama-2-7b-hf")
"""

from collections.abc import Iterable
from functools import cache

import pandas as pd
import yaml

from sbt.report import tables
from sbt.utils import paths


@cache
def load() -> pd.DataFrame:
    """Every published value, a row each: paper, model, tuning, benchmark, metric, value as printed, read, and more.

    `ids` are those of the base model, `ours` is the (benchmark, subset, metric) of a result of the same.
    """
    text = (paths.package() / "report" / "published.yaml").read_text(encoding="utf-8")
    table = yaml.safe_load(text)
    rows = [{"paper": paper, **row} for paper, found in table["papers"].items() for row in found]
    for row in rows:
        row["ids"] = table["models"].get(row["model"], [])
    return pd.DataFrame(rows)


def beside(rows: Iterable[dict], made: pd.DataFrame, base: str) -> pd.DataFrame:
    """The published values that a study measured, too, with ours: paper, model, tuning, metric, published, ours, read.

    The same are base model, tuning and training data of the arm, and benchmark, version of its data and metric. `made`
    are `collect.arms`, `base` is the id of the untuned language model.
    """
    by_arm = made.drop_duplicates("arm").set_index("arm").to_dict("index")
    by_arm["base"] = {"role": "base", "model": base, "data": ""}
    found = []
    for told in load().dropna(subset="ours").to_dict("records"):
        for row in rows:
            arm = by_arm.get(row["arm"], {"role": "", "model": "", "data": ""})
            same = [row["benchmark"], row["subset"], row["metric"]] == told["ours"] and arm["role"] == told["role"]
            data = told["data"] if isinstance(told["data"], list) else [arm["data"]]
            version = told["version"] if isinstance(told["version"], str) else row["data"]
            if same and arm["model"] in told["ids"] and arm["data"] in data and row["data"] == version:
                shown = {key: told[key] for key in ("paper", "model", "tuning", "benchmark", "metric")}
                shown |= {"published": told["value"] * told["scale"], "ours": tables.cell(row, 3), "arm": row["arm"]}
                found.append(shown | {"protocol": row["protocol"], "read": told["read"]})
    return pd.DataFrame(found)
