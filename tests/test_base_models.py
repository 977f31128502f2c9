"""The kept base models are what `05_base_models` makes; the notebook itself compares the first hundred steps."""

import random

import pytest

from sbt.microworld import base_models, corpora
from sbt.utils import paths
from sbt.utils.files import file_hash, read_json


@pytest.fixture(scope="module")
def made():
    recipe = base_models.Recipe()
    return recipe, base_models.train_tokenizer(recipe)


def test_kept_models_are_of_this_recipe(made):
    recipe, tokenizer = made
    assert read_json(paths.assets() / "recipe.json")["hash"] == recipe.hash(tokenizer)


def test_another_recipe_has_another_hash(made):
    recipe, tokenizer = made
    assert base_models.Recipe(seed=1).hash(tokenizer) != recipe.hash(tokenizer)


def test_kept_models_are_small_and_whole():
    kept = read_json(paths.assets() / "recipe.json")
    files = [file for file in paths.assets().rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) <= 8_000_000
    for name in ("llm", "clip"):
        assert file_hash(paths.assets() / name / "model.safetensors") == kept["sha256"][name]


def test_the_end_token_is_not_the_id_that_clip_takes_for_an_old_checkpoint(made):
    assert made[1].eos_token_id != 2


def test_near_twins_differ_in_one_property_of_one_object():
    for seed in range(200):
        first, second = corpora.near_twins(random.Random(seed))
        gone = [thing for thing in first.things if thing not in second.things]
        come = [thing for thing in second.things if thing not in first.things]
        assert len(gone) == len(come) == 1
        assert (
            sum(getattr(gone[0], name) != getattr(come[0], name) for name in ("colour", "shape", "size", "cell")) == 1
        )


def test_losses_are_compared_step_by_step_and_tightly_only_at_the_beginning():
    recorded = {"clip": [(25, 4.0), (50, 3.0)], "llm": [(25, 6.0), (50, 5.0)]}
    found = base_models.deviations({"clip": [(25, 4.001), (50, 3.1)], "llm": [(25, 6.0), (50, 5.1)]}, recorded)
    assert found.within.tolist() == [False, True, True, False]
    assert found.deviation[1] == pytest.approx(1 / 30) and found.recorded.tolist() == [4.0, 3.0, 6.0, 5.0]
    assert len(base_models.deviations({"clip": recorded["clip"][:1]}, recorded)) == 1  # a shorter comparison
    with pytest.raises(ValueError, match=r"llm: no loss is recorded of step 75, only of \[25, 50\]"):
        base_models.deviations({"llm": [(75, 1.0)]}, recorded)


def test_the_recorded_machine_says_what_decides_the_last_bits(monkeypatch):
    kept = read_json(paths.assets() / "recipe.json")
    assert set(kept["machine"]) == set(base_models.machine())
    monkeypatch.delenv("MKL_CBWR", raising=False)
    plain = base_models.machine()
    monkeypatch.setenv("MKL_CBWR", "COMPATIBLE")
    assert base_models.machine() == {**plain, "mkl": "COMPATIBLE"}
