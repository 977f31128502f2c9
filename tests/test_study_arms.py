"""Arms of a study are found by what their arm.json says, and built from what it names."""

from pathlib import Path

import pytest

from sbt.models import arm_list
from sbt.utils.errors import CheckpointError, ParameterError
from sbt.utils.files import write_json


def put(folder, arm: str, kind: str, **refs):
    write_json(folder / "model" / "arm.json", {"arm": arm, "kind": kind, **refs})
    return folder


def test_arms_are_named_by_their_content_and_base_comes_first(tmp_path):
    folders = [put(tmp_path / "x", "mm-full", "llava"), put(tmp_path / "y", "text-orca", "lm")]
    assert list(arm_list.arms(folders, base="assets/llm")) == ["base", "mm-full", "text-orca"]
    assert list(arm_list.arms(folders, base="assets/llm", vision=True)) == ["mm-full"]
    assert list(arm_list.arms(folders, ["text-orca"], base="assets/llm")) == ["text-orca"]


def test_steps_that_trained_one_arm_are_its_runs(tmp_path):
    folders = [put(tmp_path / name, "mm-full", "llava") for name in ("30_a", "30_b")]
    found = arm_list.arms([*folders, put(tmp_path / "40", "text-orca", "lm")], base="assets/llm")
    assert list(found) == ["base", "mm-full (run 1)", "mm-full (run 2)", "text-orca"]
    assert [Path(found[f"mm-full (run {k})"]).parent.name for k in (1, 2)] == ["30_a", "30_b"]


def test_a_misspelt_arm_is_an_error_with_a_suggestion(tmp_path):
    with pytest.raises(ParameterError, match="did you mean 'mm-full'"):
        arm_list.arms([put(tmp_path / "x", "mm-full", "llava")], ["mm-ful"])


def test_a_step_without_an_arm_is_an_error(tmp_path):
    with pytest.raises(CheckpointError, match="arm.json does not exist"):
        arm_list.arms([tmp_path / "nothing"])


def test_references_name_the_parts_and_the_own_connector(tmp_path):
    folder = put(tmp_path, "x", "connector", language_model="assets/llm", vision_tower="assets/clip") / "model"
    assert set(arm_list.references(folder)) == {"language_model", "vision_tower"}
    (folder / "connector.safetensors").write_bytes(b"")
    assert arm_list.references(folder)["connector"] == str(folder / "connector.safetensors")
