"""MT-Bench: ask two turns, have each answer rated, average.

As FastChat does it: the temperature of a question is its category's; mathematics, reasoning and coding are judged
beside a reference answer; a verdict without [[rating]] is left out; the score is the mean over both turns.
"""

import random
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from sbt.benchmarks.common import controls
from sbt.benchmarks.common import judge as judging
from sbt.benchmarks.common.judge import Progress, Protocol
from sbt.inference import generation
from sbt.inference.decoding import Decoding
from sbt.models import Arm
from sbt.utils import checks, paths
from sbt.utils.errors import DataError, ParameterError
from sbt.utils.files import read_jsonl

# FastChat: fastchat/llm_judge/common.py@0e6d3e4
TEMPERATURES = {"writing": 0.7, "roleplay": 0.7, "stem": 0.1, "humanities": 0.1}  # all other categories: 0
BY_REFERENCE = ("math", "reasoning", "coding")
PICTURES = ("blank", "random")  # beside which text questions are asked, too
_RATING = (re.compile(r"\[\[(\d+\.?\d*)\]\]"), re.compile(r"\[(\d+\.?\d*)\]"))


def load(folder: Path | str) -> list[dict]:
    """Questions of FastChat's question.jsonl, with GPT-4's answers of gpt-4.jsonl as `reference` where it has some.

    DataError names the row without question_id, category or two turns, and the question that is judged by a reference
    and has none.
    """
    file, found = paths.resolve(str(folder)) / "question.jsonl", []
    known = {row["question_id"]: row["choices"][0]["turns"] for row in read_jsonl(file.with_name("gpt-4.jsonl"))}
    for where, row in checks.listed(read_jsonl(file), paths.shown(file)):
        name, category = checks.key(row, "question_id", where), checks.text(row, "category", where)
        if not isinstance(row.get("turns"), list) or len(row["turns"]) != 2:
            raise DataError(f"{where}: 'turns' must be a list of two questions")
        if category in BY_REFERENCE and name not in known:
            raise DataError(f"{where}: {category} is judged beside a reference answer, gpt-4.jsonl has none of {name}")
        found.append({**row, "reference": known.get(name)})
    return found


def load_answers(file: Path | str, questions: Sequence[dict]) -> dict[object, list[str]]:
    """The two answers to each of the questions by id, of a file in FastChat's form; DataError for what is missing.

    Of a question that is answered several times the first counts.
    """
    found, name = {}, paths.shown(file)
    for where, row in checks.listed(read_jsonl(paths.resolve(str(file))), name):
        try:
            turns = row["choices"][0]["turns"]
            turns = [*turns, ""][:2]
            found.setdefault(row["question_id"], [turn.strip() for turn in turns])
        except (KeyError, IndexError, TypeError, AttributeError):
            raise DataError(f"{where}: expected question_id and choices[0].turns, as FastChat writes them") from None
    if missing := [row["question_id"] for row in questions if row["question_id"] not in found]:
        raise DataError(f"{name}: {len(missing)} questions have no answer, the first is {missing[0]}")
    return {row["question_id"]: found[row["question_id"]] for row in questions}


def ask(
    arm: Arm, questions: Sequence[dict], cache: Path, *, beside: Sequence[str] = (), pictures: Sequence[Path] = (),
    **how: Any,
) -> dict[str, dict[object, list[str]]]:  # fmt: skip
    """The arm's two answers to each question, by condition and id: "", and of arms that can see those of `beside`.

    A condition of `PICTURES` shows a picture with every turn: a grey one, or one of `pictures` at random; each is
    checked to reach the model. `how`: max_new_tokens, conversation (of an arm that has none), batch_size, seed,
    progress.
    """
    if wrong := [one for one in beside if one not in PICTURES]:
        raise ParameterError(f"beside: {wrong[0]!r} is none of {', '.join(PICTURES)}")
    conditions = ("", *(beside if arm.has_vision else ()))
    return {one: _asked(arm, questions, cache.with_stem(cache.stem + one), one, pictures, **how) for one in conditions}


def _asked(
    arm: Arm, questions: Sequence[dict], cache: Path, condition: str, pictures: Sequence[Path], *,
    max_new_tokens: int = 1024, conversation: str = "v1", batch_size: int = 64, seed: int = 0,
    progress: Progress = None,
) -> dict[object, list[str]]:  # fmt: skip
    said: dict[object, list[str]] = {row["question_id"]: [] for row in questions}
    for turn in (0, 1):
        groups: dict[float, list[dict]] = {}
        for row in questions:
            image = _picture(condition, pictures, f"{seed} {row['question_id']} {turn}")
            before = [(row["turns"][0], said[row["question_id"]][0])] if turn else []
            request = {"id": (row["question_id"], turn), "image": image, "text": row["turns"][turn]}
            groups.setdefault(TEMPERATURES.get(row["category"], 0.0), []).append(request | {"demonstrations": before})
        for temperature, requests in groups.items():
            if condition:
                generation.check_pictures(arm, requests)
            how = Decoding(max_new_tokens, None if arm.conversation else conversation, temperature, seed=seed)
            way = {"decoding": how, "batch_size": batch_size, "progress": progress}
            for request, text in zip(requests, generation.generate(arm, requests, cache=cache, **way), strict=True):
                said[request["id"][0]].append(text)
    return said


def _picture(condition: str, pictures: Sequence[Path], seed: str) -> Path | Image.Image | None:
    if condition == "random":
        return random.Random(seed).choice(sorted(pictures))
    return controls.blank() if condition else None


def cases(
    questions: Sequence[dict], answers: Mapping[object, Sequence[str]], *, arm: str, condition: str = ""
) -> list[dict]:
    """What the judge is asked about an arm: each answer by itself, the second one with its conversation."""
    found = []
    for row in questions:
        name, said, by_reference = row["question_id"], answers[row["question_id"]], row["category"] in BY_REFERENCE
        texts = {"question": row["turns"][0], "answer": said[0]}
        for number in (1, 2):
            texts |= {f"question_{number}": row["turns"][number - 1], f"answer_{number}": said[number - 1]}
            texts |= {f"ref_answer_{number}": row["reference"][number - 1]} if by_reference else {}
        kind = "single-math-v1" if by_reference else "single-v1"
        same = {"arm": arm, "question": name, "subset": row["category"], "condition": condition, "item": row}
        for turn in (1, 2):
            template = kind if turn == 1 else f"{kind}-multi-turn"
            found.append(PROTOCOL.case(template, answer=said[turn - 1], turn=turn, texts=texts, **same))
    return found


def parse(verdict: str) -> tuple[float] | None:
    """The rating of a verdict: "[[7]]", else "[7]"."""
    found = _RATING[0].search(verdict) or _RATING[1].search(verdict)
    return (float(found[1]),) if found else None


def _publishers(rows: Sequence[dict]) -> list[dict]:
    """Rows of FastChat's gpt-4_single.jsonl as verdicts; it says nothing of the answers' length."""
    return [
        {"arm": row["model"], "question": row["question_id"], "turn": row["turn"], "judge": row["judge"][0],
         "template": row["judge"][1], "verdict": row["judgment"]}
        for row in rows
    ]  # fmt: skip


PROTOCOL = Protocol(
    "mtbench", judging.templates(__file__), parse, lambda own, other: own / 10, "score", 10.0, (-1.0,), "dropped",
    max_tokens=2048, publishers=_publishers,
)  # fmt: skip
per_item = partial(judging.per_item, PROTOCOL)
score_files = partial(judging.score_files, PROTOCOL)
