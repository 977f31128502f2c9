"""Answers rated by a model: the form of a reply, what is malformed, the real client against a server of its own."""

import json
from collections import Counter
from pathlib import Path

import pytest
from fake_endpoint import FakeEndpoint, Reply
from PIL import Image

from sbt.data import preferences
from sbt.inference import annotation
from sbt.utils.errors import DataError, ParameterError, RunError

KEY = "sk-judge-0123456789abcdef"
SAID = [["Yes.", "No."]] * 6
LINE = "Answer {}: helpfulness {}, correctness 3, coherence 4, complexity 1, verbosity 0"
GOOD = f"The first is right.\nMy answer: Yes, there is.\n{LINE.format(1, 4)}\n{LINE.format(2, 0)}"


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


@pytest.fixture
def asked(tmp_path: Path) -> list[dict]:
    Image.new("RGB", (8, 8), "red").save(tmp_path / "a.png")
    image = str(tmp_path / "a.png")
    return [{"id": f"q{n}", "image": image if n % 2 else "", "question": f"Question {n}?"} for n in range(6)]


def number(prompt: str) -> int:
    return int(prompt.partition("Question ")[2][0])


def rated(server: FakeEndpoint, asked: list[dict], cache: Path, **api: object) -> tuple[list[dict], list[dict]]:
    api = {"model": "m", "base_url": server.url, "retries": 1, "timeout": 2.0, "max_skipped": 1.0} | api
    return annotation.annotate(asked, SAID, annotation.endpoint(api), cache)


def test_a_reply_is_reasons_an_answer_and_ratings() -> None:
    found = annotation.parse(GOOD, 2)
    assert found["ratings"][0] == dict(zip(preferences.ATTRIBUTES, (4, 3, 4, 1, 0), strict=True))
    assert found["annotator_answer"] == "Yes, there is." and found["rationale"] == "The first is right."
    loud = GOOD.upper().replace("HELPFULNESS 4,", "**HELPFULNESS**: 4.,")
    assert annotation.parse(loud, 2)["ratings"] == found["ratings"]
    early = f"At first I thought:\n{LINE.format(1, 1)}\n{GOOD}"  # what stands last counts
    assert annotation.parse(early, 2)["ratings"] == found["ratings"]


@pytest.mark.parametrize(
    "change",
    [("correctness 3", "correctness 5"), ("correctness 3", "correctness 2.5"), ("correctness 3, ", ""),
     ("correctness 3", "correctness -"), ("Answer 2", "Answer 3"), ("correctness 3", "helpfulness 3"), (GOOD, "")],
)  # fmt: skip
def test_anything_else_is_malformed(change: tuple[str, str]) -> None:
    assert annotation.parse(GOOD.replace(*change), 2) is None


def test_a_malformed_reply_is_asked_for_once_more_and_kept(tmp_path: Path, asked: list[dict]) -> None:
    def answer(prompt: str, time: int) -> str:
        again = "could not be read" in prompt
        return "I like both." if number(prompt) == 2 or (number(prompt) == 4 and not again) else GOOD

    with FakeEndpoint(answer) as server:
        rows, malformed = rated(server, asked, tmp_path / "c")
        assert [row["id"] for row in rows] == ["q0", "q1", "q3", "q4", "q5"]
        assert malformed == [{"id": "q2", "why": "malformed ratings", "raw": ["I like both."] * 2}]
        assert len(server.asked) == 8
        assert rated(server, asked, tmp_path / "c") == (rows, malformed) and len(server.asked) == 8
    assert preferences.check(rows) and preferences.pairs(rows)[0][0]["chosen"] == "Yes."
    assert {row["annotator"] for row in rows} == {"m"} and all(row["raw"] == GOOD for row in rows)
    shown = [body["messages"][0]["content"] for body in server.bodies]
    pictures = Counter(any(part["type"] == "image_url" for part in content) for content in shown)
    assert pictures == {True: 3, False: 5}  # of those that have one
    assert KEY not in (tmp_path / "c").read_text(encoding="utf-8") + json.dumps(rows)


