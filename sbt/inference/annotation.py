"""Answers rated by a model that sees the picture: HelpSteer's five attributes, 0 to 4, reasons before ratings.

rows, malformed = annotate(prompts, answers, endpoint({"model": "gpt-4-turbo"}), run.path("scratch/annotator.jsonl"))

The authors' prompt for Gemini was never released; this one is ours, after HelpSteer's description of the attributes.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from sbt import models
from sbt.data.preferences import ATTRIBUTES
from sbt.inference import generation, paid
from sbt.utils.errors import RunError
from sbt.utils.files import sha256

PROMPT = """{seen}Below is a question and {count} answers to it. Rate each answer from 0 to 4 in five attributes:
helpfulness: does it do all that the question asks?
correctness: is what it says true and to the point?
coherence: is it clear, and free of contradictions?
complexity: how much knowledge does it take to write it?
verbosity: how much does it say, for what is asked?

Question: {question}

{answers}

First compare the answers in a few sentences, and doubt your first impression once. Then write your own answer. Then
give the ratings, whole numbers, in exactly this form, one line for each of the {count} answers:
My answer: ...
Answer 1: helpfulness 0, correctness 0, coherence 0, complexity 0, verbosity 0"""
AGAIN = "\n\nAn earlier reply could not be read. Keep to the form of the last lines, for all {count} answers."
MAX_TOKENS = 1024
_LINE = re.compile(r"^\W*Answer (\d+)\W*:(.*)$", re.IGNORECASE | re.MULTILINE)
_RATING = re.compile(rf"\b({'|'.join(ATTRIBUTES)})\W*[:=]?\W*([\d.]+)", re.IGNORECASE)
_OWN = re.compile(r"^\W*My answer\W*:\s*(.*?)(?=^\W*Answer \d+\W*:|\Z)", re.IGNORECASE | re.MULTILINE | re.DOTALL)
PROMPT_HASH = sha256(PROMPT + AGAIN)[:12]
# (requests {"id", "image", "text"}, cache, readable, progress) -> texts, or why there is none
Annotator = Callable[[Sequence[dict], Path, Callable, object], list[object]]


def endpoint(api: Mapping) -> tuple[str, Annotator]:
    """The model behind an OpenAI-compatible endpoint, with keys of `paid.API`; the cost is printed first."""
    paid.settings(api)

    def ask(requests: Sequence[dict], cache: Path, readable: Callable, progress: object) -> list[object]:
        asked = []
        for one in requests:
            image = [{"type": "image", "image": one["image"]}] if one["image"] else []
            content = [*image, {"type": "text", "text": one["text"]}]
            asked.append({**one, "messages": [{"role": "user", "content": content}]})
        how = {"readable": readable, "keep_unread": True, "progress": progress, "max_tokens": MAX_TOKENS}
        return list(paid.complete(asked, api, cache, what="annotation", **how))

    return api["model"], ask


def in_memory(reference: str, name: str) -> tuple[str, Annotator]:
    """An arm, or another model that this machine loads."""

    def ask(requests: Sequence[dict], cache: Path, readable: Callable, progress: object) -> list[object]:
        arm = models.load_arm(reference)
        return list(generation.generate(arm, requests, cache=cache, max_new_tokens=MAX_TOKENS, progress=progress))

    return name, ask


def named(given: Mapping, upstream: Callable[[str], Path]) -> tuple[str, Annotator]:
    """The annotator of a notebook's parameter, as `paid.named` reads it."""
    return paid.named(given, "annotator", upstream, endpoint, in_memory)


def annotate(
    prompts: Sequence[dict], answers: Sequence[Sequence[str]], annotator: tuple[str, Annotator], cache: Path, *,
    progress: object = None,
) -> tuple[list[dict], list[dict]]:  # fmt: skip
    """(rows of a preference table, the prompts left out: {"id", "why", "raw"}).

    A reply is malformed unless it gives every answer each attribute once, a whole number from 0 to 4. It is asked for
    once more; if that is malformed too, the prompt is left out and both texts are kept. What was answered stays in
    `cache`, malformed or not, and is not paid for twice. RunError where no prompt is left.
    """
    name, ask = annotator
    texts = [_prompt(one, said) for one, said in zip(prompts, answers, strict=True)]
    counts = {str(one["id"]): len(said) for one, said in zip(prompts, answers, strict=True)}
    raw: dict[str, list[object]] = {str(one["id"]): [] for one in prompts}

    def readable(request: dict, reply: str) -> bool:
        return parse(reply, request["count"]) is not None

    for again in ("", AGAIN):
        left = [
            {"id": f"{one['id']}{again and ' again'}", "of": str(one["id"]), "image": one["image"] or None,
             "count": counts[str(one["id"])], "text": text + again.format(count=counts[str(one["id"])])}
            for one, text in zip(prompts, texts, strict=True)
            if not again or (raw[str(one["id"])] and _read(raw, one, counts) is None)
        ]  # fmt: skip
        for request, reply in zip(left, ask(left, cache, readable, progress) if left else (), strict=True):
            raw[request["of"]].append(reply)
    rows, malformed = [], []
    for one, said in zip(prompts, answers, strict=True):
        found, replies = _read(raw, one, counts), raw[str(one["id"])]
        if found is None:
            why = next((str(reply) for reply in replies if not isinstance(reply, str)), "malformed ratings")
            malformed.append({"id": one["id"], "why": why, "raw": [text for text in replies if isinstance(text, str)]})
            continue
        told = {key: one[key] for key in ("id", "image", "question")}
        by = {"annotator": name, "prompt_hash": PROMPT_HASH, "raw": replies[-1]}
        rows.append({**told, "answers": list(said), **found, **by})
    if not rows:
        raise RunError(f"{name}: no reply of {len(prompts)} could be read. The first: {str(malformed[:1])[:200]}")
    print(f"{name}: {len(rows)} prompts rated, {len(malformed)} left out, their replies kept")
    return rows, malformed


def parse(reply: str, count: int) -> dict | None:
    """{"ratings", "rationale", "annotator_answer"} of a reply about `count` answers; None where it is malformed."""
    lines = _LINE.findall(reply)[-count:]  # what comes before the last lines is reasoning
    if [number for number, _ in lines] != [str(number) for number in range(1, count + 1)]:
        return None
    ratings = []
    for _, line in lines:
        found = [(name.lower(), value) for name, value in _RATING.findall(line)]
        if sorted(name for name, _ in found) != sorted(ATTRIBUTES) or any(not _whole(value) for _, value in found):
            return None
        ratings.append({name: int(value.rstrip(".")) for name, value in found})
    own = _OWN.search(reply)
    reasons = reply[: own.start()] if own else _LINE.split(reply)[0]
    return {"ratings": ratings, "rationale": reasons.strip(), "annotator_answer": own[1].strip() if own else ""}


def _whole(value: str) -> bool:
    return value.rstrip(".") in tuple("01234")


def _read(raw: Mapping[str, list], one: dict, counts: Mapping[str, int]) -> dict | None:
    texts = [reply for reply in raw[str(one["id"])] if isinstance(reply, str)]
    return parse(texts[-1], counts[str(one["id"])]) if texts else None


def _prompt(one: dict, said: Sequence[str]) -> str:
    listed = "\n\n".join(f"[Answer {number}]\n{text}" for number, text in enumerate(said, start=1))
    seen = "Look at the picture. " if one["image"] else ""
    # replaced one by one: an answer may hold braces
    text = PROMPT.replace("{seen}", seen).replace("{count}", str(len(said)))
    before, after = text.split("{answers}")
    return before.replace("{question}", one["question"]) + listed + after
