"""MMBench with circular evaluation: a question's rows hold its options in every order, and all must be right.

Rows of one question share `index` modulo a million, as in the publishers' file. An answer names a letter, or is or
holds the words of one option and no other.
"""

import base64
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from sbt.benchmarks import check_protocol
from sbt.benchmarks.common import answers as answer_files
from sbt.benchmarks.common import letters
from sbt.benchmarks.mmbench import SPEC
from sbt.report import stats
from sbt.utils import paths
from sbt.utils.errors import DataError
from sbt.utils.files import read_text, write_bytes

ROUND = 1_000_000
LETTERS = "ABCD"
# haotian-liu/LLaVA: llava/eval/model_vqa_mmbench.py@c121f04, --single-pred-prompt
INSTRUCTION = "Answer with the option's letter from the given choices directly."


def load(file: Path | str, pictures: Path | None = None) -> list[dict]:
    """Rows {"index", "question", "hint", "options", "label", "category", "image"} of a TSV file.

    The pictures, which the file holds, are written to the folder `pictures`; `image` is their name there. DataError
    names a file that is no table, or the row whose answer is no option or whose picture is damaged.
    """
    name, found, text = paths.shown(file), [], read_text(paths.resolve(str(file)))
    try:
        table = pd.read_csv(io.StringIO(text), sep="\t", dtype=str, keep_default_na=False).fillna("")
    except ValueError as error:  # of pandas' readers
        raise DataError(f"{name}: malformed TSV ({str(error).strip()}): the file is truncated or damaged") from None
    if missing := {"index", "question", "A", "B", "answer"} - set(table.columns):
        raise DataError(f"{name} has no column {sorted(missing)[0]}: is it one of MMBench's TSV files?")
    for number, row in enumerate(table.to_dict("records"), start=2):
        options = [row[letter] for letter in LETTERS if row.get(letter, "").lower() not in ("", "nan", "none")]
        if row["answer"] not in [*LETTERS[: len(options)]] or not row["index"].isdigit():
            raise DataError(f"{name}:{number}: answer {row['answer']!r} is none of its {len(options)} options")
        item = {"index": int(row["index"]), "question": row["question"], "hint": row.get("hint", "")}
        item |= {"options": options, "label": LETTERS.index(row["answer"]), "category": row.get("category", "")}
        item["image"] = f"{item['index'] % ROUND}.jpg"
        if pictures is not None and len(row.get("image", "")) > 64 and not (pictures / item["image"]).is_file():
            try:
                write_bytes(pictures / item["image"], base64.b64decode(row["image"]))
            except ValueError:
                raise DataError(f"{name}:{number}: its picture is damaged") from None
        found.append(item)
    return found


def circular(items: Iterable[dict]) -> list[dict]:
    """The items with every rotation of their options, as the publishers' file has them."""
    return [
        {**item, "index": item["index"] + shift * ROUND, "options": item["options"][shift:] + item["options"][:shift],
         "label": (item["label"] - shift) % len(item["options"])}
        for item in items
        for shift in range(len(item["options"]))
    ]  # fmt: skip


def prompt(item: dict, protocol: str = "standard") -> str:
    """Hint, question, lettered options and LLaVA's instruction."""
    hint = [] if item["hint"].lower() in ("", "nan", "none") else [item["hint"]]
    options = [f"{letter}. {option}" for letter, option in zip(LETTERS, item["options"], strict=False)]
    return "\n".join([*hint, item["question"], *options, INSTRUCTION])


def parse(answer: str, options: Sequence[str]) -> int | None:
    """Place of the option that an answer names by its letter, or else alone by its words; None for no or several."""
    named = letters.parse(answer, LETTERS[: len(options)])
    if named is not None:
        return named
    said = f" {' '.join(answer.lower().replace('.', ' ').replace(',', ' ').split())} "
    words = [" ".join(option.lower().strip(".").split()) for option in options]
    held = [place for place, one in enumerate(words) if f" {one} " in said]
    return held[0] if len(held) == 1 else None


def _right(items: Sequence[dict], answers: Sequence[str]) -> dict[int, list[bool]]:
    """Question -> whether each of its rows is right, in file order."""
    found: dict[int, list[bool]] = {}
    for item, answer in zip(items, answers, strict=True):
        found.setdefault(item["index"] % ROUND, []).append(parse(answer, item["options"]) == item["label"])
    return found


def rows(items: Sequence[dict], answers: Sequence[str], *, arm: str, subset: str, seed: int = 0, **same) -> list[dict]:
    """Metric rows, of 100: `accuracy` (right in every order), `accuracy, first order`, and how many are unparsed."""
    right = _right(items, answers)
    unparsed = [float(parse(a, item["options"]) is None) for item, a in zip(items, answers, strict=True)]
    named = {"arm": arm, "benchmark": "mmbench", "subset": subset, "seed": seed, **same}
    values = {"accuracy": [float(all(one)) for one in right.values()]}
    values |= {"accuracy, first order": [float(one[0]) for one in right.values()]}
    found = [stats.metric_row(value, scale=100.0, metric=metric, **named) for metric, value in values.items()]
    return [*found, stats.metric_row(unparsed, metric="unparsed", **named)]


def samples(
    items: Sequence[dict], answers: Sequence[str], *, arm: str, subset: str, protocol: str = "standard"
) -> list[dict]:
    """One record a row: the question's number, the answer, the option it names, whether that is right."""
    chosen = [parse(answer, item["options"]) for item, answer in zip(items, answers, strict=True)]
    return [
        {"benchmark": "mmbench", "arm": arm, "subset": subset, "question": item["index"] % ROUND,
         "image": item["image"], "index": item["index"], "answer": answer, "chosen": place, "label": item["label"],
         "correct": place == item["label"], "empty": not answer.strip()}
        for item, answer, place in zip(items, answers, chosen, strict=True)
    ]  # fmt: skip


def per_item(samples: Sequence[dict]) -> dict[str, pd.DataFrame]:
    """Whether a question is right in every order, items x arms, for paired comparisons."""
    kept = [one for one in samples if one.get("benchmark") == "mmbench" and one["subset"] == "all"]
    if not kept:
        return {}
    frame = pd.DataFrame(kept).assign(correct=lambda frame: frame.correct.astype(float))
    return {"mmbench": frame.pivot_table("correct", "question", "arm", aggfunc="min", sort=False)}


def score_files(answers: Path | str, references: Path | str, protocol: str = "standard") -> dict[str, float | int]:
    """Accuracies (of 100) of a file of answers, one a row of the TSV file; both protocols read answers alike."""
    check_protocol(protocol, SPEC.protocols)
    items, found, name = load(references), answer_files.read(answers), paths.shown(answers)
    found = answer_files.in_order(found, "question_id", [item["index"] for item in items], name)
    told = rows(items, [answer_files.text(row) for row in found], arm="", subset="all")
    return {row["metric"]: row["value"] for row in told} | {"n": told[0]["n"]}
