"""Line drawings of scenes: the outlines of the objects in black ink on white, drawn by a hand that is not steady.

sketch(scene)   ->   a grey picture      sketch(scene, hard=True)   ->   thinner, rubbed out in part, among scribbles
"""

import math
import random

from PIL import Image, ImageDraw

from sbt.microworld.scenes import SIZES, Scene, corners

SCALE = 3  # drawn larger and shrunk, as scenes.render does
Points = list[tuple[float, float]]


def even(points: Points, step: float) -> Points:
    """Points about `step` apart along the line through `points`, its last one left out."""
    found = []
    for (x, y), (u, v) in zip(points, points[1:], strict=False):
        count = max(1, round(math.hypot(u - x, v - y) / step))
        found += [(x + (u - x) * k / count, y + (v - y) * k / count) for k in range(count)]
    return found


def wobbled(points: Points, rng: random.Random, far: float, waves: int) -> Points:
    """A closed line with slow waves in it, at most `far` in x and in y."""
    axes = []
    for _ in "xy":
        terms = [(k, rng.uniform(0, 2 * math.pi), rng.uniform(0.4, 1.0) / math.sqrt(k)) for k in range(1, waves + 1)]
        top = sum(weight for _, _, weight in terms)
        turns = [2 * math.pi * n / len(points) for n in range(len(points))]
        axes.append([far / top * sum(w * math.sin(k * turn + p) for k, p, w in terms) for turn in turns])
    return [(x + dx, y + dy) for (x, y), dx, dy in zip(points, *axes, strict=True)]


def sketch(scene: Scene, size: int = 224, hard: bool = False) -> Image.Image:
    """The outlines of the scene's objects, as a grey image (mode L) of `size` x `size` pixels; deterministic.

    `hard`: a thinner pen, parts of every outline rubbed out, and scribbles where no object stands.
    """
    rng, side = random.Random(f"{scene.seed} sketch {hard}"), size * SCALE
    image, cell, pen = Image.new("L", (side, side), 255), side / 3, (0.65 if hard else 1.3) * SCALE
    draw = ImageDraw.Draw(image)
    for thing in scene.things:
        radius = SIZES[thing.size] * cell * 0.93  # room for the wobble
        ends = corners(thing.shape, radius, rng.uniform(-0.14, 0.14))
        points = wobbled(even([*ends, ends[0]], 1.0), rng, radius * 0.075, 5)
        x, y = ((place + rng.uniform(0.47, 0.53)) * cell for place in (thing.cell % 3, thing.cell // 3))
        begin = rng.randrange(len(points))
        line = [(x + px, y + py) for px, py in points[begin:] + points[:begin]]
        miss = rng.uniform(-0.05, 0.05) * radius  # a hand does not meet the point it began at, and draws past it
        line += [(px + miss, py + miss) for px, py in line[: len(line) // 25]]
        _ink(draw, line, pen, rng, gaps=3 if hard else 0)
    if hard:
        free = sorted(set(range(9)) - {thing.cell for thing in scene.things})
        for place in rng.sample(free, 3):
            _scribble(draw, ((place % 3 + 0.5) * cell, (place // 3 + 0.5) * cell), cell, pen, rng)
    return image.resize((size, size), Image.Resampling.BOX)


def _ink(draw: ImageDraw.ImageDraw, line: Points, pen: float, rng: random.Random, gaps: int = 0) -> None:
    """A stroke whose width breathes, with a third of it rubbed out in `gaps` places."""
    phase, long = rng.uniform(0, 2 * math.pi), len(line)
    wide = 0.33 / max(1, gaps)
    starts = [(k + rng.uniform(0.1, 0.5)) / gaps for k in range(gaps)]
    for n, (x, y) in enumerate(line):
        share = n / long
        if any(start <= share < start + wide for start in starts):
            continue
        r = pen * (1 + 0.22 * math.sin(phase + 9 * share) + 0.1 * math.sin(31 * share))
        draw.ellipse([x - r, y - r, x + r, y + r], fill=0)


def _scribble(draw: ImageDraw.ImageDraw, middle: tuple, cell: float, pen: float, rng: random.Random) -> None:
    """A zigzag, a wave or a few loose strokes: open lines that are none of the six shapes."""
    kind, turn, far = rng.randrange(3), rng.uniform(0, math.pi), rng.uniform(0.22, 0.34) * cell
    if kind == 2:
        for k in (-1, 0, 1):
            height, bend = k * far * 0.5, rng.uniform(-0.3, 0.3) * far
            stroke = [(-far, height), (0.0, height + bend), (far * rng.uniform(0.4, 1.0), height)]
            _ink(draw, _at(even(stroke, 1.0), middle, turn), pen, rng)
        return
    if kind == 0:
        line = [(far * (k / 4 - 1), far * rng.uniform(0.3, 0.6) * (-1) ** k) for k in range(9)]
    else:
        line = [(far * (k / 40 - 1), far * 0.45 * math.sin(k / 40 * 3 * math.pi) * (1 - k / 160)) for k in range(81)]
    _ink(draw, _at(even(line, 1.0), middle, turn), pen, rng)


def _at(points: Points, middle: tuple, turn: float) -> Points:
    cos, sin = math.cos(turn), math.sin(turn)
    return [(middle[0] + x * cos - y * sin, middle[1] + x * sin + y * cos) for x, y in points]
