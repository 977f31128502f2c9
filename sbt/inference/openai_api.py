"""Answers of a model behind an OpenAI-compatible chat endpoint, for what cannot be loaded here (the GPT-4 rows).

complete([{"id": "1", "text": "Is ...?"}], model="gpt-4-turbo", cache=file). Text comes back, no log-likelihood: see
benchmarks/common/letters.py. The key stands in the environment only. estimate(...) says before what it will cost.
"""

import base64
import contextlib
import io
import json
import math
import os
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import openai
from PIL import Image

from sbt.data.images import open_rgb
from sbt.inference.result_cache import ItemCache
from sbt.utils import checks
from sbt.utils.errors import DataError, ParameterError, RunError
from sbt.utils.files import sha256

OPENAI = "https://api.openai.com/v1"
_LOCAL = ("localhost", "127.0.0.1", "::1")
_IMAGE_TOKENS = 800  # of an estimate
_SHORT = 8  # a shorter key is a local server's dummy, and hiding "x" would spoil every text
_NO_MONEY = "insufficient_quota"
_MANY = 10  # answers, before it is an error that nearly none can be read
# What a 400 says when it means this one prompt, not the way of asking.
_OF_ONE_ITEM = re.compile(
    r"(?i)content[_ ](filter|policy|management)|context[_ ]length|maximum context|too long|safety|filtered"
)


@dataclass(frozen=True)
class Skip:
    """An item that has no answer, and why; repeating the command asks for it again."""

    id: str
    reason: str

    def __str__(self) -> str:
        return f"{self.id}: {self.reason}"


@dataclass(frozen=True)
class Endpoint:
    """Where and how is asked: everything that an answer depends on besides the prompt."""

    model: str
    base_url: str = OPENAI
    max_tokens: int = 16
    temperature: float | None = 0.0

    def __post_init__(self) -> None:
        try:
            url = urlsplit(self.base_url)
            host, _ = url.hostname or "", url.port  # a port that is no number is an error
        except (ValueError, AttributeError, TypeError):
            raise ParameterError(f"base_url is no address. Give one such as {OPENAI}") from None
        if url.username or url.password or url.query or url.fragment:  # not echoed: there may be a password in it
            raise ParameterError(f"base_url at {host}: no user, password, ? or # may be in it")
        if not host or url.scheme != "https" and not (url.scheme == "http" and host in _LOCAL):
            found = f"{url.scheme or '(nothing)'}://{host}"
            raise ParameterError(f"base_url must begin with https:// (http:// on this machine only), found {found}")
        if not self.model:
            raise ParameterError("model is empty: name the model to ask")
        _in_range(max_tokens=self.max_tokens >= 1, temperature=self.temperature is None or self.temperature >= 0)

    @property
    def host(self) -> str:
        """Host and port, as errors show them."""
        return urlsplit(self.base_url).netloc

    @property
    def local(self) -> bool:
        """Whether it is this machine: no key is needed then, and no proxy asked."""
        return urlsplit(self.base_url).hostname in _LOCAL

    def key(self, messages: Sequence[dict]) -> str:
        """What the answer to messages is kept under."""
        asked = [self.model, self.host, urlsplit(self.base_url).path.rstrip("/"), messages]
        return sha256(json.dumps([*asked, self.max_tokens, self.temperature]))[:16]


