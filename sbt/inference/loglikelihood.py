"""Log-likelihoods of continuations, tokenised as the LM evaluation harness does, every shared prefix computed once.

loglikelihoods(model, tokenizer, [{"id": "q1", "context": "Q: ..\\nA:", "continuations": [" yes", " no"]}], cache=file)
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from transformers import DynamicCache, LlamaForCausalLM, PreTrainedTokenizerBase

from sbt.inference.kvcache import encode_primer, primed
from sbt.inference.prefix_tree import Batch, Row, batches, plan
from sbt.inference.result_cache import ItemCache
from sbt.models import silence_libraries, weights_sample
from sbt.utils.errors import DataError
from sbt.utils.files import sha256

_POSITIONS = 1024  # positions whose vocabulary is held at once
_CPU_TOKENS = 4096  # of a batch on a CPU: more leave its caches, and a small model is then half as fast again


def loglikelihoods(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    requests: Sequence[dict],
    *,
    cache: Path,
    batch_size: int = 32,
    add_bos: bool = False,
    truncated: dict[str, int] | None = None,
    identity: str = "",
    progress: Callable[[int, int], None] | None = None,
) -> list[list[float]]:
    """For each request the log-probability (nats) of each of its `continuations` after its `context`.

    Tokens are those of the harness: trailing spaces of the context go to the continuation, the whole is encoded once
    and split at the length of the encoded context; no BOS unless `add_bos`; softmax in float32, summed over tokens in
    float64 (in float32 the sum alone may lose 1e-4 of several hundred nats, as it does in HFLM).
    Finished items are kept in `cache` and the batches do not depend on it, so a resumed run gives the same bits.
    `identity` names the model in the cache.

    DataError names an item that is empty, or longer than the model's context; with `truncated` such a context is cut
    from the left, as the harness does, and listed there as {id: tokens}.
    """
    names = item_names(requests)
    items = encode(tokenizer, requests, add_bos)
    limit = model.config.max_position_embeddings
    items = [_fitted(name, rows, limit, truncated) for name, rows in zip(names, items, strict=True)]
    identity = identity or weights_sample(model)
    keys = [_key(identity, request, add_bos) for request in requests]
    with ItemCache(cache) as kept:
        known = [kept.get(name, key) for name, key in zip(names, keys, strict=True)]

        def keep(found: dict[int, list[tuple[float, bool]]]) -> None:
            values = {i: [value for value, _ in found[i]] for i in sorted(found) if known[i] is None}
            known_now = {names[i]: (keys[i], value) for i, value in values.items()}
            kept.add(known_now)
            for i, value in values.items():
                known[i] = value

        todo = {i for i, value in enumerate(known) if value is None}
        score(model, items, batch_size=batch_size, only=todo, keep=keep, progress=progress)
    return [_in_order(request, value) for request, value in zip(requests, known, strict=True)]


def score(
    model: LlamaForCausalLM,
    items: Sequence[Sequence[Row]],
    *,
    batch_size: int,
    only: set[int] | None = None,
    keep: Callable[[dict], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[list[tuple[float, bool]]]:
    """For each row of each item its summed log-probability, and whether greedy decoding would produce it.

    `only` are the items wanted: a batch without any of them is left out. `keep` is given finished items as they come.
    """
    found: list[list] = [[None] * len(rows) for rows in items]
    missing = [len(rows) for rows in items]
    work = list(batches(plan(items), batch_size, *([_CPU_TOKENS] if model.device.type == "cpu" else [])))
    last_primer, past, passed = None, None, 0
    with torch.inference_mode():
        for batch in work:
            if only is None or any(place[0] in only for place in batch.places):
                if batch.primer is not last_primer:
                    last_primer, past = batch.primer, primed(encode_primer(model, batch.primer), model.config)
                done = {}
                for (item, row), value in zip(batch.places, _score(model, batch, past), strict=True):
                    found[item][row] = value
                    missing[item] -= 1
                    if missing[item] == 0:
                        done[item] = found[item]
                if keep is not None:
                    keep(done)
            passed += len(batch.places)
            if progress is not None:
                progress(passed, sum(map(len, items)))
    return found


def encode(tokenizer: PreTrainedTokenizerBase, requests: Sequence[dict], add_bos: bool = False) -> list[list[Row]]:
    """Token ids as `_encode_pair` of the harness (lm_eval/api/model.py) splits them, one row a distinct continuation.

    DataError names an item without continuations, or one whose continuation has no tokens of its own.
    """
    pairs = [(request, *_moved(request["context"], text)) for request in requests for text in _distinct(request)]
    wholes = _ids(tokenizer, [context + continuation for _, context, continuation in pairs])
    heads = dict(zip(texts := list({c: None for _, c, _ in pairs}), _ids(tokenizer, texts), strict=True))
    found: dict[int, list[Row]] = {id(request): [] for request in requests}
    for (request, context, continuation), whole in zip(pairs, wholes, strict=True):
        length = len(heads[context])
        head, tail = begin(tokenizer, context, whole[:length], add_bos), whole[length:]
        if not tail:
            raise DataError(f"item {request['id']!r}: continuation {continuation!r} has no tokens of its own")
        found[id(request)].append(Row(tuple(head), tuple(tail)))
    for request in requests:
        if not found[id(request)]:
            raise DataError(f"item {request['id']!r}: no continuations to score")
    return [found[id(request)] for request in requests]


def begin(tokenizer: PreTrainedTokenizerBase, context: str, ids: list[int], add_bos: bool) -> list[int]:
    """Token ids of a context with the BOS they begin with, if any; a conversation template may have written it."""
    written = bool(tokenizer.bos_token) and context.startswith(tokenizer.bos_token)
    if not ids or (add_bos and not written):  # something must come before the first token: so does the harness
        return [tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id, *ids]
    return ids


def _moved(context: str, continuation: str) -> tuple[str, str]:
    stripped = context.rstrip()
    return stripped, context[len(stripped) :] + continuation


def _ids(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[list[int]]:
    with silence_libraries():  # the tokenizer warns of long texts; `_fitted` deals with them
        return tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []


def _distinct(request: dict) -> list[str]:
    """Each continuation once: in TruthfulQA every choice of mc1 is among those of mc2."""
    return list(dict.fromkeys(request["continuations"]))


def _in_order(request: dict, values: list[float]) -> list[float]:
    of = dict(zip(_distinct(request), values, strict=True))
    return [of[continuation] for continuation in request["continuations"]]


def item_names(requests: Sequence[dict]) -> list[str]:
    """The ids of the requests as text; DataError where one is used twice."""
    names = [str(request["id"]) for request in requests]
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise DataError(f"item id {name!r} is used twice. Give every request its own")
        seen.add(name)
    return names


def _fitted(name: str, rows: list[Row], limit: int, truncated: dict[str, int] | None) -> list[Row]:
    longest = max(len(row.context) + len(row.continuation) for row in rows)
    if longest <= limit + 1:  # the last token is predicted, not read
        return rows
    if truncated is None:
        raise DataError(f"item {name!r}: {longest} tokens, the model reads {limit}. Shorten its context")
    truncated[name] = longest
    return [fit(row, limit) for row in rows]


def fit(row: Row, limit: int) -> Row:
    """The row with its context cut from the left, so that the model reads `limit` tokens at most."""
    room = limit + 1 - len(row.continuation)
    if room < 1:
        raise DataError(f"a continuation of {len(row.continuation)} tokens is longer than the model's {limit}")
    return Row(row.context[-room:], row.continuation)


def _score(model: LlamaForCausalLM, batch: Batch, past: DynamicCache | None) -> list[tuple[float, bool]]:
    """(log-likelihood, greedy) of the batch's rows in their order."""
    ids, mask, positions = (part if part is None else part.to(model.device) for part in batch.tensors())
    hidden = model.model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=positions,
        past_key_values=past,
        use_cache=past is not None,
    ).last_hidden_state
    line, node, target, owner = (torch.tensor(part, device=model.device) for part in batch.predictions())
    sums, greedy = torch.zeros(len(batch.places), dtype=torch.float64), torch.ones(len(batch.places), dtype=torch.bool)
    for start in range(0, len(line), _POSITIONS):  # the vocabulary at the scored positions only, not at all of them
        part = slice(start, start + _POSITIONS)
        logits = model.lm_head(hidden[line[part], node[part]]).float()
        best = (logits.argmax(dim=-1) == target[part]).cpu()
        chosen = logits.log_softmax(dim=-1).gather(1, target[part, None])[:, 0].double().cpu()
        sums.index_add_(0, owner[part].cpu(), chosen)
        greedy[owner[part].cpu()[~best]] = False
    return list(zip(sums.tolist(), greedy.tolist(), strict=True))


def _key(identity: str, request: dict, add_bos: bool) -> str:
    return sha256("\x1f".join([identity, str(add_bos), request["context"], *_distinct(request)]))[:16]
