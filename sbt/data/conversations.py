"""Rows of every published training set as conversations, each row checked before it is used.

A row is `{"id", "images": [path, ...], "messages": [{"role", "content": [{"type": "text"|"image", ...}]}]}`.
Forms: LLaVA's JSON; SlimOrca's ShareGPT form; Alpaca; Orca; SciGraphQA (findalexli/SciGraphQA:data_parsing);
LRV-Instruction (FuxiaoLiu/LRV-Instruction:README.md).
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from sbt.data.image_zip import ImageFinder, look
from sbt.data.json_stream import reader
from sbt.utils import paths
from sbt.utils.errors import DataError, ParameterError
from sbt.utils.text import nearest

PLACEHOLDER = "<image>"
ROLES = {"system": "system", "human": "user", "gpt": "assistant"}
UNSEEN = dict.fromkeys(map(ord, "\u200b\u200c\u200d\u2060\ufeff"))  # letters without width: no words by themselves
OTHER_MEDIA = ("<video>", "<audio>")  # no placeholders here
BESIDE_MARKER = " \t\r\n\"'`."  # what stands around that marker in the published file
IMAGE_PLACES = ("as_written", "front")  # of an image within its turn
NO_INPUT = "<noinput>"  # what Alpaca's generator writes for no input: stanford_alpaca/generate_instruction.py


class BadRow(DataError):
    """A row that cannot be used. A manifest counts bad rows by `kind`."""

    def __init__(self, kind: str, problem: str) -> None:
        super().__init__(problem)
        self.kind = kind


class Faults:
    """Makes the errors about the rows of one file: `raise faults.at(position, entry)(problem)`.

    An error names file and row, and the row's id if it has one. `noted` counts what was accepted although unusual.
    """

    def __init__(self, file: Path) -> None:
        self.file, self.position, self.entry = Path(file), 0, None
        self.noted: Counter[str] = Counter()

    def at(self, position: int, entry: object) -> "Faults":
        """The same object, for the row at this position."""
        self.position, self.entry = position, entry
        return self

    def __call__(self, problem: str, kind: str = "row") -> BadRow:
        name = self.entry.get("id") if isinstance(self.entry, dict) else None
        where = f"{paths.shown(self.file)}: row {self.position}" + (f" (id {name!r})" if name is not None else "")
        return BadRow(kind, f"{where}: {problem}")


def load(
    file: Path,
    images: Path | None = None,
    *,
    form: str = "llava",
    decode: bool = True,
    number_repeated: bool = False,
) -> list[dict]:
    """All rows of a file in file order, in memory; `sbt.data.prepare` streams large files with the same checks.

    `images` is the folder or zip that holds the images. `decode` looks at every image file (`image_zip.look`).
    `number_repeated` calls the second row with an id `ID#2`. DataError names file and row.
    """
    parse, faults, find = parser(form), Faults(file), ImageFinder([images] if images else [])
    rows, seen, looked = [], Counter(), set()
    for position, entry in reader(file):
        row = parse(entry, position, faults.at(position, entry))
        names, row["images"] = row["images"], [place_image(name, find, faults) for name in row["images"]]
        for name, path in zip(names, row["images"], strict=True):
            if decode and path not in looked and (problem := look(path)):
                raise damaged(name, problem, faults)
            looked.add(path)
        rows.append(own_id(row, seen, faults, number_repeated=number_repeated))
    return rows


def parser(form: str) -> Callable[[object, int, Faults], dict]:
    """The function (entry, position, faults) -> row of a form; a row's images are the names the file gives them.

    ParameterError with a suggestion for an unknown form. The function raises the row's problem as BadRow.
    """
    if form not in FORMATS:
        raise ParameterError(f"data format {form!r} is unknown{nearest(str(form), FORMATS)}")
    to_row = FORMATS[form]

    def parse(entry: object, position: int, faults: Faults) -> dict:
        if not isinstance(entry, dict):
            raise faults(f"expected an object, found {type(entry).__name__}")
        return to_row(entry, position, faults)

    return parse


def place_image(name: str, find: ImageFinder, faults: Faults) -> str:
    """Path or zip reference of a row's image; BadRow where it is nowhere, or its name leaves its folder."""
    if not find.places:
        raise faults("the row has an image but no folder or zip of images was given", "image missing")
    try:
        path = find.path(name)
    except DataError as error:
        raise faults(str(error), "image refused") from None
    if path is None:
        raise faults(f"image {name} is not in {find.shown()}. Put it there or drop the row", "image missing")
    return path


