"""Reference captions in the forms they are published in; a file's content says which form it has.

COCO annotations (Chen et al. 2015), Karpathy's splits (dataset_coco.json, dataset_flickr30k.json), the authors' list
(UCSC-VLAA/Sight-Beyond-Text: llava/eval/mmoverall/eval_datasets.py@47f96a3), Flickr30k's tokens and tables.
"""

import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from sbt.utils import checks, paths
from sbt.utils.errors import DataError, ParameterError
from sbt.utils.files import read_json, read_text
from sbt.utils.text import nearest

ALL = "all"
# The authors' code looks for COCO_test2014_*, of which there are no captions: theirs are of val2014.
COCO_IMAGE = "COCO_val2014_{:012d}.jpg"
TOKEN = re.compile(r"(?P<image>[^\t\n]+)#\d+\t(?P<caption>.*)")
COLUMNS = {  # of tables, lower case, by what is taken from them
    "image": ("image_name", "image", "filename", "file_name"),
    "caption": ("comment", "caption", "raw"),
    "split": ("split",),
}
UNSPLIT = re.compile(r"\s*\d+\s+(?P<caption>\S.*)")  # one line of Flickr30k's results.csv lacks the second "|"
FORMS = (
    "COCO annotations (an object with lists 'images' and 'annotations'), Karpathy's splits (an object with a list "
    "'images' of {filename, split, sentences}) or a list of {image_name or image_id, captions}"
)


class _Image(NamedTuple):
    id: str | int
    image: str
    references: list[str]
    split: str


def load(path: Path | str, split: str = "") -> list[dict]:
    """Items `id`, `image` (file name without folder), `references`, in file order, of the images that have captions.

    `id` is COCO's number where the file has it, else the file name. `split` is one of those that a file names, as
    "test" of Karpathy's, or "all"; a file that names several wants it said. DataError names file and row or line of
    what is malformed; ParameterError: a split that is not there.
    """
    path = paths.resolve(str(path))
    name = paths.shown(path)
    rows = _of_split(_images(_content(path), name), split, name)
    items = [{"id": row.id, "image": row.image, "references": row.references} for row in rows if row.references]
    if not items:
        raise DataError(f"{name} holds no image with a reference caption")
    return items


def train_captions(path: Path | str) -> list[list[str]]:
    """The captions of each training image, to draw demonstrations from.

    Any form that `load` reads, of which the split "train" is taken where there is one, or LLaVA's file of
    conversations (chat.json of the connector's pretraining), whose first answer is the caption.
    """
    path = paths.resolve(str(path))
    content, name = _content(path), paths.shown(path)
    if isinstance(content, list) and content and isinstance(content[0], dict) and "conversations" in content[0]:
        found = []
        for where, row in checks.listed(content, name):
            turns = [turn for turn in row.get("conversations") or () if isinstance(turn, dict)]
            answer = next((turn for turn in turns if turn.get("from") == "gpt"), None)
            if answer is None:
                raise DataError(f"{where}: no answer among its conversations")
            found.append([_text(answer.get("value"), where)])
        return found
    rows = _images(content, name)
    named = [row for row in rows if row.split == "train"] or rows
    return [row.references for row in named if row.references]


def _content(path: Path) -> object:
    """The value of a JSON file, the text of any other."""
    text = read_text(path)
    return read_json(path) if text.lstrip()[:1] in ("{", "[", "") else text


def _images(content: object, name: str) -> list[_Image]:
    if not isinstance(content, str):
        return _json(content, name)
    found: dict[str, _Image] = {}
    for image, captions, split in _tokens(content, name) if TOKEN.match(content) else _table(content, name):
        found.setdefault(image, _Image(image, image, [], split)).references.extend(captions)
    return list(found.values())


def _of_split(rows: list[_Image], split: str, name: str) -> list[_Image]:
    known = sorted({row.split for row in rows} - {""})
    if split in known:
        return [row for row in rows if row.split == split]
    if split == ALL or not (split or known[1:]):
        return rows
    if not split:
        raise ParameterError(f"{name} holds the splits {', '.join(known)}: set `split` to one of them, or to {ALL!r}")
    told = f"holds {', '.join(known)}" if known else "names no splits: leave `split` empty"
    raise ParameterError(f"{name} has no split {split!r}{nearest(split, known)}: it {told}")


