"""Instruction loss: masks right to the token, against strings written by hand, and a known wrong implementation.

An expectation is the list of trained runs of a row: neighbouring trained tokens, decoded.
"""

import re
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tiny
import torch
from tiny_fixtures import small  # noqa: F401 - a fixture
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlavaProcessor, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from sbt import templates
from sbt.data import task_templates
from sbt.models import assemble, set_trainable
from sbt.training import Collator, Settings, labels, loss_mask, render, sft
from sbt.utils.errors import DataError, ParameterError

BRIEF = "Answer briefly."
CONVERSATIONS = ("v0", "v1", "llama_2", "llava_llama_2")
IMAGE = {"type": "image"}


def text(words: str) -> dict:
    return {"type": "text", "text": words}


CASES = {
    "multi-turn": [
        ("user", [IMAGE, text("\nWhat colour? Answer briefly.")]),
        ("assistant", [text("Red.")]),
        ("user", [text("Answer briefly. A star?")]),
        ("assistant", [text("Yes.")]),
    ],
    "text-only": [
        ("system", [text("Be kind.")]),
        ("user", [text("Is it late?  Answer briefly. Say\nwhy!")]),
        ("assistant", [text("No. Answer briefly.")]),
    ],
    "multi-image": [
        ("user", [IMAGE, text(" and "), IMAGE, text("\nSame? Answer briefly.\n")]),
        ("assistant", [text("No.")]),
    ],
}
# The instructions' trained runs: (with the templates, without). The blank before a run stands there where it
# and the word are one token; by itself it is the role's.
ASKED = {
    "multi-turn": ([["What colour? Answer briefly."], [" Answer briefly. A star?"]], [["What colour?"], [" A star?"]]),
    "text-only": ([["Is it late?  Answer briefly. Say\nwhy!"]], [["Is it late?", "Say\nwhy!"]]),
    "multi-image": ([[" and", "Same? Answer briefly."]], [[" and", "Same?"]]),
}
ANSWERS = {"multi-turn": ["Red.", "Yes."], "text-only": ["No. Answer briefly."], "multi-image": ["No."]}
SPECIAL = {"unk_token": "<unk>", "pad_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
END = {"v0": "\n###", "v1": "</s>", "llama_2": " </s>", "llava_llama_2": " </s>"}


def expected(case: str, conversation: str, without: bool) -> list[str]:
    """Runs of instruction and answer in turn."""
    runs = []
    for asked, answer in zip(ASKED[case][without], ANSWERS[case], strict=True):
        runs += asked
        runs.append(f" {answer}{END[conversation]}")
    return runs


@pytest.fixture(scope="module")
def processor(small: SimpleNamespace) -> LlavaProcessor:  # noqa: F811
    return assemble(small.llm, small.clip)[1]


def row(case: str, images: list[str]) -> dict:
    messages = [{"role": role, "content": content} for role, content in CASES[case]]
    wanted = sum(part["type"] == "image" for message in messages for part in message["content"])
    return {"id": case, "images": images[:wanted], "messages": messages}


def runs(tokenizer: PreTrainedTokenizerBase, ids: list[int], targets: list[int]) -> list[str]:
    assert all(target in (-100, one) for one, target in zip(ids, targets, strict=True))
    grouped = groupby(range(len(ids)), key=lambda place: targets[place] != -100)
    return [tokenizer.decode([ids[place] for place in places]) for trained, places in grouped if trained]


def variant(name: str, **knobs: object) -> dict:
    return loss_mask.variant(name, [BRIEF] if name == "no_templates" else [], **knobs)


def check(processor: LlavaProcessor, batch: dict, cases: list[str], conversation: str, without: bool) -> None:
    """The whole demand: of every row of a batch the expected runs are trained and not a token more."""
    for place, case in enumerate(cases):
        ids, targets = batch["input_ids"][place].tolist(), batch["labels"][place].tolist()
        assert runs(processor.tokenizer, ids, targets) == expected(case, conversation, without)
        trained = torch.tensor(targets) != -100
        assert not trained[batch["input_ids"][place] == processor.image_token_id].any()
        assert not trained[batch["attention_mask"][place] == 0].any()


@pytest.mark.parametrize("conversation", CONVERSATIONS)
@pytest.mark.parametrize("name", ["no_system", "no_templates"])
def test_masks_are_right_to_the_token(
    processor: LlavaProcessor,
    small: SimpleNamespace,  # noqa: F811
    conversation: str,
    name: str,
) -> None:
    cases = list(CASES)
    collate = Collator(processor, conversation, variant(name))
    rows = [row(case, small.images) for case in cases]
    check(processor, collate(rows), cases, conversation, name == "no_templates")
    for case, one in zip(cases, rows, strict=True):
        check(processor, collate([one]), [case], conversation, name == "no_templates")


def published(batch: dict, rows: list[dict]) -> dict:
    """A public class that calls itself L2T: finds the twenty templates, never uses them, unmasks all that was -100."""
    found = task_templates.mine(rows, top=20)
    assert BRIEF in [one["sentence"] for one in found]
    targets = batch["labels"]
    return batch | {"labels": torch.where(targets == -100, batch["input_ids"], targets)}


@pytest.mark.parametrize("conversation", CONVERSATIONS)
def test_a_known_wrong_implementation_fails_the_same_check(
    processor: LlavaProcessor,
    small: SimpleNamespace,  # noqa: F811
    conversation: str,
) -> None:
    cases = list(CASES)
    rows = [row(case, small.images) for case in cases]
    wrong = published(Collator(processor, conversation)(rows), rows)
    for without in (False, True):
        with pytest.raises(AssertionError):
            check(processor, wrong, cases, conversation, without)
    trained = wrong["labels"] != -100
    assert trained[wrong["attention_mask"] == 0].all()
    assert trained[wrong["input_ids"] == processor.image_token_id].all()


@pytest.mark.parametrize("conversation", CONVERSATIONS)
@pytest.mark.parametrize("case", CASES)
def test_with_system_all_is_trained_but_images_and_bos(
    processor: LlavaProcessor,
    small: SimpleNamespace,  # noqa: F811
    conversation: str,
    case: str,
) -> None:
    one = row(case, small.images)
    ids, targets = labels(processor, [one], conversation, variant("instruction"))[0]
    left = {number for number, target in zip(ids, targets, strict=True) if target == -100}
    assert left == {processor.tokenizer.bos_token_id} | ({processor.image_token_id} if one["images"] else set())
    bos = labels(processor, [one], conversation, variant("instruction", bos=True))[0][1]
    starts = [place for place, number in enumerate(ids) if number == processor.tokenizer.bos_token_id]
    assert {place for place in range(len(ids)) if bos[place] != targets[place]} == set(starts)


def test_with_system_templates_can_be_left_out_too(processor: LlavaProcessor, small: SimpleNamespace) -> None:  # noqa: F811
    loss = {"on": "instruction_with_system", "templates": [BRIEF]}
    ids, targets = labels(processor, [row("text-only", [])], "v1", loss)[0]
    wanted = ["Be kind. USER: Is it late?", "Say\nwhy! ASSISTANT: No. Answer briefly.</s>"]
    assert runs(processor.tokenizer, ids, targets) == wanted


def test_answers_alone_are_what_they_were(processor: LlavaProcessor, small: SimpleNamespace) -> None:  # noqa: F811
    rows = [row(case, small.images) for case in CASES]
    assert labels(processor, rows, "v1", variant("answer_only")) == labels(processor, rows, "v1")


def test_plain_has_no_instruction(processor: LlavaProcessor) -> None:
    for name in ("instruction", "no_system", "no_templates"):
        with pytest.raises(ParameterError, match="conversation 'plain' leaves the instruction out"):
            Collator(processor, "plain", variant(name))
    Collator(processor, "plain", variant("answer_only"))


def test_first_turn_only_and_rows_with_images_only(processor: LlavaProcessor, small: SimpleNamespace) -> None:  # noqa: F811
    words = processor.tokenizer
    many, alone = row("multi-turn", small.images), row("text-only", [])
    first = labels(processor, [many], "v1", variant("no_system", turns="first"))[0]
    assert runs(words, *first) == ["What colour? Answer briefly.", " Red.</s>", " Yes.</s>"]
    first = labels(processor, [many], "v1", variant("instruction", turns="first"))[0]
    assert runs(words, *first)[1:] == ["\nWhat colour? Answer briefly. ASSISTANT: Red.</s>", " Yes.</s>"]
    seeing = labels(processor, [alone, many], "v1", variant("no_system", text_only=False))
    assert runs(words, *seeing[0]) == [" No. Answer briefly.</s>"]
    assert runs(words, *seeing[1]) == expected("multi-turn", "v1", without=False)


def test_a_language_model_has_the_same_mask(processor: LlavaProcessor) -> None:
    one = row("text-only", [])
    for name in loss_mask.VARIANTS:
        assert labels(processor.tokenizer, [one], "v1", variant(name)) == labels(processor, [one], "v1", variant(name))


def metaspace(small: SimpleNamespace) -> PreTrainedTokenizerFast:  # noqa: F811
    """As sentencepiece: a blank is part of the word after it."""
    core = Tokenizer(models.BPE(unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Metaspace()
    core.decoder = decoders.Metaspace()
    letters = [chr(number) for number in range(32, 127)] + ["\n", "ü", "é", "▁"]
    special = ["<unk>", "<s>", "</s>"]
    core.train_from_iterator(
        tiny.CORPUS, trainers.BpeTrainer(vocab_size=400, initial_alphabet=letters, special_tokens=special)
    )
    return PreTrainedTokenizerFast(tokenizer_object=core, **SPECIAL)


def byte_level(small: SimpleNamespace) -> PreTrainedTokenizerBase:  # noqa: F811
    return assemble(small.llm, small.clip)[1].tokenizer


def trimmed(small: SimpleNamespace) -> LlavaProcessor:  # noqa: F811
    """Offsets that leave out the blank before a word."""
    made = assemble(small.llm, small.clip)[1]
    made.tokenizer.backend_tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    return made


@pytest.mark.parametrize("make", [byte_level, trimmed, metaspace])
def test_any_kind_of_tokenizer_gives_the_same_words(make: Callable, small: SimpleNamespace) -> None:  # noqa: F811
    asked = "Is the  café über? Answer briefly. Why?\n\nSay so."
    messages = [{"role": "user", "content": asked}, {"role": "assistant", "content": "é."}]
    made = make(small)
    words = getattr(made, "tokenizer", made)
    for name, wanted in (
        ("no_system", [asked, "é.</s>"]),
        ("no_templates", ["Is the  café über?", "Why?\n\nSay so.", "é.</s>"]),
    ):
        ids, targets = labels(made, [{"id": "r", "images": [], "messages": messages}], "v1", variant(name))[0]
        assert [run.lstrip(" ") for run in runs(words, ids, targets)] == wanted


def test_a_token_that_holds_a_bit_of_a_role_is_not_trained() -> None:
    """Control: the rule of `{% generation %}` spans, any overlap, would train the role with it."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.Split(Regex("[^<>]{1,4}"), "isolated")
    core.decoder = decoders.Fuse()
    one = {"id": "r", "images": [], "messages": [
        {"role": "system", "content": "Sys"}, {"role": "user", "content": "What is it now?"},
        {"role": "assistant", "content": "No"}]}  # fmt: skip
    whole = "Sys USER: What is it now? ASSISTANT: No"
    special = ["<unk>", "<s>", "</s>"]
    core.train_from_iterator([whole] * 3, trainers.BpeTrainer(vocab_size=300, special_tokens=special))
    words = PreTrainedTokenizerFast(tokenizer_object=core, **SPECIAL)
    ids, targets = labels(words, [one], "v1", variant("no_system"))[0]
    pieces = [words.decode([number]) for number in ids]
    assert pieces == ["<s>", *(whole[start : start + 4] for start in range(0, len(whole), 4)), "</s>"]
    trained = [piece for piece, target in zip(pieces, targets, strict=True) if target != -100]
    assert trained == ["at i", "s it", " now", " No", "</s>"]
    start, end = whole.index("What"), whole.index(" ASSISTANT")
    touching = [whole[place : place + 4] for place in range(0, len(whole), 4) if start - 4 < place < end]
    assert touching == [": Wh", "at i", "s it", " now", "? AS"]


def test_marks_around_images_are_not_trained(small: SimpleNamespace) -> None:  # noqa: F811
    made = assemble(small.llm, small.clip, image_markers=True)[1]
    one, words = row("multi-image", small.images), made.tokenizer
    for name, wanted in (
        ("no_system", [" and", "Same? Answer briefly.", " No.</s>"]),
        ("instruction", [" and ", "\nSame? Answer briefly.\n ASSISTANT: No.</s>"]),
    ):
        ids, targets = labels(made, [one], "v1", variant(name))[0]
        assert words.decode(ids).count("<im_start>" + "<image>" * 9 + "<im_end>") == 2
        assert runs(words, ids, targets)[-len(wanted) :] == wanted


def test_texts_with_the_marks_of_the_machinery_are_refused(processor: LlavaProcessor) -> None:
    one = row("text-only", [])
    one["messages"][1]["content"] = [text("Is \ufdd0 it?")]
    with pytest.raises(DataError, match=r"'text-only': a text holds U\+FDD0"):
        labels(processor, [one], "v1", variant("no_system"))


def test_a_row_without_an_answer_is_refused_though_its_instruction_trains(processor: LlavaProcessor) -> None:
    one = row("text-only", [])
    with pytest.raises(DataError, match="'text-only': no token is trained"):
        labels(processor, [{**one, "messages": one["messages"][:2]}], "v1", variant("no_system"))


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        ({"template": [BRIEF]}, "'template' is unknown; did you mean 'templates'"),
        ({"on": "instructions"}, "on 'instructions' is unknown; did you mean 'instruction'"),
        ({"on": "instruction", "turns": "last"}, "turns 'last' is unknown"),
        ({"on": "instruction", "splitter": "words"}, "splitter 'words' is unknown"),
        ({"on": "instruction", "text_only": "no"}, "text_only must be true or false, found 'no'"),
        ({"on": "instruction", "templates": BRIEF}, "templates must be a list of sentences"),
        ({"on": "instruction", "templates": ["One. Two."]}, "'One. Two.' is not one whole sentence"),
        ({"on": "instruction", "templates": [" One."]}, "' One.' is not one whole sentence"),
        ({"templates": [BRIEF]}, "templates changes nothing with on: response"),
        ("instruction", "loss must be a mapping of on, templates"),
    ],
)
def test_unknown_knobs_and_knobs_without_effect_are_refused(loss: object, message: str) -> None:
    with pytest.raises(ParameterError, match=re.escape(message)):
        Settings(loss=loss)


def test_variants_are_four_different_losses() -> None:
    assert list(loss_mask.VARIANTS) == ["answer_only", "instruction", "no_system", "no_templates"]
    made = [variant(name) for name in loss_mask.VARIANTS]
    assert len({str(loss_mask.parse(one)) for one in made}) == 4
    assert len({str(Settings(loss=one).identity()) for one in made}) == 4
    assert made[3] == {"on": "instruction", "templates": [BRIEF]}
    with pytest.raises(ParameterError, match="needs the sentences"):
        loss_mask.variant("no_templates")
    with pytest.raises(ParameterError, match="did you mean 'no_system'"):
        loss_mask.variant("no_sytem")


def test_training_uses_the_knobs(tmp_path: Path, small: SimpleNamespace) -> None:  # noqa: F811
    losses = {}
    for name in ("answer_only", "no_system"):
        model, processor = assemble(small.llm, small.clip)
        settings = Settings(learning_rate=1e-3, max_steps=1, batch_size=2, save_minutes=0, loss=variant(name))
        rows = [row("multi-turn", small.images), row("text-only", [])]
        result = sft(set_trainable(model, {"connector": "full"}), processor, rows, tmp_path, settings)
        losses[name] = result.history["loss"][0]
        batch = Collator(processor, "v1", settings.loss)(rows)
        with torch.no_grad():
            fresh = assemble(small.llm, small.clip)[0]
            assert np.isclose(fresh(**batch).loss.item(), losses[name], atol=1e-4)
    assert abs(losses["answer_only"] - losses["no_system"]) > 1e-3


def test_the_picture_of_a_row_has_a_colour_for_instructions(processor: LlavaProcessor, small: SimpleNamespace) -> None:  # noqa: F811
    page = render(processor, row("multi-turn", small.images), "v1", variant("no_templates"))
    marks = re.findall(r'<mark style="([^"]*)">(.*?)</mark>', page)
    assert [words for _, words in marks] == ["What colour?", " Red.&lt;/s&gt;", " A star?", " Yes.&lt;/s&gt;"]
    asked, answered = {style for style, _ in marks[::2]}, {style for style, _ in marks[1::2]}
    assert len(asked) == len(answered) == 1 and asked != answered
    words = {words: style for style, words in re.findall(r'<span style="([^"]*)">(trained as \w+)</span>', page)}
    assert words == {"trained as instruction": asked.pop(), "trained as response": answered.pop()}
    assert "the unmarked are only read" in page
    assert "trained as instruction" not in render(processor, row("multi-turn", small.images), "v1")


def asking(*instructions: str) -> list[dict]:
    return [{"id": str(n), "messages": [{"role": "user", "content": [text(words)]},
                                        {"role": "assistant", "content": [text("Answer.")]}]}
            for n, words in enumerate(instructions)]  # fmt: skip


def test_frequent_sentences_are_mined_with_their_counts() -> None:
    rows = asking("Why? Be brief. Be brief.", "How?\nBe brief.", "How?", "B then? A. one\nB. two", "Who")
    table = task_templates.mine(rows, top=5)
    assert table == [
        {"rank": 1, "sentence": "Be brief.", "count": 2, "share": 0.4},
        {"rank": 2, "sentence": "How?", "count": 2, "share": 0.4},
    ]
    assert task_templates.mine(rows[::-1], top=1) == table[:1]
    assert task_templates.mine(rows, min_share=0.5) == []
    assert task_templates.mine(rows, top=1, min_share=0.4) == table[:1]
    assert task_templates.sentences("Is 3.5 e. ok?! \"Yes.\" Then 。好！A. one") == [
        "Is 3.5 e.", "ok?!", '"Yes."', "Then 。", "好！", "A. one",
    ]  # fmt: skip
    assert task_templates.sentences("Why? Be brief.\nNow.", "line") == ["Why? Be brief.", "Now."]
    for wrong in ({}, {"top": 0}, {"min_share": 2}):
        with pytest.raises(ParameterError):
            task_templates.mine(rows, **wrong)
    with pytest.raises(DataError, match="no row has an instruction"):
        task_templates.mine([], top=3)


def test_what_is_mined_is_what_is_masked(processor: LlavaProcessor) -> None:
    rows = asking("Why not? Say a lot. Name one.", "When? Say a lot.", "Who? Name one.")
    found = [one["sentence"] for one in task_templates.mine(rows, top=2)]
    loss = loss_mask.variant("no_templates", found)
    asked = [runs(processor.tokenizer, *one)[:-1] for one in labels(processor.tokenizer, rows, "v1", loss)]
    assert asked == [["Why not?"], ["When?"], ["Who?"]]


def test_every_conversation_format_either_marks_instructions_or_says_no(processor: LlavaProcessor) -> None:
    for name in templates.names():
        if name != "plain":
            targets = labels(processor, [row("text-only", [])], name, variant("no_system"))[0]
            assert "Is it late?  Answer briefly. Say\nwhy!" in runs(processor.tokenizer, *targets)[0]
