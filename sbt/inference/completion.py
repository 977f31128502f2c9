"""Greedy continuations of plain text, as the LM evaluation harness asks for them; a shared beginning is computed once.

complete(model, tokenizer, [{"id": "1", "context": "Q: ...", "until": ["\\n"]}], cache=file, max_new_tokens=64)
"""

import copy
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import nn
from transformers import DynamicCache, GenerationConfig, PreTrainedTokenizerBase, StoppingCriteria

from sbt.inference.loglikelihood import can_share
from sbt.inference.prefix_tree import TokenSequence, clusters, read_prefix, repeated
from sbt.inference.result_cache import ItemCache
from sbt.inference.tokens import PartTokens, context_length, fitted, item_names, prompt_ids
from sbt.models import silence_libraries, weights_sample
from sbt.utils.errors import DataError, ParameterError
from sbt.utils.files import sha256

_CHECKED: weakref.WeakKeyDictionary[nn.Module, bool] = weakref.WeakKeyDictionary()


def complete(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    requests: Sequence[dict],
    *,
    cache: Path,
    max_new_tokens: int = 256,
    batch_size: int = 32,
    add_bos: bool | None = None,
    truncated: dict[str, int] | None = None,
    identity: str = "",
    progress: Callable[[int, int], None] | None = None,
    prompts: Sequence[tuple[int, ...]] | None = None,
) -> list[str]:
    """What greedy decoding writes after each `context`, cut before the first of the stop strings in `until`.

    An answer also ends at an end token of the tokenizer or of the model's generation_config, whose other settings
    hold, too, or after `max_new_tokens` (a request may have its own number under that name). Blanks are kept, as the
    harness keeps them. Finished items are kept in `cache`. DataError names an item too long for the model; with
    `truncated` its context is cut from the left and listed there as {id: tokens}. `prompts`: what `prompt_ids` gives
    of the requests, where it is known; `identity`: the model's `weights_sample`, likewise. ParameterError where
    `max_new_tokens` leaves no room, or where the model's generation_config asks for beam search.
    """
    names = item_names(requests)
    sizes = [request.get("max_new_tokens", max_new_tokens) for request in requests]
    prompts = prompt_ids(tokenizer, requests, add_bos) if prompts is None else prompts
    prompts = _fitting(requests, prompts, sizes, context_length(model, tokenizer), truncated)
    longest = max((len(ids) + size for ids, size in zip(prompts, sizes, strict=True)), default=0)
    writer = _Writer(model, tokenizer)
    identity, done = identity or weights_sample(model), 0
    keys = [
        _key(f"{identity} {add_bos} {size}", one, ids) for one, ids, size in zip(requests, prompts, sizes, strict=True)
    ]
    with ItemCache(cache) as kept:
        share = any(kept.get(*one) is None for one in zip(names, keys, strict=True)) and _can_share(writer, longest)
        for (size, until), prefix, order in _groups(requests, sizes, prompts, share):
            past = None
            for start in range(0, len(order), batch_size):
                batch = order[start : start + batch_size]
                if any(kept.get(names[i], keys[i]) is None for i in batch):
                    with silence_libraries(), torch.inference_mode():
                        past = past or read_prefix(model, prefix)
                        texts = writer.write([prompts[i] for i in batch], prefix, past, until, size)
                    kept.add({names[i]: (keys[i], text) for i, text in zip(batch, texts, strict=True)})
                done += len(batch)
                if progress is not None:
                    progress(done, len(requests))
        return [kept.get(name, key) for name, key in zip(names, keys, strict=True)]


def _fitting(
    requests: Sequence[dict],
    prompts: Sequence[tuple[int, ...]],
    sizes: Sequence[int],
    length: int,
    truncated: dict[str, int] | None,
) -> list[tuple[int, ...]]:
    """The prompts, each with room for its new tokens in `length`; errors and `truncated` as in `complete`."""
    found = []
    for request, ids, new in zip(requests, prompts, sizes, strict=True):
        name, limit = str(request["id"]), length - new
        if limit < 1:
            raise ParameterError(f"max_new_tokens {new} leaves no room for a prompt. Lower it")
        if len(ids) > limit and truncated is None:
            raise DataError(
                f"item {name!r}: {len(ids)} tokens, the model reads {limit} before it writes. Shorten it, or set "
                "too_long=truncate to cut it from the left"
            )
        if len(ids) > limit:
            truncated[name] = len(ids)
        found.append(ids[-limit:])
    return found


def check_lengths(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    asked: Mapping[str, Sequence[dict]],
    tokens: Callable[[str], PartTokens],
    *,
    max_new_tokens: int = 256,
) -> None:
    """DataError names the first part and item of `asked` that is too long, before anything is computed.

    `tokens` gives those of a part, as `RunTokens.of` does.
    """
    limit = context_length(model, tokenizer)
    for part, requests in asked.items():
        try:
            own = tokens(part)
            if own.items:
                for one, sequences in zip(requests, own.items, strict=True):
                    fitted(str(one["id"]), sequences, limit, None)
            if own.prompts:
                sizes = [one.get("max_new_tokens", max_new_tokens) for one in requests]
                _fitting(requests, own.prompts, sizes, limit, None)
        except (DataError, ParameterError) as error:
            raise type(error)(f"{part}, {error}") from None


