"""Figures: galleries are small pictures that hold question, verdict and reference."""

import io

import numpy as np
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
