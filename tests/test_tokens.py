"""Tokenizers mended by what their files hold: empty special tokens, no padding, a wrong conversion."""

import io
import json
import random
import re
import shutil
from pathlib import Path

import httpx
import pytest
import tiny
from huggingface_hub import errors as hub_errors
from real_files import real_data
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from sbt import models, templates, training
from sbt.data.conversations import parts
from sbt.inference import tokens
from sbt.models import tokenizer
from sbt.models.image_markers import image_text
from sbt.training.collator import Collator
from sbt.training.preference import Pairs
from sbt.utils import paths
from sbt.utils.errors import CheckpointError

LLAMA = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}


def folder_of(folder: Path, words: PreTrainedTokenizerFast, **config: object) -> Path:
    """A tokenizer's folder whose tokenizer_config.json says `config` besides."""
    words.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(LLAMA))
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | config))
    return folder


def test_a_whole_tokenizer_is_left_as_it_is(tmp_path: Path) -> None:
    words = tiny.tokenizer(pad="<unk>")
    found, notes = tokenizer.load_tokenizer(str(folder_of(tmp_path, words)))
    assert notes == [] and found.get_vocab() == words.get_vocab()


def test_padding_is_the_unknown_token_as_in_llava(tmp_path: Path) -> None:
    found, notes = tokenizer.load_tokenizer(str(folder_of(tmp_path, tiny.tokenizer())))
    assert found.pad_token == "<unk>" and notes == [
        "padding: <unk> (0), the unknown token, as in LLaVA; the files name none"
    ]


@pytest.mark.parametrize(
    ("reserved", "expected"), [(["<|reserved_special_token_0|>"], "which is in no text"), ([], "the end token")]
)
def test_without_an_unknown_token_a_reserved_one_pads(tmp_path: Path, reserved: list, expected: str) -> None:
    """LLaMA 3, whose missing unknown token stops the authors' code."""
    words = tiny.tokenizer()
    words.add_special_tokens({"additional_special_tokens": reserved})
    words = PreTrainedTokenizerFast(tokenizer_object=words.backend_tokenizer, bos_token="<s>", eos_token="</s>")
    found, notes = tokenizer.load_tokenizer(str(folder_of(tmp_path, words)))
    assert found.unk_token is None and expected in notes[0]
    assert found.pad_token == (reserved[0] if reserved else "</s>")
    again, none = tokenizer.load_tokenizer(str(folder_of(tmp_path / "saved", found)))
    assert again.pad_token == found.pad_token and none == [], "an arm's folder keeps it"


@pytest.mark.parametrize("empty", ["", {"content": "", "__type": "AddedToken"}])
def test_empty_special_tokens_get_their_names(tmp_path: Path, empty: object) -> None:
    """Early conversions of LLaMA, OpenAlpaca's base among them: bos 1 and eos 2."""
    folder = folder_of(tmp_path, tiny.tokenizer(), bos_token=empty, eos_token=empty, unk_token="<unk>")
    found, notes = tokenizer.load_tokenizer(str(folder))
    assert (found.bos_token_id, found.eos_token_id, found.unk_token_id) == (1, 2, 0)
    assert notes[:2] == [f"{name}; tokenizer_config.json leaves it empty" for name in
                         ("bos_token: <s>", "eos_token: </s>")]  # fmt: skip


def test_the_model_begins_and_ends_with_the_tokenizers_tokens(tmp_path: Path) -> None:
    shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    words = tiny.tokenizer()
    config = LlamaConfig(**shape, vocab_size=len(words), bos_token_id=0, eos_token_id=1)
    with models.silence_libraries():
        LlamaForCausalLM(config).save_pretrained(tmp_path)
        words.save_pretrained(tmp_path)
    model, words = models.load_language_model(tmp_path)
    assert (model.config.bos_token_id, model.config.eos_token_id) == (1, 2)
    assert (model.generation_config.bos_token_id, model.generation_config.eos_token_id) == (1, 2)
    assert tokenizer.agree(model, words) == []
    model.config.eos_token_id = 7
    assert tokenizer.agree(model, words) == ["eos_token_id: 7 in config.json, 2 by the tokenizer, which is taken"]
    model.generation_config.eos_token_id = [2, 9]  # LLaMA 3 stops at several
    assert tokenizer.agree(model, words) == [] and model.generation_config.eos_token_id == [2, 9]


