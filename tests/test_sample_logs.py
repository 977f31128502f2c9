"""`sbt score` of the sample logs that the harnesses write: the scores are those that the harness itself logs."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace

import evaluate
import lm_eval
import pytest
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.loggers import EvaluationTracker
from rouge_score import scoring

from sbt import benchmarks
from sbt.__main__ import main
from sbt.benchmarks.captions import task as captions
from sbt.benchmarks.common import answers, language
from sbt.benchmarks.ethics import task as ethics
from sbt.benchmarks.mme import task as mme
from sbt.benchmarks.pope import task as pope
from sbt.benchmarks.truthfulqa import files as truthfulqa_files
from sbt.benchmarks.truthfulqa import generation
from sbt.benchmarks.truthfulqa import task as truthfulqa
from sbt.benchmarks.vqav2 import task as vqav2
from sbt.inference import harness
from sbt.models import silence_libraries
from sbt.utils.errors import DataError, ParameterError
from sbt.utils.files import sha256

TASKS = {"boolq": "acc", "mathqa": "acc_norm", "gsm8k": "exact_match_flexible"}


class Guesser(LM):
    """A model that answers by a hash of what it is asked: texts among `said`, log-likelihoods from -10 to 0."""

    def __init__(self, said: Sequence[str]) -> None:
        super().__init__()
        self.said = list(said)

    @staticmethod
    def _draw(request: Instance) -> int:
        return int(sha256(repr(request.args[0]) + str(request.args[1]))[:8], 16)

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        return [(-10 * self._draw(one) / 16**8, False) for one in requests]

    def generate_until(self, requests: list[Instance]) -> list[str]:
        return [self.said[self._draw(one) % len(self.said)] for one in requests]

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        raise NotImplementedError


def log(folder: Path, file: str, docs: Sequence[Mapping], said: Sequence[str] = ()) -> tuple[Path, dict[str, float]]:
    """The log of the harness's own task over these docs, and the metrics it reports."""
    over = harness.task(file, docs)
    name = over.config.task or "squadv2"
    with silence_libraries():
        found = lm_eval.evaluate(lm=Guesser(said), task_dict={name: over}, bootstrap_iters=0, log_samples=True)
    tracker = EvaluationTracker(output_path=str(folder))
    tracker.general_config_tracker.model_name_sanitized, tracker.date_id = "guesser", "now"
    tracker.save_results_samples(task_name=name, samples=next(iter(found["samples"].values())))
    (written,) = (folder / "guesser").glob(f"samples_{name}_*.jsonl")
    metrics = {key: value for key, value in next(iter(found["results"].values())).items() if isinstance(value, float)}
    return written, metrics


@pytest.mark.parametrize("name", TASKS)
def test_scores_are_those_of_the_log(name: str, text_world: Path, tmp_path: Path) -> None:
    benchmark = language.get(name)
    docs = benchmark.load(text_world / name)
    said = [doc["answer"] for doc in docs[:3]] if name == "gsm8k" else ()
    file, metrics = log(tmp_path, benchmark.file, docs, said)
    logged = {"exact_match_flexible": "exact_match,flexible-extract", "acc_norm": "acc_norm,none", "acc": "acc,none"}
    found = benchmark.score_files(file)
    assert found[TASKS[name]] == pytest.approx(metrics[logged[TASKS[name]]], abs=1e-12) and found["n"] == len(docs)
    assert 0 < found[TASKS[name]] < 1, "a log that is all right or all wrong shows nothing"
    if name == "gsm8k":
        assert found["exact_match_strict"] == pytest.approx(metrics["exact_match,strict-match"])
    assert benchmark.score_files(file, text_world / name) == found, "the references are the log's own questions"
    rows = file.read_text().splitlines()
    assert any(json.loads(row)["resps"] for row in rows)
    file.write_text("\n".join(reversed(rows[: len(docs)])))
    assert benchmark.score_files(file, text_world / name) == found, "the order of a log does not matter"
    file.write_text("\n".join(rows[1 : len(docs)]))
    assert benchmark.score_files(file)["n"] == len(docs) - 1
    with pytest.raises(DataError, match=f"1 of {len(docs)} questions have no answer"):
        benchmark.score_files(file, text_world / name)
    with pytest.raises(ParameterError, match=f"{name} needs --references"):
        file.write_text('{"id": 0, "answer": "yes"}\n')
        benchmark.score_files(file)


