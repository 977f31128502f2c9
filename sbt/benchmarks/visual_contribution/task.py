"""The gain in log-probability that a picture gives an answer, over a picture of noise. Source: L2T, arXiv 2503.22215.

sums, tokens = training.response_logprobs(arm, rows, "v1", 16)
noisy, _ = training.response_logprobs(arm, rows, "v1", 16, change=noise(arm))
visual_contribution(rows, sums, noisy, tokens)["per_token"]  # mean, low, high
"""

import zlib
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

from sbt.models import Arm
from sbt.report import stats
from sbt.utils.errors import DataError, ParameterError


def with_images(rows: Sequence[dict]) -> list[dict]:
    """The rows that have an image; DataError if there is none."""
    seen = [row for row in rows if row["images"]]
    if not seen:
        raise DataError("no row has an image: there is no visual contribution to measure")
    return seen


def noise(arm: Arm, seed: int = 0, draw: int = 0) -> Callable[[dict], dict]:
    """The function row -> the row with noise for its images: uniform RGB of the size that the arm's tower sees.

    Of a larger size, shrinking would leave grey. The noise depends on `seed`, the row's id, the image's place and
    `draw` only. The paper says "random noise" and no more. ParameterError for an arm without a vision tower.
    """
    if not arm.has_vision:
        raise ParameterError("this arm has no vision tower, so no image contributes. Choose an arm that can see")
    side = arm.processor.image_processor.crop_size

    def change(row: dict) -> dict:
        rng = np.random.default_rng([seed, draw, zlib.crc32(str(row["id"]).encode())])
        shape = len(row["images"]), side["height"], side["width"], 3
        return {**row, "images": [Image.fromarray(one) for one in rng.integers(0, 256, shape, dtype=np.uint8)]}

    return change


def visual_contribution(
    rows: Sequence[dict], sums: np.ndarray, noisy: np.ndarray, tokens: np.ndarray, seed: int = 0
) -> dict:
    """log p(answer | image, question) - log p(answer | noise, question) in nats; above 0 the image helps.

    `sums`, `noisy` and `tokens` are (rows,): log-probabilities of the answers with the images and with noise (for
    several draws, their mean), and the answers' lengths. Returns `per_token` (mean, low, high: 95 % bootstrap over
    images) and `values` (rows,), each row's mean a token.
    """
    gained = sums - noisy
    groups = [str(row["images"][0]) if isinstance(row["images"][0], str) else row["id"] for row in rows]
    return {
        "per_token": stats.ratio(tokens, gained, groups=groups, share=False, seed=seed),
        "values": gained / tokens,
    }
