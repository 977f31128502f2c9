"""Answers of a chat endpoint: how it can fail, what is kept, the key, and option letters (a fake local server)."""

import base64
import io
import json
import logging
from pathlib import Path

import pytest
from fake_endpoint import FakeEndpoint, Reply
from PIL import Image
from real_files import real_data

from sbt.benchmarks.common import letters
from sbt.benchmarks.truthfulqa import files as truthfulqa_files
from sbt.benchmarks.truthfulqa import task as truthfulqa
from sbt.inference import openai_api
from sbt.inference.openai_api import Endpoint, Skip
from sbt.utils.errors import DataError, ParameterError, RunError

KEY = "sk-test-0123456789abcdef"
SOON = {"retry-after-ms": "1"}  # no pauses in tests
BAD = Reply(status=500, body=b'{"error": {"message": "overloaded"}}', headers=SOON)
DATA = real_data()
needs_data = pytest.mark.skipif(DATA is None, reason="the real TruthfulQA files are not here (SBT_DATA)")


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def asked(count: int = 5) -> list[dict]:
    return [{"id": f"q{number}", "text": f"question {number}"} for number in range(count)]


def ask(server: FakeEndpoint, cache: Path, requests: list[dict] | None = None, **changed: object) -> list:
    """`complete` where every item may be skipped."""
    settings = {"model": "m", "base_url": server.url, "cache": cache, "retries": 2}
    settings |= {"max_skipped": 1.0, "timeout": 5.0}
    return openai_api.complete(asked() if requests is None else requests, **settings | changed)


def echo(prompt: str, time: int) -> str:
    return f" {prompt.upper()}\n"


def test_answers_come_stripped_and_in_order_and_are_kept(tmp_path: Path) -> None:
    steps = []
    with FakeEndpoint(echo) as server:
        found = ask(server, tmp_path / "a", asked(20), progress=lambda *step: steps.append(step))
        assert found == [f"QUESTION {n}" for n in range(20)]
        assert steps[0] == (0, 20) and steps[-1] == (20, 20) and len(steps) == 21
        assert server.keys == [f"Bearer {KEY}"] * 20
        message = [{"role": "user", "content": server.asked[0]}]
        sent = {"model": "m", "messages": message, "max_tokens": 16, "temperature": 0.0}
        assert server.bodies[0] == {**sent, "path": "/v1/chat/completions"}
        assert ask(server, tmp_path / "a", asked(20)) == found and len(server.asked) == 20  # all from the cache


@pytest.mark.parametrize("changed", [{"model": "n"}, {"max_tokens": 17}, {"temperature": 0.5}])
def test_another_model_or_setting_is_asked_anew(tmp_path: Path, changed: dict) -> None:
    with FakeEndpoint(echo) as server:
        ask(server, tmp_path / "a")
        ask(server, tmp_path / "a", **changed)
        assert len(server.asked) == 10
        ask(server, tmp_path / "a", [{"id": "q0", "text": "another question"}])
        assert len(server.asked) == 11
        ask(
            server, tmp_path / "a", base_url=server.url + "/", workers=1, retries=1
        )  # the control: these do not matter
        assert len(server.asked) == 11


