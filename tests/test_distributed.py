"""Several processes: the numbers of one process, resumed after a kill; errors as themselves; nothing left running."""

import dataclasses
import json
import math
import os
import shlex
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import tiny
import torch
from accelerate.commands.config.config_args import ClusterConfig, load_config_from_file
from accelerate.utils import DistributedType
from datasets import Dataset
from test_preference_training import pairs
from tiny_fixtures import small  # noqa: F401 - a fixture

from sbt import models
from sbt.models.quantize import make_room
from sbt.training import Collator, Settings, build_model_and_rows, checkpoints, distributed, launch, preference, worker
from sbt.training.distributed import ENGINES, _command, _error, _events, _free_port, follow
from sbt.training.preference import PreferenceSettings
from sbt.training.settings import Result, World
from sbt.training.train import arrow_rows
from sbt.training.trainer import whole_forward
from sbt.utils import paths
from sbt.utils.errors import CheckpointError, DataError, ParameterError, RunError

# 13 rows, 6 a step: three steps an epoch, the last of them one row, so that one process gets none at all
ONE = Settings(learning_rate=1e-3, max_steps=50, batch_size=3, accumulation=2, save_steps=1, save_minutes=0, threads=1)
TWO = dataclasses.replace(ONE, accumulation=1)
FULL = {"connector": "full", "language_model": "full"}


def spec(small: SimpleNamespace, policy: dict = FULL, count: int = 13) -> dict:  # noqa: F811
    parts = {"language_model": str(small.llm), "vision_tower": str(small.clip)}
    return {"model": parts, "train": {"policy": policy}, "rows": tiny.rows(small.images, count)}


def children() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


def close(two: Result, one: Result) -> None:
    """History and weights agree within 1e-5."""
    assert list(two.history["step"]) == list(one.history["step"])
    for column in ("loss", "grad_norm", "learning_rate"):
        assert (one.history[column] - two.history[column]).abs().max() < 1e-5
    for (name, ours), theirs in zip(two.model.named_parameters(), one.model.parameters(), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5), name
    assert two.steps == one.steps


# what trains, in how many steps, and the step after which a process is killed, a second or two ahead of the end
KILLED = {
    "connector": ({"connector": "full"}, 24, 5, "drawn"),
    "lora": ({"connector": "full", "language_model": "lora"}, 24, 4, "list"),
    "full": (FULL, 50, 5, "list"),
}


@pytest.mark.parametrize("policy", KILLED)
def test_two_processes_give_what_one_gives_and_go_on_after_one_is_killed(
    tmp_path: Path,
    small: SimpleNamespace,  # noqa: F811
    policy: str,
) -> None:
    trains, total, last, kind = KILLED[policy]
    one_at_once, two_at_once = (dataclasses.replace(settings, max_steps=total) for settings in (ONE, TWO))
    given = spec(small, trains)
    given["train"] |= {"lora": {"r": 2, "lora_dropout": 0.0}} if policy == "lora" else {}
    listed = dict(given)
    if kind == "drawn":  # a mapped set and the positions drawn from it, as a notebook's `rows` makes it
        Dataset.from_list(tiny.rows(small.images, 15)).save_to_disk(tmp_path / "prepared")
        given["rows"] = Dataset.load_from_disk(tmp_path / "prepared").select(range(13))
    one = launch(listed, tmp_path / "one", one_at_once, engine="")
    steps, before = [], set(children())

    def kill(step: int, total: int, loss: float) -> None:
        steps.append((step, total))
        if step == last:
            began = (tmp_path / "two" / "launch" / "events.1.jsonl").read_text().splitlines()[0]
            os.kill(json.loads(began)["began"], signal.SIGKILL)

    with pytest.raises(RunError, match=r"process 1 of 2 was killed by signal 9 .*goes on from the last checkpoint"):
        launch(given, tmp_path / "two", two_at_once, progress=kill)
    assert steps[:last] == [(step, total) for step in range(1, last + 1)]
    assert set(children()) <= before
    two = launch(given, tmp_path / "two", two_at_once)
    assert last - 1 <= two.resumed_from < total
    close(two, one)
    again = launch(
        listed, tmp_path / "two", two_at_once, built=build_model_and_rows(given)
    )  # finished: starts no process
    assert (again.resumed_from, again.weights_sha256) == (total, two.weights_sha256)
    other = {**given, "rows": tiny.rows(small.images, 14)}  # other rows are not resumed
    model, _, rows = build_model_and_rows(other)
    assert checkpoints.fingerprint(model, arrow_rows(rows, vision=True), two_at_once, World(2, 0, "ddp")) not in [
        path.name for path in (tmp_path / "two" / "checkpoints").iterdir()
    ]


