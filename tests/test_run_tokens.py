"""Texts become tokens once in a run: for all arms whose tokenizers give the same, one part ahead of the model."""

import copy
import json
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import tiny
from tokenizers import AddedToken, Tokenizer, normalizers, processors
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from sbt.benchmarks.common import evaluate_text
from sbt.inference import completion, loglikelihood
from sbt.inference.completion import complete
from sbt.inference.loglikelihood import loglikelihoods
from sbt.inference.tokens import RunTokens, token_ids
from sbt.models import TextArm
from sbt.utils.errors import DataError

PREFIX = "Is there a red star? Yes, there is.\n\n"
ASKED = {
    name: [
        {"id": f"{n}", "context": f"{PREFIX}{name} {n}: what is {n} of them?\nA:", "continuations": [" a star", " no"]}
        for n in range(5)
    ]
    for name in ("one", "two", "three")
}
ASKED["texts"] = [{"id": "0", "context": "A chat about stars ", "until": ["\n"]}]
TEXTS = [
    one["context"] + text for requests in ASKED.values() for one in requests for text in one.get("continuations", "")
]


@pytest.fixture(scope="module")
def words() -> PreTrainedTokenizerFast:
    return tiny.tokenizer(pad="<unk>")


@pytest.fixture(scope="module")
def model(words: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    return tiny.language_model(words, more=4)


def image(words: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """As a LLaVA has it: a token more, which is in no text of a text benchmark."""
    words.add_special_tokens({"additional_special_tokens": ["<image>"]}, replace_extra_special_tokens=False)
    return words


def star(words: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """A token more, which is in the texts."""
    words.add_special_tokens({"additional_special_tokens": [" star"]}, replace_extra_special_tokens=False)
    return words


def merge(words: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """The last merge that the texts use is not there."""
    used = {token for text in TEXTS for token in words.convert_ids_to_tokens(words.encode(text))}
    state = json.loads(words.backend_tokenizer.to_str())
    merges = state["model"]["merges"]
    merges.remove(next(pair for pair in reversed(merges) if "".join(pair) in used))
    words._tokenizer = Tokenizer.from_str(json.dumps(state))
    return words


def bos(words: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    begin = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", words.bos_token_id)])
    words.backend_tokenizer.post_processor = begin
    return words


def lower(words: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    words.backend_tokenizer.normalizer = normalizers.Lowercase()
    return words


def normalized(words: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """Looked for after the text was normalised: that it is not in the text as it stands says nothing."""
    words.add_tokens([AddedToken("QUESTION", normalized=True)])
    return words


def own_code(words: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    class Own(PreTrainedTokenizerFast):
        def _encode_plus(self, text: object, **given: object) -> object:
            found = super()._encode_plus(text, **given)
            found["input_ids"] = [ids[::-1] for ids in found["input_ids"]]
            return found

    return Own(tokenizer_object=words.backend_tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def unsplit(words: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    words.split_special_tokens = True
    return words


def same(words: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    words.chat_template, words.padding_side = "{{ messages }}", "left"  # arms over one base differ in their templates
    words(["a", "a red star"], padding=True, truncation=True, max_length=2)  # what a call leaves behind is no rule
    return words


def reads(words: PreTrainedTokenizerFast) -> list[tuple[int, ...]]:
    return list(token_ids(words, TEXTS))


@pytest.mark.parametrize("change", [same, image])
def test_tokenizers_that_give_the_same_tokens_share_them(change: object, words: PreTrainedTokenizerFast) -> None:
    other, run = change(copy.deepcopy(words)), RunTokens(ASKED)
    assert run.of(other)("one") is run.of(words)("one") and reads(other) == reads(words)
    [first, *_] = run.of(words)("one").items
    assert first[0].context is first[1].context, "one tuple for all continuations"


@pytest.mark.parametrize("change", [star, merge, bos, lower, own_code])
def test_tokenizers_that_give_others_do_not(change: object, words: PreTrainedTokenizerFast) -> None:
    other, run = change(copy.deepcopy(words)), RunTokens(ASKED)
    assert reads(other) != reads(words), "this control is none"
    assert (
        run.of(words)("one") is not run.of(other)("one") and run.of(words)("one").items != run.of(other)("one").items
    )
    assert run.of(words)("one") is run.of(copy.deepcopy(words))("one")


@pytest.mark.parametrize("change", [normalized, unsplit])
def test_where_it_cannot_be_told_from_the_rules_nothing_is_shared(
    change: object, words: PreTrainedTokenizerFast
) -> None:
    run, other = RunTokens(ASKED), change(copy.deepcopy(words))
    assert run.of(words)("one") is not run.of(other)("one")


def test_a_tokenizer_that_changes_later_is_another(words: PreTrainedTokenizerFast) -> None:
    run, own = RunTokens(ASKED), copy.deepcopy(words)
    before = run.of(own)("one")
    assert run.of(bos(own))("one") is not before and run.of(words)("one") is before


def test_a_token_across_a_context_and_its_continuation_counts(words: PreTrainedTokenizerFast) -> None:
    asked = {"one": [{"id": "0", "context": "what is <ima", "continuations": ["ge> there and many more of them"]}]}
    for change, shared in ((image, False), (same, True)):
        run = RunTokens(asked)
        assert (run.of(words)("one") is run.of(change(copy.deepcopy(words)))("one")) == shared


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Counter:
    """How often each text was given to a tokenizer."""
    counts, real = Counter(), PreTrainedTokenizerFast._encode_plus

    def count(self: PreTrainedTokenizerFast, text: list[str], **given: object) -> object:
        counts.update(text)
        return real(self, text, **given)

    monkeypatch.setattr(PreTrainedTokenizerFast, "_encode_plus", count)
    return counts


def three(model: LlamaForCausalLM, words: PreTrainedTokenizerFast, *changes: object) -> list[TextArm]:
    return [TextArm(change.__name__, model, change(copy.deepcopy(words))) for change in changes]


@pytest.mark.parametrize("too_long", evaluate_text.TOO_LONG)
def test_every_text_is_tokenised_once_for_all_arms(
    too_long: str, model: LlamaForCausalLM, words: PreTrainedTokenizerFast, seen: Counter, tmp_path: Path
) -> None:
    arms = three(model, words, same, image, lower)
    seen.clear()
    how = {"max_new_tokens": 4, "too_long": too_long}
    found, _ = evaluate_text.ask(arms[:2], ASKED, tmp_path / "two", **how)
    contexts = {one["context"] for requests in ASKED.values() for one in requests}
    assert seen == Counter([*TEXTS, *contexts])
    evaluate_text.ask(arms, ASKED, tmp_path / "three", **how)
    assert seen == Counter([*TEXTS, *contexts] * 3), "once for the two, once for the third: the control"
    seen.clear()
    for arm in arms[:2]:  # without a run around them
        own, answers = (arm.model, arm.tokenizer), found[arm.name]
        for part in ("one", "two", "three"):
            assert answers[part] == loglikelihoods(*own, ASKED[part], cache=tmp_path / f"{arm.name} {part}")
        texts = complete(*own, ASKED["texts"], cache=tmp_path / arm.name, max_new_tokens=4)
        assert answers["texts"] == texts
    assert seen == Counter([*TEXTS, *contexts] * 2)


def test_the_next_part_is_made_while_the_model_reads_this_one(
    model: LlamaForCausalLM, words: PreTrainedTokenizerFast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = {part: threading.Event() for part in ASKED}
    order, at_work, asked_for, real = list(ASKED), [], [], RunTokens.of

    def of(self: RunTokens, tokenizer: PreTrainedTokenizerFast) -> object:
        def tokens(part: str) -> object:
            asked_for.append(part)
            found = own(part)
            made[part].set()
            return found

        own = real(self, tokenizer)
        return tokens

    def answers(arm: TextArm, requests: list[dict], *given: object) -> list:
        part = next(name for name, own in ASKED.items() if own is requests)
        following = order[order.index(part) + 1 :]
        if following:  # the model would wait for ever if the next part were made after it
            assert made[following[0]].wait(60), "the next part is not made ahead"
        at_work.append((part, len(asked_for)))
        assert len(asked_for) <= order.index(part) + 2, "more than one part ahead"
        return real_answers(arm, requests, *given)

    real_answers = evaluate_text._answers
    monkeypatch.setattr(RunTokens, "of", of)
    monkeypatch.setattr(evaluate_text, "_answers", answers)
    evaluate_text.ask(three(model, words, same), ASKED, tmp_path, max_new_tokens=4, too_long="truncate")
    assert at_work == [("one", 2), ("two", 3), ("three", 4), ("texts", 4)] and asked_for == order


def test_the_weights_of_an_arm_are_looked_at_once(
    model: LlamaForCausalLM, words: PreTrainedTokenizerFast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU each look waits for it, hundreds of times: not once a part."""
    looked = []
    for module in (evaluate_text, loglikelihood, completion):
        monkeypatch.setattr(module, "weights_sample", lambda model: looked.append(model) or "the same")
    evaluate_text.ask(three(model, words, same, image), ASKED, tmp_path, max_new_tokens=4)
    assert len(looked) == 2 and len(ASKED) > 2


def test_one_is_made_ahead_and_errors_come_in_turn() -> None:
    made = []

    def make(part: str) -> str:
        made.append(part)
        return 1 / 0 if part == "bad" else part.upper()

    with ThreadPoolExecutor(1) as thread:
        coming = evaluate_text._one_ahead(thread, make, ["a", "bad", "c", "d"])
        part, first = next(coming)
        assert (part, first.result()) == ("a", "A")
        thread.submit(int).result()  # whatever was begun is done now
        assert made == ["a", "bad"]
        part, second = next(coming)
        with pytest.raises(ZeroDivisionError):
            second.result()
        assert [(part, one.result()) for part, one in coming] == [("c", "C"), ("d", "D")]
        assert list(evaluate_text._one_ahead(thread, make, [])) == []


EMPTY = {"id": "7", "context": "A:", "continuations": [" a", ""]}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ([EMPTY], "^two, item '7': continuation '' has no tokens of its own"),
        ([{**EMPTY, "continuations": []}], "^two, item '7': no continuations to score"),
        ([ASKED["two"][0]] * 2, "^two, item id '0' is used twice"),
    ],
)
def test_errors_of_a_part_name_it_and_come_when_they_came_before(
    wrong: list, message: str, model: LlamaForCausalLM, words: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    arms, asked = three(model, words, same), {"one": ASKED["one"], "two": wrong, "three": ASKED["three"]}
    for too_long in evaluate_text.TOO_LONG:
        folder = tmp_path / too_long
        with pytest.raises(DataError, match=message):
            evaluate_text.ask(arms, asked, folder, too_long=too_long)
        lengths_first = too_long == "error" and "twice" not in message
        assert [file.name for file in folder.rglob("*")] == ([] if lengths_first else ["same", "one.values.jsonl"])


def test_a_plan_made_before_is_left_where_a_model_shares_nothing(
    model: LlamaForCausalLM, words: PreTrainedTokenizerFast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned, real = [], loglikelihood.plan
    monkeypatch.setattr(loglikelihood, "plan", lambda items, *share: planned.append(share) or real(items, *share))
    shared = loglikelihoods(model, words, ASKED["one"], cache=tmp_path / "shared")
    monkeypatch.setitem(loglikelihood._CHECKED, model, "for the test")
    with pytest.warns(UserWarning, match="shares no prefixes here .for the test."):
        whole = loglikelihoods(model, words, ASKED["one"], cache=tmp_path / "whole")
    assert planned[-3:] == [(), (), (False,)]
    assert whole == [pytest.approx(values, abs=1e-4) for values in shared]
