"""Multiple choice answered by a generated option letter, for models that give no log-likelihoods (the GPT-4 rows).

Protocol "letters" is not log-likelihood: its numbers do not compare digit for digit with those of "standard". Of
TruthfulQA there is mc1 only: mc2 is a share of probability, which a letter does not give.
row, records = by_letters(items, p.api, run.path("scratch/api.jsonl"), benchmark="boolq", subset="all")
"""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from string import ascii_uppercase

from sbt.inference import paid
from sbt.report import stats
from sbt.utils import checks
from sbt.utils.errors import DataError
from sbt.utils.files import sha256

PROTOCOL = "letters"
INSTRUCTION = "Answer with the letter of the best option and nothing else."
_MARKUP = re.compile(r"[*_`#\"“”]")
_LEADS = re.compile(r"(?i)\A[(\[]?([a-z])(?:[)\]]|[.:,;](?=\s|$)|\s*(?:\n|$)|\s+[-–—]\s)")
_STATED = re.compile(
    r"(?i)\b(?:answer|option|choice)(?:\s+(?:is|would be))?\s*:?\s*(?:(?:option|letter)\s+)?[(\[]?([a-z])"
    r"(?=[)\]]|[.,;:](?:\s|$)|\s*(?:\n|$)|\s+(?:because|since)\b)"
)
# Any letter that stands alone, but for the words "a" and "I", and for those in "D.C.", "I'm", "K-pop", "A&M".
_ALONE = re.compile(r"(?i)(?<![\w.'’&-])(?![ai]\s+[a-z]{2})([a-z])(?![\w'’&-]|\.\w)")


def by_letters(
    items: Sequence[dict], api: Mapping, cache: Path, *, benchmark: str, subset: str, metric: str = "accuracy",
    seed: int = 0, progress: Callable[[int, int], None] | None = None,
) -> tuple[dict, list[dict]]:  # fmt: skip
    """(metric row, samples) of the model behind an OpenAI-compatible endpoint, for `items` as `requests` takes them.

    `api` as `inference.paid` takes it; the estimated cost is printed first. ParameterError for another key, RunError
    where the estimate exceeds `budget` US dollars.
    """
    asked = requests(items, seed)
    answers = paid.complete(asked, api, cache, what=f"{benchmark} {subset}", readable=readable, progress=progress)
    records = samples(items, answers, arm=api["model"], seed=seed)
    measured = score(records, seed)
    print(f"{measured.pop('unparsed')} answers name no option (wrong), {measured.pop('skipped')} have no answer")
    named = {"arm": api["model"], "benchmark": benchmark, "subset": subset, "metric": metric}
    return {**named, **measured, **provenance(seed)}, [
        {"benchmark": benchmark, **record, "subset": subset} for record in records
    ]


def from_requests(asked: Sequence[Mapping], labels: Sequence[int]) -> list[dict]:
    """Items for `requests`, of requests with `continuations` and the places of the right ones."""
    return [
        {"id": one["id"], "text": one["context"], "options": [t.strip() for t in one["continuations"]], "label": label}
        for one, label in zip(asked, labels, strict=True)
    ]


def order(text: str, count: int, seed: int = 0) -> list[int]:
    """Which option stands behind A, B, ...: random by seed and item, the same on every machine.

    TruthfulQA's best answer is the first of its file: in file order, always answering A would be right every time.
    """
    return sorted(range(count), key=lambda place: sha256(f"{seed} {place} {text}"))


def requests(items: Sequence[dict], seed: int = 0) -> list[dict]:
    """{"id", "text": prompt, "order"} of items {"id", "text", "options", "label": place in options}.

    The prompt is question, lettered options, one instruction; it is ours, as the paper does not publish its own.
    DataError names the item without text, with fewer than 2 or more than 26 options, or with a label of none of them.
    """
    checks.once((item["id"] for item in items), "item ", "id")
    found = []
    for item in items:
        count, label = len(item["options"]), item["label"]
        if not item["text"].strip() or not 2 <= count <= len(ascii_uppercase) or label not in range(count):
            wanted = f"a text, 2 to {len(ascii_uppercase)} options and the place of the right one"
            raise DataError(f"item {item['id']!r} needs {wanted}, found {count} options and label {label!r}")
        places = order(item["text"], count, seed)
        options = [f"{letter}. {item['options'][k]}" for letter, k in zip(ascii_uppercase, places, strict=False)]
        prompt = "\n".join([item["text"], "", *options, "", INSTRUCTION])
        found.append({"id": item["id"], "text": prompt, "order": places})
    return found


def parse(answer: str, letters: str) -> int | None:
    """Place in `letters` ("ABCD") of the one an answer names; None where it names none, several, or another one.

    Read are an answer that is or begins with a letter ("B", "(b) Paris", "**B**.") and one that states it ("The
    answer is B."). Any other letter of the question that stands alone makes it ambiguous.
    """
    plain = _MARKUP.sub("", answer).strip()
    named = {found.upper() for found in _LEADS.findall(plain) + _STATED.findall(plain)}
    alone = {found.upper() for found in _ALONE.findall(plain)} & set(letters)
    clear = len(named) == len(named | alone) == 1 and named <= set(letters)
    return letters.index(named.pop()) if clear else None


def readable(request: dict, answer: str) -> bool:
    """Whether an answer to one of `requests` names one of its options."""
    return parse(answer, ascii_uppercase[: len(request["order"])]) is not None


def samples(items: Sequence[dict], answers: Sequence[object], *, arm: str, seed: int = 0) -> list[dict]:
    """One record an item: prompt, order, answer, the option chosen (its place in the file), whether that is right.

    An unparsed answer is wrong. An item the endpoint gave no text for (paid.Skip, None) is `skipped`: neither.
    """
    found = []
    for item, request, answer in zip(items, requests(items, seed), answers, strict=True):
        given = isinstance(answer, str)
        letter = parse(answer, ascii_uppercase[: len(item["options"])]) if given else None
        chosen = None if letter is None else request["order"][letter]
        record = {"arm": arm, "id": item["id"], "prompt": request["text"], "order": request["order"]}
        record |= {"answer": answer if given else None, "skipped": None if given else str(answer)}
        record |= {"chosen": chosen, "label": item["label"], "correct": given and chosen == item["label"]}
        found.append(record | {"unparsed": given and letter is None})
    return found


def score(records: Sequence[dict], seed: int = 0) -> dict[str, float | int]:
    """Of `samples`: accuracy as `value` with its 95 % interval `low`, `high` over the `n` answered ones, 0 to 1.

    And the counts `unparsed` (in n, as wrong) and `skipped` (not in n). DataError where none was answered.
    """
    answered = [record for record in records if record["skipped"] is None]
    if not answered:
        raise DataError(f"none of {len(records)} items was answered: there is nothing to score")
    value, low, high = stats.bootstrap([float(record["correct"]) for record in answered], seed=seed)
    counts = {"unparsed": sum(r["unparsed"] for r in answered), "skipped": len(records) - len(answered)}
    return {"value": value, "low": low, "high": high, "n": len(answered), **counts}


def provenance(seed: int) -> dict[str, str]:
    """What every metric row says of its making: the protocol, and a hash of the instruction and the order's seed."""
    return {"protocol": PROTOCOL, "template_hash": sha256(f"{INSTRUCTION} {seed}")[:12]}
