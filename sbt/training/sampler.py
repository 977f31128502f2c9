"""The order of the rows: shuffled, or grouped by modality and length; dealt out so that several processes see the same
rows a step as one process with more accumulation does.

Rule of the groups: haotian-liu/LLaVA llava/train/llava_trainer.py.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from datasets import Dataset
from torch.utils.data import Sampler

from sbt.data.prepare import TOKENS
from sbt.training.collator import IGNORED, parts_of


def row_lengths(rows: Dataset) -> list[int]:
    """Length of each row without its images: its tokens where data preparation has counted them, else its characters.

    Only the order of the lengths matters: rows with images are grouped apart, and their images are equally long.
    """
    if TOKENS in rows.column_names:
        return list(rows[TOKENS])
    return [sum(len(part.get("text") or "") for turn in row["messages"] for part in parts_of(turn)) for row in rows]


def has_images(rows: Dataset) -> list[bool]:
    """Whether each row has an image."""
    return [bool(images) for images in rows["images"]] if "images" in rows.column_names else [False] * len(rows)


def grouped(lengths: Sequence[int], images: Sequence[bool], step: int, generator: torch.Generator) -> list[int]:
    """An order of the rows in which each run of `step` rows (an optimizer step) is of one modality, longest first.

    Steps are made of rows drawn at random, and follow each other at random. The rows left over of both modalities are
    mixed: at the end, and where they are more than a step, at the beginning too. LLaVA deals the rows of a step out so
    that every batch is equally long; sorted, as here, the batches of a step hold rows of similar length and need less
    padding, and the step's gradient is the same.
    """
    whole, left = [], []
    for modality in (True, False):
        members = torch.tensor([row for row, image in enumerate(images) if image is modality], dtype=torch.long)
        members = members[torch.randperm(len(members), generator=generator)].tolist()
        full = len(members) // step * step
        whole += [members[start : start + step] for start in range(0, full, step)]
        left += members[full:]
    steps = [whole[place] for place in torch.randperm(len(whole), generator=generator).tolist()]
    if len(left) >= step:
        steps, left = [left[:step], *steps], left[step:]
    # a stable sort: rows of equal length stay in the order they were drawn in
    return [row for rows in (*steps, left) for row in sorted(rows, key=lambda row: (not images[row], -lengths[row]))]


class Order(Sampler[int]):
    """Indices of the rows of one epoch after the other, the same in every process and after a resume.

    Plain: the permutation that the trainer draws in one process (torch.randperm seeded with seed + epoch). With
    `lengths` and `images`: `grouped`. `processes` > 1 fills the epoch up with the index `len(rows)`, which stands for
    no row (`Padded`), to whole batches for every process: where accelerate would repeat rows, they would count twice.
    `epoch` tells the epoch, when one begins.
    """

    def __init__(
        self,
        rows: int,
        step: int,
        *,
        seed: int,
        fill: int = 1,
        epoch: Callable[[], int] = lambda: 0,
        lengths: Sequence[int] | None = None,
        images: Sequence[bool] | None = None,
    ) -> None:
        self.rows, self.step, self.seed, self.epoch = rows, step, seed, epoch
        self.lengths, self.images = lengths, images
        self.padding = -rows % fill

    def __len__(self) -> int:
        return self.rows + self.padding

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch())
        if self.lengths is None:
            yield from torch.randperm(self.rows, generator=generator).tolist()
        else:
            yield from grouped(self.lengths, self.images, self.step, generator)
        yield from [self.rows] * self.padding


class Padded:
    """A collator that leaves stand-in rows out; a batch of nothing else becomes one row that trains nothing."""

    def __init__(self, collator: Callable[[Sequence[dict]], dict[str, torch.Tensor]]) -> None:
        self.collator = collator

    def __call__(self, rows: Sequence[dict]) -> dict[str, torch.Tensor]:
        real = [row for row in rows if row["id"] is not None]
        batch = self.collator(real or rows[:1])
        if not real:
            batch["labels"] = torch.full_like(batch["labels"], IGNORED)
        return batch
