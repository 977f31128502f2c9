"""Pretrain the small base models of the embedded study from nothing: a tokenizer, a Llama and a CLIP pair.

They are to this study what LLaMA and CLIP are to the paper's. `05_base_models` calls these functions; the models they
make are kept in `sbt/microworld/assets/` and loaded like any other checkpoint.
"""

import copy
import hashlib
import json
import os
import platform
import random
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.utils.data import Dataset
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)
from transformers.trainer_callback import PrinterCallback

from sbt.microworld import facts, phrases, scenes
from sbt.microworld.corpora import Captioned, Documents, near_twins, pad_documents
from sbt.models.silence import silence_libraries
from sbt.training.trainer import threads
from sbt.utils.files import file_hash, write_json

Curve = list[tuple[int, float]]
# How far a logged loss of the first hundred steps may be from the recorded one, as a share of it. Rounding differs
# between processors, and training amplifies it. Measured on one processor under five code paths
# (ATEN_CPU_CAPABILITY=default, avx2, avx512; MKL_CBWR=COMPATIBLE, alone and with avx2): the first logged loss, a mean
# of 25 steps, differs by 2e-7 at most. At step 75 CLIP's differs by 0.8 %, at step 100 by 1.8 % (2.063 to 2.100), the
# language model's by 4e-7. Two threads instead of one change no bit.
FIRST_BAND = 1e-4
BANDS = {"llm": 2e-3, "clip": 0.05}


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
    conduct_steps: int = 900
    conduct_rate: float = 1.0e-3
    clip_hidden: int = 128
    clip_layers: int = 4
    clip_steps: int = 3000
    clip_batch: int = 64  # pairs of near-twins, so 128 images
    clip_rate: float = 1.0e-3
    clip_scenes: int = 16000
    image_size: int = 72
    patch_size: int = 24

    @property
    def schedule(self) -> tuple[tuple[int, float], ...]:
        """Steps and peak learning rate of the three parts of the language model's corpus."""
        return (
            (self.lm_steps, self.lm_rate),
            (self.chart_steps, self.chart_rate),
            (self.conduct_steps, self.conduct_rate),
        )

    def corpus(self, tokenizer: PreTrainedTokenizerFast, part: int) -> Documents:
        """A part of the language model's corpus. The words of the charts enter the vocabulary with part 1."""
        words = with_charts(tokenizer) if part else tokenizer
        return Documents(words, self.seed, self.schedule[part][0] * self.lm_batch, part)

    def hash(self, tokenizer: PreTrainedTokenizerFast) -> str:
        """Over the numbers and over what they make: documents, captions and scenes, so that any change shows."""
        corpora = [self.corpus(tokenizer, part) for part in range(len(self.schedule))]
        sampled = [corpus[index] for corpus in corpora for index in range(0, len(corpus), len(corpus) // 50)]
        twins = [repr(near_twins(random.Random(f"captioned {self.seed} {index}"))) for index in range(50)]
        content = json.dumps([asdict(self), sampled, twins], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()


# --- Tokenizer and models before training


def train_tokenizer(recipe: Recipe) -> PreTrainedTokenizerFast:
    """Byte-level BPE on the world's text and on the phrases that instructions and templates are written in."""
    rng = random.Random(f"tokenizer {recipe.seed}")
    lines = [text for _ in range(40) for text in phrases.lore_documents(rng)]
    for _ in range(3000):
        pieces = phrases.scene_document(scenes.sample(rng), rng)
        lines.append("".join(text for text, _ in pieces))
    lines += facts.WORDS["phrases"] * 200
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
    names = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    named = {**names, "additional_special_tokens": ["<image>"]}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **named, model_max_length=2048)


def with_charts(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """The tokenizer with one token for every word of a chart, behind those it had."""
    extended = copy.deepcopy(tokenizer)
    extended.add_tokens([AddedToken(word, lstrip=True, normalized=False) for word in phrases.CHART_WORDS])
    return extended


def _vocabulary(tokenizer: PreTrainedTokenizerFast) -> dict[str, int]:
    """The tokenizer's numbers as a model's configuration names them."""
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    return {"vocab_size": len(tokenizer), **ids}


def language_model(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """A Llama with random weights, seeded."""
    set_seed(recipe.seed)
    config = LlamaConfig(
        **_vocabulary(tokenizer),
        hidden_size=recipe.lm_hidden,
        intermediate_size=recipe.lm_hidden * 11 // 4,
        num_hidden_layers=recipe.lm_layers,
        num_attention_heads=recipe.lm_heads,
        max_position_embeddings=2048,
    )
    return LlamaForCausalLM(config)


def clip_pair(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> CLIPModel:
    """A CLIP of two small towers with random weights, seeded."""
    set_seed(recipe.seed)
    width, heads = recipe.clip_hidden, {"num_attention_heads": 4}
    text = {"hidden_size": 96, "intermediate_size": 256, "num_hidden_layers": 3, **heads, **_vocabulary(tokenizer)}
    vision = {"hidden_size": width, "intermediate_size": 3 * width, "num_hidden_layers": recipe.clip_layers, **heads}
    vision |= {"image_size": recipe.image_size, "patch_size": recipe.patch_size}
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=96))


def image_processor(recipe: Recipe) -> CLIPImageProcessorPil:
    """CLIP's own preprocessing at the model's size."""
    side = recipe.image_size
    return CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size={"height": side, "width": side})


# --- Training


class _Stop(TrainerCallback):
    """Reports progress, and stops after `steps` although the schedule is longer."""

    def __init__(self, steps: int, progress: Callable | None):
        self.steps, self.progress = steps, progress

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step >= self.steps:
            control.should_training_stop = True

    def on_log(self, args, state, control, logs=None, **kwargs):
        if self.progress and logs and "loss" in logs:
            self.progress(state.global_step, self.steps, loss=logs["loss"])


def _train(
    model: PreTrainedModel, dataset: Dataset, collate: Callable, folder: Path, steps: int, progress, **schedule
) -> Curve:
    """Train in place for `steps` of a schedule, which is given as transformers' arguments; returns (step, loss) pairs.

    A killed run continues from its newest checkpoint when called again with the same folder.
    """
    arguments = TrainingArguments(
        output_dir=str(folder),
        lr_scheduler_type="cosine",
        warmup_steps=min(200, schedule["max_steps"] // 10),
        weight_decay=0.01,
        adam_beta2=0.98,
        logging_steps=25,
        save_steps=500,
        save_total_limit=1,
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        remove_unused_columns=False,
        dataloader_num_workers=0,
        **schedule,
    )
    stop = _Stop(steps, progress)
    with silence_libraries():
        trainer = Trainer(model=model, args=arguments, train_dataset=dataset, data_collator=collate, callbacks=[stop])
        trainer.remove_callback(PrinterCallback)
        trainer.train(resume_from_checkpoint=any(folder.glob("checkpoint-*")) or None)
    return [(row["step"], row["loss"]) for row in trainer.state.log_history if "loss" in row]


def pretrain_language_model(
    recipe: Recipe, tokenizer: PreTrainedTokenizerFast, folder: Path, steps: int, progress: Callable | None = None
) -> tuple[LlamaForCausalLM, Curve]:
    """The Llama of the recipe after `steps` of the parts of its corpus: (model, loss curve).

    Each part is read in order: it is a curriculum. The last part begins with weights rounded to float16, so that the
    parts before it can be kept and need not be trained again when it changes.
    """
    model, curve, before = language_model(recipe, tokenizer), [], 0
    for part, (total, _) in enumerate(recipe.schedule):
        if steps <= before:
            break
        if part == 1:
            set_seed(recipe.seed)
            model.resize_token_embeddings(len(recipe.corpus(tokenizer, part).tokenizer), mean_resizing=False)
        if part == 2:
            for weights in model.parameters():
                weights.data = weights.data.half().float()
        log = read_part(model, recipe, tokenizer, part, folder, min(steps - before, total), progress)
        curve += [(before + step, loss) for step, loss in log]
        before += total
    return model, curve


def read_part(
    model: LlamaForCausalLM, recipe: Recipe, tokenizer: PreTrainedTokenizerFast, part: int, folder: Path, steps: int,
    progress: Callable | None = None,
) -> Curve:  # fmt: skip
    """Train the model in place on the first `steps` of one part of the corpus; returns (step, loss) pairs."""
    (total, rate), documents = recipe.schedule[part], recipe.corpus(tokenizer, part)
    schedule = {"max_steps": total, "learning_rate": rate, "per_device_train_batch_size": recipe.lm_batch}
    schedule |= {"seed": recipe.seed, "data_seed": recipe.seed, "train_sampling_strategy": "sequential"}
    collate = partial(pad_documents, documents.tokenizer)
    return _train(model, documents, collate, folder / f"part-{part}", steps, progress, **schedule)


def pretrain_clip(
    recipe: Recipe, tokenizer: PreTrainedTokenizerFast, folder: Path, steps: int, progress: Callable | None = None
) -> tuple[CLIPModel, Curve]:
    """The CLIP of the recipe after `steps`: (model, loss curve)."""
    pictures = Captioned(tokenizer, image_processor(recipe), recipe.seed, recipe.clip_scenes)
    model = clip_pair(recipe, tokenizer)
    schedule = {"max_steps": recipe.clip_steps, "learning_rate": recipe.clip_rate, "seed": recipe.seed}
    schedule |= {"per_device_train_batch_size": recipe.clip_batch, "data_seed": recipe.seed}
    with threads(1):  # a convolution's last bits depend on their number, and the kept weights must not
        return model, _train(model, pictures, pictures.collate, folder, steps, progress, **schedule)


# --- What is kept, and the comparison with it


def keep(recipe: Recipe, tokenizer, llm: LlamaForCausalLM, clip: CLIPModel, record: dict, folder: Path) -> None:
    """Write the models to `folder` as float16 checkpoints, and `recipe.json`, which says how they were made."""
    for model, name, words in ((llm, "llm", with_charts(tokenizer)), (clip, "clip", tokenizer)):
        model.half().save_pretrained(folder / name)
        words.save_pretrained(folder / name)
        (folder / name / "model.safetensors").chmod(0o644)
    image_processor(recipe).save_pretrained(folder / "clip")
    hashes = {name: file_hash(folder / name / "model.safetensors") for name in ("llm", "clip")}
    made = {"recipe": asdict(recipe), "hash": recipe.hash(tokenizer), "sha256": hashes}
    write_json(folder / "recipe.json", {**made, **record})


def machine() -> dict[str, str]:
    """What decides the last bits of a float32 result on a CPU: torch, and the code paths that its libraries choose."""
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text() if cpuinfo.exists() else ""
    processor = dict(re.findall(r"^(vendor_id|cpu family|model)\s*: (.+)$", text, flags=re.MULTILINE))
    return {
        "torch": torch.__version__,
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "processor": " ".join(processor.values()) or platform.processor(),
        "mkl": os.environ.get("MKL_CBWR", ""),
    }


def deviations(curves: dict[str, Curve], recorded: dict[str, Curve]) -> pd.DataFrame:
    """Every logged loss beside the recorded one of its step: model, step, loss, recorded, deviation, band, within.

    `deviation` and `band` are shares of the recorded loss. A step that was not recorded raises ValueError.
    """
    rows = []
    for name, curve in curves.items():
        losses = dict(recorded[name])
        for number, (step, loss) in enumerate(curve):
            if step not in losses:
                raise ValueError(f"{name}: no loss is recorded of step {step}, only of {sorted(losses)}")
            kept, band = losses[step], BANDS[name] if number else FIRST_BAND
            row = {"model": name, "step": step, "loss": loss, "recorded": kept, "deviation": abs(loss / kept - 1)}
            rows.append({**row, "band": band, "within": row["deviation"] <= band})
    return pd.DataFrame(rows)
