"""A checkpoint is written while training goes on; what is in it, and how a run ends, is as if it were written at once.

The control is the checkpoint that is written in place, because host memory does not hold a copy.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import test_preference_training as preference_tests
import test_training as training_tests
import tiny
import torch
from accelerate.utils import recursively_apply
from safetensors.torch import load_file
from tiny_fixtures import small  # noqa: F401 - a fixture
from transformers.trainer import OPTIMIZER_NAME
from trl import SFTTrainer

from sbt.training import checkpoints, trainer
from sbt.utils.errors import RunError

PATIENCE = 120  # seconds until a test that hangs fails
RUNS = {"sft": (training_tests.run, training_tests.SETTINGS), "dpo": (preference_tests.run, preference_tests.SETTINGS)}


def in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = psutil.virtual_memory()._replace(available=1)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)


def run(folder: Path, small: SimpleNamespace, kind: str = "sft", save_steps: int = 2, **options: object):  # noqa: F811
    train, settings = RUNS[kind]
    return train(folder, small, "full", replace(settings, save_steps=save_steps, save_total_limit=9), **options)


def own(folder: Path) -> Path:
    return next((folder / "checkpoints").iterdir())


def stop_after(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Let training stop at this step, before the next checkpoint is due."""

    def stop(self: object, args: object, state: object, control: object, **more: object) -> None:
        control.should_training_stop |= state.global_step == step

    monkeypatch.setattr(trainer.TrainingMonitor, "on_step_end", stop)


class Slow:
    """Stands for `checkpoints.save_file` on a slow disk: the first file is written when step `until` is logged."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, until: int) -> None:
        self.until, self.released, self.seen, self.save_file = until, threading.Event(), [], checkpoints.save_file
        monkeypatch.setattr(checkpoints, "save_file", self)

    def __call__(self, tensors: dict, file: Path) -> None:
        assert self.released.wait(PATIENCE), "training stands still while the file is written"
        self.save_file(tensors, file)
        self.seen.append("written")

    def progress(self, step: int, total: int, loss: float) -> None:
        self.seen.append(step)
        if step == self.until:
            self.released.set()


@pytest.mark.parametrize("kind", RUNS)
def test_training_goes_on_while_a_checkpoint_is_written_and_in_it_is_its_own_step(
    tmp_path: Path,
    small: SimpleNamespace,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
) -> None:
    slow = Slow(monkeypatch, until=3)
    behind = run(tmp_path / "behind", small, kind, progress=slow.progress)
    assert slow.seen[:3] == [1, 2, 3]
    in_place(monkeypatch)
    slow = Slow(monkeypatch, until=1)
    at_once = run(tmp_path / "at_once", small, kind, progress=slow.progress)
    assert slow.seen[:4] == [1, 2, "written", 3], "a copy was made that host memory does not hold"
    assert behind.weights_sha256 == at_once.weights_sha256
    files = [own(tmp_path / name) / "checkpoint-2" for name in ("behind", "at_once")]
    assert len({(file / checkpoints.WEIGHTS).read_bytes() for file in files}) == 1
    first, second = (torch.load(file / OPTIMIZER_NAME, weights_only=True) for file in files)
    assert first["param_groups"] == second["param_groups"] and first["state"].keys() == second["state"].keys()
    for number, state in first["state"].items():
        assert all(torch.equal(value, second["state"][number][name]) for name, value in state.items())
    assert [sorted(path.name for path in file.iterdir()) for file in files][0] == sorted(os.listdir(files[1]))
    assert not list(tmp_path.rglob("writing"))


def test_control_without_a_copy_a_later_step_is_in_the_checkpoint(
    tmp_path: Path,
    small: SimpleNamespace,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What `.cpu()` does on a CPU: it shares the tensor that the next step changes."""
    monkeypatch.setattr(
        checkpoints, "host_copy", lambda state: recursively_apply(lambda tensor: tensor.detach().cpu(), state)
    )
    run(tmp_path / "shared", small, progress=Slow(monkeypatch, until=4).progress)
    in_place(monkeypatch)
    monkeypatch.undo()
    run(tmp_path / "copied", small)
    shared, copied = (own(tmp_path / name) / "checkpoint-2" / checkpoints.WEIGHTS for name in ("shared", "copied"))
    name = "lm_head.weight"
    assert not torch.equal(load_file(shared)[name], load_file(copied)[name])


def test_a_copy_shares_nothing_and_takes_at_most_half_of_the_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    parameter, step = torch.nn.Parameter(torch.ones(4, 8)), torch.tensor(3.0)
    state = {"weights": {"a": parameter}, "optimizer": {"state": {0: {"step": step}}, "groups": [{"params": [0]}]}}
    copy = checkpoints.host_copy(state)
    assert copy["optimizer"]["groups"] == [{"params": [0]}] and not copy["weights"]["a"].requires_grad
    with torch.no_grad():
        parameter.zero_()
        step += 1
    assert copy["weights"]["a"].eq(1).all() and copy["optimizer"]["state"][0]["step"] == 3
    for available, fits in ((2 * (4 * 8 + 1) * 4, True), (2 * (4 * 8 + 1) * 4 - 1, False)):
        memory = psutil.virtual_memory()._replace(available=available)
        monkeypatch.setattr(psutil, "virtual_memory", lambda memory=memory: memory)
        assert (checkpoints.host_copy(state) is not None) == fits