@pytest.mark.parametrize("workers", [1, 4])
def test_a_repeated_command_asks_only_for_what_is_missing(tmp_path: Path, workers: int) -> None:
    with FakeEndpoint(
        lambda prompt, time: BAD if prompt == "question 3" and time <= 3 else echo(prompt, time)
    ) as server:
        first = ask(server, tmp_path / "a", workers=workers)
        reason = "HTTP 500: overloaded"
        assert first == ["QUESTION 0", "QUESTION 1", "QUESTION 2", Skip("q3", reason), "QUESTION 4"]
        before = len(server.asked)
        assert ask(server, tmp_path / "a", workers=workers)[3] == "QUESTION 3"
        assert server.asked[before:] == ["question 3"]


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (BAD, "HTTP 500: overloaded"),
        (Reply(status=503, body=b"<html>down</html>", headers=SOON), "HTTP 503: <html>down</html>"),
        (Reply(status=429, headers=SOON), "HTTP 429"),
        (Reply(status=502, body=b"[]", headers=SOON), "HTTP 502: []"),
        (Reply(status=502, body=b'{"detail": "no"}', headers=SOON), "HTTP 502: no"),
        (Reply(kind="reset"), "ReadError"),
    ],
)  # fmt: skip
def test_what_may_pass_is_tried_again_then_skipped(
    reply: Reply, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.0)
    with FakeEndpoint(
        lambda prompt, time: reply if prompt == "question 1" or time == 1 else echo(prompt, time)
    ) as server:
        found = ask(server, tmp_path / "a", asked(3))
        assert found[::2] == ["QUESTION 0", "QUESTION 2"]  # passed at the second try
        assert found[1].id == "q1" and found[1].reason.startswith(reason) and str(found[1]).startswith("q1: ")
        assert server.times == {"question 0": 2, "question 1": 3, "question 2": 2}


def body(**message: object) -> bytes:
    return json.dumps({"choices": [{"message": message, "finish_reason": message.pop("ended", "stop")}]}).encode()


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (Reply(body=b"not json"), "the reply is no chat completion"),
        (Reply(body=b""), "the reply is no chat completion"),
        (Reply(body=b"\xff\xfe"), "the reply is no chat completion"),
        (Reply(body=b"[" * 100000), "the reply is no chat completion"),
        (Reply(body=b"{}"), "the reply is no chat completion"),
        (Reply(body=b'{"choices": []}'), "the reply is no chat completion"),
        (Reply(body=b'{"choices": ["B"]}'), "the reply is no chat completion"),
        (Reply(body=b'{"error": {"message": "no provider"}}'), "the reply is no chat completion: no provider"),
        (Reply(" \n"), "the answer is empty (finish_reason 'stop')"),
        (Reply(body=body(content=None, ended="length")), "the answer is empty (finish_reason 'length'): raise max_t"),
        (Reply("<think>Is it A or"), "the answer is empty"),
        (Reply(body=body(content=None, refusal="I cannot say")), "refused: I cannot say"),
        (Reply(status=400, body=b'{"error": {"message": "no", "code": "content_filter"}}'), "HTTP 400: no"),
        (Reply(status=400, body=b'{"error": {"message": "maximum context is 8"}}'), "HTTP 400: maximum"),
        (Reply(status=422, body=b'{"detail": "unprocessable"}'), "HTTP 422: unprocessable"),
    ],
)  # fmt: skip
def test_what_one_item_gets_is_its_skip_and_is_not_paid_twice(reply: Reply, reason: str, tmp_path: Path) -> None:
    with FakeEndpoint(lambda prompt, time: reply if prompt == "question 1" else "B") as server:
        found = ask(server, tmp_path / "a", asked(3))
        assert found[::2] == ["B", "B"] and found[1].reason.startswith(reason)
        assert set(server.times.values()) == {1}
        again = ask(server, tmp_path / "a", asked(3))
        assert again == found and server.times["question 1"] == 2 and server.times["question 0"] == 1


@pytest.mark.parametrize(
    ("content", "answer"),
    [
        ([{"type": "text", "text": "The answer "}, {"type": "text", "text": "is B."}], "The answer is B."),
        ("<think>A? No.</think>\n\nB", "B"),
        ("A? No.</think> B", "B"),
    ],
)
def test_parts_are_joined_and_thoughts_cut(content: object, answer: str, tmp_path: Path) -> None:
    with FakeEndpoint(lambda prompt, time: Reply(body=body(content=content))) as server:
        assert ask(server, tmp_path / "a", asked(1)) == [answer]