def test_rows_that_a_padded_vocabulary_has_are_used(tmp_path: Path) -> None:
    words = tiny.tokenizer()
    shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(**shape, vocab_size=len(words) + 5))
    rows, first = model.get_input_embeddings().weight, len(words)
    wanted = rows[:first].mean(dim=0).detach().clone()
    tokenizer.add_tokens(model, words, "<image>", "<im_start>")
    rows = model.get_input_embeddings().weight
    assert len(rows) == first + 5 and words.convert_tokens_to_ids("<im_start>") == first + 1
    assert (rows[first : first + 2] - wanted).abs().max() < 1e-6 < (rows[first + 2] - wanted).abs().max()


def test_a_tokenizer_that_cannot_be_read_is_one_clear_error(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, tiny.tokenizer())
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(CheckpointError, match="the tokenizer cannot be loaded"):
        tokenizer.load_tokenizer(str(folder))


# --- beside the SentencePiece model it was converted from ------------------------------------------------------------


def sentencepiece(folder: Path, **options: object) -> Path:
    """A folder like OpenLLaMA's: a small SentencePiece model, and a config that names the class."""
    text, model = ["thermal tasks of a red star, the def of f: return x"] * 50, io.BytesIO()
    SentencePieceTrainer.train(sentence_iterator=iter(text), model_writer=model, vocab_size=300, model_type="bpe",
                  byte_fallback=True, minloglevel=2, **options)  # fmt: skip
    folder.mkdir()
    (folder / "tokenizer.model").write_bytes(model.getvalue())
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer"}')
    (folder / "config.json").write_text(json.dumps(LLAMA))
    return folder


PLAIN = {"normalization_rule_name": "identity", "remove_extra_whitespaces": False}


def pieces_of(folder: Path) -> SentencePieceProcessor:
    model = SentencePieceProcessor()
    model.Load(str(folder / "tokenizer.model"))
    return model


def by_chunks(model: SentencePieceProcessor, words: PreTrainedTokenizerFast, text: str) -> list[int]:
    """What the authors' tokenizer makes of a text: SentencePiece on each chunk between special tokens."""
    added = {token.content for token in words.added_tokens_decoder.values()}
    chunks = re.split(f"({'|'.join(map(re.escape, added))})", text)
    ids = [[words.convert_tokens_to_ids(chunk)] if chunk in added else model.encode(chunk) for chunk in chunks]
    return [number for own in ids for number in own]


@pytest.mark.parametrize("options", [PLAIN, {}])
def test_a_model_alone_gives_sentencepieces_tokens(tmp_path: Path, options: dict) -> None:
    """With {}, a normalizer that transformers drops for Llamas: two spaces would be two tokens the base never saw."""
    folder = sentencepiece(tmp_path / "a", **options)
    found, notes = tokenizer.load_tokenizer(str(folder))
    assert notes[0].startswith("made from tokenizer.model: the tokenizer beside it splits ")
    text = "<s>return  the red\nstar</s>thermal tasks: x"
    assert found.encode(text, add_special_tokens=False) == by_chunks(pieces_of(folder), found, text)
    again, notes = tokenizer.load_tokenizer(str(folder_of(tmp_path / "saved", found)))
    assert notes == [] and again.encode(text) == found.encode(text), "an arm's folder keeps it"


def test_a_stale_conversion_beside_it_is_not_used(tmp_path: Path) -> None:
    """OpenLLaMA's: some words came apart."""
    folder = sentencepiece(tmp_path / "a", **PLAIN)
    right, _ = tokenizer.load_tokenizer(str(folder))
    core = json.loads(right.backend_tokenizer.to_str())
    core["model"]["merges"] = core["model"]["merges"][:5]
    (folder / "tokenizer.json").write_text(json.dumps(core))
    found, notes = tokenizer.load_tokenizer(str(folder))
    assert notes[0].endswith("splits 'thermal' differently")
    assert found.encode("thermal") == right.encode("thermal")


