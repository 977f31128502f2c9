"""Greedy continuations of plain text, as the LM evaluation harness asks for them; a shared beginning is computed once.

complete(model, tokenizer, [{"id": "1", "context": "Q: ...", "until": ["\\n"]}], cache=file, max_new_tokens=64)
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from transformers import GenerationConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from sbt.inference.kvcache import encode_primer, expanded
from sbt.inference.loglikelihood import begin, item_names
from sbt.inference.prefix_tree import Row, clusters
from sbt.inference.result_cache import ItemCache
from sbt.inference.stops import StopAt, cut
from sbt.models import silence_libraries, weights_sample
from sbt.utils.errors import DataError, ParameterError
from sbt.utils.files import sha256


def complete(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    requests: Sequence[dict],
    *,
    cache: Path,
    max_new_tokens: int = 256,
    batch_size: int = 32,
    add_bos: bool = False,
    truncated: dict[str, int] | None = None,
    identity: str = "",
    progress: Callable[[int, int], None] | None = None,
) -> list[str]:
    """What greedy decoding writes after each `context`, cut before the first of the stop strings in `until`.

    An answer also ends at the eos token or after `max_new_tokens` (a request may have its own number under that name).
    Blanks are kept, as the harness keeps them.
    Finished items are kept in `cache`. DataError names an item too long for the model; with `truncated` its context
    is cut from the left and listed there as {id: tokens}. ParameterError where `max_new_tokens` leaves no room.
    """
    names = item_names(requests)
    sizes = [request.get("max_new_tokens", max_new_tokens) for request in requests]
    prompts = _prompts(tokenizer, requests, add_bos, [_room(model, size) for size in sizes], truncated)
    identity, done = identity or weights_sample(model), 0
    keys = [
        _key(f"{identity} {add_bos} {size}", one, ids) for one, ids, size in zip(requests, prompts, sizes, strict=True)
    ]
    with ItemCache(cache) as kept, silence_libraries(), torch.inference_mode():
        for (size, until), primer, order in _groups(requests, sizes, prompts):
            past = None
            for start in range(0, len(order), batch_size):
                batch = order[start : start + batch_size]
                if any(kept.get(names[i], keys[i]) is None for i in batch):
                    past = past or encode_primer(model, primer)
                    texts = _write(model, tokenizer, [prompts[i] for i in batch], primer, past, until, size)
                    kept.add({names[i]: (keys[i], text) for i, text in zip(batch, texts, strict=True)})
                done += len(batch)
                if progress is not None:
                    progress(done, len(requests))
        return [kept.get(name, key) for name, key in zip(names, keys, strict=True)]


def _room(model: LlamaForCausalLM, new: int) -> int:
    limit = model.config.max_position_embeddings - new
    if limit < 1:
        raise ParameterError(f"max_new_tokens {new} leaves no room for a prompt. Lower it")
    return limit


def _key(settings: str, request: dict, ids: tuple[int, ...]) -> str:
    return sha256("\x1f".join([settings, str(len(ids)), *request["until"], request["context"]]))[:16]


def _groups(
    requests: Sequence[dict], sizes: Sequence[int], prompts: Sequence[tuple]
) -> Iterator[tuple[tuple, tuple, list[int]]]:
    """((new tokens, stop strings), primer, requests with these, the longest first)."""
    ends = [(size, tuple(request["until"])) for size, request in zip(sizes, requests, strict=True)]
    for end in dict.fromkeys(ends):
        chosen = [i for i, one in enumerate(ends) if one == end]
        for primer, members in clusters([[Row(prompts[i], ())] for i in chosen]):
            yield end, primer, sorted((chosen[k] for k in members), key=lambda i: (-len(prompts[i]), i))


def _prompts(
    tokenizer: PreTrainedTokenizerBase,
    requests: Sequence[dict],
    add_bos: bool,
    limits: Sequence[int],
    truncated: dict[str, int] | None,
) -> list[tuple[int, ...]]:
    found = []
    encoded = tokenizer([request["context"] for request in requests], add_special_tokens=False)["input_ids"]
    for request, ids, limit in zip(requests, encoded, limits, strict=True):
        name, ids = str(request["id"]), begin(tokenizer, request["context"], ids, add_bos)
        if len(ids) > limit and truncated is None:
            raise DataError(f"item {name!r}: {len(ids)} tokens, the model reads {limit} before it writes. Shorten it")
        if len(ids) > limit:
            truncated[name] = len(ids)
        found.append(tuple(ids[-limit:]))
    return found


def _write(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[tuple[int, ...]],
    primer: tuple[int, ...],
    past: object,
    until: tuple[str, ...],
    new: int,
) -> list[str]:
    pad, width = tokenizer.pad_token_id, max(map(len, prompts))
    # padding stands between the primer, whose keys and values are there, and the rest: all rows end together
    holes = [width - len(prompt) for prompt in prompts]
    rows = [primer + (pad,) * hole + prompt[len(primer) :] for hole, prompt in zip(holes, prompts, strict=True)]
    ids = torch.tensor(rows, device=model.device)
    mask = torch.ones_like(ids)
    for i, hole in enumerate(holes):
        mask[i, len(primer) : len(primer) + hole] = 0
    config = GenerationConfig(
        max_new_tokens=new, do_sample=False, eos_token_id=tokenizer.eos_token_id, pad_token_id=pad
    )
    made = model.generate(
        input_ids=ids,
        attention_mask=mask,
        past_key_values=expanded(past, len(ids), model.config),
        use_cache=True,
        generation_config=config,
        stopping_criteria=[StopAt(tokenizer, until, width)] if until else None,
    )
    texts = tokenizer.batch_decode(made[:, width:], skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return [cut(text, until) for text in texts]
