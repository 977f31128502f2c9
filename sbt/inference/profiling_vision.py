"""Time of answering many questions about one image: its beginning shared, against one whole prompt a question.

frame = performance_vision.compare(random_llava(tokenizer), requests, folder, batch_size=18)
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
import torch
from PIL import Image
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerBase,
)

from sbt import templates
from sbt.inference import generation
from sbt.inference.profiling import OURS, llama_config
from sbt.models import Arm, silence_libraries
from sbt.models.llava import IMAGE_TOKEN
from sbt.utils import env

ORDINARY = "one prompt a question"


def random_llava(
    tokenizer: PreTrainedTokenizerBase, hidden: int = 512, layers: int = 8, *, tower: dict | None = None, seed: int = 0
) -> Arm:
    """A LLaVA with random weights: a tower shaped as ViT-L/14 at 224 px (256 image tokens) over a small Llama.

    `tower` are values of CLIPVisionConfig to change. The tokenizer gets a token for the image.
    """
    tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE_TOKEN]}, replace_extra_special_tokens=False)
    shape = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
    vision = CLIPVisionConfig(**({**shape, "image_size": 224, "patch_size": 14} | (tower or {})))
    config = LlavaConfig(
        vision_config=vision,
        text_config=llama_config(tokenizer, hidden, layers),
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE_TOKEN),
        image_seq_length=(vision.image_size // vision.patch_size) ** 2,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlavaForConditionalGeneration(config).eval().to(env.device().value)
    size = vision.image_size
    pixels = CLIPImageProcessorPil(size={"shortest_edge": size}, crop_size={"height": size, "width": size})
    processor = LlavaProcessor(
        image_processor=pixels,
        tokenizer=tokenizer,
        patch_size=vision.patch_size,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=templates.load("v1"),
    )
    return Arm(model, processor, "llava", "v1")


def compare(
    arm: Arm,
    requests: Sequence[dict],
    folder: Path,
    *,
    batch_size: int = 18,
    max_new_tokens: int = 4,
    repeats: int = 3,
    progress: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    """One row a way of answering: `seconds`, `questions`, and `same`, the share of answers both ways agree on.

    The ordinary way is transformers' own: every question with its image, in batches of the same size. It takes long
    and is gone through once; the shared one is so short that another process can double it: of `repeats` the median
    counts.
    """
    with silence_libraries(), torch.inference_mode():
        _ordinary(arm, requests[:1], 1)  # first calls of a kernel cost extra
        start = time.perf_counter()
        plain = []
        for first in range(0, len(requests), batch_size):
            plain += _ordinary(arm, requests[first : first + batch_size], max_new_tokens)
            if progress is not None:
                progress(min(first + batch_size, len(requests)), 2 * len(requests))
    whole, times = time.perf_counter() - start, []
    size = {"batch_size": batch_size, "max_new_tokens": max_new_tokens}
    folder.mkdir(parents=True, exist_ok=True)
    for _ in range(repeats):
        start = time.perf_counter()
        with tempfile.TemporaryDirectory(dir=folder) as empty:  # answers that are kept would cost nothing
            shared = generation.generate(arm, requests, cache=Path(empty) / "shared.jsonl", **size)
        times.append(time.perf_counter() - start)
    if progress is not None:
        progress(2 * len(requests), 2 * len(requests))
    same = sum(a == b for a, b in zip(plain, shared, strict=True)) / len(requests)
    rows = [(ORDINARY, whole), (OURS, statistics.median(times))]
    return pd.DataFrame(
        [{"way": way, "seconds": seconds, "questions": len(requests), "same": same} for way, seconds in rows]
    )


def _ordinary(arm: Arm, requests: Sequence[dict], new: int) -> list[str]:
    chats = [
        [
            {
                "role": "user",
                "content": [{"type": "image", "image": _opened(one)}, {"type": "text", "text": f"\n{one['text']}"}],
            }
        ]
        for one in requests
    ]
    inputs = arm.processor.apply_chat_template(
        chats,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        add_generation_prompt=True,
        processor_kwargs={"padding": True, "padding_side": "left"},
    ).to(arm.model.device)
    made = arm.model.generate(**inputs, max_new_tokens=new, do_sample=False)[:, inputs["input_ids"].shape[1] :]
    texts = arm.tokenizer.batch_decode(made, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return [text.strip() for text in texts]


def _opened(request: dict) -> Image.Image:
    image = request["image"]
    return image if isinstance(image, Image.Image) else Image.open(image).convert("RGB")
