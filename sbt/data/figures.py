"""SciGraphQA and LRV-Instruction, the questions of the preference study, as rows of `sbt.data.llava`.

Formats: findalexli/SciGraphQA:data_parsing and evaluation scripts; FuxiaoLiu/LRV-Instruction:README.md.
"""

from collections.abc import Callable
from pathlib import Path

from sbt.data import llava
from sbt.data.jsonlist import reader
from sbt.data.llava import PLACEHOLDER, Fail, fail_in, unique
from sbt.utils.errors import ParameterError
from sbt.utils.text import nearest


def scigraphqa_entry(entry: dict, position: int, fail: Fail) -> dict:
    """A SciGraphQA row {id, image_file, conversations | q_a_pairs: [[question, answer], ...]} in LLaVA's form.

    `conversations` is taken where both are there. The figure stands before the first question unless the row has a
    placeholder of its own.
    """
    image, turns = entry.get("image_file", entry.get("image")), entry.get("conversations")
    if not isinstance(image, str) or not image:
        raise fail("no 'image_file': name the figure or drop the row")
    if turns is None:
        pairs = entry.get("q_a_pairs")
        if not isinstance(pairs, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
            raise fail("neither 'conversations' nor 'q_a_pairs' (a list of question and answer). Drop the row")
        turns = [{"from": ("human", "gpt")[n], "value": pair[n]} for pair in pairs for n in (0, 1)]
    return {"id": entry.get("id", f"scigraphqa-{position}"), "image": image, "conversations": _with_image(turns)}


def lrv_entry(entry: dict, position: int, fail: Fail) -> dict:
    """An LRV row {image_id, question, answer, task} in LLaVA's form; its image is Visual Genome's `IMAGE_ID.jpg`.

    Named `lrv-POSITION`: many rows share an image. `task` (`negative`: asks for what is not there) is not kept.
    """
    if not isinstance(entry.get("image_id"), str | int):
        raise fail("no 'image_id' (of Visual Genome). Fill it in or drop the row")
    turns = [{"from": "human", "value": entry.get("question")}, {"from": "gpt", "value": entry.get("answer")}]
    image = f"{entry['image_id']}.jpg"
    return {"id": entry.get("id", f"lrv-{position}"), "image": image, "conversations": _with_image(turns)}


ENTRIES: dict[str, Callable[[dict, int, Fail], dict]] = {"scigraphqa": scigraphqa_entry, "lrv": lrv_entry}


def load(name: str, file: Path, images: Path) -> list[dict]:
    """All rows of a SciGraphQA or LRV file (JSON list, JSON lines or Parquet) whose images lie in a folder.

    For samples: `sbt.data.prepare` streams a file. ParameterError for another name; DataError names file and row.
    """
    if name not in ENTRIES:
        raise ParameterError(f"figure format {name!r} is unknown{nearest(name, ENTRIES)}")
    rows = []
    for position, entry in reader(file):
        fail = fail_in(Path(file), position, entry)
        if not isinstance(entry, dict):
            raise fail(f"expected an object, found {type(entry).__name__}")
        rows.append(llava._row(ENTRIES[name](entry, position, fail), images, fail))
        for image in rows[-1]["images"]:
            llava.check_image(Path(image), fail)
    return unique(rows, Path(file))


def _with_image(turns: object) -> object:
    """Conversation with the placeholder before its first turn, if it has none; left alone where it is malformed."""
    if not isinstance(turns, list) or not all(isinstance(t, dict) and isinstance(t.get("value"), str) for t in turns):
        return turns  # the checks of LLaVA's rows say what is wrong
    if not turns or any(PLACEHOLDER in turn["value"] for turn in turns):
        return turns
    return [{**turns[0], "value": f"{PLACEHOLDER}\n{turns[0]['value']}"}, *turns[1:]]
