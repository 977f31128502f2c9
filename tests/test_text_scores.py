"""Every arm is asked every task, once: what comes back, what is kept, prompts that are too long."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from fake_endpoint import FakeEndpoint
from tiny_fixtures import small  # noqa: F401 - a fixture

from sbt import models
from sbt.benchmarks.common import evaluate_text, letters
from sbt.benchmarks.squad2.task import SQUAD2 as squad2
from sbt.inference.completion import complete
from sbt.inference.loglikelihood import loglikelihoods
from sbt.microworld import text_benchmarks
from sbt.models import TextArm
from sbt.utils.errors import DataError, ParameterError, RunError

CHOICE = [
    {"id": str(n), "context": f"Q: is it {n * 'really '}red?\nA:", "continuations": [" no", " yes"]} for n in range(5)
]
TEXT = [{"id": str(n), "context": f"A chat about {n} stars", "until": ["\n"]} for n in range(3)]
LONG = {"id": "long", "context": " a" * 700, "continuations": [" no", " yes"]}


@pytest.fixture(scope="module")
def arms(small: SimpleNamespace) -> list[TextArm]:  # noqa: F811
    made = []
    for name, scale in (("base", 3.0), ("tuned", 4.0)):
        model, words = models.load_language_model(small.llm)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() > 1:
                    parameter.mul_(scale)
        made.append(TextArm(name, model, words))
    return made


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict]]:
    folder = tmp_path_factory.mktemp("world")
    text_benchmarks.write(folder, 0)
    docs = squad2.load(folder / "eval" / "squad2")
    return {"a choice": CHOICE, "texts": TEXT, **squad2.requests(docs[:4])}


def test_every_arm_answers_every_task(arms: list, asked: dict, tmp_path: Path) -> None:
    steps = []
    answers, cut = evaluate_text.ask(
        arms, asked, tmp_path / "kept", max_new_tokens=6, progress=lambda *step: steps.append(step)
    )
    assert {name: list(found) for name, found in answers.items()} == {"base": list(asked), "tuned": list(asked)}
    assert cut == {} and steps[-1] == (4, 4)
    for arm in arms:
        own = arm.model, arm.tokenizer
        found = answers[arm.name]
        assert found["a choice"] == loglikelihoods(*own, CHOICE, cache=tmp_path / f"{arm.name}1")
        assert found["texts"] == complete(*own, TEXT, cache=tmp_path / f"{arm.name}2", max_new_tokens=6)
        both = asked["squad2"]
        texts = complete(*own, both, cache=tmp_path / f"{arm.name}3", max_new_tokens=6)
        values = loglikelihoods(*own, both, cache=tmp_path / f"{arm.name}4")
        assert found["squad2"] == [(text, value) for text, [value] in zip(texts, values, strict=True)]
    assert all(answers["base"][task] != answers["tuned"][task] for task in asked)


def test_both_kinds_are_what_squad2_scores(arms: list, asked: dict, tmp_path: Path) -> None:
    answers, _ = evaluate_text.ask(arms[:1], {"squad2": asked["squad2"]}, tmp_path, max_new_tokens=4)
    docs = [{"id": str(n), "answers": {"text": ["a"], "answer_start": [0]}} for n in range(3)]
    docs.append({"id": "3", "answers": {"text": [], "answer_start": []}})
    results = answers["base"]["squad2"]
    scores = squad2.per_item(docs, results)
    assert scores["answerable"] == [1.0, 1.0, 1.0, 0.0] and all(0 < value < 1 for value in scores["no_answer"])
    assert {row["n"] for row in squad2.rows(docs, results, arm="base")} == {1, 3, 4}


def test_settings_reach_the_scorers(arms: list, tmp_path: Path) -> None:
    def ask(**changed: object) -> dict:
        return evaluate_text.ask(arms[:1], {"c": CHOICE, "t": TEXT}, tmp_path, **{"max_new_tokens": 4} | changed)[0][
            "base"
        ]

    first = ask()
    assert ask(batch_size=1)["t"] == first["t"]
    with_bos = ask(add_bos="always")
    assert ask(add_bos="never") == ask() == first, "this tokenizer adds none"
    assert with_bos["c"] != first["c"] and with_bos["t"] != first["t"]
    longer = ask(max_new_tokens=9)
    assert all(new.startswith(old) for new, old in zip(longer["t"], first["t"], strict=True)) and longer != first


def test_what_is_known_is_not_asked_again(
    arms: list, asked: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = evaluate_text.ask(arms, asked, tmp_path, max_new_tokens=6)
    kept = {str(file.relative_to(tmp_path)): file.read_bytes() for file in sorted(tmp_path.rglob("*.jsonl"))}
    own = ("a-choice.values", "squad2.texts", "squad2.values", "texts.texts")
    assert list(kept) == [f"{arm.name}/{name}.jsonl" for arm in arms for name in own]
    assert [len(lines.splitlines()) for lines in kept.values()] == [5, 4, 4, 3] * 2
    ids = [json.loads(line)["id"] for line in kept["base/squad2.texts.jsonl"].splitlines()]
    assert sorted(ids) == ["0", "1", "2", "3"]

    def fail(*args: object, **given: object) -> None:
        raise AssertionError("the model is asked")

    for arm in arms:
        monkeypatch.setattr(arm.model, "forward", fail)
        monkeypatch.setattr(arm.model.model, "forward", fail)
    assert evaluate_text.ask(arms, asked, tmp_path, max_new_tokens=6) == first
    assert {str(file.relative_to(tmp_path)): file.read_bytes() for file in sorted(tmp_path.rglob("*.jsonl"))} == kept
    with pytest.raises(AssertionError, match="the model is asked"):  # the control
        evaluate_text.ask(arms, {"a choice": [{**CHOICE[0], "context": "else"}]}, tmp_path)
    with torch.no_grad():
        arms[0].model.lm_head.weight.mul_(2)
    with pytest.raises(AssertionError, match="the model is asked"):
        evaluate_text.ask(arms, asked, tmp_path, max_new_tokens=6)
    with torch.no_grad():
        arms[0].model.lm_head.weight.div_(2)


def test_a_prompt_too_long_is_an_error_or_cut_and_counted(arms: list, tmp_path: Path) -> None:
    tasks = {"short": CHOICE, "long": [*CHOICE, LONG], "texts": [{**LONG, "until": ["\n"]}]}
    with pytest.raises(DataError, match=r"^\w+, item 'long': 70\d tokens, the model reads 512.*too_long=truncate"):
        evaluate_text.ask(arms, tasks, tmp_path / "error", max_new_tokens=4)
    assert not (tmp_path / "error").exists(), "it is found before anything is computed"
    for _ in range(2):  # computed, and then known
        answers, cut = evaluate_text.ask(arms, tasks, tmp_path / "cut", max_new_tokens=4, too_long="truncate")
        assert cut == {"long": 1, "texts": 1}
        long, short = answers["base"]["long"], answers["base"]["short"]
        # other rows share the batch: on some processors that moves the last digit
        assert [pytest.approx(values, abs=1e-4) for values in short] == long[:5] and len(long) == 6
    with pytest.raises(ParameterError, match="add_bos 'yes' is unknown: known are auto, always, never"):
        evaluate_text.ask(arms, tasks, tmp_path / "cut", add_bos="yes")
    with pytest.raises(ParameterError, match="too_long 'drop' is unknown: known are error, truncate"):
        evaluate_text.ask(arms, tasks, tmp_path / "cut", too_long="drop")


# --- option letters of a model behind an endpoint


ITEMS = [{"id": f"q{n}", "text": f"What is {n}?", "options": ["this", "that"], "label": n % 2} for n in range(8)]
NAMED = {"benchmark": "truthfulqa", "subset": "all", "metric": "mc1"}


def test_an_endpoint_names_letters(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    orders = {request["text"]: request["order"] for request in letters.requests(ITEMS, 3)}
    labels = {request["text"]: item["label"] for request, item in zip(letters.requests(ITEMS, 3), ITEMS, strict=True)}

    def right(prompt: str, time: int) -> str:
        return "Who knows" if "What is 7?" in prompt else "AB"[orders[prompt].index(labels[prompt])]

    with FakeEndpoint(right) as server:
        api = {"model": "m", "base_url": server.url}
        row, samples = letters.by_letters(ITEMS, api, tmp_path / "c", seed=3, **NAMED)
        again = letters.by_letters(ITEMS, api, tmp_path / "c", seed=3, **NAMED)
        assert again == (row, samples) and len(server.asked) == 8 + 1  # an answer without a letter is not kept
    assert (row["arm"], row["metric"], row["value"], row["n"]) == ("m", "mc1", 7 / 8, 8)
    assert row["protocol"] == letters.PROTOCOL and row["low"] < 7 / 8
    assert [sample["correct"] for sample in samples] == [True] * 7 + [False]
    told = capsys.readouterr().out
    assert "1 answers name no option (wrong), 0 have no answer" in told


def test_an_endpoint_is_not_asked_beyond_the_budget(tmp_path: Path) -> None:
    with FakeEndpoint(lambda prompt, time: "A") as server:
        api = {"model": "m", "base_url": server.url, "price_in": 1e6, "price_out": 1e6, "budget": 2.0}
        with pytest.raises(RunError, match="the budget is 2.0. Raise it"):
            letters.by_letters(ITEMS, api, tmp_path / "c", **NAMED)
        with pytest.raises(ParameterError, match="api has no key 'modell'; did you mean 'model'"):
            letters.by_letters(ITEMS, {"modell": "m"}, tmp_path / "c", **NAMED)
        assert server.asked == []