def damaged(name: str, problem: str, faults: Faults) -> BadRow:
    """The error about a row whose image cannot be used."""
    return faults(f"image {name}: {problem}. Replace the file or drop the row", "image damaged")


def own_id(row: dict, seen: Counter[str], faults: Faults, *, number_repeated: bool) -> dict:
    """The row with an id that no row before has: BadRow for a repeated one, or `ID#2` with `number_repeated`."""
    name = row["id"]
    if name in seen and not number_repeated:
        words = f"id {name!r} is used by a row before. Give every row its own id, or set number_repeated"
        raise faults(f"{words} where the file names rows by their image", "repeated id")
    seen[name] += 1
    if seen[name] > 1:
        row["id"] = f"{name}#{seen[name]}"
    return row


def llava_row(entry: dict, position: int, faults: Faults) -> dict:
    """An entry `{id, image, conversations: [{from, value}, ...]}` of a LLaVA file."""
    if not isinstance(entry.get("conversations"), list):
        raise faults("no list of 'conversations'. Expected id, image, conversations: [{from, value}, ...]")
    if not isinstance(entry.get("id"), str | int) or isinstance(entry["id"], bool) or entry["id"] == "":
        raise faults("no 'id' (a text or a number). Give every row its own")
    if entry.get("video"):
        raise faults("the row is about a video, which no model here reads. Drop the row", "video")
    names = entry.get("image") or []
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise faults(f"'image' must be a file name or a list of them, found {str(names)[:60]}")
    messages = [_message(turn, faults) for turn in entry["conversations"]]
    _check_turns([message["role"] for message in messages], faults)
    found = sum(turn["value"].count(PLACEHOLDER) for turn in entry["conversations"])
    if found != len(names):
        raise faults(
            f"{found} {PLACEHOLDER} in the human turns but {len(names)} in the field 'image'. Write one {PLACEHOLDER} "
            "where each image belongs; a text-only row has neither"
        )
    for text in (str(entry["id"]), *names):
        _check_unicode(text, faults)
    return {"id": str(entry["id"]), "images": names, "messages": messages}


def sharegpt_row(entry: dict, position: int, faults: Faults) -> dict:
    """SlimOrca's form: LLaVA's conversations without ids. Their weights are not used in training, here as there."""
    named = {"id": entry.get("id", f"row-{position}"), "conversations": entry.get("conversations")}
    return llava_row(named, position, faults)


def alpaca_row(entry: dict, position: int, faults: Faults) -> dict:
    """An entry `{instruction, input, output}` of an Alpaca file; the input follows the instruction after a newline.

    A blank input and `<noinput>` are no input, as in Alpaca's own code; so is `<noinput>` in quotation marks or with a
    full stop, as some rows of the published file have it. All are counted in `faults.noted`.
    """
    instruction, extra = _field(entry, "instruction", faults), entry.get("input") or ""
    if isinstance(extra, str) and (not extra.strip() or extra.strip(BESIDE_MARKER).lower() == NO_INPUT):
        if extra:
            faults.noted[f"input {extra.strip() or 'blank'} taken for none"] += 1
        extra = ""
    if extra:
        instruction = f"{instruction}\n{_field(entry, 'input', faults)}"
    turns = [("user", instruction), ("assistant", _field(entry, "output", faults))]
    return _text_row(entry.get("id", f"alpaca-{position}"), turns, faults)


def orca_row(entry: dict, position: int, faults: Faults) -> dict:
    """An entry `{id, system_prompt, question, response}` of an Orca file.

    A blank `system_prompt` makes no system turn, so that the conversation template's own stands.
    """
    blank = not entry.get("system_prompt") or str(entry["system_prompt"]).isspace()
    turns = [] if blank else [("system", _field(entry, "system_prompt", faults))]
    turns += [(role, _field(entry, key, faults)) for role, key in (("user", "question"), ("assistant", "response"))]
    return _text_row(entry.get("id", f"orca-{position}"), turns, faults)


