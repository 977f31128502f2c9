"""Rows to batches: the tokens of the conversation template, the loss on assistant turns (and by `loss_mask`).

The last part is the order of the rows: shuffled, or grouped by modality and length (the rule of haotian-liu/LLaVA,
llava/train/llava_trainer.py); dealt out so that several processes see the same rows a step as one process with more
accumulation does.

Every check names the row. `labels` uses the same collator, so a notebook shows exactly what the trainer trains.
"""

import json
import re
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import numpy as np
import torch
from datasets import Dataset
from PIL import Image
from tokenizers import Tokenizer
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Sampler
from transformers import PreTrainedTokenizerBase, ProcessorMixin
from transformers.utils.chat_template_utils import render_jinja_template

from sbt import templates
from sbt.data.conversations import check_place, put_images
from sbt.data.image_zip import open_image
from sbt.data.images import to_rgb
from sbt.data.prepare import TOKENS
from sbt.models.image_markers import image_text
from sbt.models.tokenizer import IMAGE_TOKEN
from sbt.training.loss_mask import InstructionMask, parse
from sbt.utils.errors import DataError, ParameterError
from sbt.utils.files import sha256

IGNORED = -100
Encoded = dict[str, torch.Tensor]
_HIDDEN = 0xFDD2  # first of 30 noncharacters: Unicode reserves them for a program's own use, so no text has them


class ControlTokens:
    """Keeps a row's words from being read as control tokens: `</s>` in an answer is four characters and ends nothing.

    `hide` swaps the first character of every control token in the words for a noncharacter, before the template adds
    its own. `encode` swaps back, and reads such texts with a copy of the tokenizer whose control tokens have hidden
    names. A text without hidden characters is encoded as ever, to the same ids.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        added = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
        self.names = sorted(added | set(tokenizer.all_special_tokens), key=len, reverse=True)
        self.tokenizer, self.copy = tokenizer, None
        firsts = sorted({name[0] for name in self.names})
        self.swap = {first: chr(_HIDDEN + number) for number, first in enumerate(firsts)}
        self.swap |= {hidden: first for first, hidden in self.swap.items()}
        self.control = re.compile("|".join(map(re.escape, self.names)) or r"(?!)")
        self.hidden = re.compile(f"[{chr(_HIDDEN)}-{chr(_HIDDEN + 29)}]")

    def hide(self, row: dict) -> dict:
        """The row, its words without control tokens; the very same object where there were none."""
        texts = [part["text"] for turn in row["messages"] for part in parts_of(turn) if part["type"] == "text"]
        if not any(map(self.control.search, texts)):
            return row
        if any(map(self.hidden.search, texts)):
            raise DataError(f"row {row.get('id')!r}: a text holds a character of U+FDD2 to U+FDEF. Remove it")
        return {
            **row,
            "messages": [{**turn, "content": [*map(self._hide, parts_of(turn))]} for turn in row["messages"]],
        }

    def encode(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Token ids of a rendered conversation and the (start, end) of each in it."""
        if not self.hidden.search(text):
            made = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
            return made["input_ids"], made["offset_mapping"]
        self.copy = self.copy or self._renamed()
        swapped = re.sub(f"{self.control.pattern}|{self.hidden.pattern}", lambda found: self._swap(found[0]), text)
        made = self.copy.encode(swapped, add_special_tokens=False)
        return made.ids, made.offsets

    def _hide(self, part: dict) -> dict:
        if part["type"] != "text":
            return part
        return {**part, "text": self.control.sub(lambda found: self._swap(found[0]), part["text"])}

    def _swap(self, name: str) -> str:
        return self.swap.get(name[0], name[0]) + name[1:]

    def _renamed(self) -> Tokenizer:
        core = json.loads(self.tokenizer.backend_tokenizer.to_str())
        model, names = core["model"], {name: self._swap(name) for name in self.names}
        for token in core["added_tokens"]:
            token["content"] = names.get(token["content"], token["content"])
        if isinstance(model["vocab"], dict):
            model["vocab"] = {names.get(piece, piece): number for piece, number in model["vocab"].items()}
        else:
            model["vocab"] = [[names.get(piece, piece), score] for piece, score in model["vocab"]]
        if model.get("unk_token"):
            model["unk_token"] = names.get(model["unk_token"], model["unk_token"])
        if "merges" in model:  # Llama's pieces `</` and `s>` would merge into the end token
            model["merges"] = [pair for pair in model["merges"] if not _parts(pair) & names.keys()]
        core["post_processor"] = None  # it names control tokens, and none is added here
        return Tokenizer.from_str(json.dumps(core))


def _parts(pair: list[str] | str) -> set[str]:
    """The two pieces of a merge, and the one they make."""
    left, right = pair.split(" ") if isinstance(pair, str) else pair
    return {left, right, left + right}