def test_what_goes_wrong_on_the_way_leaves_the_prompt_out_and_costs_nothing_twice(
    tmp_path: Path, asked: list[dict]
) -> None:
    refused = {"index": 0, "message": {"role": "assistant", "content": None, "refusal": "no"}, "finish_reason": "stop"}
    trouble = {
        0: Reply(status=429, body=b'{"error": {"message": "slow down"}}', headers={"retry-after-ms": "1"}),
        1: Reply(body=json.dumps({"object": "chat.completion", "choices": [refused]}).encode()),
        2: Reply(kind="hang"),
        3: Reply(GOOD, kind="cut"),
        4: Reply(kind="reset"),
    }
    healed = []

    def answer(prompt: str, time: int) -> Reply | str:
        return GOOD if healed else trouble.get(number(prompt), GOOD)

    with FakeEndpoint(answer) as server:
        rows, malformed = rated(server, asked, tmp_path / "c", timeout=0.5)
        assert [row["id"] for row in rows] == ["q5"] and len(malformed) == 5
        assert all(one["why"] != "malformed ratings" and not one["raw"] for one in malformed)
        healed.append(True)
        before = Counter(map(number, server.asked))
        rows, malformed = rated(server, asked, tmp_path / "c")
        assert len(rows) == 6 and not malformed
        assert Counter(map(number, server.asked))[5] == before[5] == 1


def test_a_run_that_is_killed_pays_for_nothing_twice(tmp_path: Path, asked: list[dict]) -> None:
    class Killed(BaseException):
        pass

    def stop(done: int, total: int) -> None:
        if done == 3:
            raise Killed

    with FakeEndpoint(lambda prompt, time: GOOD) as server:
        rater = annotation.endpoint({"model": "m", "base_url": server.url, "workers": 1})
        with pytest.raises(Killed):
            annotation.annotate(asked, SAID, rater, tmp_path / "c", progress=stop)
        annotation.annotate(asked, SAID, rater, tmp_path / "c")
        assert Counter(map(number, server.asked)) == dict.fromkeys(range(6), 1)


def test_the_cost_is_shown_before_and_the_budget_holds(
    tmp_path: Path, asked: list[dict], capsys: pytest.CaptureFixture
) -> None:
    with FakeEndpoint(lambda prompt, time: GOOD) as server:
        with pytest.raises(RunError, match="budget is 0.01"):
            rated(server, asked, tmp_path / "c", price_in=10, price_out=30, budget=0.01)
        assert "cost 0.2" in capsys.readouterr().out and not server.asked


def test_what_cannot_be_an_annotator_is_refused(tmp_path: Path, asked: list[dict]) -> None:
    for given in ({"arm": "a", "model": "m"}, {"modell": "m"}, {"model": ""}):
        with pytest.raises(ParameterError, match="annotator needs model"):
            annotation.named(given, lambda step: tmp_path)
    with pytest.raises(RunError, match="no reply of 6 could be read"):
        annotation.annotate(asked, SAID, ("m", lambda requests, *rest: ["no"] * len(requests)), tmp_path / "c")


def test_the_authors_rows_of_steerlm_are_one_table(tmp_path: Path) -> None:
    def row(question: str, answer: str, level: int, **more: object) -> dict:
        asked = "<image>\n" + question + preferences.condition(dict.fromkeys(preferences.ATTRIBUTES, level))
        said = [{"from": "human", "value": asked}, {"from": "gpt", "value": answer}]
        return {"id": "1", "image": "a.png", "conversations": said} | more

    file = tmp_path / "steerlm.json"
    rows = [row("What?", "A", 4), row("What?", "B", 1), row("Who?", "C", 2), row("Who?", "D", 0), row("Why?", "E", 3)]
    file.write_text(json.dumps(rows), encoding="utf-8")
    table = preferences.load(file)
    assert [(one["question"], one["answers"]) for one in table] == [("What?", ["A", "B"]), ("Who?", ["C", "D"])]
    assert [pair["chosen"] for pair in preferences.pairs(table)[0]] == ["A", "C"]
    assert "annotator_answer" not in table[0]
    own = row("Who?", "mine", 0) | {"conversations": [{"value": "Who?\n<image>"}, {"value": "mine"}]}
    (tmp_path / "standard_sft.json").write_text(json.dumps([own]), encoding="utf-8")
    assert [one.get("annotator_answer", "") for one in preferences.load(file)] == ["", "mine"]
    assert table[0]["image"] == str(tmp_path / "a.png") and len({one["id"] for one in table}) == 2
    file.write_text(json.dumps([row("What?", "A", 4) | {"conversations": [{"value": "What?"}, {"value": "A"}]}]))
    with pytest.raises(DataError, match="row 1: the question does not end in ratings"):
        preferences.load(file)
