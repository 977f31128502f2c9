"""What a call costs, and models of random weights to measure it on: cost does not depend on what a model says.

result, cost = measure(random_llama(tokenizer, hidden=512, layers=8), call)
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

import psutil
import torch
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from sbt import templates
from sbt.models.arms import Arm
from sbt.models.tokenizer import IMAGE_TOKEN
from sbt.utils import env

_EVERY = 0.005  # seconds between two looks at the memory


def measure(model: PreTrainedModel, call: Callable[[], object]) -> tuple[object, dict[str, float]]:
    """The result of `call` and its cost: `seconds`, `tokens` that went into `model`, padding included, `peak_gb`.

    Memory is the GPU's where the model is on one, else the process's: its peak while the call runs.
    """
    tokens = 0

    def count(module: torch.nn.Module, args: tuple, given: dict) -> None:
        nonlocal tokens
        tokens += (given["input_ids"] if given.get("input_ids") is not None else args[0]).numel()

    hook = model.register_forward_pre_hook(count, with_kwargs=True)
    try:
        with _peak_memory(model.device) as peak:
            start = time.perf_counter()
            result = call()
            if model.device.type == "cuda":
                torch.cuda.synchronize()
            seconds = time.perf_counter() - start
    finally:
        hook.remove()
    return result, {"seconds": seconds, "tokens": tokens, "peak_gb": max(peak)}


@contextlib.contextmanager
def _peak_memory(device: torch.device) -> Iterator[list[float]]:
    """A list whose largest value is, at the end, the peak memory (GB) while the context was open."""
    seen, ended, process = [], threading.Event(), psutil.Process()

    def look() -> None:
        while True:  # once at least, however short the call
            seen.append(process.memory_info().rss / env.GB)
            if ended.wait(_EVERY):
                return

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        yield seen
        seen.append(torch.cuda.max_memory_allocated() / env.GB)
        return
    watch = threading.Thread(target=look, daemon=True)
    watch.start()
    try:
        yield seen
    finally:
        ended.set()
        watch.join()


def llama_config(
    tokenizer: PreTrainedTokenizerBase, hidden: int, layers: int, *, length: int = 4096, vocabulary: int = 0
) -> LlamaConfig:
    """A Llama's shape with LLaMA-7B's proportions; heads are 128 wide from a width of 4096 on, 64 below.

    `vocabulary` is the number of tokens, if it is more than the tokenizer's.
    """
    return LlamaConfig(
        vocab_size=max(vocabulary, len(tokenizer)),
        hidden_size=hidden,
        intermediate_size=hidden * 43 // 16,  # LLaMA-7B's 11008 / 4096
        num_hidden_layers=layers,
        num_attention_heads=hidden // (128 if hidden >= 4096 else 64),
        max_position_embeddings=length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def random_llama(
    tokenizer: PreTrainedTokenizerBase, hidden: int = 512, layers: int = 8, *, length: int = 4096,
    vocabulary: int = 0, dtype: str = "float32", seed: int = 0,
) -> LlamaForCausalLM:  # fmt: skip
    """A Llama with random weights, on the GPU if there is one."""
    config = llama_config(tokenizer, hidden, layers, length=length, vocabulary=vocabulary)
    return _random(LlamaForCausalLM, config, dtype, seed)


def random_llava(
    tokenizer: PreTrainedTokenizerBase, hidden: int = 512, layers: int = 8, *, tower: dict | None = None,
    vocabulary: int = 0, dtype: str = "float32", seed: int = 0,
) -> Arm:  # fmt: skip
    """A LLaVA with random weights: ViT-L/14 at 224 px (256 image tokens) over a Llama of 7B's proportions.

    `tower` are values of CLIPVisionConfig to change; `vocabulary` as in `llama_config`. The tokenizer gets `<image>`.
    """
    tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE_TOKEN]}, replace_extra_special_tokens=False)
    shape = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
    vision = CLIPVisionConfig(**({**shape, "image_size": 224, "patch_size": 14} | (tower or {})))
    config = LlavaConfig(
        vision_config=vision,
        text_config=llama_config(tokenizer, hidden, layers, vocabulary=vocabulary),
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE_TOKEN),
        image_seq_length=(vision.image_size // vision.patch_size) ** 2,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )
    model, size = _random(LlavaForConditionalGeneration, config, dtype, seed), vision.image_size
    model.config.dtype = model.dtype
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessorPil(size={"shortest_edge": size}, crop_size={"height": size, "width": size}),
        tokenizer=tokenizer,
        patch_size=vision.patch_size,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=templates.load("v1"),
    )
    return Arm(model, processor, "llava", "v1")


def _random(kind: type[PreTrainedModel], config: object, dtype: str, seed: int) -> PreTrainedModel:
    with torch.random.fork_rng(devices=[]), torch.device(env.device().value):
        torch.manual_seed(seed)
        return kind(config).eval().to(getattr(torch, dtype))
