"""Arms of a study are found by what their arm.json says, and built from what it names."""

from pathlib import Path

import pytest

from sbt.models import arm_parts, list_arms, load_arm
from sbt.utils.errors import CheckpointError, MissingStep, ParameterError
from sbt.utils.files import write_json


def put(folder, arm: str, kind: str, **refs):
    write_json(folder / "model" / "arm.json", {"arm": arm, "kind": kind, **refs})
    return folder


def test_arms_are_named_by_their_content_and_base_comes_first(tmp_path):
    folders = [put(tmp_path / "x", "mm-full", "llava"), put(tmp_path / "y", "text-orca", "lm")]
    assert list(list_arms(folders, base="assets/llm")) == ["base", "mm-full", "text-orca"]
    assert list(list_arms(folders, base="assets/llm", vision=True)) == ["mm-full"]
    assert list(list_arms(folders, ["text-orca"], base="assets/llm")) == ["text-orca"]


def test_steps_that_trained_one_arm_are_its_runs(tmp_path):
    folders = [put(tmp_path / name, "mm-full", "llava") for name in ("30_a", "30_b")]
    found = list_arms([*folders, put(tmp_path / "40", "text-orca", "lm")], base="assets/llm")
    assert list(found) == ["base", "mm-full (run 1)", "mm-full (run 2)", "text-orca"]
    assert [Path(found[f"mm-full (run {k})"]).parent.name for k in (1, 2)] == ["30_a", "30_b"]


def test_a_misspelt_arm_is_an_error_with_a_suggestion(tmp_path):
    with pytest.raises(ParameterError, match="did you mean 'mm-full'"):
        list_arms([put(tmp_path / "x", "mm-full", "llava")], ["mm-ful"])


def test_a_step_without_an_arm_is_an_error(tmp_path):
    with pytest.raises(CheckpointError, match="arm.json does not exist"):
        list_arms([tmp_path / "nothing"])


def test_references_name_the_parts_and_the_own_connector(tmp_path):
    folder = put(tmp_path, "x", "connector", language_model="assets/llm", vision_tower="assets/clip") / "model"
    assert set(arm_parts(folder)) == {"language_model", "vision_tower"}
    (folder / "connector.safetensors").write_bytes(b"")
    assert arm_parts(folder)["connector"] == str(folder / "connector.safetensors")


def test_without_any_arm_the_message_says_which_step_makes_one(tmp_path, capsys):
    with pytest.raises(MissingStep, match=r"embedded has no finished arm that can see: .*sbt run embedded --only 30`"):
        list_arms([put(tmp_path / "x", "text-orca", "lm")], vision=True, study="embedded", steps=["30_", "40_"])
    with pytest.raises(MissingStep, match="no finished arm, and base is empty"):
        list_arms([], study="embedded", steps=[])
    assert list(list_arms([], base="assets/llm", study="embedded")) == ["base"]
    assert "base only" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ([], "'kind' must be one of"),
        ({"kind": ["lm"]}, "'kind' must be one of"),
        ({"language_model": 3}, "'language_model' must be a text or null"),
        ({"dtype": "int8"}, "'dtype' must be one of float32"),
        ({"projector": {}}, "'projector' must be one of None, linear"),
        ({"files": ["model.safetensors"]}, "'files' must give each file its SHA-256"),
        ({"conversation": 1}, "'conversation' must be a text or null"),
    ],
)
def test_an_arm_json_of_another_shape_is_one_line(tmp_path, wrong, words):
    write_json(tmp_path / "arm.json", {"kind": "lm", **wrong} if isinstance(wrong, dict) else wrong)
    with pytest.raises(CheckpointError, match=words) as error:
        load_arm(tmp_path)
    assert "arm.json" in str(error.value) and "\n" not in str(error.value)
