"""The kept base models are what `05_base_models` makes; the notebook itself compares the first hundred steps."""

import pytest

from sbt.microworld import base_models
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
    import random

    for seed in range(200):
        first, second = base_models.near_twins(random.Random(seed))
        gone = [thing for thing in first.things if thing not in second.things]
        come = [thing for thing in second.things if thing not in first.things]
        assert len(gone) == len(come) == 1
        assert (
            sum(getattr(gone[0], name) != getattr(come[0], name) for name in ("colour", "shape", "size", "cell")) == 1
        )
