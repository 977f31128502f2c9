"""`<im_start>` and `<im_end>`, which the authors' models have around an image: in tokenizers, prompts and models.

The vocabulary decides: a tokenizer that has both uses them, another one does without. In stage 1 their two rows of the
embedding train and no other one.
"""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import nn
from transformers import (
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from sbt.models.llava import read_safetensors
from sbt.models.tokenizer import END, IMAGE_TOKEN, MARKERS, PATCH, START, add_tokens
from sbt.utils import paths
from sbt.utils.errors import CheckpointError, ParameterError

ADDED = (PATCH, START, END)  # in this order after the base's own tokens (SBT:llava/model/llava_arch.py:201-206)
MARKERS_FILE = "image_markers.safetensors"
_ORDINARY = (("unk_token", "<unk>"), ("bos_token", "<s>"), ("eos_token", "</s>"))


def image_text(tokenizer: PreTrainedTokenizerBase, count: int) -> str:
    """What stands in a prompt for one image of `count` features: `<image>` as often, between the markers if there are.

    Source: SBT:llava/train/train.py:307-318.
    """
    ids = tokenizer.convert_tokens_to_ids([START, END])
    before, after = ("", "") if {None, tokenizer.unk_token_id} & {*ids} else (START, END)
    return before + IMAGE_TOKEN * count + after


def with_markers(tokenizer: PreTrainedTokenizerBase, rows: int, *, strip: bool = False) -> PreTrainedTokenizerFast:
    """A copy in which the last three of `rows` ids are `<image>`, `<im_start>` and `<im_end>`.

    `<image>` takes the id of `<im_patch>`, which no prompt of the authors' uses. Tokens the tokenizer lacks are added.
    `strip` makes the markers swallow the spaces and line ends beside them, as the authors' tokenizer did.
    CheckpointError where other ids have the names.
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
    special = {name: getattr(tokenizer, name) or token for name, token in _ORDINARY}
    special["pad_token"] = tokenizer.pad_token or special["unk_token"]
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(core)), **special)


class MarkedEmbedding(nn.Embedding):
    """An embedding whose rows `ids` are the parameter `markers` (rows, width): they train and the others do not.

    The authors train the whole matrix and stop the gradient of the other rows (SBT:llava/model/llava_arch.py:126-128),
    which costs gradients and moments of all of it.
    """

    def __init__(self, embedding: nn.Embedding, ids: list[int]) -> None:
        super().__init__(1, 1, device="meta")
        self.num_embeddings, self.embedding_dim = embedding.num_embeddings, embedding.embedding_dim
        self.padding_idx, self.weight = embedding.padding_idx, embedding.weight
        self.ids, self.markers = list(ids), nn.Parameter(embedding.weight[list(ids)].detach().clone())

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Rows of `input` (any shape of ids), the last dimension being the width."""
        found = super().forward(input)
        for number, row in zip(self.ids, self.markers, strict=True):
            found = torch.where((input == number).unsqueeze(-1), row.to(found.dtype), found)
        return found


def train_markers(model: nn.Module) -> None:
    """Let the two markers' rows train, and no other row of the embedding. ParameterError where there are none."""
    ids = getattr(model.config, "marker_token_ids", None)
    if not ids:
        raise ParameterError(
            f"also: 'image_markers', but the model has no {START} and {END}: set image_markers, or leave it out"
        )
    embedding = model.get_input_embeddings()
    if not isinstance(embedding, MarkedEmbedding):
        embedding = MarkedEmbedding(embedding, ids)
        model.set_input_embeddings(embedding)
    embedding.markers.requires_grad_(True)


def marker_rows(model: nn.Module) -> dict[str, torch.Tensor]:
    """The markers' input rows (float32) by name; {} for a model without markers."""
    ids = getattr(model.config, "marker_token_ids", None)
    if not ids:
        return {}
    embedding = model.get_input_embeddings()
    rows = embedding.markers if isinstance(embedding, MarkedEmbedding) else embedding.weight[ids]
    return {token: row.detach().float().cpu().clone() for token, row in zip(MARKERS, rows, strict=True)}


def save_markers(model: nn.Module, folder: Path) -> None:
    """Write the markers' rows, if the model has any, into the folder of an arm whose other files do not hold them."""
    (folder / MARKERS_FILE).unlink(missing_ok=True)
    if rows := marker_rows(model):
        save_file(rows, folder / MARKERS_FILE)


def put_markers(model: LlavaForConditionalGeneration, processor: LlavaProcessor, folder: Path) -> None:
    """Give both the markers whose input rows an arm's `image_markers.safetensors` holds, unless they have them.

    Output rows are the mean of the others, where stage 1 had left them (SBT:llava/model/llava_arch.py:209-220).
    """
    tokenizer, file = processor.tokenizer, folder / MARKERS_FILE
    if START in tokenizer.get_vocab():
        return
    rows = read_safetensors(file)
    inputs = model.get_input_embeddings()
    width = inputs.embedding_dim
    if {name: tuple(row.shape) for name, row in rows.items()} != {START: (width,), END: (width,)}:
        raise CheckpointError(f"{paths.shown(file)}: must hold {START} and {END}, each {width} wide. Convert it again")
    add_tokens(model, tokenizer, *MARKERS)
    ids = model.config.marker_token_ids = tokenizer.convert_tokens_to_ids(list(MARKERS))
    weight = model.get_input_embeddings().weight
    with torch.no_grad():
        weight[ids] = torch.stack([rows[token] for token in MARKERS]).to(weight)
