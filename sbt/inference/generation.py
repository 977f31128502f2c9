"""Answers of an arm to questions with or without an image, in batches, greedy or sampled; each kept as it comes.

generate(arm, [{"id": "1", "image": "a.png", "text": "Is there a star?"}], cache=file, max_new_tokens=16)
"""

import contextlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import torch
from PIL import Image
from torch import nn
from transformers import DynamicCache, GenerationConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from sbt import templates
from sbt.data.conversations import PLACEHOLDER, parts, to_front
from sbt.data.images import open_rgb
from sbt.inference.completion import StopOnStrings, cut, end_tokens, pad_token
from sbt.inference.decoding import Decoding
from sbt.inference.prefix_tree import MIN_PREFIX, common, keys_and_values, read_prefix, repeated
from sbt.inference.result_cache import ItemCache
from sbt.models import Arm, language_model, silence_libraries, weights_sample
from sbt.models.image_markers import image_text
from sbt.utils import env
from sbt.utils.errors import DataError
from sbt.utils.files import file_hash, sha256

T = TypeVar("T")
READ_AHEAD = ("cuda",)  # a CPU has no core to spare
LONG_HEAD = 256  # tokens; a shorter one is quickly computed again
_IMAGES_AT_ONCE = 16
_FEATURE_BYTES = 2**30


