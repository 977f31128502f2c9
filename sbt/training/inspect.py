"""What a row becomes in training: `render` shows it, `counter` counts its tokens, `response_logprobs` scores it.

All three agree with the collator that the trainer uses.
"""

import html
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase, ProcessorMixin

from sbt import templates
from sbt.data.conversations import PLACEHOLDER, check_place, put_images
from sbt.models import Arm
from sbt.models.image_markers import image_text
from sbt.models.llava import locate, read_config
from sbt.models.tokenizer import END, START, load_tokenizer
from sbt.training.collator import IGNORED, Collator, ControlTokens, labels
from sbt.utils.errors import DataError, ParameterError

_BOX = (
    "font-family:monospace;font-size:12px;line-height:1.6;white-space:pre-wrap;border:1px solid #ccc;padding:6px 8px"
)
_MARKS = {"response": "background:#ffe08a;color:#000", "instruction": "background:#b7e4c7;color:#000"}
_BADGE = "background:#cfe3ff;color:#024;border-radius:3px;padding:0 3px"


def render(
    processor: ProcessorMixin | PreTrainedTokenizerBase,
    row: dict,
    conversation: str,
    loss: Mapping | None = None,
    image_place: str = "as_written",
) -> str:
    """HTML of one row, trained tokens highlighted; the tokens of an image are one badge with their number.

    Tokens trained as instruction (by `loss`, values of LossMaskConfig) have another colour than those of the response.
    A line above explains the colours and counts the tokens.
    """
    ids, answers = labels(processor, [row], conversation, None, image_place)[0]
    targets = labels(processor, [row], conversation, loss, image_place)[0][1]
    vision = isinstance(processor, ProcessorMixin)
    tokenizer = processor.tokenizer if vision else processor
    image = processor.image_token_id if vision else None

    def look(position: int) -> str:
        if ids[position] == image:
            return "image"
        if targets[position] == IGNORED:
            return "context"
        return "response" if answers[position] != IGNORED else "instruction"

    looks = [look(position) for position in range(len(ids))]
    pieces = []
    for kind, positions in groupby(range(len(ids)), key=looks.__getitem__):
        run = [ids[position] for position in positions]
        if kind == "image":
            pieces.append(f'<span style="{_BADGE}">&lt;image&gt; ×{len(run)}</span>')
            continue
        text = html.escape(_decode(tokenizer, run)).replace("\n", "↵\n")
        pieces.append(f'<mark style="{_MARKS[kind]}">{text}</mark>' if kind in _MARKS else text)
    return f'<div style="{_BOX}">{_legend(row, looks)}{"".join(pieces)}</div>'


def _legend(row: dict, looks: list[str]) -> str:
    trained = ", ".join(
        f'{looks.count(kind)} <span style="{style}">trained as {kind}</span>'
        for kind, style in _MARKS.items()
        if kind in looks
    )
    name = html.escape(str(row.get("id")))
    return f'<div style="color:#777">{name}: of {len(looks)} tokens {trained}; the unmarked are only read</div>'


def _decode(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> str:
    text = tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    # SentencePiece drops the space before the first piece
    begins = str(tokenizer.convert_ids_to_tokens(ids[0])).startswith("▁")
    return " " + text if begins and not text.startswith(" ") else text


def counter(
    tokenizer: PreTrainedTokenizerBase, conversation: str, image_tokens: int = 0, image_place: str = "as_written"
) -> Callable[[list[dict]], list[int]]:
    """The function rows -> tokens of each row in the conversation format, with `image_tokens` for an image.

    It counts what the collator makes of the row, before padding; no image is opened. ParameterError where rows have
    images and `image_tokens` is 0, or the tokenizer has no token for an image.
    """
    template, one_image = templates.load(conversation), image_text(tokenizer, 1)
    control = ControlTokens(tokenizer)
    check_place(image_place)
    if image_tokens and PLACEHOLDER not in tokenizer.get_vocab():
        raise ParameterError(f"the tokenizer has no token {PLACEHOLDER}: give that of an assembled model")

    def count(rows: list[dict]) -> list[int]:
        if not image_tokens and any(row["images"] for row in rows):
            raise ParameterError("the rows have images: say how many tokens one takes in `image_tokens`")
        placed = [put_images(row, image_place) for row in rows]
        hidden = [control.hide(row) for row in placed]
        messages = [row["messages"] for row in hidden]
        texts = tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False)
        texts = [text.replace(PLACEHOLDER, one_image) for text in texts]
        ids = tokenizer(texts, add_special_tokens=False, return_attention_mask=False, return_token_type_ids=False)
        lengths = [
            len(one if new is old else control.encode(text)[0])
            for one, new, old, text in zip(ids["input_ids"], hidden, placed, texts, strict=True)
        ]
        return [length + (image_tokens - 1) * len(row["images"]) for length, row in zip(lengths, rows, strict=True)]

    return count


