"""Image captioning (Chen et al. 2015): one caption a picture against several references, by coco-caption's metrics.

Protocol "standard": the paper's request, greedy decoding, no Java. Protocol "paper": what the authors' code does
beside how it decodes (`SPEC.protocols`). The files: `captions_files`.
"""

import random
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from sbt.benchmarks import check_protocol
from sbt.benchmarks.captions import metric
from sbt.benchmarks.captions.files import ALL, load, train_captions
from sbt.benchmarks.common import controls
from sbt.report import stats
from sbt.utils import checks, paths
from sbt.utils.errors import DataError, ParameterError
from sbt.utils.files import read_json

__all__ = ["PROMPT", "demonstrations", "empty_row", "image_folder", "load", "prompt", "rows", "samples",
           "score", "score_files", "sources"]  # fmt: skip
PROTOCOLS = ("standard", "paper")
PROMPT = "Please provide a description of the picture."  # UCSC-VLAA/Sight-Beyond-Text: llava/eval/mmoverall


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


def demonstrations(path: Path | str, pictures: int, seed: int, count: int = 3) -> list[list[tuple[str, str]]]:
    """The paper's turns before each of some pictures: (request, caption) of training images, drawn with the seed.

    The file: `captions_files.train_captions`. DataError where it has fewer images than one picture takes.
    """
    texts = train_captions(path)
    if len(texts) < count:
        raise DataError(f"{paths.shown(path)}: {count} demonstrations are drawn, but {len(texts)} images have one")
    rng = random.Random(seed)
    return [[(PROMPT, rng.choice(found).strip()) for found in rng.sample(texts, count)] for _ in range(pictures)]


def prompt(item: dict) -> str:
    """The request, the same for every picture."""
    return PROMPT


def image_folder(folder: Path | str, items: Sequence[dict]) -> Path:
    """The folder, if every picture lies in it; one DataError says what is missing and where it belongs."""
    return checks.image_folder(folder, (item["image"] for item in items))


def score(items: Sequence[dict], answers: Sequence[str]) -> dict[str, float | int]:
    """Corpus scores of one caption an item, and n."""
    return {**metric.scores(answers, [item["references"] for item in items]), "n": len(items)}


def _scored(answers: Sequence[str], protocol: str) -> list[str]:
    """The captions as the metric gets them: as they are, or without double quotes, as the authors' code has it."""
    check_protocol(protocol, PROTOCOLS)
    return [answer.replace('"', "") if protocol == "paper" else answer for answer in answers]


def rows(
    items: Sequence[dict], answers: Sequence[str], *, arm: str, subset: str, protocol: str = "standard", seed: int = 0,
    **same,
) -> list[dict]:  # fmt: skip
    """Metric rows: CIDEr (0 to 10) and ROUGE-L with 95 % intervals over pictures, CIDEr's weights kept."""
    references, said = [item["references"] for item in items], _scored(answers, protocol)
    common = {"arm": arm, "benchmark": "captions", "subset": subset, "n": len(items), "protocol": protocol, **same}
    found = []
    for name in ("CIDEr", "ROUGE-L"):
        value, low, high = stats.bootstrap(metric.per_image(said, references, name), seed=seed)
        found.append({"metric": name, "value": value, "low": low, "high": high, **common})
    return found


def empty_row(answers: Sequence[str], *, arm: str, subset: str, protocol: str = "standard", **same) -> dict:
    """Metric row: the share of pictures that got no caption."""
    share = sum(not answer.strip() for answer in answers) / len(answers)
    common = {"arm": arm, "benchmark": "captions", "subset": subset, "n": len(answers), "protocol": protocol, **same}
    return {"metric": "empty", "value": share, "low": None, "high": None, **common}


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
    """Scores of the items about the right picture, items x arms, for paired comparisons."""
    return {"captions CIDEr": controls.by_item([one for one in samples if one["subset"] == "real"], "CIDEr")}


def score_files(answers: Path | str, references: Path | str, protocol: str = "standard") -> dict:
    """Scores of a result file, a list of {image_id, caption}, over its images that have references.

    `image_id` is the references' id or, like the authors' `image_name`, the name of the image file. Under both
    protocols the images with a caption and references are scored, as coco-caption's example does: its 1,000 published
    captions are for a part of the images, and a part of the references suffices to check against its numbers. How many
    images lack the one or the other stands in the result, and the first of them on stderr; `not_available` names what
    did not run here. DataError names the row of a malformed or repeated one, and of an id that is a text where the
    references have that number, or the other way round.
    Protocol "paper": double quotes are taken out of the captions and scores are times 100, as the authors have it
    (UCSC-VLAA/Sight-Beyond-Text: llava/eval/mmoverall/coco_metric.py@47f96a3); the scorers are the same.
    """
    check_protocol(protocol, PROTOCOLS)
    items, name, other = load(Path(references).absolute(), ALL), paths.shown(answers), paths.shown(references)
    said = _results(Path(answers), items)
    scored = [item for item in items if item["id"] in said]
    ids = {str(item["id"]): item["id"] for item in items}
    unknown = {key: number for key, (number, _) in said.items() if ids.get(str(key)) != key}
    if not scored:
        raise DataError(f"{name}: none of its {len(said)} images has references in {other}")
    for key, number in unknown.items():
        if str(key) in ids:
            raise DataError(f"{name}, row {number}: image_id {key!r} is {ids[str(key)]!r} in {other}. Write it so")
    if unknown:
        first = f"the first in row {min(unknown.values())}"
        print(
            f"{name}: {len(unknown)} of {len(said)} captions are of images without references, {first}",
            file=sys.stderr,
        )
    if missing := [item["id"] for item in items if item["id"] not in said]:
        first = f"the first image_id {missing[0]!r}"
        print(f"{name}: {len(missing)} of {len(items)} images of {other} have no caption, {first}", file=sys.stderr)
    told = _scored([said[item["id"]][1] for item in scored], protocol)
    extra = metric.with_java(told, [item["references"] for item in scored])
    found, scale = score(scored, told) | extra, 100 if protocol == "paper" else 1
    return {key: scale * value if isinstance(value, float) else value for key, value in found.items()} | {
        "without_references": len(unknown),
        "without_caption": len(missing),
        "not_available": [key for key in metric.JAVA_METRICS if key not in extra],
    }


def _results(path: Path, items: Sequence[dict]) -> dict[str | int, tuple[int, str]]:
    """(row, caption) of a result file by image, the references' id where it is one of theirs or names its file."""
    results, name = read_json(path), paths.shown(path)
    if not isinstance(results, list) or not results:
        raise DataError(f"{name}: expected a list of {{image_id, caption}}")
    for number, row in enumerate(results, start=1):
        if not isinstance(row, dict) or not isinstance(row.get("caption"), str):
            raise DataError(f"{name}, row {number}: expected {{image_id, caption}}")
    keys = [row.get("image_id", row.get("image_name")) for row in results]
    checks.once(keys, f"{name}, row ", "image_id")
    named = {item["image"]: item["id"] for item in items}
    keys = [named.get(key, key) for key in keys]
    checks.once(keys, f"{name}, row ", "image_id")  # one image may be given by its id and by its name
    return {key: (n, row["caption"]) for n, (key, row) in enumerate(zip(keys, results, strict=True), start=1)}
