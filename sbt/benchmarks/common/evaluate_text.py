"""Put the questions of text benchmarks to every arm, and score the answers; what is known is not asked again.

task = TextTask("boolq", BOOLQ, docs, BOOLQ.requests(docs))   # requests by part: {"boolq": [...]}
result = evaluate_text(TextArms({...}), [task], folder, seed=0);  result.rows;  result.samples
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from sbt.inference import harness
from sbt.inference.completion import check_lengths, complete
from sbt.inference.loglikelihood import Ready, loglikelihoods, prepare
from sbt.inference.tokens import PartTokens, RunTokens
from sbt.models import weights_sample
from sbt.models.text_arms import TextArm
from sbt.utils.errors import DataError, ParameterError

TOO_LONG = ("error", "truncate")
BOS = {"auto": None, "always": True, "never": False}  # "auto": as the tokenizer does, and the harness


@dataclass(frozen=True)
class TextTask:
    """A benchmark's questions as they are put to a model.

    `benchmark` is a module or an object with `rows(docs, answers, *, arm, seed, **provenance)`. It may also have
    `samples(docs, answers, *, arm, protocol)`, one record an item, and `compared(docs, answers, protocol)`, which
    gives the scores of all items that arms are compared by, {score: values}. `requests` are lists by part; `answers`
    have the same form, with one answer a request.
    """

    name: str
    benchmark: Any
    docs: Any
    requests: Mapping[str, Sequence[dict]]


@dataclass
class TextResult:
    """What the arms answered, and their scores.

    answers: by arm, task and part. rows: metric rows. samples: one record an arm and item. compared: by arm and score,
    the scores of all items. cut: prompts that were cut, by part. provenance: what every row says of its making.
    """

    answers: dict[str, dict[str, Any]] = field(default_factory=dict)
    rows: list[dict] = field(default_factory=list)
    samples: list[dict] = field(default_factory=list)
    compared: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    cut: dict[str, int] = field(default_factory=dict)
    provenance: dict[str, str] = field(default_factory=dict)


def evaluate_text(
    arms: Iterable[TextArm], tasks: Sequence[TextTask], folder: Path, *, order: Iterable[str] = (), seed: int = 0,
    protocol: str = "standard", settings: Mapping[str, object] | None = None, **how: Any,
) -> TextResult:  # fmt: skip
    """Ask every arm all tasks and score the answers.

    `order`: names of the arms in the order of the results; without it, the order in which they are asked. `settings`
    go into the hash of every row, with the prompts. `how`: batch_size, add_bos, max_new_tokens, too_long and progress,
    as `ask` takes them. Two tasks must not have a part of the same name (ParameterError).
    """
    asked: dict[str, Sequence[dict]] = {}
    for task in tasks:
        if twice := asked.keys() & task.requests.keys():
            raise ParameterError(f"two tasks have a part named {sorted(twice)[0]!r}: give each task its own name")
        asked |= task.requests
    by_arm, cut = ask(arms, asked, folder, **how)
    result = TextResult(cut=cut, provenance=harness.provenance(protocol, asked, **(settings or {})))
    for arm in order or by_arm:
        result.answers[arm], result.compared[arm] = {}, {}
        for task in tasks:
            answers, benchmark = {part: by_arm[arm][part] for part in task.requests}, task.benchmark
            result.answers[arm][task.name] = answers
            result.rows += benchmark.rows(task.docs, answers, arm=arm, seed=seed, **result.provenance)
            if hasattr(benchmark, "samples"):
                records = benchmark.samples(task.docs, answers, arm=arm, protocol=protocol)
                result.samples += [{"benchmark": task.name, **record} for record in records]
            if hasattr(benchmark, "compared"):
                result.compared[arm] |= benchmark.compared(task.docs, answers, protocol)
    return result


def ask(
    arms: Iterable[TextArm], asked: Mapping[str, Sequence[dict]], folder: Path, *, batch_size: int = 32,
    add_bos: str = "auto", max_new_tokens: int = 256, too_long: str = "error",
    progress: Callable[[int, int], None] | None = None,
) -> tuple[dict[str, dict[str, list]], dict[str, int]]:  # fmt: skip
    """answers[arm][part], one a request: log-likelihoods of its `continuations`, the text up to its `until`, or both.

    `folder` keeps finished items. `add_bos` is a key of BOS. `too_long` says what becomes of a prompt longer than the
    model: "error" (DataError names part and item before anything is computed), or "truncate" (cut from the left, as
    the harness does); the second result counts those by part, of the arm with most of them.

    A text becomes tokens once for all arms whose tokenizers give the same; a thread plans the next part, and makes its
    tokens where there are none yet, while the model reads this one. The tokens stay in memory: see `RunTokens`.
    """
    if too_long not in TOO_LONG:
        raise ParameterError(f"too_long {too_long!r} is unknown: known are {', '.join(TOO_LONG)}")
    if add_bos not in BOS:
        raise ParameterError(f"add_bos {add_bos!r} is unknown: known are {', '.join(BOS)}")
    texts = RunTokens(asked, BOS[add_bos])
    answers: dict[str, dict[str, list]] = {}
    cut: dict[str, int] = {}
    with ThreadPoolExecutor(1) as thread:
        for arm in arms:
            answers[arm.name], tokens = {}, texts.of(arm.tokenizer)
            if too_long == "error":
                check_lengths(arm.model, arm.tokenizer, asked, tokens, max_new_tokens=max_new_tokens)
            made, identity = partial(_made, arm, asked, tokens, too_long == "truncate"), weights_sample(arm.model)
            for part, coming in _one_ahead(thread, made, asked):
                cache = folder / arm.name / part.replace(" ", "-")
                how = {"batch_size": batch_size, "add_bos": texts.add_bos, "identity": identity, "progress": progress}
                try:
                    own = coming.result()
                    answers[arm.name][part] = _answers(arm, asked[part], own, cache, max_new_tokens, how)
                except DataError as error:
                    raise DataError(f"{part}, {error}") from error
                cut[part] = max(cut.get(part, 0), len(own.truncated or {}))
    return answers, {part: count for part, count in cut.items() if count}


@dataclass(frozen=True)
class _Part:
    """What is made of a part's requests before the model computes."""

    tokens: PartTokens
    ready: Ready | None  # where there are continuations
    truncated: dict[str, int] | None


