"""Results of several steps of one benchmark: joined where they asked the same, and only there."""

from pathlib import Path

import pytest

from sbt import benchmarks
from sbt.report import collect
from sbt.study import runs
from sbt.utils.files import write_json, write_jsonl, write_text

ASKED = {"protocols": ["standard", "paper"], "splits": [], "max_new_tokens": 16}


def step(folder: Path, arms: dict[str, list[bool]], **asked: object) -> Path:
    """A step that asked arms POPE's questions, which each answered right or wrong."""
    folder.mkdir()
    given = {"step": folder.name, "arms": [], "arm_steps": [folder.name], "seed": 0, **ASKED, **asked}
    write_json(folder / "params.yaml", given)  # JSON is YAML
    samples, rows = [], []
    for arm, right in arms.items():
        same = {"arm": arm, "subset": "random", "protocol": "standard"}
        named = dict.fromkeys(runs.METRIC, "") | same | {"benchmark": "pope", "metric": "accuracy"}
        rows.append({**named, "value": sum(right) / len(right), "n": len(right), "low": 0.0, "high": 1.0})
        samples += [{**same, "image": f"{k}.png", "correct": one} for k, one in enumerate(right)]
    write_json(folder / "metrics.json", rows)
    write_jsonl(folder / "samples.jsonl", samples)
    write_text(folder / "DONE", "{}")
    return folder


def joined(*folders: Path) -> list[str]:
    """The arms whose answers are compared item by item."""
    return list(collect.read(folders, benchmarks.specs()).scores["POPE"])


def test_steps_that_asked_other_arms_the_same_are_compared(tmp_path: Path) -> None:
    first = step(tmp_path / "63_pope", {"mm-full": [True, False]})
    later = step(tmp_path / "63_pope-aligned", {"dpo": [False, False]}, protocols=["standard"])
    assert joined(first, later) == ["mm-full", "dpo"], "items are compared under the first protocol, whatever follows"


@pytest.mark.parametrize(
    "asked", [{"protocols": ["paper", "standard"]}, {"splits": ["adversarial"]}, {"max_new_tokens": 10}]
)
def test_control_those_that_asked_otherwise_are_not(asked: dict, tmp_path: Path) -> None:
    first = step(tmp_path / "63_pope", {"mm-full": [True, False]})
    assert joined(first, step(tmp_path / "63_pope-aligned", {"dpo": [False, False]}, **asked)) == ["mm-full"]
