"""Freeze or train each part of a model (frozen, full or LoRA), and a table that shows which."""

from collections.abc import Iterable

import pandas as pd
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn

from sbt.models.image_markers import train_markers
from sbt.models.silence import silence_libraries
from sbt.utils.errors import ParameterError
from sbt.utils.text import nearest

VISION, CONNECTOR, LANGUAGE = "vision tower", "connector", "language model"
POLICIES = {"vision_tower": ("frozen",), "connector": ("frozen", "full"), "language_model": ("frozen", "full", "lora")}
LORA = {"r": 64, "lora_alpha": 16, "lora_dropout": 0.05, "bias": "none"}  # the paper's (SBT:llava/train/train.py:100)
WHOLE = {"embeddings": "embed_tokens", "head": "lm_head"}  # what `also` names, and the modules
LAYERS = {"embeddings": "input", "head": "output"}
ALSO = (*WHOLE, "connector", "image_markers")
PRECISIONS = ("float32", "bfloat16", "float16")
_LINEARS = r"(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"


def set_trainable(
    model: nn.Module,
    policy: dict[str, str],
    lora: dict | None = None,
    *,
    seed: int = 0,
    also: Iterable[str] = (),
    compute: str = "",
) -> nn.Module:
    """Freeze or free each part; returns the model, wrapped by PEFT where the policy asks for LoRA.

    `policy` maps "vision_tower" (always "frozen"), "connector" ("frozen", "full") and "language_model" ("frozen",
    "full", "lora"); what it does not name is frozen. `also` names what trains in full besides: "connector",
    "embeddings" and "head" (the authors train all three beside LoRA), "image_markers" (stage 1: their two rows).
    `lora` are LoraConfig values over the paper's (r 64, alpha 16, dropout 0.05), initialised from `seed`. A fixed
    identity layer in the connector never trains. `compute` ("float16", "bfloat16") keeps frozen weights in that format
    and those that train in float32; "" leaves all as they are. ParameterError names a wrong part or value.
    """
    policy, also = dict(policy), tuple(also)
    _check(model, policy, also)
    if "connector" in also and _projector(model) is not None:
        policy["connector"] = "full"
    model.requires_grad_(False)
    projector = _projector(model)
    if policy.get("language_model") == "lora":
        connector = policy.get("connector") == "full" and projector is not None
        whole = [f"multi_modal_projector.{name}" for name in _free_layers(model)] if connector else []
        whole += [module for name, module in WHOLE.items() if name in also]
        model = _with_lora(model, whole, {**LORA, **(lora or {})}, seed)
    else:
        if policy.get("language_model") == "full":
            for name, parameter in model.named_parameters():
                parameter.requires_grad_(part_of(name) == LANGUAGE)
        if policy.get("connector") == "full" and projector is not None:
            for name in _free_layers(model):
                getattr(projector, name).requires_grad_(True)
        for layer in (getattr(model, f"get_{LAYERS[name]}_embeddings")() for name in WHOLE if name in also):
            layer.weight.requires_grad_(True)
    if "image_markers" in also:
        train_markers(model.get_base_model() if isinstance(model, PeftModel) else model)
    check_frozen(model)
    return _in_precision(model, compute) if compute else model


def _check(model: nn.Module, policy: dict[str, str], also: tuple[str, ...]) -> None:
    for part, how in policy.items():
        if how not in POLICIES.get(part, ()):
            raise ParameterError(f"policy {part}={how!r}: known are {POLICIES}")
    for name in also:
        if name not in ALSO:
            raise ParameterError(f"also: {name!r} is unknown{nearest(str(name), ALSO)}")
    if isinstance(model, PeftModel):
        raise ParameterError("the model has LoRA adapters already: load or merge it before setting another policy")
    quantized, lora = getattr(model, "is_loaded_in_4bit", False), policy.get("language_model") == "lora"
    if quantized and policy.get("language_model") == "full":
        raise ParameterError('4-bit weights cannot be trained: set tuning to lora, or quantization to ""')
    tied = model.get_input_embeddings().weight is model.get_output_embeddings().weight
    if tied and lora and (found := [name for name in WHOLE if name in also]):
        raise ParameterError(
            f"also: {found[0]!r}: embedding and head are one matrix in this model, which adapters would part. Leave "
            "them out, or set tuning to full"
        )


def _in_precision(model: nn.Module, compute: str) -> nn.Module:
    """Frozen weights in `compute`, trained ones in float32, where half precision would lose small updates."""
    if compute not in PRECISIONS:
        raise ParameterError(f"compute={compute!r} is unknown{nearest(compute, PRECISIONS)}")
    for parameter in model.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(torch.float32 if parameter.requires_grad else getattr(torch, compute))
    return model


def check_frozen(model: nn.Module) -> None:
    """Raise ParameterError if a vision tower parameter or a fixed identity layer is set to train."""
    fixed = () if "linear_2" in _free_layers(model) else ("multi_modal_projector.linear_2.",)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and (part_of(name) == VISION or any(layer in name for layer in fixed)):
            raise ParameterError(f"{name} would train: the vision tower and the identity layer stay frozen")


def freeze_table(model: nn.Module) -> pd.DataFrame:
    """Counts by part: `part`, `tensors`, `parameters`, `trained` (parameters that will change)."""
    identity = _projector(model) is not None and "linear_2" not in _free_layers(model)
    rows: dict[str, list[int]] = {}
    for name, parameter in model.named_parameters():
        part = part_of(name)
        if "lora_" in name:
            part = "LoRA adapters"
        elif name.endswith("embed_tokens.markers"):
            part = "image markers"
        elif identity and "linear_2" in name and part == CONNECTOR:
            part = "connector, fixed identity"
        elif ".original_module." in name:
            continue  # PEFT's copy of the connector from before training
        row = rows.setdefault(part, [0, 0, 0])
        row[0] += 1
        row[1] += parameter.numel()
        row[2] += parameter.numel() * parameter.requires_grad
    order = [VISION, CONNECTOR, "connector, fixed identity", "image markers", LANGUAGE, "LoRA adapters"]
    table = [[part, *rows[part]] for part in order if part in rows]
    return pd.DataFrame(table, columns=["part", "tensors", "parameters", "trained"])


def part_of(name: str) -> str:
    """Part of the model a parameter belongs to, by its full name."""
    if "vision_tower." in name:
        return VISION
    return CONNECTOR if "multi_modal_projector." in name else LANGUAGE


def lora_targets(model: nn.Module) -> str:
    """Full-path pattern of the language model's linears. Suffixes alone match CLIP's q_proj and v_proj too."""
    prefix = r".*language_model\." if _projector(model) is not None else r"model\."
    return prefix + r"layers\.\d+\.(self_attn|mlp)\." + _LINEARS


def _with_lora(model: nn.Module, modules_to_save: list[str], lora: dict, seed: int) -> PeftModel:
    config = LoraConfig(
        target_modules=lora_targets(model), modules_to_save=modules_to_save or None, task_type="CAUSAL_LM", **lora
    )
    with silence_libraries(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        wrapped = get_peft_model(model, config)
    wrapped.peft_config["default"].base_model_name_or_path = ""  # arm.json names the parts; this would be a local path
    return wrapped


def _projector(model: nn.Module) -> nn.Module | None:
    core = model.get_base_model() if isinstance(model, PeftModel) else model
    return getattr(core.model, "multi_modal_projector", None)


def _free_layers(model: nn.Module) -> list[str]:
    linear = getattr(model.config, "projector_hidden_act", "linear") == "linear"
    return ["linear_1"] if linear else ["linear_1", "linear_2"]