def test_a_log_of_other_questions_is_named(text_world: Path, tmp_path: Path) -> None:
    boolq = language.get("boolq")
    docs = [{**doc, "question": doc["question"] + " or not"} for doc in boolq.load(text_world / "boolq")]
    file, _ = log(tmp_path, boolq.file, docs)
    with pytest.raises(DataError, match=r"jsonl:1: this question is not in the reference file: '"):
        boolq.score_files(file, text_world / "boolq")


def test_mmlu_by_subject_and_whole(text_world: Path, tmp_path: Path) -> None:
    mmlu = language.get("mmlu")
    docs = mmlu.load(text_world / "mmlu")
    lines, hits = [], 0.0
    for subject, own in docs.items():
        file, metrics = log(tmp_path / subject, "mmlu/default/mmlu_anatomy.yaml", own)
        assert mmlu.score_files(file)["acc"] == pytest.approx(metrics["acc,none"])
        lines, hits = lines + file.read_text().splitlines(), hits + metrics["acc,none"] * len(own)
    every = tmp_path / "all.jsonl"
    every.write_text("\n".join(lines))
    whole = mmlu.score_files(every, text_world / "mmlu")
    assert whole["acc"] == pytest.approx(hits / whole["n"]) and whole["n"] == len(language.flat(docs)) > len(own)
    letters = [{"id": key, "answer": f"({'ABCD'[doc['answer']]})"}
               for key, doc in zip(mmlu.ids(language.flat(docs)), language.flat(docs), strict=True)]  # fmt: skip
    letters[0]["answer"] = "I cannot say"
    every.write_text(json.dumps(letters))
    found = mmlu.score_files(every, text_world / "mmlu")
    assert (found["acc"], found["unparsed"]) == (pytest.approx(1 - 1 / found["n"]), 1)
    assert mmlu.score_files(every, text_world / "mmlu", protocol="paper")["acc"] == 0, "theirs is the first character"


