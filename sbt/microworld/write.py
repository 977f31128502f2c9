"""Write the micro-world to disk in the file formats of the real data, so that the same loaders read both.

write(folder, Sizes(), seed=0)   ->   images/  pretrain/  instruct/  text/  eval/
"""

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sbt.microworld import facts, instructions, phrases, text_benchmarks, vision_benchmarks
from sbt.microworld.scenes import HELD_OUT, PAIRS, SEEN, Scene, render, sample
from sbt.utils.errors import ParameterError
from sbt.utils.files import write_json, write_jsonl, write_text
from sbt.utils.text import nearest

FILES = {
    "pretrain": "pretrain/chat.json",
    "instruct": "instruct/llava_instruct.json",
    "alpaca": "text/alpaca.json",
    "orca": "text/orca.jsonl",
    "instruct_val": "eval/instruct_val.json",
    "captions": "eval/captions.json",
    "flickr30k": "eval/flickr30k/results_20130124.token",
    "pope_random": "eval/pope_random.json",
    "pope_popular": "eval/pope_popular.json",
    "pope_adversarial": "eval/pope_adversarial.json",
    "pope_heldout": "eval/pope_heldout.json",
    "truthfulqa": "eval/mc_task.json",
    **text_benchmarks.FILES,
    **vision_benchmarks.FILES,
}


@dataclass(frozen=True)
class Sizes:
    """How many records of each kind; `share` is the mix of LLaVA's three instruction types."""

    pretrain: int = 1200
    instruct: int = 3600
    instruct_images: int = 1800
    captions: int = 120
    pope: int = 80  # images, six questions each
    heldout: int = 60  # images that show a held-out pair
    share: tuple[float, float, float] = (0.6, 0.15, 0.25)  # conversation, detail, reasoning
    style: str = "mixed"  # of the instructions' answers, one of instructions.STYLES

    def __post_init__(self) -> None:
        if self.style not in instructions.STYLES:
            raise ParameterError(f"style {self.style!r} is unknown{nearest(str(self.style), instructions.STYLES)}")


def scenes_of(split: str, count: int, seed: int, **limits) -> dict[str, Scene]:
    """File name -> scene, each from its own seed, so that a split does not depend on the size of another."""
    pairs = limits.pop("pairs", SEEN)
    return {
        f"{split}_{index:06d}.png": sample(random.Random(f"{seed} {split} {index}"), pairs, **limits)
        for index in range(count)
    }


def pretrain_rows(pictures: dict[str, Scene], seed: int) -> list[dict]:
    """LLaVA's `chat.json`: a request for a brief description, answered by one caption."""
    rows = []
    for name, scene in pictures.items():
        rng = random.Random(f"{seed} chat {name}")
        turns = [(rng.choice(instructions.BRIEF), phrases.caption(scene, rng))]
        rows.append(instructions.llava_row(Path(name).stem, name, turns, rng))
    return rows


def instruct_rows(
    pictures: dict[str, Scene], count: int, share: tuple, seed: int, name: str = "instruct", style: str = "mixed"
) -> list[dict]:
    """LLaVA's instruction file: conversation, detail and complex reasoning over the same pictures."""
    names = sorted(pictures)
    rows = []
    for index in range(count):
        rng = random.Random(f"{seed} {name} {index}")
        picture = names[index % len(names)]
        kind = rng.choices(("conversation", "detail", "reasoning"), share)[0]
        turns = instructions.visual(kind, pictures[picture], rng, style)
        rows.append(instructions.llava_row(f"{kind}_{index:06d}", picture, turns, rng))
    return rows


def coco_captions(pictures: dict[str, Scene], seed: int) -> dict:
    """COCO annotations: five references an image."""
    images, annotations = [], []
    for number, (name, scene) in enumerate(pictures.items(), 1):
        rng = random.Random(f"{seed} references {name}")
        images.append({"id": number, "file_name": name, "height": 224, "width": 224})
        for _ in range(5):
            text = phrases.caption(scene, rng)
            annotations.append({"id": len(annotations) + 1, "image_id": number, "caption": text})
    info = {"description": "micro-world captions", "version": "1.0"}
    return {"info": info, "licenses": [], "images": images, "annotations": annotations}


def flickr_lines(pictures: dict[str, Scene], seed: int) -> list[str]:
    """Flickr30k's token file: five captions an image, a blank before the full stop as there."""
    lines = []
    for name, scene in pictures.items():
        rng = random.Random(f"{seed} flickr30k {name}")
        lines += [f"{name}#{k}\t{phrases.caption(scene, rng).removesuffix('.')} ." for k in range(5)]
    return lines


