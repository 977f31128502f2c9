"""Our model class against the harness's own (HFLM): equal numbers on its tasks, any batch size, any conversation."""

import random
from types import SimpleNamespace

import lm_eval
import numpy as np
import pytest
import torch
from lm_eval.models.huggingface import HFLM
from real_files import real_data
from tiny_fixtures import small  # noqa: F401 - a fixture
from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

from sbt import models
from sbt.benchmarks.ethics import task as ethics
from sbt.benchmarks.truthfulqa.files import read_items
from sbt.inference import harness
from sbt.models import silence_libraries
from sbt.utils import paths
from sbt.utils.errors import DataError, ParameterError

MMLU = "mmlu/default/_default_template_yaml"
DATA = real_data()
WORDS = ("red", "green", "blue", "star", "square", "circle", "above", "small", "picture")


def said(seed: int, length: int) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=length))


@pytest.fixture(scope="module")
def language(small: SimpleNamespace) -> tuple[LlamaForCausalLM, PreTrainedTokenizerBase]:  # noqa: F811
    model, words = models.load_language_model(small.llm)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(3)
    model.config.max_position_embeddings = 1024
    return model, words


def listed(seed: int, count: int) -> dict:
    choices = [said(300 + seed + k, 2 + k) for k in range(count)]
    return {"choices": choices, "labels": [1] + [0] * (count - 1)}


