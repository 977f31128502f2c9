"""Figures: galleries are small pictures that hold question, verdict and reference."""

import io
import itertools

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from sbt.report import plots


def test_a_gallery_is_a_png_of_few_colours_whatever_its_pictures_hold():
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8))
    made = plots.gallery([noise, noise], [plots.answered("Is it?", "", "no", False), "a text"])
    picture = Image.open(io.BytesIO(made.data))
    assert picture.format == "PNG" and len(picture.convert("RGB").getcolors()) <= plots.COLOURS
    assert len(noise.convert("RGB").getcolors(1 << 20)) > plots.COLOURS


def test_an_answer_stands_with_its_verdict_and_the_reference():
    right, wrong = plots.answered("Is it?", "yes", "yes", True), plots.answered("Is it?", "", "no", False)
    assert right[1] == ("right: yes", plots.RIGHT) and right[2] == ("reference: yes", plots.PLAIN)
    assert wrong[1] == ("wrong: (empty)", plots.WRONG) and wrong[0] == ("Is it?", plots.PLAIN)


def test_a_figure_of_a_notebook_is_a_small_picture_that_says_what_it_shows():
    rows = [
        {"arm": arm, "panel": "mc2", "value": value, "low": 0, "high": 0.5} for arm, value in (("a", 0), ("b", 0.2))
    ]
    figure = plots.scores(pd.DataFrame(rows), "Truthfulness", {"mc2": 0.25}, by="panel")
    assert plots.words(figure) == "Truthfulness; mc2; score; a; b"
    assert [text.get_text() for text in figure.axes[0].texts] == ["0.00"]  # a bar of nothing has its number
    made = Image.open(io.BytesIO(plots.small(figure)))
    assert made.size[0] > 1.7 * 80 * figure.get_size_inches()[0] and len(made.convert("RGB").getcolors()) <= 64


SEEN = {  # of red, green and blue light by eyes without the middle and the long cones (Machado et al. 2009)
    "deuteranopia": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
    "protanopia": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
}


def lab(colour: str, seen: list) -> np.ndarray:
    light = np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    light = np.where(light <= 0.04045, light / 12.92, ((light + 0.055) / 1.055) ** 2.4)
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    found = xyz @ np.clip(np.array(seen) @ light, 0, 1) / np.array([0.9505, 1, 1.0888])
    x, y, z = np.where(found > 0.008856, np.cbrt(found), 7.787 * found + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("kind", SEEN)
def test_arms_have_colours_that_the_colour_blind_tell_apart(kind: str):
    seen = {arm: lab(colour, SEEN[kind]) for arm, colour in plots.ARMS.items()}
    near = {(a, b): np.linalg.norm(seen[a] - seen[b]) for a, b in itertools.combinations(seen, 2)}
    assert min(near.values()) > 12, min(near, key=near.get)
