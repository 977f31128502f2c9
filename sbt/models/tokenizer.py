"""Tokenizers as the bases' files have them, with what is wrong or missing there mended and said; added tokens.

tokenizer, notes = load_tokenizer("openlm-research/open_llama_3b_v2")  # notes: what was mended and why
What to mend is decided by what the files hold, never by a model's name.
"""

import importlib.util
import json
import tempfile
from pathlib import Path

import torch
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError
from tokenizers import Regex, Tokenizer, normalizers
from transformers import (
    AutoTokenizer,
    LlamaForCausalLM,
    LlamaTokenizer,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.models.auto.tokenization_auto import get_tokenizer_config
from transformers.utils import cached_file

from sbt.data.registry import HUB_URL
from sbt.models.silence import silence_libraries
from sbt.utils.errors import CheckpointError

IMAGE_TOKEN = "<image>"
PATCH, START, END = "<im_patch>", "<im_start>", "<im_end>"
MARKERS = (START, END)
SENTENCEPIECE = "tokenizer.model"
EXTRA = "pip install sentencepiece protobuf"
_ORDINARY = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
# Tokens that stand in no text, so that padding with one hides nothing: LLaMA 3 reserves many.
_UNUSED = ("<pad>", "<|finetune_right_pad_id|>", "<|reserved_special_token_0|>")
# The first is the word by which OpenLLaMA's authors showed the wrong conversion (transformers issue 24233).
_PROBES = (
    "thermal",
    "tasks",
    "a  b",
    "def f(x):\n    return x",
    "It's 12,345 – naïve 漢字!",
    "USER: What? ASSISTANT:",
)


def load_tokenizer(name: str) -> tuple[PreTrainedTokenizerBase, list[str]]:
    """The tokenizer of a folder or hub id, and in words what had to be mended.

    - special tokens that the files leave empty: those of Llama (OpenAlpaca's bos 1 and eos 2);
    - a conversion that splits words otherwise than the SentencePiece model beside it (OpenLLaMA): converted anew;
    - no padding token: the unknown token, as in LLaVA (SBT:llava/train/train.py:853), else a reserved one (LLaMA 3 has
      no unknown token), else the end token.
    CheckpointError where it cannot be loaded or its SentencePiece model disagrees all the same.
    """
    given, notes = _empty_specials(name)
    with silence_libraries():
        try:
            tokenizer = AutoTokenizer.from_pretrained(name, **given)
        except Exception as error:  # a damaged tokenizer file raises whatever its parser raises
            raise CheckpointError(
                f"{name}: the tokenizer cannot be loaded ({_first_line(error)}){_remedy(name, error)}"
            ) from error
    tokenizer, more = _as_sentencepiece(name, tokenizer)
    notes += more
    if tokenizer.pad_token is None:
        tokenizer.pad_token, why = _padding(tokenizer)
        notes.append(f"padding: {tokenizer.pad_token} ({tokenizer.pad_token_id}), {why}; the files name none")
    return tokenizer, notes


def agree(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Give the model the tokenizer's ids of begin and end; in words, those that its config.json had otherwise."""
    notes = []
    for role in ("bos_token_id", "eos_token_id"):
        wanted = getattr(tokenizer, role)
        for config in (model.config, model.generation_config):
            found = getattr(config, role, None)
            if wanted is None or found == wanted or (isinstance(found, list) and wanted in found):
                continue
            if found is not None and config is model.config:
                notes.append(f"{role}: {found} in config.json, {wanted} by the tokenizer, which is taken")
            setattr(config, role, wanted)
    return notes


def add_tokens(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, *tokens: str) -> None:
    """Give both the tokens that the vocabulary lacks, their rows the mean of the others.

    So the authors start the rows of their marks (SBT:llava/model/llava_arch.py:209-220).
    """
    new = [token for token in tokens if token not in tokenizer.get_vocab()]
    if not new:
        return
    first = len(tokenizer)
    tokenizer.add_special_tokens({"additional_special_tokens": new}, replace_extra_special_tokens=False)
    rows = model.get_input_embeddings().num_embeddings
    if len(tokenizer) > rows:
        with silence_libraries():
            model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    matrices = {
        id(layer.weight): layer.weight for layer in (model.get_input_embeddings(), model.get_output_embeddings())
    }
    with torch.no_grad():
        for weight in matrices.values():  # one where the two are tied
            weight[first : len(tokenizer)] = weight[:first].mean(dim=0)


def _as_sentencepiece(name: str, tokenizer: PreTrainedTokenizerBase) -> tuple[PreTrainedTokenizerBase, list[str]]:
    """The tokenizer if it splits as the SentencePiece model beside it does, else one converted anew from that."""
    file = _sentencepiece_file(name)
    if file is None:
        return tokenizer, []
    if not _has_sentencepiece():
        return tokenizer, [f"not compared with {SENTENCEPIECE}: that takes `{EXTRA}`"]
    from sentencepiece import SentencePieceProcessor

    model = SentencePieceProcessor()
    try:
        model.Load(str(file))
    except (OSError, RuntimeError):
        return tokenizer, []  # LLaMA 3's file of that name is none of SentencePiece
    wrong = _difference(tokenizer, model)
    if wrong is None:
        return tokenizer, []
    anew = _converted(file, tokenizer)
    if (still := _difference(anew, model)) is not None:
        raise CheckpointError(
            f"{name}: tokenizer and {SENTENCEPIECE} split {still!r} differently, and so does a new conversion. "
            "Use another conversion of this model: its base learned other tokens"
        )
    return anew, [f"converted anew from {SENTENCEPIECE}: the one that was there splits {wrong!r} differently"]


def _difference(tokenizer: PreTrainedTokenizerBase, model: object) -> str | None:
    """The first probe that the two split differently."""
    for text in _PROBES:
        if tokenizer.encode(text, add_special_tokens=False) != model.encode(text):
            return text
    return None


def _converted(file: Path, old: PreTrainedTokenizerBase) -> PreTrainedTokenizerFast:
    """The SentencePiece model as a tokenizer, its normalizer included, which transformers leaves out for Llamas."""
    from transformers.convert_slow_tokenizer import import_protobuf

    with silence_libraries(), tempfile.TemporaryDirectory() as alone:  # without a tokenizer.json
        (Path(alone) / SENTENCEPIECE).write_bytes(file.read_bytes())
        core = json.loads(LlamaTokenizer.from_pretrained(alone).backend_tokenizer.to_str())
        proto = import_protobuf().ModelProto()
    proto.ParseFromString(file.read_bytes())
    made = Tokenizer.from_str(json.dumps(core))
    spec = proto.normalizer_spec
    steps = [normalizers.Precompiled(spec.precompiled_charsmap)] if spec.precompiled_charsmap else []
    if spec.remove_extra_whitespaces:
        steps += [normalizers.Replace(Regex(" {2,}"), " "), normalizers.Strip()]
    made.normalizer = normalizers.Sequence(steps)
    special = {name: getattr(old, name) for name in (*_ORDINARY, "pad_token") if getattr(old, name)}
    return PreTrainedTokenizerFast(tokenizer_object=made, padding_side=old.padding_side, **special)


def _sentencepiece_file(name: str) -> Path | None:
    if Path(name).is_dir():
        file = Path(name) / SENTENCEPIECE
        return file if file.is_file() else None
    try:
        with silence_libraries():
            found = cached_file(name, SENTENCEPIECE, _raise_exceptions_for_missing_entries=False)
    except (OSError, ValueError):
        return None
    return Path(found) if found else None


def _empty_specials(name: str) -> tuple[dict[str, str], list[str]]:
    """Names for the special tokens that tokenizer_config.json leaves empty, by which transformers 5 cannot load it."""
    with silence_libraries():
        try:
            config = get_tokenizer_config(name)
        except (OSError, ValueError):
            return {}, []
    given = {}
    for role, token in _ORDINARY.items():
        found = config.get(role)
        if (found.get("content") if isinstance(found, dict) else found) == "":
            given[role] = token
    return given, [f"{role}: {token}; tokenizer_config.json leaves it empty" for role, token in given.items()]


def _padding(tokenizer: PreTrainedTokenizerBase) -> tuple[str, str]:
    if tokenizer.unk_token:
        return tokenizer.unk_token, "the unknown token, as in LLaVA"
    for token in _UNUSED:
        if token in tokenizer.get_vocab():
            return token, "which is in no text"
    return tokenizer.eos_token, "the end token"


def _has_sentencepiece() -> bool:
    return importlib.util.find_spec("sentencepiece") is not None


def _remedy(name: str, error: BaseException | None) -> str:
    """What to do about a tokenizer that cannot be loaded: where to ask for it, or what to install."""
    while error is not None:  # transformers raises its own error from the Hub's
        if isinstance(error, GatedRepoError):
            return f". It is gated: accept its terms at {HUB_URL}/{name}, then set HF_TOKEN"
        if isinstance(error, RepositoryNotFoundError):
            return f". Look at {HUB_URL}/{name}: if it is private, set HF_TOKEN"
        error = error.__cause__ or error.__context__
    return "" if _has_sentencepiece() else f". If it has a {SENTENCEPIECE} only, reading it takes `{EXTRA}`"


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