def tasks() -> dict:
    choice = [
        {"question": said(i, 6), "choices": [said(90 + i + k, 1 + k) for k in range(4)], "answer": i % 4}
        for i in range(14)
    ]
    targets = [
        {"question": said(200 + i, 5), "mc1_targets": listed(i, 4), "mc2_targets": listed(i, 5)} for i in range(9)
    ]
    moral = [{"scenario": said(400 + i // 4, 9), "excuse": said(500 + i, 3), "label": i % 2} for i in range(12)]
    text = {"doc_to_choice": "{{choices}}", "description": "", "target_delimiter": " "}
    return {
        "letters, 5-shot": (harness.task(MMLU, choice[5:], examples=choice[:5]), 5),
        "texts, 2-shot": (harness.task(MMLU, choice[5:], examples=choice[:5], **text), 2),
        "shots at random": (harness.task(MMLU, choice[5:], examples=choice[:5], fewshot="random", **text), 2),
        "mc1": (harness.task("truthfulqa/truthfulqa_mc1.yaml", targets), 0),
        "mc2": (harness.task("truthfulqa/truthfulqa_mc2.yaml", targets), 0),
        "deontology": (harness.task("hendrycks_ethics/deontology.yaml", moral), 0),
    }


class Asked(SimpleNamespace):
    """What the harness hands to a model class."""


def asked_of(language: tuple, conversation: str) -> list[Asked]:
    found = []
    for over, shots in tasks().values():
        for one in harness.requests(over, language[1], shots=shots, conversation=conversation):
            found += [Asked(args=(one["context"], text)) for text in one["continuations"]]
    return found


@pytest.fixture(scope="module")
def theirs(language: tuple) -> dict[str, list]:
    model, words = language
    found = {}
    for conversation in ("", "v1"):
        with silence_libraries():
            hf = HFLM(pretrained=model, tokenizer=words, batch_size=5, max_length=1024, device="cpu")
            found[conversation] = hf.loglikelihood(asked_of(language, conversation), disable_tqdm=True)
    return found


@pytest.mark.parametrize("conversation", ["", "v1"])
@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_log_likelihoods_are_those_of_hflm(language: tuple, theirs: dict, conversation: str, batch_size: int) -> None:
    ours = harness.PrefixLM(*language, batch_size=batch_size)
    found = ours.loglikelihood(asked_of(language, conversation), disable_tqdm=True)
    values = [value for value, _ in theirs[conversation]]
    assert [value for value, _ in found] == pytest.approx(values, abs=1e-4)
    assert [greedy for _, greedy in found] == [greedy for _, greedy in theirs[conversation]]
    assert max(values) - min(values) > 5
    assert not ours.truncated


def real(words: PreTrainedTokenizerBase, conversation: str) -> list[list[Asked]]:
    """By item: three questions of TruthfulQA, mc1 and mc2, and three rows of commonsense, as the harness asks them."""
    items = read_items(DATA / "truthfulqa" / "mc_task_2021-09_hf.json")[25:28]
    targets = [
        {f"{name}_targets": dict(zip(("choices", "labels"), zip(*one[name], strict=True), strict=True))
         for name in ("mc1", "mc2")} | {"question": one["question"]} for one in items
    ]  # fmt: skip
    given = {f"truthfulqa/truthfulqa_{name}.yaml": targets for name in ("mc1", "mc2")}
    given["hendrycks_ethics/commonsense.yaml"] = ethics.load(DATA / "ethics", "commonsense")[:3]
    found = [
        [Asked(args=(one["context"], text)) for text in one["continuations"]]
        for file, docs in given.items()
        for one in harness.requests(harness.task(file, docs), words, conversation=conversation)
    ]
    assert len(found) == 9
    return found


@pytest.mark.skipif(DATA is None, reason="the real TruthfulQA and ETHICS files are not here (SBT_DATA)")
@pytest.mark.parametrize("conversation", ["", "v1"])
def test_real_items_get_hflm_s_numbers_from_a_trained_model(conversation: str) -> None:
    model, words = models.load_language_model(paths.resolve("assets/llm"))
    by_item = real(words, conversation)
    flat, ends = [one for own in by_item for one in own], np.cumsum([len(own) for own in by_item])[:-1]
    with silence_libraries():  # HFLM's sum in float32 is itself off by up to 1e-4
        settings = {"batch_size": 1, "max_length": 2048, "device": "cpu", "softmax_dtype": "float64"}
        wanted = np.array(HFLM(pretrained=model, tokenizer=words, **settings).loglikelihood(flat, disable_tqdm=True))
    best = [np.argmax(part[:, 0]) for part in np.split(wanted, ends)]
    for size in (1, 7, 64):
        found = np.array(harness.PrefixLM(model, words, batch_size=size).loglikelihood(flat, disable_tqdm=True))
        assert found == pytest.approx(wanted, abs=1e-4)
        assert [np.argmax(part[:, 0]) for part in np.split(found, ends)] == best
    assert wanted[:, 0].min() < -100 and len(set(best)) > 1


def test_the_harness_evaluates_with_it(language: tuple) -> None:
    model, words = language
    hf = HFLM(pretrained=model, tokenizer=words, batch_size=8, max_length=1024, device="cpu")
    for name in ("letters, 5-shot", "mc2", "deontology"):
        results = []
        for lm in (hf, harness.PrefixLM(model, words, batch_size=8)):
            over, shots = tasks()[name]
            over.set_config("num_fewshot", shots)
            with silence_libraries():
                found = lm_eval.evaluate(lm=lm, task_dict={over.config.task: over}, bootstrap_iters=0)
            results.append({k: v for k, v in found["results"][over.config.task].items() if isinstance(v, float)})
        assert results[0], name
        assert results[0] == pytest.approx(results[1], abs=1e-6), name


@pytest.mark.parametrize("batch_size", [1, 4])
def test_greedy_text_is_that_of_hflm(language: tuple, batch_size: int) -> None:
    model, words = language
    primer = "Question: " + said(1, 40) + "\n\n"
    settings = {"until": ["star", "\n\n"], "max_gen_toks": 12, "do_sample": False}
    alone = [Asked(args=(said(700 + i, 2 + 3 * i), settings)) for i in range(5)]
    requests = [*alone, *(Asked(args=(primer + said(800 + i, 1 + 2 * (i % 5)), settings)) for i in range(20))]
    with silence_libraries():
        hf = HFLM(pretrained=model, tokenizer=words, batch_size=1, max_length=1024, device="cpu", add_bos_token=False)
        wanted = hf.generate_until(requests, disable_tqdm=True)
    found = harness.PrefixLM(model, words, batch_size=batch_size).generate_until(requests, disable_tqdm=True)
    assert found == wanted
    assert len(set(found)) > 5
    assert not any("star" in text for text in found)


def test_long_contexts_are_cut_as_in_hflm_and_listed(language: tuple) -> None:
    model, words = language
    requests = [Asked(args=(said(1, 1300), " red star")), Asked(args=("Q:", " red"))]
    with silence_libraries():
        hf = HFLM(pretrained=model, tokenizer=words, batch_size=2, max_length=1024, device="cpu")
        wanted = hf.loglikelihood(requests, disable_tqdm=True)
    ours = harness.PrefixLM(model, words)
    found = ours.loglikelihood(requests, disable_tqdm=True)
    assert [value for value, _ in found] == pytest.approx([value for value, _ in wanted], abs=1e-4)
    assert list(ours.truncated) == [requests[0].args[0]]


def test_rolling_windows_go_the_same_way(language: tuple) -> None:
    model, words = language
    requests = [Asked(args=(said(3, 30),)), Asked(args=(said(4, 7),))]
    with silence_libraries():
        hf = HFLM(pretrained=model, tokenizer=words, batch_size=2, max_length=1024, device="cpu")
        wanted = hf.loglikelihood_rolling(requests, disable_tqdm=True)
        found = harness.PrefixLM(model, words, batch_size=2).loglikelihood_rolling(requests, disable_tqdm=True)
    assert found == pytest.approx(wanted, abs=1e-3)


def test_what_is_asked_comes_from_the_task_file(language: tuple) -> None:
    rows = [{"question": "Is it red?", "choices": ["a", "b", "c", "d"], "answer": 1}] * 2
    over = harness.task(MMLU, rows[:1], examples=rows, description="About {{question}}\n\n")
    [one] = harness.requests(over, language[1], shots=1)
    block = "Is it red?\nA. a\nB. b\nC. c\nD. d\nAnswer:"
    assert one["context"] == f"About Is it red?\n\n{block} B\n\n{block}"
    assert one["continuations"] == [" A", " B", " C", " D"]
    [chat] = harness.requests(over, language[1], shots=1, conversation="v1")
    assert chat["context"].startswith("<s>") and "</s>" in chat["context"]
    assert chat["context"].endswith(" ASSISTANT:")
    hashes = {
        harness.provenance("standard", {"x": asked}, **settings)["template_hash"]
        for asked in ([one], [chat])
        for settings in ({"add_bos": True}, {"add_bos": False})
    }
    assert len(hashes) == 4


def test_wrong_requests_are_named(language: tuple) -> None:
    with pytest.raises(DataError, match="no rows to score"):
        harness.task(MMLU, [])
    with pytest.raises(ParameterError, match="fewshot 'last' is unknown"):
        harness.task(MMLU, [{"question": "a"}], fewshot="last")
    ours = harness.PrefixLM(*language)
    with pytest.raises(ParameterError, match="sampling"):
        ours.generate_until([Asked(args=("a", {"until": [], "do_sample": True}))])
