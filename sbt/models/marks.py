"""`<im_start>` and `<im_end>`, which the authors' models have around an image: in tokenizers, prompts and models.

The vocabulary decides: a tokenizer that has both uses them, another one does without.
"""

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import (
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from sbt import paths
from sbt.errors import CheckpointError
from sbt.models.assemble import IMAGE_TOKEN, read_safetensors
from sbt.models.quiet import quiet

PATCH, START, END = "<im_patch>", "<im_start>", "<im_end>"
ADDED = (PATCH, START, END)  # in this order after the base's own tokens (SBT:llava/model/llava_arch.py:201-206)
MARKS_FILE = "marks.safetensors"
_ORDINARY = (("unk_token", "<unk>"), ("bos_token", "<s>"), ("eos_token", "</s>"))


def image_text(tokenizer: PreTrainedTokenizerBase, count: int) -> str:
    """What stands in a prompt for one image of `count` features: `<image>` as often, between the marks if there are.

    Source: SBT:llava/train/train.py:307-318.
    """
    known = tokenizer.get_vocab()
    before, after = (START, END) if START in known and END in known else ("", "")
    return before + IMAGE_TOKEN * count + after


def with_marks(tokenizer: PreTrainedTokenizerBase, rows: int, *, strip: bool = False) -> PreTrainedTokenizerFast:
    """A copy in which the last three of `rows` ids are `<image>`, `<im_start>` and `<im_end>`.

    `<image>` takes the id of `<im_patch>`, which no prompt of the authors' uses. Tokens the tokenizer lacks are added.
    `strip` makes the marks swallow the spaces and line ends beside them, as the authors' tokenizer did. A word that
    follows a special token begins with a space, as in their tokenizer. CheckpointError where other ids have the names.
    """
    found = {token: tokenizer.get_vocab().get(token) for token in ADDED}
    wanted = {token: rows - len(ADDED) + place for place, token in enumerate(ADDED)}
    size = len(tokenizer) if any(found.values()) else len(tokenizer) + len(ADDED)
    if IMAGE_TOKEN in tokenizer.get_vocab() or size != rows or (any(found.values()) and found != wanted):
        raise CheckpointError(
            f"the tokenizer has {len(tokenizer)} tokens, of them {found}, but the weights have {rows} rows, the last "
            f"three for {', '.join(ADDED)}. Use the tokenizer of the model that was tuned, or of its base"
        )
    core = json.loads(tokenizer.backend_tokenizer.to_str())
    for token, number in wanted.items():
        entry = next((entry for entry in core["added_tokens"] if entry["content"] == token), None)
        if entry is None:
            entry = {"id": number, "single_word": False, "lstrip": False, "rstrip": False}
            core["added_tokens"].append(entry)
        core["model"]["vocab"].pop(token, None)
        entry |= {"content": IMAGE_TOKEN if token == PATCH else token, "special": True, "normalized": False}
        if strip and token != PATCH:
            entry |= {"lstrip": True, "rstrip": True}
    _space_first(core)
    special = {name: getattr(tokenizer, name) or token for name, token in _ORDINARY}
    special["pad_token"] = tokenizer.pad_token or special["unk_token"]
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(core)), **special)


def put_marks(model: LlavaForConditionalGeneration, processor: LlavaProcessor, folder: Path) -> None:
    """Give both the marks whose input rows `marks.safetensors` in an arm's folder holds, unless they have them.

    Output rows are the mean of the others, where stage 1 had left them (SBT:llava/model/llava_arch.py:209-220).
    """
    tokenizer, file = processor.tokenizer, folder / MARKS_FILE
    if START in tokenizer.get_vocab():
        return
    rows = read_safetensors(file)
    width = model.get_input_embeddings().embedding_dim
    if {name: tuple(row.shape) for name, row in rows.items()} != {START: (width,), END: (width,)}:
        raise CheckpointError(f"{paths.shown(file)}: must hold {START} and {END}, each {width} wide. Convert it again")
    old = model.get_input_embeddings().num_embeddings
    tokenizer.add_special_tokens({"additional_special_tokens": [START, END]}, replace_extra_special_tokens=False)
    if len(tokenizer) != old + 2:
        raise CheckpointError(f"{paths.shown(file)}: the tokenizer has {len(tokenizer) - 2} tokens, the model {old}")
    with quiet(), torch.no_grad():
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        inputs, outputs = model.get_input_embeddings().weight, model.get_output_embeddings().weight
        inputs[old:] = torch.stack([rows[START], rows[END]]).to(inputs)
        if outputs is not inputs:
            outputs[old:] = outputs[:old].mean(dim=0)


def _space_first(core: dict) -> None:
    # transformers 5 gives a Llama tokenizer a scheme in which the word after <s> has no space before it
    before = core.get("pre_tokenizer") or {}
    for step in (before, *before.get("pretokenizers", ())):
        if step.get("type") == "Metaspace" and step.get("prepend_scheme") == "first":
            step["prepend_scheme"] = "always"
