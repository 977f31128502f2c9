"""Tokenizers that give the tokens of the authors' code: those of SentencePiece, where a model comes with one.

tokenizer, notes = load_tokenizer("openlm-research/open_llama_3b_v2")  # notes: what was mended and why
What to mend is decided by what the files hold, never by a model's name.
"""

import json
from pathlib import Path

import torch
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError
from sentencepiece import SentencePieceProcessor
from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers
from tokenizers import models as token_models
from transformers import AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerBase, PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import generate_merges, import_protobuf
from transformers.models.auto.tokenization_auto import get_tokenizer_config
from transformers.utils import cached_file

from sbt.data.registry import HUB_URL
from sbt.models.silence import silence_libraries
from sbt.utils import hub
from sbt.utils.errors import CheckpointError, first_line

IMAGE_TOKEN = "<image>"
PATCH, START, END = "<im_patch>", "<im_start>", "<im_end>"
MARKERS = (START, END)
SENTENCEPIECE = "tokenizer.model"
SPACE = "\u2581"  # SentencePiece's visible blank
_ORDINARY = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
# Tokens that stand in no text, so that padding with one hides nothing: LLaMA 3 reserves many.
_UNUSED = ("<pad>", "<|finetune_right_pad_id|>", "<|reserved_special_token_0|>")
_NORMAL, _BPE = 1, 2  # of SentencePiece's types of pieces, and of its models
# The first is the word by which OpenLLaMA's authors showed the wrong conversion (transformers issue 24233).
_PROBES = (
    "thermal",
    "tasks",
    "a  b",
    "x     y" + " " * 19,
    " [INST] hi",
    "\n\n  a",
    "def f(x):\n    return x",
    "It's 12,345 – naïve 漢字!",
    "USER: What? ASSISTANT:",
)


def load_tokenizer(name: str) -> tuple[PreTrainedTokenizerBase, list[str]]:
    """The tokenizer of a folder or hub id, and in words what had to be mended.

    - special tokens that the files leave empty: those of Llama (OpenAlpaca's bos 1 and eos 2);
    - tokens other than SentencePiece's: see `as_sentencepiece`;
    - no padding token: the unknown token, as in LLaVA (SBT:llava/train/train.py:853), else a reserved one (LLaMA 3 has
      no unknown token), else the end token.
    CheckpointError where it cannot be loaded, asks for code of its own, or cannot be made to agree with SentencePiece.
    """
    given, notes = _empty_specials(name)
    with silence_libraries():
        try:
            repo, at = hub.given(name)
            tokenizer = AutoTokenizer.from_pretrained(repo, trust_remote_code=False, **at, **given)
        except Exception as error:  # a damaged tokenizer file raises whatever its parser raises
            raise CheckpointError(
                f"{name}: the tokenizer cannot be loaded ({first_line(error)}){_remedy(name, error)}"
            ) from error
    tokenizer, more = as_sentencepiece(tokenizer, name)
    notes += more
    if tokenizer.pad_token is None:
        tokenizer.pad_token, why = _padding(tokenizer)
        notes.append(f"padding: {tokenizer.pad_token} ({tokenizer.pad_token_id}), {why}; the files name none")
    return tokenizer, notes


def as_sentencepiece(tokenizer: PreTrainedTokenizerBase, name: str) -> tuple[PreTrainedTokenizerBase, list[str]]:
    """The tokenizer of `name` with the tokens of SentencePiece in every chunk between special tokens, and notes.

    The authors' tokenizer (transformers' slow one) hands each of these chunks to SentencePiece, which puts a space
    before it: `<s>[INST]` is `<s>`, `▁[`, ... A Llama of transformers 5 does so at the start of a text only, and
    merges pieces in the order of their ids instead of their scores. Where there is a `tokenizer.model`, the tokenizer
    is made from it; where there is none, the space is put before every chunk. Byte-level ones stay as they are.
    CheckpointError where the new tokenizer and SentencePiece disagree.
    """
    file = _sentencepiece_file(name)
    pieces = SentencePieceProcessor()
    try:
        loaded = file is not None and pieces.Load(str(file))
    except (OSError, RuntimeError):
        loaded = False  # LLaMA 3's file of that name is none of SentencePiece
    if not loaded:
        return _space_before_chunks(tokenizer)
    proto = import_protobuf().ModelProto()
    proto.ParseFromString(file.read_bytes())
    if proto.trainer_spec.model_type != _BPE:
        raise CheckpointError(f"{name}: {SENTENCEPIECE} is no BPE model, which Llamas have. Use another base model")
    made = rebuilt(_core(proto), tokenizer)
    for text in _PROBES:
        if made.encode(text, add_special_tokens=False) != pieces.encode(text):
            raise CheckpointError(
                f"{name}: {SENTENCEPIECE} splits {text!r} otherwise than the tokenizer made from it. Use another "
                "conversion of this model: its base learned other tokens"
            )
    wrong = _first_difference(tokenizer, made)
    return made, [f"made from {SENTENCEPIECE}: the tokenizer beside it splits {wrong!r} differently"] * bool(wrong)