def test_two_machines_give_what_one_process_gives(
    tmp_path: Path,
    small: SimpleNamespace,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The printed command, run by a second launcher, trains the other half of the processes."""
    monkeypatch.setattr(distributed, "PORT", _free_port())
    few = {"max_steps": 4, "save_steps": 0, "eval_steps": 2}
    heldout = {"heldout": tiny.rows(small.images, 16)[12:]}
    one = launch(spec(small), tmp_path / "one", dataclasses.replace(ONE, **few), engine="", **heldout)
    others = []

    def run_it(words: str) -> None:
        command = words.splitlines()[-1].replace("MACHINE_RANK", "1")
        others.append(subprocess.Popen(shlex.split(command), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))

    monkeypatch.setattr(distributed, "note", run_it)
    try:
        settings = dataclasses.replace(TWO, **few)
        two = launch(spec(small), tmp_path / "two", settings, machines=2, main_address="127.0.0.1", **heldout)
        assert others[0].wait(timeout=60) == 0
    finally:
        for other in others:
            other.kill()
    close(two, one)
    assert two.history["heldout_loss"].notna().tolist() == [False, True, False, True]
    assert np.allclose(two.history["heldout_loss"], one.history["heldout_loss"], rtol=1e-5, equal_nan=True)
    assert [path.name for path in sorted((tmp_path / "two" / "launch").glob("events.*"))] == [
        "events.0.jsonl",
        "events.1.jsonl",
    ]


def job(folder: Path, small: SimpleNamespace, rows: list[dict]) -> Path:  # noqa: F811
    folder.mkdir(parents=True, exist_ok=True)
    me = psutil.Process()
    value = {
        "spec": {**spec(small), "rows": rows},
        "heldout": [],
        "method": "Settings",
        "settings": dataclasses.asdict(TWO),
        "folder": str(folder.parent),
        "processes": 1,
        "engine": "",
        "parent": {"pid": me.pid, "created": me.create_time()},
    }
    (folder / "job.json").write_text(json.dumps(value))
    return folder / "job.json"


def test_an_error_in_a_process_is_raised_as_itself(
    tmp_path: Path,
    small: SimpleNamespace,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = tiny.rows(small.images)
    rows[5]["messages"] = rows[5]["messages"][:1]
    monkeypatch.setenv("RANK", "1")
    own = tmp_path / "launch"
    assert worker.main([str(job(own, small, rows))]) == 1
    worker.tell(own, 0, error="DistError", module="torch", message="connection closed by peer")
    (own / "launch.log").write_text("exitcode  : -15 (pid: 3)\n")
    error = _error(own, 2, 1)
    assert type(error) is DataError
    assert str(error).startswith("process 1 of 2: row 'row5': no token is trained")


def test_errors_of_others_and_of_the_launcher_are_told_too(tmp_path: Path) -> None:
    own = tmp_path / "launch"
    own.mkdir(parents=True)
    (own / "launch.log").write_text("Traceback\nImportError: no module\n\n")
    assert "could not be started (status 1): ImportError: no module" in str(_error(own, 2, 1))
    worker.tell(own, 1, began=1)
    worker.tell(own, 1, error="OutOfMemoryError", module="torch", message="CUDA out of memory")
    assert "process 1 of 2: OutOfMemoryError: CUDA out of memory. The whole output is in" in str(_error(own, 2, 1))
    for said in (
        "failed (exitcode: -9) local_rank: 0 (pid: 3)\n",
        "[0]:\n  host  : here\n  rank      : 0 (local_rank: 0)\n  exitcode  : -9 (pid: 3)\n  error_file: <N/A>\n",
    ):
        (own / "launch.log").write_text(f"exitcode  : -15 (pid: 4)\n{said}")
        assert "process 0 of 2 was killed by signal 9" in str(_error(own, 2, 1))
    (own / "launch.log").write_text("exitcode  : -9 (pid: 3)\n")
    assert "one of 2 processes was killed by signal 9" in str(_error(own, 2, 1))


def test_a_line_that_is_being_written_is_left_for_later(tmp_path: Path) -> None:
    assert _events(tmp_path, 0) == []
    (tmp_path / "events.0.jsonl").write_text('{"step": 1}\n{"st')
    assert _events(tmp_path, 0) == [{"step": 1}]


def test_a_process_takes_its_own_gpu_before_a_model_is_built(
    tmp_path: Path,
    small: SimpleNamespace,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", told.append)
    monkeypatch.setattr(
        worker, "build_model_and_rows", lambda spec: told.append("build") or (_ for _ in ()).throw(DataError("end"))
    )
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert worker.main([str(job((tmp_path / "launch"), small, tiny.rows(small.images)))]) == 1
    assert told == [1, "build"]


def test_a_model_leaves_the_gpu_to_the_processes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    told = []
    model = torch.nn.Linear(2, 2)
    monkeypatch.setattr(model, "to", told.append)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: told.append("emptied"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    make_room(model)
    assert told == []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    make_room(model)
    assert told == ["cpu", "emptied"]
    model.is_loaded_in_4bit = True
    make_room(model)
    assert told == ["cpu", "emptied", "emptied"]
    assert "weights of 4 bits cannot be moved" in capsys.readouterr().err


def test_launch_makes_room_before_the_processes_begin(
    tmp_path: Path,
    small: SimpleNamespace,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = []
    monkeypatch.setattr(distributed, "make_room", lambda model: told.append("room"))

    def end(*args: object, **kwargs: object) -> None:
        told.append("processes")
        raise RunError("end")

    monkeypatch.setattr(distributed, "follow", end)
    with pytest.raises(RunError, match="end"):
        launch(spec(small), tmp_path, TWO)
    assert told == ["room", "processes"]


LAUNCHER = """
import json, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
with open(sys.argv[1], "w") as file:
    file.write(json.dumps({"step": 1, "total": 2, "numbers": {"loss": 0.5}}) + "\\n" + '{"half a li')
time.sleep(60)
"""


def test_an_interrupt_leaves_nothing_running(tmp_path: Path) -> None:
    own = tmp_path / "launch"
    own.mkdir(parents=True)
    before = set(children())  # of other tests in this process

    def interrupt(step: int, total: int, loss: float) -> None:
        assert (step, total, loss, len(set(children()) - before)) == (1, 2, 0.5, 2)
        raise KeyboardInterrupt

    command = [sys.executable, "-c", LAUNCHER, str(own / "events.0.jsonl")]
    with pytest.raises(KeyboardInterrupt):
        follow(command, own, 2, interrupt)
    assert set(children()) <= before


def test_a_process_ends_when_the_notebook_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "SECONDS", 0.02)
    notebook = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    ended = threading.Event()
    worker.follow_parent(notebook.pid, psutil.Process(notebook.pid).create_time(), ended.set)
    assert not ended.wait(0.2)
    notebook.kill()
    notebook.wait()
    assert ended.wait(5)
    ended.clear()
    me = psutil.Process()
    worker.follow_parent(me.pid, me.create_time() - 100, ended.set)  # the number is another process's by now
    assert ended.wait(5)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_configurations_are_accelerates(engine: str) -> None:
    config = load_config_from_file(str(paths.package() / "training" / "engines" / f"{engine}.yaml"))
    kinds = {"ddp": DistributedType.MULTI_GPU, "fsdp": DistributedType.FSDP}
    assert isinstance(config, ClusterConfig)
    assert config.distributed_type == kinds.get(engine, DistributedType.DEEPSPEED)
    assert config.mixed_precision is None  # the command line gives it
    if engine.startswith("zero"):
        assert config.deepspeed_config["zero_stage"] == int(engine[-1])
    if engine == "fsdp":
        assert config.fsdp_config["fsdp_transformer_layer_cls_to_wrap"] == "LlamaDecoderLayer"


def test_the_command_names_machines_and_precision(tmp_path: Path) -> None:
    settings = dataclasses.replace(TWO, bf16=True)
    words = _command(tmp_path / "job.json", settings, World(16, 0, "fsdp"), 2, "10.0.0.1")
    given = dict(zip(words[3:-3:2], words[4:-3:2], strict=True))
    wanted = {"--num_processes": "16", "--num_machines": "2", "--machine_rank": "0", "--main_process_port": "29500"}
    wanted |= {"--main_process_ip": "10.0.0.1", "--mixed_precision": "bf16"}
    assert wanted.items() <= given.items()
    assert Path(given["--config_file"]).name == "fsdp.yaml"
    alone = _command(tmp_path / "job.json", settings, World(2, 0, "ddp"), 1, "")
    assert "--main_process_ip" not in alone
    assert _free_port() > 1023


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what is missing without a GPU")
def test_what_is_missing_is_named(tmp_path: Path, small: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    def go(**options: object) -> None:
        launch(spec(small), tmp_path, TWO, **options)

    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ParameterError, match=r"engine 'zero3' needs DeepSpeed: pip install -e '.\[multi-gpu\]'"):
        go(engine="zero3")
    with pytest.raises(ParameterError, match="engine 'fsdp' needs GPUs"):
        go(engine="fsdp")
    with pytest.raises(ParameterError, match="engine 'dp' is unknown; did you mean 'ddp'"):
        go(engine="dp")
    with pytest.raises(ParameterError, match="the same number on each machine"):
        go(processes=3, machines=2, main_address="10.0.0.1")
    with pytest.raises(ParameterError, match="need main_address"):
        go(processes=4, machines=2)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ParameterError, match="2 processes on this machine but 1 GPUs"):
        go()
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what is missing without a GPU")
def test_settings_that_this_machine_cannot_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for given, words in (
        ({"fp16": True}, "fp16 needs a GPU"),
        ({"optimizer": "paged_adamw_8bit"}, r"'paged_adamw_8bit' needs bitsandbytes: pip install -e \".\[gpu\]\""),
        ({"liger": True}, r"liger needs liger-kernel: pip install"),
    ):
        with pytest.raises(ParameterError, match=words):
            Settings(**given).check_available()
    Settings(bf16=True).check_available()
    with pytest.raises(ParameterError, match="exclude each other"):
        Settings(fp16=True, bf16=True)
    with pytest.raises(ParameterError, match="optimizer 'adam_torch' is unknown; did you mean 'adamw_torch'"):
        Settings(optimizer="adam_torch")


def test_a_spec_builds_what_the_notebook_builds(tmp_path: Path, small: SimpleNamespace) -> None:  # noqa: F811
    lora = {"policy": {"connector": "full", "language_model": "lora"}, "lora": {"r": 2}, "seed": 3}
    ours, _, _ = build_model_and_rows({**spec(small), "train": lora})
    theirs = models.set_trainable(models.assemble(small.llm, small.clip)[0], **lora)
    assert models.weights_sha256(ours) == models.weights_sha256(theirs)
    assert models.weights_sha256(ours, trained_only=True) == models.weights_sha256(theirs, trained_only=True)
    free = {"policy": {"language_model": "full"}}
    text, processor, _ = build_model_and_rows({"model": {"language_model": small.llm}, "train": free, "rows": []})
    assert all(parameter.requires_grad for parameter in text.parameters())
    models.save_arm(tmp_path / "arm", text, processor, conversation="v1", language_model=small.llm)
    loaded = {"arm": tmp_path / "arm", "dtype": "bfloat16"}
    arm, _, _ = build_model_and_rows({"model": loaded, "train": {"policy": {}}, "rows": []})
    assert arm.dtype == torch.bfloat16
    for wrong, words in (
        ({"modl": {}}, "neither an 'arm' nor a 'language_model'"),
        ({"model": {}}, "neither an 'arm' nor a 'language_model'"),
    ):
        with pytest.raises(ParameterError, match=words):
            build_model_and_rows({"rows": [], **wrong})
    with pytest.raises(CheckpointError, match="does not exist"):
        build_model_and_rows({"model": {"arm": "outputs/none"}, "rows": []})


def test_rows_come_from_a_file_a_folder_or_a_list(tmp_path: Path, small: SimpleNamespace) -> None:  # noqa: F811
    def rows_of(given: dict) -> object:
        return build_model_and_rows({**spec(small), **given})[2]

    rows = tiny.rows(small.images)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Dataset.from_list(rows).save_to_disk(tmp_path / "saved")
    assert rows_of({"rows": str(tmp_path / "rows.jsonl")}) == rows_of({"rows": rows}) == rows
    saved = rows_of({"rows": tmp_path / "saved"})
    assert isinstance(saved, Dataset)
    assert list(saved["id"]) == [row["id"] for row in rows]
    with pytest.raises(DataError, match="no prepared data. Run the data preparation first"):
        rows_of({"rows": tmp_path})
    with pytest.raises(ParameterError, match="no 'rows'"):
        rows_of({"rows": None})


def test_a_prepared_data_set_trains_as_its_rows_do(tmp_path: Path, small: SimpleNamespace) -> None:  # noqa: F811
    settings = dataclasses.replace(ONE, max_steps=2)
    listed = launch(spec(small), tmp_path / "listed", settings, engine="")
    Dataset.from_list(spec(small)["rows"]).save_to_disk(tmp_path / "saved")
    saved = launch({**spec(small), "rows": tmp_path / "saved"}, tmp_path / "mapped", settings, engine="")
    assert saved.weights_sha256 == listed.weights_sha256


def test_every_module_runs_and_counts_nothing_on_a_batch_without_images(small: SimpleNamespace) -> None:  # noqa: F811
    model, processor, _ = build_model_and_rows(spec(small))
    ids = processor.tokenizer("Is there a red star?", return_tensors="pt").input_ids
    ran = []
    model.model.multi_modal_projector.register_forward_hook(lambda *args: ran.append(True))

    def gradients() -> list[torch.Tensor | None]:
        model.zero_grad()
        model(input_ids=ids, labels=ids).loss.backward()
        return [parameter.grad for parameter in model.parameters() if parameter.requires_grad]

    plain = gradients()
    assert not ran and any(gradient is None for gradient in plain)  # the connector: a process that waits for it hangs
    with whole_forward(model):
        whole = gradients()
    assert len(ran) == 1
    for before, after in zip(plain, whole, strict=True):
        assert torch.equal(after, torch.zeros_like(after) if before is None else before)
    gradients()
    assert len(ran) == 1


@pytest.mark.parametrize("policy", ["lora", "full"])
def test_two_processes_align_as_one_does_and_go_on_after_one_is_killed(
    tmp_path: Path,
    small: SimpleNamespace,  # noqa: F811
    policy: str,
) -> None:
    """Eleven pairs, six a step: of an epoch's last five, one process gets three and the other one two."""
    some = {"sft_weight": 0.5, "label_smoothing": 0.1} if policy == "full" else {}
    two_at_once = PreferenceSettings(**{**dataclasses.asdict(TWO), "max_steps": 12, "warmup_ratio": 0.0, **some})
    one_at_once = dataclasses.replace(two_at_once, accumulation=2)
    given = {**spec(small, KILLED[policy][0]), "rows": pairs(small.images, 11)}
    given["train"] |= {"lora": {"r": 2, "lora_dropout": 0.1}} if policy == "lora" else {}
    one = launch(given, tmp_path / "one", one_at_once, engine="")

    def kill(step: int, total: int, loss: float) -> None:
        if step == 5:
            began = (tmp_path / "two" / "launch" / "events.1.jsonl").read_text().splitlines()[0]
            os.kill(json.loads(began)["began"], signal.SIGKILL)

    with pytest.raises(RunError, match="process 1 of 2 was killed by signal 9"):
        launch(given, tmp_path / "two", two_at_once, progress=kill)
    two = launch(given, tmp_path / "two", two_at_once)
    assert 4 <= two.resumed_from < 12
    close(two, one)
    whole = two.history["step"] % 2 == 1  # of a short step TRL logs the mean of the batches' means
    for column in ("preferred", "margin", "chosen_logp"):
        assert np.allclose(two.history[column][whole], one.history[column][whole], atol=1e-4), column
    if not some:
        assert abs(two.history["loss"].iloc[0] - math.log(2)) < 1e-6
    references = [next((tmp_path / name).rglob("reference.json")) for name in ("one", "two")]
    assert np.allclose(*(json.loads(file.read_text()) for file in references), atol=1e-5)
    with pytest.raises(ParameterError, match="engine 'fsdp' is not for dpo: set it to 'ddp'"):
        preference.prepare(*build_model_and_rows(given), tmp_path, two_at_once, World(2, 0, "fsdp"))


def test_pairs_count_alike_whatever_batches_and_processes_hold_them(tmp_path: Path, small: SimpleNamespace) -> None:  # noqa: F811
    """A batch without a pair of its own counts nothing; in one process TRL's means weigh short batches more."""
    settings = PreferenceSettings(batch_size=3, accumulation=2, max_steps=1, warmup_ratio=0, save_minutes=0, threads=1)
    given = {**spec(small), "rows": pairs(small.images, 4)}
    apart = launch(given, tmp_path / "apart", settings, engine="")  # batches of 3 and of 1
    together = launch(given, tmp_path / "together", dataclasses.replace(settings, batch_size=4), engine="")
    assert apart.history["grad_norm"][0] == pytest.approx(together.history["grad_norm"][0], rel=1e-4)
    made = preference.Pairs(Collator(build_model_and_rows(given)[1], "v1"), given["rows"])
    made.reference = [[-1.0, -2.0]] * 4
    rest, nothing = made([{"pair": 3}, {"pair": 4}]), made([{"pair": 4}, {"pair": 4}])
    assert (int(rest["count"]), len(rest["input_ids"])) == (1, 2)
    assert (int(nothing["count"]), len(nothing["input_ids"])) == (0, 2)
