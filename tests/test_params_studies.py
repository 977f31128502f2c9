"""The studies in params/: every file is taken by its notebook, and what the paper fixes is what they say."""

import functools
import os
import re
from pathlib import Path

import pytest

from sbt import benchmarks  # noqa: F401  tells plans what is scored
from sbt.data.registry import SOURCES
from sbt.study import costs, estimate, params, pipeline, plan
from sbt.utils import env, paths

PARAMS = paths.package().parent / "params"
STUDIES = sorted(file.parent.name for file in PARAMS.glob("*/plan.yaml"))
PAPER = [name for name in STUDIES if name.startswith("paper-")]
OF_THE_PAPER = [*PAPER, *(name for name in STUDIES if name.startswith("ablation-")), "seeds"]
SMALL = ["smol", "colab-t4", "kaggle-2xt4"]  # what is downloaded may lie on another disk than the results
NEW = [*OF_THE_PAPER, *SMALL, "lit"]


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(PARAMS.parent)
    monkeypatch.setenv("SBT_OUTPUTS", str(tmp_path))  # nothing was measured


@functools.cache
def steps(study: str) -> dict[str, plan.Step]:
    return {step.name: step for step in plan.load(study)[1]}


def trainings(study: str) -> list[plan.Step]:
    return [step for step in steps(study).values() if "learning_rate" in step.values and step.estimate.steps]


@pytest.mark.parametrize("study", STUDIES)
def test_every_study_is_taken(study: str) -> None:
    chosen = steps(study).values()
    assert plan.table(chosen, {step.name: "" for step in chosen})
    for step in chosen:
        assert not {"memory GB", "GPU GB"} & {*step.estimate.unknown}, f"{step.name}: a model of unknown size"


@pytest.mark.parametrize("study", NEW)
def test_every_file_of_a_study_is_used_and_names_its_step(study: str) -> None:
    used = {step.file.name: step.name for step in steps(study).values() if step.file}
    assert set(used) == {file.name for file in (PARAMS / study).glob("*.yaml")} - {"plan.yaml"}
    for name, step in used.items():
        assert params.load_yaml(PARAMS / study / name)["step"] == step


@pytest.mark.parametrize("study", STUDIES)
def test_a_report_names_arms_that_its_steps_score(study: str) -> None:
    for report in (step for step in steps(study).values() if step.notebook == "90_report"):
        scored = [steps(study)[name] for name in report.needs if steps(study)[name].scores]
        trained = {other["arm"] for step in scored for other in step.upstream if "arm" in other}
        found = {name: report.values[name] for name in ("tuned", "text_only")}
        own = report.extra.get("arms", {})  # else the notebook's names, where the study has such arms
        assert {arm for arm in (*found.values(), *own.values()) if arm} <= trained, report.name
        roles = {"lora": r"lora$", "l2t": r"l2t$|no-templates", "alpaca": r"^text-alpaca", "orca": r"^text-orca",
                 "no_system": r"^no-system$", "whole_instruction": r"^instruction$"}  # fmt: skip
        roles |= {kind: rf"(^|-){kind}$" for kind in ("uniform", "conversation", "detail", "reasoning")}
        for role, name in roles.items():
            there = [arm for arm in trained if re.search(name, arm) and "text-visual" not in arm]
            named = report.values["arms"].get(role)  # else the report reads the roles from the steps' parameters
            assert not (there and named) or named in there, (report.name, role, there)


@pytest.mark.parametrize("study", NEW)
def test_training_names_steps_that_it_needs(study: str) -> None:
    for step in trainings(study):
        named = {step.values["data"]} | ({step.values["connector"]} if "connector" in step.values else set())
        assert named <= set(step.needs)
        start = next((other for other in step.upstream if other["step"] == step.values.get("connector")), step.values)
        assert start["language_model"] == step.values["language_model"], "the connector is another model's"


@pytest.mark.parametrize("study", NEW)
def test_tokens_are_counted_as_they_are_trained_on(study: str) -> None:
    for step in trainings(study):
        data = next(other for other in step.upstream if other["step"] == step.values["data"])
        tower = step.values if "vision_tower" in step.values else None
        tower = tower or next((other for other in step.upstream if "vision_tower" in other and other != data), data)
        assert data["vision_tower"] == tower["vision_tower"]
        of_chat = data["tokenizer"] == step.values["language_model"].replace("-chat", "")  # the same vocabulary
        assert of_chat or data["tokenizer"] == step.values["language_model"]
        if "arm" in step.values and "authors" not in step.values["arm"]:
            assert data["conversation"] == step.values["conversation"]
        if "image_place" in step.values:  # not of text alone
            assert data["image_place"] == step.values["image_place"] == "front"
        if "image_markers" in step.values:
            assert data["image_markers"] == step.values["image_markers"]


@pytest.mark.parametrize("study", NEW)
def test_a_study_fits_its_card(study: str) -> None:
    card = costs.CARDS[estimate.card_of(study)]
    for step in steps(study).values():
        assert step.estimate.fits, f"{step.name}: {step.estimate}"
        assert step.values.get("dtype") != "bfloat16" or card.bfloat16, "a T4 has no bf16"


@pytest.mark.parametrize("study", NEW)
def test_data_sources_are_known(study: str) -> None:
    for step in steps(study).values():
        for name in ("pretrain_data", "instruct_data", "alpaca_data", "orca_data", "instruct_images_from"):
            if step.values.get(name) and "/" not in step.values[name]:  # a folder of one's own
                assert step.values[name] in SOURCES


