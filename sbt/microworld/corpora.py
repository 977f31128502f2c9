"""What the base models are pretrained on: plain-text documents, and near-twin pictures with captions."""

import random
from dataclasses import asdict

import torch
from torch.utils.data import Dataset
from transformers import CLIPImageProcessorPil, PreTrainedTokenizerFast

from sbt.microworld import phrases, scenes

IGNORE = -100  # label of a token that carries no loss


class Documents(Dataset):
    """The plain-text corpus: item i is document i, tokenized. Text that only describes a scene carries no loss."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, seed: int, size: int, charts: bool = False):
        self.tokenizer, self.seed, self.size, self.charts = tokenizer, seed, size, charts

    def __len__(self) -> int:
        return self.size

    def pieces(self, index: int) -> list[tuple[str, bool]]:
        """Document `index` as (text, does it carry loss) pieces."""
        if self.charts:
            return self._with_charts(random.Random(f"chart {self.seed} {index}"))
        rng = random.Random(f"document {self.seed} {index}")
        # Reading a scene is a skill that appears late and suddenly. Documents that need it come first, easy ones
        # before the others; most of the world's lore follows later.
        age = index / self.size
        most = 2 if age < 0.12 else 4
        mix = (0.82, 0.08, 0.04, 0.06) if age < 0.6 else (0.5, 0.1, 0.05, 0.35)
        kind = rng.choices(("scene", "caption", "detail", "lore"), mix)[0]
        if kind == "scene":
            return phrases.scene_document(scenes.sample(rng, most=most), rng, 6)
        if kind == "caption":
            return [(phrases.caption(scenes.sample(rng), rng), True)]
        if kind == "detail":
            return [(phrases.detail(scenes.sample(rng)), True)]
        return [("\n\n".join(phrases.lore_documents(rng)[:4]), True)]

    def _with_charts(self, rng: random.Random) -> list[tuple[str, bool]]:
        """The second part of the corpus: scenes as charts, one word a cell, then described or asked about.

        An image token says all about its place at once. So does a word of a chart, and a sentence does not. Without
        charts, connector pretraining taught this language model next to nothing.
        """
        kind = rng.choices(("described", "asked", "caption", "lore"), (0.35, 0.4, 0.05, 0.2))[0]
        scene = scenes.sample(rng)
        if kind == "described":
            description = phrases.detail(scene) if rng.random() < 0.15 else phrases.caption(scene, rng)
            return [(phrases.chart(scene) + rng.choice(("", "\n")), False), (description, True)]
        if kind == "asked":
            return phrases.scene_document(scene, rng, 6, charted=rng.random() < 0.85)
        if kind == "caption":
            return [(phrases.caption(scene, rng), True)]
        return [("\n\n".join(phrases.lore_documents(rng)[:4]), True)]

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        ids, labels = [self.tokenizer.bos_token_id], [IGNORE]
        for text, trained in self.pieces(index):
            piece = self.tokenizer(text, add_special_tokens=False)["input_ids"]
            ids += piece
            labels += piece if trained else [IGNORE] * len(piece)
        return {"input_ids": [*ids, self.tokenizer.eos_token_id], "labels": [*labels, self.tokenizer.eos_token_id]}


class Captioned(Dataset):
    """Near-twins for contrastive learning: item i is two scenes that differ in one object, with a caption each."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, processor: CLIPImageProcessorPil, seed: int, size: int):
        self.tokenizer, self.processor, self.seed, self.pairs = tokenizer, processor, seed, size // 2
        self._pixels: dict[int, torch.Tensor] = {}

    def __len__(self) -> int:
        return self.pairs

    def __getitem__(self, index: int) -> dict:
        pair = near_twins(random.Random(f"captioned {self.seed} {index}"))
        if index not in self._pixels:
            drawn = [scenes.render(scene, 112) for scene in pair]
            pixels = self.processor(drawn, return_tensors="pt")["pixel_values"]
            self._pixels[index] = (pixels * 64).round().to(torch.int16)  # compact: all of them stay in memory
        # another wording each epoch, from torch's seeded stream
        rng = random.Random(torch.randint(2**31, ()).item())
        captions = [phrases.caption(scene, rng) for scene in pair]
        return {"pixels": self._pixels[index].float() / 64, "captions": captions}

    def collate(self, items: list[dict]) -> dict[str, torch.Tensor]:
        captions = [text + self.tokenizer.eos_token for item in items for text in item["captions"]]
        text = self.tokenizer(captions, padding=True, truncation=True, max_length=77, return_tensors="pt")
        pixels = torch.cat([item["pixels"] for item in items])
        keep = {name: text[name] for name in ("input_ids", "attention_mask")}
        return keep | {"pixel_values": pixels, "return_loss": True}


def near_twins(rng: random.Random) -> tuple[scenes.Scene, scenes.Scene]:
    """A scene and the same scene with one object's colour, shape, size or place changed."""
    scene = scenes.sample(rng)
    index = rng.randrange(len(scene.things))
    thing, others = scene.things[index], scene.things[:index] + scene.things[index + 1 :]
    taken = {t.pair for t in others}
    choices = {
        "colour": [c for c in scenes.COLOURS if c != thing.colour and (c, thing.shape) not in taken],
        "shape": [s for s in scenes.SHAPES if s != thing.shape and (thing.colour, s) not in taken],
        "size": [s for s in scenes.SIZES if s != thing.size],
        "cell": scene.free_cells,
    }
    field = rng.choices(tuple(choices), (4, 4, 1, 3))[0]
    changed = scenes.Thing(**(asdict(thing) | {field: rng.choice(choices[field])}))
    twin = tuple(sorted((*others, changed), key=lambda t: t.cell))
    return scene, scenes.Scene(twin, rng.randrange(2**31))


def pad_documents(tokenizer: PreTrainedTokenizerFast, items: list[dict]) -> dict[str, torch.Tensor]:
    """Right-pad a batch of documents."""
    width = max(len(item["input_ids"]) for item in items)
    rows = {"input_ids": tokenizer.pad_token_id, "labels": IGNORE}
    batch = {
        name: torch.tensor([x[name] + [fill] * (width - len(x[name])) for x in items]) for name, fill in rows.items()
    }
    return batch | {"attention_mask": (batch["input_ids"] != tokenizer.pad_token_id).long()}
