"""What each conversation template renders and trains, to the token, against expectations written by hand.

In an expectation « » enclose what is trained and <image> stands for one image's nine tokens.
"""

import hashlib
import re
from types import SimpleNamespace

import pytest
import tiny
import torch
from PIL import Image
from tiny_fixtures import small  # noqa: F401 - a fixture
from transformers import LlavaProcessor
from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

from sbt import templates, training
from sbt.models import assemble
from sbt.utils.errors import DataError, ParameterError

HUMAN = (
    "A chat between a curious human and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the human's questions."
)
USER = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
META = (
    "You are a helpful, respectful and honest assistant. Always answer as helpfully as possible, while being safe.  "
    "Your answers should not include any harmful, unethical, racist, sexist, toxic, dangerous, or illegal content. "
    "Please ensure that your responses are socially unbiased and positive in nature.\n\nIf a question does not make "
    "any sense, or is not factually coherent, explain why instead of answering something not correct. If you don't "
    "know the answer to a question, please don't share false information."
)
LLAVA = (
    "You are a helpful language and vision assistant. You are able to understand the visual content that the user "
    "provides, and assist the user with a variety of tasks using natural language."
)


def text(words: str) -> dict:
    return {"type": "text", "text": words}


IMAGE = {"type": "image"}
ONE = [("user", [IMAGE, text("\nWhat colour?")]), ("assistant", [text("Red.")])]
CASES = {
    "one turn": ONE,
    "two turns": [*ONE, ("user", [text("A star?")]), ("assistant", [text("Yes, there is.")])],
    "system": [("system", [text("Be brief.")]), *ONE],
    "no image": [("user", [text("What colour?")]), ("assistant", [text("Red.")])],
    "two images": [("user", [IMAGE, text(" and "), IMAGE, text("\nSame?")]), ("assistant", [text("No.")])],
}
EXPECTED = {
    ("plain", "one turn"): "<s><image>«Red.\n»",
    ("plain", "two turns"): "<s><image>«Red.\n»«Yes, there is.\n»",
    ("plain", "system"): "<s><image>«Red.\n»",
    ("plain", "no image"): "<s>«Red.\n»",
    ("plain", "two images"): "<s><image><image>«No.\n»",
    ("v0", "one turn"): f"<s>{HUMAN}\n\n### Human: <image>\nWhat colour?\n### Assistant:« Red.\n###»",
    ("v0", "two turns"): f"<s>{HUMAN}\n\n### Human: <image>\nWhat colour?\n### Assistant:« Red.\n###» Human: A star?"
    "\n### Assistant:« Yes, there is.\n###»",
    ("v0", "system"): "<s>Be brief.\n\n### Human: <image>\nWhat colour?\n### Assistant:« Red.\n###»",
    ("v0", "no image"): f"<s>{HUMAN}\n\n### Human: What colour?\n### Assistant:« Red.\n###»",
    ("v0", "two images"): f"<s>{HUMAN}\n\n### Human: <image> and <image>\nSame?\n### Assistant:« No.\n###»",
    ("v1", "one turn"): f"<s>{USER} USER: <image>\nWhat colour? ASSISTANT:« Red.</s>»",
    ("v1", "two turns"): f"<s>{USER} USER: <image>\nWhat colour? ASSISTANT:« Red.</s>»USER: A star? ASSISTANT:"
    "« Yes, there is.</s>»",
    ("v1", "system"): "<s>Be brief. USER: <image>\nWhat colour? ASSISTANT:« Red.</s>»",
    ("v1", "no image"): f"<s>{USER} USER: What colour? ASSISTANT:« Red.</s>»",
    ("v1", "two images"): f"<s>{USER} USER: <image> and <image>\nSame? ASSISTANT:« No.</s>»",
}
for name, system in (("llama_2", META), ("llava_llama_2", LLAVA)):
    head = f"<s>[INST] <<SYS>>\n{system}\n<</SYS>>\n\n"
    EXPECTED |= {
        (name, "one turn"): f"{head}<image>\nWhat colour? [/INST]« Red. </s>»",
        (name, "two turns"): f"{head}<image>\nWhat colour? [/INST]« Red. </s>»<s>[INST] A star? [/INST]"
        "« Yes, there is. </s>»",
        (name, "system"): "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\n<image>\nWhat colour? [/INST]« Red. </s>»",
        (name, "no image"): f"{head}What colour? [/INST]« Red. </s>»",
        (name, "two images"): f"{head}<image> and <image>\nSame? [/INST]« No. </s>»",
    }