def test_a_model_that_wants_other_settings_gets_them(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    def strict(prompt: str, time: int) -> Reply | str:
        sent = server.bodies[-1]
        for name, wanted in (("max_tokens", "Use 'max_completion_tokens' instead."), ("temperature", "Only 1.")):
            if name in sent:
                said = f"Unsupported parameter: '{name}' is not supported with this model. {wanted}"
                return Reply(status=400, body=json.dumps({"error": {"message": said}}).encode())
        return "B"

    with FakeEndpoint(strict) as server:
        assert ask(server, tmp_path / "a", asked(6), workers=1) == ["B"] * 6
        assert len(server.asked) == 6 + 2 and server.bodies[-1]["max_completion_tokens"] == 16
        assert ask(server, tmp_path / "b", asked(20), workers=4) == ["B"] * 20
    assert capsys.readouterr().out.count("takes no temperature") == 2
    with FakeEndpoint(echo) as server:
        ask(server, tmp_path / "c", asked(1), temperature=None)
        assert "temperature" not in server.bodies[0]


def test_without_quota_nothing_is_asked_again(tmp_path: Path) -> None:
    said = b'{"error": {"message": "You exceeded your quota", "code": "insufficient_quota"}}'
    with FakeEndpoint(lambda prompt, time: Reply(status=429, body=said, headers=SOON)) as server:
        with pytest.raises(RunError, match="HTTP 429: You exceeded your quota. The account is out of quota"):
            ask(server, tmp_path / "a", asked(20), workers=1)
        assert len(server.asked) == 1


def test_answers_that_cannot_be_read_are_not_kept_and_too_many_are_an_error(tmp_path: Path) -> None:
    given = {"question 1": "perhaps"}
    readable = lambda request, answer: answer == "B"  # noqa: E731
    with FakeEndpoint(lambda prompt, time: given.get(prompt, "B")) as server:
        assert ask(server, tmp_path / "a", asked(3), readable=readable) == ["B", "perhaps", "B"]
        given.clear()
        assert ask(server, tmp_path / "a", asked(3), readable=readable) == ["B"] * 3 and len(server.asked) == 4
    with FakeEndpoint(lambda prompt, time: "hm") as server:
        words = r"1\d of 1\d answers of m cannot be read. The first: 'hm'. Raise max_tokens"
        with pytest.raises(RunError, match=words):
            ask(server, tmp_path / "b", asked(60), workers=1, readable=readable)
        assert len(server.asked) < 14 and not (tmp_path / "b").read_text()


def test_messages_may_hold_turns_and_pictures(tmp_path: Path) -> None:
    picture = Image.new("RGB", (4, 4), "red")
    picture.save(tmp_path / "red.png")
    for image in (picture, tmp_path / "red.png"):
        parts = [{"type": "image", "image": image}, {"type": "text", "text": "Is it red?"}]
        turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": parts}]
        with FakeEndpoint(lambda prompt, time: "yes") as server:
            assert ask(server, tmp_path / f"{len(str(image))}", [{"id": 1, "messages": turns}]) == ["yes"]
            first, second = server.bodies[0]["messages"]
        assert first == turns[0] and second["content"][1] == parts[1]
        data = base64.b64decode(second["content"][0]["image_url"]["url"].removeprefix("data:image/png;base64,"))
        assert Image.open(io.BytesIO(data)).getpixel((0, 0)) == (255, 0, 0)
    assert openai_api.estimate([{"id": 1, "messages": turns}])["tokens_in"] == 3 + 800 + 3


def test_an_endpoint_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.0)
    with FakeEndpoint(lambda prompt, time: Reply(kind="hang") if prompt == "question 1" else "B") as server:
        found = ask(server, tmp_path / "a", asked(3), timeout=0.2, retries=1)
        assert found == ["B", Skip("q1", "no answer within 0.2 s"), "B"]


def test_no_proxy_is_asked_for_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):  # it would see the key: there is no encryption here
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    with FakeEndpoint(echo) as server:
        assert ask(server, tmp_path / "a", asked(1), retries=0) == ["QUESTION 0"]


def test_nobody_there_is_a_skip_too(tmp_path: Path) -> None:
    with FakeEndpoint(echo) as server:
        pass
    assert ask(server, tmp_path / "a", asked(1))[0].reason.startswith("ConnectError: ")