def generate(
    arm: Arm,
    requests: Sequence[dict],
    *,
    cache: Path,
    max_new_tokens: int = 64,
    batch_size: int = 32,
    decoding: Decoding | None = None,
    share: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> list[str]:
    """The answer to each request {"id", "image": path | PIL image | None, "text"}, stripped, in the order of requests.

    `decoding` says how, else greedily with `max_new_tokens`. The prompt is the arm's conversation format, or
    decoding's; an arm without one continues the text. A request may have "demonstrations", (question, answer) pairs
    that precede it as turns without an image. An image without `<image>` in the text comes first; with one, it stands
    there, or in front where the arm was trained so (`Arm.image_place`). An answer ends at the eos token, or at the
    format's own end sign. What the questions about one image begin with, the image included, is computed once, unless
    `share` is off. Finished items are kept in `cache`; batches do not depend on it, so a resumed run answers the same.
    DataError names an item with an image for an arm without vision, an unreadable one, or one that is too long.
    """
    _to_device(arm.model)
    language, tokenizer = language_model(arm)
    how = decoding or Decoding(max_new_tokens)
    name = how.conversation or arm.conversation
    prompts = [_prompt(arm, request, name) for request in requests]
    images = _Images(arm, requests)
    ids = _encode(arm, tokenizer, prompts, requests)
    _check(language, requests, ids, how.max_new_tokens)
    asked_how = (how, batch_size) if how.sampled else how  # a sampled answer depends on its batch
    identity = f"{weights_sample(arm.model)} {asked_how}"
    keys = [sha256(f"{identity} {images.key(number)} {prompt}")[:16] for number, prompt in enumerate(prompts)]
    writer = _Writer(language, tokenizer, images, ids, how, templates.stop_string(name) if name else None)
    done = 0
    with ItemCache(cache) as kept, silence_libraries(), torch.inference_mode():
        batches = _batches(ids, images, batch_size, share, writer.head)
        images.arrange(number for _, batch in batches for number in batch)
        for skip, batch in batches:
            if any(kept.get(str(requests[i]["id"]), keys[i]) is None for i in batch):
                answers = writer.write(batch, skip)
                kept.add({str(requests[i]["id"]): (keys[i], a) for i, a in zip(batch, answers, strict=True)})
            done += len(batch)
            if progress is not None:
                progress(done, len(ids))
        return [kept.get(str(request["id"]), key) for request, key in zip(requests, keys, strict=True)]


def _to_device(model: nn.Module) -> None:
    """Move the model to this machine's GPU, if it has one; a quantised one is there already and cannot be moved."""
    if not getattr(model, "is_quantized", False):
        model.to(env.device().value)


class _Images:
    """Projected features by image, each distinct one encoded once, in groups that do not depend on a resume.

    Groups are neighbours in the order of first use, which `arrange` tells: few features are kept, so that an image
    whose neighbours are asked about later would be encoded again for each of them. While a GPU works on a group, the
    files of the next one are read.
    """

    def __init__(self, arm: Arm, requests: Sequence[dict]) -> None:
        self.arm, self.requests = arm, requests
        self.names = [self._name(request) for request in requests]
        self.arrange(range(len(requests)))
        self.source = {name: request for name, request in zip(self.names, requests, strict=True) if name is not None}
        self.hashes: dict[str, str] = {}
        self.reader = ThreadPoolExecutor(1) if arm.model.device.type in READ_AHEAD else None
        self.read: dict[int, Future] = {}  # by group, pixels that are being read
        self.kept: OrderedDict[str, torch.Tensor] = OrderedDict()
        self.placeholder: int | None = getattr(arm.processor, "image_token_id", None)

    def arrange(self, numbers: Iterable[int]) -> None:
        """Say in which order the requests, given by all their numbers, will ask for features."""
        self.distinct = list(dict.fromkeys(self.names[i] for i in numbers if self.names[i] is not None))
        self.place = {name: i for i, name in enumerate(self.distinct)}

    def key(self, number: int) -> str:
        """What names the image of a request in a cache: its contents, for files are replaced and folders move."""
        name = self.names[number]
        if name is not None and name not in self.hashes:
            given = self.source[name]["image"]
            self.hashes[name] = name if isinstance(given, Image.Image) else self._guard(name, lambda: file_hash(given))
        return self.hashes.get(name, "")

    def features(self, number: int) -> torch.Tensor | None:
        """Features (tokens, width) of a request's image; None if it has none."""
        name = self.names[number]
        if name is None:
            return None
        if name not in self.kept:
            self._encode(self.place[name] // _IMAGES_AT_ONCE)
        self.kept.move_to_end(name)
        return self.kept[name]

    def _encode(self, group: int) -> None:
        model, begun = self.arm.model, self.read.pop(group, None)
        pixels = (begun.result() if begun else self._pixels(group)).to(model.device, model.dtype)
        following = group + 1
        if self.reader and following * _IMAGES_AT_ONCE < len(self.distinct) and following not in self.read:
            self.read[following] = self.reader.submit(self._pixels, following)
        names = self._group(group)
        encoded = model.get_image_features(pixel_values=pixels).pooler_output
        self.kept.update(zip(names, encoded, strict=True))
        size = encoded[0].numel() * encoded[0].element_size()
        while len(self.kept) > max(2 * _IMAGES_AT_ONCE, _FEATURE_BYTES // size):
            self.kept.popitem(last=False)

    def _group(self, group: int) -> list[str]:
        return self.distinct[group * _IMAGES_AT_ONCE : (group + 1) * _IMAGES_AT_ONCE]

    def _pixels(self, group: int) -> torch.Tensor:
        opened = [self._open(name) for name in self._group(group)]
        return self.arm.processor.image_processor(opened, return_tensors="pt")["pixel_values"]

    def _open(self, name: str) -> Image.Image:
        given = self.source[name]["image"]
        if isinstance(given, Image.Image):
            return given.convert("RGB")
        return self._guard(name, lambda: open_rgb(given))

    def _guard(self, name: str, read: Callable[[], T]) -> T:
        try:
            return read()
        except (DataError, OSError) as error:
            item = self.source[name]["id"]
            raise DataError(f"item {item!r}: image {name} cannot be read ({error}). Restore the file") from error

    @staticmethod
    def _name(request: dict) -> str | None:
        image = request.get("image")
        if isinstance(image, Image.Image):
            return sha256(image.convert("RGB").tobytes() + str(image.size).encode())
        return None if image is None else str(image)


def _batches(
    ids: Sequence[list[int]], images: _Images, size: int, share: bool, head: int
) -> list[tuple[int, list[int]]]:
    """(tokens that each request of the batch shares with others about its image, requests), the longest first.

    The questions about one image stand side by side, whatever is shared: its features need not be kept for long.
    """
    members: dict[str | None, list[int]] = {}
    for number, name in enumerate(images.names):
        members.setdefault(name, []).append(number)
    groups: dict[int, list[int]] = {}
    for name, numbers in members.items():
        skip = _shared([ids[i] for i in numbers], images.placeholder if name else None, head) if share else 0
        groups.setdefault(skip, []).extend(numbers)
    batches = []
    for skip, numbers in sorted(groups.items()):
        if not skip:  # each for itself: by length, so that little is padded
            longest = {name: min((-len(ids[i]), i) for i in members[name]) for name in members if name}
            numbers = sorted(numbers, key=lambda i: (longest.get(images.names[i], (-len(ids[i]), i)), -len(ids[i]), i))
        batches += [(skip, numbers[start : start + size]) for start in range(0, len(numbers), size)]
    return batches


def _shared(prompts: list[list[int]], placeholder: int | None, head: int) -> int:
    """Length of what the prompts begin with; 0 where it does not pay, or does not hold the whole image.

    One question about an image ends its beginning behind the image, if the `head` of all prompts is long.
    """
    if len(prompts) == 1 and placeholder is not None and head >= LONG_HEAD:
        return len(prompts[0]) - prompts[0][::-1].index(placeholder)
    length = min(common(min(prompts), max(prompts)), min(map(len, prompts)) - 1)
    if len(prompts) < 2 or length < MIN_PREFIX:
        return 0
    return 0 if placeholder in prompts[0][length:] else length


def _prompt(arm: Arm, request: dict, conversation: str | None) -> str:
    text, image = request["text"], request.get("image")
    if image is not None and not arm.has_vision:
        raise DataError(f"item {request['id']!r} has an image but the arm ({arm.kind}) has no vision tower")
    if image is not None and PLACEHOLDER not in text:
        text = f"{PLACEHOLDER}\n{text}"
    elif arm.image_place == "front":
        text = to_front(text)
    if text.count(PLACEHOLDER) != (image is not None):
        raise DataError(
            f"item {request['id']!r}: {text.count(PLACEHOLDER)} {PLACEHOLDER} in the text, one image at most"
        )
    shown = [
        turn for pair in request.get("demonstrations", ()) for turn in zip(("user", "assistant"), pair, strict=True)
    ]
    if any(PLACEHOLDER in said for _, said in shown) or (shown and conversation is None):
        raise DataError(f"item {request['id']!r}: demonstrations are texts in a conversation format, without an image")
    if conversation is None:
        return (arm.tokenizer.bos_token or "") + text
    return arm.tokenizer.apply_chat_template(
        [{"role": role, "content": parts(said)} for role, said in (*shown, ("user", text))],
        chat_template=templates.load(conversation),
        tokenize=False,
        add_generation_prompt=True,
    )


def prompt_text(arm: Arm, request: dict) -> str:
    """What the arm reads for a request of `generate`: the placeholder of an image once for each of its features."""
    return _expanded(arm, _prompt(arm, request, arm.conversation), request)


def check_pictures(arm: Arm, requests: Sequence[dict]) -> None:
    """DataError where a request's picture would not reach the model: one placeholder token for each feature.

    A literal "<image>" that is read as text asks without a picture, and says nothing of it.
    """
    _, tokenizer = language_model(arm)
    placeholder, expected = arm.processor.image_token_id, arm.model.config.image_seq_length
    prompts = [_prompt(arm, request, arm.conversation) for request in requests]
    for request, ids in zip(requests, _encode(arm, tokenizer, prompts, requests), strict=True):
        if request.get("image") is None or ids.count(placeholder) != expected:
            found = f"{ids.count(placeholder)} image tokens for {expected} features"
            raise DataError(f"item {request['id']!r}: its picture does not reach the model ({found})")


def _expanded(arm: Arm, prompt: str, request: dict) -> str:
    if request.get("image") is None:
        return prompt
    return prompt.replace(PLACEHOLDER, image_text(arm.tokenizer, arm.model.config.image_seq_length))


def _encode(
    arm: Arm, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], requests: Sequence[dict]
) -> list[list[int]]:
    texts = [_expanded(arm, prompt, request) for prompt, request in zip(prompts, requests, strict=True)]
    return tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []


def _check(model: LlamaForCausalLM, requests: Sequence[dict], ids: list[list[int]], new: int) -> None:
    limit = model.config.max_position_embeddings
    seen = set()
    for request, tokens in zip(requests, ids, strict=True):
        if str(request["id"]) in seen:
            raise DataError(f"item id {request['id']!r} is used twice. Give every request its own")
        seen.add(str(request["id"]))
        if len(tokens) + new > limit:
            raise DataError(
                f"item {request['id']!r}: {len(tokens)} tokens and {new} new ones, the model reads {limit}. "
                "Shorten the text or lower max_new_tokens"
            )


@dataclass
class _Writer:
    """Writes the answers to one batch of requests, given by their numbers."""

    model: LlamaForCausalLM
    tokenizer: PreTrainedTokenizerBase
    images: _Images
    prompts: list[list[int]]
    how: Decoding
    stop: str | None

    def write(self, numbers: list[int], skip: int) -> list[str]:
        """Answers, the first `skip` tokens of the prompts computed once an image."""
        pad, prompts = pad_token(self.model, self.tokenizer), [self.prompts[i] for i in numbers]
        width = max(map(len, prompts))
        holes = [width - len(prompt) for prompt in prompts]  # before what is not shared: answers line up
        rows = [p[:skip] + [pad] * hole + p[skip:] for hole, p in zip(holes, prompts, strict=True)]
        ids = torch.tensor(rows, device=self.model.device)
        mask = torch.ones_like(ids)
        for i, hole in enumerate(holes):
            mask[i, skip : skip + hole] = 0
        read = {"input_ids": ids, "past_key_values": self._past(numbers, skip), "use_cache": True}
        if not skip:
            read = {"inputs_embeds": self._embedded(ids, numbers)}
        criteria = [StopOnStrings(self.tokenizer, [self.stop], width if skip else 0)] if self.stop else None
        with self._seeded(prompts):
            made = self.model.generate(
                **read, attention_mask=mask, generation_config=self._config(), stopping_criteria=criteria
            )
        made = made[:, width:] if skip else made
        answers = self.tokenizer.batch_decode(made, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return [cut(answer, [self.stop] if self.stop else [], keep=self.how.keep_stop).strip() for answer in answers]

    def _config(self) -> GenerationConfig:
        end, pad = end_tokens(self.model, self.tokenizer) or None, pad_token(self.model, self.tokenizer)
        chance = {"temperature": self.how.temperature, "top_k": self.how.top_k} if self.how.sampled else {}
        length = {"max_new_tokens": self.how.max_new_tokens, "min_new_tokens": self.how.min_new_tokens or None}
        return GenerationConfig(
            do_sample=self.how.sampled, eos_token_id=end, pad_token_id=pad, **length, **chance
        )

    @contextlib.contextmanager
    def _seeded(self, prompts: list[list[int]]) -> Iterator[None]:
        """Chance that depends on the seed and on this batch alone: what was answered before a kill changes nothing."""
        if not self.how.sampled:
            yield
            return
        with torch.random.fork_rng():
            torch.manual_seed(int(sha256(f"{self.how.seed} {prompts}")[:15], 16))
            yield

    def _past(self, numbers: list[int], skip: int) -> DynamicCache | None:
        """Keys and values of the shared beginnings, one row a request."""
        if not skip:
            return None
        first = {self.images.names[i]: i for i in numbers}  # any of an image's requests: they begin alike
        ids = torch.tensor([self.prompts[i][:skip] for i in first.values()], device=self.model.device)
        # what stands before every image, a template's example say, is computed once for all
        head = self.head if skip > self.head else 0
        before = repeated(self._head_cache, [0] * len(first), self.model.config) if head else None
        rest = self._embedded(ids, list(first.values()))[:, head:]
        read = {"inputs_embeds": rest, "past_key_values": before}
        past = keys_and_values(self.model, **read)
        row = {name: k for k, name in enumerate(first)}
        return repeated(past, [row[self.images.names[i]] for i in numbers], self.model.config)

    @cached_property
    def head(self) -> int:
        """Tokens that all prompts begin with, before any image; 0 where computing them once would not pay."""
        length = common(min(self.prompts), max(self.prompts))
        if self.images.placeholder in self.prompts[0][:length]:
            length = self.prompts[0].index(self.images.placeholder)
        return length if length >= MIN_PREFIX and len(self.images.distinct) > 1 else 0

    @cached_property
    def _head_cache(self) -> DynamicCache | None:
        return read_prefix(self.model, tuple(self.prompts[0][: self.head]))

    def _embedded(self, ids: torch.Tensor, numbers: list[int]) -> torch.Tensor:
        embeds = self.model.get_input_embeddings()(ids)
        for i, number in enumerate(numbers):
            features = self.images.features(number)
            if features is not None:
                embeds[i, ids[i] == self.images.placeholder] = features.to(embeds.dtype)
        return embeds