def end_tokens(model: nn.Module, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The tokens that end an answer: the tokenizer's and those of the model's generation_config."""
    given = model.generation_config.eos_token_id
    more = given if isinstance(given, list) else [given]
    return [one for one in dict.fromkeys([tokenizer.eos_token_id, *more]) if one is not None]


def pad_token(model: nn.Module, tokenizer: PreTrainedTokenizerBase) -> int:
    """A token to fill rows with; attention leaves it out, so any will do where the tokenizer has none."""
    return tokenizer.pad_token_id if tokenizer.pad_token_id is not None else (end_tokens(model, tokenizer) or [0])[0]


class StopOnStrings(StoppingCriteria):
    """Ends the rows whose latest tokens, those after the first `skip`, spell one of the stop strings."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stops: Sequence[str], skip: int = 0) -> None:
        self.tokenizer, self.stops, self.skip = tokenizer, list(stops), skip
        self.window = 1 + max(map(len, self.stops))  # in tokens: a token has a character at least

    def __call__(self, input_ids: torch.LongTensor, scores: torch.Tensor, **kwargs: object) -> torch.BoolTensor:
        latest = input_ids[:, max(self.skip, input_ids.shape[1] - self.window) :]
        tails = self.tokenizer.batch_decode(latest, clean_up_tokenization_spaces=False)
        return torch.tensor([any(stop in tail for stop in self.stops) for tail in tails], device=input_ids.device)


def cut(answer: str, stops: Sequence[str], *, keep: bool = False) -> str:
    """The answer up to the first of the stop strings, or with `keep` up to its end."""
    for stop in stops:
        before, found, _ = answer.partition(stop)
        answer = before + found if keep else before
    return answer


class _Writer:
    """Writes the continuations of one batch of prompts."""

    def __init__(self, model: nn.Module, tokenizer: PreTrainedTokenizerBase) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.pad = pad_token(model, tokenizer)
        self.config: GenerationConfig = copy.deepcopy(model.generation_config)
        if (self.config.num_beams or 1) > 1:
            raise ParameterError(
                f"the model's generation_config sets num_beams={self.config.num_beams}; texts are decoded greedily "
                "here. Set model.generation_config.num_beams to 1"
            )
        greedy = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None, "min_p": None}
        self.config.update(**greedy, max_length=None, use_cache=True, pad_token_id=self.pad)
        self.config.eos_token_id = end_tokens(model, tokenizer) or None

    def write(
        self,
        prompts: Sequence[tuple[int, ...]],
        prefix: tuple[int, ...],
        past: DynamicCache | None,
        until: Sequence[str],
        new: int,
    ) -> list[str]:
        """Texts after prompts that all begin with `prefix`, whose keys and values are `past`."""
        made = self.tokens(prompts, prefix, past, until, new)
        texts = self.tokenizer.batch_decode(made, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return [cut(text, until) for text in texts]

    def tokens(
        self,
        prompts: Sequence[tuple[int, ...]],
        prefix: tuple[int, ...],
        past: DynamicCache | None,
        until: Sequence[str],
        new: int,
    ) -> torch.Tensor:
        """The new tokens of each prompt, padded."""
        width = max(map(len, prompts))
        # padding stands between the prefix, whose keys and values are there, and the rest: all rows end together
        holes = [width - len(prompt) for prompt in prompts]
        rows = [prefix + (self.pad,) * hole + one[len(prefix) :] for hole, one in zip(holes, prompts, strict=True)]
        ids = torch.tensor(rows, device=self.model.device)
        mask = torch.ones_like(ids)
        for i, hole in enumerate(holes):
            mask[i, len(prefix) : len(prefix) + hole] = 0
        self.config.max_new_tokens = new
        read = {"input_ids": ids, "attention_mask": mask}
        if past is not None:
            read["past_key_values"] = repeated(past, [0] * len(ids), self.model.config)
        stopping = [StopOnStrings(self.tokenizer, until, width)] if until else None
        return self.model.generate(**read, generation_config=self.config, stopping_criteria=stopping)[:, width:]


def _can_share(writer: _Writer, longest: int) -> bool:
    """Whether a shared prefix with padding after it leaves this model's continuations as they are; tried once."""
    if not can_share(writer.model, longest):
        return False
    if writer.model not in _CHECKED:
        prompts = [tuple(range(5, 5 + length)) for length in (13, 17)]
        try:
            with silence_libraries(), torch.inference_mode():
                past = read_prefix(writer.model, prompts[0][:10])
                shared = writer.tokens(prompts, prompts[0][:10], past, (), 3).tolist()
                alone = [writer.tokens([one], (), None, (), 3)[0].tolist() for one in prompts]
            _CHECKED[writer.model] = all(a[: len(b)] == b for a, b in zip(shared, alone, strict=True))
        except Exception:  # whatever a model raises that cannot read a prefix before padding
            _CHECKED[writer.model] = False
    return _CHECKED[writer.model]


def _groups(
    requests: Sequence[dict], sizes: Sequence[int], prompts: Sequence[tuple], share: bool
) -> Iterator[tuple[tuple, tuple, list[int]]]:
    """((new tokens, stop strings), shared prefix, requests with these, the longest first)."""
    ends = [(n, tuple(filter(None, one["until"]))) for n, one in zip(sizes, requests, strict=True)]
    for end in dict.fromkeys(ends):
        chosen = [i for i, one in enumerate(ends) if one == end]
        together = clusters([[TokenSequence(prompts[i], ())] for i in chosen])
        for prefix, members in together if share else [((), range(len(chosen)))]:
            yield end, prefix, sorted((chosen[k] for k in members), key=lambda i: (-len(prompts[i]), i))


def _key(settings: str, request: dict, ids: tuple[int, ...]) -> str:
    return sha256("\x1f".join([settings, str(len(ids)), *request["until"], request["context"]]))[:16]