@pytest.mark.parametrize("study", NEW)
def test_the_check_asks_for_the_disk_that_the_plan_needs(study: str) -> None:
    found = steps(study)
    need = estimate.disk_gb(step.estimate for step in found.values())
    if study not in SMALL:  # there the training files may go to another disk
        data = estimate.fetched_once(step.estimate for step in found.values() if "pretrain_data" in step.values)
        need += sum(sum(cost.fetched.values()) for cost in data)
    assert need == pytest.approx(found["00_check"].values["min_free_gb"], rel=0.15, abs=5)


@pytest.mark.parametrize("study", STUDIES)
def test_only_the_micro_world_runs_steps_side_by_side(study: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(env, "cores", lambda: 16)
    small = study.startswith("embedded") or len(steps(study)) == 1
    assert (plan.load(study)[0].side_by_side() == 1) is not small


def test_the_papers_steps() -> None:
    """sbt.md 2.1: 4,651 and 2,500 optimizer steps, computed from rows and batches too."""
    found = steps("paper-llama2-7b")
    assert found["20_connector"].estimate.steps == 4651
    for arm in ("30_mm-full", "30_mm-lora", "40_text-visual"):
        assert found[arm].estimate.steps == 2500
    for name, step in found.items():
        if step.estimate.steps:
            _, read, _ = estimate.work_of(step.values, step.upstream)
            rows = step.values["batch_size"] * step.values["accumulation"] * step.values["processes"]
            assert read.rows // rows == step.estimate.steps, name


@pytest.mark.parametrize("study", OF_THE_PAPER)
def test_the_papers_hyperparameters(study: str) -> None:
    for step in trainings(study):
        values = step.values
        rows = values["batch_size"] * values["accumulation"] * values["processes"]
        same = {"schedule": "cosine", "warmup_ratio": 0.03, "weight_decay": 0.0, "epochs": 1.0, "dtype": "bfloat16",
                "save_steps": 0, "group_by_length": False}  # fmt: skip
        assert {name: values[name] for name in same} == same and values["gradient_checkpointing"] == "auto"
        if "vision_tower" in values:
            assert (rows, values["learning_rate"], values["max_steps"]) == (128, 2e-3, 4651)
            assert values["image_markers"] and values["projector"] == "linear" and values["conversation"] == "plain"
            assert values["vision_tower"] == "openai/clip-vit-large-patch14"
            continue
        assert (rows, values["max_steps"]) == (32, 625 if study == "ablation-types" else 2500)
        assert values["learning_rate"] == (2e-4 if values["arm"] == "mm-lora-2e-4" else 2e-5)
        if values["tuning"] == "lora":
            assert values["lora"] == {"r": 64, "lora_alpha": 16, "lora_dropout": 0.05}
            if values["arm"] == "mm-lora":
                assert values["also"] == ["embeddings", "head", "connector"]


def test_the_papers_studies_differ_in_the_model_alone() -> None:
    free = {"study", "language_model", "tokenizer", "conversation", "base", "min_free_gb"}
    kept = {}
    for study in PAPER:
        for name, step in steps(study).items():
            values = {key: value for key, value in step.values.items() if key not in free}
            assert kept.setdefault(name, values) == values, f"{study}/{name}"
    assert len(PAPER) == 7


def test_the_template_is_the_same_with_and_without_images() -> None:
    for study in OF_THE_PAPER:
        found = {step.values["arm"]: step.values["conversation"] for step in trainings(study) if "arm" in step.values}
        of_authors = {arm for arm in found if "authors" in arm}
        assert len({template for arm, template in found.items() if arm not in of_authors}) == 1, study
        assert of_authors == ({"text-visual (authors' template)"} if study == "ablation-text" else set())


def test_ablations_have_equal_sizes() -> None:
    for study in ("ablation-text", "ablation-types"):
        counts = {
            step.name: estimate.data_set(step.values, next(v for v in step.upstream if "pretrain_data" in v)).rows
            for step in trainings(study)
            if "arm" in step.values
        }
        assert set(counts.values()) == {80_000 if study == "ablation-text" else 20_000}, counts


def test_seeds_are_runs_of_one_arm() -> None:
    runs: dict[str, list[int]] = {}
    for step in trainings("seeds"):
        if "arm" in step.values:
            runs.setdefault(step.values["arm"], []).append(step.values["seed"])
    assert runs == {"mm-full": [42, 43, 44], "text-visual": [42, 43, 44]}


def readme_row(study: str) -> str:
    """A study with a card as README's table has it: time, memory of a card, GB of results and of downloads."""
    whole, steps = plan.load(study)
    found = estimate.fetched_once(step.estimate for step in steps)
    most = max(found, key=lambda cost: cost.gpu_gb)
    gpu = f"{most.gpu_gb:.0f}" + (f" on each of {most.processes}" if most.processes > 1 else "")
    time = estimate.total(found).partition(",")[0].removeprefix("about ")
    fetched = sum(sum(cost.fetched.values()) for cost in found)
    return f"| `{study}`, {whole.card} | {time} | {gpu} | {estimate.disk_gb(found):.1f} | {fetched:.1f} |"


@pytest.mark.parametrize("study", [study for study in STUDIES if plan.load(study)[0].card])
def test_the_readme_says_what_the_plan_says(study: str) -> None:
    readme, row = PARAMS.parent / "README.md", readme_row(study)
    if os.environ.get("SBT_WRITE_README"):  # pytest with this set writes the table anew
        old = re.compile(rf"^\| `{study}`, [A-Z]\S+ \| .*\|$", re.MULTILINE)
        readme.write_text(old.sub(row, readme.read_text(encoding="utf-8")), encoding="utf-8")
    assert row in readme.read_text(encoding="utf-8").splitlines(), "SBT_WRITE_README=1 writes it anew"
    kept, fetched = row.split(" | ")[-2:]
    assert f"{kept} GB of results and {fetched.rstrip(' |')} GB of downloads" in pipeline.plan_table(study)
