"""Answers of a model behind an OpenAI-compatible chat endpoint, for what cannot be loaded here (the GPT-4 rows).

complete([{"id": "1", "text": "Is ...?"}], model="gpt-4-turbo", cache=file). Text comes back, no log-likelihood: see
benchmarks/letters.py. The key stands in the environment only. estimate(...) says before what it will cost.
"""

import contextlib
import math
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import tenacity

from sbt.inference.endpoint.client import OPENAI, Again, Client, Endpoint, Key
from sbt.inference.result_cache import ItemCache
from sbt.utils import checks
from sbt.utils.errors import DataError, ParameterError, RunError

__all__ = ["OPENAI", "Skip", "complete", "estimate"]
_JITTER = random.SystemRandom()  # not the seeded generator: threads would draw from it in any order


@dataclass(frozen=True)
class Skip:
    """An item that has no answer after all tries, and why; repeating the command asks for it again."""

    id: str
    reason: str

    def __str__(self) -> str:
        return f"{self.id}: {self.reason}"


def complete(
    requests: Sequence[dict],
    *,
    model: str,
    base_url: str = OPENAI,
    cache: Path,
    key_variable: str = "OPENAI_API_KEY",
    max_tokens: int = 16,
    temperature: float = 0.0,
    workers: int = 4,
    retries: int = 5,
    timeout: float = 60.0,
    backoff: float = 1.0,
    longest: float = 60.0,
    max_skipped: float = 0.05,
    progress: Callable[[int, int], None] | None = None,
) -> list[str | Skip]:
    """The answer to each request {"id", "text"}, stripped, in the order of requests; finished ones stay in `cache`.

    429, 5xx, no connection, no answer within `timeout` seconds and replies that are no chat completion are tried
    `retries` more times. The pause before is `backoff` seconds, doubled each time, or what Retry-After says, `longest`
    at most. After that the item is a Skip. RunError at once for other statuses (401, 403, 404, 400), and as soon as
    more than the share `max_skipped` of all requests is skipped; ParameterError for http to another machine.
    """
    _refuse(max_tokens=max_tokens >= 1, workers=workers >= 1, timeout=timeout > 0, max_skipped=0 <= max_skipped <= 1)
    _refuse(temperature=temperature >= 0, retries=retries >= 0, backoff=backoff >= 0, longest=longest >= 0)
    endpoint, key = Endpoint(model, base_url, max_tokens, temperature), Key(key_variable)
    names = _names(requests, endpoint)
    retrying = {"stop": tenacity.stop_after_attempt(1 + retries), "wait": lambda now: pause(now, backoff, longest)}
    skips: dict[str, Skip] = {}
    with ItemCache(cache) as kept, Client(endpoint, key, timeout, workers) as client:
        missing = [one for one, name in zip(requests, names, strict=True) if kept.get(*name) is None]
        if missing and not key and not endpoint.local:
            raise RunError(f"{key_variable} is not set. Put the key for {endpoint.host} there and repeat the command")
        total, before = len(requests), len(requests) - len(missing)
        show = progress or (lambda done, total: None)
        show(before, total)
        with contextlib.closing(_asked(client, missing, kept, retrying, workers)) as asked:
            for done, skip in enumerate(asked, start=before + 1):
                skips |= {skip.id: skip} if skip else {}
                if len(skips) > max_skipped * total:
                    raise _too_many(list(skips.values()), total, max_skipped, endpoint.host)
                show(done, total)
        return [skips.get(name) or kept.get(name, made) for name, made in names]


def _asked(
    client: Client, requests: Sequence[dict], kept: ItemCache, retrying: dict, workers: int
) -> Iterator[Skip | None]:
    """Ask them all, a few at a time; None for each that is answered and kept, a Skip for each that is given up.

    Closing it, or an error, asks no more: what is under way is waited for and kept.
    """
    halt, writing = threading.Event(), threading.Lock()

    def post(text: str) -> str:
        if halt.is_set():
            raise Again("not asked")
        return client.post(text)

    def one(request: dict) -> Skip | None:
        tries = tenacity.Retrying(
            **retrying, retry=tenacity.retry_if_exception_type(Again), sleep=halt.wait, reraise=True
        )
        name, text = str(request["id"]), request["text"]
        try:
            answer = tries(post, text)
        except Again as error:
            return Skip(name, f"{error} (tried {tries.statistics['attempt_number']} times)")
        except BaseException:
            halt.set()  # here and not only below: this thread would begin the next item before the error is seen there
            raise
        with writing:
            kept.add({name: (client.endpoint.key(text), answer)})
        return None

    pool = ThreadPoolExecutor(workers)
    try:
        for future in as_completed([pool.submit(one, request) for request in requests]):
            yield future.result()
    finally:
        halt.set()
        pool.shutdown(cancel_futures=True)


def pause(now: tenacity.RetryCallState, backoff: float, longest: float) -> float:
    """Seconds before the next try: `backoff` doubled with each, half of it random; at least what the server asks."""
    doubled = backoff * 2 ** min(now.attempt_number - 1, 30)
    return min(longest, max(now.outcome.exception().after, doubled * _JITTER.uniform(0.5, 1)))


def _too_many(skips: Sequence[Skip], total: int, share: float, host: str) -> RunError:
    listed = "; ".join(map(str, skips[:3]))
    return RunError(
        f"{host}: {len(skips)} of {total} items have no answer, more than {share:.0%} of them. The first: {listed}. "
        "What was answered is kept: repeat the command to ask only for what is missing"
    )


def estimate(
    requests: Sequence[dict],
    price_in: float = 0.0,
    price_out: float = 0.0,
    max_tokens: int = 16,
    *,
    model: str = "",
    base_url: str = OPENAI,
    temperature: float = 0.0,
    cache: Path | None = None,
) -> dict[str, float | int | None]:
    """What asking will take, leaving out what `cache` holds for this model and these settings.

    `requests`, `cached`, `tokens` (`tokens_in` + `tokens_out`) and `cost` in US dollars, from prices per million
    tokens; None where a price is 0, unknown. A rough estimate: four characters a token, every answer as long as it
    may be. ParameterError for a negative price.
    """
    _refuse(price_in=price_in >= 0, price_out=price_out >= 0, max_tokens=max_tokens >= 1)
    missing = list(requests)
    if cache is not None and Path(cache).exists():
        names = _names(requests, Endpoint(model, base_url, max_tokens, temperature))
        with ItemCache(cache) as kept:
            missing = [one for one, name in zip(requests, names, strict=True) if kept.get(*name) is None]
    read, written = sum(math.ceil(len(one["text"]) / 4) for one in missing), max_tokens * len(missing)
    cost = (read * price_in + written * price_out) / 1e6 if price_in and price_out else None
    counts = {"requests": len(missing), "cached": len(requests) - len(missing), "tokens": read + written}
    return {**counts, "tokens_in": read, "tokens_out": written, "cost": cost}


def _refuse(**checked: bool) -> None:
    if wrong := [name for name, good in checked.items() if not good]:
        raise ParameterError(f"{', '.join(wrong)}: the value is out of range")


def _names(requests: Sequence[dict], endpoint: Endpoint) -> list[tuple[str, str]]:
    """Id and key of each request, under which its answer is kept."""
    checks.once((str(one["id"]) for one in requests), "request ", "id")
    for one in requests:
        if not one["text"].strip():
            raise DataError(f"request {one['id']!r} has no text")
    return [(str(one["id"]), endpoint.key(one["text"])) for one in requests]
