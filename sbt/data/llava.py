"""LLaVA-format conversations (`id`, `image`, `conversations`) as training rows, every row checked before it is used.

A row is `{"id", "images": [path, ...], "messages": [{"role", "content": [{"type": "text"|"image", ...}]}]}`.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from PIL import Image

from sbt.utils import paths
from sbt.utils.errors import DataError
from sbt.utils.files import read_json

PLACEHOLDER = "<image>"
ROLES = {"system": "system", "human": "user", "gpt": "assistant"}
Fail = Callable[[str], DataError]


def load(file: Path, images: Path | None = None, *, decode: bool = True, number_repeated: bool = False) -> list[dict]:
    """Rows of a LLaVA JSON file whose images lie in the folder `images`, in file order.

    Every row is checked: alternation of turns, answers that are not empty, as many `<image>` as images, files that are
    there and (`decode`) decode. `number_repeated` gives the second row with an id the id `ID#2` instead of refusing
    it: llava_instruct_150k.json names its rows by image. DataError names file, row and remedy.
    """
    file = Path(file)
    entries = read_json(file)
    if not isinstance(entries, list):
        raise DataError(f"{paths.shown(file)}: expected a list of conversations, found {type(entries).__name__}")
    rows, checked = [], set()
    for position, entry in enumerate(entries):
        rows.append(_row(entry, images, fail_in(file, position, entry)))
        for image in rows[-1]["images"]:
            if image not in checked:
                check_image(Path(image), fail_in(file, position, entry), decode=decode)
                checked.add(image)
    return unique(rows, file, number_repeated=number_repeated)


def fail_in(file: Path, position: int, entry: object) -> Fail:
    """Maker of DataErrors about one row of `file`: by its id if it has one, else by its position."""
    name = entry.get("id") if isinstance(entry, dict) else None
    where = f"{paths.shown(file)}: row {position}" + (f" (id {name!r})" if name is not None else "")
    return lambda problem: DataError(f"{where}: {problem}")


def unique(rows: list[dict], file: Path, *, number_repeated: bool = False) -> list[dict]:
    """The rows, if no id is used twice (DataError); with `number_repeated`, later ones are renamed `ID#2`, `ID#3`."""
    seen: dict[str, int] = {}
    for row in rows:
        times = seen[row["id"]] = seen.get(row["id"], 0) + 1
        if times > 1 and not number_repeated:
            raise DataError(
                f"{paths.shown(file)}: id {row['id']!r} is used by more than one row. Give every row its own id, "
                "or load with number_repeated=True where the file names rows by their image"
            )
        if times > 1:
            row["id"] = f"{row['id']}#{times}"
    return rows


def check_turns(roles: Sequence[str], fail: Fail) -> None:
    """Raise unless `roles` (system first or absent) alternate user, assistant and end with an answer."""
    turns = roles[1:] if roles and roles[0] == "system" else roles
    if not turns or turns[-1] != "assistant":
        raise fail("conversation without an answer: the last turn must be from 'gpt'. Add it or drop the row")
    if len(turns) % 2 or set(turns[::2]) != {"user"} or set(turns[1::2]) != {"assistant"}:
        raise fail(f"turns must alternate, human first; found {', '.join(roles)}. Mend or drop the row")


def check_image(image: Path, fail: Fail, *, decode: bool = True) -> None:
    """Raise unless the file is there and, with `decode`, is an image whose every pixel can be read."""
    if not image.is_file():
        raise fail(f"image {image} does not exist. Put it there, or name the folder that holds it")
    if not decode:
        return
    try:
        with Image.open(image) as opened:
            opened.verify()
        with Image.open(image) as opened:  # verify() checks the structure only and leaves the object unusable
            opened.load()
    except Exception as error:  # PIL raises many types, SyntaxError and struct.error among them
        raise fail(f"image {image} does not decode ({error}). Replace the file or drop the row") from None


def row(entry: object, fail: Fail) -> dict:
    """An entry of a LLaVA file as a row, checked; its `images` are the names that the file gives them.

    Whether the images are there is another question: `load` and `sbt.data.prepare` ask it. The problem goes to `fail`.
    """
    if not isinstance(entry, dict) or not isinstance(entry.get("conversations"), list):
        raise fail("no list of 'conversations'. Expected id, image, conversations: [{from, value}, ...]")
    if not isinstance(entry.get("id"), str | int):
        raise fail("no 'id' (a text or a number). Give every row its own")
    names = entry.get("image") or []
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise fail(f"'image' must be a file name or a list of them, found {str(names)[:60]}")
    messages = [_message(turn, fail) for turn in entry["conversations"]]
    check_turns([message["role"] for message in messages], fail)
    found = sum(turn["value"].count(PLACEHOLDER) for turn in entry["conversations"])
    if found != len(names):
        raise fail(
            f"{found} {PLACEHOLDER} in the human turns but {len(names)} in the field 'image'. Write one {PLACEHOLDER} "
            "where each image belongs; a text-only row has neither"
        )
    return {"id": str(entry["id"]), "images": names, "messages": messages}


def _row(entry: object, images: Path | None, fail: Fail) -> dict:
    """`row` with the paths of its images in the folder `images`."""
    found = row(entry, fail)
    if found["images"] and images is None:
        raise fail("the row has an image but no image folder was given")
    return found | {"images": [str((Path(images) / name).absolute()) for name in found["images"]]}


def _message(turn: object, fail: Fail) -> dict:
    if not isinstance(turn, dict) or not isinstance(turn.get("value"), str) or turn.get("from") not in ROLES:
        raise fail(f"a turn must be {{'from': human|gpt, 'value': text}}, found {str(turn)[:60]}")
    role, value = ROLES[turn["from"]], turn["value"]
    if role == "assistant" and not value.strip():
        raise fail("empty answer: there is nothing to learn from. Fill it in or drop the row")
    if PLACEHOLDER not in value:  # nearly all turns: what follows takes longer
        return {"role": role, "content": [{"type": "text", "text": value}] if value else []}
    if role != "user":
        raise fail(f"{PLACEHOLDER} may stand in human turns only, found one in a turn of {turn['from']!r}")
    return {"role": role, "content": parts(value)}


def parts(value: str) -> list[dict]:
    """Text with `<image>` placeholders as content parts, each image where its placeholder stood."""
    content: list[dict] = []
    for number, text in enumerate(value.split(PLACEHOLDER)):
        if number:
            content.append({"type": "image"})
        if text:
            content.append({"type": "text", "text": text})
    return content


def said(row: dict) -> list[tuple[str, str]]:
    """The turns of a row for people: (role, text), line breaks shown as " / ", images as their placeholder."""
    turns = []
    for message in row["messages"]:
        text = "".join(PLACEHOLDER if part["type"] == "image" else part["text"] for part in message["content"])
        turns.append((message["role"], text.strip().replace("\n", " / ")))
    return turns


def asked(rows: Iterable[dict], count: int) -> list[dict]:
    """The first questions of the first `count` rows with an image: id, image, text, answer."""
    found = []
    for row in rows:
        if row["images"]:
            turns = _first(row["messages"])
            text, answer = ("".join(part.get("text") or "" for part in turn["content"]) for turn in turns)
            found.append({"id": row["id"], "image": row["images"][0], "text": text.strip(), "answer": answer.strip()})
        if len(found) == count:
            break
    return found


def _first(messages: list[dict]) -> list[dict]:
    start = next(k for k, message in enumerate(messages) if message["role"] == "user")
    return messages[start : start + 2]


def counts(rows: Iterable[dict]) -> dict[str, int]:
    """How much there is: rows, turns of the assistant, different images."""
    rows = list(rows)
    answers = sum(message["role"] == "assistant" for row in rows for message in row["messages"])
    return {"rows": len(rows), "answers": answers, "images": len({image for row in rows for image in row["images"]})}


def text_twin(rows: Iterable[dict]) -> list[dict]:
    """The same conversations with the images taken away: same ids, same order, no placeholder, no newline left by it.

    The paper's own text-only file kept the newline and the `image` key; neither belongs in a controlled comparison.
    DataError if a question was nothing but an image.
    """
    return [{**row, "images": [], "messages": [_blind(row["id"], turn) for turn in row["messages"]]} for row in rows]


def _blind(name: str, message: dict) -> dict:
    if not any(part["type"] == "image" for part in message["content"]):
        return message
    text, before = "", None
    for part in message["content"]:
        if part["type"] == "text":  # one newline parts a placeholder from the text after it ...
            text += part["text"].removeprefix("\n") if before == "image" else part["text"]
        before = part["type"]
    if before == "image":  # ... or, where it stood last, from the text before it
        text = text.removesuffix("\n")
    if not text.strip():
        raise DataError(f"row {name!r}: a question is nothing but an image: it has no text twin. Drop the row")
    return {**message, "content": [{"type": "text", "text": text}]}