def test_squad2_of_a_log_of_texts_and_of_the_official_object(
    text_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    squad = language.get("squad2")
    docs = squad.load(text_world / "squad2")
    fetched = SimpleNamespace(compute=lambda **given: dict.fromkeys(squad.metrics["standard"], 0))
    monkeypatch.setattr(evaluate, "load", lambda *given: fetched)  # the harness fetches its metric from the network
    said = ["", "", *(text for doc in docs[:2] for text in doc["answers"]["text"])]  # "" is right where nothing is
    file, _ = log(tmp_path, squad.file, docs, said)
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    results = [(row["resps"][0][0], float(row["resps"][1][0][0])) for row in rows]
    expected = {row["metric"]: row["value"] for row in squad.rows(docs, results, arm="a") if row["subset"] == "all"}
    assert squad.score_files(file) == {**expected, "n": len(docs)} == squad.score_files(file, text_world / "squad2")
    assert 0 < expected["exact"] < expected["best_exact"]
    texts = {doc["id"]: text for doc, (text, _) in zip(docs, results, strict=True)}
    plain = {key: value for key, value in expected.items() if not key.startswith("best")}
    for form in (texts, [{"id": key, "prediction": text} for key, text in texts.items()]):
        file.write_text(json.dumps(form))
        scored = squad.score_files(file, text_world / "squad2")
        assert scored == {**plain, "n": len(docs)}, "no probabilities, no best_*"
    del texts[docs[0]["id"]]
    file.write_text(json.dumps(texts))
    with pytest.raises(DataError, match=f"1 of {len(docs)} questions have no answer, the first of them id"):
        squad.score_files(file, text_world / "squad2")


def test_ethics_of_a_log(text_world: Path, tmp_path: Path) -> None:
    for subset in ("commonsense", "utilitarianism"):
        references = next((text_world / "ethics").rglob(f"{ {'commonsense': 'cm'}.get(subset, 'util')}_test.csv"))
        docs = ethics.load(references, subset)
        file, metrics = log(tmp_path / subset, f"hendrycks_ethics/{subset}.yaml", docs)
        found = ethics.score_files(file, references, subset=subset)
        assert found["accuracy"] == pytest.approx(metrics["acc,none"]) and found["n"] == len(docs)
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        for other in (rows[0]["doc"] | {"input": "Another.", "activity": "Another."}, 3, None):
            rows[0]["doc"] = other
            file.write_text("\n".join(map(json.dumps, rows)))
            with pytest.raises(DataError, match="jsonl:1: its '(input|activity)' is not that of row 1 of the ref"):
                ethics.score_files(file, references, subset=subset)


def test_truthfulqa_of_logs(text_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The task resamples a single answer 1,000 times. All resamples are alike, so two have the same median.
    monkeypatch.setattr(scoring.BootstrapAggregator.__init__, "__defaults__", (0.95, 2))
    items = truthfulqa_files.read_items(text_world / "mc_task.json")
    targets = [
        {"question": one["question"]} | {f"{name}_targets": {"choices": [c for c, _ in one[name]],
                                                             "labels": [label for _, label in one[name]]}
                                         for name in ("mc1", "mc2")} for one in items
    ]  # fmt: skip
    for name, keys in (("mc1", ("mc1",)), ("mc2", ("mc1", "mc2"))):
        file, metrics = log(tmp_path, f"truthfulqa/truthfulqa_{name}.yaml", targets)
        found = truthfulqa.score_files(file, text_world / "mc_task.json")
        assert found[name] == pytest.approx(metrics["acc,none"]) and found["n"] == len(items)
        assert set(keys) <= set(found) and ("mc2" in found) == (name == "mc2")
    file.write_text(file.read_text().replace('"arg_1": " ', '"arg_1": "  '))
    with pytest.raises(DataError, match="its choices are neither those of mc1 nor those of mc2"):
        truthfulqa.score_files(file, text_world / "mc_task.json")
    (source,) = (text_world / "truthfulqa").glob("TruthfulQA*.csv")
    docs = truthfulqa_files.prepared(truthfulqa_files.read_csv(source))
    said = [doc["best_answer"] for doc in docs[:5]]
    file, metrics = log(tmp_path, "truthfulqa/truthfulqa_gen.yaml", docs, said)
    found = generation.score_files(file, source)
    for name in ("bleu_acc", "rougeL_acc", "rouge1_max", "bleu_diff"):
        assert found[name] == pytest.approx(metrics[f"{name},none"]), name


def test_a_number_of_a_log_that_is_none(text_world: Path, tmp_path: Path) -> None:
    boolq = language.get("boolq")
    file, _ = log(tmp_path, boolq.file, boolq.load(text_world / "boolq"))
    first, *others = file.read_text().splitlines()
    for value, message in (("nan", "holds nan"), ("x", "neither text nor log-likelihood"), (7, "neither text nor")):
        row = json.loads(first)
        row["resps"] = value if value == 7 else [[[value, "False"]], row["resps"][1]]
        file.write_text("\n".join([json.dumps(row), *others]))
        with pytest.raises(DataError, match=f"jsonl:1: .*{message}"):
            boolq.score_files(file)
    for odd in ({}, {"a": 1}, [{"a": 1}], [[10**400, "False"]], [[None]]):
        file.write_text("\n".join([json.dumps(json.loads(first) | {"resps": odd}), *others]))
        with pytest.raises(DataError, match="jsonl:1: .*neither text nor log-likelihood"):
            boolq.score_files(file)
    file.write_text("\n".join([first, *others]))
    whole, row = boolq.score_files(file), json.loads(first)
    row["arguments"] |= {"gen_args_0": None, "gen_args_2": 3}
    file.write_text("\n".join([json.dumps(row), *others]))
    assert boolq.score_files(file) == whole, "what was asked is not needed"
    assert math.isfinite(float(json.loads(first)["resps"][0][0][0]))


# --- lmms-eval: no `doc`, no `resps` where filters changed nothing, ids in the metrics


def logged(rows: Sequence[dict], path: Path) -> Path:
    path.write_text("".join(json.dumps({"doc_id": n, "doc_hash": "x", **row}) + "\n" for n, row in enumerate(rows)))
    return path


def test_vision_logs_of_lmms_eval(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captions.metric, "with_java", lambda *given: {})
    questions = [{"question_id": n, "image": "1.jpg", "text": f"Is there a {name} in the image?", "label": label}
                 for n, (name, label) in enumerate([("dog", "yes"), ("cat", "no")], start=1)]  # fmt: skip
    file = tmp_path / "coco_pope_random.json"
    file.write_text("\n".join(map(json.dumps, questions)))
    rows = [
        {"target": one["label"], "filtered_resps": [said], "input": one["text"],
         "pope_accuracy": {"question_id": str(one["question_id"]), "score": 1.0, "category": category}}
        for category, answers_of in (("random", ("yes", "yes")), ("popular", ("no", "no")))
        for one, said in zip(questions, answers_of, strict=True)
    ]  # fmt: skip
    found = pope.score_files(logged(rows, tmp_path / "pope.jsonl"), file)
    assert (found["accuracy"], found["yes_ratio"], found["n"]) == (0.5, 1.0, 2)
    with pytest.raises(DataError, match=r"has the splits popular, random: none is in the name of q"):
        pope.score_files(tmp_path / "pope.jsonl", file.rename(tmp_path / "q.json"))
    annotation = {"question_id": 7, "question_type": "what", "answer_type": "other", "image_id": 1}
    given = [{"answer": "red", "answer_id": n, "answer_confidence": "yes"} for n in range(1, 11)]
    file.write_text(json.dumps({"annotations": [annotation | {"answers": given}]}))
    row = {"filtered_resps": ["red"], "exact_match": 1.0, "submission": {"question_id": 7, "answer": "x"}}
    assert vqav2.score_files(logged([row], tmp_path / "v.jsonl"), file)["overall"] == 100
    known = [{"image_name": f"COCO_val2014_{n:012}.jpg", "captions": [f"a {word} dog runs"]}
             for n, word in enumerate(("red", "blue"))]  # fmt: skip
    file.write_text(json.dumps(known))
    rows = [
        {"filtered_resps": [one["captions"][0]], "coco_CIDEr": {"image_id": one["image_name"], "pred": ""}}
        for one in known
    ]
    assert captions.score_files(logged(rows, tmp_path / "c.jsonl"), file)["n"] == 2


def test_mme_of_a_log_of_lmms_eval(tmp_path: Path) -> None:
    rows = [
        {"filtered_resps": [said], "target": label, "input": f"{question} Please answer yes or no.",
         "mme_perception_score": {"question_id": f"existence/{image}.png", "category": "existence", "score": 1.0}}
        for image, question, label, said in (("1", "A dog?", "Yes", "Yes"), ("1", "A cat?", "No", "yes"),
                                             ("2", "A dog?", "Yes", "yes"), ("2", "A cow?", "No", "No."))
    ]  # fmt: skip
    found = mme.score_files(logged(rows, tmp_path / "mme.jsonl"))
    assert found["tasks"] == {"existence": {"acc": 0.75, "acc_plus": 0.5, "score": 125.0}}
    with pytest.raises(DataError, match="is no folder"):
        mme.score_files(tmp_path / "none")
    file = tmp_path / "bad.jsonl"
    file.write_text(json.dumps({"answer": "Yes"}) + "\n")
    with pytest.raises(DataError, match=r"bad\.jsonl:1: expected a row of lmms-eval's log"):
        mme.score_files(file)


def test_the_help_names_the_keys_of_all(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        main(["score", "squad2", "--help"])
    told = capsys.readouterr().out
    for name, spec in benchmarks.specs().items():
        if spec.score_files:
            assert name in told and spec.answer_keys.split()[0] in told
    assert all(benchmarks.get(name).score_files for name in ("gsm8k", "squad2", "mmlu", "boolq", "mathqa"))
    assert "log of lm-evaluation-harness" in told and "log of lmms-eval" in told


def test_rows_that_are_no_log_stay_as_they_are(tmp_path: Path) -> None:
    rows = [{"doc_id": 3, "answer": "x"}, {"filtered_resps": "x", "text": "y"}]
    file = tmp_path / "a.json"
    file.write_text(json.dumps(rows))
    assert [row for _, row in answers.read(file)] == rows
