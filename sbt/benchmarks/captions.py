"""Image captioning on COCO-format references (Chen et al. 2015): {images, annotations}.

Protocol "standard": the paper's request, greedy decoding, coco-caption's metrics without Java.
"""

from collections.abc import Sequence
from pathlib import Path

from sbt import paths, stats
from sbt.benchmarks import check_protocol, inputs
from sbt.errors import DataError
from sbt.files import read_json
from sbt.metrics import captions as metric

PROMPT = "Please provide a description of the picture."  # UCSC-VLAA/Sight-Beyond-Text: llava/eval/mmoverall


def load(path: Path | str) -> list[dict]:
    """Items `id`, `image` (file name), `references`, in file order, of the images that have reference captions."""
    path = paths.resolve(str(path))
    content, name = read_json(path), paths.shown(path)
    if not isinstance(content, dict) or not all(isinstance(content.get(k), list) for k in ("images", "annotations")):
        raise DataError(f"{name}: expected COCO annotations, an object with lists 'images' and 'annotations'")
    for kind, key in (("images", "id"), ("annotations", "image_id")):
        for number, row in enumerate(content[kind], start=1):
            if not isinstance(row, dict) or not isinstance(row.get(key), str | int):
                raise DataError(f"{name}, row {number} of {kind}: no {key}")
    inputs.once((row["id"] for row in content["images"]), f"{name}, row of images ", "id")
    texts: dict[object, list[str]] = {row["id"]: [] for row in content["images"]}
    for number, row in enumerate(content["annotations"], start=1):
        if not isinstance(row.get("caption"), str) or not row["caption"].strip():
            raise DataError(f"{name}, row {number} of annotations: no caption")
        if row["image_id"] not in texts:
            raise DataError(f"{name}, row {number} of annotations: image {row['image_id']!r} is not among 'images'")
        texts[row["image_id"]].append(row["caption"])
    named = {row["id"]: row.get("file_name", "") for row in content["images"]}
    items = [{"id": key, "image": named[key], "references": found} for key, found in texts.items() if found]
    if not items:
        raise DataError(f"{name} holds no image with a reference caption")
    return items


def prompt(item: dict) -> str:
    """The request, the same for every picture."""
    return PROMPT


def image_folder(folder: Path | str, items: Sequence[dict]) -> Path:
    """The folder, if every picture lies in it; one DataError says what is missing and where it belongs."""
    return inputs.image_folder(folder, (item["image"] for item in items))


def score(items: Sequence[dict], answers: Sequence[str]) -> dict[str, float | int]:
    """Corpus scores of one caption an item, and n."""
    return {**metric.scores(answers, [item["references"] for item in items]), "n": len(items)}


def rows(items: Sequence[dict], answers: Sequence[str], *, arm: str, subset: str, seed: int = 0, **same) -> list[dict]:
    """Metric rows: CIDEr and ROUGE-L with 95 % intervals over pictures, CIDEr's weights kept."""
    references = [item["references"] for item in items]
    common = {"arm": arm, "benchmark": "captions", "subset": subset, "n": len(items), **same}
    found = []
    for name in ("CIDEr", "ROUGE-L"):
        value, low, high = stats.bootstrap(metric.per_image(answers, references, name), seed=seed)
        found.append({"metric": name, "value": value, "low": low, "high": high, **common})
    return found


def samples(items: Sequence[dict], answers: Sequence[str], *, arm: str, subset: str) -> list[dict]:
    """One record an item: the caption, its references, its CIDEr."""
    values = metric.per_image(answers, [item["references"] for item in items], "CIDEr")
    return [
        {"arm": arm, "subset": subset, "image": item["image"], "prompt": prompt(item), "answer": answer}
        | {"references": item["references"], "CIDEr": value}
        for item, answer, value in zip(items, answers, values, strict=True)
    ]


def score_files(answers: Path | str, references: Path | str, protocol: str = "standard") -> dict:
    """Scores of a COCO result file, a list of {image_id, caption}, over its images that have references.

    Reports how many of its images have none, how many with references lack a caption, and what did not run here.
    Protocol "paper": double quotes are taken out of the captions and scores are times 100, as the authors have it
    (UCSC-VLAA/Sight-Beyond-Text: llava/eval/mmoverall/coco_metric.py@47f96a3); the scorers are the same.
    """
    check_protocol(protocol, ("standard", "paper"))
    paper = protocol == "paper"
    items, name = load(Path(references).absolute()), paths.shown(answers)
    results = read_json(Path(answers))
    if not isinstance(results, list) or not results:
        raise DataError(f"{name}: expected a list of {{image_id, caption}}")
    for number, row in enumerate(results, start=1):
        if not isinstance(row, dict) or not isinstance(row.get("caption"), str):
            raise DataError(f"{name}, row {number}: expected {{image_id, caption}}")
    inputs.once((row.get("image_id") for row in results), f"{name}, row ", "image_id")
    said = {row["image_id"]: row["caption"] for row in results}
    scored = [item for item in items if item["id"] in said]
    if not scored:
        raise DataError(f"{name}: none of its {len(said)} images has references in {paths.shown(references)}")
    told = [said[item["id"]].replace('"', "") if paper else said[item["id"]] for item in scored]
    extra = metric.with_java(told, [item["references"] for item in scored])
    found = score(scored, told) | extra
    return {name: 100 * value if paper and isinstance(value, float) else value for name, value in found.items()} | {
        "without_references": len(said) - len(scored),
        "without_caption": len(items) - len(scored),
        "not_available": [name for name in metric.JAVA_METRICS if name not in extra],
    }
