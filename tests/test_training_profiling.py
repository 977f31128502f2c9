"""Measuring preparation and training: the numbers are there, add up, and the FLOPs are those that torch counts."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tiny
import torch
from PIL import Image
from tiny_fixtures import small  # noqa: F401 - a fixture
from torch.utils.flop_counter import FlopCounterMode

from sbt import models
from sbt.data import prepare
from sbt.data.json_stream import reader
from sbt.models import Arm
from sbt.models.measure import random_llava
from sbt.training import Collator, Settings
from sbt.training.profiling import (
    ALIKE,
    MODES,
    OURS,
    THEIRS,
    flops,
    generated_rows,
    idle,
    matrix_rate,
    measure_grouping,
    measure_training,
    padding,
    smoke,
)
from sbt.training.profiling_data import IMAGE_TOKENS, WAYS, generate, llama_like, measure_preparation
from sbt.utils import paths
from sbt.utils.errors import RunError

TOWER = {
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 28,
    "patch_size": 14,
}


def make() -> Arm:
    words = tiny.tokenizer()
    words.pad_token = words.unk_token
    return random_llava(words, 64, 2, tower=TOWER)


def test_a_small_measurement_has_every_number(tmp_path: Path) -> None:
    seen = []
    trainers = (OURS, THEIRS, ALIKE)
    frame = measure_training(
        make, tmp_path, batch_size=2, steps=2, warmup=1, words=(12, 20), lora={"r": 4}, trainers=trainers,
        progress=lambda done, total: seen.append((done, total)),
    )  # fmt: skip
    assert list(frame["mode"]) == [mode for mode in MODES for _ in trainers]
    assert list(frame["trainer"]) == ["ours", "TRL default", "TRL, answers only"] * 3
    numbers = frame[["samples_s", "tokens_s", "mfu", "peak_gb", "step_s"]]
    assert np.isfinite(numbers).all(axis=None) and (numbers > 0).all(axis=None)
    assert (frame["mfu"] < 1).all()
    assert np.allclose(frame["samples_s"] * frame["step_s"], 2)
    assert seen[-1] == (9, 9)
    losses = frame.pivot(index="mode", columns="trainer", values="loss")
    assert np.allclose(losses[OURS], losses[ALIKE], atol=1e-5)
    assert (losses[OURS] - losses[THEIRS]).abs().min() > 1e-3, "it trains on every token: the same loss proves nothing"
    assert [path.name for path in tmp_path.iterdir()] == ["images"], "checkpoints stay behind"


@pytest.mark.parametrize("mode", MODES)
def test_the_flops_are_those_torch_counts(tmp_path: Path, mode: str) -> None:
    arm = make()
    model = models.set_trainable(arm.model, MODES[mode], {"r": 4})
    rows = generated_rows(tmp_path, 1, words=(60, 61))
    ours, tokens = flops(model, arm.processor, rows, mode, all_tokens=True)
    batch = Collator(arm.processor, "v1")(rows)
    assert tokens == batch["input_ids"].numel()
    arm.model.set_attn_implementation("eager")  # torch does not count the fused one on a CPU
    with FlopCounterMode(display=False) as counter:
        model(**batch).loss.backward()
    masked = 3 * 2 * 2 * 64 * tokens**2  # the half of the attention that the causal mask does not need
    assert ours + masked == pytest.approx(counter.get_total_flops(), rel=0.02)


def test_the_device_is_idle_where_no_work_covers_the_time() -> None:
    assert idle([(0, 4), (1, 2), (3, 5), (9, 10)]) == pytest.approx(0.4)
    assert idle([(7, 8), (2, 7)]) == 0


def test_each_format_is_tried_and_a_failure_is_told(tmp_path: Path, small: SimpleNamespace) -> None:  # noqa: F811
    frame = smoke(["float32", "fsdp"], tmp_path, str(small.llm), str(small.clip)).set_index("tried")
    assert frame.loc["float32", "steps"] == 2 and np.isfinite(frame.loc["float32", "loss"])
    if not torch.cuda.is_available():
        assert frame.loc["fsdp", "why_not"].startswith("engine 'fsdp' needs GPUs")


TINY = {
    "hidden": 64, "layers": 2, "vocabulary": 0, "dtype": "float32", "questions": 2, "pictures": 1, "batch_size": 2,
    "rows": 60, "images": 6, "step_rows": 16, "padded_together": [2, 4], "batch_sizes": {"full": 1},
    "words": [12, 120],
    "tower": TOWER, "settings": {}, "smoke": ["float32"],
    "pretrain": 48, "instruct": 48, "instruct_images": 24, "captions": 8, "pope": 8, "heldout": 4,
}  # fmt: skip


def test_the_study_of_a_gpu_runs_with_tiny_shapes_without_one(tmp_path: Path) -> None:
    """Its parameter files, notebooks and tables, as on a GPU."""
    values = [text for name, value in TINY.items() for text in ("--set", f"{name}={json.dumps(value)}")]
    done = subprocess.run(
        [sys.executable, "-m", "sbt", "run", "params/gpu-7b", *values],
        env=os.environ | {"SBT_OUTPUTS": str(tmp_path), "CUDA_VISIBLE_DEVICES": ""},
        cwd=paths.package().parent,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    folder = tmp_path / "gpu-7b"
    assert {path.name for path in folder.glob("*/DONE")} == {"DONE"} and len(list(folder.glob("*/DONE"))) == 3
    table = (folder / "96_training_performance" / "comparison.csv").read_text()
    assert all(name in table for name in (OURS, THEIRS, ALIKE))


def test_grouping_saves_padding_where_a_step_has_several_batches() -> None:
    lengths = [int(length) for length in np.random.default_rng(0).lognormal(5, 0.6, 4000)]
    plain, grouped = padding(lengths, 4, accumulation=8).itertuples()
    assert plain.padded > 0.35 and grouped.padded < 0.15
    assert grouped.saved == pytest.approx(1 - grouped.tokens / plain.tokens) and plain.saved == 0
    assert plain.tokens * (1 - plain.padded) == pytest.approx(sum(lengths))
    alone = padding(lengths, 32)  # one batch a step: nothing to sort, all rows of one modality
    assert alone["saved"].abs().max() < 0.02
    images = [number % 2 == 0 for number in range(4000)]
    seen = [length + 576 * image for length, image in zip(lengths, images, strict=True)]
    assert padding(seen, 32, images=images)["saved"][1] > 0.15  # of two modalities there is
    assert padding([7] * 64, 4)["padded"].tolist() == [0, 0]


def test_grouped_batches_are_really_smaller(tmp_path: Path) -> None:
    rows = generated_rows(tmp_path / "images", 24, words=(12, 120))
    settings = Settings(max_steps=2, batch_size=3, accumulation=4, learning_rate=1e-3)
    plain, grouped = measure_grouping(make, rows, tmp_path, settings, mode="stage 1").itertuples()
    assert grouped.tokens < 0.9 * plain.tokens
    assert plain.steps == grouped.steps == 1 and min(plain.seconds, grouped.seconds) > 0


def test_a_vocabulary_may_be_larger_than_the_tokenizer() -> None:
    words = tiny.tokenizer()
    words.pad_token = words.unk_token
    for wanted in (0, 3, 200):
        model = random_llava(words, 64, 1, tower=TOWER, vocabulary=wanted).model
        assert model.lm_head.out_features == model.config.text_config.vocab_size == max(wanted, len(words))


def test_generated_rows_are_ordinary_rows(tmp_path: Path) -> None:
    rows = generated_rows(tmp_path, 3)
    assert rows == generated_rows(tmp_path, 3) and rows != generated_rows(tmp_path, 3, seed=1)
    assert [Image.open(row["images"][0]).size for row in rows] == [(640, 480)] * 3
    assert all(len(row["messages"]) == 4 for row in rows)


def test_the_matrix_rate_is_a_rate() -> None:
    assert 1e7 < matrix_rate(torch.device("cpu"), torch.float32, size=256, repeats=2) < 1e15


def test_generated_rows_are_of_the_80k_kind_and_the_same_again(tmp_path: Path) -> None:
    chat, images = generate(tmp_path / "a", 400, 30)
    assert [path.read_bytes() for path in generate(tmp_path / "b", 400, 30)] == [
        chat.read_bytes(),
        images.read_bytes(),
    ]
    assert 1400 < chat.stat().st_size / 400 < 1800  # 131 MB of 80,000
    turns = [len(row["conversations"]) for _, row in reader(chat)]
    assert turns[1::2] == [2] * 200 and set(turns[0::2]) == {8, 10, 12}


def test_a_tokenizer_of_llamas_kind_knows_its_words() -> None:
    tokenizer = llama_like(["table", "red"])
    found = tokenizer.tokenize("red table")
    assert found == ["▁red", "▁table"] and tokenizer.tokenize("é")[-2:] == ["<0xC3>", "<0xA9>"]


def test_a_way_runs_in_a_process_of_its_own_and_a_failure_is_said(tmp_path: Path) -> None:
    frame = measure_preparation(tmp_path, 300, images=30, ways=WAYS[2:3])
    (row,) = frame.to_dict("records")
    assert row["rows"] == 300 and row["rows/s"] == pytest.approx(300 / row["seconds"]) and 0.05 < row["peak GB"] < 1.5
    again = measure_preparation(tmp_path, 300, images=30, ways=WAYS[2:3])
    assert again["CPU seconds"][0] > 0.3 * row["CPU seconds"], "what was prepared before was not prepared again"
    assert len(prepare.load(tmp_path / "prepared")) == 300
    (tmp_path / "images-30.zip").write_bytes(b"no zip")
    with pytest.raises(RunError, match="(?s)measuring.*no whole zip file"):
        measure_preparation(tmp_path, 300, images=30, ways=WAYS[1:2])
    assert IMAGE_TOKENS == (224 // 14) ** 2
