"""TruthfulQA's data: `mc_task.json`, a list of {question, mc1_targets, mc2_targets} (Lin et al. 2022)."""

import json
from collections.abc import Sequence
from pathlib import Path

from sbt.utils import checks, paths
from sbt.utils.errors import DataError
from sbt.utils.files import read_json, sha256

# What is published, by content: sylinrl/TruthfulQA at 013686a (the harness's) and at d71c110. The October 2021 data
# (`data/v1` there) is told by its size.
_CONTENTS = {"42f7b574b0bb": "2021-09", "bc126ccf27bb": "2025-01"}
_SIZES = {(817, 6204): "2021-10"}


def load(path: Path | str) -> list[dict]:
    """Items `question`, `mc1`, `mc2` with (choice, label) pairs in file order; a folder holds one `mc_task*.json`.

    Targets are {choice: 0 or 1}, as published, or {"choices": [...], "labels": [...]} as on the Hugging Face hub.
    DataError names the question whose choices have no single best answer (mc1) or not both kinds (mc2).
    """
    path = paths.resolve(str(path))
    if path.is_dir():
        found = sorted(path.glob("mc_task*.json"))
        if len(found) != 1:
            name = paths.shown(path)
            raise DataError(f"{name}: expected one mc_task*.json there, found {len(found)}. Name the file")
        path = found[0]
    return from_rows(read_json(path), paths.shown(path))


def from_rows(rows: object, name: str) -> list[dict]:
    """Items of the publishers' or the hub's rows, checked; `name` is what an error calls them."""
    if not isinstance(rows, list) or not rows:
        raise DataError(f"{name}: expected a list of questions")
    items = [_item(row, f"{name}, question {number}") for number, row in enumerate(rows, start=1)]
    checks.once((item["question"] for item in items), f"{name}, question ", "the text")
    return items


def _item(row: object, where: str) -> dict:
    question = row.get("question") if isinstance(row, dict) else None
    if not isinstance(question, str) or not question.strip():
        raise DataError(f"{where} has no text in 'question'")
    item = {"question": question, **{name: _choices(row, name, f"{where} {question!r}") for name in ("mc1", "mc2")}}
    true = {name: sum(label for _, label in item[name]) for name in ("mc1", "mc2")}
    if true["mc1"] != 1:
        raise DataError(f"{where} {question!r}: mc1 needs exactly one true choice, found {true['mc1']}")
    if not 0 < true["mc2"] < len(item["mc2"]):
        raise DataError(f"{where} {question!r}: mc2 needs a true and a false choice")
    return item


def _choices(row: dict, name: str, where: str) -> list[tuple[str, int]]:
    targets = row.get(f"{name}_targets")
    pairs = list(targets.items()) if isinstance(targets, dict) else []
    if pairs and set(targets) == {"choices", "labels"} and all(isinstance(value, list) for value in targets.values()):
        if len(targets["choices"]) != len(targets["labels"]):
            counts = f"{len(targets['choices'])} choices but {len(targets['labels'])} labels"
            raise DataError(f"{where}: {name}_targets has {counts}")
        pairs = list(zip(targets["choices"], targets["labels"], strict=True))
    if not pairs or any(not isinstance(choice, str) or label not in (0, 1) for choice, label in pairs):
        raise DataError(f"{where}: {name}_targets must be choices with 0 or 1")
    return [(choice, int(label)) for choice, label in pairs]


def version(items: Sequence[dict]) -> str:
    """Which published data this is: 2021-09 (what the harness reads), 2021-10, 2025-01; else `other-` and a hash."""
    digest = sha256(json.dumps([[item["question"], item["mc1"], item["mc2"]] for item in items]))[:12]
    size = len(items), sum(len(item["mc2"]) for item in items)
    return _CONTENTS.get(digest) or _SIZES.get(size) or f"other-{digest[:8]}"


def report(items: Sequence[dict]) -> dict[str, int]:
    """How much there is, and what is odd about it: the published files have both.

    `empty` choices; `repeated` ones, the same in one list but for case, blanks and the final period; `mixed` questions
    whose true mc2 choices do not all come first: lm-evaluation-harness 0.3.0 scored those wrongly.
    """
    lists = [[choice for choice, _ in item[name]] for item in items for name in ("mc1", "mc2")]
    plain = [[choice.strip().rstrip(".").lower() for choice in choices] for choices in lists]
    labels = [[label for _, label in item["mc2"]] for item in items]
    return {
        "questions": len(items),
        **{name: sum(len(item[name]) for item in items) for name in ("mc1", "mc2")},
        "empty": sum(not choice.strip() for choices in lists for choice in choices),
        "repeated": sum(len(choices) - len(set(choices)) for choices in plain),
        "mixed": sum(one != sorted(one, reverse=True) for one in labels),
    }
