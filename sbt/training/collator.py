"""Rows to batches: TRL's own collator with the loss on assistant turns (and instructions, by `loss_masks`).

Every check names the row. `labels` uses the same collator, so what a notebook shows is what the trainer trains.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from PIL import Image
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase, ProcessorMixin
from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

from sbt import templates
from sbt.data.images import to_rgb
from sbt.data.imagezip import open_image
from sbt.errors import DataError
from sbt.files import sha256
from sbt.models.marks import image_text
from sbt.training.loss_masks import InstructionMask, parse

IGNORED = -100
Encoded = dict[str, torch.Tensor]


class Memory:
    """Encoded rows by their content, the least recently used dropped beyond `limit` bytes."""

    def __init__(self, limit: int = 256 * 2**20) -> None:
        self.limit, self.size = limit, 0
        self.kept: OrderedDict[str, Encoded] = OrderedDict()

    def get(self, key: str, make: Callable[[], Encoded]) -> Encoded:
        """What `make` returns, or what it returned for this key before."""
        if key in self.kept:
            self.kept.move_to_end(key)
            return self.kept[key]
        value = self.kept[key] = make()
        self.size += _bytes(value)
        while self.size > self.limit and len(self.kept) > 1:
            self.size -= _bytes(self.kept.popitem(last=False)[1])
        return value


class Collator:
    """Batch of `input_ids`, `attention_mask`, `labels` (batch, length) and `pixel_values`; right-padded, never cut.

    Each row is encoded once, by TRL's collator (for a tokenizer, which TRL's does not take, by the same template), and
    padded to the batch. `<im_start>` and `<im_end>` stand around an image where the vocabulary has them, as in
    generation. `loss` (the knobs of `loss_masks`) trains instructions beside the response. DataError names the row
    that has no supervised token, whose images and placeholders disagree, or whose image cannot be read.
    """

    def __init__(
        self, processor: ProcessorMixin | PreTrainedTokenizerBase, conversation: str, loss: Mapping | None = None
    ) -> None:
        self.processor, self.conversation, self.memory = processor, conversation, Memory()
        self.vision = isinstance(processor, ProcessorMixin)
        tokenizer = processor.tokenizer if self.vision else processor
        self.template = templates.load(conversation).replace("'<image>'", f"'{image_text(tokenizer, 1)}'")
        self.pad, knobs = tokenizer.pad_token_id, parse(loss)
        self.instructed = None
        if knobs.on != "response":
            self.instructed = InstructionMask(tokenizer, self.template, conversation, knobs)
        if self.vision:
            self.stock = DataCollatorForVisionLanguageModeling(
                processor, max_length=None, assistant_only_loss=True, chat_template=self.template
            )

    def __call__(self, rows: Sequence[dict]) -> Encoded:
        encoded = [self.memory.get(_content(row), partial(self._encode, row)) for row in rows]
        pads = {"input_ids": self.pad, "attention_mask": 0, "labels": IGNORED}
        batch = {
            name: pad_sequence([one[name] for one in encoded], batch_first=True, padding_value=value)
            for name, value in pads.items()
        }
        pixels = [one["pixel_values"] for one in encoded if "pixel_values" in one]
        return batch | ({"pixel_values": torch.cat(pixels)} if pixels else {})

    def _encode(self, row: dict) -> Encoded:
        one = self._vision(row) if self.vision else self._text(row)
        answers = one["labels"] != IGNORED
        if not answers.any():
            raise DataError(
                f"row {row.get('id')!r}: no token is trained in the conversation format {self.conversation!r}: "
                "the answer is empty or missing. Fill it in or drop the row"
            )
        if self.instructed is None:
            return one
        plain = {**row, "images": row.get("images") or [], "messages": _in_parts(row)}
        asked = torch.from_numpy(self.instructed(plain, one["input_ids"].numpy(), answers.numpy()))
        return one | {"labels": one["input_ids"].masked_fill(~(answers | asked), IGNORED)}

    def _vision(self, row: dict) -> Encoded:
        placeholders = _count_images(row)
        if placeholders != len(row["images"]):
            raise DataError(
                f"row {row.get('id')!r}: {placeholders} image parts in the messages but {len(row['images'])} images"
            )
        for part in (part for message in row["messages"] for part in parts_of(message)):
            if part["type"] == "text" and self.processor.image_token in part["text"]:
                raise DataError(f"row {row.get('id')!r}: a literal <image> in the text stands for no image")
        images = [_opened(image, row) if isinstance(image, str) else image for image in row["images"]]
        # a new object: the stock collator writes into the rows it is given
        batch = self.stock([{"images": images, "messages": _in_parts(row)}])
        one = {name: batch[name][0] for name in ("input_ids", "attention_mask", "labels")}
        return one | ({"pixel_values": batch["pixel_values"]} if images else {})

    def _text(self, row: dict) -> Encoded:
        if row.get("images") or _count_images(row):
            raise DataError(f"row {row.get('id')!r}: a language model cannot train on images. Use text_twin(rows)")
        encoded = self.processor.apply_chat_template(
            row["messages"],
            chat_template=self.template,
            tokenize=True,
            return_dict=True,
            return_assistant_tokens_mask=True,
        )
        ids, mask = torch.tensor(encoded["input_ids"]), torch.tensor(encoded["assistant_masks"])
        return {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "labels": ids.masked_fill(mask == 0, IGNORED),
        }


def labels(
    processor: ProcessorMixin | PreTrainedTokenizerBase,
    rows: Sequence[dict],
    conversation: str,
    loss: Mapping | None = None,
) -> list[tuple[list[int], list[int]]]:
    """For each row its token ids and labels (-100 where nothing is trained), made by the collator the trainer uses."""
    collate = Collator(processor, conversation, loss)
    made = (collate([row]) for row in rows)
    return [(batch["input_ids"][0].tolist(), batch["labels"][0].tolist()) for batch in made]


def parts_of(message: dict) -> list[dict]:
    """The content of a message as parts, whichever way it is written."""
    content = message["content"]
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _opened(image: str, row: dict) -> Image.Image:
    try:
        return to_rgb(open_image(image))
    except (DataError, OSError) as error:
        raise DataError(f"row {row.get('id')!r}: image cannot be read ({error}). Restore the file") from error


def _count_images(row: dict) -> int:
    return sum(part["type"] == "image" for message in row["messages"] for part in parts_of(message))


def _in_parts(row: dict) -> list[dict]:
    return [{**message, "content": list(parts_of(message))} for message in row["messages"]]


def _content(row: dict) -> str:
    """What tells rows apart. Opened images by their pixels: their `repr` is an address, which the next one may get."""
    images = [
        image if isinstance(image, str) else (image.size, sha256(image.tobytes())) for image in row.get("images") or []
    ]
    return repr((images, row["messages"]))


def _bytes(encoded: Encoded) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in encoded.values())
