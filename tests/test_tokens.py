"""Tokenizers mended by what their files hold: empty special tokens, no padding, a wrong conversion."""

import io
import json
from pathlib import Path

import httpx
import pytest
import tiny
from huggingface_hub import errors as hub_errors
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from sbt import models
from sbt.models import tokenizer
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
    words = tiny.tokenizer()
    words.pad_token = "<unk>"
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
    trainer = pytest.importorskip("sentencepiece", reason="the extra `released`").SentencePieceTrainer
    text, model = ["thermal tasks of a red star, the def of f: return x"] * 50, io.BytesIO()
    trainer.train(sentence_iterator=iter(text), model_writer=model, vocab_size=300, model_type="bpe",
                  byte_fallback=True, minloglevel=2, **options)  # fmt: skip
    folder.mkdir()
    (folder / "tokenizer.model").write_bytes(model.getvalue())
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer"}')
    (folder / "config.json").write_text(json.dumps(LLAMA))
    return folder


PLAIN = {"normalization_rule_name": "identity", "remove_extra_whitespaces": False}


def test_a_right_conversion_is_left_alone(tmp_path: Path) -> None:
    _, notes = tokenizer.load_tokenizer(str(sentencepiece(tmp_path / "a", **PLAIN)))
    assert [note for note in notes if "padding" not in note] == []


def test_a_normalizer_that_was_left_out_is_put_back(tmp_path: Path) -> None:
    """transformers drops it for Llamas: two spaces would be two tokens the base never saw."""
    folder = sentencepiece(tmp_path / "a")
    found, notes = tokenizer.load_tokenizer(str(folder))
    assert notes[0] == "converted anew from tokenizer.model: the one that was there splits 'a  b' differently"
    assert found.encode("a  b", add_special_tokens=False) == found.encode("a b", add_special_tokens=False)
    again, notes = tokenizer.load_tokenizer(str(folder_of(tmp_path / "saved", found)))
    assert notes == [] and again.encode("a  b\nc") == found.encode("a  b\nc"), "an arm's folder keeps it"


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
    assert words in str(found.value) and "sentencepiece" not in str(found.value)
