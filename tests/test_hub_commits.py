"""Names of Hub repositories: what is one, and the commit that a study keeps for it, in its steps' manifests too."""

from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import constants

from sbt.study import manifest
from sbt.utils import hub, paths
from sbt.utils.files import read_json, write_json

OLD, NEW = "1" * 40, "2" * 40
NAME = "me/model"


@pytest.fixture
def push(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Sets the commit that an offline cache has for the branch main of `me/model`."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("SBT_OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.setenv(hub.VARIABLE, "{}")

    def push(commit: str) -> None:
        file = tmp_path / "cache" / "models--me--model" / "refs" / "main"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(commit)

    return push


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("owner/name", True), ("owner/name@v1.0", True), ("owner/name@" + OLD, True), ("owner/name@refs/pr/1", True),
        ("assets/llm", False), ("outputs/x", False), ("sbt/data", False), ("mine/rows.json", False), ("a/b/c", False),
        ("cc3m-595k", False), (7, False),
    ],
)  # fmt: skip
def test_what_is_a_repository(value: object, expected: bool) -> None:
    assert hub.is_name(value) is expected


def test_a_steps_parameters_name_models_and_data_sets() -> None:
    values = {"language_model": "a/b@v1", "base": "a/b@v1", "instruct_data": "c/d", "arm": "e/f", "pretrain_data": "x"}
    assert hub.named(values) == ["a/b@v1", "datasets/c/d"]
    assert hub.named({"checkpoint": "a/b", "revision": "v2", "vision_tower": "c/d"}) == ["c/d", "a/b@v2"]


def test_a_study_keeps_the_commit_it_met_first(push: Callable[[str], None]) -> None:
    study = paths.outputs() / "s"
    assert hub.pin(study, [NAME]) == {}, "nothing is known of it"
    push(OLD)
    hub.pin(study, [NAME, f"{NAME}@{NEW}"])
    push(NEW)
    assert hub.pin(study, [NAME]) == {NAME: OLD, f"{NAME}@{NEW}": NEW}
    assert hub.given(NAME) == (NAME, {"revision": OLD}) and hub.given(f"{NAME}@{NEW}") == (NAME, {"revision": NEW})
    assert hub.given("me/other@v1") == ("me/other", {"revision": "v1"}) and hub.given("me/other") == ("me/other", {})
    assert hub.given(str(paths.root())) == (str(paths.root()), {})
    assert hub.pin(paths.outputs() / "t", [NAME]) == {NAME: NEW}, "another study has its own"


def test_a_changed_commit_makes_the_steps_that_read_it_to_run_and_no_others(push: Callable[[str], None]) -> None:
    push(OLD)
    hub.pin(study := paths.outputs() / "s", [NAME])
    for step, read in (("10_a", {NAME: OLD}), ("20_b", {})):
        values = {"study": "s", "step": step}
        write_json(study / step / "manifest.json", manifest.new_manifest("00_check", values) | {"hub": read})
    reason = {step: manifest.state("00_check", {"study": "s", "step": step}).reason for step in ("10_a", "20_b")}
    assert reason == dict.fromkeys(reason, "not finished")
    write_json(study / hub.PINS, read_json(study / hub.PINS) | {NAME: NEW})
    reason = {step: manifest.state("00_check", {"study": "s", "step": step}).reason for step in ("10_a", "20_b")}
    assert reason == {"10_a": f"{NAME} is at commit {NEW[:7]} now", "20_b": "not finished"}
