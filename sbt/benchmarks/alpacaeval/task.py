"""AlpacaEval 1.0: ask, have each answer compared with the reference's, count. Draws count half."""

import ast
import random
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from sbt.benchmarks.common import judge as judging
from sbt.benchmarks.common import judged
from sbt.benchmarks.common.judge import Protocol
from sbt.models import Arm
from sbt.utils import checks, paths
from sbt.utils.errors import DataError, RunError
from sbt.utils.files import read_json

_PREFERENCE = re.compile(r"preference ([\d.]+)")


def load(file: Path | str) -> list[dict]:
    """Instructions with the reference's `output`; DataError names the row that lacks one."""
    rows = read_json(paths.resolve(str(file)))
    for where, row in checks.listed(rows, paths.shown(file)):
        checks.texts(row, ("instruction",), where)
        if not isinstance(row.get("output"), str):  # one of text-davinci-003's is empty
            raise DataError(f"{where}: no text in 'output'")
    return rows


def load_answers(file: Path | str, questions: Sequence[dict]) -> list[str]:
    """The outputs of a file in AlpacaEval's form, in the order of the questions; DataError for one that is missing."""
    name, found = paths.shown(file), {}
    for where, row in checks.listed(read_json(paths.resolve(str(file))), name):
        if not isinstance(row.get("output"), str):
            raise DataError(f"{where}: no text in 'output'")
        found[row.get("instruction")] = row["output"].strip()
    if missing := [row["instruction"] for row in questions if row["instruction"] not in found]:
        raise DataError(f"{name}: {len(missing)} instructions have no answer, the first is {missing[0]!r:.60}")
    return [found[row["instruction"]] for row in questions]


def ask(arm: Arm, questions: Sequence[dict], cache: Path, **how: Any) -> dict[str, list[str]]:
    """{"": the arm's answers}, greedily; `how` as `judged.greedy` takes it."""
    requests = [{"id": str(n), "image": None, "text": row["instruction"]} for n, row in enumerate(questions)]
    return {"": judged.greedy(arm, requests, cache, **how)}


def cases(questions: Sequence[dict], answers: Sequence[str], *, arm: str, condition: str = "") -> list[dict]:
    """What the judge is asked about an arm: each answer beside the reference's, in both orders."""
    return [
        PROTOCOL.case(
            "alpaca_eval_gpt4", texts={"instruction": row["instruction"]}, arm=arm, question=number, answer=answer,
            other=row["output"], item=row, subset=row.get("dataset", ""), order=order, condition=condition,
            drawn=drawn(row["instruction"]),
        )
        for number, (row, answer) in enumerate(zip(questions, answers, strict=True))
        for order in judging.ORDERS
    ]  # fmt: skip


def drawn(instruction: str, seed: int = 0) -> str:
    """Where the publishers' code shows the arm's answer: second, or first where they change places."""
    changed = random.Random(f"is_switched_outputs{instruction}{seed}").choices([False, True])[0]
    return "first" if changed else "second"


def parse(verdict: str) -> tuple[float, float] | None:
    """Points of the answers in the order shown: 1 and 0, of a list that ranks model_1 and model_2.

    Or of "preference 2", what the publishers' files keep of a verdict: 1, 2, between, or 0 and 1.5 for a draw.
    """
    if found := _PREFERENCE.fullmatch(verdict):
        value = float(found[1]) or 1.5
        return (2 - value, value - 1) if 1 <= value <= 2 else None
    try:
        rank = next(one["rank"] for one in ast.literal_eval(verdict.strip()) if one["model"] == "model_1")
    except (ValueError, SyntaxError, TypeError, KeyError, StopIteration, RecursionError, MemoryError):
        return None
    return {1: (1.0, 0.0), 2: (0.0, 1.0)}.get(rank) if isinstance(rank, int) else None


def _publishers(rows: Sequence[dict]) -> list[dict]:
    """Rows of alpaca_eval's annotations.json: output_2 is the arm's, in which order they were shown is not kept.

    "preference None" stands for a completion that its parser could not read.
    """
    return [
        {"arm": row.get("model_id") or row.get("generator_2") or "the arm", "question": number, "order": "second",
         "subset": row.get("dataset", ""), "judge": row["annotator"], "template": row["annotator"],
         "verdict": f"preference {row['preference']}",
         "characters": len(row["output_2"]), "other_characters": len(row["output_1"]),
         "empty": not row["output_2"].strip()}
        for number, row in enumerate(rows)
    ]  # fmt: skip


PROTOCOL = Protocol(
    "alpacaeval", judging.templates(__file__), parse, lambda own, other: (own - other + 1) / 2, "win_rate", 100.0,
    (0.0, 1.0), "dropped", max_tokens=100, publishers=_publishers,
    asked=lambda row: row["order"] == row.get("drawn", row["order"]),  # one order; published rows do not say which
)  # fmt: skip


def counts(rows: Sequence[dict]) -> pd.DataFrame:
    """By arm: wins, losses and draws of questions, win rate and standard error, as alpaca_eval's leaderboard.

    Two orders of a question that contradict each other are a draw.
    """
    frame, found = judging.ruled(PROTOCOL, judging.table(PROTOCOL, rows), "dropped"), {}
    for arm, part in frame.groupby("arm", sort=False):
        points = part.groupby("question").points.mean()
        told = {"wins": (points > 0.5).sum(), "losses": (points < 0.5).sum(), "draws": (points == 0.5).sum()}
        error = points.sem() * 100
        found[arm] = told | {"win rate": points.mean() * 100, "standard error": error, "questions": len(points)}
    return pd.DataFrame(found).T


def length_controlled(rows: Sequence[dict], questions: Sequence[dict], answers: Sequence[str]) -> float:
    """AlpacaEval's length-controlled win rate (of 100), by the alpaca-eval package; RunError where it is not there.

    `rows` are one arm's verdicts. Its difficulties of instructions are of the published questions: all 805 are needed.
    """
    try:
        from alpaca_eval.metrics import get_length_controlled_winrate
    except ImportError:
        raise RunError("length control needs alpaca-eval: pip install 'alpaca-eval==0.6.6' 'setuptools<81'") from None
    frame = judging.ruled(PROTOCOL, judging.table(PROTOCOL, rows), "dropped")
    points = frame.groupby("question").points.mean()
    told = [
        {"instruction": row["instruction"], "output_1": row["output"], "output_2": answer, "generator_1": "reference",
         "generator_2": frame.arm.iloc[0], "annotator": rows[0]["judge"], "preference": 1 + points[number],
         "index": number}
        for number, (row, answer) in enumerate(zip(questions, answers, strict=True)) if number in points.index
    ]  # fmt: skip
    how = {"save_weights_dir": None, "is_add_glm_preference_inplace": False}
    return float(get_length_controlled_winrate(told, **how)["length_controlled_winrate"])


per_item = partial(judging.per_item, PROTOCOL)


def score_files(judgements: Path | str, protocol: str = "standard") -> dict:
    """`judge.scored` and the counts, by arm, of a file of raw verdicts; one question has no standard error."""
    rows = judging.counting(PROTOCOL, judgements, protocol)
    found = judging.scored(PROTOCOL, rows, protocol)
    for arm, told in counts(rows).to_dict("index").items():
        found["arms"][arm] |= {name: value for name, value in told.items() if value == value}
    return found
