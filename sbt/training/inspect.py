"""A conversation as the model reads it, the trained tokens marked; made from the labels the trainer uses."""

import html
from collections.abc import Mapping
from itertools import groupby

from transformers import PreTrainedTokenizerBase, ProcessorMixin

from sbt.training.collator import IGNORED, labels

_BOX = (
    "font-family:monospace;font-size:12px;line-height:1.6;white-space:pre-wrap;border:1px solid #ccc;padding:6px 8px"
)
_MARKS = {"response": "background:#ffe08a;color:#000", "instruction": "background:#b7e4c7;color:#000"}
_BADGE = "background:#cfe3ff;color:#024;border-radius:3px;padding:0 3px"


def render_html(
    processor: ProcessorMixin | PreTrainedTokenizerBase, row: dict, conversation: str, loss: Mapping | None = None
) -> str:
    """HTML of one row: trained tokens highlighted, the tokens of an image as one badge with their number.

    Tokens trained as instruction (with the knobs `loss`) have another colour than those trained as response; a line
    above says in words what the colours mean and how many tokens have each.
    """
    ids, answers = labels(processor, [row], conversation)[0]
    targets = labels(processor, [row], conversation, loss)[0][1]
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
    # sentencepiece drops the space a piece begins with when it comes first
    begins = str(tokenizer.convert_ids_to_tokens(ids[0])).startswith("▁")
    return " " + text if begins and not text.startswith(" ") else text