def _made(
    arm: TextArm, asked: Mapping[str, Sequence[dict]], tokens: Callable[[str], PartTokens], truncate: bool, part: str
) -> _Part:
    own, ready, truncated = tokens(part), None, {} if truncate else None
    if own.items:
        ready = prepare(arm.model, arm.tokenizer, asked[part], items=own.items, truncated=truncated)
    return _Part(own, ready, truncated)


def _one_ahead(
    thread: ThreadPoolExecutor, make: Callable[[str], _Part], parts: Iterable[str]
) -> Iterator[tuple[str, "Future[_Part]"]]:
    """Each part with what `make` gives of it: the thread makes the next one while this one is used, and no more."""
    begun = ((part, thread.submit(make, part)) for part in parts)
    return (pair for pair, _ in itertools.pairwise(itertools.chain(begun, [None])))


def _answers(arm: TextArm, requests: Sequence[dict], own: _Part, cache: Path, max_new_tokens: int, how: dict) -> list:
    """Texts, log-likelihoods, or (text, *log-likelihoods), one a request."""
    texts, values = None, None
    how = {**how, "truncated": own.truncated}
    if own.ready:
        values = loglikelihoods(
            arm.model, arm.tokenizer, requests, cache=_file(cache, "values"), ready=own.ready, **how
        )
    if own.tokens.prompts:
        more = {"prompts": own.tokens.prompts, "max_new_tokens": max_new_tokens}
        texts = complete(arm.model, arm.tokenizer, requests, cache=_file(cache, "texts"), **more, **how)
    if texts is None or values is None:
        return texts if values is None else values
    return [(text, *numbers) for text, numbers in zip(texts, values, strict=True)]


def _file(cache: Path, kind: str) -> Path:
    return cache.with_name(f"{cache.name}.{kind}.jsonl")
