"""Tokens of training rows, many at once: the count that data preparation compares with the longest a model takes."""

from collections.abc import Callable

from transformers import AutoConfig, PreTrainedTokenizerBase

from sbt import templates
from sbt.data.conversations import PLACEHOLDER
from sbt.models.image_markers import image_text
from sbt.models.llava import locate
from sbt.models.silence import silence_libraries
from sbt.models.tokenizer import END, START, load_tokenizer
from sbt.utils.errors import ParameterError


def counter(
    tokenizer: PreTrainedTokenizerBase, conversation: str, image_tokens: int = 0
) -> Callable[[list[dict]], list[int]]:
    """The function rows -> tokens of each row in the conversation format, an image taken for `image_tokens`.

    The length of what `sbt.training.collator` makes of the row, before padding; no image is opened. ParameterError
    where rows have images and `image_tokens` is 0, or the tokenizer has no token for an image.
    """
    template, one_image = templates.load(conversation), image_text(tokenizer, 1)
    if image_tokens and PLACEHOLDER not in tokenizer.get_vocab():
        raise ParameterError(f"the tokenizer has no token {PLACEHOLDER}: give that of an assembled model")

    def count(rows: list[dict]) -> list[int]:
        if not image_tokens and any(row["images"] for row in rows):
            raise ParameterError("the rows have images: say how many tokens one takes in `image_tokens`")
        messages = [row["messages"] for row in rows]
        texts = tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False)
        texts = [text.replace(PLACEHOLDER, one_image) for text in texts]
        ids = tokenizer(texts, add_special_tokens=False, return_attention_mask=False, return_token_type_ids=False)
        return [
            len(one) + (image_tokens - 1) * len(row["images"]) for one, row in zip(ids["input_ids"], rows, strict=True)
        ]

    return count


def counter_of(
    tokenizer: str, vision_tower: str, conversation: str, image_markers: bool = False
) -> Callable[[list[dict]], list[int]]:
    """`counter` for the tokenizer and vision tower of these names (folder, `assets/...`, hub id); loads no weights.

    `image_markers`: `<im_start>` and `<im_end>` stand around every image, as in a model assembled with them.
    """
    words, _ = load_tokenizer(locate(tokenizer))
    wanted = (PLACEHOLDER, START, END) if image_markers else (PLACEHOLDER,)
    if missing := [name for name in wanted if name not in words.get_vocab()]:
        words.add_special_tokens({"additional_special_tokens": missing}, replace_extra_special_tokens=False)
    with silence_libraries():
        config = AutoConfig.from_pretrained(locate(vision_tower), trust_remote_code=False)
    seen = getattr(config, "vision_config", config)
    return counter(words, conversation, (seen.image_size // seen.patch_size) ** 2)