# The authors' evaluation begins every prompt so; the hash below is that of their own code's prompt for "What?".
EVAL_START, EVAL_HASH = (
    templates.load("v0_eval").split('set asked = "')[1].split('"')[0],
    "4561fc107057281748256f9174c2bb1e1bdff85bec925afe8ff7d1d3eb0ddcf4",
)
EVAL_ANSWER = templates.load("v0_eval").split('set answered = "')[1].split('"')[0].replace("\\n", "\n")
SHOWN = f"###Human: {EVAL_START}###Assistant: {EVAL_ANSWER}###"
EXPECTED |= {
    ("v0_eval", "one turn"): f"<s>{HUMAN}{SHOWN}Human: <image>\nWhat colour?###Assistant:« Red.###»",
    ("v0_eval", "two turns"): f"<s>{HUMAN}{SHOWN}Human: <image>\nWhat colour?###Assistant:« Red.###»Human: A star?"
    "###Assistant:« Yes, there is.###»",
    ("v0_eval", "system"): f"<s>Be brief.{SHOWN}Human: <image>\nWhat colour?###Assistant:« Red.###»",
    ("v0_eval", "no image"): f"<s>{HUMAN}{SHOWN}Human: What colour?###Assistant:« Red.###»",
    ("v0_eval", "two images"): f"<s>{HUMAN}{SHOWN}Human: <image> and <image>\nSame?###Assistant:« No.###»",
}


@pytest.fixture(scope="module")
def processor(small: SimpleNamespace) -> LlavaProcessor:  # noqa: F811
    return assemble(small.llm, small.clip)[1]


def row(case: str, images: list[str]) -> dict:
    messages = [{"role": role, "content": content} for role, content in CASES[case]]
    wanted = sum(part["type"] == "image" for message in messages for part in message["content"])
    return {"id": case, "images": images[:wanted], "messages": messages}


def expected_tokens(processor: LlavaProcessor, expectation: str) -> tuple[list[int], list[int]]:
    ids, labels = [], []
    for number, piece in enumerate(re.split("[«»]", expectation)):
        tokens = processor.tokenizer.encode(piece.replace("<image>", "<image>" * 9), add_special_tokens=False)
        ids += tokens
        labels += tokens if number % 2 else [-100] * len(tokens)
    return ids, labels


@pytest.mark.parametrize(("name", "case"), EXPECTED)
def test_tokens_and_labels_are_those_written_by_hand(
    processor: LlavaProcessor,
    small: SimpleNamespace,  # noqa: F811
    name: str,
    case: str,
) -> None:
    found = training.labels(processor, [row(case, small.images)], name)[0]
    assert found == expected_tokens(processor, EXPECTED[name, case])


def test_every_template_has_every_case() -> None:
    assert {name for name, _ in EXPECTED} == set(templates.names())
    assert len(EXPECTED) == len(CASES) * len(templates.names())


@pytest.mark.parametrize("name", templates.names())
def test_a_language_model_gets_the_same_labels(processor: LlavaProcessor, name: str) -> None:
    found = training.labels(processor.tokenizer, [row("no image", [])], name)[0]
    assert found == expected_tokens(processor, EXPECTED[name, "no image"])


@pytest.mark.parametrize("name", templates.names())
def test_a_mixed_batch_has_the_labels_of_its_rows_alone(
    processor: LlavaProcessor,
    small: SimpleNamespace,  # noqa: F811
    name: str,
) -> None:
    rows = [row(case, small.images) for case in CASES]
    batch = training.Collator(processor, name)(rows)
    for i, (ids, labels) in enumerate(training.labels(processor, rows, name)):
        kept = batch["attention_mask"][i].bool()
        assert batch["input_ids"][i][kept].tolist() == ids
        assert batch["labels"][i][kept].tolist() == labels
        assert (batch["labels"][i][~kept] == -100).all()


@pytest.mark.parametrize("name", templates.names())
def test_a_batch_is_the_stock_collators_to_the_bit(
    processor: LlavaProcessor,
    small: SimpleNamespace,  # noqa: F811
    name: str,
) -> None:
    rows = [row(case, small.images) for case in CASES]
    opened = [{**one, "images": [Image.open(file).convert("RGB") for file in one["images"]]} for one in rows]
    stock = DataCollatorForVisionLanguageModeling(
        processor, assistant_only_loss=True, chat_template=templates.load(name)
    )(opened)
    collate = training.Collator(processor, name)
    for ours in (collate(rows), collate(rows)):
        assert set(ours) == set(stock)
        assert all(torch.equal(ours[name], stock[name]) for name in ours)


