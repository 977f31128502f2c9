"""Log-likelihoods of continuations under any causal model of transformers, every shared prefix computed once.

loglikelihoods(model, tokenizer, [{"id": "q1", "context": "Q: ..\\nA:", "continuations": [" yes", " no"]}], cache=file)

Texts are tokenised as the LM evaluation harness does it. The model's own head makes the logits, so that whatever a
model does to them (softcapping, scaling) is in them. Before a model is used, one batch with shared prefixes is
compared with plain forward passes: a model that cannot share them is asked one whole prompt at a time.
"""

import contextlib
import warnings
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from transformers import DynamicCache, PretrainedConfig, PreTrainedTokenizerBase

from sbt.inference.prefix_tree import Batch, PrefixTree, TokenSequence, batches, borrowed, plan, read_prefix
from sbt.inference.result_cache import ItemCache
from sbt.inference.tokens import context_length, distinct, encode, fitted, item_names
from sbt.models import silence_libraries, weights_sample
from sbt.utils.errors import ParameterError
from sbt.utils.files import sha256

_POSITIONS = 1024  # positions whose probabilities are computed at once
_LOGITS, _GPU_LOGITS = 2**28, 2**30  # that a batch may have at most, if it has several trees
_GPU_TOKENS = 2**14  # of a batch that is filled by its tokens: more make a large card no faster
_CPU_TOKENS = 4096  # of a batch on a CPU: more leave its caches, and a small model is then half as fast again
# Of the self-check: how far log-likelihoods may be apart, relative above 1 nat. In 16 bits, logits of 16 have steps of
# 0.125, and how far a padded batch is from single sequences shows how much is rounding.
_TOLERANCE = {True: 1e-5, False: 0.02}
_PLAIN_TOLERANCE = {True: 0.01, False: 0.1}
_CHECKED: weakref.WeakKeyDictionary[nn.Module, str] = weakref.WeakKeyDictionary()
_TOLD: weakref.WeakSet[nn.Module] = weakref.WeakSet()


def loglikelihoods(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    requests: Sequence[dict],
    *,
    cache: Path,
    batch_size: int = 32,
    add_bos: bool | None = None,
    truncated: dict[str, int] | None = None,
    identity: str = "",
    progress: Callable[[int, int], None] | None = None,
    ready: "Ready | None" = None,
) -> list[list[float]]:
    """For each request the log-probability (nats) of each of its `continuations` after its `context`.

    Tokens are those of the harness: trailing spaces of the context go to the continuation, the whole is encoded once
    and split at the length of the encoded context. `add_bos` None leaves BOS to the tokenizer; see `token_ids`.
    Softmax in float32, summed over tokens in float64 (in float32 the sum alone may lose 1e-4 of several hundred nats,
    as it does in HFLM). Finished items are kept in `cache` and the batches do not depend on it, so a resumed run
    gives the same bits. `identity`: the model's `weights_sample`, where it is known. `ready`: what `prepare` made of
    the requests, if it was called before; `truncated` is of no use then. ParameterError: the model is not causal.

    DataError names an item that is empty, or longer than the model's context; with `truncated` such a context is cut
    from the left, as the harness does, and listed there as {id: tokens}.
    """
    ready = ready or prepare(model, tokenizer, requests, add_bos=add_bos, truncated=truncated)
    names, identity = ready.names, identity or weights_sample(model)
    keys = [_key(identity, request, add_bos) for request in requests]
    with ItemCache(cache) as kept:
        known = [kept.get(name, key) for name, key in zip(names, keys, strict=True)]

        def keep(found: dict[int, list[tuple[float, bool]]]) -> None:
            values = {i: [value for value, _ in found[i]] for i in sorted(found) if known[i] is None}
            kept.add({names[i]: (keys[i], value) for i, value in values.items()})
            for i, value in values.items():
                known[i] = value

        todo = {i for i, value in enumerate(known) if value is None}
        score(model, ready.items, ready.groups, batch_size=batch_size, only=todo, keep=keep, progress=progress)
    return [_in_order(request, value) for request, value in zip(requests, known, strict=True)]


