"""Token ids of what a language model is asked, split and begun as the LM evaluation harness does it."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from lm_eval.models.utils import resolve_max_length
from torch import nn
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from sbt.inference.prefix_tree import TokenSequence
from sbt.utils.errors import DataError, ParameterError
from sbt.utils.files import sha256

_AT_ONCE = 1000  # texts in one call of a tokenizer, whose own records of a token are some twenty times its id
_IDS: dict[int, int] = {}  # one object for each id: eight bytes a token instead of thirty-six
# The tokenizer's methods that turn a text into ids.
_CODE = ("__call__", "_get_padding_truncation_strategies", "_switch_to_input_mode", "_encode_plus",
         "set_truncation_and_padding", "_convert_encoding")  # fmt: skip


@dataclass(frozen=True)
class PartTokens:
    """Token ids of a part's requests, before anything is cut: of those with continuations, and of the bare contexts.

    Either is empty where no request of the part needs it.
    """

    items: list[list[TokenSequence]]
    prompts: list[tuple[int, ...]]


class RunTokens:
    """The token ids of all parts of a run, each made when it is asked for, once for all tokenizers that give the same.

    `asked` are the requests by part. They stay in memory: eight bytes a token, a context once for all of its
    continuations.
    """

    def __init__(self, asked: Mapping[str, Sequence[dict]], add_bos: bool | None = None) -> None:
        self.asked, self.add_bos = asked, add_bos
        self._kept: list[tuple[_Rules, dict[str, PartTokens]]] = []

    def of(self, tokenizer: PreTrainedTokenizerBase) -> Callable[[str], PartTokens]:
        """What gives the tokens of a part. Errors are those of `encode` and `token_ids`."""
        rules = _Rules.of(tokenizer)
        known = next((own for other, own in self._kept if rules.agree(other, self._texts())), None)
        if known is None:
            known = {}
            self._kept.append((rules, known))

        def tokens(part: str) -> PartTokens:
            if part not in known:
                known[part] = part_tokens(tokenizer, self.asked[part], self.add_bos)
            return known[part]

        return tokens

    def _texts(self) -> Iterator[str]:
        every = itertools.chain.from_iterable(self.asked.values())
        return (one["context"] + text for one in every for text in one.get("continuations") or [""])


@dataclass(frozen=True)
class _Rules:
    """All that decides the ids of a text. A text is first split at the tokens in `added`."""

    others: object
    added: frozenset[tuple[str, int, bool, str]]  # content, id, whether it is normalised, all

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase) -> "_Rules":
        own, known = (
            [getattr(one, name, None) for name in _CODE] for one in (type(tokenizer), PreTrainedTokenizerFast)
        )
        if own != known:
            return cls(object(), frozenset())  # other methods, which may do anything: equal to none
        core = tokenizer.backend_tokenizer
        steps = (core.normalizer, core.pre_tokenizer, core.model, core.post_processor)
        states = [sha256(step.__getstate__()) if step is not None else "" for step in steps]
        special = (tokenizer.bos_token, tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.split_special_tokens)
        added = core.get_added_tokens_decoder().items()
        return cls(
            (*states, *special),
            frozenset((token.content, number, token.normalized, repr(token)) for number, token in added),
        )

    def agree(self, other: "_Rules", texts: Iterable[str]) -> bool:
        """Whether both give the same ids for each of the texts. An added token that is in no text changes none."""
        differing = self.added ^ other.added
        if self.others != other.others or any(normalized for _, _, normalized, _ in differing):
            return False
        contents = {content for content, *_ in differing}
        return not contents or not any(content in text for text in texts for content in contents)


def part_tokens(
    tokenizer: PreTrainedTokenizerBase, requests: Sequence[dict], add_bos: bool | None = None
) -> PartTokens:
    """The token ids of requests for log-likelihoods, for texts, or for both."""
    items, prompts = [], []
    if any("continuations" in one for one in requests):
        items = encode(tokenizer, requests, add_bos)
    if any("until" in one for one in requests):
        prompts = prompt_ids(tokenizer, requests, add_bos)
    return PartTokens(items, prompts)


def encode(
    tokenizer: PreTrainedTokenizerBase, requests: Sequence[dict], add_bos: bool | None = None
) -> list[list[TokenSequence]]:
    """Token ids as `_encode_pair` of the harness (lm_eval/api/model.py) splits them, one sequence a continuation.

    DataError names an item without continuations, or one whose continuation has no tokens of its own.
    """
    pairs = [(number, *_moved(one["context"], text)) for number, one in enumerate(requests) for text in distinct(one)]
    contexts = list({context: None for _, context, _ in pairs})
    lengths = dict(zip(contexts, map(len, token_ids(tokenizer, contexts, add_bos)), strict=True))
    wholes = token_ids(tokenizer, (context + continuation for _, context, continuation in pairs), add_bos)
    found: list[list[TokenSequence]] = [[] for _ in requests]
    for (number, context, continuation), whole in zip(pairs, wholes, strict=True):
        head, tail = whole[: lengths[context]], whole[lengths[context] :]
        if not head:
            head = begin(tokenizer, head)
            tail = tail[1:] if tail[:1] == head else tail  # a text that begins with BOS keeps one
        if not tail:
            raise DataError(f"item {requests[number]['id']!r}: continuation {continuation!r} has no tokens of its own")
        if found[number] and found[number][-1].context == head:
            head = found[number][-1].context  # one tuple for all of them
        found[number].append(TokenSequence(head, tail))
    for request, sequences in zip(requests, found, strict=True):
        if not sequences:
            raise DataError(f"item {request['id']!r}: no continuations to score")
    return found


def prompt_ids(
    tokenizer: PreTrainedTokenizerBase, requests: Sequence[dict], add_bos: bool | None = None
) -> list[tuple[int, ...]]:
    """Token ids of the contexts as they stand, with blanks at their ends."""
    encoded = token_ids(tokenizer, (one["context"] for one in requests), add_bos)
    return [begin(tokenizer, ids) for ids in encoded]


def token_ids(
    tokenizer: PreTrainedTokenizerBase, texts: Iterable[str], add_bos: bool | None = None
) -> Iterator[tuple[int, ...]]:
    """Token ids of texts. `add_bos` None: special tokens as the tokenizer itself adds them, which is HFLM's default.

    False adds none; True puts BOS in front even where the tokenizer would not. A text that begins with BOS, because
    its conversation template wrote it, gets no second one. ParameterError: True for a tokenizer without BOS.
    """
    bos = tokenizer.bos_token
    if add_bos and bos is None:
        raise ParameterError("add_bos is true, but the tokenizer has no BOS token. Leave BOS to the tokenizer")
    texts = iter(texts)
    while some := list(itertools.islice(texts, _AT_ONCE)):
        written = [bool(bos) and text.startswith(bos) for text in some]
        special = [add_bos is None and not begins for begins in written]
        found: list[tuple[int, ...]] = [()] * len(some)
        for way in (True, False):
            chosen = [i for i, one in enumerate(special) if one is way]
            if chosen:  # not verbose: no warning of long texts; `fitted` deals with them
                encoded = tokenizer([some[i] for i in chosen], add_special_tokens=way, verbose=False)["input_ids"]
                for i, ids in zip(chosen, encoded, strict=True):
                    ids = [tokenizer.bos_token_id, *ids] if add_bos and not written[i] else ids
                    found[i] = tuple(map(_IDS.setdefault, ids, ids))
        yield from found


def begin(tokenizer: PreTrainedTokenizerBase, ids: tuple[int, ...]) -> tuple[int, ...]:
    """The ids of a prompt, or what the harness begins with where there are none: BOS, else EOS."""
    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    return ids or (start,)


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
