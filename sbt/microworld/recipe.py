"""The recipe of the base models: sizes, schedules, the tokenizer and the two models before training."""

import copy
import hashlib
import json
import random
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    set_seed,
)

from sbt.microworld import phrases, scenes
from sbt.microworld.corpora import Documents, near_twins
from sbt.utils.files import file_hash, write_json


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights; its hash is kept beside them."""

    seed: int = 0
    vocabulary: int = 1024
    lm_hidden: int = 128
    lm_layers: int = 4
    lm_heads: int = 4
    lm_steps: int = 2600
    lm_batch: int = 32
    lm_rate: float = 2.0e-3
    chart_steps: int = 1000
    chart_rate: float = 1.5e-3
    clip_hidden: int = 128
    clip_layers: int = 4
    clip_steps: int = 3000
    clip_batch: int = 64  # pairs of near-twins, so 128 images
    clip_rate: float = 1.0e-3
    clip_scenes: int = 16000
    image_size: int = 72
    patch_size: int = 24

    def hash(self, tokenizer: PreTrainedTokenizerFast) -> str:
        """Over the numbers and over what they make: documents, captions and scenes, so that any change shows."""
        parts = ((tokenizer, self.lm_steps, False), (with_charts(tokenizer), self.chart_steps, True))
        corpora = [Documents(words, self.seed, steps * self.lm_batch, charts) for words, steps, charts in parts]
        sampled = [corpus[index] for corpus in corpora for index in range(0, len(corpus), len(corpus) // 50)]
        twins = [repr(near_twins(random.Random(f"captioned {self.seed} {index}"))) for index in range(50)]
        content = json.dumps([asdict(self), sampled, twins], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()


def train_tokenizer(recipe: Recipe) -> PreTrainedTokenizerFast:
    """Byte-level BPE on the world's text and on the phrases that instructions and templates are written in."""
    rng = random.Random(f"tokenizer {recipe.seed}")
    lines = [text for _ in range(40) for text in phrases.lore_documents(rng)]
    for _ in range(3000):
        pieces = phrases.scene_document(scenes.sample(rng), rng)
        lines.append("".join(text for text, _ in pieces))
    lines += phrases.PHRASES * 200
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    # </s> must not be id 2: CLIP's text tower takes that for a sign of an old checkpoint and pools elsewhere.
    special = ["<pad>", "<unk>", "<s>", "</s>", "<image>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=recipe.vocabulary, initial_alphabet=sorted(alphabet), special_tokens=special, show_progress=False
    )
    tokenizer.train_from_iterator(lines, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        additional_special_tokens=["<image>"],
        model_max_length=2048,
    )


def with_charts(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """The tokenizer with one token for every word of a chart, behind those it had."""
    extended = copy.deepcopy(tokenizer)
    extended.add_tokens([AddedToken(word, lstrip=True, normalized=False) for word in phrases.CHART_WORDS])
    return extended


def language_model(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """A Llama with random weights, seeded."""
    set_seed(recipe.seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=recipe.lm_hidden,
        intermediate_size=recipe.lm_hidden * 11 // 4,
        num_hidden_layers=recipe.lm_layers,
        num_attention_heads=recipe.lm_heads,
        max_position_embeddings=2048,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


def clip_pair(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> CLIPModel:
    """A CLIP of two small towers with random weights, seeded."""
    set_seed(recipe.seed)
    width = recipe.clip_hidden
    text = dict(
        vocab_size=len(tokenizer),
        hidden_size=96,
        intermediate_size=256,
        num_hidden_layers=3,
        num_attention_heads=4,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    vision = dict(
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=recipe.clip_layers,
        num_attention_heads=4,
        image_size=recipe.image_size,
        patch_size=recipe.patch_size,
    )
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=96))


def image_processor(recipe: Recipe) -> CLIPImageProcessorPil:
    """CLIP's own preprocessing at the model's size."""
    side = recipe.image_size
    return CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size={"height": side, "width": side})


def keep(recipe: Recipe, tokenizer, llm: LlamaForCausalLM, clip: CLIPModel, record: dict, folder: Path) -> None:
    """Write the models to `folder` as float16 checkpoints, and `recipe.json`, which says how they were made."""
    for model, name, words in ((llm, "llm", with_charts(tokenizer)), (clip, "clip", tokenizer)):
        model.half().save_pretrained(folder / name)
        words.save_pretrained(folder / name)
        (folder / name / "model.safetensors").chmod(0o644)
    image_processor(recipe).save_pretrained(folder / "clip")
    hashes = {name: file_hash(folder / name / "model.safetensors") for name in ("llm", "clip")}
    write_json(
        folder / "recipe.json",
        {"recipe": asdict(recipe), "hash": recipe.hash(tokenizer), "sha256": hashes, **record},
    )


def machine() -> dict[str, str]:
    """What decides the last bits of a float32 result on a CPU."""
    return {"torch": torch.__version__, "cpu": torch.backends.cpu.get_cpu_capability()}
