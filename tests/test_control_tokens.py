"""Control tokens inside a row's words are plain text; the template's own stay what they are."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny
from real_files import real_data
from tiny_fixtures import small  # noqa: F401 - a fixture
from transformers import PreTrainedTokenizerBase

from sbt.data.conversations import text_twin
from sbt.models import assemble, load_language_model
from sbt.models.tokenizer import load_tokenizer
from sbt.training import Collator, labels
from sbt.training.collator import ControlTokens
from sbt.training.inspect import counter
from sbt.utils import paths
from sbt.utils.errors import DataError

DATA = real_data()
WORDS = ["</s>", "<s>", "<unk>", "<pad>", "<im_start>", "<im_end>", "<image>"]
CONVERSATIONS = ("v0", "v1", "llama_2", "llava_llama_2")


def row(asked: str, answer: str) -> dict:
    messages = [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
    return {"id": "a", "images": [], "messages": messages}


@pytest.fixture(scope="module")
def tokenizers(small: SimpleNamespace) -> dict[str, PreTrainedTokenizerBase]:  # noqa: F811
    found = {
        "byte-level": assemble(small.llm, small.clip, image_markers=True)[1].tokenizer,
        "embedded": load_language_model("assets/llm")[1],
    }
    if DATA:
        found["Llama"], _ = load_tokenizer(str(DATA / "llama_tokenizer"))
        found["Llama"].add_special_tokens({"additional_special_tokens": ["<image>", "<im_start>", "<im_end>"]})
    return found


@pytest.fixture(params=["byte-level", "embedded", "Llama"])
def tokenizer(tokenizers: dict, request: pytest.FixtureRequest) -> PreTrainedTokenizerBase:
    if request.param not in tokenizers:
        pytest.skip("needs the published tokenizer (SBT_DATA)")
    return tokenizers[request.param]


@pytest.mark.parametrize("conversation", CONVERSATIONS)
@pytest.mark.parametrize("word", WORDS)
def test_words_never_become_control_tokens(tokenizer: PreTrainedTokenizerBase, conversation: str, word: str) -> None:
    """As many control tokens as with a harmless word; the answer's end is trained once, at its end."""
    plain, _ = labels(tokenizer, [row("I write X here.", "I say X too.")], conversation)[0]
    ids, targets = labels(tokenizer, [row(f"I write {word} here.", f"I say {word} too.")], conversation)[0]
    control = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
    assert [one for one in ids if one in control] == [one for one in plain if one in control]
    trained = [one for one in targets if one != -100]
    assert word in tokenizer.decode(trained), "the words are still there, letter by letter"
    assert tokenizer.eos_token_id not in trained[:-1]
    assert counter(tokenizer, conversation)([row(f"I write {word} here.", f"I say {word} too.")]) == [len(ids)]


def test_the_copy_reads_a_conversation_as_the_tokenizer_does(tokenizer: PreTrainedTokenizerBase) -> None:
    """The control: with a harmless text both tokenizers agree, ids and offsets."""
    control = ControlTokens(tokenizer)
    text = f"{tokenizer.bos_token or ''}A chat. USER: What is a  star?\nASSISTANT: It's red.</s>USER: And? "
    ids, offsets = control.encode(text)
    copy = control._renamed().encode(
        control.control.sub(lambda found: control._swap(found[0]), text), add_special_tokens=False
    )
    assert (copy.ids, copy.offsets) == (ids, offsets)


def test_a_row_without_control_tokens_is_left_as_it_is(tokenizer: PreTrainedTokenizerBase) -> None:
    control, plain = ControlTokens(tokenizer), row("What is <b>this</b>?", "USER: [INST] text.")
    assert control.hide(plain) is plain
    with pytest.raises(DataError, match=r"row 'a': a text holds a character of U\+FDD2"):
        control.hide(row("\ufdd2", "</s>"))


@pytest.mark.parametrize("word", ["</s>", "<s>", "<im_start>", "<unk>"])
def test_instruction_loss_and_images_bear_them_too(small: SimpleNamespace, word: str) -> None:  # noqa: F811
    _, processor = assemble(small.llm, small.clip, image_markers=True)
    asked = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": f"\nRead {word} aloud."}]}
    rows = [{"id": "a", "images": small.images[:1], "messages": [asked, {"role": "assistant", "content": "Yes."}]}]
    collate = Collator(processor, "v1", {"on": "instruction"})
    batch = collate(rows)
    ids, trained = batch["input_ids"][0], batch["labels"][0] != -100
    assert word in processor.tokenizer.decode(ids[trained])
    tokens = processor.tokenizer.convert_ids_to_tokens(ids.tolist())
    assert tokens.count("<im_start>") == tokens.count("<im_end>") == 1
    assert tokens.count("</s>") == 1


def test_rows_of_the_study_hold_none(small: SimpleNamespace) -> None:  # noqa: F811
    control = ControlTokens(load_language_model("assets/llm")[1])
    rows = text_twin(tiny.rows(small.images))
    assert all(control.hide(one) is one for one in rows)
    assert Path(paths.assets() / "llm").is_dir()