@pytest.mark.parametrize(
    ("status", "remedy"),
    [(401, "Set OPENAI_API_KEY to a key that may use the model 'm'"), (403, "Set OPENAI_API_KEY"),
     (404, "Correct the model ('m')"), (400, "Correct the model ('m')"), (307, "Redirects are not followed")],
)  # fmt: skip
def test_what_will_not_pass_is_one_error_at_once(status: int, remedy: str, tmp_path: Path) -> None:
    def reply(prompt: str, time: int) -> Reply | str:
        said = json.dumps({"error": {"message": f"no, not with Bearer {KEY}, {'x' * 170} {KEY}"}})
        headers = {"Location": "http://127.0.0.1:9/"}
        return "B" if prompt == "question 0" else Reply(status=status, body=said.encode(), headers=headers)

    with FakeEndpoint(reply) as server:
        with pytest.raises(RunError) as error:
            ask(server, tmp_path / "a", asked(50), workers=1)
        assert len(server.asked) == 2  # nothing is tried again
        words = str(error.value)
        assert (
            words.startswith(f"127.0.0.1:{server.server_port} answers HTTP {status}: no, not with") and remedy in words
        )
        assert "[key]" in words and "sk-test" not in words
        with pytest.raises(RunError):
            ask(server, tmp_path / "a", asked(50), workers=1)
        assert len(server.asked) == 3  # question 0 is kept


def test_too_many_skips_end_the_run_early_and_lose_nothing(tmp_path: Path) -> None:
    def reply(prompt: str, time: int) -> Reply | str:
        return BAD if int(prompt.split()[1]) in (10, 11, 12) and time <= 3 else echo(prompt, time)

    with FakeEndpoint(reply) as server:
        message = "3 of 40 items have no answer, more than 5% of them. The first: q10: HTTP 500.*; q11: .* repeat"
        with pytest.raises(RunError, match=message):
            ask(server, tmp_path / "a", asked(40), max_skipped=0.05, workers=1)
        kept = len((tmp_path / "a").read_text().splitlines())
        assert 10 <= kept < 37  # it stopped early
        before = len(server.asked)
        assert ask(server, tmp_path / "a", asked(40), max_skipped=0.0) == [f"QUESTION {n}" for n in range(40)]
        assert len(server.asked) - before == 40 - kept


def test_two_of_forty_are_no_more_than_five_percent(tmp_path: Path) -> None:
    with FakeEndpoint(lambda prompt, time: BAD if prompt.endswith(" 10") or prompt.endswith(" 11") else "B") as server:
        found = ask(server, tmp_path / "a", asked(40), max_skipped=0.05)
        assert [one.id for one in found if isinstance(one, Skip)] == ["q10", "q11"]


