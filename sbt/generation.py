"""Greedy answers of an arm to questions with or without an image, in batches; each kept as it comes.

generate(arm, [{"id": "1", "image": "a.png", "text": "Is there a star?"}], cache=file, max_new_tokens=16)
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import torch
from PIL import Image
from transformers import GenerationConfig, LlamaForCausalLM, PreTrainedTokenizerBase, StoppingCriteria

from sbt import templates
from sbt.data.llava import PLACEHOLDER, parts
from sbt.errors import DataError
from sbt.files import file_hash, sha256
from sbt.itemcache import ItemCache
from sbt.models import Arm, language_model, quiet, weights_sample

T = TypeVar("T")
_IMAGES_AT_ONCE = 16
_FEATURE_BYTES = 2**30


def generate(
    arm: Arm,
    requests: Sequence[dict],
    *,
    cache: Path,
    max_new_tokens: int = 64,
    batch_size: int = 32,
    conversation: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[str]:
    """The answer to each request {"id", "image": path | PIL image | None, "text"}, stripped, in the order of requests.

    The prompt is the arm's conversation format (or `conversation`); an arm without one continues the text. An image
    without `<image>` in the text comes first, as in training. An answer ends at the eos token, or at the format's own
    end sign. Finished items are kept in `cache`; batches do not depend on it, so a resumed run answers the same.
    DataError names an item with an image for an arm without vision, an unreadable one, or one that is too long.
    """
    language, tokenizer = language_model(arm)
    name = conversation or arm.conversation
    prompts = [_prompt(arm, request, name) for request in requests]
    images = _Images(arm, requests)
    ids = [_encode(arm, tokenizer, prompt, request) for prompt, request in zip(prompts, requests, strict=True)]
    _check(language, requests, ids, max_new_tokens)
    identity = weights_sample(arm.model)
    keys = [
        sha256(f"{identity} {max_new_tokens} {images.key(number)} {prompt}")[:16]
        for number, prompt in enumerate(prompts)
    ]
    order = sorted(range(len(ids)), key=lambda i: (-len(ids[i]), i))
    stop = templates.stop_string(name) if name else None
    with ItemCache(cache) as kept, quiet(), torch.inference_mode():
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            if any(kept.get(str(requests[i]["id"]), keys[i]) is None for i in batch):
                answers = _answer(language, tokenizer, [ids[i] for i in batch], images, batch, max_new_tokens, stop)
                kept.add({str(requests[i]["id"]): (keys[i], a) for i, a in zip(batch, answers, strict=True)})
            if progress is not None:
                progress(min(start + batch_size, len(order)), len(order))
        return [kept.get(str(request["id"]), key) for request, key in zip(requests, keys, strict=True)]


class _Images:
    """Projected features by image; each distinct one is encoded once, in groups that do not depend on a resume."""

    def __init__(self, arm: Arm, requests: Sequence[dict]) -> None:
        self.arm, self.requests = arm, requests
        self.names = [self._name(request) for request in requests]
        self.distinct = list(dict.fromkeys(name for name in self.names if name is not None))
        self.place = {name: i for i, name in enumerate(self.distinct)}
        self.source = {name: request for name, request in zip(self.names, requests, strict=True) if name is not None}
        self.hashes: dict[str, str] = {}
        self.kept: OrderedDict[str, torch.Tensor] = OrderedDict()

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
        names = self.distinct[group * _IMAGES_AT_ONCE : (group + 1) * _IMAGES_AT_ONCE]
        model = self.arm.model
        pixels = self.arm.processor.image_processor([self._open(name) for name in names], return_tensors="pt")
        pixels = pixels["pixel_values"].to(model.device, model.dtype)
        encoded = model.get_image_features(pixel_values=pixels).pooler_output
        self.kept.update(zip(names, encoded, strict=True))
        size = encoded[0].numel() * encoded[0].element_size()
        while len(self.kept) > max(2 * _IMAGES_AT_ONCE, _FEATURE_BYTES // size):
            self.kept.popitem(last=False)

    def _open(self, name: str) -> Image.Image:
        given = self.source[name]["image"]
        if isinstance(given, Image.Image):
            return given.convert("RGB")
        return self._guard(name, lambda: Image.open(given).convert("RGB"))

    def _guard(self, name: str, read: Callable[[], T]) -> T:
        try:
            return read()
        except (OSError, SyntaxError, ValueError) as error:
            item = self.source[name]["id"]
            raise DataError(f"item {item!r}: image {name} cannot be read ({error}). Restore the file") from error

    @staticmethod
    def _name(request: dict) -> str | None:
        image = request.get("image")
        if isinstance(image, Image.Image):
            return sha256(image.convert("RGB").tobytes() + str(image.size).encode())
        return None if image is None else str(image)


def _prompt(arm: Arm, request: dict, conversation: str | None) -> str:
    text, image = request["text"], request.get("image")
    if image is not None and not arm.has_vision:
        raise DataError(f"item {request['id']!r} has an image but the arm ({arm.kind}) has no vision tower")
    if image is not None and PLACEHOLDER not in text:
        text = f"{PLACEHOLDER}\n{text}"
    if text.count(PLACEHOLDER) != (image is not None):
        raise DataError(
            f"item {request['id']!r}: {text.count(PLACEHOLDER)} {PLACEHOLDER} in the text, one image at most"
        )
    if conversation is None:
        return (arm.tokenizer.bos_token or "") + text
    return arm.tokenizer.apply_chat_template(
        [{"role": "user", "content": parts(text)}],
        chat_template=templates.load(conversation),
        tokenize=False,
        add_generation_prompt=True,
    )


def _encode(arm: Arm, tokenizer: PreTrainedTokenizerBase, prompt: str, request: dict) -> list[int]:
    if request.get("image") is not None:
        prompt = prompt.replace(PLACEHOLDER, PLACEHOLDER * arm.model.config.image_seq_length)
    return tokenizer.encode(prompt, add_special_tokens=False)


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


def _answer(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[list[int]],
    images: _Images,
    numbers: list[int],
    new: int,
    stop: str | None,
) -> list[str]:
    width = max(map(len, prompts))
    pad = tokenizer.pad_token_id
    ids = torch.tensor([[pad] * (width - len(p)) + p for p in prompts], device=model.device)  # left: answers line up
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=model.device)
    embeds = model.get_input_embeddings()(ids)
    placeholder = getattr(images.arm.processor, "image_token_id", None)
    for i, number in enumerate(numbers):
        features = images.features(number)
        if features is not None:
            embeds[i, ids[i] == placeholder] = features.to(embeds.dtype)
    config = GenerationConfig(
        max_new_tokens=new, do_sample=False, eos_token_id=tokenizer.eos_token_id, pad_token_id=pad
    )
    criteria = [StopAt(tokenizer, [stop])] if stop else None
    made = model.generate(
        inputs_embeds=embeds, attention_mask=mask, generation_config=config, stopping_criteria=criteria
    )
    answers = tokenizer.batch_decode(made, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return [cut(answer, [stop] if stop else []).strip() for answer in answers]


def cut(answer: str, stops: Sequence[str]) -> str:
    """The answer up to the first of the stop strings."""
    for stop in stops:
        answer = answer.split(stop)[0]
    return answer


class StopAt(StoppingCriteria):
    """Ends the rows whose latest tokens, those after the first `skip`, spell one of the stop strings."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stops: Sequence[str], skip: int = 0) -> None:
        self.tokenizer, self.stops, self.skip = tokenizer, list(stops), skip
        self.window = 1 + max(map(len, self.stops))  # in tokens: a token has a character at least

    def __call__(self, input_ids: torch.LongTensor, scores: torch.Tensor, **kwargs: object) -> torch.BoolTensor:
        latest = input_ids[:, max(self.skip, input_ids.shape[1] - self.window) :]
        tails = self.tokenizer.batch_decode(latest, clean_up_tokenization_spaces=False)
        return torch.tensor([any(stop in tail for stop in self.stops) for tail in tails], device=input_ids.device)
