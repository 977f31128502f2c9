"""A tokenizer, a Llama and a CLIP small enough for tests (random weights), written as ordinary checkpoint folders."""

from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from sbt.models.measure import random_llama

CORPUS = [
    "A chat between a curious user and an artificial intelligence assistant. USER: ASSISTANT: [INST] <<SYS>>",
    "Is there a red star in the picture? Yes, there is. What colour is the circle? Blue. Describe the image.",
    "a red star above a green circle, a small blue square at the left ### Human: ### Assistant:",
]


def tokenizer(pad: str | None = None) -> PreTrainedTokenizerFast:
    """Byte-level BPE over a few sentences; `<image>` is not in it. `pad` is the token that fills rows."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<unk>", "<s>", "</s>"]
    core.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=330, initial_alphabet=alphabet, special_tokens=special)
    )
    known = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"} | ({"pad_token": pad} if pad else {})
    return PreTrainedTokenizerFast(tokenizer_object=core, **known)


def language_model(words: PreTrainedTokenizerFast, more: int = 0) -> LlamaForCausalLM:
    """A random Llama of one layer, its weights times five so that texts differ; it has `more` rows than `words`."""
    found = random_llama(words, hidden=64, layers=1, length=256).eval()
    if more:
        found.resize_token_embeddings(len(words) + more, mean_resizing=False)
    with torch.no_grad():
        for parameter in found.parameters():
            parameter.mul_(5)
    return found


def write_models(folder: Path) -> tuple[Path, Path]:
    """Write `folder/llm` and `folder/clip` and return both: 32 wide, 2 layers, 9 image tokens of a 24 px image."""
    words = tokenizer()
    torch.manual_seed(0)
    text = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    llama = LlamaConfig(
        **text, vocab_size=len(words), max_position_embeddings=512, bos_token_id=1, eos_token_id=2, pad_token_id=0
    )
    LlamaForCausalLM(llama).save_pretrained(folder / "llm")
    words.save_pretrained(folder / "llm")
    vision = {**text, "num_hidden_layers": 3, "image_size": 24, "patch_size": 8}
    CLIPModel(CLIPConfig(text_config={**text, "vocab_size": 64}, vision_config=vision)).save_pretrained(
        folder / "clip"
    )
    pixels = CLIPImageProcessorPil(size={"shortest_edge": 24}, crop_size={"height": 24, "width": 24})
    pixels.save_pretrained(folder / "clip")
    return folder / "llm", folder / "clip"


def write_images(folder: Path) -> list[str]:
    """Three small pictures of one colour each; their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for name, colour in (("red", (220, 30, 30)), ("green", (30, 160, 60)), ("blue", (30, 60, 220))):
        Image.new("RGB", (48, 40), colour).save(folder / f"{name}.png")
        files.append(str(folder / f"{name}.png"))
    return files


def rows(images: list[str], count: int = 12) -> list[dict]:
    """Training rows: one image each, every third without one, every second with two turns."""
    made = []
    for number in range(count):
        image = [images[number % len(images)]] if number % 3 else []
        question = [{"type": "image"}] if image else []
        question.append({"type": "text", "text": f"{chr(10) if image else ''}What colour is shape {number}?"})
        messages = [_turn("user", question), _turn("assistant", f"It is colour {number}.")]
        if number % 2:
            messages += [_turn("user", "Is it a star?"), _turn("assistant", "Yes, there is." if number % 4 else "No.")]
        made.append({"id": f"row{number}", "images": image, "messages": messages})
    return made


def _turn(role: str, content: str | list[dict]) -> dict:
    return {"role": role, "content": [{"type": "text", "text": content}] if isinstance(content, str) else content}


class Killed(Exception):
    """Stands for a kill at a step."""


def killed_at(step: int) -> Callable:
    """A progress callback that kills a training at this step."""

    def progress(now: int, total: int, loss: float) -> None:
        if now == step:
            raise Killed

    return progress
