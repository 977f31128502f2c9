"""Judged benchmarks: prompts, parsers, both orders, both rules for unread verdicts, replay, doubts, raw files."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from fake_endpoint import FakeEndpoint
from tiny_fixtures import small  # noqa: F401 - a fixture

from sbt import models
from sbt.__main__ import main
from sbt.benchmarks.alpacaeval import task as alpaca
from sbt.benchmarks.common import judge as judging
from sbt.benchmarks.common import judged, judges
from sbt.benchmarks.common.judge import Judge
from sbt.benchmarks.llavabench import task as bench
from sbt.benchmarks.mmbench import task as mmbench
from sbt.benchmarks.mmvet import task as vet
from sbt.benchmarks.mtbench import task as mt
from sbt.inference import generation
from sbt.microworld import preferences as world
from sbt.utils.errors import DataError, ParameterError

RANKED = "[{{'model': 'model_1', 'rank': {}}}, {{'model': 'model_2', 'rank': {}}}]"
FIRST, SECOND = RANKED.format(1, 2), RANKED.format(2, 1)
ASKED = [{"instruction": f"Question {n}?", "output": "short", "dataset": "koala"} for n in range(6)]
SAID = ["an answer, longer"] * 5 + [""]


def said_by(function: Callable[[dict], object], name: str = "m") -> Judge:
    return Judge(name, lambda protocol, cases, cache, progress: [function(case) for case in cases])


def rows_of(judge: Judge, tmp_path: Path, arms: dict[str, list[str]] | None = None) -> list[dict]:
    cases = [c for arm, said in (arms or {"a": SAID}).items() for c in alpaca.cases(ASKED, said, arm=arm)]
    return judging.judged(alpaca.PROTOCOL, judge, cases, tmp_path / "c")


def by_length(case: dict) -> str:
    """A judge of taste: the longer answer wins, wherever it stands."""
    longer = len(case["answer"]) > len(case["other"])
    return FIRST if longer == (case["row"]["order"] == "first") else SECOND


# --- what was released


@pytest.mark.parametrize(
    ("counts", "rate", "error"),
    [((657, 144, 4), 81.86335403726707, 1.35322735164236), ((635, 163, 5), 79.38978829389788, 1.4215449951275951),
     ((648, 150, 5), 81.00871731008718, 1.3779945064783754), ((548, 248, 4), 68.75, 1.6350117596879532)],
)  # fmt: skip
def test_a_file_of_verdicts_is_counted_as_its_leaderboard(
    counts: tuple, rate: float, error: float, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """findalexli/mllm-dpo, leaderboard.csv: Vicuna, LLaVA, LLaVA-RLHF, SteerLM; draws count half."""
    wins, losses, draws = counts
    preferences = [2.0] * wins + [1.0] * losses + [0.0] * draws + [None] * 5
    row = {"instruction": "a", "output_1": "b", "output_2": "cc", "annotator": "alpaca_eval_gpt4"}
    row["model_id"] = "steerlm"
    file = tmp_path / "annotations.json"
    file.write_text(json.dumps([row | {"preference": value} for value in preferences]))
    assert main(["score", "alpacaeval", "--judgements", str(file)]) == 0
    told = json.loads(capsys.readouterr().out)
    found = told["arms"]["steerlm"]
    assert (told["judge"], found["n"]) == ("alpaca_eval_gpt4", sum(counts))
    assert (found["win_rate"], found["standard error"]) == pytest.approx((rate, error), rel=1e-12)
    assert (found["wins"], found["losses"], found["draws"], found["unread"]) == (*counts, 5)
    assert found["win_rate, unread lowest"] == pytest.approx(100 * (wins + draws / 2) / (sum(counts) + 5))


# --- parsers, as the publishers' code reads


@pytest.mark.parametrize(
    ("parse", "verdict", "found"),
    [(mt.parse, "Good. Rating: [[7]]", (7.0,)), (mt.parse, "[[7.5]] then [[3]]", (7.5,)), (mt.parse, "[8]", (8.0,)),
     (mt.parse, "[3] but [[9]]", (9.0,)), (mt.parse, "Rating: 7", None), (mt.parse, "", None),
     (alpaca.parse, FIRST, (1.0, 0.0)), (alpaca.parse, SECOND, (0.0, 1.0)), (alpaca.parse, RANKED.format(3, 1), None),
     (alpaca.parse, "model_1", None), (alpaca.parse, "preference 1.5", (0.5, 0.5)), (alpaca.parse, "[{}]", None),
     (alpaca.parse, "preference 0", (0.5, 0.5)), (alpaca.parse, "preference None", None),
     (alpaca.parse, "__import__('os').abort()", None),
     (bench.parse, "8 7\nWell.", (8.0, 7.0)), (bench.parse, "8,7", (8.0, 7.0)), (bench.parse, "8, 7", None),
     (bench.parse, "8.5 9 10", None), (bench.parse, "good bad", None), (bench.parse, "", None),
     (vet.parse, "0.5", (0.5,)), (vet.parse, "1.0 |", (1.0,)), (vet.parse, "1.5", None), (vet.parse, "half", None)],
)  # fmt: skip
def test_verdicts_are_read_as_the_publishers_read_them(parse: Callable, verdict: str, found: tuple | None) -> None:
    assert parse(verdict) == found


# --- prompts


def test_a_prompt_is_the_publishers_and_answers_with_braces_stay() -> None:
    question = {"question_id": 1, "category": "math", "turns": ["1 + 1?", "And {answer}?"], "reference": ["2", "two"]}
    first, second = mt.cases([question], {1: ["{question}", ""]}, arm="a")
    assert [case["row"]["template"] for case in (first, second)] == ["single-math-v1", "single-math-v1-multi-turn"]
    text = first["messages"][1]["content"]
    assert "[The Start of Reference Answer]\n2\n[The End" in text and "[Question]\n1 + 1?\n\n" in text
    assert "[The Start of Assistant's Answer]\n{question}\n[The End" in text
    assert "### User:\nAnd {answer}?\n\n### Assistant A:\n\n\n<|The End" in second["messages"][1]["content"]
    assert (first["row"]["empty"], second["row"]["empty"], second["row"]["turn"]) == (False, True, 2)
    plain = mt.cases([question | {"category": "writing"}], {1: ["a", "b"]}, arm="a")
    assert "Reference" not in plain[0]["messages"][1]["content"]


def test_where_answers_stand_is_the_order_of_the_case() -> None:
    first, second = alpaca.cases(ASKED[:1], ["MINE"], arm="a")
    texts = [case["messages"][1]["content"] for case in (first, second)]
    assert [text.index("MINE") < text.index('"""short"""') for text in texts] == [True, False]
    assert [case["row"]["order"] for case in (first, second)] == ["first", "second"]
    drawn = Counter(alpaca.drawn(f"Question {n}?") for n in range(400))
    assert 150 < drawn["first"] < 250


# --- both orders, both rules, one judge


def test_a_judge_that_takes_what_it_reads_first_decides_nothing(tmp_path: Path) -> None:
    rows = rows_of(said_by(lambda case: FIRST), tmp_path)
    row = judging.metric_rows(alpaca.PROTOCOL, rows)[0]
    biased = judging.biases(alpaca.PROTOCOL, rows).loc["a"]
    assert (row["value"], row["n"]) == (50.0, 6)
    assert (biased["shown first"], biased["orders agree"], biased["empty answers"]) == (1.0, 0.0, 0.167)
    longer = judging.biases(alpaca.PROTOCOL, rows_of(said_by(by_length), tmp_path)).loc["a"]
    assert (longer["longer"], longer["shown first"], longer["orders agree"]) == (1.0, 0.5, 1.0)


def test_unread_verdicts_count_by_either_rule_and_missing_ones_by_none(tmp_path: Path) -> None:
    def verdict(case: dict) -> str | None:
        return {0: "I cannot say", 1: None}.get(case["row"]["question"], by_length(case))

    rows = rows_of(said_by(verdict), tmp_path)
    found = {r["metric"]: r["value"] for r in judging.metric_rows(alpaca.PROTOCOL, rows) if r["subset"] == "all"}
    assert found["win_rate"] == pytest.approx(75) and found["win_rate, unread lowest"] == pytest.approx(60)
    assert found["unparsed"] == pytest.approx(1 / 6)
    review = [{"question_id": n, "category": "llava_bench_conv", "content": text} for n, text in
              enumerate(("8 6", "5 5", "no idea"))]  # fmt: skip
    rows = [judging.BLANK | {"benchmark": "llavabench"} | row for row in bench.PROTOCOL.publishers(review)]
    found = {r["metric"]: r["value"] for r in judging.metric_rows(bench.PROTOCOL, rows) if r["subset"] == "all"}
    assert found["relative_score"] == pytest.approx(100 * 10 / 12)  # LLaVA's -1 and -1 stay in its mean
    assert found["relative_score, unread dropped"] == pytest.approx(100 * 11 / 13)


@pytest.mark.parametrize("name", judging.SAME)
def test_scores_of_different_judges_are_never_compared(name: str, tmp_path: Path) -> None:
    rows = rows_of(said_by(by_length), tmp_path, {"a": SAID, "b": SAID})
    assert set(alpaca.per_item(rows)["alpacaeval"].columns) == {"a", "b"}
    mixed = [row | ({name: "other"} if row["arm"] == "b" else {}) for row in rows]
    for use in (alpaca.per_item, lambda r: judging.metric_rows(alpaca.PROTOCOL, r)):
        with pytest.raises(DataError, match=f"different {name}s"):
            use(mixed)
    (row, *_) = judging.metric_rows(alpaca.PROTOCOL, rows)
    assert row["protocol"] == "standard, judged by m"  # `sbt compare` sets such rows beside each other alone


# --- replay


def test_verdicts_of_a_file_are_those_of_the_run_that_wrote_it(tmp_path: Path) -> None:
    rows = rows_of(said_by(by_length), tmp_path)
    file = tmp_path / "samples.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert rows_of(judges.replay(file), tmp_path) == rows
    with pytest.raises(DataError, match="another answer or prompt"):
        rows_of(judges.replay(file), tmp_path, {"a": ["changed", *SAID[1:]]})
    with pytest.raises(DataError, match="has no verdict"):
        rows_of(judges.replay(file), tmp_path, {"b": SAID})
    file.write_text("".join(json.dumps(row) + "\n" for row in [*rows, rows[0]]))
    with pytest.raises(DataError, match="row 13: arm 'a', question 0 is judged twice"):
        judging.read(alpaca.PROTOCOL, file)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("arm", None),
        ("arm", ["a"]),
        ("question", {}),
        ("turn", "1"),
        ("judge", 3),
        ("judge", "\ud800"),
        ("template_hash", []),
        ("temperature", "hot"),
        ("verdict", 3),
        ("verdict", "\ud800"),
        ("subset", None),
    ],
)
def test_a_verdict_of_another_kind_is_named(tmp_path: Path, key: str, value: object) -> None:
    rows = rows_of(said_by(by_length), tmp_path)
    file = tmp_path / "odd.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in [rows[0], rows[1] | {key: value}]))
    with pytest.raises(DataError, match=rf"odd.jsonl, row 2: '{key}' (cannot be|holds half)"):
        judging.read(alpaca.PROTOCOL, file)
    for other in ([3], [None, rows[0]], "x"):
        (tmp_path / "odd.json").write_text(json.dumps(other))
        with pytest.raises(DataError, match="odd.json"):
            judging.read(alpaca.PROTOCOL, tmp_path / "odd.json")


def test_a_single_verdict_has_no_standard_error(tmp_path: Path) -> None:
    row = {"instruction": "a", "output_1": "b", "output_2": "cc", "annotator": "x", "preference": 2.0}
    (tmp_path / "one.json").write_text(json.dumps([row]))
    found = alpaca.score_files(tmp_path / "one.json")
    assert found["arms"]["the arm"]["win rate"] == 100 and "standard error" not in found["arms"]["the arm"]
    json.dumps(found, allow_nan=False)


def test_raw_files_of_the_publishers_are_scored(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    one = {"question_id": 1, "model": "v", "judge": ["gpt-4", "single-v1"]}
    single = [{**one, "judgment": "[[8]]", "turn": 1}, {**one, "judgment": "[[5]]", "turn": 2}]
    review = [{"question_id": 1, "category": "llava_bench_conv", "content": "8 6\nfine"}]
    files = {"mtbench": (single, "score", 6.5), "llavabench": (review, "relative_score", 75.0)}
    files["mmvet"] = ({"v1_0": {"model": ["gpt-4-0613"], "content": ["0.4"], "score": [0.4]}}, "score", 40.0)
    for name, (content, metric, value) in files.items():
        file = tmp_path / f"{name}.json"
        file.write_text(json.dumps(content))
        assert main(["score", name, "--judgements", str(file)]) == 0
        (arm,) = json.loads(capsys.readouterr().out)["arms"].values()
        assert arm[metric] == pytest.approx(value)
    assert main(["score", "pope", "--judgements", str(file)]) == 2 == main(["score", "mmvet", "--answers", str(file)])
    told = capsys.readouterr().err
    assert "pope needs no judge" in told and "mmvet is scored by a judge" in told


# --- doubts


def test_the_turns_of_a_question_are_one_item_of_a_comparison() -> None:
    """The second turn goes on from the first: counted apart, both would make every interval too narrow."""
    rows = []
    for arm, ratings in {"a": (8, 4), "b": (3, 3)}.items():
        for question in range(6):
            for turn, rating in enumerate(ratings, start=1):
                told = {"arm": arm, "question": question, "turn": turn, "benchmark": "mtbench", "subset": "stem"}
                told |= {"judge": "m", "template": "t", "characters": 9, "verdict": f"[[{rating - question % 2}]]"}
                rows.append(judging.BLANK | told)
    alone = [row for row in rows if row["turn"] == 1]
    assert mt.per_item(rows)["mtbench"].shape == (6, 2)
    both, first = (judged.differences({"mtbench": some}, "b") for some in (rows, alone))
    assert (both.n.item(), first.n.item()) == (6, 6)
    assert both.delta.item() == pytest.approx(0.3) and first.delta.item() == pytest.approx(0.5)
    unread = [row | {"verdict": None} if row["turn"] == 2 and row["question"] == 0 else row for row in rows]
    assert len(mt.per_item(unread)["mtbench"]) == 6  # its first turn still counts


def test_flips_are_the_fewest_verdicts_that_carry_a_difference() -> None:
    a, b = [1.0] * 30 + [0.0] * 10, [0.0] * 30 + [1.0] * 10
    assert judged.flips(a, b) == {"to doubt": 5, "to nothing": 10}
    assert judged.flips(b, a) == judged.flips(a, a) == {"to doubt": 0, "to nothing": 0}


def test_a_gain_that_is_length_alone_is_gone_at_equal_length() -> None:
    longer = [float(n % 7) for n in range(70)]
    left, low, high = judged.at_equal_length([0.1 * n for n in longer], [0.0] * 70, longer)
    assert left == pytest.approx(0, abs=1e-9) and low <= left <= high
    left, low, _ = judged.at_equal_length([0.3 + 0.1 * n for n in longer], [0.0] * 70, longer)
    assert left == pytest.approx(0.3) and low > 0.29


# --- the real client


def test_an_endpoint_judges_and_is_paid_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = "sk-judge-0123456789abcdef"
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with FakeEndpoint(lambda prompt, time: "I like both" if "Question 3" in prompt else FIRST) as server:
        given = {"model": "m", "base_url": server.url, "workers": 1}
        rows = rows_of(judges.behind(given), tmp_path)
        assert len(server.asked) == 12 and {row["judge"] for row in rows} == {"m"}
        assert rows_of(judges.behind(given), tmp_path) == rows and len(server.asked) == 12  # the unread ones, too
        body = server.bodies[0]
        assert (body["max_tokens"], body["temperature"]) == (100, 0.0)
        assert [message["role"] for message in body["messages"]] == ["system", "user"]
    assert sum(judging.table(alpaca.PROTOCOL, rows).unparsed) == 2
    assert key not in json.dumps(rows) + (tmp_path / "c").read_text()


def test_what_names_no_judge_is_refused() -> None:
    for given, words in (
        ({"model": "m", "replay": "f"}, "api has no key 'replay'"),
        ({"arm": "a", "budget": 1.0}, "judge needs replay alone, or needs model .* or arm alone, found"),
        ({"rules": True}, "judge needs replay alone"),
    ):
        with pytest.raises(ParameterError, match=words):
            judges.named(SimpleNamespace(p=SimpleNamespace(judge=given), upstream=None))
    with pytest.raises(ParameterError, match="api has no key 'modle'"):
        judges.behind({"model": "m", "modle": "x"})
    assert judges.named(SimpleNamespace(p=SimpleNamespace(judge={}))) is judges.NOBODY


# --- two turns, pictures that reach the model


@pytest.fixture(scope="module")
def arm(small: SimpleNamespace) -> models.Arm:  # noqa: F811
    model, processor = models.assemble(small.llm, small.clip)
    return models.Arm(model.eval(), processor, "llava", "v1")


def test_the_second_turn_is_asked_in_the_conversation_and_pictures_reach_the_model(
    arm: models.Arm, small: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:
    asked, generate = [], generation.generate

    def seen(arm: models.Arm, requests: list[dict], **how: object) -> list[str]:
        asked.extend((request, how["decoding"]) for request in requests)
        return generate(arm, requests, **how)

    monkeypatch.setattr(generation, "generate", seen)
    questions = world.conversations(3)
    pictures = [Path(name) for name in small.images]
    how = {"beside": ["blank", "random"], "pictures": pictures, "max_new_tokens": 3}
    said = mt.ask(arm, questions, tmp_path / "c.jsonl", **how)
    assert list(said) == ["", "blank", "random"] and all(len(two) == 2 for two in said[""].values())
    for request, how in asked:
        name, turn = request["id"]
        assert how.temperature == {"stem": 0.1}.get(questions[name]["category"], 0.0)
        assert len(request["demonstrations"]) == turn
    (last, _) = asked[-1]
    assert last["demonstrations"][0][1] == said["random"][last["id"][0]][0]
    with pytest.raises(DataError, match="its picture does not reach the model"):
        generation.check_pictures(arm, [last | {"image": None}])
    with pytest.raises(ParameterError, match="'grey' is none of blank, random"):
        mt.ask(arm, questions, tmp_path / "c.jsonl", beside=["grey"])


def test_the_rules_of_the_micro_world_know_what_is_right(tmp_path: Path) -> None:
    rules = judges.by_rules(world.judge)
    questions = world.conversations(6)
    for answers, rating in (("right", 8.0), ("wrong", 5.0)):
        told = {q["question_id"]: [f"{truth[answers].capitalize()}." for truth in q["truth"]] for q in questions}
        rows = judging.judged(mt.PROTOCOL, rules, mt.cases(questions, told, arm="a"), tmp_path / "c")
        scores = judging.table(mt.PROTOCOL, rows).own
        assert (scores.min() >= rating) if answers == "right" else (scores.max() <= rating)
    asked = world.pictures(tmp_path, 4)
    right = [f"{one['truth']['right'].capitalize()}." for one in asked]
    rows = judging.judged(vet.PROTOCOL, rules, vet.cases(asked, right, arm="a"), tmp_path / "c")
    assert judging.metric_rows(vet.PROTOCOL, rows)[0]["value"] == 100.0
    rows = judging.judged(bench.PROTOCOL, rules, bench.cases(asked, right, arm="a"), tmp_path / "c")
    assert judging.metric_rows(bench.PROTOCOL, rows)[0]["value"] > 100.0  # the reference is wrong every other time


# --- MMBench: options in every order


def test_a_question_is_right_only_in_every_order_of_its_options(tmp_path: Path) -> None:
    which = {"index": 7, "question": "Which?", "hint": "nan", "options": ["a cat", "a dog", "a cow"], "label": 1}
    yes = {"index": 8, "question": "Is it?", "hint": "Look.", "options": ["yes", "no"], "label": 0}
    items = mmbench.circular([which | {"image": "7.jpg"}, yes | {"image": "8.jpg"}])
    assert [item["index"] for item in items] == [7, 1_000_007, 2_000_007, 8, 1_000_008]
    assert [item["options"][item["label"]] for item in items] == ["a dog"] * 3 + ["yes"] * 2
    assert mmbench.prompt(items[3]) == f"Look.\nIs it?\nA. yes\nB. no\n{mmbench.INSTRUCTION}"
    always_b = {row["metric"]: row["value"] for row in mmbench.rows(items, ["B"] * 5, arm="a", subset="all")}
    assert (always_b["accuracy"], always_b["accuracy, first order"]) == (0.0, 50.0)
    by_words = mmbench.rows(items, ["It is a dog."] * 3 + ["Yes.", "yes"], arm="a", subset="all")
    assert by_words[0]["value"] == 100.0 and by_words[-1]["value"] == 0.0
    assert mmbench.parse("a cat and a dog", ["a cat", "a dog"]) is None
    file = tmp_path / "dev.tsv"
    lines = ["index\tquestion\thint\tA\tB\tC\tanswer"]
    for one in items:
        options = [*one["options"], "", ""][:3]
        lines.append("\t".join([str(one["index"]), one["question"], one["hint"], *options, "ABC"[one["label"]]]))
    file.write_text("\n".join(lines) + "\n")
    said = tmp_path / "said.jsonl"
    told = [{"question_id": one["index"], "text": "a dog" if one["index"] % 10 == 7 else "B"} for one in items]
    said.write_text("".join(json.dumps(one) + "\n" for one in told))
    assert mmbench.score_files(said, file)["accuracy"] == 50.0
    file.write_text("\n".join([lines[0], lines[1][:-1] + "E"]) + "\n")
    # an answer that is left out, and one of two letters, are no label A
    for wrong in ("E", "", "AB"):
        file.write_text("\n".join([lines[0], lines[1][:-1] + wrong]) + "\n")
        with pytest.raises(DataError, match=f"dev.tsv:2: answer '{wrong}' is none of its 3 options"):
            mmbench.load(file)
    file.write_text("\n".join([lines[0], lines[1].rpartition("\t")[0]]) + "\n")  # a row cut short
    with pytest.raises(DataError, match="dev.tsv:2: answer '' is none of its 3 options"):
        mmbench.load(file)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "malformed TSV"),
        (b"a\n1\t2\n1\n1\t2\t3\n", "malformed TSV"),
        (b"\xff\xfea", "UTF-16"),
        (b"a\tb\n", "no column A"),
        (None, "does not exist"),
    ],
)
def test_a_file_that_is_none_of_mmbench_s(tmp_path: Path, content: bytes | None, words: str) -> None:
    if content is not None:
        (tmp_path / "dev.tsv").write_bytes(content)
    with pytest.raises(DataError, match=f"dev.tsv.*{words}") as error:
        mmbench.load(tmp_path / "dev.tsv")
    assert "\n" not in str(error.value)