def test_without_the_model_a_space_is_put_before_every_chunk(tmp_path: Path) -> None:
    folder = sentencepiece(tmp_path / "a", **PLAIN)
    right, _ = tokenizer.load_tokenizer(str(folder))
    with models.silence_libraries():
        AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path / "b")
    found, notes = tokenizer.load_tokenizer(str(tmp_path / "b"))
    assert notes[0] == "a space before every chunk, as SentencePiece"
    text = "thermal tasks</s>thermal <s> tasks"
    assert found.encode(text, add_special_tokens=False) == right.encode(text, add_special_tokens=False)


def test_added_tokens_keep_their_ids_or_are_refused(tmp_path: Path) -> None:
    folder = sentencepiece(tmp_path / "a", **PLAIN)
    (folder / "added_tokens.json").write_text('{"<im_patch>": 300, "<im_start>": 301}')
    found, _ = tokenizer.load_tokenizer(str(folder))
    assert found.convert_tokens_to_ids(["<im_patch>", "<im_start>"]) == [300, 301]
    old = found.added_tokens_decoder
    assert {number for number, token in old.items() if token.content.startswith("<im")} == {300, 301}
    core = tokenizer.Tokenizer(tokenizer.token_models.BPE({"a": 0}, []))
    with pytest.raises(CheckpointError, match="'<unk>' has id 0, but .* leaves it 1"):
        tokenizer.rebuilt(core, found)


def test_the_byte_level_tokenizer_of_the_embedded_study_stays_as_it_is() -> None:
    name = str(paths.resolve("assets/llm"))
    with models.silence_libraries():
        kept = AutoTokenizer.from_pretrained(name).backend_tokenizer.to_str()
    assert tokenizer.load_tokenizer(name)[0].backend_tokenizer.to_str() == kept


# --- Llama's own vocabulary ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as lmsys/vicuna-7b-v1.3: `tokenizer.model` with Llama's vocabulary, and no tokenizer.json."""
    data = real_data()
    if data is None or not (data / "llama_tokenizer" / "tokenizer.model").is_file():
        pytest.skip("no llama_tokenizer/tokenizer.model: set SBT_DATA to the folder of real data")
    folder = tmp_path_factory.mktemp("llama")
    for name in ("tokenizer.model", "expected_ids.json"):
        shutil.copy(data / "llama_tokenizer" / name, folder / name)
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer", "legacy": false}')
    (folder / "config.json").write_text(json.dumps(LLAMA))
    return folder


def test_a_pairs_tokens_on_llamas_vocabulary_are_those_of_training_and_generation(llama: Path) -> None:
    """TRL's own collator tokenises prompt and answer apart: a blank token, 29871, then stands before every answer."""
    words, _ = tokenizer.load_tokenizer(str(llama))
    collator, answers = Collator(words, "v1"), {"chosen": "A red box.", "rejected": "No, it is not."}
    pair = {"id": "1", "image": "", "question": "Is it red?", **answers}
    batch = Pairs(collator, [pair])([{"pair": 0}])
    asked = [{"role": "user", "content": parts(pair["question"])}]
    prompt = words.apply_chat_template(asked, chat_template=templates.load("v1"), tokenize=False,
                                       add_generation_prompt=True)  # fmt: skip
    begins = words.encode(prompt, add_special_tokens=False)
    for ids, mask, answer in zip(batch["input_ids"], batch["completion_mask"].bool(), answers.values(), strict=True):
        messages = [*asked, {"role": "assistant", "content": parts(answer)}]
        [trained] = collator([{"id": "1", "images": None, "messages": messages}])["input_ids"].tolist()
        assert ids[: len(trained)].tolist() == trained and trained[: len(begins)] == begins
        assert ids[mask].tolist() == trained[len(begins) :] and 29871 not in ids[mask]
        assert words.decode(ids[mask]).strip() == f"{answer}</s>"


