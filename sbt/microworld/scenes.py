"""The micro-world's pictures: seeded scenes of one to four coloured shapes, and how they are drawn.

`sample(rng)` invents a scene, `render(scene, size)` draws it. A scene is a 3 x 3 grid with at most one object a cell.
"""

import math
import random
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFilter

COLOURS = {
    "red": (214, 48, 49),
    "green": (39, 160, 84),
    "blue": (41, 98, 210),
    "yellow": (245, 200, 32),
    "purple": (132, 60, 180),
    "orange": (238, 122, 28),
}
SHAPES = ("circle", "square", "triangle", "star", "cross", "heart")
SIZES = {"small": 0.30, "large": 0.43}  # radius as a share of the cell's side
POSITIONS = ("top left", "top", "top right", "left", "center", "right", "bottom left", "bottom", "bottom right")
PAIRS = tuple((colour, shape) for colour in COLOURS for shape in SHAPES)
# Never in any instruction, always in pretraining: what a tuned arm knows of them it has generalised to.
HELD_OUT = tuple(zip(COLOURS, ("heart", "star", "cross", "triangle", "square", "circle"), strict=True))
SEEN = tuple(pair for pair in PAIRS if pair not in HELD_OUT)


def plural(shape: str) -> str:
    return "crosses" if shape == "cross" else f"{shape}s"


@dataclass(frozen=True)
class Thing:
    """One object: its colour, shape and size, and the grid cell (0-8, row by row) it stands in."""

    colour: str
    shape: str
    size: str
    cell: int

    @property
    def pair(self) -> tuple[str, str]:
        return self.colour, self.shape

    @property
    def name(self) -> str:
        return f"{self.colour} {self.shape}"

    @property
    def position(self) -> str:
        return POSITIONS[self.cell]


@dataclass(frozen=True)
class Scene:
    """Objects in reading order; `seed` fixes the drawing's small irregularities."""

    things: tuple[Thing, ...]
    seed: int

    def has(self, pair: tuple[str, str]) -> bool:
        return any(thing.pair == pair for thing in self.things)

    def nearness(self, pair: tuple[str, str]) -> str:
        """Whether the pair is "there", shares its colour or its shape with an object ("near"), or neither ("far")."""
        shared = max((pair[0] == thing.colour) + (pair[1] == thing.shape) for thing in self.things)
        return ("far", "near", "there")[shared]

    @property
    def free_cells(self) -> list[int]:
        return sorted(set(range(9)) - {thing.cell for thing in self.things})


def sample(rng: random.Random, pairs: tuple = PAIRS, least: int = 1, most: int = 4) -> Scene:
    """A scene of `least` to `most` objects, no colour-shape pair twice.

    Pairs earlier in `pairs` are up to twice as common, and neighbours tend to share a colour or a shape: POPE's
    popular and adversarial negatives are only harder than random ones in a world with such regularities.
    """
    weights = [2.0 - index / len(pairs) for index in range(len(pairs))]
    chosen: list[tuple[str, str]] = []
    for _ in range(rng.randint(least, most)):
        alike = [bool(chosen) and (p[0] == chosen[-1][0]) != (p[1] == chosen[-1][1]) for p in pairs]
        odds = [0.0 if p in chosen else w * (3.0 if a else 1.0) for p, w, a in zip(pairs, weights, alike, strict=True)]
        chosen.append(rng.choices(pairs, odds)[0])
    cells = sorted(rng.sample(range(9), len(chosen)))
    things = tuple(Thing(*pair, rng.choice(tuple(SIZES)), cell) for pair, cell in zip(chosen, cells, strict=True))
    return Scene(things, rng.randrange(2**31))


def corners(shape: str, radius: float, turn: float) -> list[tuple[float, float]]:
    """Corner points around (0, 0) of a shape that fills a circle of `radius`, turned by `turn` radians."""
    if shape == "heart":
        steps = [2 * math.pi * k / 60 for k in range(60)]
        heights = [13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t) for t in steps]
        points = [(radius * math.sin(t) ** 3, -radius * y / 16) for t, y in zip(steps, heights, strict=True)]
    elif shape == "cross":
        arm, end = 0.34 * radius, 0.98 * radius
        corner = [(arm, arm), (end, arm), (end, -arm), (arm, -arm), (arm, -end), (-arm, -end)]
        points = corner + [(-x, -y) for x, y in corner]
    else:
        corners = {"circle": 72, "square": 4, "triangle": 3, "star": 10}[shape]
        lift = {"square": 1.12, "triangle": 1.12, "star": 1.12}.get(shape, 0.94)
        start = math.pi / 4 if shape == "square" else -math.pi / 2
        points = []
        for k in range(corners):
            reach = radius * lift * (0.44 if shape == "star" and k % 2 else 1.0)
            angle = start + 2 * math.pi * k / corners
            points.append((reach * math.cos(angle), reach * math.sin(angle)))
    cos, sin = math.cos(turn), math.sin(turn)
    return [(x * cos - y * sin, x * sin + y * cos) for x, y in points]


def render(scene: Scene, size: int = 224) -> Image.Image:
    """Draw a scene as an RGB image of `size` x `size` pixels; the same scene gives the same pixels."""
    rng = random.Random(scene.seed)
    scale = 3  # drawn larger and shrunk: smooth edges without an anti-aliasing library
    side = size * scale
    paper = tuple(rng.randint(236, 250) for _ in range(3))
    image = Image.new("RGB", (side, side), paper)
    shadow = Image.new("L", (side, side), 0)
    jobs = []
    for thing in scene.things:
        cell = side / 3
        radius = SIZES[thing.size] * cell * rng.uniform(0.95, 1.03)
        slack = max(0.0, (cell / 2 - radius * 1.14) * 0.5)
        x = (thing.cell % 3 + 0.5) * cell + rng.uniform(-slack, slack)
        y = (thing.cell // 3 + 0.5) * cell + rng.uniform(-slack, slack)
        outline = [(x + dx, y + dy) for dx, dy in corners(thing.shape, radius, rng.uniform(-0.12, 0.12))]
        fill = tuple(max(0, min(255, channel + rng.randint(-10, 10))) for channel in COLOURS[thing.colour])
        jobs.append((outline, fill))
        ImageDraw.Draw(shadow).polygon([(px + 0.012 * side, py + 0.016 * side) for px, py in outline], fill=70)
    shadow = shadow.filter(ImageFilter.BoxBlur(side // 90))
    image.paste(tuple(int(channel * 0.45) for channel in paper), mask=shadow)
    draw = ImageDraw.Draw(image)
    for outline, fill in jobs:
        edge = tuple(int(channel * 0.72) for channel in fill)
        draw.polygon(outline, fill=fill)
        draw.line([*outline, outline[0], outline[1]], fill=edge, width=max(1, side // 110), joint="curve")
    return image.resize((size, size), Image.Resampling.LANCZOS)
