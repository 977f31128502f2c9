"""TruthfulQA, multiple choice (Lin et al. 2022): `mc_task.json`, a list of question, mc1_targets and mc2_targets.

Protocol "standard": summed log-likelihood of each choice after `Q: ... A:`, no length normalisation, no chat template.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from sbt.benchmarks import check_protocol
from sbt.benchmarks.common.samples import item_scores as scores_of_items
from sbt.benchmarks.truthfulqa.mc_task import load, report, version
from sbt.benchmarks.truthfulqa.metric import chance, per_item, permuted
from sbt.benchmarks.truthfulqa.qa_preset import preset_text
from sbt.report import stats
from sbt.utils import checks, paths
from sbt.utils.errors import DataError
from sbt.utils.files import read_lines

__all__ = ["chance", "load", "per_item", "permuted", "preset_text", "prompt", "report", "requests",
           "requests_of_harness", "rows", "samples", "score", "score_files", "unpack", "version"]  # fmt: skip
METRICS = ("mc1", "mc1_strict", "mc2")


def prompt(question: str, preset: str = "none") -> str:
    """What the model continues: the preset, the question, and "A:" (lm-evaluation-harness: tasks/truthfulqa)."""
    return f"{preset_text(preset)}Q: {question}\nA:"


def _choices(item: dict) -> list[str]:
    return list(dict.fromkeys(choice for name in ("mc1", "mc2") for choice, _ in item[name]))


def requests(items: Sequence[dict], preset: str = "none") -> list[dict]:
    """One request an item; a choice that is in mc1 and in mc2 is scored once."""
    before = preset_text(preset)
    return [
        {
            "id": item["question"],
            "context": before + prompt(item["question"]),
            "continuations": [f" {choice}" for choice in _choices(item)],
        }
        for item in items
    ]


def requests_of_harness(items: Sequence[dict]) -> list[dict]:
    """What lm-evaluation-harness asks for mc1 and mc2: two requests an item, most choices in both."""
    return [
        {
            "id": f"{name} {item['question']}",
            "context": prompt(item["question"], "harness"),
            "continuations": [f" {choice}" for choice, _ in item[name]],
        }
        for item in items
        for name in ("mc1", "mc2")
    ]


def unpack(items: Sequence[dict], found: Sequence[Sequence[float]]) -> list[dict[str, list[float]]]:
    """Log-likelihoods of `requests` as {"mc1": [...], "mc2": [...]} in file order."""
    unpacked = []
    for item, values in zip(items, found, strict=True):
        by_choice = dict(zip(_choices(item), values, strict=True))
        unpacked.append({name: [by_choice[choice] for choice, _ in item[name]] for name in ("mc1", "mc2")})
    return unpacked


def rows(items: Sequence[dict], scored: Sequence[Mapping], *, arm: str, seed: int = 0, **same) -> list[dict]:
    """Metric rows with 95 % intervals over questions, and mc1 and mc2 of the permuted labels."""
    found = []
    for subset, judged in (("all", items), ("labels permuted", permuted(items, seed))):
        scores = per_item(judged, scored)
        for metric in ("mc1", "mc2"):
            value, low, high = stats.bootstrap(scores[metric], seed=seed)
            measured = {"metric": metric, "value": value, "low": low, "high": high, "n": len(items)}
            found.append({"arm": arm, "benchmark": "truthfulqa", "subset": subset, **measured, **same})
    return found


def samples(items: Sequence[dict], scored: Mapping[str, Sequence[Mapping]]) -> list[dict]:
    """One record an arm and item: log-likelihoods and scores."""
    found = []
    for arm, values in scored.items():
        scores = per_item(items, values)
        for place, (item, one) in enumerate(zip(items, values, strict=True)):
            own = {metric: scores[metric][place] for metric in METRICS}
            found.append({"arm": arm, "id": item["question"], **own, "loglikelihoods": one})
    return found


def score(items: Sequence[dict], scored: Sequence[Mapping]) -> dict[str, float | int]:
    """mc1, mc1_strict and mc2 (0 to 1), the number of items and of ties."""
    found = per_item(items, scored)
    means = {metric: sum(found[metric]) / len(items) for metric in METRICS}
    return {**means, "n": len(items), "ties": int(sum(found["tied"]))}


def score_files(answers: Path | str, references: Path | str, protocol: str = "standard") -> dict[str, float | int]:
    """Scores of a file of {"question", "mc1": [log-likelihoods in file order], "mc2": [...]}."""
    check_protocol(protocol)
    items, name = load(Path(references).absolute()), paths.shown(answers)
    lines, known = read_lines(Path(answers)), {item["question"]: item for item in items}
    found = checks.matched([row for _, row in lines], "question", known, name, [number for number, _ in lines])
    for number, row in lines:
        for metric in ("mc1", "mc2"):
            _check(row.get(metric), len(known[row["question"]][metric]), f"{name}:{number}: {metric}")
    return score(items, found)


def _check(values: object, choices: int, where: str) -> None:
    if not isinstance(values, list) or len(values) != choices:
        count = f", found {len(values)}" if isinstance(values, list) else ""
        raise DataError(f"{where} needs {choices} log-likelihoods, one a choice in file order{count}")
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise DataError(f"{where} holds {value!r}, which is no finite number")


def item_scores(samples: Sequence[dict]) -> dict:
    """mc1 and mc2 of the questions by arm, from the samples of a step: see `common.samples`."""
    return scores_of_items(samples, "truthfulqa", {"mc1": "mc1", "mc2": "mc2"})
