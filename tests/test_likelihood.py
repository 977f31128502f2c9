"""Log-likelihoods against one plain forward pass a sequence; any batch size, with and without a shared prefix."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny_fixtures import small  # noqa: F401 - a fixture
from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

from sbt import models
from sbt.inference import loglikelihood
from sbt.inference.loglikelihood import loglikelihoods
from sbt.inference.prefix_tree import MAX_TREE, Batch, TokenSequence, batches, clusters, common, plan
from sbt.inference.tokens import encode
from sbt.utils.errors import DataError

PREFIX = "Is there a red star in the picture? Yes, there is. What colour is the circle? Blue.\n\n"


@pytest.fixture(scope="module")
def language(small: SimpleNamespace) -> tuple[LlamaForCausalLM, PreTrainedTokenizerBase]:  # noqa: F811
    model, words = models.load_language_model(small.llm)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(5)
    return model, words


def asked(prefix: str) -> list[dict]:
    return [
        {
            "id": f"q{number}",
            "context": f"{prefix}Q: what is {'really ' * (number % 4)}{number}?\nA:{' ' if number % 3 == 0 else ''}",
            "continuations": [" a red star", " blue", " no, there is" + " none" * (number % 5)][: 1 + number % 3],
        }
        for number in range(12)
    ]


def naive(model: LlamaForCausalLM, words: PreTrainedTokenizerBase, request: dict, bos: bool) -> list[float]:
    values = []
    for continuation in request["continuations"]:
        whole = words.encode(request["context"] + continuation, add_special_tokens=False)
        head = len(words.encode(request["context"].rstrip(), add_special_tokens=False)) + bos
        ids = torch.tensor([[1] * bos + whole])
        with torch.inference_mode():
            log_probs = model(ids).logits[0].double().log_softmax(dim=-1)
        values.append(sum(log_probs[i - 1, ids[0, i]].item() for i in range(head, ids.shape[1])))
    return values


@pytest.mark.parametrize("batch_size", [1, 7, 64])
@pytest.mark.parametrize("prefix", [PREFIX, ""], ids=["prefix", "none"])
@pytest.mark.parametrize("bos", [False, True])
def test_values_are_those_of_a_plain_forward(
    tmp_path: Path,
    language: tuple,
    prefix: str,
    batch_size: int,
    bos: bool,
) -> None:
    requests = asked(prefix)
    found = loglikelihoods(*language, requests, cache=tmp_path / "l", batch_size=batch_size, add_bos=bos)
    for request, values in zip(requests, found, strict=True):
        assert values == pytest.approx(naive(*language, request, bos), abs=1e-4)
    assert max(max(values) - min(values) for values in found) > 1


def test_a_long_continuation_is_summed_in_float64(tmp_path: Path, language: tuple) -> None:
    model, words = language
    request = {"id": "long", "context": "Q: what is it?\nA:", "continuations": [" a red star, a blue circle" * 30]}
    [[found]] = loglikelihoods(model, words, [request], cache=tmp_path / "l")
    [exact] = naive(model, words, request, False)
    assert found == pytest.approx(exact, abs=4e-5)
    assert found < -1024 and found != float(np.float32(found)), "a sum in float32 is 6e-5 off in rounding alone"


def test_the_prefix_is_what_all_contexts_share(language: tuple) -> None:
    _, words = language
    many = [{**request, "id": f"{k}"} for k, request in enumerate(asked(PREFIX) * 3)]
    [(prefix, members)] = clusters(encode(words, many))
    assert words.decode(prefix).startswith(PREFIX + "Q: what is")
    assert sorted(members) == list(range(len(many)))
    short = {"id": "x", "context": "Q:", "continuations": [" a"]}
    assert clusters(encode(words, [short]))[0][0] == ()


def test_each_few_shot_prompt_becomes_a_prefix_of_its_own(language: tuple) -> None:
    _, words = language
    subjects = [name + " " + PREFIX * 12 for name in ("birds", "stones")]
    requests = [
        {"id": f"{subject}{n}", "context": f"{subject}Q: what is {n}?\nA:", "continuations": [" a", " b"]}
        for n in range(20)
        for subject in subjects
    ]
    found = clusters(encode(words, requests))
    assert [words.decode(prefix).split()[0] for prefix, _ in found] == ["birds", "stones"]
    assert [len(members) for _, members in found] == [20, 20]


def test_every_token_is_computed_once() -> None:
    scenario, questions = tuple(range(100, 140)), [(1,), (2, 3)]
    answers = ((7, 8, 9), (7, 8, 5), (6,))
    items = [[TokenSequence(scenario + question, answer) for answer in answers] for question in questions]
    [group] = plan(items)
    # the scenario is the prefix, then the two questions; 7 and 8 lead to both longer answers, and 6 is only predicted
    assert group.prefix == scenario
    assert [tree.tokens for tree in group.trees] == [[1, 7, 8], [2, 3, 7, 8]]
    assert [place for tree in group.trees for place in tree.places] == [(i, k) for i in range(2) for k in range(3)]
    for tree in group.trees:
        for (item, row), path in zip(tree.places, tree.scored, strict=True):
            assert [token for _, token in path] == list(items[item][row].continuation)


def test_a_tree_does_not_grow_without_end() -> None:
    items = [[TokenSequence(tuple(range(300)) + (1000 + i,) * 100, (1,))] for i in range(6)]
    trees = [tree for group in plan(items) for tree in group.trees]
    assert all(len(tree.tokens) <= MAX_TREE for tree in trees)
    assert sorted(place for tree in trees for place in tree.places) == [(i, 0) for i in range(6)]
    assert common((1, 2, 3), (1, 2)) == 2
    assert common((1,), (2,)) == 0


@pytest.mark.parametrize("prefix", [PREFIX, ""], ids=["prefix", "none"])
def test_trees_side_by_side_give_the_same_values_with_less_padding(
    tmp_path: Path, language: tuple, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, words = language
    computed = []

    def packed(*given: object, side_by_side: bool) -> Iterator[Batch]:
        for batch in batches(*given, side_by_side=True):
            computed.append(batch.tensors()[0].numel())
            yield batch

    requests = asked(prefix) + [{**one, "id": f"z {one['id']}", "context": f"Z{one['context']}"} for one in asked("")]
    plain = loglikelihoods(model, words, requests, cache=tmp_path / "plain")
    monkeypatch.setattr(loglikelihood, "batches", packed)
    assert loglikelihoods(model, words, requests, cache=tmp_path / "packed") == [
        pytest.approx(values, abs=1e-4) for values in plain
    ]
    groups = plan(encode(words, requests))
    padded = sum(batch.tensors()[0].numel() for batch in batches(groups, 2**62))
    assert sum(len(tree.tokens) for group in groups for tree in group.trees) <= sum(computed) < padded


def test_a_choice_that_is_there_twice_is_scored_once(tmp_path: Path, language: tuple) -> None:
    request = {"id": "x", "context": "Q:", "continuations": [" a", " b", " a"]}
    [values] = loglikelihoods(*language, [request], cache=tmp_path / "a")
    assert values == pytest.approx(naive(*language, request, False), abs=1e-4)
    assert values[0] == values[2] != values[1]
    assert len(json.loads((tmp_path / "a").read_text())["value"]) == 2


def test_one_context_and_none_at_all(tmp_path: Path, language: tuple) -> None:
    same = [{"id": "x", "context": PREFIX + "Q:", "continuations": [" a star", " b"]}]
    assert loglikelihoods(*language, same, cache=tmp_path / "a")[0] == pytest.approx(
        naive(*language, same[0], False), abs=1e-4
    )
    bare = [{"id": "x", "context": "", "continuations": ["a star"]}]
    assert loglikelihoods(*language, bare, cache=tmp_path / "b")[0] == pytest.approx(
        naive(*language, bare[0], True), abs=1e-4
    )


def test_tokens_are_split_as_the_harness_splits_them(language: tuple) -> None:
    _, words = language
    ids = lambda text: tuple(words.encode(text, add_special_tokens=False))  # noqa: E731
    for context, text in (("Q: a", " star"), ("Q: a ", "star"), ("Q: a  ", "star")):
        [[row]] = encode(words, [{"id": 0, "context": context, "continuations": [text]}])
        assert row == TokenSequence(ids("Q: a"), ids(context + text)[len(ids("Q: a")) :])
    templated = {"id": 0, "context": "<s>Q: a", "continuations": [" star"]}
    assert encode(words, [templated], add_bos=True) == encode(words, [templated]), "BOS twice"


class Stop(Exception):
    """Stands for a kill."""


def test_a_killed_run_ends_with_the_same_bits(
    tmp_path: Path, language: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = asked(PREFIX)

    def stop(done: int, total: int) -> None:
        if done >= 9:
            raise Stop

    whole = loglikelihoods(*language, requests, cache=tmp_path / "whole", batch_size=3)
    with pytest.raises(Stop):
        loglikelihoods(*language, requests, cache=tmp_path / "cut", batch_size=3, progress=stop)
    kept = (tmp_path / "cut").read_text().splitlines()
    assert 0 < len(kept) < len(requests)
    (tmp_path / "cut").write_text("\n".join(kept) + '\n{"id": "q')
    assert loglikelihoods(*language, requests, cache=tmp_path / "cut", batch_size=3) == whole
    assert len((tmp_path / "cut").read_text().splitlines()) == len(requests)
    monkeypatch.setattr("sbt.inference.loglikelihood._score", None)  # nothing is computed any more
    assert loglikelihoods(*language, requests, cache=tmp_path / "cut", batch_size=3) == whole


def test_a_damaged_line_is_an_error(tmp_path: Path, language: tuple) -> None:
    cache = tmp_path / "l.jsonl"
    loglikelihoods(*language, asked(""), cache=cache)
    lines = cache.read_text().splitlines()
    cache.write_text("\n".join(["{" + lines[0], *lines[1:]]) + "\n")
    with pytest.raises(DataError, match=r"l.jsonl:1: damaged line"):
        loglikelihoods(*language, asked(""), cache=cache)


def test_values_of_another_question_or_model_are_not_taken(
    tmp_path: Path,
    language: tuple,
    small: SimpleNamespace,  # noqa: F811
) -> None:
    model, words = language
    request = {"id": "a", "context": "Q:", "continuations": [" a"]}
    cache = tmp_path / "c"
    first = loglikelihoods(model, words, [request], cache=cache)
    assert loglikelihoods(model, words, [{**request, "context": "A:"}], cache=cache) != first
    other, _ = models.load_language_model(small.llm)
    assert loglikelihoods(other, words, [request], cache=cache) != first
    assert loglikelihoods(model, words, [request], cache=cache) == first
    assert len([json.loads(line) for line in cache.read_text().splitlines()]) == 3


def test_requests_that_cannot_be_scored_are_named(tmp_path: Path, language: tuple) -> None:
    good = {"id": "q", "context": "Q:", "continuations": [" a"]}
    for match, requests in {
        r"item 'q': \d+ tokens, the model reads 512. Shorten": [{**good, "context": "so " * 600}],
        "item 'q': continuation '' has no tokens": [{**good, "continuations": [" a", ""]}],
        "item 'q': no continuations": [{**good, "continuations": []}],
        "item id 'q' is used twice": [good, good],
    }.items():
        with pytest.raises(DataError, match=match):
            loglikelihoods(*language, requests, cache=tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_the_longest_context_still_fits_and_a_longer_one_is_cut_and_listed(tmp_path: Path, language: tuple) -> None:
    model, words = language
    text = " a" * 512
    request = {"id": "q", "context": text, "continuations": [" a"]}
    assert len(words.encode(text + " a", add_special_tokens=False)) == 513  # the last one is predicted, not read
    found = loglikelihoods(model, words, [request], cache=tmp_path / "c")
    assert found[0] == pytest.approx(naive(model, words, request, False), abs=1e-4)
    longer = {**request, "context": " star" * 30 + text}
    with pytest.raises(DataError, match="the model reads 512"):
        loglikelihoods(model, words, [longer], cache=tmp_path / "c")
    cut: dict[str, int] = {}
    beside = {"id": "p", "context": "Q:", "continuations": [" a"]}
    assert loglikelihoods(model, words, [longer, beside], cache=tmp_path / "c", truncated=cut)[0] == pytest.approx(
        found[0], abs=1e-4
    )
    assert cut == {"q": len(words.encode(longer["context"] + " a", add_special_tokens=False))}


def test_a_batch_that_the_memory_cannot_hold_is_halved(
    tmp_path: Path, language: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests, sizes = [{**one, "id": f"{k} {one['id']}"} for k in range(3) for one in asked(f"{k}? ")], []
    model, words = language
    whole = loglikelihoods(model, words, requests, cache=tmp_path / "whole", batch_size=1)
    plain = loglikelihood._predicted

    def little(model: object, batch: object, *rest: object) -> object:
        sizes.append(len(batch.trees))
        if len(batch.trees) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return plain(model, batch, *rest)

    monkeypatch.setattr(loglikelihood, "_predicted", little)
    found = loglikelihoods(model, words, requests, cache=tmp_path / "halved", batch_size=0)
    assert max(sizes) > 2, "nothing had to be halved"
    for a, b in zip(found, whole, strict=True):
        assert a == pytest.approx(b, abs=1e-4)
    monkeypatch.setattr(loglikelihood, "_predicted", lambda *given: (_ for _ in ()).throw(torch.OutOfMemoryError("x")))
    with pytest.raises(torch.OutOfMemoryError):
        loglikelihoods(model, words, requests, cache=tmp_path / "none", batch_size=0)
