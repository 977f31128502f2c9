"""Token ids of what a language model is asked, split and begun as the LM evaluation harness does it."""

from collections.abc import Sequence

from lm_eval.models.utils import resolve_max_length
from torch import nn
from transformers import PreTrainedTokenizerBase

from sbt.inference.prefix_tree import TokenSequence
from sbt.models import silence_libraries
from sbt.utils.errors import DataError, ParameterError


def encode(
    tokenizer: PreTrainedTokenizerBase, requests: Sequence[dict], add_bos: bool | None = None
) -> list[list[TokenSequence]]:
    """Token ids as `_encode_pair` of the harness (lm_eval/api/model.py) splits them, one sequence a continuation.

    DataError names an item without continuations, or one whose continuation has no tokens of its own.
    """
    pairs = [(request, *_moved(request["context"], text)) for request in requests for text in distinct(request)]
    wholes = token_ids(tokenizer, [context + continuation for _, context, continuation in pairs], add_bos)
    contexts = list({context: None for _, context, _ in pairs})
    lengths = dict(zip(contexts, map(len, token_ids(tokenizer, contexts, add_bos)), strict=True))
    found: dict[int, list[TokenSequence]] = {id(request): [] for request in requests}
    for (request, context, continuation), whole in zip(pairs, wholes, strict=True):
        head, tail = whole[: lengths[context]], whole[lengths[context] :]
        if not head:
            head = begin(tokenizer, head)
            tail = tail[1:] if tail[:1] == head else tail  # a text that begins with BOS keeps one
        if not tail:
            raise DataError(f"item {request['id']!r}: continuation {continuation!r} has no tokens of its own")
        found[id(request)].append(TokenSequence(tuple(head), tuple(tail)))
    for request in requests:
        if not found[id(request)]:
            raise DataError(f"item {request['id']!r}: no continuations to score")
    return [found[id(request)] for request in requests]


def token_ids(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], add_bos: bool | None = None
) -> list[list[int]]:
    """Token ids of texts. `add_bos` None: special tokens as the tokenizer itself adds them, which is HFLM's default.

    False adds none; True puts BOS in front even where the tokenizer would not. A text that begins with BOS, because
    its conversation template wrote it, gets no second one. ParameterError: True for a tokenizer without BOS.
    """
    bos = tokenizer.bos_token
    if add_bos and bos is None:
        raise ParameterError("add_bos is true, but the tokenizer has no BOS token. Leave BOS to the tokenizer")
    written = [bool(bos) and text.startswith(bos) for text in texts]
    special = [add_bos is None and not begins for begins in written]
    found: list[list[int]] = [[]] * len(texts)
    with silence_libraries():  # the tokenizer warns of long texts; `fitted` deals with them
        for way in (True, False):
            chosen = [i for i, one in enumerate(special) if one is way]
            if chosen:
                encoded = tokenizer([texts[i] for i in chosen], add_special_tokens=way)["input_ids"]
                for i, ids in zip(chosen, encoded, strict=True):
                    found[i] = [tokenizer.bos_token_id, *ids] if add_bos and not written[i] else ids
    return found


def begin(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> list[int]:
    """The ids of a prompt, or what the harness begins with where there are none: BOS, else EOS."""
    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    return ids or [start]


def distinct(request: dict) -> list[str]:
    """Each continuation once: in TruthfulQA every choice of mc1 is among those of mc2."""
    return list(dict.fromkeys(request["continuations"]))


def context_length(model: nn.Module, tokenizer: PreTrainedTokenizerBase | None = None) -> int:
    """Tokens that the model reads at most, as the harness finds it: by the configuration, the tokenizer, or 2048."""
    return resolve_max_length(model.config, tokenizer)


def item_names(requests: Sequence[dict]) -> list[str]:
    """The ids of the requests as text; DataError where one is used twice."""
    names = [str(request["id"]) for request in requests]
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise DataError(f"item id {name!r} is used twice. Give every request its own")
        seen.add(name)
    return names


def fitted(
    name: str, sequences: list[TokenSequence], limit: int, truncated: dict[str, int] | None
) -> list[TokenSequence]:
    """The sequences of an item, cut where the item is too long: see `loglikelihoods`."""
    longest = max(len(one.context) + len(one.continuation) for one in sequences)
    if longest <= limit + 1:  # the last token is predicted, not read
        return sequences
    if truncated is None:
        raise DataError(
            f"item {name!r}: {longest} tokens, the model reads {limit}. Shorten its context, or set "
            "too_long=truncate to cut it from the left"
        )
    truncated[name] = longest
    return [fit(one, limit) for one in sequences]


def fit(one: TokenSequence, limit: int) -> TokenSequence:
    """The sequence with its context cut from the left, so that the model reads `limit` tokens at most."""
    room = limit + 1 - len(one.continuation)
    if room < 1:
        raise DataError(f"a continuation of {len(one.continuation)} tokens is longer than the model's {limit}")
    return TokenSequence(one.context[-room:], one.continuation)


def _moved(context: str, continuation: str) -> tuple[str, str]:
    stripped = context.rstrip()
    return stripped, context[len(stripped) :] + continuation