def scigraphqa_row(entry: dict, position: int, faults: Faults) -> dict:
    """An entry `{id, image_file, conversations | q_a_pairs: [[question, answer], ...]}` of SciGraphQA.

    `conversations` is taken where both are there. The figure stands before the first question unless the row has a
    placeholder of its own.
    """
    image, turns = entry.get("image_file", entry.get("image")), entry.get("conversations")
    if not isinstance(image, str) or not image:
        raise faults("no 'image_file': name the figure or drop the row")
    if turns is None:
        pairs = entry.get("q_a_pairs")
        if not isinstance(pairs, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
            raise faults("neither 'conversations' nor 'q_a_pairs' (a list of question and answer). Drop the row")
        turns = [{"from": ("human", "gpt")[n], "value": pair[n]} for pair in pairs for n in (0, 1)]
    named = {"id": entry.get("id", f"scigraphqa-{position}"), "image": image, "conversations": _with_image(turns)}
    return llava_row(named, position, faults)


def lrv_row(entry: dict, position: int, faults: Faults) -> dict:
    """An entry `{image_id, question, answer, task}` of LRV-Instruction; its image is Visual Genome's `IMAGE_ID.jpg`.

    Named `lrv-POSITION`: many rows share an image. `task` (`negative`: asks for what is not there) is not kept.
    """
    if not isinstance(entry.get("image_id"), str | int):
        raise faults("no 'image_id' (of Visual Genome). Fill it in or drop the row")
    turns = [{"from": "human", "value": entry.get("question")}, {"from": "gpt", "value": entry.get("answer")}]
    named = {"id": entry.get("id", f"lrv-{position}"), "image": f"{entry['image_id']}.jpg"}
    return llava_row(named | {"conversations": _with_image(turns)}, position, faults)


FORMATS: dict[str, Callable[[dict, int, Faults], dict]] = {
    "llava": llava_row,
    "sharegpt": sharegpt_row,
    "alpaca": alpaca_row,
    "orca": orca_row,
    "scigraphqa": scigraphqa_row,
    "lrv": lrv_row,
}


def parts(value: str) -> list[dict]:
    """Text with `<image>` placeholders as content parts, each image where its placeholder stood."""
    content: list[dict] = []
    for number, text in enumerate(value.split(PLACEHOLDER)):
        if number:
            content.append({"type": "image"})
        if text:
            content.append({"type": "text", "text": text})
    return content


def to_front(value: str) -> str:
    """The text of a turn, its images before all else, a line each; a text without an image is left as it is.

    LLaVA, the paper's code and TinyLLaVA do so before they tokenise (SBT:llava/train/train.py:307-312,
    `preprocess_multimodal`), and read one image a turn; several keep their number here.
    """
    count = value.count(PLACEHOLDER)
    return (f"{PLACEHOLDER}\n" * count + value.replace(PLACEHOLDER, "").strip()).strip() if count else value


def put_images(row: dict, place: str) -> dict:
    """The row with the images of each turn at `place`, one of IMAGE_PLACES; the same object where nothing moves."""
    if place == "as_written" or not row.get("images"):
        return row
    messages = [
        {**turn, "content": parts(to_front(_text(turn)))} if _has_image(turn) else turn for turn in row["messages"]
    ]
    return {**row, "messages": messages}


def check_place(place: object) -> None:
    """ParameterError for what is not one of IMAGE_PLACES."""
    if place not in IMAGE_PLACES:
        raise ParameterError(f"image_place {place!r} is unknown{nearest(str(place), IMAGE_PLACES)}")


def _has_image(message: dict) -> bool:
    return not isinstance(message["content"], str) and any(part["type"] == "image" for part in message["content"])


def _text(message: dict) -> str:
    """A turn as one text, images as their placeholder."""
    return "".join(PLACEHOLDER if part["type"] == "image" else part["text"] for part in message["content"])


def said(row: dict) -> list[tuple[str, str]]:
    """The turns of a row for people: (role, text), line breaks shown as " / ", images as their placeholder."""
    return [(message["role"], _text(message).strip().replace("\n", " / ")) for message in row["messages"]]


def asked(rows: Iterable[dict], count: int) -> list[dict]:
    """The first questions of the first `count` rows with an image: id, image, text, answer."""
    questions = []
    for row in rows:
        if row["images"]:
            start = next(k for k, message in enumerate(row["messages"]) if message["role"] == "user")
            turns = row["messages"][start : start + 2]
            text, answer = ("".join(part.get("text") or "" for part in turn["content"]) for turn in turns)
            one = {"id": row["id"], "image": row["images"][0], "text": text.strip(), "answer": answer.strip()}
            questions.append(one)
        if len(questions) == count:
            break
    return questions


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
    return [
        row | {"images": [], "messages": [_without_image(row["id"], turn) for turn in row["messages"]]} for row in rows
    ]


def _without_image(name: str, message: dict) -> dict:
    if not _has_image(message):
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


def _seen(text: str) -> bool:
    """Whether a text holds anything that a reader sees."""
    return bool(text.strip() and text.translate(UNSEEN).strip())


def _message(turn: object, faults: Faults) -> dict:
    if not isinstance(turn, dict) or not isinstance(turn.get("value"), str) or turn.get("from") not in ROLES:
        raise faults(f"a turn must be {{'from': human|gpt, 'value': text}}, found {str(turn)[:60]}")
    role, value = ROLES[turn["from"]], turn["value"]
    if role != "system" and not _seen(value):
        what = "answer: there is nothing to learn from" if role == "assistant" else "question"
        raise faults(f"empty {what}. Fill it in or drop the row")
    _check_unicode(value, faults)
    for name in OTHER_MEDIA:
        if name in value:
            faults.noted[f"{name} taken for words"] += 1
    if PLACEHOLDER not in value:  # nearly all turns: what follows takes longer
        return {"role": role, "content": [{"type": "text", "text": value}] if value else []}
    if role != "user":
        raise faults(f"{PLACEHOLDER} may stand in human turns only, found one in a turn of {turn['from']!r}")
    return {"role": role, "content": parts(value)}


def _check_turns(roles: Sequence[str], faults: Faults) -> None:
    """Raise unless `roles` (system first or absent) alternate user, assistant and end with an answer."""
    turns = roles[1:] if roles and roles[0] == "system" else roles
    if not turns or turns[-1] != "assistant":
        raise faults("conversation without an answer: the last turn must be from 'gpt'. Add it or drop the row")
    if len(turns) % 2 or set(turns[::2]) != {"user"} or set(turns[1::2]) != {"assistant"}:
        raise faults(f"turns must alternate, human first; found {', '.join(roles)}. Mend or drop the row")


def _check_unicode(text: str, faults: Faults) -> None:
    """Raise for half of a surrogate pair: JSON can spell it (`\\ud800`), but it is no character."""
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError as error:
        half = f"\\u{ord(text[error.start]):04x}"
        words = f"character {error.start} of a text is {half}, half of a surrogate pair: no tokenizer reads it"
        raise faults(f"{words}. Mend or drop the row", "surrogate") from None


def _field(entry: dict, key: str, faults: Faults) -> str:
    value = entry.get(key)
    if not isinstance(value, str):
        raise faults(f"no text in {key!r}: fill it in or drop the row")
    if not _seen(value):
        empty = "empty answer: there is nothing to learn from" if key in ("output", "response") else f"empty {key!r}"
        raise faults(f"{empty}. Fill it in or drop the row")
    return value


def _text_row(name: object, turns: list[tuple[str, str]], faults: Faults) -> dict:
    if any(PLACEHOLDER in text for _, text in turns):
        raise faults(f"the text holds a literal {PLACEHOLDER}, which stands for a picture. Reword it or drop the row")
    for text in (str(name), *(text for _, text in turns)):
        _check_unicode(text, faults)
    messages = [{"role": role, "content": [{"type": "text", "text": text}]} for role, text in turns]
    return {"id": str(name), "images": [], "messages": messages}


def _with_image(turns: object) -> object:
    """Conversation with the placeholder before its first turn, if it has none; left alone where it is malformed."""
    if not isinstance(turns, list) or not all(isinstance(t, dict) and isinstance(t.get("value"), str) for t in turns):
        return turns  # the checks of LLaVA's rows say what is wrong
    if not turns or any(PLACEHOLDER in turn["value"] for turn in turns):
        return turns
    return [{**turns[0], "value": f"{PLACEHOLDER}\n{turns[0]['value']}"}, *turns[1:]]
