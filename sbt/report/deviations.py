"""DEVIATIONS: every deliberate difference from the authors' code and papers, as data (`deviations.yaml`).

How benchmarks are asked and scored is not repeated there: `table` counts what the SPECs' protocols say.
"""

from collections.abc import Mapping
from typing import Any

import pandas as pd
import yaml

from sbt.utils import paths

_FILE = paths.package() / "report" / "deviations.yaml"
DEVIATIONS: list[dict] = yaml.safe_load(_FILE.read_text(encoding="utf-8"))


def table(specs: Mapping[str, Any]) -> pd.DataFrame:
    """A row a difference: paper, topic, the authors, here, and the parameter that does as they do."""
    rows = [
        {
            "of": f"{one['paper']}: {one['topic']}",
            "the authors": one["theirs"],
            "here": one["ours"],
            "as they do": "; ".join(
                f"{name}={value}" for values in one["restore"].values() for name, value in values.items()
            ),
        }
        for one in DEVIATIONS
    ]
    counts = {name: len(differences) for name, spec in specs.items() if (differences := spec.protocols.get("paper"))}
    listed = ", ".join(f"{name} {count}" for name, count in counts.items())
    asked = {"of": "SBT: asking and scoring", "the authors": f"Points, each listed in its notebook: {listed}."}
    asked |= {"here": "Official metrics and greedy decoding beside theirs.", "as they do": "protocol(s)=paper"}
    return pd.DataFrame([*rows, asked])
