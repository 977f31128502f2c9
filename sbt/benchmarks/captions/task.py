"""Image captioning (Chen et al. 2015): one caption a picture against several references, by coco-caption's metrics.

Protocol "standard": the paper's request, greedy decoding, no Java. Protocol "paper": what the authors' code does
beside how it decodes (`SPEC.protocols`). A file's content says in which of the published forms its references are:
COCO annotations, Karpathy's splits (dataset_coco.json, dataset_flickr30k.json), the authors' list
(UCSC-VLAA/Sight-Beyond-Text: llava/eval/mmoverall/eval_datasets.py@47f96a3), Flickr30k's tokens and tables.
"""

import csv
import io
import json
import random
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from sbt.benchmarks import check_protocol
from sbt.benchmarks.captions import FILES, SPEC, metric
from sbt.benchmarks.common import answers as answer_files
from sbt.benchmarks.common import controls
from sbt.data import benchmark_files
from sbt.report import stats
from sbt.study.runs import Run
from sbt.utils import checks, paths
from sbt.utils.errors import DataError, ParameterError
from sbt.utils.files import read_json, read_text
from sbt.utils.text import nearest

PROMPT = "Please provide a description of the picture."  # UCSC-VLAA/Sight-Beyond-Text: llava/eval/mmoverall
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
MAIN = "coco"  # the data set whose subsets have no name before them


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


def sources(world: Path | None, references: str, images: str, split: str, flickr: dict) -> dict[str, dict]:
    """{references, images, split} of the data sets "coco" and "flickr30k": the files named, else the micro-world's.

    `world` is the micro-world's folder, None where the first data set is named. ParameterError: `flickr` has an
    unknown key, or lacks one of the first two.
    """
    if world:
        files = {"coco": "captions.json", "flickr30k": "flickr30k/results_20130124.token"}
        own = {name: {"references": world / "eval" / file, "images": world / "images"} for name, file in files.items()}
    else:
        own = {"coco": {"references": references, "images": images, "split": split}}
    if flickr:
        if not {"references", "images"} <= flickr.keys() <= {"references", "images", "split"}:
            raise ParameterError(f"flickr takes references, images and perhaps split, not {', '.join(flickr)}")
        own["flickr30k"] = flickr
    return {name: {"split": "", **source} for name, source in own.items()}


def published(run: Run) -> dict[str, dict]:
    """`sources` as a run's parameters name them, with the published files where they say "hub"."""
    p = run.p
    own = sources(None if p.references else run.upstream(p.data), p.references, p.images, p.split, p.flickr)
    return benchmark_files.captions(own, FILES, run.progress)


def demonstrations(path: Path | str, items: Sequence[dict], seed: int, count: int = 3) -> list[dict]:
    """The items with the paper's turns before each: (request, caption) of training images, drawn with the seed.

    The file: `train_captions`. DataError where it has fewer images than one item takes.
    """
    texts = train_captions(path)
    if len(texts) < count:
        raise DataError(f"{paths.shown(path)}: {count} demonstrations are drawn, but {len(texts)} images have one")
    rng = random.Random(seed)
    turns = [[(PROMPT, rng.choice(captions).strip()) for captions in rng.sample(texts, count)] for _ in items]
    return [{**item, "demonstrations": before} for item, before in zip(items, turns, strict=True)]


def subset(part: str, condition: str) -> str:
    """What metric rows of a data set are called: COCO's by the condition alone, others "flickr30k, real"."""
    return condition if part == MAIN else f"{part}, {condition}"


def prompt(item: dict, protocol: str = "standard") -> str:
    """The request, the same for every picture."""
    return PROMPT


def blind_levels(items: Mapping[str, Sequence[dict]], seed: int) -> dict[str, float]:
    """CIDEr, by task ("all" for COCO), of a person's words about another picture."""
    words = {name: controls.others(part, seed) for name, part in items.items()}
    return {"all" if name == MAIN else name: score(part, words[name])["CIDEr"] for name, part in items.items()}


def score(items: Sequence[dict], answers: Sequence[str]) -> dict[str, float | int]:
    """Corpus scores of one caption an item, and n. A single picture has no CIDEr but 0, which is said on stderr."""
    if len(items) == 1:
        print("CIDEr of a single picture is 0: its weights are of the pictures scored together", file=sys.stderr)
    if mute := [item["image"] for item in items if not any(re.search(r"\w", text) for text in item["references"])]:
        told = f"{len(mute)} of {len(items)} images have references without a word, the first {mute[0]!r}"
        print(f"{told}: whatever is said of them scores 0", file=sys.stderr)
    return {**metric.scores(answers, [item["references"] for item in items]), "n": len(items)}


