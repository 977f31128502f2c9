"""Sizes of models by arithmetic: against published counts, the sizes of the released files, and files on the disk."""

import json
import math
import struct
from pathlib import Path

import pytest

from sbt.study import costs
from sbt.utils import paths
from sbt.utils.errors import ParameterError

LARGE = costs.vision("openai/clip-vit-large-patch14")
SEVEN = costs.language("meta-llama/Llama-2-7b-hf")
THREE = costs.language("openlm-research/open_llama_3b_v2")


@pytest.mark.parametrize(
    ("ref", "count"),
    [("huggyllama/llama-7b", 6_738_415_616), ("meta-llama/Llama-2-7b-chat-hf", 6_738_415_616),
     ("lmsys/vicuna-7b-v1.3", 6_738_415_616), ("openllmplayground/openalpaca_3b_600bt_preview", 3_426_473_600),
     ("meta-llama/Meta-Llama-3-8B", 8_030_261_248), ("HuggingFaceTB/SmolLM2-135M", 134_515_008)],
)  # fmt: skip
def test_language_models_have_their_published_number_of_weights(ref: str, count: int) -> None:
    assert costs.language(ref).parameters == count


def test_towers_and_their_features() -> None:
    assert LARGE.parameters == 303_179_776 and LARGE.tokens == 256
    assert costs.vision("openai/clip-vit-large-patch14-336").tokens == 576
    assert costs.vision("openai/clip-vit-base-patch32").tokens == 49


def test_what_the_authors_train_has_the_sizes_of_their_files() -> None:
    """Adapters, embeddings and projector, in bytes of the released checkpoints."""
    assert (SEVEN.lora(64), THREE.lora(64)) == (159_907_840, 101_703_680)
    assert [round(2 * shape.lora(64) / 1e6) for shape in (SEVEN, THREE)] == [320, 203]
    for shape, others, projector, width in ((SEVEN, 533, 541, 4), (THREE, 416, 211, 2)):
        marked, linear = shape.resized(3), costs.connector(shape, LARGE, "linear")
        assert round(2 * (marked.embedding + marked.head + linear) / 1e6) == others  # non_lora_trainables.bin
        assert round(width * (marked.embedding + linear) / 1e6) == projector  # mm_projector.bin
    whole = SEVEN.resized(3).parameters + costs.connector(SEVEN, LARGE, "linear")
    assert round(4 * whole / 1e9, 2) == 26.97  # the fully tuned shards
    assert costs.connector(SEVEN, LARGE, "linear") == 1024 * 4096 + 4096
    assert costs.connector(SEVEN, LARGE, "mlp2x_gelu") == 1024 * 4096 + 4096 + 4096 * 4096 + 4096


def stored(file: Path, prefix: str = "") -> int:
    """Numbers in a safetensors file, from its header alone."""
    with file.open("rb") as stream:
        header = json.loads(stream.read(struct.unpack("<Q", stream.read(8))[0]))
    return sum(
        math.prod(entry["shape"]) for name, entry in header.items() if name.startswith(prefix) and "shape" in entry
    )


def test_a_folder_tells_its_sizes_itself() -> None:
    assets = paths.assets()
    assert costs.language("assets/llm").parameters == stored(assets / "llm" / "model.safetensors")
    towers = stored(assets / "clip" / "model.safetensors", "vision_model.")
    assert costs.vision("assets/clip").parameters == towers


def test_unknown_sizes_are_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match=r"did you mean 'meta-llama/Llama-2-7b-hf'\?.*sbt/study/costs.py"):
        costs.language("meta-lama/Llama-2-7b-hf")
    with pytest.raises(ParameterError, match="config.json does not exist"):
        costs.language(str(tmp_path))
    (tmp_path / "config.json").write_text('{"hidden_size": 4}')
    with pytest.raises(ParameterError, match="config.json: has no 'num_hidden_layers'"):
        costs.vision(str(tmp_path))
    with pytest.raises(ParameterError, match="projector 'liner' is unknown; did you mean 'linear'"):
        costs.connector(SEVEN, LARGE, "liner")
