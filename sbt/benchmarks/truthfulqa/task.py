"""TruthfulQA (Lin et al. 2022): the questions of `files.load`, asked as multiple choice and as generation.

Multiple choice, protocols "standard" and "paper": summed log-likelihood of each choice after `Q: ... A:`, no length
normalisation, no chat template. Generation: see `generation`. `answers` are {"choices": log-likelihoods of the
requests' continuations, "generation": texts}.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sbt.benchmarks import check_protocol
from sbt.benchmarks.common import answers as answer_files
from sbt.benchmarks.common import language
from sbt.benchmarks.truthfulqa import generation
from sbt.benchmarks.truthfulqa.files import Questions, load, read_items
from sbt.benchmarks.truthfulqa.generation import preset_text
from sbt.benchmarks.truthfulqa.metric import per_item, permuted
from sbt.utils import paths
from sbt.utils.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["Questions", "load"]
METRICS = ("mc1", "mc1_strict", "mc2")


def requests(
    questions: Questions, preset: str = "none", *, protocol: str = "standard", conversation: str = "",
    tokenizer: "PreTrainedTokenizerBase | None" = None,
) -> dict[str, list[dict]]:  # fmt: skip
    """What is asked: "choices", and "generation" where there are rows for it. `preset`: see `preset_text`."""
    from sbt.inference import harness  # here: those who only read samples need no lm_eval

    asked = {"choices": choice_requests(questions.items, preset)}
    if questions.docs:
        asked["generation"] = generation.requests(questions.docs, preset, protocol)
    return {part: harness.as_chat(found, tokenizer, conversation) for part, found in asked.items()}


def rows(
    questions: Questions, answers: Mapping[str, Sequence], *, arm: str, seed: int = 0, **provenance: Any
) -> list[dict]:
    """Metric rows of both benchmarks, `truthfulqa` and `truthfulqa-gen`, each with its control."""
    same = {"arm": arm, "seed": seed, "data": questions.version, **provenance}
    scored = unpack(questions.items, answers["choices"])
    parts = {"all": questions.items, language.PERMUTED: permuted(questions.items, seed)}
    scores = {subset: per_item(items, scored) for subset, items in parts.items()}
    found = language.metric_rows(scores, ("mc1", "mc2"), benchmark="truthfulqa", **same)
    if "generation" in answers:
        found += generation.rows(questions.docs, answers["generation"], **same)
    return found


def samples(
    questions: Questions, answers: Mapping[str, Sequence], *, arm: str, protocol: str = "standard"
) -> list[dict]:
    """One record a question and benchmark."""
    scored = unpack(questions.items, answers["choices"])
    scores = per_item(questions.items, scored)
    found = [
        {"arm": arm, "id": item["question"], **{metric: scores[metric][place] for metric in METRICS}}
        | {"loglikelihoods": values}
        for place, (item, values) in enumerate(zip(questions.items, scored, strict=True))
    ]
    if "generation" in answers:
        written = generation.samples(questions.docs, answers["generation"], arm=arm, protocol=protocol)
        found += [{"benchmark": "truthfulqa-gen", **record} for record in written]
    return found


def compared(
    questions: Questions, answers: Mapping[str, Sequence], protocol: str = "standard"
) -> dict[str, list[float]]:
    """mc1, mc2 and, where answers were written, rougeL_acc of every question: what arms are compared by."""
    found = per_item(questions.items, unpack(questions.items, answers["choices"]))
    if "generation" in answers:
        found |= generation.per_item(questions.docs, answers["generation"], protocol)
    return {metric: found[metric] for metric in ("mc1", "mc2", "rougeL_acc") if metric in found}


def item_scores(records: Sequence[dict]) -> dict:
    """mc1 and mc2 of the questions by arm, from the samples of a step."""
    return language.item_scores(records, "truthfulqa", {"mc1": "mc1", "mc2": "mc2"})


def as_letters(items: Sequence[dict]) -> list[dict]:
    """The mc1 choices as `common.letters` asks for them: {"id", "text", "options", "label": place of the best}."""
    return [
        {"id": item["question"], "text": item["question"], "options": [choice for choice, _ in item["mc1"]],
         "label": [label for _, label in item["mc1"]].index(1)} for item in items
    ]  # fmt: skip


def prompt(question: str, preset: str = "none") -> str:
    """What the model continues: the preset, the question, and "A:" (lm-evaluation-harness: tasks/truthfulqa)."""
    return f"{preset_text(preset)}Q: {question}\nA:"


def _choices(item: dict) -> list[str]:
    return list(dict.fromkeys(choice for name in ("mc1", "mc2") for choice, _ in item[name]))


def choice_requests(items: Sequence[dict], preset: str = "none") -> list[dict]:
    """One request an item; a choice that is in mc1 and in mc2 is scored once."""
    before = preset_text(preset)
    return [
        {"id": item["question"], "context": before + prompt(item["question"])}
        | {"continuations": [f" {choice}" for choice in _choices(item)]}
        for item in items
    ]


def requests_of_harness(items: Sequence[dict]) -> list[dict]:
    """What lm-evaluation-harness asks for mc1 and mc2: two requests an item, most choices in both."""
    before = preset_text("harness")
    return [
        {"id": f"{name} {item['question']}", "context": before + prompt(item["question"])}
        | {"continuations": [f" {choice}" for choice, _ in item[name]]}
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


def score(items: Sequence[dict], scored: Sequence[Mapping]) -> dict[str, float | int]:
    """mc1, mc1_strict and mc2 (0 to 1), the number of items and of ties."""
    found = per_item(items, scored)
    means = {metric: sum(found[metric]) / len(items) for metric in METRICS}
    return {**means, "n": len(items), "ties": int(sum(found["tied"]))}


def score_files(answers: Path | str, references: Path | str, protocol: str = "standard") -> dict[str, float | int]:
    """Scores of a file of {"question", "mc1": [log-likelihoods in file order], "mc2": [...]}.

    Or of a log of the harness's truthfulqa_mc1 or _mc2: mc1, mc2 or both, as the choices that it asked allow.
    """
    check_protocol(protocol)
    items, name = read_items(Path(references).absolute()), paths.shown(answers)
    known = {item["question"]: item for item in items}
    found = answer_files.matched(answer_files.read(answers), "question", known, name)
    scored = [_scored(item, row) for item, row in zip(items, found, strict=True)]
    parts = [part for part in ("mc1", "mc2") if all(one[part] for one in scored)]
    if not parts:
        raise DataError(f"{name}: its choices are neither those of mc1 nor those of mc2. Is this TruthfulQA's log?")
    filled = [{k: one[k] or [0.0] * len(item[k]) for k in one} for item, one in zip(items, scored, strict=True)]
    left_out = {"mc1": ("mc1", "mc1_strict", "ties"), "mc2": ("mc2",)}
    unknown = [key for part in left_out if part not in parts for key in left_out[part]]
    return {key: value for key, value in score(items, filled).items() if key not in unknown}


def _scored(item: dict, row: answer_files.Row) -> dict[str, list[float]]:
    """Log-likelihoods of the mc1 and of the mc2 choices; [] where a log has not all of them."""
    if "continuations" not in row[1]:
        return {part: answer_files.loglikelihoods(row, len(item[part]), part) for part in ("mc1", "mc2")}
    asked = row[1]["continuations"]
    values = dict(zip(asked, answer_files.loglikelihoods(row, len(asked)), strict=True))
    wanted = {part: [f" {choice}" for choice, _ in item[part]] for part in ("mc1", "mc2")}
    return {k: [values[one] for one in asked] if values.keys() >= set(asked) else [] for k, asked in wanted.items()}