def _scored(answers: Sequence[str], protocol: str) -> list[str]:
    """The captions as the metric gets them: as they are, or without double quotes, as the authors' code has it."""
    check_protocol(protocol, SPEC.protocols)
    return [answer.replace('"', "") if protocol == "paper" else answer for answer in answers]


def rows(
    items: Sequence[dict], answers: Sequence[str], *, arm: str, subset: str, protocol: str = "standard", seed: int = 0,
    **same,
) -> list[dict]:  # fmt: skip
    """Metric rows: CIDEr (0 to 10) and ROUGE-L with 95 % intervals over pictures, CIDEr's weights kept.

    And `empty`, the share of pictures that got no caption.
    """
    references, said = [item["references"] for item in items], _scored(answers, protocol)
    common = {"arm": arm, "benchmark": "captions", "subset": subset, "protocol": protocol, **same}
    found = [
        stats.metric_row(metric.per_image(said, references, name), seed=seed, metric=name, **common)
        for name in ("CIDEr", "ROUGE-L")
    ]
    empty = sum(not answer.strip() for answer in answers) / len(answers)
    return [*found, {"metric": "empty", "value": empty, "low": None, "high": None, "n": len(items), **common}]


def samples(
    items: Sequence[dict], answers: Sequence[str], *, arm: str, subset: str, protocol: str = "standard"
) -> list[dict]:
    """One record an item: the caption, its references, its CIDEr."""
    values = metric.per_image(_scored(answers, protocol), [item["references"] for item in items], "CIDEr")
    return [
        {"arm": arm, "subset": subset, "image": item["image"], "prompt": prompt(item), "answer": answer}
        | {"references": item["references"], "CIDEr": value}
        for item, answer, value in zip(items, answers, values, strict=True)
    ]


def per_item(samples: Sequence[dict]) -> dict[str, pd.DataFrame]:
    """CIDEr of COCO's pictures, items x arms, for paired comparisons."""
    return {"captions CIDEr": controls.by_item([one for one in samples if one["subset"] == "real"], "CIDEr")}


def score_files(answers: Path | str, references: Path | str, protocol: str = "standard") -> dict:
    """Scores of a result file (`common.answers`), {image_id, caption}, over its images that have references.

    `image_id` is the references' id or, like the authors' `image_name`, the name of the image file. Under both
    protocols the images with a caption and references are scored, as coco-caption's example does: its 1,000 published
    captions are for a part of the images, and a part of the references suffices to check against its numbers. How many
    images lack the one or the other stands in the result, and the first of them on stderr; `not_available` names what
    did not run here. DataError names the row of a malformed or repeated one.
    Protocol "paper": double quotes are taken out of the captions and scores are times 100, as the authors have it
    (UCSC-VLAA/Sight-Beyond-Text: llava/eval/mmoverall/coco_metric.py@47f96a3); the scorers are the same.
    """
    check_protocol(protocol, SPEC.protocols)
    items, name, other = load(Path(references).absolute(), ALL), paths.shown(answers), paths.shown(references)
    rows, names = answer_files.read(answers), {item["image"]: item["id"] for item in items}
    captions = {where: answer_files.text((where, row), ("caption", *answer_files.TEXTS)) for where, row in rows}
    known = [item["id"] for item in items]
    said, unknown = answer_files.by_id(rows, ("image_id", "image_name", "question_id"), known, names)
    if not said:
        answer_files.refuse_unknown(unknown, "image_id", known, f" or {items[0]['image']!r}")
        raise DataError(f"{name} holds no caption")
    scored = [item for item in items if item["id"] in said]
    missing = [item["id"] for item in items if item["id"] not in said]
    if unknown:
        (given, (where, _)), *_ = unknown
        first = f"the first, {given!r}, in {where.removeprefix(name).lstrip(',: ')}"
        lost = f"{len(unknown)} of {len(rows)} captions are of images without references"
        print(f"{name}: {lost}, {first}", file=sys.stderr)
    if missing:
        lost = f"{len(missing)} of {len(items)} images of {other} have no caption"
        print(f"{name}: {lost}, the first image_id {missing[0]!r}", file=sys.stderr)
    kept = _scored([captions[said[item["id"]][0]] for item in scored], protocol)
    extra = metric.with_java(kept, [item["references"] for item in scored])
    found, scale = score(scored, kept) | extra, 100 if protocol == "paper" else 1
    return {key: scale * value if isinstance(value, float) else value for key, value in found.items()} | {
        "without_references": len(unknown),
        "without_caption": len(missing),
        "not_available": [key for key in metric.JAVA_METRICS if key not in extra],
    }
