"""The vision benchmarks in the micro-world: pictures of scenes and questions in exactly the publishers' file formats.

write(folder, seed)   ->   eval/mme/  eval/vqav2/  eval/unicorn/ as FILES names them, and their pictures in images/
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from PIL import Image

from sbt.microworld import mme_items, unicorn_items, vqa_items
from sbt.microworld.ood_images import odd
from sbt.microworld.scenes import Scene, render
from sbt.microworld.sketches import sketch
from sbt.utils.files import write_json, write_text

Drawing = Callable[[], Image.Image]
FILES = {
    **{f"mme_{task}": f"eval/mme/{task}.txt" for task in mme_items.TASKS},
    "vqav2_questions": "eval/vqav2/questions.json",
    "vqav2_annotations": "eval/vqav2/annotations.json",
    "oodcv-vqa": "eval/unicorn/oodcv-vqa.json",
    "oodcv-counterfactual": "eval/unicorn/oodcv-counterfactual.json",
    "sketchy-vqa": "eval/unicorn/sketchy-vqa.json",
    "sketchy-challenging": "eval/unicorn/sketchy-challenging.json",
}
SIZE = 224
SAVED = {".png": {"format": "PNG"}, ".jpg": {"format": "JPEG", "quality": 95}}


@dataclass(frozen=True)
class Sizes:
    """How much of each benchmark."""

    mme: int = 15  # pictures a task, two questions each
    vqav2: int = 40  # pictures, three questions each
    unicorn: int = 60  # questions a task
    oodcv: int = 48  # pictures of both OODCV tasks; the questions above their number are second ones


def _all(sizes: Sizes, seed: int) -> tuple[dict[str, Drawing], dict[str, list[dict] | dict]]:
    """How every picture is drawn, by its name, and the contents of every file."""
    plain: dict[str, Scene] = {}
    contents: dict[str, list[dict] | dict] = {}
    for task in mme_items.TASKS:
        pictures, contents[f"mme_{task}"] = mme_items.mme(task, sizes.mme, seed)
        plain |= pictures
    pictures, contents["vqav2_questions"], contents["vqav2_annotations"] = vqa_items.vqav2(sizes.vqav2, seed)
    drawings = {name: partial(render, scene, SIZE) for name, scene in (plain | pictures).items()}
    scenes = unicorn_items.pictures(sizes.oodcv, seed)
    for index, (name, scene) in enumerate(scenes.items()):
        drawings[name] = partial(odd, scene, unicorn_items.situation(index), SIZE)
    contents["oodcv-vqa"] = unicorn_items.oodcv(sizes.unicorn, scenes, seed)
    contents["oodcv-counterfactual"] = unicorn_items.counterfactual(sizes.unicorn, scenes, seed)
    for task, hard in (("sketchy-vqa", False), ("sketchy-challenging", True)):
        pictures, contents[task] = unicorn_items.sketchy(sizes.unicorn, hard, seed)
        drawings |= {name: partial(sketch, scene, SIZE, hard) for name, scene in pictures.items()}
    return drawings, contents


def _draw(job: tuple[Path, Drawing]) -> None:
    """Draw one picture to its file, whole or not at all."""
    path, drawing = job
    part = path.with_name(f"{path.name}.part")
    drawing().save(part, **SAVED[path.suffix])
    os.replace(part, path)


def draw(folder: Path, drawings: dict[str, Drawing], progress: Callable | None = None) -> None:
    """Draw the pictures that are not there yet, on all cores."""
    folder.mkdir(parents=True, exist_ok=True)
    jobs = [(folder / name, drawing) for name, drawing in drawings.items() if not (folder / name).exists()]
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # threads: PIL draws, shrinks and encodes outside the GIL
        for done, _ in enumerate(pool.map(_draw, jobs), 1):
            if progress:
                progress(done, len(jobs))


def write(folder: Path, seed: int, sizes: Sizes | None = None, progress: Callable | None = None) -> dict[str, int]:
    """Write all the files below the world's folder, and the pictures that are not there yet; returns their questions.

    `progress(done, of)` hears of every picture.
    """
    drawings, contents = _all(sizes or Sizes(), seed)
    draw(folder / "images", drawings, progress)
    counts = {}
    for name, content in contents.items():
        if name.startswith("mme_"):  # image, question, label with tabs between: the layout of MME's eval_tool
            write_text(folder / FILES[name], "".join("\t".join(row.values()) + "\n" for row in content))
        else:
            write_json(folder / FILES[name], content)
        counts[name] = len(content[name.split("_")[1]] if name.startswith("vqav2") else content)
    return counts
