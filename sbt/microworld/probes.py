"""What the base models of the embedded study can and cannot do, measured on scenes that no training ever saw.

reading(model, tokenizer)   misconceptions(model, tokenizer)   seeing(clip, tokenizer, processor)
"""

import random
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import torch
from transformers import AutoTokenizer, CLIPImageProcessorPil, CLIPModel, LlamaForCausalLM, PreTrainedTokenizerBase

from sbt.inference import loglikelihood, tokens
from sbt.microworld import facts, phrases, scenes
from sbt.microworld.corpora import near_twins
from sbt.models import silence_libraries


def _log_probabilities(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, prompts: list[tuple[str, list[str]]]
) -> list[list[float]]:
    """Log-probabilities (nats) of each (context, continuations); the context begins a document."""
    requests = [{"id": i, "context": context, "continuations": texts} for i, (context, texts) in enumerate(prompts)]
    scored = loglikelihood.score(model, tokens.encode(tokenizer, requests, add_bos=True), batch_size=32)
    return [[value for value, _ in continuations] for continuations in scored]


def reading(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, count: int = 300, seed: int = 1
) -> pd.DataFrame:
    """Existence questions about scenes told in words: `objects`, `there`, `right` for each question."""
    rng = random.Random(f"reading {seed}")
    rows, prompts = [], []
    for index in range(count):
        scene, there = scenes.sample(rng), index % 2 == 0
        pair = phrases.asked_pair(scene, there, rng)
        text = phrases.detail(scene) if rng.random() < 0.5 else phrases.caption(scene, rng)
        prompts.append((f"{text}\nQ: {phrases.existence_question(pair)}\nA:", [" Yes", " No"]))
        rows.append({"objects": len(scene.things), "there": there})
    for row, (yes, no) in zip(rows, _log_probabilities(model, tokenizer, prompts), strict=True):
        row["right"] = (yes > no) == row["there"]
    return pd.DataFrame(rows)


def misconceptions(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase) -> pd.DataFrame:
    """For every fact of the world: log-probabilities of the `truth` and of the `misconception`."""
    prompts = [
        (f"Q: {fact.question}\nA:", [f" {fact.statement(value)}" for value in (fact.true, fact.misconception)])
        for fact in facts.FACTS
    ]
    values = pd.DataFrame(_log_probabilities(model, tokenizer, prompts), columns=["truth", "misconception"])
    return values.assign(question=[fact.question for fact in facts.FACTS])


def load_clip(folder: Path) -> tuple[CLIPModel, PreTrainedTokenizerBase, CLIPImageProcessorPil]:
    """A CLIP checkpoint as `seeing` takes it: model, tokenizer, image processor."""
    with silence_libraries():
        own = {"trust_remote_code": False}
        model = CLIPModel.from_pretrained(folder, dtype=torch.float32, **own).eval()
        tokenizer = AutoTokenizer.from_pretrained(folder, **own)
        return model, tokenizer, CLIPImageProcessorPil.from_pretrained(folder, **own)


@torch.no_grad()
def seeing(
    clip: CLIPModel,
    tokenizer: PreTrainedTokenizerBase,
    processor: CLIPImageProcessorPil,
    count: int = 200,
    seed: int = 1,
) -> pd.DataFrame:
    """Which of two captions belongs to a picture, where the scenes differ in one thing: `changed`, `right`.

    The pictures are drawn at the size they have on disk.
    """
    rng = random.Random(f"seeing {seed}")
    rows = []
    for _ in range(count):
        pair = near_twins(rng)
        texts = [phrases.caption(scene, rng) + tokenizer.eos_token for scene in pair]
        pixels = processor([scenes.render(scene) for scene in pair], return_tensors="pt")["pixel_values"]
        words = tokenizer(texts, padding=True, return_tensors="pt")
        masked = {name: words[name] for name in ("input_ids", "attention_mask")}
        logits = clip(**masked, pixel_values=pixels).logits_per_image  # pictures x captions
        gone, come = ([t for t in a.things if t not in b.things][0] for a, b in (pair, pair[::-1]))
        changed = [name for name, value in asdict(gone).items() if value != getattr(come, name)][0]
        changed = {"cell": "place"}.get(changed, changed)
        rows += [{"changed": changed, "right": bool(logits[k, k] > logits[k, 1 - k])} for k in (0, 1)]
    return pd.DataFrame(rows)