def test_an_error_in_the_caller_keeps_what_is_answered(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with FakeEndpoint(echo) as server:
        with pytest.raises(KeyboardInterrupt):
            ask(server, tmp_path / "a", asked(200), progress=stop, workers=2)
        kept = len((tmp_path / "a").read_text().splitlines())
        assert 3 <= kept == len(server.asked) < 200


# The key


def test_the_key_is_nowhere(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    def leak(prompt: str, time: int) -> Reply:
        if prompt == "question 0":
            return Reply(f"B, said with {KEY}")
        return Reply(status=500, body=f"{'y' * 190}{KEY}".encode(), headers=SOON)

    with FakeEndpoint(leak) as server:
        found = ask(server, tmp_path / "a", asked(2))
        assert server.keys == [f"Bearer {KEY}"] * 4  # the control: it was sent
        shown = [repr(Endpoint("m", server.url))]
    assert found[0] == "B, said with [key]" and found[1].reason.startswith("HTTP 500: yyy")
    kept = (tmp_path / "a").read_text()
    assert "said with [key]" in kept
    assert caplog.records  # the client logs each request
    for text in (kept, repr(found), *shown, *(record.getMessage() for record in caplog.records)):
        assert KEY not in text and "sk-test" not in text


def test_the_key_comes_from_its_variable_at_the_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeEndpoint(echo) as server:
        monkeypatch.setenv("OTHER_KEY", " other-key\n")
        ask(server, tmp_path / "a", asked(1), key_variable="OTHER_KEY")
        monkeypatch.delenv("OPENAI_API_KEY")
        ask(server, tmp_path / "b", asked(1))  # this machine's own servers want none
        assert server.keys == ["Bearer other-key", "Bearer none"]
    with pytest.raises(RunError, match="OPENAI_API_KEY is not set. Put the key for api.openai.com there"):
        openai_api.complete(asked(1), model="m", cache=tmp_path / "c")


@pytest.mark.parametrize("value", ["sk-two\nlines", "sk-ümlaut"])
def test_a_key_that_cannot_be_sent_is_not_shown(value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", value)
    with FakeEndpoint(echo) as server, pytest.raises(ParameterError, match="OPENAI_API_KEY holds char") as error:
        ask(server, tmp_path / "a")
    assert "sk-" not in str(error.value)


@pytest.mark.parametrize("variable", [KEY, "gsk_abcdef", "", "A B"])
def test_a_key_given_for_its_variable_is_not_shown(variable: str, tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="must be the name of an environment variable") as error:
        openai_api.complete(asked(1), model="m", cache=tmp_path / "a", key_variable=variable)
    assert not variable or variable not in str(error.value)


# What is refused before anything is asked


@pytest.mark.parametrize(
    "url",
    ["http://api.openai.com/v1", "http://localhost.example.com", "http://127.0.0.1@example.com", "ftp://localhost", "",
     "http://127.0.0.1\\@example.com", "api.openai.com/v1", "https://", "https://user:secret@api.openai.com/v1",
     "https://api.openai.com/v1?key=secret", "https://a:b:c"],
)  # fmt: skip
def test_the_key_goes_only_over_https_or_to_this_machine(url: str, tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="base_url") as error:
        openai_api.complete(asked(1), model="m", cache=tmp_path / "a", base_url=url)
    assert "secret" not in str(error.value) and not (tmp_path / "a").exists()


@pytest.mark.parametrize("url", ["https://api.openai.com/v1", "http://localhost:8000/v1", "http://[::1]:8000/v1/"])
def test_https_and_this_machine_are_good_addresses(url: str) -> None:
    assert Endpoint("m", url, 1, 0.0).local == url.startswith("http:")


@pytest.mark.parametrize(
    "changed",
    [{"workers": 0}, {"retries": -1}, {"timeout": 0}, {"max_tokens": 0}, {"max_skipped": 1.5},
     {"temperature": -0.1}, {"model": ""}],
)  # fmt: skip
def test_a_parameter_out_of_range_is_named(changed: dict, tmp_path: Path) -> None:
    settings = {"model": "m", "cache": tmp_path / "a"} | changed
    with pytest.raises(ParameterError, match=next(iter(changed))):
        openai_api.complete(asked(1), **settings)


def test_requests_without_text_or_with_one_id_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="request 2: id 'a' stands in the file twice"):
        openai_api.complete([{"id": "a", "text": "x"}] * 2, model="m", cache=tmp_path / "a")
    with pytest.raises(DataError, match="request 'a' has no text"):
        openai_api.complete([{"id": "a", "text": " "}], model="m", cache=tmp_path / "a")


# The estimate


def test_the_estimate_counts_what_is_not_in_the_cache(tmp_path: Path) -> None:
    requests = [{"id": n, "text": "x" * 401} for n in range(10)]
    counts = {"requests": 10, "cached": 0, "tokens": 1210, "tokens_in": 1010, "tokens_out": 200}
    assert openai_api.estimate(requests, 10.0, 30.0, 20) == {**counts, "cost": pytest.approx((10100 + 6000) / 1e6)}
    assert openai_api.estimate(requests, 10.0, 0.0, 20) == {**counts, "cost": None}
    with FakeEndpoint(echo) as server:
        ask(server, tmp_path / "a", requests[:4], max_tokens=20)
        given = {"model": "m", "base_url": server.url, "cache": tmp_path / "a"}
        found = openai_api.estimate(requests, 10.0, 30.0, 20, **given)
        assert (found["requests"], found["cached"], found["tokens"]) == (6, 4, 6 * 121)
        assert found["cost"] == pytest.approx((6 * 1010 + 6 * 600) / 1e6)
        assert openai_api.estimate(requests, 10.0, 30.0, 21, **given)["cached"] == 0  # other settings, other answers
        assert openai_api.estimate(requests[:4], 1.0, 1.0, 20, **given)["cost"] == 0.0
        assert len(server.asked) == 4  # an estimate asks nothing
    openai_api.estimate(requests, cache=tmp_path / "none", model="m")
    assert not (tmp_path / "none").exists()
    with pytest.raises(ParameterError, match="price_in"):
        openai_api.estimate(requests, -1.0)


# Option letters


def items(count: int = 400, options: int = 4) -> list[dict]:
    choices = [f"choice {number}" for number in range(options)]
    return [{"id": n, "text": f"Question {n}?", "options": choices, "label": 0} for n in range(count)]


NAMES_B = [
    "B", "b", "B.", "(b)", "[B]", " B\n", "B)", "B:", "**B**", "**B.** Paris", "B. Paris", "(B) Paris", "B - Paris",
    "B\n\nIt is Paris.", "B, because it is.", "Answer: B", "answer: b", "Answer:\nB", "The answer is B.", '"B"', "`B`",
    "The correct answer is (B).", "The best answer is: **B**", "Option B", "My choice is B, I think.",
    "The answer is option B.", "The answer is B because a dog barks.", "B. Washington, D.C.", "B. I'm from Texas A&M",
]  # fmt: skip
NAMES_NONE = [
    "", "E", "Paris", "A dog", "I am not sure.", "A or B", "B or C", "A, B", "a, b or c", "B and C.", "A: B", "BC",
    "42", "Answer: B or C", "Not B.", "The answer is not B.", "A. No, the answer is B.", "None of them.", "B.C.",
    "B. Paris\nC. Rome", "Both A. and B.", "The answer is a dog.", "Answer: A, B", "As an AI, I cannot say.",
    "The answer is E.",
]  # fmt: skip


@pytest.mark.parametrize(
    ("answer", "place"),
    [(answer, 1) for answer in NAMES_B]
    + [
        ("A", 0),
        ("A. A dog", 0),
        ("The answer is A", 0),
        ("D. I don't know", 3),
        ("The answer is D. A dog is big.", 3),
    ]
    + [(answer, None) for answer in NAMES_NONE],
)
def test_the_letter_of_an_answer(answer: str, place: int | None) -> None:
    assert letters.parse(answer, "ABCD") == place


def test_the_prompt_letters_the_options_in_the_order_it_records() -> None:
    one = {"id": "x", "text": "Why?", "options": ["best", "worse", "worst"], "label": 0}
    (found,) = letters.requests([one], seed=3)
    assert sorted(found["order"]) == [0, 1, 2] and found["order"] == letters.order("Why?", 3, 3)
    lines = [f"{letter}. {one['options'][place]}" for letter, place in zip("ABC", found["order"], strict=True)]
    assert found["text"] == "\n".join(["Why?", "", *lines, "", letters.INSTRUCTION])


def test_the_order_is_fixed_by_item_and_seed_and_balanced() -> None:
    orders = [request["order"] for request in letters.requests(items(), seed=1)]
    assert orders == [request["order"] for request in letters.requests(items(), seed=1)]
    assert orders != [request["order"] for request in letters.requests(items(), seed=2)]
    assert orders[::-1] == [request["order"] for request in letters.requests(items()[::-1], seed=1)]
    assert letters.order("Why?", 5, 0) == [2, 1, 0, 3, 4]  # the same on every machine
    for place in range(4):
        assert 70 < sum(order.index(0) == place for order in orders) < 130
    assert 170 < sum(order == [0, 1] for order in (letters.order(str(n), 2) for n in range(400))) < 230


@pytest.mark.parametrize("letter", "ABCD")
def test_a_constant_letter_gives_chance(letter: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = letters.score(letters.samples(items(), [letter] * 400, arm="a", seed=1))
    assert found["low"] < 0.25 < found["high"] and found["unparsed"] == 0
    monkeypatch.setattr(letters, "order", lambda text, count, seed: list(range(count)))  # the control: file order
    assert letters.score(letters.samples(items(), [letter] * 400, arm="a"))["value"] == float(letter == "A")


def test_unparsed_is_wrong_and_skipped_is_neither() -> None:
    few = items(4)
    right = ["ABCD"[request["order"].index(0)] for request in letters.requests(few, seed=1)]
    records = letters.samples(few, [right[0], "no idea", Skip("2", "HTTP 500"), right[3]], arm="a", seed=1)
    assert [record["correct"] for record in records] == [True, False, False, True]
    assert [record["chosen"] for record in records] == [0, None, None, 0]
    assert [record["skipped"] for record in records] == [None, None, "2: HTTP 500", None]
    found = letters.score(records)
    assert (found["value"], found["n"], found["unparsed"], found["skipped"]) == (pytest.approx(2 / 3), 3, 1, 1)
    with pytest.raises(DataError, match="none of 4 items was answered"):
        letters.score(letters.samples(few, [None] * 4, arm="a"))
    with pytest.raises(ValueError):
        letters.samples(few, ["A"], arm="a")
    assert letters.provenance(0)["protocol"] == "letters" and letters.provenance(0) != letters.provenance(1)


@pytest.mark.parametrize(
    ("changed", "message"),
    [({"text": " "}, "a text"), ({"options": ["a"]}, "1 options"), ({"options": ["a"] * 27}, "27 options"),
     ({"label": 4}, "4 options and label 4"), ({"label": None}, "4 options and label None")],
)  # fmt: skip
def test_a_faulty_item_is_named(changed: dict, message: str) -> None:
    with pytest.raises(DataError, match=f"item 'x' needs .*{message}"):
        letters.requests([*items(2), items(1)[0] | {"id": "x"} | changed])
    with pytest.raises(DataError, match="item 2: id 0 stands in the file twice"):
        letters.requests(items(1) * 2)


def test_an_answerer_that_knows_is_right_through_the_endpoint(tmp_path: Path) -> None:
    known = items(30)
    with FakeEndpoint(lambda prompt, time: f"The answer is {prompt[prompt.index('. choice 0') - 1]}.") as server:
        answers = ask(server, tmp_path / "a", letters.requests(known, seed=5))
    assert letters.score(letters.samples(known, answers, arm="a", seed=5))["value"] == 1.0
    assert letters.score(letters.samples(known, answers, arm="a", seed=6))["value"] < 0.6  # another order


@needs_data
@pytest.mark.parametrize("name", ["mc_task_2021-09_hf", "mc_task_2025-01"])
def test_truthfulqa_does_not_leak_its_best_answer(name: str) -> None:
    loaded = truthfulqa_files.read_items(DATA / "truthfulqa" / f"{name}.json")
    found = truthfulqa.as_letters(loaded)
    assert all(one["label"] == 0 for one in found)  # the best answer is the first of every question
    constant = letters.score(letters.samples(found, ["A"] * len(found), arm="a"))
    assert constant["low"] < sum(1 / len(one["options"]) for one in found) / len(found) < constant["high"] < 0.3
    told = [f"{'ABCDEFGHIJKLM'[r['order'].index(0)]}. {one['options'][0]}"
            for r, one in zip(letters.requests(found), found, strict=True)]  # fmt: skip
    judged = letters.score(letters.samples(found, told, arm="a"))
    assert judged["value"] + judged["unparsed"] / judged["n"] == pytest.approx(1.0) and judged["unparsed"] <= 4
