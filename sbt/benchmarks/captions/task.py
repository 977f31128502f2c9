"""Image captioning (Chen et al. 2015): one caption a picture against several references, by coco-caption's metrics.

Protocol "standard": the paper's request, greedy decoding, no Java. Protocol "paper": what the authors' code does
beside how it decodes (`SPEC.protocols`). The files of references: `captions.files`.
"""

import random
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from sbt.benchmarks import check_protocol
from sbt.benchmarks.captions import FILES, SPEC, metric
from sbt.benchmarks.captions.files import ALL, load, train_captions
from sbt.benchmarks.common import answers as answer_files
from sbt.benchmarks.common import controls
from sbt.data import benchmark_files
from sbt.report import stats
from sbt.study.runs import Run
from sbt.utils import paths
from sbt.utils.errors import DataError, ParameterError

__all__ = ["PROMPT", "blind_levels", "demonstrations", "load", "per_item", "prompt", "published", "rows", "samples",
           "score", "score_files", "sources", "subset"]  # fmt: skip
PROMPT = "Please provide a description of the picture."  # UCSC-VLAA/Sight-Beyond-Text: llava/eval/mmoverall
MAIN = "coco"  # the data set whose subsets have no name before them


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

    The file: `captions.files.train_captions`. DataError where it has fewer images than one item takes.
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