class Memory:
    """A cache of encoded rows by their content. Above `limit` bytes it drops the least recently used."""

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

    Bit for bit what TRL's vision collator makes of a template with `{% generation %}` spans, but quicker (TRL's looks
    at every token for every span), and also for a tokenizer alone, which TRL's does not take. Each row is encoded once
    and padded to its batch. A row's words never become control tokens. `<im_start>` and `<im_end>` stand around an
    image where the vocabulary has them, as in generation. `loss` (values of `loss_mask.LossMaskConfig`) trains
    instructions beside the response. `image_place` moves images within their turns (`conversations.put_images`).
    Raises DataError for a row without a trained token, whose images and placeholders
    disagree, or whose image cannot be read; ParameterError for a tokenizer that gives no offsets.
    """

    def __init__(
        self,
        processor: ProcessorMixin | PreTrainedTokenizerBase,
        conversation: str,
        loss: Mapping | None = None,
        image_place: str = "as_written",
    ) -> None:
        check_place(image_place)
        self.image_place = image_place
        self.processor, self.conversation, self.memory = processor, conversation, Memory()
        self.vision = isinstance(processor, ProcessorMixin)
        self.tokenizer = processor.tokenizer if self.vision else processor
        if not self.tokenizer.is_fast:
            raise ParameterError(
                "training needs a fast tokenizer: a slow one does not give the offsets by which answers are told from "
                "questions. Load the model's fast one"
            )
        self.template = self._template(_features(processor) if self.vision else 1)
        self.pad, config = self.tokenizer.pad_token_id, parse(loss)
        self.control, self.instructed = ControlTokens(self.tokenizer), None
        if config.on != "response":
            encode = self.control.encode
            self.instructed = InstructionMask(self.tokenizer, self._template(1), conversation, config, encode)

    def __call__(self, rows: Sequence[dict]) -> Encoded:
        encoded = [self.memory.get(_content(row), partial(self._encode, row)) for row in rows]
        pads = {"input_ids": self.pad, "attention_mask": 0, "labels": IGNORED}
        batch = {
            name: pad_sequence([one[name] for one in encoded], batch_first=True, padding_value=value)
            for name, value in pads.items()
        }
        pixels = [one["pixel_values"] for one in encoded if "pixel_values" in one]
        return batch | ({"pixel_values": torch.cat(pixels)} if pixels else {})

    def _template(self, features: int) -> str:
        """The conversation template with `features` tokens for an image."""
        return templates.load(self.conversation).replace("'<image>'", f"'{image_text(self.tokenizer, features)}'")

    def _encode(self, row: dict) -> Encoded:
        images, row = self._images(row), self.control.hide(put_images(row, self.image_place))
        ids, answers = self._tokens(row)
        if not answers.any():
            raise DataError(
                f"row {row.get('id')!r}: no token is trained in the conversation format {self.conversation!r}: "
                "the answer is empty or missing. Fill it in or drop the row"
            )
        trained = answers
        if self.instructed is not None:
            plain = {**row, "images": row.get("images") or [], "messages": _in_parts(row)}
            trained = answers | self.instructed(plain, ids, answers)
        ids = torch.from_numpy(ids)
        one = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        one["labels"] = ids.masked_fill(torch.from_numpy(~trained), IGNORED)
        return one | ({"pixel_values": self._pixels(images)} if images else {})

    def _tokens(self, row: dict) -> tuple[np.ndarray, np.ndarray]:
        """Token ids (length,) of a row, and which of them (bool) a generation span of the template touches."""
        texts, spans = render_jinja_template(
            conversations=[row["messages"]],
            chat_template=self.template,
            return_assistant_tokens_mask=True,
            **self.tokenizer.special_tokens_map,
        )
        ids, offsets = self.control.encode(texts[0])
        begins, ends = np.array(offsets, int).reshape(-1, 2).T
        answers = np.zeros(len(begins), bool)
        for start, end in spans[0]:
            answers |= (begins < end) & (ends > start)
        return np.array(ids, int), answers

    def _pixels(self, images: list[Image.Image]) -> torch.Tensor:
        return self.processor.image_processor(images=images, return_tensors="pt")["pixel_values"]

    def _images(self, row: dict) -> list[Image.Image]:
        """The opened images of a row; DataError where they and their placeholders disagree."""
        placeholders, images = _count_images(row), row.get("images") or []
        if not self.vision and (placeholders or images):
            raise DataError(f"row {row.get('id')!r}: a language model cannot train on images. Use text_twin(rows)")
        if placeholders != len(images):
            raise DataError(
                f"row {row.get('id')!r}: {placeholders} image parts in the messages but {len(images)} images"
            )
        for part in (part for message in row["messages"] for part in parts_of(message)):
            if self.vision and part["type"] == "text" and IMAGE_TOKEN in part["text"]:
                raise DataError(f"row {row.get('id')!r}: a literal <image> in the text stands for no image")
        return [_opened(image, row) if isinstance(image, str) else image for image in images]


def labels(
    processor: ProcessorMixin | PreTrainedTokenizerBase,
    rows: Sequence[dict],
    conversation: str,
    loss: Mapping | None = None,
    image_place: str = "as_written",
) -> list[tuple[list[int], list[int]]]:
    """For each row its token ids and labels (-100 where nothing is trained), made by the collator the trainer uses."""
    collate = Collator(processor, conversation, loss, image_place)
    made = (collate([row]) for row in rows)
    return [(batch["input_ids"][0].tolist(), batch["labels"][0].tolist()) for batch in made]


def _features(processor: ProcessorMixin) -> int:
    """Tokens of one image; all images are resized to the tower's input."""
    made = processor.image_processor(images=[Image.new("RGB", (8, 8))], return_tensors="pt")
    return processor.replace_image_token(made, 0).count(processor.image_token)


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
    """A key for a row. Opened images count by their pixels: their `repr` is an address that may be used again."""
    images = [
        image if isinstance(image, str) else (image.size, sha256(image.tobytes())) for image in row.get("images") or []
    ]
    return repr((images, row["messages"]))


def _bytes(encoded: Encoded) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in encoded.values())


# --- The order of the rows


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