def complete(
    requests: Sequence[dict],
    *,
    model: str,
    base_url: str = OPENAI,
    cache: Path,
    key_variable: str = "OPENAI_API_KEY",
    max_tokens: int = 16,
    temperature: float | None = 0.0,
    workers: int = 4,
    retries: int = 5,
    timeout: float = 60.0,
    max_skipped: float = 0.05,
    readable: Callable[[dict, str], bool] | None = None,
    keep_unread: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> list[str | Skip]:
    """The answer to each request {"id", "text"}, stripped, in the order of requests; finished ones stay in `cache`.

    In place of "text", "messages" may hold several turns, {"role", "content"}; a content is a text, or a list of
    {"type": "text", "text"} and {"type": "image", "image": path | PIL image}. `temperature` None leaves it to the
    endpoint. Where a model refuses `max_tokens` or the temperature, its own way is taken, and told once.

    429, 5xx, no connection and no answer within `timeout` seconds are tried `retries` more times, with pauses, by the
    `openai` client. After that, and for a prompt that is filtered, refused or too long, the item is a Skip. An answer
    that is not `readable` is returned but not kept, unless `keep_unread`. RunError at once for other statuses (401,
    403, 404, 400), without quota, as soon as more than the share `max_skipped` of all requests is skipped, and where
    nearly no answer is readable; ParameterError for http to another machine.
    """
    _in_range(workers=workers >= 1, timeout=timeout > 0, max_skipped=0 <= max_skipped <= 1, retries=retries >= 0)
    endpoint, key = Endpoint(model, base_url, max_tokens, temperature), _read_key(key_variable)
    asked, show = _checked(requests, endpoint), progress or (lambda done, total: None)
    with ItemCache(cache) as kept, contextlib.closing(_Asker(endpoint, key_variable, key, timeout, retries)) as asker:
        missing = [one for one in asked if kept.get(*one[:2]) is None]
        if missing and not key and not endpoint.local:
            raise RunError(f"{key_variable} is not set. Put the key for {endpoint.host} there and repeat the command")
        taken = _Taken(kept, {str(one["id"]): one for one in requests}, readable, keep_unread)
        before = len(asked) - len(missing)
        show(before, len(asked))
        with contextlib.closing(_ask(asker, missing, workers, taken)) as answered:
            for done, _ in enumerate(answered, start=before + 1):
                taken.check(len(asked), max_skipped, endpoint)
                show(done, len(asked))
        return [taken.skipped.get(name) or taken.unread.get(name) or kept.get(name, made) for name, made, _ in asked]


class _Taken:
    """What became of the answers: kept in the cache, skipped, or unreadable."""

    def __init__(self, kept: ItemCache, requests: dict[str, dict], readable: Callable | None, whole: bool) -> None:
        self.kept, self.requests, self.readable, self.whole = kept, requests, readable, whole
        self.lock, self.skipped = threading.Lock(), dict[str, Skip]()
        self.unread: dict[str, str] = {}
        self.read = 0

    def take(self, name: str, key: str, answer: str | Skip) -> None:
        """Called by the thread that asked: what is answered is kept whatever happens elsewhere."""
        with self.lock:
            if isinstance(answer, Skip):
                self.skipped[name] = answer
            elif self.readable is not None and not self.readable(self.requests[name], answer):
                self.unread[name] = answer
            else:
                self.read += 1
            if isinstance(answer, str) and (self.whole or name not in self.unread):
                self.kept.add({name: (key, answer)})

    def check(self, total: int, max_skipped: float, endpoint: Endpoint) -> None:
        """RunError where too many items have no answer, or nearly no answer can be read."""
        with self.lock:
            skips, unread = list(self.skipped.values()), list(self.unread.values())
        if len(skips) > max_skipped * total:
            listed = "; ".join(map(str, skips[:3]))
            raise RunError(
                f"{endpoint.host}: {len(skips)} of {total} items have no answer, more than {max_skipped:.0%} of them. "
                f"The first: {listed}. What was answered is kept: repeat the command to ask only for what is missing"
            )
        if len(unread) >= _MANY and self.read < len(unread) / 9:
            raise RunError(
                f"{endpoint.host}: {len(unread)} of {len(unread) + self.read} answers of {endpoint.model} cannot be "
                f"read. The first: {unread[0]!r:.80}. Raise max_tokens or ask another model, and repeat the command"
            )


def estimate(
    requests: Sequence[dict],
    price_in: float = 0.0,
    price_out: float = 0.0,
    max_tokens: int = 16,
    *,
    model: str = "",
    base_url: str = OPENAI,
    temperature: float | None = 0.0,
    cache: Path | None = None,
) -> dict[str, float | int | None]:
    """What asking will take, leaving out what `cache` holds for this model and these settings.

    `requests`, `cached`, `tokens` (`tokens_in` + `tokens_out`) and `cost` in US dollars, from prices per million
    tokens; None where a price is 0, unknown. A rough estimate: four characters a token, 800 tokens an image, every
    answer as long as it may be. ParameterError for a negative price.
    """
    _in_range(price_in=price_in >= 0, price_out=price_out >= 0, max_tokens=max_tokens >= 1)
    missing = [_messages(one) for one in requests]
    if cache is not None and Path(cache).exists():
        asked = _checked(requests, Endpoint(model, base_url, max_tokens, temperature))
        with ItemCache(cache) as kept:
            missing = [messages for name, key, messages in asked if kept.get(name, key) is None]
    read, written = sum(map(_tokens, missing)), max_tokens * len(missing)
    cost = (read * price_in + written * price_out) / 1e6 if price_in and price_out else None
    counts = {"requests": len(missing), "cached": len(requests) - len(missing), "tokens": read + written}
    return {**counts, "tokens_in": read, "tokens_out": written, "cost": cost}


class _Asker:
    """The client of one endpoint, for any number of threads, and what the many kinds of reply mean."""

    def __init__(self, endpoint: Endpoint, variable: str, key: str, timeout: float, retries: int) -> None:
        self.endpoint, self.variable, self._key = endpoint, variable, key
        self._lock, self._settings = threading.Lock(), {"max_tokens": endpoint.max_tokens}
        if endpoint.temperature is not None:
            self._settings["temperature"] = endpoint.temperature
        # A redirect would take the key elsewhere; so would a proxy for an address without encryption.
        http = openai.DefaultHttpxClient(
            trust_env=not endpoint.local, follow_redirects=False, event_hooks={"response": [_stop_without_quota]}
        )
        where = {"base_url": endpoint.base_url, "api_key": key or "none", "http_client": http}
        self._client = openai.OpenAI(**where, timeout=timeout, max_retries=retries)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def answer(self, name: str, messages: list[dict]) -> str | Skip:
        """The text, or a Skip for what concerns this item or did not pass; RunError for what will not pass."""
        while True:
            sent = dict(self._settings)
            try:
                reply = self._client.chat.completions.create(model=self.endpoint.model, messages=messages, **sent)
                return self._text(name, reply)
            except openai.APIStatusError as error:
                said = self._said(error)
                if error.status_code == 400 and self._adapted(sent, said):
                    continue
                return self._skip_or_refuse(name, error, said)
            except openai.APITimeoutError:
                return Skip(name, f"no answer within {self._client.timeout:g} s")
            except openai.APIConnectionError as error:
                cause = error.__cause__ or error
                return Skip(name, self.hide(f"{type(cause).__name__}: {cause}"))
            except (openai.APIError, ValueError, RecursionError):
                return Skip(name, "the reply is no chat completion")

    def hide(self, text: str) -> str:
        """The text without the key, which some servers send back."""
        return text.replace(self._key, "[key]") if len(self._key) >= _SHORT else text

    def _adapted(self, sent: dict, said: str) -> bool:
        """Whether the way of asking was changed to what the endpoint says it wants."""
        with self._lock:
            if self._settings != sent:  # another thread was told the same
                return True
            if "max_completion_tokens" in said and "max_tokens" in sent:
                self._settings = {**sent, "max_completion_tokens": sent["max_tokens"]}
                del self._settings["max_tokens"]
                return True
            if "temperature" in said and "temperature" in sent:
                self._settings = {name: value for name, value in sent.items() if name != "temperature"}
                print(f"{self.endpoint.host}: {self.endpoint.model} takes no temperature, its own is used")
                return True
            return False

    def _skip_or_refuse(self, name: str, error: openai.APIStatusError, said: str) -> Skip:
        status, model = error.status_code, self.endpoint.model
        reason = f"HTTP {status}{said and ': '}{said}"
        quota = _NO_MONEY in error.response.text
        if status in (408, 409, 413, 422, 425) or status >= 500 or (status == 429 and not quota):
            return Skip(name, reason)
        if status == 400 and _OF_ONE_ITEM.search(f"{error.code} {said}"):
            return Skip(name, reason)
        remedy = f"Correct the model ({model!r}), base_url or the settings"
        if quota:
            remedy = "The account is out of quota: raise it there and repeat the command; what was answered is kept"
        elif status in (401, 403):
            remedy = f"Set {self.variable} to a key that may use the model {model!r}"
        elif status < 400:
            remedy = "Redirects are not followed, for the key would go along. Correct base_url"
        raise RunError(f"{self.endpoint.host} answers {reason}. {remedy}")

    def _said(self, error: openai.APIStatusError) -> str:
        """What the server gives as the reason, hidden before it is cut: half a key is one, too."""
        body = error.body
        if isinstance(body, dict):
            body = next((body[name] for name in ("message", "error", "detail") if body.get(name)), body)
        said = error.response.text if body is None or body == [] else str(body)
        return " ".join(re.sub(r"\bBearer\s+\S+|\bsk-\S+", "[key]", self.hide(said)).split())[:200]

    def _text(self, name: str, reply: object) -> str | Skip:
        choices = getattr(reply, "choices", None)
        message = getattr(choices[0], "message", None) if isinstance(choices, list) and choices else None
        if message is None:
            said = getattr(reply, "error", None)
            said = f": {said.get('message') if isinstance(said, dict) else said}"[:200] if said else ""
            return Skip(name, self.hide(f"the reply is no chat completion{said}"))
        text, ended = _content(message), getattr(choices[0], "finish_reason", None)
        if text:
            # half of a surrogate pair cannot be written to a file
            return self.hide(text.encode("utf-8", "replace").decode())
        if refusal := getattr(message, "refusal", None):
            return Skip(name, self.hide(f"refused: {refusal}"[:200]))
        hint = ": raise max_tokens" if ended == "length" else ""
        return Skip(name, self.hide(f"the answer is empty (finish_reason {ended!r:.40}){hint}"))


def _content(message: object) -> str:
    """The answer itself: parts joined, what a reasoning model thinks in `<think>` blocks cut off, stripped."""
    content = getattr(message, "content", None)
    if isinstance(content, list):
        texts = [part.get("text") for part in content if isinstance(part, dict)]
        content = "".join(text for text in texts if isinstance(text, str))
    if not isinstance(content, str):
        return ""
    *_, answer = content.rpartition("</think>")
    return "" if answer.lstrip().startswith("<think>") else answer.strip()


def _stop_without_quota(response: object) -> None:
    """Tell the client not to try again: a 429 for want of money does not pass."""
    if response.status_code == 429:
        response.read()
        if _NO_MONEY in response.text:
            response.headers["x-should-retry"] = "false"


def _ask(asker: _Asker, asked: Sequence[tuple[str, str, list[dict]]], workers: int, taken: _Taken) -> Iterator[None]:
    """Ask them all, a few at a time, and yield as each is taken.

    Closing it, or an error, asks no more: what is under way is waited for and taken.
    """
    halt = threading.Event()

    def one(name: str, key: str, messages: list[dict]) -> None:
        if not halt.is_set():
            try:
                taken.take(name, key, asker.answer(name, messages))
            except BaseException:
                halt.set()  # here and not only below: this thread would begin the next item before that
                raise

    pool = ThreadPoolExecutor(workers)
    try:
        for future in as_completed([pool.submit(one, *request) for request in asked]):
            yield future.result()
    finally:
        halt.set()
        pool.shutdown(cancel_futures=True)


def _read_key(variable: str) -> str:
    if not re.fullmatch("[A-Z][A-Z0-9_]*", variable):  # not echoed: it may be the key itself
        raise ParameterError("key_variable must be the name of an environment variable, such as OPENAI_API_KEY")
    key = os.environ.get(variable, "").strip()
    if not (key.isascii() and key.isprintable()):  # a client would show it in its own error
        raise ParameterError(f"{variable} holds characters that no key has: set it again, in one line")
    return key


def _in_range(**checked: bool) -> None:
    if wrong := [name for name, good in checked.items() if not good]:
        raise ParameterError(f"{', '.join(wrong)}: the value is out of range")


def _checked(requests: Sequence[dict], endpoint: Endpoint) -> list[tuple[str, str, list[dict]]]:
    """Id, key under which its answer is kept, and messages of each request."""
    checks.once((str(one["id"]) for one in requests), "request ", "id")
    found = []
    for one in requests:
        messages = _messages(one)
        if not all(message["content"] and str(message["content"]).strip() for message in messages):
            raise DataError(f"request {one['id']!r} has no text")
        found.append((str(one["id"]), endpoint.key(messages), messages))
    return found


def _messages(request: dict) -> list[dict]:
    """Messages as the endpoint takes them, pictures as data URLs."""
    given = request.get("messages") or [{"role": "user", "content": request["text"]}]
    made = []
    for message in given:
        content = message["content"]
        if not isinstance(content, str):
            content = [_picture(part["image"]) if part["type"] == "image" else dict(part) for part in content]
        made.append({"role": message["role"], "content": content})
    return made


def _picture(image: Path | str | Image.Image) -> dict:
    out = io.BytesIO()
    (image.convert("RGB") if isinstance(image, Image.Image) else open_rgb(image)).save(out, format="PNG")
    data = base64.b64encode(out.getvalue()).decode()
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}


def _tokens(messages: Sequence[dict]) -> int:
    contents = [message["content"] for message in messages]
    parts = [part for one in contents for part in ([{"text": one}] if isinstance(one, str) else one)]
    return sum(math.ceil(len(part["text"]) / 4) if "text" in part else _IMAGE_TOKENS for part in parts)