def full(*args: object, **kwargs: object) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("save_steps", [2, 4])  # 4: the step after it is the last
@pytest.mark.parametrize("name", ["save_file", "publish"])
def test_an_error_of_the_thread_is_the_one_of_a_save_in_place(
    tmp_path: Path,
    small: SimpleNamespace,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    save_steps: int,
) -> None:
    """Nothing is wrong with the checkpoints after it."""
    steps, said, write = [], [], getattr(checkpoints, name)

    def fail(*args: object) -> None:
        if any(f"checkpoint-{save_steps}" in str(arg) for arg in args if isinstance(arg, Path)):
            full()
        write(*args)

    monkeypatch.setattr(checkpoints, name, fail)
    for prepare in (lambda patch: None, in_place):
        prepare(monkeypatch)
        with pytest.raises(RunError, match="Free some|disk is full") as error:
            run(tmp_path, small, save_steps=save_steps, progress=lambda step, *rest, **more: steps.append(step))
        said.append(str(error.value))
    assert said[0] == said[1]
    assert max(steps) <= save_steps + 2, "no step after the one at which the next checkpoint is due"
    assert checkpoints.newest(own(tmp_path)) is None


def test_an_error_ends_the_run_at_the_next_step(
    tmp_path: Path,
    small: SimpleNamespace,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The next checkpoint, which waits for the thread, is due two steps later."""
    steps, plain = [], trainer.LlavaSFTTrainer.compute_loss

    def compute_loss(self: trainer.LlavaSFTTrainer, *args: object, **kwargs: object) -> object:
        assert self.written is None or self.written.exception(PATIENCE)
        return plain(self, *args, **kwargs)

    monkeypatch.setattr(trainer.LlavaSFTTrainer, "compute_loss", compute_loss)
    monkeypatch.setattr(checkpoints, "save_file", full)
    with pytest.raises(RunError, match="weights cannot be written"):
        run(tmp_path, small, progress=lambda step, *rest, **more: steps.append(step))
    assert steps[-1] in (2, 3), "2: an epoch ends there"


@pytest.mark.parametrize("stops", [True, False])
def test_nothing_writes_after_training_however_it_ends(
    tmp_path: Path,
    small: SimpleNamespace,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    stops: bool,
) -> None:
    slow = Slow(monkeypatch, until=3)
    publish = checkpoints.publish

    def late(*args: object) -> None:
        time.sleep(0.5)
        publish(*args)

    def progress(step: int, total: int, loss: float) -> None:
        slow.progress(step, total, loss)
        if step == 3 and not stops:
            raise tiny.Killed

    monkeypatch.setattr(checkpoints, "publish", late)
    if stops:
        stop_after(monkeypatch, step=3)
        run(tmp_path, small, progress=progress)
    else:
        with pytest.raises(tiny.Killed):
            run(tmp_path, small, progress=progress)
    assert checkpoints.newest(own(tmp_path)).name == "checkpoint-2"
    assert not list(tmp_path.rglob("writing"))


def test_an_error_is_raised_where_training_stops_before_the_next_checkpoint(
    tmp_path: Path,
    small: SimpleNamespace,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ended = threading.Event()

    def fail(*args: object) -> None:
        assert ended.wait(PATIENCE)
        full()

    def train(self: SFTTrainer, *args: object, **kwargs: object) -> object:
        made = plain(self, *args, **kwargs)
        ended.set()
        return made

    plain = SFTTrainer.train
    monkeypatch.setattr(SFTTrainer, "train", train)
    stop_after(monkeypatch, step=3)
    monkeypatch.setattr(checkpoints, "publish", fail)
    with pytest.raises(RunError, match="the disk is full"):
        run(tmp_path, small)


KILLED = """
import sys, time
from pathlib import Path
from types import SimpleNamespace
from sbt.training import checkpoints
from test_background_checkpoints import run

folder, name, *given = sys.argv[1:]
write = getattr(checkpoints, name)

def cut(*args):
    if "checkpoint-4" in str(args[-1]):
        Path(folder, "reached").touch()
        time.sleep(10**6)
    return write(*args)

setattr(checkpoints, name, cut)
llm, clip, *images = given
run(Path(folder), SimpleNamespace(llm=llm, clip=clip, images=images))
"""


@pytest.mark.parametrize("name", ["save_file", "file_hash"])
def test_killed_while_the_thread_writes(tmp_path: Path, small: SimpleNamespace, name: str) -> None:  # noqa: F811
    """`kill -9` before the weights are written, and with all files there but the hashes."""
    whole, folder = run(tmp_path / "whole", small), tmp_path / "cut"
    folder.mkdir()
    given = [str(item) for item in (folder, name, small.llm, small.clip, *small.images)]
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    running = subprocess.Popen([sys.executable, "-c", KILLED, *given], env=os.environ | {"PYTHONPATH": path})
    history, waited = folder / "history.jsonl", time.monotonic()
    while not (folder / "reached").exists() or len(history.read_text().splitlines()) < 5:  # the step after
        assert running.poll() is None and time.monotonic() - waited < PATIENCE
        time.sleep(0.05)
    running.send_signal(signal.SIGKILL)
    running.wait()
    assert (own(folder) / "writing" / "checkpoint-4" / checkpoints.STATE).is_file()
    assert checkpoints.newest(own(folder)).name == "checkpoint-2"
    resumed = run(folder, small)
    assert (resumed.resumed_from, resumed.weights_sha256) == (2, whole.weights_sha256)
    assert resumed.history.equals(whole.history)
    assert not list(folder.rglob("writing"))
