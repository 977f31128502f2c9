"""The true shapes on the meta device: what trains in each arm, and what a block keeps for its backward pass."""

import model_shapes as shapes
import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks
from transformers import LlamaConfig, LlamaForCausalLM

from sbt.models import set_trainable
from sbt.study import costs

CLIP = "openai/clip-vit-large-patch14"
AUTHORS = ("embeddings", "head", "connector")


@pytest.mark.parametrize(
    ("ref", "tuning", "also", "projector", "image_markers"),
    [
        ("meta-llama/Llama-2-7b-hf", "connector", ("image_markers",), "linear", True),
        ("meta-llama/Llama-2-7b-hf", "full", (), "mlp2x_gelu", True),
        ("openlm-research/open_llama_3b_v2", "lora", AUTHORS, "linear", True),
        ("meta-llama/Meta-Llama-3-8B", "full", (), "linear", False),
        ("HuggingFaceTB/SmolLM2-135M", "lora", ("connector",), "linear", True),
    ],
)
def test_modules_and_arithmetic_count_the_same(
    ref: str, tuning: str, also: tuple, projector: str, image_markers: bool
) -> None:
    options = {"projector": projector, "also": also, "image_markers": image_markers}
    found = shapes.trainable(ref, tuning, vision_tower=CLIP, **options)
    shape = costs.language(ref).resized(3 if image_markers else 1)
    assert found == costs.trained(costs.Work(shape, costs.vision(CLIP), projector, tuning, 64, also))


def test_lora_at_seven_billion_trains_what_the_authors_train() -> None:
    found = shapes.trainable("meta-llama/Llama-2-7b-hf", "lora")
    assert found == {"LoRA adapters": 159_907_840}
    assert shapes.trainable("openlm-research/open_llama_3b_v2", "lora") == {"LoRA adapters": 101_703_680}


def test_nothing_is_loaded_and_the_tower_has_its_size() -> None:
    model = shapes.build("meta-llama/Llama-2-7b-hf", CLIP, image_markers=True)
    assert all(parameter.is_meta for parameter in model.parameters())
    assert sum(p.numel() for p in model.model.vision_tower.parameters()) == costs.vision(CLIP).parameters
    assert model.get_input_embeddings().num_embeddings == 32003


SHAPE = costs.Language(1, 128, 344, 4, 2, 64)
TOKENS = 250


def saved(layers: int, tuning: str, half: bool) -> float:
    """Bytes a token that autograd keeps in a Llama of so many blocks."""
    config = LlamaConfig(hidden_size=SHAPE.hidden, intermediate_size=SHAPE.intermediate, num_hidden_layers=layers,
                         num_attention_heads=SHAPE.heads, num_key_value_heads=SHAPE.kv_heads, vocab_size=64,
                         attn_implementation="sdpa")  # fmt: skip
    how = {"connector": "frozen"}.get(tuning, tuning)
    lora = {"r": 4, "lora_dropout": 0.0}  # the dropout of a CPU keeps numbers where a GPU's keeps a mask
    model = set_trainable(LlamaForCausalLM(config), {"language_model": how}, lora, compute="bfloat16" if half else "")
    core = (model.get_base_model() if tuning == "lora" else model).train()
    of_weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept, alive = {}, []  # storages are told apart by their address: none may be freed

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in of_weights and TOKENS in tensor.shape:  # copies of weights have no tokens
            kept[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
        return tensor

    stream = torch.float32 if tuning == "full" or not half else torch.bfloat16
    inputs = torch.randn(1, TOKENS, SHAPE.hidden, dtype=stream, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16, enabled=half), saved_tensors_hooks(keep, lambda tensor: tensor):
        core.model(inputs_embeds=inputs, use_cache=False)
    return sum(kept.values()) / TOKENS


@pytest.mark.parametrize(
    ("tuning", "half"), [("connector", False), ("connector", True), ("full", False), ("full", True), ("lora", True)]
)
def test_activations_are_those_that_autograd_keeps(tuning: str, half: bool) -> None:
    """Two more blocks keep what the arithmetic says of two blocks, to 2 %."""
    work = costs.Work(SHAPE, tuning=tuning, half=half, r=4)
    mask = sum(wide for wide, _ in SHAPE.linears.values()) if tuning == "lora" else 0
    found = (saved(3, tuning, half) - saved(1, tuning, half)) / 2
    assert found == pytest.approx(costs.block_activations(work) - mask, rel=0.02)
