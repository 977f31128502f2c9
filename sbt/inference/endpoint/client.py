"""One request to an OpenAI-compatible chat endpoint: the address, the key, and what the many kinds of reply mean.

Client(Endpoint("gpt-4-turbo", OPENAI, 16, 0.0), Key("OPENAI_API_KEY")).post("Is ...?") gives text, or raises Again
(may pass) or RunError (will not).
"""

import contextlib
import email.utils
import json
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType

import httpx

from sbt.utils.errors import ParameterError, RunError
from sbt.utils.files import sha256

OPENAI = "https://api.openai.com/v1"
_LOCAL = ("localhost", "127.0.0.1", "::1")
_PASSES = (408, 409, 425, 429)  # statuses that may pass, and every 5xx
_LARGEST = 2**22  # bytes of a reply that are read
_SHORT = 8  # a shorter key is a local server's dummy, and hiding "x" would spoil every text


class Again(Exception):
    """A failure that may pass; `after` is how many seconds the server asks to wait."""

    def __init__(self, reason: str, after: float = 0.0) -> None:
        super().__init__(reason)
        self.after = after


class Key(httpx.Auth):
    """The key, read from the environment when made; whoever prints it sees the variable's name."""

    def __init__(self, variable: str) -> None:
        if not re.fullmatch("[A-Z][A-Z0-9_]*", variable):  # not echoed: it may be the key itself
            raise ParameterError("key_variable must be the name of an environment variable, such as OPENAI_API_KEY")
        self.variable, self._value = variable, os.environ.get(variable, "").strip()
        if not (self._value.isascii() and self._value.isprintable()):  # httpx would show it in its own error
            raise ParameterError(f"{variable} holds characters that no key has: set it again, in one line")

    def __repr__(self) -> str:
        return f"<key in {self.variable}>"

    def __bool__(self) -> bool:
        return bool(self._value)

    def auth_flow(self, request: httpx.Request) -> Iterator[httpx.Request]:
        """Sign a request (httpx calls this)."""
        if self:
            request.headers["Authorization"] = f"Bearer {self._value}"
        yield request

    def hide(self, text: str) -> str:
        """The text without the key, which some servers send back."""
        return text.replace(self._value, "[key]") if len(self._value) >= _SHORT else text


@dataclass(frozen=True)
class Endpoint:
    """Where and how is asked: everything that an answer depends on besides the prompt."""

    model: str
    base_url: str
    max_tokens: int
    temperature: float

    def __post_init__(self) -> None:
        try:
            url = httpx.URL(self.base_url)
        except (httpx.InvalidURL, TypeError):
            raise ParameterError(f"base_url is no address. Give one such as {OPENAI}") from None
        if url.userinfo or url.query or url.fragment:  # not echoed: there may be a password in it
            raise ParameterError(f"base_url at {url.host}: no user, password, ? or # may be in it")
        if not url.host or url.scheme != "https" and not (url.scheme == "http" and url.host in _LOCAL):
            found = f"{url.scheme or '(nothing)'}://{url.host}"
            raise ParameterError(f"base_url must begin with https:// (http:// on this machine only), found {found}")
        if not self.model:
            raise ParameterError("model is empty: name the model to ask")

    @property
    def host(self) -> str:
        """Host and port, as errors show them."""
        return httpx.URL(self.base_url).netloc.decode()

    @property
    def local(self) -> bool:
        """Whether it is this machine: no key is needed then, and no proxy asked."""
        return httpx.URL(self.base_url).host in _LOCAL

    def key(self, text: str) -> str:
        """What the answer to a prompt is kept under."""
        path = httpx.URL(self.base_url).path.rstrip("/")
        return sha256(json.dumps([self.model, self.host, path, text, self.max_tokens, self.temperature]))[:16]


class Client:
    """Connections to one endpoint, for any number of threads. Use as a context."""

    def __init__(self, endpoint: Endpoint, key: Key, timeout: float, workers: int) -> None:
        self.endpoint, self.key, self.timeout = endpoint, key, timeout
        limits = httpx.Limits(max_connections=workers)
        # A redirect would take the key elsewhere; so would a proxy for an address without encryption.
        self._http = httpx.Client(
            auth=key, timeout=timeout, limits=limits, follow_redirects=False, trust_env=not endpoint.local
        )

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._http.close()

    def post(self, text: str) -> str:
        """The answer to a prompt; Again for what may pass, RunError with host, status and remedy for what will not."""
        asked = {"model": self.endpoint.model, "messages": [{"role": "user", "content": text}]}
        asked |= {"max_tokens": self.endpoint.max_tokens, "temperature": self.endpoint.temperature}
        url, deadline = f"{self.endpoint.base_url.rstrip('/')}/chat/completions", time.monotonic() + self.timeout
        data = bytearray()
        try:
            with self._http.stream("POST", url, json=asked) as response:
                for chunk in response.iter_bytes():
                    data += chunk
                    if time.monotonic() > deadline:  # httpx's own limit is for each piece, and pieces may drip
                        raise httpx.ReadTimeout("dripping")
                    if len(data) > _LARGEST:
                        raise Again(f"the reply is longer than {_LARGEST} bytes")
        except httpx.TimeoutException:
            raise Again(f"no answer within {self.timeout:g} s") from None
        except httpx.RequestError as error:
            raise Again(self.key.hide(f"{type(error).__name__}: {error}")) from None
        status = response.status_code
        if response.is_success:
            return self._answer(data)
        if status in _PASSES or status >= 500:
            raise Again(f"HTTP {status}{self._said(data)}", _seconds(response.headers.get("Retry-After", "")))
        raise self._refusal(status, self._said(data))

    def _answer(self, data: bytearray) -> str:
        try:
            choice = json.loads(data)["choices"][0]
            content = choice["message"]["content"]
        except (ValueError, LookupError, TypeError, RecursionError):
            raise Again("the reply is no chat completion") from None
        if not isinstance(content, str) or not content.strip():
            ended = choice.get("finish_reason")
            hint = ": raise max_tokens" if ended == "length" else ""
            raise Again(self.key.hide(f"the answer is empty (finish_reason {ended!r:.40}){hint}"))
        whole = content.encode("utf-8", "replace").decode()  # half of a surrogate pair cannot be written to a file
        return self.key.hide(whole.strip())

    def _said(self, data: bytearray) -> str:
        """ ": " and what the server gives as the reason, hidden before it is cut: half a key is one, too."""
        said = data.decode("utf-8", "replace")
        with contextlib.suppress(ValueError, LookupError, TypeError, AttributeError, RecursionError):
            reply = json.loads(said)
            error = next((reply[name] for name in ("error", "message", "detail") if reply.get(name)), said)
            said = str(error["message"] if isinstance(error, dict) else error)
        said = " ".join(re.sub(r"\bBearer\s+\S+|\bsk-\S+", "[key]", self.key.hide(said)).split())
        return f": {said[:200]}" if said else ""

    def _refusal(self, status: int, said: str) -> RunError:
        model = self.endpoint.model
        remedy = f"Correct the model ({model!r}), base_url or the settings"
        if status in (401, 403):
            remedy = f"Set {self.key.variable} to a key that may use the model {model!r}"
        elif status < 400:
            remedy = "Redirects are not followed, for the key would go along. Correct base_url"
        return RunError(f"{self.endpoint.host} answers HTTP {status}{said}. {remedy}")


def _seconds(after: str) -> float:
    """Seconds of a Retry-After header, which holds a number or a date; 0 for anything else."""
    try:
        if after.strip().isdigit():
            return float(after)
        return max(0.0, email.utils.parsedate_to_datetime(after).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return 0.0
