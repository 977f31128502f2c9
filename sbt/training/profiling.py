"""Cost of training at full size: speed, memory, padding; random weights on generated rows.

measure_training(partial(measure.random_llava, tokenizer, 4096, 32), run.path("scratch"), batch_size=16)
"""

import contextlib
import gc
import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import nn
from transformers.trainer_callback import PrinterCallback
from trl import SFTConfig, SFTTrainer

from sbt import templates
from sbt.models import Arm, set_trainable, silence_libraries
from sbt.models.freeze import PRECISIONS
from sbt.models.measure import measure
from sbt.training.collator import IGNORED, Order, labels
from sbt.training.distributed import ENGINES, launch
from sbt.training.settings import Settings
from sbt.training.train import arrow_rows, sft
from sbt.training.trainer import TrainingMonitor, core_of
from sbt.utils.errors import first_line

MODES = {
    "stage 1": {"connector": "full"},
    "LoRA": {"connector": "full", "language_model": "lora"},
    "full": {"connector": "full", "language_model": "full"},
}
OURS, THEIRS, ALIKE = "ours", "TRL default", "TRL, answers only"
_SHORT = ("the", "red", "star", "circle", "stands", "above", "left", "near", "two", "what", "where", "is")


def generated_rows(folder: Path, count: int, *, words: tuple[int, int] = (40, 160), seed: int = 0) -> list[dict]:
    """Rows with an image each (JPEG, 640 x 480) and two questions with answers of `words` random words in all."""
    folder.mkdir(parents=True, exist_ok=True)
    rng, rows = np.random.default_rng(seed), []
    for number in range(count):
        small = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        small.resize((640, 480), Image.Resampling.BICUBIC).save(folder / f"{number}.jpg")
        text = rng.choice(_SHORT, int(rng.integers(*words)))
        turns = [" ".join(part) for part in np.array_split(text, [4, len(text) // 2, len(text) // 2 + 6])]
        messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": f"\n{turns[0]}?"}]}]
        for role, turn in zip(("assistant", "user", "assistant"), turns[1:], strict=True):
            messages.append({"role": role, "content": [{"type": "text", "text": f"{turn}."}]})
        rows.append({"id": str(number), "images": [str(folder / f"{number}.jpg")], "messages": messages})
    return rows


def padding(
    lengths: Sequence[int],
    batch_size: int,
    *,
    images: Sequence[bool] | None = None,
    accumulation: int = 1,
    epochs: int = 3,
    seed: int = 0,
) -> pd.DataFrame:
    """Share of tokens that are padding, of rows with `lengths` (tokens, images included), shuffled and grouped.

    One row an `order` ("plain", "grouped"): `padded` (share), `tokens` an epoch with padding, `saved` (share of the
    plain order's tokens). `batch_size` rows are padded together. `Settings.group_by_length` sorts within a step of
    `batch_size * accumulation` rows (of all processes), so where a step is one batch it gains by modality alone.
    """
    images = [True] * len(lengths) if images is None else images
    step, rows = batch_size * accumulation, []
    for name, grouping in (("plain", {}), ("grouped", {"lengths": lengths, "images": images})):
        total = 0
        for epoch in range(epochs):
            order = list(Order(len(lengths), step, seed=seed + epoch, **grouping))
            batches = (order[start : start + batch_size] for start in range(0, len(order), batch_size))
            total += sum(len(batch) * max(lengths[index] for index in batch) for batch in batches)
        rows.append({"order": name, "padded": 1 - epochs * sum(lengths) / total, "tokens": total / epochs})
    return pd.DataFrame(rows).assign(saved=lambda frame: 1 - frame["tokens"] / frame["tokens"].iloc[0])


def measure_grouping(
    make: Callable[[], Arm], rows: Sequence[dict], folder: Path, settings: Settings, *, mode: str = "full"
) -> pd.DataFrame:
    """Runs in plain and in grouped order: `seconds` of all `steps` but the first, `tokens` with padding, `peak_gb`."""
    runs = []
    for name, group in (("plain", False), ("grouped", True)):
        chosen = replace(settings, group_by_length=group, save_minutes=0, padding_free="off")
        times, cost = _trained(Path(folder), _ours, *_prepared(make, mode, None, chosen), rows, chosen)
        runs.append({"order": name, "steps": len(times) - 2, "seconds": times[-1] - times[1], **cost})
    return pd.DataFrame(runs)


def measure_training(
    make: Callable[[], Arm],
    folder: Path,
    *,
    modes: Sequence[str] = tuple(MODES),
    batch_size: int = 8,
    batch_sizes: Mapping[str, int] | None = None,
    accumulation: int = 1,
    steps: int = 6,
    warmup: int = 2,
    words: tuple[int, int] = (40, 160),
    lora: Mapping | None = None,
    settings: Mapping | None = None,
    trainers: Sequence[str] = (OURS, THEIRS),
    profile: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    """By mode and trainer: `samples_s`, `tokens_s` (without padding), `mfu`, `peak_gb`, `step_s`, `loss` (first step).

    `make` gives a fresh arm each time. Every row is seen once, as in an epoch over real data; the first `warmup` steps
    do not count. `batch_sizes` are those of single modes. `settings` are values of `Settings` (bf16, workers ...).
    `mfu` is `flops` over `matrix_rate`. THEIRS is TRL's trainer with its defaults except `max_length`, which cuts
    image tokens off: it trains on every token. ALIKE trains on the same tokens as ours, in the same precision: its
    loss must equal ours. `profile` adds, on a GPU, `idle`: the share of time in which it has nothing to do, of a
    further run whose every kernel is recorded, which slows the host, so that it is less without.
    """
    costs: list[dict] = []
    for mode in modes:
        size = {"batch_size": (batch_sizes or {}).get(mode, batch_size), "accumulation": accumulation}
        rows = generated_rows(Path(folder) / "images", math.prod(size.values()) * (steps + warmup), words=words)
        read = warmup if warmup and steps % warmup == 0 else 1  # figures: where timing begins, and then as seldom
        size |= {"max_steps": steps + warmup, "save_minutes": 0, "log_steps": read}
        chosen = Settings(**{**size, **(settings or {})})
        for trainer, run in ((name, _runs(chosen)[name]) for name in trainers):
            model, processor = _prepared(make, mode, lora, chosen)
            rate = matrix_rate(model.device, torch.bfloat16 if chosen.bf16 else model.dtype)
            needed, tokens = flops(model, processor, rows, mode, all_tokens=trainer == THEIRS)
            times, cost = _trained(Path(folder), run, model, processor, rows, chosen)
            step = (times[-1] - times[warmup]) / (len(times) - 1 - warmup)
            speed = 1 / (step * (steps + warmup))  # how often a second all rows go through
            each = {"samples_s": speed * len(rows), "tokens_s": speed * tokens, "mfu": speed * needed / rate}
            each |= {"peak_gb": cost["peak_gb"], "step_s": step, "loss": cost["loss"]}
            costs.append({"mode": mode, "trainer": trainer, **each})
            if profile and model.device.type == "cuda":
                costs[-1]["idle"] = _idle(Path(folder), run, model, processor, rows, chosen, warmup)
            del model, processor  # before the next one is made
            if progress is not None:
                progress(len(costs), len(modes) * len(trainers))
    return pd.DataFrame(costs)


def _runs(chosen: Settings) -> dict[str, Callable[..., float]]:
    again = chosen.gradient_checkpointing != "none"
    same = {"bf16": chosen.bf16, "fp16": chosen.fp16, "gradient_checkpointing": again}
    return {OURS: _ours, THEIRS: _theirs, ALIKE: partial(_theirs, assistant_only_loss=True, **same)}


def _idle(folder: Path, run: Callable[..., float], *given: object) -> float:
    """`idle` of a further run, after its warm-up steps."""
    *trained, warmup = given
    profiler = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA])
    _trained(folder, run, *trained, profiler, warmup)
    return idle([(one.time_range.start, one.time_range.end) for one in profiler.events()])


def idle(work: Sequence[tuple[float, float]]) -> float:
    """The share of the time from the first beginning to the last end that none of the works, (begin, end), takes."""
    busy, until = 0.0, -math.inf
    for begin, end in sorted(work):
        busy += max(0.0, end - max(begin, until))
        until = max(until, end)
    return 1 - busy / (until - min(begin for begin, _ in work))


def flops(
    model: nn.Module, processor: object, rows: Sequence[dict], mode: str, *, all_tokens: bool = False
) -> tuple[float, int]:
    """FLOPs that training on `rows` once needs, nothing recomputed and no padding; and the rows' tokens.

    Two a weight and token forward, two backward for what lies below, two for a weight that trains (Kaplan et al.
    2020). Attention: what the causal mask leaves. Head: on trained tokens (`all_tokens`: on all). Tower: no backward.
    """
    core = core_of(model)
    text, tower = core.config.text_config, core.config.vision_config
    patches = (tower.image_size // tower.patch_size) ** 2 + 1
    made = labels(processor, rows, "v1")
    lengths = [len(ids) for ids, _ in made]
    scored = sum(lengths) if all_tokens else sum(target != IGNORED for _, targets in made for target in targets)
    adapters = sum(tensor.numel() for name, tensor in model.named_parameters() if "lora_" in name)
    layers = _size(core.model.language_model.layers) - adapters
    seen = patches * sum(len(row["images"]) for row in rows)
    linear = 2 * (layers * sum(lengths) + core.lm_head.weight.numel() * scored)
    attention = 2 * text.num_hidden_layers * text.hidden_size * sum(length**2 for length in lengths)
    vision = (2 * _size(core.model.vision_tower) + 4 * tower.num_hidden_layers * tower.hidden_size * patches) * seen
    connector = sum(tensor.numel() for tensor in core.model.multi_modal_projector.parameters() if tensor.requires_grad)
    trained = 6 * (connector * seen + adapters * sum(lengths))
    return (2 + (mode == "full")) * linear + 3 * attention + vision + trained, sum(lengths)


def matrix_rate(device: torch.device, dtype: torch.dtype, *, size: int = 0, repeats: int = 5) -> float:
    """FLOP/s that a product of two square matrices reaches on a device, the best of `repeats` after a first one."""
    size = size or (8192 if device.type == "cuda" else 1024)
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    times = []
    for _ in range(repeats + 2):
        (a @ b)[0, 0].item()  # waits until the product is there
        times.append(time.perf_counter())
    return 2 * size**3 / min(np.diff(times))


def smoke(
    tried: Sequence[str], folder: Path, language_model: str, vision_tower: str, *, steps: int = 2
) -> pd.DataFrame:
    """Two steps of stage 2 with each of `tried` (number formats, 4bit, engines) on this machine: `loss` or `why_not`.

    Engines run in one process, which spreads nothing: it shows that they work here, not what they save.
    """
    rows, found = generated_rows(Path(folder) / "images", 8, words=(12, 24)), []
    for name in tried:
        half = name if name in PRECISIONS else "bfloat16" if torch.cuda.is_available() else "float32"
        tuning = "lora" if name == "4bit" else "full"
        parts = {"language_model": language_model, "vision_tower": vision_tower}
        parts |= {"quantization": "4bit", "dtype": half} if name == "4bit" else {"dtype": "float32"}
        policy = {"connector": "full", "language_model": tuning}
        compute = "" if name == "fsdp" else half  # which needs one format in a shard
        spec = {"model": parts, "train": {"policy": policy, "compute": compute}, "rows": rows}
        settings = Settings(
            max_steps=steps, batch_size=4, save_minutes=0, bf16=half == "bfloat16", fp16=half == "float16"
        )
        engine = name if name in ENGINES else ""
        try:
            done = launch(spec, Path(folder) / name, settings, engine=engine, processes=1)
            found.append({"tried": name, "steps": done.steps, "loss": done.history["loss"].iloc[-1], "why_not": ""})
        except Exception as error:  # whatever a machine or a library raises: the other formats are tried all the same
            found.append({"tried": name, "steps": 0, "loss": float("nan"), "why_not": first_line(error)})
    return pd.DataFrame(found, columns=["tried", "steps", "loss", "why_not"])


def _prepared(
    make: Callable[[], Arm], mode: str, lora: Mapping | None, settings: Settings
) -> tuple[nn.Module, object]:
    """A fresh model, what trains in float32 and the rest in the format that is computed in, as in a study."""
    compute = "bfloat16" if settings.bf16 else "float16" if settings.fp16 else ""
    arm = make()
    return set_trainable(arm.model, MODES[mode], dict(lora or {}), compute=compute), arm.processor


def _trained(
    folder: Path,
    run: Callable[..., float],
    model: nn.Module,
    processor: object,
    rows: list,
    settings: Settings,
    profiler: torch.profiler.profile | None = None,
    warmup: int = 0,
) -> tuple[list[float], dict[str, float]]:
    """When a run began and each of its steps ended, its first `loss`, its `tokens` with padding and its `peak_gb`.

    `profiler` looks on from the end of the last step of `warmup` to the end of the last step of all.
    """
    folder.mkdir(parents=True, exist_ok=True)
    gc.collect()  # a trainer and what refers to it hold each other, and with them the optimizer of the run before
    torch.cuda.empty_cache()
    times = [time.perf_counter()]

    def tick(*args: object, **numbers: object) -> None:
        times.append(time.perf_counter())
        if profiler is not None and len(times) - 1 in (warmup, settings.max_steps):
            profiler.start() if len(times) - 1 == warmup else profiler.stop()

    with tempfile.TemporaryDirectory(dir=folder) as empty:  # in a used folder it would resume
        call = partial(run, model, processor, rows, settings, Path(empty), tick)
        loss, cost = measure(core_of(model).model, call)
    return times, {"loss": loss, "tokens": cost["tokens"], "peak_gb": cost["peak_gb"]}


def _size(module: nn.Module) -> int:
    return sum(tensor.numel() for tensor in module.parameters())


class _Measured(Exception):
    """The last step is done: what follows, a checkpoint of all that trains, is not measured."""


def _ours(model: nn.Module, processor: object, rows: list, settings: Settings, folder: Path, tick: Callable) -> float:
    losses = []

    def look(step: int, total: int, loss: float) -> None:
        losses.append(loss)
        tick()
        if step == total:
            raise _Measured

    with contextlib.suppress(_Measured):
        sft(model, processor, rows, folder, settings, progress=look)
    return losses[0]


def _theirs(
    model: nn.Module, processor: object, rows: list, settings: Settings, folder: Path, tick: Callable, **more: object
) -> float:
    processor.chat_template = templates.load("v1")
    with silence_libraries():
        arguments = SFTConfig(
            output_dir=str(folder / "trl"),
            max_steps=settings.max_steps,
            per_device_train_batch_size=settings.batch_size,
            gradient_accumulation_steps=settings.accumulation,
            max_length=None,
            use_cpu=not torch.cuda.is_available(),
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            seed=settings.seed,  # the same rows in each step as ours
            **more,
        )
        given = {"args": arguments, "train_dataset": arrow_rows(rows, vision=True), "processing_class": processor}
        trainer = SFTTrainer(model=model, **given, callbacks=[TrainingMonitor(settings.max_steps, 0, tick)])
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return trainer.state.log_history[0]["loss"]
