"""How much of an answer an arm takes from the image, and its loss on rows it did not see; over responses only.

visual_contribution(arm, rows, "v1", 16)["per_token"] -> (mean, low, high)      heldout_loss(arm, rows, "v1", 16)
"""

import zlib
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from PIL import Image

from sbt.models import Arm
from sbt.report import stats
from sbt.training.collator import IGNORED, Collator
from sbt.utils.errors import DataError, ParameterError

Progress = Callable[[int, int], None]


def heldout_loss(
    arm: Arm, rows: Sequence[dict], conversation: str, batch_size: int, *, progress: Progress | None = None
) -> np.ndarray:
    """Mean negative log-probability (nats) of the response tokens of each row, (rows,), in their order.

    Over the collator's response-only labels, whatever loss the arm was trained with, so that arms compare; average it
    with `stats.bootstrap`, compare arms with `stats.paired`. Raises as `Collator` does.
    """
    sums, tokens = _answers(arm, rows, conversation, batch_size, progress)
    return -sums / tokens


def visual_contribution(
    arm: Arm,
    rows: Sequence[dict],
    conversation: str,
    batch_size: int,
    *,
    draws: int = 1,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict:
    """log p(answer | image, instruction) minus the same with images of random noise, in nats; above 0 the image helps.

    Noise has every pixel uniform in RGB at the size the tower sees (of a larger one, shrinking would leave grey), and
    depends on `seed`, the row's id, the image's place and the draw only; `draws` noise images are averaged. Rows
    without an image are left out and counted. Keys: `per_token` and `per_row` (mean, low, high: 95 % bootstrap over
    images; the first weighs long answers more), `values` (rows,) of each row's mean per token, `tokens` (rows,),
    `ids`, `rows`, `without_image`. Source: the diagnostic of L2T, arXiv 2503.22215, which says random noise and no
    more. ParameterError for an arm without vision or no draws, DataError for no row with an image.
    """
    if not arm.has_vision:
        raise ParameterError("this arm has no vision tower, so no image contributes. Give it an arm that sees")
    if draws < 1:
        raise ParameterError(f"draws must be 1 or more, found {draws!r}")
    seen = [row for row in rows if row["images"]]
    if not seen:
        raise DataError("no row has an image: there is no visual contribution to measure")
    sums, tokens = _answers(arm, seen, conversation, batch_size, progress)
    noisy = np.zeros(len(seen))
    for draw in range(draws):
        noise = partial(_with_noise, side=arm.processor.image_processor.crop_size, draw=draw, seed=seed)
        noisy += _answers(arm, seen, conversation, batch_size, progress, noise)[0] / draws
    gained = sums - noisy
    groups = [str(row["images"][0]) if isinstance(row["images"][0], str) else row["id"] for row in seen]
    return {
        "per_token": stats.ratio(tokens, gained, groups=groups, seed=seed),
        "per_row": stats.bootstrap(gained / tokens, groups=groups, seed=seed),
        "values": gained / tokens,
        "tokens": tokens,
        "ids": [row["id"] for row in seen],
        "rows": len(seen),
        "without_image": len(rows) - len(seen),
    }


def _answers(
    arm: Arm,
    rows: Sequence[dict],
    conversation: str,
    batch_size: int,
    progress: Progress | None,
    change: Callable[[dict], dict] = dict,
) -> tuple[np.ndarray, np.ndarray]:
    """Summed log-probability of the response tokens of each row and how many they are, both (rows,).

    `change` is made to each row, batch by batch.
    """
    if len(rows) == 0:
        raise DataError("no rows to measure on")
    collate = Collator(arm.processor, conversation)
    order = sorted(range(len(rows)), key=lambda number: len(str(rows[number]["messages"])))  # less padding
    sums, tokens = np.zeros(len(rows)), np.zeros(len(rows))
    training = arm.model.training
    arm.model.eval()  # dropout would make it another number every time
    try:
        for start in range(0, len(rows), batch_size):
            places = order[start : start + batch_size]
            sums[places], tokens[places] = _score(arm.model, collate([change(rows[place]) for place in places]))
            if progress is not None:
                progress(start + len(places), len(rows))
    finally:
        arm.model.train(training)
    return sums, tokens


@torch.inference_mode()
def _score(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> tuple[np.ndarray, np.ndarray]:
    targets = batch.pop("labels")[:, 1:]
    wanted = targets != IGNORED
    positions = wanted.any(dim=0).nonzero()[:, 0]  # the vocabulary only where some row of the batch has a response
    inputs = {name: tensor.to(model.device) for name, tensor in batch.items()}
    if "pixel_values" in inputs:
        inputs["pixel_values"] = inputs["pixel_values"].to(model.dtype)
    logits = model(**inputs, logits_to_keep=positions.to(model.device), use_cache=False).logits
    wanted, targets = wanted[:, positions], targets[:, positions]
    row, place = (index.to(model.device) for index in wanted.nonzero(as_tuple=True))
    chosen = logits[row, place].float().log_softmax(dim=-1)
    chosen = chosen.gather(1, targets[wanted].to(model.device)[:, None])[:, 0].double().cpu()
    sums = torch.zeros(len(wanted), dtype=torch.float64).index_add_(0, row.cpu(), chosen)
    return sums.numpy(), wanted.sum(dim=1).numpy()


def _with_noise(row: dict, side: dict, draw: int, seed: int) -> dict:
    """The row with noise for its images, as large as `side` (height, width)."""
    rng = np.random.default_rng([seed, draw, zlib.crc32(str(row["id"]).encode())])
    shape = len(row["images"]), side["height"], side["width"], 3
    return {**row, "images": [Image.fromarray(one) for one in rng.integers(0, 256, shape, dtype=np.uint8)]}
