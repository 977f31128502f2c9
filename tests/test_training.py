"""Training: the known traps of the libraries, each with a control that shows the stock trainer falling into it."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import tiny
import torch
import trl
from datasets import Dataset
from safetensors import SafetensorError
from tiny_fixtures import small  # noqa: F401 - a fixture
from transformers import get_scheduler
from transformers.trainer_utils import get_last_checkpoint
from trl import SFTTrainer
from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

from sbt import models, templates
from sbt.data.conversations import text_twin
from sbt.training import Collator, Settings, checkpoints, response_logprobs, sft, trainer
from sbt.training import settings as settings_module
from sbt.training.settings import SCHEDULES, Result, World
from sbt.training.train import _ANSWERS_ONLY, arguments, arrow_rows, prepare
from sbt.utils.errors import CheckpointError, DataError, ParameterError, RunError

POLICIES = {
    "connector": {"connector": "full"},
    "full": {"connector": "full", "language_model": "full"},
    "lora": {"connector": "full", "language_model": "lora"},
}
SETTINGS = Settings(
    learning_rate=1e-3, max_steps=5, batch_size=4, accumulation=2, save_steps=2, save_minutes=0, weight_decay=0.01
)


def built(small: SimpleNamespace, policy: str) -> tuple:  # noqa: F811
    model, processor = models.assemble(small.llm, small.clip)
    return models.set_trainable(model, POLICIES[policy], {"r": 4, "lora_dropout": 0.1}), processor


def run(folder: Path, small: SimpleNamespace, policy: str, settings: Settings = SETTINGS, **options: object):  # noqa: F811
    model, processor = built(small, policy)
    return sft(model, processor, tiny.rows(small.images), folder, settings, **options)


@pytest.mark.parametrize("policy", POLICIES)
def test_a_killed_run_ends_with_the_very_same_weights(tmp_path: Path, small: SimpleNamespace, policy: str) -> None:  # noqa: F811
    whole = run(tmp_path / "whole", small, policy)
    with pytest.raises(tiny.Killed):
        run(tmp_path / "cut", small, policy, progress=tiny.killed_at(4))
    resumed = run(tmp_path / "cut", small, policy)
    assert (whole.resumed_from, resumed.resumed_from) == (0, 2)
    assert resumed.weights_sha256 == whole.weights_sha256
    assert resumed.history.equals(whole.history)
    assert list(whole.history["step"]) == [1, 2, 3, 4, 5]
    assert whole.weights_sha256 != models.weights_sha256(built(small, policy)[0], trained_only=True)

    again = run(tmp_path / "cut", small, policy)
    assert again.resumed_from == 5
    assert again.weights_sha256 == whole.weights_sha256
    assert again.history.equals(whole.history)


def stock(
    folder: Path,
    small: SimpleNamespace,  # noqa: F811
    policy: str,
    data: object = None,
    steps: int = 4,
    settings: Settings = SETTINGS,
) -> SFTTrainer:
    model, processor = built(small, policy)
    processor.chat_template = templates.load("v1")
    given = arguments(settings, folder, steps, **_ANSWERS_ONLY)
    data = arrow_rows(tiny.rows(small.images), vision=True) if data is None else data
    return SFTTrainer(model=model, args=given, train_dataset=data, processing_class=processor)


def test_control_the_stock_trainer_resumes_with_other_weights(tmp_path: Path, small: SimpleNamespace) -> None:  # noqa: F811
    with models.silence_libraries():
        first = stock(tmp_path / "o", small, "full")
        first.train()
        shutil.rmtree(tmp_path / "o" / "checkpoint-4")
        second = stock(tmp_path / "o", small, "full")
        second.train(resume_from_checkpoint=True)
        assert models.weights_sha256(second.model) != models.weights_sha256(first.model)


def test_control_the_stock_trainer_goes_on_after_the_end(tmp_path: Path, small: SimpleNamespace) -> None:  # noqa: F811
    with models.silence_libraries():
        stock(tmp_path / "o", small, "lora", steps=3).train()
        trainer = stock(tmp_path / "o", small, "lora", steps=3)
        trainer.train(resume_from_checkpoint=get_last_checkpoint(str(tmp_path / "o")))
        assert trainer.state.global_step == 4


def test_a_batch_without_images_passes_when_only_the_connector_trains(
    tmp_path: Path,
    small: SimpleNamespace,  # noqa: F811
) -> None:
    mixed = tiny.rows(small.images)
    rows = [row for row in mixed if not row["images"]] + [row for row in mixed if row["images"]]
    settings = Settings(learning_rate=1e-3, batch_size=1, epochs=1, save_minutes=0)
    model, processor = built(small, "connector")
    result = sft(model, processor, rows, tmp_path, settings)
    assert result.steps == 12
    assert (result.history["grad_norm"] == 0).sum() == 4
    with models.silence_libraries():
        trainer = stock(tmp_path / "o", small, "connector", arrow_rows(text_twin(rows), vision=True))
        with pytest.raises(RuntimeError, match="does not require grad"):
            trainer.train()


def test_nothing_but_text_is_an_error_in_stage_1(tmp_path: Path, small: SimpleNamespace) -> None:  # noqa: F811
    model, processor = built(small, "connector")
    with pytest.raises(RunError, match="no parameter ever received a gradient"):
        sft(model, processor, text_twin(tiny.rows(small.images)), tmp_path, SETTINGS)


def test_damaged_checkpoints_are_passed_over(
    tmp_path: Path,
    small: SimpleNamespace,  # noqa: F811
    capsys: pytest.CaptureFixture,
) -> None:
    settings = Settings(**{**SETTINGS.__dict__, "save_steps": 1, "save_total_limit": 9})
    whole = run(tmp_path, small, "full", settings)
    own = next((tmp_path / "checkpoints").iterdir())
    assert [checkpoints.step_of(path) for path in sorted(own.glob("checkpoint-*"))] == [1, 2, 3, 4, 5]
    weights = own / "checkpoint-5" / checkpoints.WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-10])  # cut short
    (own / "checkpoint-4" / "optimizer.pt").unlink()  # a file gone
    (own / "checkpoint-3" / checkpoints.COMPLETE).unlink()  # never closed
    (own / "checkpoint-9").mkdir()  # begun
    (own / "writing" / "checkpoint-4").mkdir(parents=True)  # killed while written
    capsys.readouterr()
    resumed = run(tmp_path, small, "full", settings)
    said = capsys.readouterr().err
    assert "checkpoint-5 is damaged (trained.safetensors has changed since it was written): training goes on" in said
    assert "checkpoint-4 is damaged (optimizer.pt is missing)" in said
    assert "checkpoint-3 is damaged (complete.json or trainer_state.json cannot be read" in said
    assert resumed.resumed_from == 2
    assert resumed.weights_sha256 == whole.weights_sha256
    assert checkpoints.newest(own).name == "checkpoint-5"
    assert not (own / "writing").exists()


def flip(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def test_a_changed_byte_in_any_file_of_a_checkpoint_means_not_whole(tmp_path: Path, small: SimpleNamespace) -> None:  # noqa: F811
    settings = Settings(**{**SETTINGS.__dict__, "save_total_limit": 9})
    whole = run(tmp_path / "whole", small, "full", settings)
    with pytest.raises(tiny.Killed):
        run(tmp_path / "cut", small, "full", settings, progress=tiny.killed_at(5))
    own = next((tmp_path / "cut" / "checkpoints").iterdir())
    assert checkpoints.newest(own).name == "checkpoint-4"
    files = [path for path in sorted((own / "checkpoint-4").rglob("*")) if path.is_file()]
    assert {"optimizer.pt", "rng_state.pth", "scheduler.pt", checkpoints.WEIGHTS} <= {path.name for path in files}
    for file in files:
        content = file.read_bytes()
        for damaged in (flip(content), bytes(len(content)), b""):
            file.write_bytes(damaged)
            assert checkpoints.newest(own).name == "checkpoint-2", file.name
        file.write_bytes(content)
    assert checkpoints.newest(own).name == "checkpoint-4"
    (own / "checkpoint-4" / "optimizer.pt").write_bytes(flip((own / "checkpoint-4" / "optimizer.pt").read_bytes()))
    resumed = run(tmp_path / "cut", small, "full", settings)
    assert (resumed.resumed_from, resumed.weights_sha256) == (2, whole.weights_sha256)


@pytest.mark.parametrize(("step", "sound"), [(5, 4), (4, 2)])
def test_weights_that_are_not_finite_are_never_saved(
    tmp_path: Path,
    small: SimpleNamespace,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    step: int,
    sound: int,
) -> None:
    """At the last step, and at one where a checkpoint is due: the loss of the step itself is finite."""

    def spoil(
        self: object, args: object, state: object, control: object, model: torch.nn.Module, **more: object
    ) -> None:
        if state.global_step == step - 1:
            model.lm_head.weight.grad[0, 0] = float("nan")

    monkeypatch.setattr(trainer.TrainingMonitor, "on_pre_optimizer_step", spoil)
    words = rf"not finite after step {step} \(lm_head.weight\) and are not saved; the last sound checkpoint is of step"
    for _ in range(2):  # the same call goes on from the sound one
        with pytest.raises(RunError, match=f"{words} {sound}: lower learning_rate") as error:
            run(tmp_path, small, "full")
        assert "\n" not in str(error.value)
        own = next((tmp_path / "checkpoints").iterdir())
        assert [path.name for path in own.glob("checkpoint-*")] == [f"checkpoint-{sound}"]
    monkeypatch.undo()
    resumed = run(tmp_path, small, "full")
    assert resumed.resumed_from == sound
    assert resumed.weights_sha256 == run(tmp_path / "whole", small, "full").weights_sha256


def test_a_step_that_a_scaler_skips_is_no_fault(small: SimpleNamespace) -> None:  # noqa: F811
    model, _ = built(small, "full")
    model.lm_head.weight.grad = torch.full_like(model.lm_head.weight, float("nan"))
    assert checkpoints.not_finite(model) == ""
    with torch.no_grad():
        model.lm_head.weight[3, 2] = float("inf")
    assert checkpoints.not_finite(model) == "lm_head.weight"
    assert checkpoints.not_finite(model, {"lm_head.weight": torch.zeros(1)}) == ""  # what an engine gathered


def test_a_finished_run_that_is_called_again_leaves_the_same_files(tmp_path: Path, small: SimpleNamespace) -> None:  # noqa: F811
    """As after a kill between the last checkpoint and the end: config.json, too."""
    before = built(small, "full")[0].config.to_dict()
    for name in ("first", "again"):
        model, processor = built(small, "full")
        trained = sft(model, processor, tiny.rows(small.images), tmp_path / "trainer", SETTINGS).model
        assert trained.config.to_dict() == before
        parts = {"language_model": str(small.llm), "vision_tower": str(small.clip)}
        models.save_arm(tmp_path / name, trained, processor, conversation="v1", arm="x", **parts)
    first, again = (
        {file.name: file.read_bytes() for file in (tmp_path / name).iterdir()} for name in ("first", "again")
    )
    assert "config.json" in first
    assert first == again


def test_the_history_grows_while_a_run_trains(tmp_path: Path, small: SimpleNamespace) -> None:  # noqa: F811
    lengths = []

    def look(step: int, total: int, loss: float) -> None:
        lines = (tmp_path / "history.jsonl").read_text().splitlines()
        assert json.loads(lines[-1])["loss"] == loss
        lengths.append((step, len(lines)))
        if step == 4:
            raise tiny.Killed

    with pytest.raises(tiny.Killed):
        run(tmp_path, small, "connector", progress=look)
    assert lengths == [(step, step) for step in (1, 2, 3, 4)]
    result = run(tmp_path, small, "connector")  # from step 2: what came after it is written anew
    losses = [json.loads(line)["loss"] for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    assert losses == list(result.history["loss"])


@pytest.mark.parametrize("policy", POLICIES)
def test_the_loss_on_held_out_rows_is_measured_and_changes_nothing(
    tmp_path: Path,
    small: SimpleNamespace,  # noqa: F811
    policy: str,
) -> None:
    heldout, settings = tiny.rows(small.images, 20)[12:], replace(SETTINGS, eval_steps=2)
    plain = run(tmp_path / "plain", small, policy)
    whole = run(tmp_path / "whole", small, policy, settings, heldout=heldout)
    assert whole.weights_sha256 == plain.weights_sha256, "LoRA's dropout has drawn other numbers"
    assert "heldout_loss" not in plain.history
    assert plain.history.equals(whole.history.drop(columns="heldout_loss"))
    measured = whole.history.dropna()
    assert list(measured["step"]) == [2, 4, 5], "every second step and the last"
    arm = models.Arm(whole.model, built(small, policy)[1], "", "v1")
    sums, tokens = response_logprobs(arm, heldout, "v1", 3)
    assert measured["heldout_loss"].iloc[-1] == pytest.approx(-sums.sum() / tokens.sum(), rel=1e-6)
    assert measured["heldout_loss"].is_monotonic_decreasing
    with pytest.raises(tiny.Killed):
        run(tmp_path / "cut", small, policy, settings, heldout=heldout, progress=tiny.killed_at(5))
    resumed = run(tmp_path / "cut", small, policy, settings, heldout=heldout)
    assert (resumed.resumed_from, resumed.weights_sha256) == (4, whole.weights_sha256)
    assert resumed.history.equals(whole.history)
    lines = [json.loads(line) for line in (tmp_path / "cut" / "history.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5], "a step is there twice, or missing"
    assert [line["step"] for line in lines if "heldout_loss" in line] == [2, 4, 5]


def test_held_out_rows_are_asked_for_where_there_are_none(tmp_path: Path, small: SimpleNamespace) -> None:  # noqa: F811
    with pytest.raises(ParameterError, match="eval_steps is set, but no rows are held out"):
        run(tmp_path, small, "connector", replace(SETTINGS, eval_steps=2))
    with pytest.raises(ParameterError, match="eval_steps: engine 'fsdp' has no whole model to measure"):
        rows, world = tiny.rows(small.images), World(2, 0, "fsdp")
        prepare(*built(small, "full"), rows, tmp_path, replace(SETTINGS, eval_steps=2), world, rows)
    for name in ("eval_steps", "workers"):
        with pytest.raises(ParameterError, match=f"{name} must be a whole number from 0 on, found -1"):
            Settings(**{name: -1})


@pytest.mark.parametrize("grouped", [False, True])
def test_loader_workers_change_no_bit(tmp_path: Path, small: SimpleNamespace, grouped: bool) -> None:  # noqa: F811
    settings = replace(SETTINGS, group_by_length=grouped)
    alone = run(tmp_path / "alone", small, "lora", settings)
    helped = replace(settings, workers=2)
    with pytest.raises(tiny.Killed):
        run(tmp_path / "helped", small, "lora", helped, progress=tiny.killed_at(4))
    resumed = run(tmp_path / "helped", small, "lora", helped)
    assert (resumed.resumed_from, resumed.weights_sha256) == (2, alone.weights_sha256)
    assert resumed.history.equals(alone.history)


def test_a_run_that_differs_from_one_with_checkpoints_says_so(
    tmp_path: Path,
    small: SimpleNamespace,  # noqa: F811
    capsys: pytest.CaptureFixture,
) -> None:
    rows = tiny.rows(small.images)
    run(tmp_path, small, "connector")
    assert capsys.readouterr().err == ""
    half = Settings(**{**SETTINGS.__dict__, "bf16": True})
    for chosen, given, words in (
        (half, rows, "differs in bf16 False -> True: this one starts from step 0. To go on from it, set dtype"),
        (SETTINGS, rows[1:], "differs in its rows or starting weights: this one starts from step 0."),
    ):
        prepare(*built(small, "connector"), given, tmp_path, chosen)
        said = capsys.readouterr().err
        assert "checkpoint-5 is of a run that" in said and words in said
    prepare(*built(small, "connector"), rows, tmp_path, SETTINGS)  # a run with checkpoints of its own
    assert capsys.readouterr().err == ""


def test_how_far_the_loss_fell_is_a_sentence() -> None:
    history = pd.DataFrame({"loss": [4.0] * 5 + [3.0] * 5})
    assert Result(torch.nn.Identity(), history, 10, 10, "").loss_sentence() == (
        "The loss fell from 4.00 to 3.00 (-25%) in 10 steps."
    )
    rising = Result(torch.nn.Identity(), history[::-1], 10, 10, "")
    assert rising.loss_sentence() == "The loss did not fall: it went from 3.00 to 4.00 (+33%) in 10 steps."


def test_one_step_trains_since_warm_up_never_takes_all_steps(tmp_path: Path, small: SimpleNamespace) -> None:  # noqa: F811
    settings = replace(SETTINGS, max_steps=1, warmup_ratio=1.0)
    before = models.weights_sha256(built(small, "connector")[0])
    result = run(tmp_path, small, "connector", settings)
    assert result.history["learning_rate"].tolist() == [settings.learning_rate]
    assert result.weights_sha256 != before
    # and no other run's warm-up changes
    for ratio, total, warmup in ((0.03, 200, 6), (0.03, 2, 1), (0.03, 2500, 75), (0.0, 1, 0), (0.03, 33, 1)):
        made = arguments(replace(settings, warmup_ratio=ratio), tmp_path / "out", total)
        assert made.warmup_steps == warmup == math.ceil(ratio * total)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"warmup_ratio": 1.5}, "warmup_ratio is a share of the steps, from 0 to 1, found 1.5"),
        ({"warmup_ratio": math.nan}, "warmup_ratio is a share"),
        ({"schedule": "cosin"}, "schedule 'cosin' is unknown; did you mean 'cosine'"),
        ({"schedule": "warmup_stable_decay"}, "schedule 'warmup_stable_decay' is unknown"),
    ],
)
def test_a_rate_that_cannot_fall_as_asked_is_refused(wrong: dict, words: str) -> None:
    with pytest.raises(ParameterError, match=words):
        Settings(**wrong)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_schedule_that_is_taken_needs_nothing_more(schedule: str) -> None:
    optimizer = torch.optim.SGD(torch.nn.Linear(1, 1).parameters(), lr=1.0)
    falling, rates = get_scheduler(schedule, optimizer, 2, 6), []
    for _ in range(6):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        falling.step()
    assert max(rates) == 1.0 and min(rates) >= 0


def test_a_tracker_is_transformers_and_needs_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ParameterError, match="report_to 'tensorbord' is unknown; did you mean 'tensorboard'"):
        Settings(report_to="tensorbord")
    monkeypatch.setattr(settings_module, "get_available_reporting_integrations", list)
    with pytest.raises(ParameterError, match="report_to 'wandb' needs its package: pip install wandb"):
        Settings(report_to="wandb").check_available()
    Settings().check_available()
    for free in ({"report_to": "wandb"}, {"workers": 2}, {"eval_steps": 3}):
        assert Settings(**free).identity() == Settings().identity()


def test_a_kill_while_a_checkpoint_is_written_leaves_the_one_before(
    tmp_path: Path,
    small: SimpleNamespace,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = run(tmp_path / "whole", small, "lora")
    publish = checkpoints.publish

    def cut(staged: Path, folder: Path, keep: int) -> None:
        if staged.name == "checkpoint-4":
            raise tiny.Killed
        publish(staged, folder, keep)

    monkeypatch.setattr(checkpoints, "publish", cut)
    with pytest.raises(tiny.Killed):
        run(tmp_path / "cut", small, "lora")
    monkeypatch.undo()
    resumed = run(tmp_path / "cut", small, "lora")
    assert resumed.resumed_from == 2
    assert resumed.weights_sha256 == whole.weights_sha256


def test_a_full_disk_is_one_clear_error(
    tmp_path: Path,
    small: SimpleNamespace,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(checkpoints, "save_file", full)
    with pytest.raises(RunError, match=r"weights cannot be written .*No space left.*Free some disk space"):
        run(tmp_path, small, "connector")
    assert not list(tmp_path.rglob("checkpoint-*/complete.json"))


def test_other_settings_rows_or_weights_are_another_run(tmp_path: Path, small: SimpleNamespace) -> None:  # noqa: F811
    model, _ = built(small, "full")
    rows = tiny.rows(small.images)
    other_rows = [*rows[:-1], {**rows[-1], "id": "other"}]
    faster = Settings(**{**SETTINGS.__dict__, "learning_rate": 2e-3})
    often = Settings(**{**SETTINGS.__dict__, "save_steps": 1, "threads": 1})
    arrow, other = arrow_rows(rows, vision=True), arrow_rows(other_rows, vision=True)
    names = [checkpoints.fingerprint(model, r, s) for r, s in ((arrow, SETTINGS), (other, SETTINGS), (arrow, faster))]
    assert checkpoints.fingerprint(model, arrow, often) == names[0]
    with torch.no_grad():
        model.lm_head.weight.zero_()
    names.append(checkpoints.fingerprint(model, arrow, SETTINGS))
    assert len(set(names)) == 4


def test_rows_have_one_name_in_whatever_form_they_come(
    tmp_path: Path,
    small: SimpleNamespace,  # noqa: F811
) -> None:
    """A list, a mapped set, rows drawn from one; each change is seen."""
    model, _ = built(small, "connector")

    def name(rows: object, **changed: object) -> str:
        data = arrow_rows(rows, vision=True)
        return checkpoints.fingerprint(model, data, Settings(**{**SETTINGS.__dict__, **changed}))

    rows = tiny.rows(small.images, 25)
    arrow = Dataset.from_list(rows)
    arrow.save_to_disk(tmp_path / "rows")
    mapped = Dataset.load_from_disk(tmp_path / "rows")
    assert name(rows) == name(arrow) == name(mapped) == name(mapped.add_column("tokens", list(range(25))))
    chosen = [24, 3, *range(5, 17)]
    assert name(mapped.select(chosen)) == name([rows[at] for at in chosen]) != name(rows)
    twin = text_twin(rows)
    blind = Dataset.from_list(twin)
    assert name(twin) == name(blind) == name(blind.remove_columns("images")) != name(rows)
    moved = [{**row, "images": [f"/elsewhere/{Path(image).name}" for image in row["images"]]} for row in rows]
    assert name(moved) == name(rows)
    said = {"role": "user", "content": "Is it?"}, {"role": "assistant", "content": "Yes."}
    plain = [{"id": 1, "images": [], "messages": list(said)}]  # contents as plain text, an id that is a number
    parts = [{"role": turn["role"], "content": [{"type": "text", "text": turn["content"]}]} for turn in said]
    assert name(plain) == name(Dataset.from_list(plain)) == name([{"id": "1", "images": [], "messages": parts}])
    swapped = [{**plain[0], "messages": [{**said[0], "content": "Is it?Y"}, {**said[1], "content": "es."}]}]
    turned = [{**plain[0], "messages": [{**turn, "role": "user"} for turn in said]}]
    pictured = [{**plain[0], "images": ["a.png"]}]
    others = [plain, swapped, turned, pictured, plain * 2, [{**plain[0], "id": 2}]]
    names = [name(other) for other in others]
    assert len(set(names)) == len(others)
    assert names[:4] == [name(Dataset.from_list(other)) for other in others[:4]]
    counted = mapped.add_column("tokens", list(range(25)))
    assert name(counted, group_by_length=True) != name(rows, group_by_length=True)  # other lengths, another order


def test_a_checkpoint_of_other_weights_is_refused(tmp_path: Path, small: SimpleNamespace) -> None:  # noqa: F811
    checkpoints.save_weights(built(small, "connector")[0], tmp_path)
    with pytest.raises(CheckpointError, match="not the weights that train in this run"):
        checkpoints.load_weights(built(small, "full")[0], tmp_path)


def test_a_row_with_nothing_to_learn_stops_the_run(tmp_path: Path, small: SimpleNamespace) -> None:  # noqa: F811
    rows = tiny.rows(small.images)
    rows[5] = {**rows[5], "messages": rows[5]["messages"][:1]}
    model, processor = built(small, "connector")
    with pytest.raises(DataError, match="'row5': no token is trained"):
        sft(model, processor, rows, tmp_path, SETTINGS)


def test_control_cut_answers_train_on_nothing_without_a_word(small: SimpleNamespace) -> None:  # noqa: F811
    _, processor = built(small, "connector")
    row = next(row for row in tiny.rows(small.images) if not row["images"])
    cut = DataCollatorForVisionLanguageModeling(
        processor, max_length=40, assistant_only_loss=True, chat_template=templates.load("v1")
    )
    assert (cut([row])["labels"] == -100).all()
    assert (Collator(processor, "v1")([row])["labels"] != -100).any()


def test_a_loss_that_is_no_number_stops_the_run(tmp_path: Path, small: SimpleNamespace) -> None:  # noqa: F811
    model, processor = built(small, "full")
    with torch.no_grad():
        model.lm_head.weight[5] = float("nan")
    with pytest.raises(RunError, match="the loss is nan at step 1: lower learning_rate"):
        sft(model, processor, tiny.rows(small.images), tmp_path, SETTINGS)


def test_a_frozen_model_and_a_trained_tower_are_refused(tmp_path: Path, small: SimpleNamespace) -> None:  # noqa: F811
    model, processor = models.assemble(small.llm, small.clip)
    with pytest.raises(ParameterError, match="every parameter is frozen"):
        sft(model.requires_grad_(False), processor, tiny.rows(small.images), tmp_path, SETTINGS)
    with pytest.raises(ParameterError, match="the vision tower and the identity layer stay frozen"):
        sft(model.requires_grad_(True), processor, tiny.rows(small.images), tmp_path, SETTINGS)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("policy", POLICIES)
def test_only_what_should_train_changes(tmp_path: Path, small: SimpleNamespace, policy: str) -> None:  # noqa: F811
    before = {name: tensor.clone() for name, tensor in built(small, policy)[0].named_parameters()}
    result = run(tmp_path, small, policy)
    changed = {name for name, tensor in result.model.named_parameters() if not torch.equal(tensor, before[name])}
    assert changed
    assert not any("vision_tower" in name or "linear_2" in name or "original_module" in name for name in changed)
    assert {models.freeze.part_of(name) for name in changed} == (
        {"connector"} if policy == "connector" else {"connector", "language model"}
    )
    if policy == "lora":
        assert all("lora_" in name or "multi_modal_projector" in name for name in changed)


def test_a_language_model_trains_through_the_same_function(tmp_path: Path, small: SimpleNamespace) -> None:  # noqa: F811
    def model() -> tuple:
        lm, words = models.load_language_model(small.llm)
        return models.set_trainable(lm, {"language_model": "full"}), words

    rows = tiny.rows(small.images)
    with pytest.raises(DataError, match=r"'row1': a language model cannot train on images. Use text_twin"):
        sft(*model(), rows, tmp_path / "x", SETTINGS)
    whole = sft(*model(), text_twin(rows), tmp_path / "whole", SETTINGS)
    with pytest.raises(tiny.Killed):
        sft(*model(), text_twin(rows), tmp_path / "cut", SETTINGS, progress=tiny.killed_at(3))
    resumed = sft(*model(), text_twin(rows), tmp_path / "cut", SETTINGS)
    assert resumed.resumed_from == 2
    assert resumed.weights_sha256 == whole.weights_sha256


def test_training_lowers_the_loss_and_leaves_the_model_as_made(tmp_path: Path, small: SimpleNamespace) -> None:  # noqa: F811
    settings = Settings(learning_rate=1e-2, max_steps=30, batch_size=12, save_minutes=0)
    model, processor = built(small, "full")
    seen = []
    result = sft(
        model, processor, tiny.rows(small.images), tmp_path, settings, progress=lambda *a, loss: seen.append(a)
    )
    assert result.history["loss"].iloc[-1] < 0.6 * result.history["loss"].iloc[0]
    assert list(result.history["step"]) == list(range(1, 31))
    assert seen == [(step, 30) for step in range(1, 31)]
    assert "forward" not in model.__dict__
    assert not model.training


@pytest.mark.parametrize("policy", POLICIES)
def test_only_labelled_tokens_reach_the_head(
    tmp_path: Path,
    small: SimpleNamespace,  # noqa: F811
    policy: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scored = []
    plain = trl.trainer.utils._ChunkedLogProbFunction

    def look(hidden: torch.Tensor, *rest: object) -> object:
        scored.append(len(hidden))
        return plain.apply(hidden, *rest)

    monkeypatch.setattr(trl.trainer.utils, "_ChunkedLogProbFunction", SimpleNamespace(apply=look))
    settings = Settings(learning_rate=1e-3, batch_size=12, max_steps=1, save_minutes=0)
    model, processor = built(small, policy)
    batch = Collator(processor, "v1")(tiny.rows(small.images))
    result = sft(model, processor, tiny.rows(small.images), tmp_path / "ours", settings)
    assert scored == [(batch["labels"][:, 1:] != -100).sum().item()]

    with models.silence_libraries():
        control = stock(tmp_path / "stock", small, policy, steps=1, settings=settings)
        control.train()
    assert scored[1] == batch["labels"][:, 1:].numel() > 2 * scored[0]
    for name, theirs in (("loss", "loss"), ("grad_norm", "grad_norm"), ("accuracy", "mean_token_accuracy")):
        assert result.history[name][0] == pytest.approx(control.state.log_history[0][theirs], rel=1e-5)


def test_training_is_quiet(tmp_path: Path, small: SimpleNamespace, capfd: pytest.CaptureFixture) -> None:  # noqa: F811
    run(tmp_path, small, "lora")
    assert capfd.readouterr() == ("", "")


def test_steps_are_counted() -> None:
    settings = Settings(epochs=2, batch_size=4, accumulation=2)
    assert settings.steps_per_epoch(17) == 3
    assert settings.total_steps(17) == 6
    with pytest.raises(ParameterError, match="batch_size must be a number above 0"):
        Settings(batch_size=0)
    with pytest.raises(ParameterError, match="learning_rate must be a number above 0, found '2e-5'"):
        Settings(learning_rate="2e-5")