def test_control_stock_labels_train_user_words_and_images(
    processor: LlavaProcessor,
    small: SimpleNamespace,  # noqa: F811
) -> None:
    stock = DataCollatorForVisionLanguageModeling(processor, chat_template=templates.load("v1"))
    opened = [Image.open(file).convert("RGB") for file in small.images[:1]]
    labels = stock([{**row("one turn", small.images), "images": opened}])["labels"][0].tolist()
    assert labels.count(processor.image_token_id) == 9
    assert "What colour?" in processor.tokenizer.decode([label for label in labels if label != -100])


@pytest.mark.parametrize("name", templates.names())
def test_the_prompt_of_a_question_begins_what_is_trained(name: str) -> None:
    words = tiny.tokenizer()
    words.chat_template = templates.load(name)
    asked = [{"role": "user", "content": "A star?"}]
    prompt = words.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
    whole = words.apply_chat_template([*asked, {"role": "assistant", "content": "Yes."}], tokenize=False)
    assert whole == prompt + {"plain": "Yes.\n", "v0": " Yes.\n###", "v0_eval": " Yes.###", "v1": " Yes.</s>"}.get(
        name, " Yes. </s>"
    )


@pytest.mark.parametrize("name", templates.names())
def test_text_may_be_a_string_or_parts(name: str) -> None:
    words = tiny.tokenizer()
    words.chat_template = templates.load(name)
    turns = [("user", "A star?"), ("assistant", "Yes.")]
    strings = [{"role": role, "content": content} for role, content in turns]
    parts = [{"role": role, "content": [text(content)]} for role, content in turns]
    assert words.apply_chat_template(strings, tokenize=False) == words.apply_chat_template(parts, tokenize=False)


@pytest.mark.parametrize("name", templates.names())
def test_an_unknown_role_is_refused(name: str) -> None:
    words = tiny.tokenizer()
    words.chat_template = templates.load(name)
    with pytest.raises(Exception, match="robot"):
        words.apply_chat_template(
            [{"role": "user", "content": "a"}, {"role": "robot", "content": "b"}], tokenize=False
        )


def test_the_evaluation_prompt_is_the_authors() -> None:
    words = tiny.tokenizer()
    asked = [{"role": "user", "content": "What?"}]
    prompt = words.apply_chat_template(
        asked, chat_template=templates.load("v0_eval"), tokenize=False, add_generation_prompt=True
    )
    assert hashlib.sha256(prompt.removeprefix("<s>").encode()).hexdigest() == EVAL_HASH


def test_a_misspelt_name_is_answered_with_the_right_one() -> None:
    with pytest.raises(ParameterError, match="did you mean 'llava_llama_2'"):
        templates.load("llava_lama2")


def test_the_hash_tells_templates_apart() -> None:
    assert len({templates.template_hash(name) for name in templates.names()}) == len(templates.names())


def test_an_answer_without_tokens_is_refused_by_row(
    processor: LlavaProcessor,
) -> None:
    empty = {"id": "r7", "images": [], "messages": [{"role": "user", "content": [text("A star?")]}]}
    with pytest.raises(DataError, match="'r7': no token is trained"):
        training.labels(processor, [empty], "v1")


def test_images_and_placeholders_must_agree(processor: LlavaProcessor, small: SimpleNamespace) -> None:  # noqa: F811
    lacking = row("two images", small.images) | {"images": small.images[:1]}
    with pytest.raises(DataError, match="'two images': 2 image parts in the messages but 1 images"):
        training.labels(processor, [lacking], "v1")


def test_the_picture_of_the_labels_shows_them(processor: LlavaProcessor, small: SimpleNamespace) -> None:  # noqa: F811
    page = training.render(processor, row("two turns", small.images), "v1")
    assert re.findall(r"<mark[^>]*>(.*?)</mark>", page) == [" Red.&lt;/s&gt;", " Yes, there is.&lt;/s&gt;"]
    assert "&lt;image&gt; ×9" in page
    assert page.count("&lt;image&gt;") == 1