def test_llamas_tokens_are_those_of_sentencepiece(llama: Path) -> None:
    words, _ = tokenizer.load_tokenizer(str(llama))
    expected = json.loads((llama / "expected_ids.json").read_text())
    for case in expected["texts"]:
        assert words.encode(case["text"], add_special_tokens=False) == case["ids"], case["text"]
    for case in expected["chats"]:
        assert words.encode("".join(case["chunks"]), add_special_tokens=False) == case["ids"], case["chunks"]
    model, draw = pieces_of(llama), random.Random(0)
    parts = [" ", "   ", "\n", "\t", "a", "The", "ing", " of", "é", "漢", "😀", "<0x0A>", "▁", "\u00a0", "</", "ſ"]
    for text in ("".join(draw.choices(parts, k=draw.randint(1, 25))) for _ in range(2000)):
        assert words.encode(text, add_special_tokens=False) == model.encode(text), repr(text)


MESSAGES = [
    {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "\nWhat  colour?"}]},
    {"role": "assistant", "content": [{"type": "text", "text": "Red."}]},
    {"role": "user", "content": [{"type": "text", "text": "A star?"}]},
    {"role": "assistant", "content": [{"type": "text", "text": "Yes, there is."}]},
]


@pytest.mark.parametrize("markers", [False, True])
@pytest.mark.parametrize("conversation", templates.names())
def test_every_template_has_the_authors_tokens_in_training_scoring_and_generation(
    conversation: str, markers: bool, llama: Path
) -> None:
    words, _ = tokenizer.load_tokenizer(str(llama))
    added = [tokenizer.IMAGE_TOKEN, *(tokenizer.MARKERS if markers else ())]
    words.add_special_tokens({"additional_special_tokens": added}, replace_extra_special_tokens=False)
    model, template = pieces_of(llama), templates.load(conversation)
    text = words.apply_chat_template(MESSAGES, chat_template=template, tokenize=False)
    text = text.replace(tokenizer.IMAGE_TOKEN, image_text(words, 1))
    wanted = by_chunks(model, words, text)
    assert words.encode(text, add_special_tokens=False) == wanted
    assert markers == ("<im_start>" in words.convert_ids_to_tokens(wanted))

    ids, labels = training.labels(words, [{"id": "a", "messages": MESSAGES[2:]}], conversation)[0]
    shown = words.apply_chat_template(MESSAGES[2:], chat_template=template, tokenize=False)
    assert ids == by_chunks(model, words, shown)
    trained = [number for number, label in zip(ids, labels, strict=True) if label != -100]
    assert trained[: len(model.encode("Yes, there"))] == model.encode("Yes, there")

    asked = words.apply_chat_template(MESSAGES[2:3], chat_template=template, tokenize=False,
                                      add_generation_prompt=True)  # fmt: skip
    request = {"id": "a", "context": asked, "continuations": [" Yes"]}
    [[row]] = tokens.encode(words, [request])
    assert [*row.context, *row.continuation] == by_chunks(model, words, asked + " Yes")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            hub_errors.GatedRepoError,
            "terms at https://huggingface.co/meta-llama/Llama-2-7b-hf, then set HF_TOKEN",
        ),
        (hub_errors.RepositoryNotFoundError, "Look at https://huggingface.co/meta-llama/Llama-2-7b-hf"),
    ],
)
def test_a_refused_tokenizer_says_where_to_ask(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception], words: str
) -> None:
    def refuse(name: str, **given: object) -> None:
        response = httpx.Response(403, request=httpx.Request("GET", "https://huggingface.co"))
        try:
            raise error("403 Client Error. Cannot access it", response=response)
        except error as refused:
            raise OSError("You are trying to access a repo.\nAsk for it.") from refused

    monkeypatch.setattr(tokenizer, "_empty_specials", lambda name: ({}, []))
    monkeypatch.setattr(tokenizer.AutoTokenizer, "from_pretrained", refuse)
    with pytest.raises(CheckpointError) as found:
        tokenizer.load_tokenizer("meta-llama/Llama-2-7b-hf")
    assert words in str(found.value)