def counter_of(
    tokenizer: str,
    vision_tower: str,
    conversation: str,
    image_markers: bool = False,
    image_place: str = "as_written",
) -> Callable[[list[dict]], list[int]]:
    """`counter` for the tokenizer and vision tower of these names (folder, `assets/...`, hub id); loads no weights.

    `image_markers`: `<im_start>` and `<im_end>` stand around every image, as in a model assembled with them.
    """
    words, _ = load_tokenizer(locate(tokenizer))
    wanted = (PLACEHOLDER, START, END) if image_markers else (PLACEHOLDER,)
    if missing := [name for name in wanted if name not in words.get_vocab()]:
        words.add_special_tokens({"additional_special_tokens": missing}, replace_extra_special_tokens=False)
    config = read_config(locate(vision_tower))
    seen = getattr(config, "vision_config", config)
    return counter(words, conversation, (seen.image_size // seen.patch_size) ** 2, image_place)


def response_logprobs(
    arm: Arm,
    rows: Sequence[dict],
    conversation: str,
    batch_size: int,
    *,
    change: Callable[[dict], dict] = dict,
    loss: Mapping | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Summed log-probability (nats) of the response tokens of each row, and their number; both (rows,).

    `heldout_loss` makes a loss of them. Whatever loss the arm was trained with, the labels are response-only, or those
    of `loss` (values of `loss_mask.LossMaskConfig`), so that arms compare. `change` is applied to each row, batch by
    batch. DataError for no rows; else raises as `Collator` does.
    """
    if len(rows) == 0:
        raise DataError("no rows to measure on")
    collate = Collator(arm.processor, conversation, loss, image_place=arm.image_place)
    order = sorted(range(len(rows)), key=lambda number: len(str(rows[number]["messages"])))  # less padding
    sums, tokens = np.zeros(len(rows)), np.zeros(len(rows))
    training = arm.model.training
    arm.model.eval()  # dropout would give another number every time
    try:
        for start in range(0, len(rows), batch_size):
            places = order[start : start + batch_size]
            sums[places], tokens[places] = _score(arm.model, collate([change(rows[place]) for place in places]))
            if progress is not None:
                progress(start + len(places), len(rows))
    finally:
        arm.model.train(training)
    return sums, tokens


def heldout_loss(arm: Arm, rows: Sequence[dict], conversation: str, batch_size: int) -> float:
    """Mean loss (nats) of a response token of rows that were held out; see `response_logprobs`."""
    sums, tokens = response_logprobs(arm, rows, conversation, batch_size)
    return float(-sums.sum() / tokens.sum())


@torch.no_grad()
def _score(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> tuple[np.ndarray, np.ndarray]:
    targets = batch.pop("labels")[:, 1:]
    wanted = targets != IGNORED
    positions = wanted.any(dim=0).nonzero()[:, 0]  # the vocabulary only where some row of the batch has a response
    inputs = {name: tensor.to(model.device) for name, tensor in batch.items()}
    if "pixel_values" in inputs:
        inputs["pixel_values"] = inputs["pixel_values"].to(model.dtype)
    logits = model(**inputs, logits_to_keep=positions.to(model.device), use_cache=False).logits
    wanted, targets = wanted[:, positions], targets[:, positions]
    row, place = (index.to(model.device) for index in wanted.nonzero(as_tuple=True))
    chosen = logits[row, place].float().log_softmax(dim=-1)
    chosen = chosen.gather(1, targets[wanted].to(model.device)[:, None])[:, 0]
    chosen = chosen.cpu().double()  # Apple's GPU has no float64
    sums = torch.zeros(len(wanted), dtype=torch.float64).index_add_(0, row.cpu(), chosen)
    return sums.numpy(), wanted.sum(dim=1).numpy()
