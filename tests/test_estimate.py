"""What a step will cost: steps, memory on a card, hours and disk by arithmetic, and the table that shows them."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from conftest import write_notebook

from sbt import benchmarks  # noqa: F401  tells plans what is scored
from sbt.__main__ import main
from sbt.data.registry import SOURCES
from sbt.study import costs, estimate, params, pipeline
from sbt.utils.errors import ParameterError

SEVEN = costs.language("meta-llama/Llama-2-7b-hf").resized(3)
LARGE = costs.vision("openai/clip-vit-large-patch14")
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
        size = sum(file.size for file in SOURCES[name].files) / 1e9
        assert found.gb + found.images_gb == pytest.approx(size, rel=0.05, abs=0.01), name


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


@pytest.mark.parametrize(
    ("work", "seconds"),
    [(replace(STAGE_1, tokens=470), 1.378), (replace(STAGE_1, tokens=470, checkpointing=False), 0.777),
     (replace(LORA, batch=16, tokens=470, also=("connector",)), 1.414), (replace(FULL, batch=8, tokens=470), 1.014)],
)  # fmt: skip
def test_steps_measured_on_an_h200(work: costs.Work, seconds: float) -> None:
    """LLaVA-7B, rows of a picture and 214 tokens of text, shuffled, pictures decoded in the same process."""
    work = replace(work, padded=256 + 214 * costs.padding(work.batch))
    took = 3600 * costs.hours(work, work.batch, costs.CARDS["H200-141GB"]) + work.batch * estimate.PICTURE
    assert took == pytest.approx(seconds, rel=0.3)


@pytest.mark.parametrize(("batch", "tokens_a_second"), [(16, 9_500), (64, 21_500)])
def test_tokens_scored_a_second_on_an_h200(batch: int, tokens_a_second: int) -> None:
    load = estimate.Load(1000, 100)
    took = costs.scoring_seconds(SEVEN, LARGE, load, batch, costs.CARDS["H200-141GB"], half=True)
    assert 1000 * 100 / took == pytest.approx(tokens_a_second, rel=0.1)


SCORE = {"study": "s", "step": "63_pope", "arms": ["a", "b"], "arm_steps": ["30_"], "batch_size": 16}


def test_scoring_is_items_times_arms_times_conditions_times_tokens() -> None:
    def minutes(notebook: str = "63_pope", **values: object) -> float:
        arm = {"step": "30_a", "arm": "a", "connector": "20", "language_model": "meta-llama/Llama-2-7b-hf"}
        found = estimate.step(notebook, SCORE | values, [arm], "A100-80GB")
        assert not set(estimate.TIME) & set(found.unknown)
        fetched = sum(found.fetched.values()) / estimate.DOWNLOAD / 60
        return found.minutes - estimate.START_MINUTES - fetched

    one = minutes(pope_data="x", protocols=["standard"])
    assert minutes(pope_data="x", protocols=["standard"], arms=["a"]) == pytest.approx(one / 2)
    assert minutes(pope_data="x", protocols=["standard", "paper"]) == pytest.approx(one * 4 / 3), "two conditions less"
    assert minutes(pope_data="x", protocols=["standard"], batch_size=64) < one
    assert minutes(pope_data="", protocols=["standard"]) < one / 20, "the micro-world's questions are few"
    vqa = {"questions_file": "x", "protocols": ["standard"]}
    assert minutes("61_vqav2", **vqa) > 10 * one
    worse = {"corruptions": ["fog", "snow"], "severities": [1, 2, 3], "corrupted_limit": 0}
    assert minutes("61_vqav2", **vqa, **worse) == pytest.approx(minutes("61_vqav2", **vqa) * 3)
    unicorn = estimate.step("64_unicorn", SCORE | {"unicorn_data": "hub"}, [], "A100-80GB")
    assert set(estimate.TIME) <= set(unicorn.unknown), "how many questions is not known"


def test_the_released_checkpoints_have_the_sizes_that_their_files_name() -> None:
    """What is fetched and kept, by arithmetic, against the comments of the parameter files and of the plan."""
    folder, total = Path(__file__).parents[1] / "params" / "released", {}
    for file in sorted(folder.glob("*_*.yaml")):
        values = params.load_yaml(file)
        found = estimate.step("25_released_checkpoints", {"study": "x"} | values, (), "A100-80GB")
        (said,) = re.findall(r"Download: ([\d.]+) GB", file.read_text())
        total[values["checkpoint"]] = found.fetched[values["checkpoint"]]
        assert total[values["checkpoint"]] == pytest.approx(float(said), rel=0.02), file.name
    assert len(total) == 16 and sum(total.values()) == pytest.approx(141, rel=0.01)
    plan_text = (folder / "plan.yaml").read_text()
    words = r"at least (\d+) h, ([\d.]+) GB of results and ([\d.]+) GB of downloads"
    said, shown = re.search(words, plan_text), re.search(words, pipeline.plan_table("released"))
    for number, other in zip(said.groups(), shown.groups(), strict=True):
        assert float(other) == pytest.approx(float(number), rel=0.2)


def test_disk_holds_two_checkpoints_and_the_model() -> None:
    most, left = costs.disk_gb(FULL)
    assert most == pytest.approx((4 + 2 * 12) * 6.7426, rel=0.01) and left == pytest.approx(2 * 26.97, rel=0.02)
    files = {"model": 13.0, "pictures": 6.0}
    steps = [estimate.Estimate(10, 1, 189, "arithmetic", left_gb=54, fetched=files)] * 2
    steps.append(estimate.Estimate(1, 1, 6, "measured"))
    assert estimate.disk_gb(steps) == 54 + 54 + 6 + 135
    first, second, _ = once = estimate.fetched_once(steps)
    assert first.fetched == files and second.fetched == {} and second.minutes == 10 - 19 / estimate.DOWNLOAD / 60
    assert estimate.total(once) == "about 15 min, 249.0 GB of results and 19.0 GB of downloads"
    assert estimate.total([replace(first, unknown=estimate.TIME)]).startswith("at least 10 min")


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


def test_a_model_of_unknown_size_costs_nobody_knows_what(project: Path) -> None:
    values = {"study": "tiny", "step": "x", "language_model": "some/llama-8b", "max_steps": 1, "batch_size": 1}
    found = estimate.step("n", values)
    assert {*estimate.TIME, "memory GB", "disk GB"} <= set(found.unknown) and str(found).startswith("at least")
    assert estimate.step("n", values | {"language_model": "HuggingFaceTB/SmolLM2-135M"}).unknown == ()


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
gradient_checkpointing: str = "all"  # x
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
    assert "hours" in shown and "(card: A100-80GB)" in shown and "25,000" in shown and "mm-full" in shown
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
    assert "13.5" in " ".join(lines), "its base is fetched"
    assert lines[-3].split()[:3] == ["50_score", "new", "?"] and "at least" in lines[-1]
