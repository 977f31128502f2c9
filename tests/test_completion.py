"""Greedy continuations: stop strings, lengths, resumption, and the shared prefix against one plain call a prompt."""

import copy
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tiny_fixtures import small  # noqa: F401 - a fixture
from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

from sbt import models
from sbt.inference import completion
from sbt.inference.completion import complete
from sbt.models import silence_libraries
from sbt.utils.errors import DataError, ParameterError

PREFIX = "Is there a red star in the picture? Yes, there is. What colour is the circle? Blue.\n\n"
FREE = {"id": "free", "context": PREFIX + "Q: Is there a star?\nA:", "until": []}
Language = tuple[LlamaForCausalLM, PreTrainedTokenizerBase]


@pytest.fixture(scope="module")
def language(small: SimpleNamespace) -> Language:  # noqa: F811
    model, words = models.load_language_model(small.llm)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(3)
        for token in range(len(words)):
            if not words.decode([token]).isascii() or token in words.all_special_ids:
                model.lm_head.weight[token] = 0  # texts can be compared character by character
    return model, words


def asked(prefix: str, until: tuple[str, ...] = ()) -> list[dict]:
    questions = [f"{n}: is {'really ' * (n % 4)}there a {n * 'big '}star?\nA:" for n in range(12)]
    return [{"id": f"q{n}", "context": prefix + text, "until": list(until)} for n, text in enumerate(questions)]


