"""Pretraining from nothing with transformers' Trainer; a killed run continues from its newest checkpoint."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch.utils.data import Dataset
from transformers import (
    CLIPModel,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)
from transformers.trainer_callback import PrinterCallback

from sbt.microworld.corpora import Captioned, Documents, pad_documents
from sbt.microworld.recipe import Recipe, clip_pair, image_processor, language_model, with_charts
from sbt.models.silence import silence_libraries

Curve = list[tuple[int, float]]


def pretrain(
    model: PreTrainedModel,
    dataset: Dataset,
    collate: Callable,
    folder: Path,
    *,
    steps: int,
    total: int,
    batch: int,
    rate: float,
    seed: int,
    in_order: bool = False,
    progress: Callable | None = None,
) -> Curve:
    """Train for `steps` of a schedule of `total`, in place; returns the loss curve as (step, loss).

    A killed run continues from its newest checkpoint when called again with the same folder. `in_order` keeps the
    order of the data set, for one that is a curriculum.
    """
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=total,
        per_device_train_batch_size=batch,
        learning_rate=rate,
        lr_scheduler_type="cosine",
        warmup_steps=min(200, total // 10),
        weight_decay=0.01,
        adam_beta2=0.98,
        seed=seed,
        data_seed=seed,
        train_sampling_strategy="sequential" if in_order else "random",
        logging_steps=25,
        save_steps=500,
        save_total_limit=1,
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        remove_unused_columns=False,
        dataloader_num_workers=0,
    )
    watch = _Watch(steps, progress)
    with silence_libraries():
        trainer = Trainer(model=model, args=arguments, train_dataset=dataset, data_collator=collate, callbacks=[watch])
        trainer.remove_callback(PrinterCallback)
        trainer.train(resume_from_checkpoint=any(folder.glob("checkpoint-*")) or None)
    return [(row["step"], row["loss"]) for row in trainer.state.log_history if "loss" in row]


def pretrain_language_model(
    recipe: Recipe, tokenizer: PreTrainedTokenizerFast, folder: Path, steps: int, progress: Callable | None = None
) -> tuple[LlamaForCausalLM, Curve]:
    """The Llama of the recipe after `steps` of both parts of its corpus: (model, loss curve).

    The words of the charts enter the vocabulary with the second part.
    """
    model, curve, words = language_model(recipe, tokenizer), [], tokenizer
    for part, total, rate in ((0, recipe.lm_steps, recipe.lm_rate), (1, recipe.chart_steps, recipe.chart_rate)):
        before = part * recipe.lm_steps
        if steps <= before:
            break
        if part:
            words = with_charts(tokenizer)
            set_seed(recipe.seed)
            model.resize_token_embeddings(len(words), mean_resizing=False)
        documents = Documents(words, recipe.seed, total * recipe.lm_batch, charts=bool(part))
        schedule = dict(steps=min(steps - before, total), total=total, rate=rate, batch=recipe.lm_batch)
        collate, own = partial(pad_documents, words), folder / f"part-{part}"
        log = pretrain(model, documents, collate, own, seed=recipe.seed, in_order=True, progress=progress, **schedule)
        curve += [(before + step, loss) for step, loss in log]
    return model, curve


def pretrain_clip(
    recipe: Recipe, tokenizer: PreTrainedTokenizerFast, folder: Path, steps: int, progress: Callable | None = None
) -> tuple[CLIPModel, Curve]:
    """The CLIP of the recipe after `steps`: (model, loss curve)."""
    pictures = Captioned(tokenizer, image_processor(recipe), recipe.seed, recipe.clip_scenes)
    model = clip_pair(recipe, tokenizer)
    schedule = dict(total=recipe.clip_steps, batch=recipe.clip_batch, rate=recipe.clip_rate, seed=recipe.seed)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # a convolution's last bits depend on their number, and the kept weights must not
    try:
        return model, pretrain(model, pictures, pictures.collate, folder, steps=steps, progress=progress, **schedule)
    finally:
        torch.set_num_threads(threads)


class _Watch(TrainerCallback):
    """Reports progress, and stops after `steps` although the schedule is longer."""

    def __init__(self, steps: int, progress):
        self.steps, self.progress = steps, progress

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step >= self.steps:
            control.should_training_stop = True

    def on_log(self, args, state, control, logs=None, **kwargs):
        if self.progress and logs and "loss" in logs:
            self.progress(state.global_step, self.steps, loss=logs["loss"])