def rebuilt(core: Tokenizer, old: PreTrainedTokenizerBase) -> PreTrainedTokenizerFast:
    """A tokenizer of `core` with the added tokens, special tokens and settings of `old`.

    It has no class of transformers' own, whose `from_pretrained` would replace the core. CheckpointError where an
    added token would have another id.
    """
    for number, token in sorted(old.added_tokens_decoder.items()):
        # normalized: found in the text with the space before it, which would part the space from its word
        sides = {"lstrip": token.lstrip, "rstrip": token.rstrip, "single_word": token.single_word}
        core.add_tokens([AddedToken(token.content, normalized=False, special=token.special, **sides)])
        if core.token_to_id(token.content) != number:
            raise CheckpointError(
                f"the added token {token.content!r} has id {number}, but {SENTENCEPIECE} leaves it "
                f"{core.token_to_id(token.content)}. Use the tokenizer files of one model"
            )
    core.post_processor = old.backend_tokenizer.post_processor
    special = {role: getattr(old, role) for role in (*_ORDINARY, "pad_token") if getattr(old, role)}
    made = PreTrainedTokenizerFast(tokenizer_object=core, padding_side=old.padding_side, **special)
    made.chat_template = old.chat_template
    return made


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


def refuse_code(name: str, config: dict) -> None:
    """CheckpointError where a configuration asks for code of its own to be run, which this package never does."""
    if config.get("auto_map"):
        raise CheckpointError(
            f"{name}: its configuration asks for code of its own (auto_map), which is never run here. Use a model "
            "that transformers knows by itself"
        )


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


def _core(proto: object) -> Tokenizer:
    """A SentencePiece BPE model as a core of `tokenizers`: its pieces, merges by score, normalizer and space."""
    vocab = {piece.piece: number for number, piece in enumerate(proto.pieces)}
    scores = {piece.piece: piece.score for piece in proto.pieces if piece.type == _NORMAL}
    merges = generate_merges(vocab, scores, skip_tokens=set(vocab) - set(scores))
    trainer, spec = proto.trainer_spec, proto.normalizer_spec
    unknown = proto.pieces[trainer.unk_id].piece
    options = {"unk_token": unknown, "fuse_unk": True, "byte_fallback": trainer.byte_fallback}
    core = Tokenizer(token_models.BPE(vocab=vocab, merges=merges, **options))
    steps = [normalizers.Precompiled(spec.precompiled_charsmap)] if spec.precompiled_charsmap else []
    if spec.remove_extra_whitespaces:
        steps += [normalizers.Replace(Regex(" {2,}"), " "), normalizers.Strip()]
    steps += [normalizers.Prepend(SPACE)] if spec.add_dummy_prefix else []
    core.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", SPACE)])
    back = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    core.decoder = decoders.Sequence([*back, decoders.Strip(" ", 1, 0)] if spec.add_dummy_prefix else back)
    return core


def _space_before_chunks(tokenizer: PreTrainedTokenizerBase) -> tuple[PreTrainedTokenizerBase, list[str]]:
    """The tokenizer with a space before every chunk, if it puts one before the text only; else as it is."""
    if not tokenizer.is_fast:
        return tokenizer, []
    core = json.loads(tokenizer.backend_tokenizer.to_str())
    before = core.get("pre_tokenizer") or {}
    if before.get("type") != "Metaspace" or before.get("prepend_scheme") != "first" or before.get("split", True):
        return tokenizer, []
    steps = [core["normalizer"]] if core.get("normalizer") else []
    steps += [{"type": "Prepend", "prepend": SPACE}]
    steps += [{"type": "Replace", "pattern": {"String": " "}, "content": SPACE}]
    core |= {"pre_tokenizer": None, "added_tokens": [], "normalizer": {"type": "Sequence", "normalizers": steps}}
    return rebuilt(Tokenizer.from_str(json.dumps(core)), tokenizer), ["a space before every chunk, as SentencePiece"]


def _first_difference(old: PreTrainedTokenizerBase, new: PreTrainedTokenizerBase) -> str | None:
    """The first probe, alone or after the begin token, that the two split differently."""
    for text in [begin + text for begin in ("", new.bos_token or "") for text in _PROBES]:
        if old.encode(text, add_special_tokens=False) != new.encode(text, add_special_tokens=False):
            return text
    return None


def _sentencepiece_file(name: str) -> Path | None:
    if Path(name).is_dir():
        file = Path(name) / SENTENCEPIECE
        return file if file.is_file() else None
    try:
        with silence_libraries():
            repo, at = hub.given(name)
            found = cached_file(repo, SENTENCEPIECE, _raise_exceptions_for_missing_entries=False, **at)
    except (OSError, ValueError):
        return None
    return Path(found) if found else None


def _empty_specials(name: str) -> tuple[dict[str, str], list[str]]:
    """Names for the special tokens that tokenizer_config.json leaves empty: transformers 5 fails on them."""
    with silence_libraries():
        try:
            repo, at = hub.given(name)
            config = get_tokenizer_config(repo, **at)
        except (OSError, ValueError):
            return {}, []
    if not isinstance(config, dict):
        raise CheckpointError(f"{name}: tokenizer_config.json must hold an object. Restore the file")
    refuse_code(name, config)
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


def _remedy(name: str, error: BaseException | None) -> str:
    """What to do about a tokenizer that cannot be loaded, where that is known."""
    while error is not None:  # transformers raises its own error from the Hub's
        if isinstance(error, GatedRepoError):
            return f". It is gated: accept its terms at {HUB_URL}/{name}, then set HF_TOKEN"
        if isinstance(error, RepositoryNotFoundError):
            return f". Look at {HUB_URL}/{name}: if it is private, set HF_TOKEN"
        error = error.__cause__ or error.__context__
    return ""