def plain(language: Language, request: dict, new: int = 12, bos: bool = False) -> str:
    """What one call of `generate` for this prompt alone writes, cut before the first stop string."""
    model, words = language
    ids = torch.tensor([[1] * bos + words.encode(request["context"], add_special_tokens=False)])
    with silence_libraries(), torch.inference_mode():
        made = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=new, do_sample=False)
    text = words.decode(made[0, ids.shape[1] :], skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return text[: min([text.index(stop) for stop in request["until"] if stop in text], default=len(text))]


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """(prefix tokens, prompts) of every batch that the model is asked for from here on."""
    found, write = [], completion._Writer.write

    def spied(writer: object, prompts: list, prefix: tuple, *rest: object) -> list[str]:
        found.append((len(prefix), len(prompts)))
        return write(writer, prompts, prefix, *rest)

    monkeypatch.setattr(completion._Writer, "write", spied)
    return found


@pytest.mark.parametrize("batch_size", [1, 5, 32])
@pytest.mark.parametrize("bos", [False, True])
def test_a_shared_prefix_writes_what_a_plain_call_writes(
    tmp_path: Path, language: Language, written: list, batch_size: int, bos: bool
) -> None:
    apart = [{**one, "id": f"{one['id']} apart", "context": f"{n} " * 3} for n, one in enumerate(asked("")[:3])]
    requests = [*asked(PREFIX * 3), *apart]
    size = {"max_new_tokens": 12, "batch_size": batch_size, "add_bos": bos}
    found = complete(*language, requests, cache=tmp_path / "c", **size)
    assert found == [plain(language, request, bos=bos) for request in requests]
    assert len(set(found)) > 5
    assert max(prefix for prefix, _ in written) > 100, "nothing was shared"
    assert sum(prompts for _, prompts in written) == len(requests)


def test_prompts_of_a_few_tokens_and_of_none(tmp_path: Path, language: Language) -> None:
    bare = [{"id": "", "context": "", "until": []}, {"id": "a", "context": "Q", "until": []}]
    found = complete(*language, bare, cache=tmp_path / "c", max_new_tokens=6)
    assert found == [plain(language, bare[0], 6, bos=True), plain(language, bare[1], 6)]


def test_a_text_ends_before_the_first_of_its_stop_strings(tmp_path: Path, language: Language, written: list) -> None:
    [free] = complete(*language, [FREE], cache=tmp_path / "free", max_new_tokens=40)
    late, early = free[25:28], free[9:12]
    assert free.index(early) == 9 and free.index(late) > 12 and "@@@" not in free, "choose other stop strings"
    for number, until in enumerate([[early], [late, early], [early, late], ["@@@", late, early]]):
        [found] = complete(*language, [{**FREE, "until": until}], cache=tmp_path / f"{number}", max_new_tokens=40)
        assert found == free[:9], until
    [found] = complete(*language, [{**FREE, "until": [late]}], cache=tmp_path / "late", max_new_tokens=40)
    assert found == free[: free.index(late)]
    [found] = complete(*language, [{**FREE, "until": ["@@@"]}], cache=tmp_path / "never", max_new_tokens=40)
    assert found == free


def test_a_stop_string_of_the_prompt_or_of_another_row_ends_nothing(tmp_path: Path, language: Language) -> None:
    requests = asked(PREFIX)
    free = complete(*language, requests, cache=tmp_path / "free", max_new_tokens=24)
    stop = free[0][6:8]
    requests = [{**request, "until": ["Q", "\nA:", stop]} for request in requests]
    found = complete(*language, requests, cache=tmp_path / "cut", max_new_tokens=24)
    assert found == [plain(language, request, 24) for request in requests]
    assert found[0] == free[0][: free[0].index(stop)]
    assert any(one == text and len(one) > 8 for one, text in zip(found, free, strict=True))


def test_generation_ends_with_the_stop_string(
    tmp_path: Path, language: Language, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, _ = language
    made, generate = [], model.generate

    def spied(**given: object) -> torch.Tensor:
        found = generate(**given)
        made.append(found.shape[1] - given["input_ids"].shape[1])
        return found

    monkeypatch.setattr(model, "generate", spied)
    [free] = complete(*language, [FREE], cache=tmp_path / "free", max_new_tokens=40)
    complete(*language, [{**FREE, "until": [free[4:6]]}], cache=tmp_path / "cut", max_new_tokens=40)
    assert made[0] == 40 and made[1] < 12


def test_a_text_ends_at_the_eos_token(tmp_path: Path, language: Language) -> None:
    model, words = language
    ids = torch.tensor([words.encode(FREE["context"], add_special_tokens=False)])
    with silence_libraries(), torch.inference_mode():
        made = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False)
    new = made[0, ids.shape[1] :].tolist()
    place = next(n for n in range(2, 12) if new[n] not in new[:n])
    ending = copy.deepcopy(model)
    with torch.no_grad():  # wherever that token would come, eos is a little likelier
        ending.lm_head.weight[words.eos_token_id] = ending.lm_head.weight[new[place]] * 1.01
    [free] = complete(model, words, [FREE], cache=tmp_path / "free", max_new_tokens=12)
    [found] = complete(ending, words, [FREE], cache=tmp_path / "eos", max_new_tokens=12)
    assert found == words.decode(new[:place]) and free.startswith(found) and len(found) < len(free)


def test_a_request_may_have_its_own_length(tmp_path: Path, language: Language) -> None:
    requests = [{**FREE, "id": "short", "max_new_tokens": 2}, FREE, {**FREE, "id": "long", "max_new_tokens": 9}]
    found = complete(*language, requests, cache=tmp_path / "c", max_new_tokens=5)
    assert found == [plain(language, FREE, new) for new in (2, 5, 9)]
    assert len(set(found)) == 3


class Stop(Exception):
    """Stands for a kill."""


def test_a_killed_run_asks_only_for_what_is_missing(tmp_path: Path, language: Language, written: list) -> None:
    requests, size = asked(PREFIX, ("@@@",)), {"max_new_tokens": 6, "batch_size": 3}

    def stop(done: int, total: int) -> None:
        assert total == 12
        if done >= 6:
            raise Stop

    whole = complete(*language, requests, cache=tmp_path / "whole", **size)
    with pytest.raises(Stop):
        complete(*language, requests, cache=tmp_path / "cut", progress=stop, **size)
    kept = (tmp_path / "cut").read_text().splitlines()
    assert len(kept) == 6
    (tmp_path / "cut").write_text("\n".join(kept) + '\n{"id": "q')
    written.clear()
    passed = []
    done = complete(*language, requests, cache=tmp_path / "cut", progress=lambda *at: passed.append(at), **size)
    assert done == whole
    assert [prompts for _, prompts in written] == [3, 3]
    assert passed == [(3, 12), (6, 12), (9, 12), (12, 12)]
    assert len((tmp_path / "cut").read_text().splitlines()) == 12
    written.clear()
    assert complete(*language, requests, cache=tmp_path / "cut", **size) == whole
    assert written == []


def test_what_was_asked_otherwise_is_asked_again(tmp_path: Path, language: Language, written: list) -> None:
    cache = tmp_path / "c"
    first = complete(*language, [FREE], cache=cache, max_new_tokens=4)
    for request, size, changed in (
        (FREE, 5, {}),
        ({**FREE, "until": [first[0][:1]]}, 4, {}),
        ({**FREE, "context": "Q:"}, 4, {}),
        (FREE, 4, {"add_bos": True}),
    ):
        before = len(written)
        complete(*language, [request], cache=cache, max_new_tokens=size, **changed)
        assert len(written) == before + 1, (request, size, changed)
    assert complete(*language, [FREE], cache=cache, max_new_tokens=4) == first
    assert len(written) == 5
    assert len([json.loads(line) for line in cache.read_text().splitlines()]) == 5


def test_a_prompt_too_long_is_an_error_or_cut_and_counted(tmp_path: Path, language: Language) -> None:
    model, words = language
    long = {"id": "long", "context": " is" * 30 + " star a" * 250, "until": []}
    fits = {**long, "context": " star a" * 250}
    assert len(words.encode(fits["context"], add_special_tokens=False)) == 500
    [found] = complete(model, words, [fits], cache=tmp_path / "c", max_new_tokens=12)
    assert found == plain(language, fits)
    length = len(words.encode(long["context"], add_special_tokens=False))
    with pytest.raises(DataError, match=f"item 'long': {length} tokens, the model reads 500 before it writes"):
        complete(model, words, [FREE, long], cache=tmp_path / "error", max_new_tokens=12)
    assert not (tmp_path / "error").exists()
    cut: dict[str, int] = {}
    texts = complete(model, words, [FREE, long], cache=tmp_path / "cut", max_new_tokens=12, truncated=cut)
    assert texts == [plain(language, FREE), found]
    assert cut == {"long": length}
    first = {**fits, "context": words.decode(words.encode(long["context"], add_special_tokens=False)[:500])}
    assert plain(language, first) != found, "cut from the right it would read alike"


def test_wrong_requests_are_named(tmp_path: Path, language: Language) -> None:
    with pytest.raises(ParameterError, match="max_new_tokens 512 leaves no room for a prompt"):
        complete(*language, [FREE], cache=tmp_path / "c", max_new_tokens=512)
    with pytest.raises(ParameterError, match="max_new_tokens 600 leaves no room"):
        complete(*language, [{**FREE, "max_new_tokens": 600}], cache=tmp_path / "c")
    with pytest.raises(DataError, match="item id 'free' is used twice"):
        complete(*language, [FREE, FREE], cache=tmp_path / "c")
    assert not (tmp_path / "c").exists()