def pope_rows(pictures: dict[str, Scene], sampling: str, seed: int, questions: int = 3) -> list[dict]:
    """POPE questions by the official rules (AoiDragon/POPE: questions_generator), three yes and three no an image.

    An object is a colour-shape pair. `sampling` chooses the absent ones: any (`random`), the most frequent of the data
    set (`popular`), or those seen most often together with the objects of this image (`adversarial`).
    """
    frequency = Counter(thing.pair for scene in pictures.values() for thing in scene.things)
    together = Counter()
    for scene in pictures.values():
        together.update((a.pair, b.pair) for a in scene.things for b in scene.things if a is not b)
    rows = []
    for name, scene in pictures.items():
        rng = random.Random(f"{seed} pope {name}")
        there = rng.sample([thing.pair for thing in scene.things], questions)
        missing = [pair for pair in SEEN if not scene.has(pair)]
        if sampling == "random":
            absent = rng.sample(missing, questions)
        elif sampling == "popular":
            absent = sorted(missing, key=lambda pair: -frequency[pair])[:questions]
        else:
            absent = sorted(missing, key=lambda pair: -sum(together[t.pair, pair] for t in scene.things))[:questions]
        rows += _pope(name, there, absent, len(rows))
    return rows


def heldout_rows(pictures: dict[str, Scene], seed: int) -> list[dict]:
    """POPE questions about held-out pairs only: one that is there and one that is not, for every picture."""
    rows = []
    for name, scene in pictures.items():
        rng = random.Random(f"{seed} heldout {name}")
        there = rng.choice([thing.pair for thing in scene.things if thing.pair in HELD_OUT])
        absent = rng.choice([pair for pair in HELD_OUT if not scene.has(pair)])
        rows += _pope(name, [there], [absent], len(rows))
    return rows


def _pope(name: str, there: list[tuple[str, str]], absent: list[tuple[str, str]], asked_before: int) -> list[dict]:
    """The questions about one image, yes and no in turn, numbered on from those asked before."""
    asked = [one for yes, no in zip(there, absent, strict=True) for one in ((yes, "yes"), (no, "no"))]
    return [
        {"question_id": number, "image": name, "text": phrases.existence_question(pair), "label": label}
        for number, (pair, label) in enumerate(asked, asked_before + 1)
    ]


def write(folder: Path, sizes: Sizes, seed: int, progress: Callable | None = None) -> dict[str, int]:
    """Write the whole world below `folder`; returns the records per file. What is there already is kept."""
    train = scenes_of("train", sizes.instruct_images, seed)
    pretrain = scenes_of("pretrain", sizes.pretrain, seed)
    val = scenes_of("val", sizes.captions, seed)
    pope = scenes_of("pope", sizes.pope, seed, least=3)
    showing = {f"heldout_{i:06d}.png": _showing_held_out(i, seed) for i in range(sizes.heldout)}
    pictures = train | pretrain | val | pope | showing
    drawings = {name: partial(render, scene) for name, scene in pictures.items()}
    vision_benchmarks.draw(folder / "images", drawings, progress)
    numbers = range(sizes.instruct)
    rows = {
        "pretrain": pretrain_rows(pretrain, seed),
        "instruct": instruct_rows(train, sizes.instruct, sizes.share, seed, style=sizes.style),
        "alpaca": [instructions.alpaca_row(random.Random(f"{seed} alpaca {i}")) for i in numbers],
        "orca": [instructions.orca_row(f"orca_{i:06d}", random.Random(f"{seed} orca {i}")) for i in numbers],
        "instruct_val": instruct_rows(val, sizes.captions, sizes.share, seed, "instruct_val"),
        "captions": coco_captions(val, seed),
        **{f"pope_{kind}": pope_rows(pope, kind, seed) for kind in ("random", "popular", "adversarial")},
        "pope_heldout": heldout_rows(showing, seed),
        "truthfulqa": facts.multiple_choice(),
    }
    for name, content in rows.items():
        lines = name.startswith("pope") or FILES[name].endswith(".jsonl")
        (write_jsonl if lines else write_json)(folder / FILES[name], content)
    fuller = dict(list(pope.items())[: sizes.pope // 2])  # a second set of captions, for pictures of more objects
    write_text(folder / FILES["flickr30k"], "\n".join(flickr_lines(fuller, seed)) + "\n")
    rows["flickr30k"] = fuller
    records = {name: len(content["images"] if name == "captions" else content) for name, content in rows.items()}
    counts = {name: records[name] for name in FILES if name in records}
    return counts | text_benchmarks.write(folder, seed) | vision_benchmarks.write(folder, seed, progress=progress)


def _showing_held_out(index: int, seed: int) -> Scene:
    """A scene of two or more objects with at least one held-out pair."""
    rng = random.Random(f"{seed} heldout {index}")
    while True:
        scene = sample(rng, PAIRS, least=2)
        if any(thing.pair in HELD_OUT for thing in scene.things):
            return scene