@dataclass(frozen=True)
class Ready:
    """A part that only waits for a model: the names of its items, their tokens, and the trees that hold them."""

    names: list[str]
    items: list[list[TokenSequence]]
    groups: list[Batch]


def prepare(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    requests: Sequence[dict],
    *,
    items: list[list[TokenSequence]] | None = None,
    add_bos: bool | None = None,
    truncated: dict[str, int] | None = None,
) -> Ready:
    """All that `loglikelihoods` makes of requests before the model computes. `items`: their tokens, where known.

    Errors and `truncated` as in `loglikelihoods`. The model is not called: it may be at work in another thread.
    """
    names, limit = item_names(requests), context_length(model, tokenizer)
    items = encode(tokenizer, requests, add_bos) if items is None else items
    fitting = [fitted(name, sequences, limit, truncated) for name, sequences in zip(names, items, strict=True)]
    return Ready(names, fitting, plan(fitting))


def score(
    model: nn.Module,
    items: Sequence[Sequence[TokenSequence]],
    groups: Sequence[Batch] | None = None,
    *,
    batch_size: int,
    only: set[int] | None = None,
    keep: Callable[[dict], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[list[tuple[float, bool]]]:
    """For each sequence of each item its summed log-probability, and whether greedy decoding would produce it.

    `groups`: the items' `plan`, where it is known. `only`: the items wanted; a batch without any of them is left out.
    `keep` is given finished items as they come. `batch_size` 0 fills batches by their tokens alone. A batch that the
    GPU cannot hold is halved until it can.
    """
    found: list[list] = [[None] * len(sequences) for sequences in items]
    missing = [len(sequences) for sequences in items]

    def settle(parts: Sequence[_Begun]) -> None:
        done = {}
        for begun in parts:
            for (item, number), value in zip(begun.batch.places, _summed(begun), strict=True):
                found[item][number] = value
                missing[item] -= 1
                if missing[item] == 0:
                    done[item] = found[item]
        if keep is not None and done:
            keep(done)

    lengths = [len(one.context) + len(one.continuation) - 1 for sequences in items for one in sequences]
    share, device = bool(items) and can_share(model, max(lengths)), model.device.type
    groups = plan(items, share) if groups is None or not share else groups
    tokens = _CPU_TOKENS if device == "cpu" else 2**62 if batch_size else _GPU_TOKENS
    scored = (_GPU_LOGITS if device == "cuda" else _LOGITS) // _text_config(model).vocab_size
    packed = share and device == "cuda"  # a CPU's numbers stay as they are, to the last digit
    last_prefix, past, passed, waiting = None, None, 0, []
    with torch.inference_mode():
        for batch in batches(groups, batch_size or 2**62, tokens, scored, side_by_side=packed):
            if only is None or any(place[0] in only for place in batch.places):
                if batch.prefix is not last_prefix:
                    last_prefix, past = batch.prefix, borrowed(read_prefix(model, batch.prefix), model.config)
                waiting.append(_begin(model, batch, past, share))
                if device == "cpu" or len(waiting) > 1:  # a GPU computes this batch while the next one is made
                    settle(waiting.pop(0))
            passed += len(batch.places)
            if progress is not None:
                progress(passed, len(lengths))
        settle([begun for parts in waiting for begun in parts])
    return found


def can_share(model: nn.Module, longest: int) -> bool:
    """Whether sequences of up to `longest` tokens may share prefixes; why not is told once, as a warning.

    ParameterError for a model whose logits cannot be had at chosen positions: it is no causal language model.
    """
    if model not in _CHECKED:
        with silence_libraries(), torch.inference_mode():
            _CHECKED[model] = _why_not_shared(model)
    reason, window = _CHECKED[model], _window(_text_config(model))
    if not reason and longest > window:
        reason = f"sequences of {longest} tokens, its attention or its positions change at {window}"
    if reason and model not in _TOLD:
        _TOLD.add(model)
        warnings.warn(
            f"{type(model).__name__} shares no prefixes here ({reason}). Each prompt is read whole: "
            "the numbers are the same, it takes longer",
            stacklevel=3,
        )
    return not reason


def _why_not_shared(model: nn.Module) -> str:
    """The self-check: "" or why a batch with a shared prefix, a tree and padding is not what plain passes give."""
    count = min(_text_config(model).vocab_size, 500)
    ids = [(7 * i * i + 3 * i + 5) % count for i in range(40)]
    begins, ends = (ids[:14], ids[:14], ids[:11]), (ids[20:26], ids[20:22] + ids[30:33], ids[34:37])
    sequences = [TokenSequence(tuple(a), tuple(b)) for a, b in zip(begins, ends, strict=True)]
    exact = model.dtype in (torch.float32, torch.float64)
    try:
        plain = [_alone(model, one) for one in sequences]
        [whole] = plan([sequences], share=False)
        noise = _apart(_score(model, whole, None, share=False), plain)
    except Exception as error:  # whatever a model raises that is built otherwise
        noise, told = float("inf"), _first_line(error)
    else:
        told = f"they are {noise:.2g} nats apart"
    if not noise <= _PLAIN_TOLERANCE[exact]:
        raise ParameterError(
            f"{type(model).__name__} cannot be scored: it must be a causal language model in evaluation mode, with "
            f"logits that can be had at chosen positions and are those of a plain forward pass ({told})"
        )
    try:
        for skip in (0, 10):
            batch = Batch(tuple(ids[:skip]), [PrefixTree(skip), PrefixTree(skip)])
            for number, one in enumerate(sequences):
                batch.trees[number // 2].add((0, number), one)
            past = borrowed(read_prefix(model, batch.prefix), model.config)
            difference = _apart(_score(model, batch, past, share=True), plain)
            if not difference <= _TOLERANCE[exact] + 3 * noise:
                return f"with a shared prefix its log-likelihoods are {difference:.2g} nats off"
    except Exception as error:
        return _first_line(error)
    return ""


def _alone(model: nn.Module, one: TokenSequence) -> float:
    logits = model(input_ids=torch.tensor([one.read], device=model.device)).logits[0, len(one.context) - 1 :]
    found = logits.float().log_softmax(dim=-1).cpu().double()
    return sum(found[i, token].item() for i, token in enumerate(one.continuation))


def _apart(found: Sequence[tuple[float, bool]], wanted: Sequence[float]) -> float:
    """Largest difference, relative where values are above 1."""
    return max(abs(a - b) / max(1.0, abs(b)) for (a, _), b in zip(found, wanted, strict=True))


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"[:120]


def _text_config(model: nn.Module) -> PretrainedConfig:
    return model.config.get_text_config()


def _window(config: PretrainedConfig) -> int:
    """Tokens up to which every layer attends to all that came before, and positions do not depend on the length."""
    limits = [getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size")]
    rope = getattr(config, "rope_parameters", None) or {}
    for one in (rope, *(part for part in rope.values() if isinstance(part, dict))):
        if one.get("rope_type") in ("dynamic", "longrope"):
            limits.append(one.get("original_max_position_embeddings") or config.max_position_embeddings)
    return min((limit for limit in limits if limit), default=2**62)


@contextlib.contextmanager
def _head_at(model: nn.Module, rows: torch.Tensor, places: torch.Tensor) -> Iterator[None]:
    """Let the model's head see (1, positions, width) instead of every position: a vocabulary of logits is large."""

    def pick(module: nn.Module, args: tuple) -> tuple:
        hidden = args[0]
        return hidden[rows.to(hidden.device), places.to(hidden.device)][None], *args[1:]

    handle = model.get_output_embeddings().register_forward_pre_hook(pick)
    try:
        yield
    finally:
        handle.remove()


def _score(model: nn.Module, batch: Batch, past: DynamicCache | None, share: bool) -> list[tuple[float, bool]]:
    """(log-likelihood, greedy) of the batch's sequences in their order."""
    return [value for begun in _begin(model, batch, past, share) for value in _summed(begun)]


@dataclass
class _Begun:
    """A batch that a GPU may still compute; of each prediction its log-probability, and whether greedy decoding's.

    Both are copied to the host as soon as they are there: a copy that is asked for later would wait for all that was
    begun since.
    """

    batch: Batch
    best: torch.Tensor
    chosen: torch.Tensor
    copied: torch.cuda.Event | None = None

    def __post_init__(self) -> None:
        later = self.best.device.type == "cuda"
        self.best, self.chosen = (tensor.to("cpu", non_blocking=later) for tensor in (self.best, self.chosen))
        if later:
            self.copied = torch.cuda.Event()
            self.copied.record()

    def wait(self) -> None:
        """Return when the host has both."""
        if self.copied is not None:
            self.copied.synchronize()


def _begin(model: nn.Module, batch: Batch, past: DynamicCache | None, share: bool) -> list[_Begun]:
    """Let the model read a batch. Nothing here waits for a GPU. Where it lacks memory, halves, one after the other."""
    try:
        return [_Begun(batch, *_predicted(model, batch, past, share))]
    except torch.OutOfMemoryError:
        if len(batch.trees) == 1:
            raise
    half = len(batch.trees) // 2  # outside of the handler, which holds on to the tensors of the pass that failed
    parts = (Batch(batch.prefix, batch.trees[:half]), Batch(batch.prefix, batch.trees[half:]))
    return [begun for part in parts for begun in _begin(model, part, past, share)]


def _predicted(
    model: nn.Module, batch: Batch, past: DynamicCache | None, share: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    ids, mask, positions = (part if part is None else _sent(part, model.device) for part in batch.tensors())
    if mask is not None and _text_config(model)._attn_implementation == "eager":  # it adds its mask to the scores
        mask = torch.zeros_like(mask, dtype=model.dtype).masked_fill(~mask, torch.finfo(model.dtype).min)
    read = {"input_ids": ids, "use_cache": past is not None}
    if share:
        read |= {"attention_mask": mask, "position_ids": positions, "past_key_values": past}
    tree, node, target = (_sent(torch.tensor(part), model.device) for part in batch.predictions[:3])
    with _head_at(model, tree, node):
        logits = model(**read).logits[0]
    if len(logits) != len(target):
        raise ValueError(f"the head gives {len(logits)} positions for {len(target)}")
    best, chosen, target = [], [], target.to(logits.device)
    for start in range(0, len(target), _POSITIONS):
        some, wanted = logits[start : start + _POSITIONS].float(), target[start : start + _POSITIONS]
        best.append(some.argmax(dim=-1) == wanted)
        chosen.append(some.log_softmax(dim=-1).gather(1, wanted[:, None])[:, 0])
    return torch.cat(best), torch.cat(chosen)


def _sent(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The tensor on the model's device; the host does not wait until a GPU is done with what it does."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def _summed(begun: _Begun) -> list[tuple[float, bool]]:
    """(log-likelihood, greedy) of each sequence, from those of its predictions."""
    begun.wait()
    owner, count = torch.tensor(begun.batch.predictions[3]), len(begun.batch.places)
    sums, greedy = torch.zeros(count, dtype=torch.float64), torch.ones(count, dtype=torch.bool)
    sums.index_add_(0, owner, begun.chosen.cpu().double())  # Apple's GPU has no float64
    greedy[owner[~begun.best]] = False
    return list(zip(sums.tolist(), greedy.tolist(), strict=True))


def _in_order(request: dict, values: list[float]) -> list[float]:
    of = dict(zip(distinct(request), values, strict=True))
    return [of[continuation] for continuation in request["continuations"]]


def _key(identity: str, request: dict, add_bos: bool | None) -> str:
    return sha256("\x1f".join([identity, str(add_bos), request["context"], *distinct(request)]))[:16]
