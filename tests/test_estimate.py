"""What a step will cost: steps, memory on a card, hours and disk by arithmetic, and the table that shows them."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from conftest import write_notebook

from sbt.__main__ import main
from sbt.data import registry
from sbt.study import architectures, costs, estimate
from sbt.utils.errors import ParameterError

SEVEN = architectures.language("meta-llama/Llama-2-7b-hf").resized(3)
LARGE = architectures.vision("openai/clip-vit-large-patch14")
AUTHORS = ("embeddings", "head", "connector")
FULL = costs.Work(SEVEN, LARGE, batch=4, tokens=576, checkpointing=True)
LORA = replace(FULL, tuning="lora", also=AUTHORS)
STAGE_1 = replace(FULL, tuning="connector", also=("image_markers",), batch=16, tokens=296, longest=384)

CONNECTOR = {"step": "20_connector", "vision_tower": "openai/clip-vit-large-patch14", "projector": "linear",
             "language_model": "meta-llama/Llama-2-7b-hf", "image_markers": True, "data": "10_data", "max_steps": 0,
             "epochs": 1.0, "batch_size": 16, "accumulation": 2, "processes": 4}  # fmt: skip
TUNED = {"step": "30_mm-lora", "arm": "mm-lora", "connector": "20_connector", "data": "10_data", "tuning": "lora",
         "language_model": "meta-llama/Llama-2-7b-hf", "also": list(AUTHORS), "max_steps": 0, "epochs": 1.0,
         "batch_size": 4, "accumulation": 2, "processes": 4}  # fmt: skip
DATA = {"step": "10_data", "pretrain_data": "cc3m-595k", "instruct_data": "llava-instruct-80k",
        "alpaca_data": "alpaca-52k", "orca_data": "slim-orca", "instruct_images_from": "coco-train2017",
        "pretrain": 1200, "instruct": 3600}  # fmt: skip


def gb(work: costs.Work) -> float:
    return sum(costs.memory(work).values())


def test_the_rows_decide_the_steps() -> None:
    rows = estimate.data_set(CONNECTOR, DATA).rows
    assert rows == 595_375 and rows // 128 == 4651  # whole steps, as transformers 4.31 counted
    assert estimate.optimizer_steps(CONNECTOR, rows) == 4652  # a last, smaller step counts
    assert estimate.optimizer_steps(TUNED, estimate.data_set(TUNED, DATA).rows) == 2500
    assert estimate.optimizer_steps(TUNED | {"max_steps": 7}, rows) == 7
    assert estimate.optimizer_steps(TUNED | {"epochs": 3.0}, 158_000) == 14_814


@pytest.mark.parametrize(
    ("source", "data", "rows"),
    [
        ("visual", {}, 80_000), ("alpaca", {}, 52_002), ("orca", {}, 517_982),
        ("alpaca", {"sample": 80_000}, 52_002), ("alpaca", {"sample": 80_000, "repeat": True}, 80_000),
        ("visual", {"sample": 20_000}, 20_000), ("visual", {"instruct_data": ""}, 3600),
    ],
)  # fmt: skip
def test_samples_and_sources(source: str, data: dict, rows: int) -> None:
    values = {"source": source, "arm": "a"}
    assert estimate.data_set(values, DATA | data).rows == rows
    assert estimate.data_set(values | {"rows": 5}, DATA | data).rows == 5
    assert estimate.data_set(CONNECTOR, DATA | data).rows == 595_375  # a sample is of the instructions


def test_sets_are_those_of_the_download_table() -> None:
    for name, found in estimate.SETS.items():
        size = sum(file.size for file in registry.get(name).files) / 1e9
        assert found.gb == pytest.approx(size, rel=0.05, abs=0.01), name


def test_memory_of_the_papers_runs() -> None:
    """Bytes that are known: float32 weights, gradients and two moments of 6.7e9 weights; frozen ones in bf16."""
    parts = costs.memory(FULL)
    count = sum(costs.trained(FULL).values())
    assert parts["optimizer"] == pytest.approx(costs.FRAGMENTS * 8 * count / 1e9)
    assert 16 * count / 1e9 < gb(FULL) < 165
    assert costs.CARDS["A100-80GB"].memory_gb < gb(FULL), "one A100 does not hold it"
    assert 40 > gb(LORA) > 2 * SEVEN.parameters / 1e9
    assert gb(STAGE_1) < 30


def test_what_engines_spread() -> None:
    whole, spread = costs.memory(FULL), costs.memory(replace(FULL, engine="fsdp", processes=4))
    assert spread["optimizer"] == pytest.approx(whole["optimizer"] / 4)
    assert spread["gradients"] == pytest.approx(whole["gradients"] / 4)
    assert spread["activations"] == whole["activations"], "every process has rows of its own"
    assert gb(replace(FULL, engine="ddp", processes=4)) > gb(FULL), "exchanging gradients takes buckets"
    zero2, zero3 = (gb(replace(FULL, engine=engine, processes=4)) for engine in ("zero2", "zero3"))
    assert gb(FULL) > zero2 > zero3
    assert gb(replace(FULL, engine="fsdp", processes=4)) < costs.CARDS["A100-80GB"].memory_gb


def test_checkpointing_and_four_bits_save_memory_and_take_time() -> None:
    plain, card = replace(LORA, checkpointing=False), costs.CARDS["A100-80GB"]
    assert gb(plain) > gb(LORA) and costs.hours(plain, 100, card) < costs.hours(LORA, 100, card)
    small = replace(LORA, also=("connector",))
    saved = gb(small) - gb(replace(small, quantized=True))
    linears = SEVEN.layers * (SEVEN.block - 2 * SEVEN.hidden)
    assert saved == pytest.approx(costs.FRAGMENTS * (2 - costs.QUANTIZED) * linears / 1e9)
    assert costs.hours(replace(small, quantized=True), 100, card) > costs.hours(small, 100, card)


def test_operations_and_hours() -> None:
    """Six operations a weight and token in full tuning; four where the weights are frozen and the gradient passes."""
    work = replace(FULL, checkpointing=False, tower=None)
    weights = SEVEN.parameters - SEVEN.embedding
    assert costs.operations(work, 1) / (work.tokens * weights) == pytest.approx(6, rel=0.03)
    frozen = replace(work, tuning="connector")
    assert costs.operations(frozen, 1) / (work.tokens * weights) == pytest.approx(4, rel=0.03)
    assert costs.operations(replace(work, checkpointing=True), 1) / costs.operations(work, 1) == pytest.approx(8 / 6)
    card = costs.CARDS["T4"]
    assert costs.hours(replace(work, processes=2), 100, card) == pytest.approx(costs.hours(work, 100, card) / 2)


def test_disk_holds_two_checkpoints_and_the_model() -> None:
    most, left = costs.disk_gb(FULL)
    assert most == pytest.approx((4 + 2 * 12) * 6.7426, rel=0.01) and left == pytest.approx(2 * 26.97, rel=0.02)
    steps = [estimate.Estimate(1, 1, 189, "arithmetic", left_gb=54)] * 2 + [estimate.Estimate(1, 1, 6, "measured")]
    assert estimate.disk_gb(steps) == 54 + 54 + 6 + 135


def test_a_step_knows_the_steps_before_it(project: Path) -> None:
    values = {"study": "tiny"} | TUNED
    work, read, known = estimate.work_of(values, [CONNECTOR, DATA])
    assert known and read.rows == 80_000 and work.language.vocab == 32003 and work.tokens == 320 + 256
    assert costs.trained(work)["LoRA adapters"] == 159_907_840
    assert estimate.work_of(values, [])[1].rows == 0  # nothing is known of its data ...
    for step in (CONNECTOR, DATA):  # ... but for what they ran with
        folder = project / "outputs" / "tiny" / step["step"]
        folder.mkdir(parents=True)
        (folder / "params.yaml").write_text(yaml.safe_dump(step))
    assert estimate.work_of(values, []) == (work, read, True)


def test_an_unknown_model_is_guessed_and_said_to_be(project: Path) -> None:
    values = {"study": "tiny", "step": "x", "language_model": "some/llama-8b", "max_steps": 1, "batch_size": 1}
    found = estimate.step("n", values)
    assert found.source == "guess" and found.memory_gb > 16 * 8.03
    assert estimate.step("n", values | {"language_model": "HuggingFaceTB/SmolLM2-135M"}).source == "arithmetic"


PLAN = """\
title: On a card
card: {card}
steps:
  - {{name: 20_train, notebook: 20_train, set: {{arm: mm-full, batch_size: {batch}}}}}