def _text(value: object, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{where}: no caption")
    return value


def _json(content: object, name: str) -> list[_Image]:
    if isinstance(content, list):
        if not content:
            return []
        rows = [_listed(row, where) for where, row in checks.listed(content, name)]
        checks.once((row.image for row in rows), f"{name}, row ", "image")
        checks.once((row.id for row in rows), f"{name}, row ", "image_id")
        return rows
    images = content.get("images") if isinstance(content, dict) else None
    if isinstance(images, list) and isinstance(content.get("annotations"), list):
        return _coco(content, name)
    if not isinstance(images, list) or not any(isinstance(row, dict) and "sentences" in row for row in images):
        raise DataError(f"{name}: expected {FORMS}")
    rows = [_karpathy(row, f"{name}, row {number} of images") for number, row in enumerate(images, start=1)]
    checks.once((row.id for row in rows), f"{name}, row of images ", "id")
    return rows


def _coco(content: dict, name: str) -> list[_Image]:
    for kind, key in (("images", "id"), ("annotations", "image_id")):
        for number, row in enumerate(content[kind], start=1):
            if not isinstance(row, dict) or type(row.get(key)) not in (str, int):
                raise DataError(f"{name}, row {number} of {kind}: no {key}")
            if not isinstance(row.get("file_name", ""), str):
                raise DataError(f"{name}, row {number} of {kind}: file_name must be a text")
    checks.once((row["id"] for row in content["images"]), f"{name}, row of images ", "id")
    found = {row["id"]: _Image(row["id"], row.get("file_name", ""), [], "") for row in content["images"]}
    for number, row in enumerate(content["annotations"], start=1):
        where = f"{name}, row {number} of annotations"
        caption = _text(row.get("caption"), where)
        if row["image_id"] not in found:
            raise DataError(f"{where}: image {row['image_id']!r} is not among 'images'")
        found[row["image_id"]].references.append(caption)
    return list(found.values())


def _karpathy(row: object, where: str) -> _Image:
    for key, kind in (("filename", str), ("split", str), ("sentences", list)):
        if not isinstance(row, dict) or not isinstance(row.get(key), kind):
            raise DataError(f"{where}: no {key}")
    raw = [sentence.get("raw") if isinstance(sentence, dict) else None for sentence in row["sentences"]]
    captions = [_text(text, f"{where}, sentence {number}") for number, text in enumerate(raw, start=1)]
    return _Image(row.get("cocoid", row["filename"]), row["filename"], captions, row["split"])


def _listed(row: dict, where: str) -> _Image:
    captions = row.get("captions")
    if not isinstance(captions, list):
        raise DataError(f"{where}: no list of captions")
    number, image = row.get("image_id"), row.get("image_name")
    if not isinstance(image, str) or not image:
        if type(number) is not int:
            raise DataError(f"{where}: neither image_name nor image_id, a number")
        image = COCO_IMAGE.format(number)
    texts = [_text(caption, f"{where}, caption {place}") for place, caption in enumerate(captions, start=1)]
    return _Image(image if number is None else number, image, texts, "")


def _tokens(text: str, name: str) -> Iterator[tuple[str, list[str], str]]:
    """Image and caption of each line NAME#NUMBER, tab, caption: results_20130124.token."""
    numbered: dict[str, int] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        found = TOKEN.fullmatch(line.rstrip("\r"))
        if not found:
            raise DataError(f"{name}:{number}: expected IMAGE#NUMBER, a tab and the caption, found {line[:40]!r}")
        key = line.split("\t")[0]
        if key in numbered:
            raise DataError(f"{name}:{number}: {key} stands in the file twice, first in line {numbered[key]}")
        numbered[key] = number
        yield found["image"], [_text(found["caption"], f"{name}:{number}")], ""


def _table(text: str, name: str) -> Iterator[tuple[str, list[str], str]]:
    """Image, captions and split of each row of a table with a header, its columns parted by "|" or ","."""
    bars = "|" in text.partition("\n")[0]
    quoting = csv.QUOTE_NONE if bars else csv.QUOTE_MINIMAL  # a quote in a caption stands for itself beside bars
    table = csv.reader(io.StringIO(text, newline=""), delimiter="|" if bars else ",", quoting=quoting)
    header = [column.strip().lower() for column in next(table, [])]
    place = {key: next((header.index(c) for c in names if c in header), None) for key, names in COLUMNS.items()}
    if place["image"] is None or place["caption"] is None:
        either = " and ".join(f"one of {', '.join(COLUMNS[key])}" for key in ("image", "caption"))
        raise DataError(f"{name}:1: expected {FORMS}, lines of IMAGE#NUMBER and a tab, or a header with {either}")
    for row in _rows(table, name):
        where = f"{name}:{table.line_num}"
        if bars and len(row) == len(header) - 1 and (found := UNSPLIT.fullmatch(row[-1])):
            row = [*row[:-1], "", found["caption"]]
        if len(row) != len(header):
            raise DataError(f"{where}: {len(row)} columns, but the header has {len(header)}")
        cell = {key: "" if index is None else row[index].strip() for key, index in place.items()}
        if not cell["image"]:
            raise DataError(f"{where}: no image")
        listed = header[place["caption"]] == "raw"
        captions = _several(cell["caption"], where) if listed else [_text(cell["caption"], where)]
        yield cell["image"], captions, cell["split"]


def _rows(table: Iterator[list[str]], name: str) -> Iterator[list[str]]:
    """The rows of a table that are not blank."""
    try:
        yield from (row for row in table if any(cell.strip() for cell in row))
    except csv.Error as error:
        raise DataError(f"{name}:{table.line_num}: {error}. Is a quote left open?") from None


def _several(text: str, where: str) -> list[str]:
    """Captions of a cell that holds a JSON list of them."""
    try:
        found = json.loads(text)
    except (json.JSONDecodeError, RecursionError):
        found = None
    if not isinstance(found, list):
        raise DataError(f"{where}: expected a JSON list of captions in the column 'raw', found {text[:40]!r}")
    return [_text(caption, where) for caption in found]