"""
TRAIN = """\
study: str = "card"  # x
step: str = "20_train"  # x
arm: str = ""  # x
language_model: str = "meta-llama/Llama-2-7b-hf"  # x
max_steps: int = 25000  # x
batch_size: int = 4  # x
gradient_checkpointing: bool = True  # x
engine: str = "fsdp"  # x
processes: int = 4  # x
"""


def test_the_plan_shows_arms_steps_hours_and_what_does_not_fit(project: Path, capsys: pytest.CaptureFixture) -> None:
    write_notebook(project / "notebooks" / "20_train.ipynb", [TRAIN])
    folder = project / "params" / "card"
    folder.mkdir()
    (folder / "plan.yaml").write_text(PLAN.format(card="A100-80GB", batch=4))
    assert main(["plan", "card"]) == 0
    shown = capsys.readouterr().out
    assert "hours" in shown and "4 x A100-80GB" in shown and "25,000" in shown and "mm-full" in shown
    assert "more than" not in shown
    (folder / "plan.yaml").write_text(PLAN.format(card="T4", batch=4))
    assert main(["plan", "card"]) == 0
    assert "GB, more than a T4 has: lower batch_size" in capsys.readouterr().out
    (folder / "plan.yaml").write_text(PLAN.format(card="A100", batch=4))
    assert main(["plan", "card"]) == 2
    assert "params/card/plan.yaml: card 'A100' is unknown; did you mean 'A100-" in capsys.readouterr().err


def test_a_study_without_a_card_is_told_in_minutes(project: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["plan", "tiny"]) == 0
    shown = capsys.readouterr().out
    assert "minutes" in shown and "hours" not in shown and "GPU" not in shown
    assert estimate.card_of("tiny") == "" and estimate.card_of("no-such-study") == ""
    (project / "params" / "tiny" / "plan.yaml").write_text("card: X9\nsteps: []\n")
    with pytest.raises(ParameterError, match="card 'X9' is unknown"):
        estimate.card_of("tiny")


def test_what_nobody_knows_is_a_question_mark(project: Path, capsys: pytest.CaptureFixture) -> None:
    """A 7B model without a card is scored in nobody knows what time, and the total says so."""
    score = 'study: str = "card"  # x\nstep: str = "50_score"  # x\nbase: str = "meta-llama/Llama-2-7b-hf"  # x\n'
    write_notebook(project / "notebooks" / "50_score.ipynb", [score])
    (project / "params" / "card").mkdir()
    (project / "params" / "card" / "plan.yaml").write_text("steps: [{name: 50_score, notebook: 50_score}]\n")
    assert main(["plan", "card"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-3].split()[:3] == ["50_score", "new", "?"] and "at least" in lines[-1]
