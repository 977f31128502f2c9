"""LoRA adapters of an arm, put over a language model by itself whose weights they leave as they are.

model = put_adapters(folder, sharing(base), image=True)
"""

import copy
import re
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from peft.utils.other import get_pattern_key
from torch import nn
from transformers import LlamaForCausalLM

from sbt.models.llava import read_safetensors
from sbt.models.silence import silence_libraries
from sbt.utils import paths
from sbt.utils.errors import CheckpointError
from sbt.utils.files import read_json

WEIGHTS_FILE, CONFIG_FILE = "adapter_model.safetensors", "adapter_config.json"
_PREFIX, _INSIDE_LLAVA = "base_model.model.", "model.language_model."
_REMEDY = "Use the adapters of an arm of this study, over the base that its arm.json names"
_HONOURED = ("r", "lora_alpha", "lora_dropout", "fan_in_fan_out", "use_rslora", "use_dora", "lora_bias", "task_type")
# Which modules are adapted is read from the tensors; patterns are translated; the others do not change the function.
_REPLACED = ("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "modules_to_save",
             "rank_pattern", "alpha_pattern", "inference_mode", "base_model_name_or_path", "revision", "auto_mapping",
             "peft_version")  # fmt: skip
_HARMLESS_STARTS = (True, False, "gaussian", "orthogonal")  # other ways of starting LoRA rewrite the base's weights


def sharing(model: LlamaForCausalLM, apart: tuple[nn.Parameter, ...] = ()) -> LlamaForCausalLM:
    """A copy of the modules over the same parameters; instead of those `apart`, new ones over the same memory."""
    memo = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    memo |= {id(tensor): nn.Parameter(tensor.data, requires_grad=False) for tensor in apart}
    return copy.deepcopy(model, memo)


def put_adapters(
    folder: Path, model: LlamaForCausalLM, *, image: bool, low_rank_only: bool = False
) -> LlamaForCausalLM:
    """`model` with the adapters saved in `folder` and the tensors saved beside them, in evaluation mode.

    `model` is a copy made by `sharing`: its parameters are replaced, never written to. `image` says that the adapters
    were trained in a LLaVA, whose connector is left out. `low_rank_only` leaves out the language model's tensors that
    were trained in full, too. CheckpointError names the file and a key that is unknown,
    missing or misshapen, or an option of PEFT that this cannot honour.
    """
    file = folder / WEIGHTS_FILE
    adapters, saved = _translated(file, image)
    if not low_rank_only:
        for key, (name, tensor) in saved.items():
            _replace(file, model, key, name, tensor)
    modules = dict(model.named_modules())
    for key, (name, _) in adapters.items():
        if _module(name) not in modules:
            raise CheckpointError(f"{paths.shown(file)}: {key} belongs to no module of the language model")
    config = _config(folder / CONFIG_FILE, sorted({_module(name) for name, _ in adapters.values()}), image)
    with silence_libraries():
        wrapped = get_peft_model(model, config)
        wanted = get_peft_model_state_dict(wrapped, save_embedding_layers=False)
    for key, (name, tensor) in adapters.items():
        _check_shape(file, key, tensor, wanted.pop(_PREFIX + name, None))
    if wanted:
        raise CheckpointError(f"{paths.shown(file)}: holds no {min(wanted)}. {_REMEDY}")
    with silence_libraries():
        set_peft_model_state_dict(wrapped, {_PREFIX + name: tensor for name, tensor in adapters.values()})
    return wrapped.get_base_model().requires_grad_(False).eval()


def _translated(file: Path, image: bool) -> tuple[dict, dict]:
    """Adapters and tensors trained in full: key in the file -> (name in a language model by itself, tensor)."""
    adapters, saved = {}, {}
    inside = _INSIDE_LLAVA if image else "model."
    for key, tensor in read_safetensors(file).items():
        name = key.removeprefix(_PREFIX)
        if image and name != key and name.startswith("model.multi_modal_projector."):
            continue  # text never passes through it
        if name == key or not name.startswith((inside, "lm_head.")):
            raise CheckpointError(f"{paths.shown(file)}: {key} is no key of a language model's adapters. {_REMEDY}")
        name = "model." + name.removeprefix(inside) if name.startswith(inside) else name
        (adapters if ".lora_" in name else saved)[key] = name, tensor
    if not adapters:
        raise CheckpointError(f"{paths.shown(file)}: holds no low-rank adapters of the language model. {_REMEDY}")
    return adapters, saved


def _module(name: str) -> str:
    return name.partition(".lora_")[0]


def _replace(file: Path, model: LlamaForCausalLM, key: str, name: str, tensor: torch.Tensor) -> None:
    path, _, leaf = name.rpartition(".")
    module = dict(model.named_modules()).get(path)
    old = None if module is None else module._parameters.get(leaf)
    _check_shape(file, key, tensor, old)
    setattr(module, leaf, nn.Parameter(tensor.to(old), requires_grad=False))


def _check_shape(file: Path, key: str, tensor: torch.Tensor, wanted: torch.Tensor | None) -> None:
    if wanted is None or wanted.shape != tensor.shape:
        there = "nothing of that name" if wanted is None else tuple(wanted.shape)
        raise CheckpointError(f"{paths.shown(file)}: {key} is {tuple(tensor.shape)}, the model has {there}. {_REMEDY}")


def _config(file: Path, targets: list[str], image: bool) -> LoraConfig:
    """The saved options for the modules `targets`, which are named as in a language model by itself."""
    saved, defaults = read_json(file), LoraConfig().to_dict()
    for option, value in saved.items():
        known = option in (*_HONOURED, *_REPLACED) or (option in defaults and value == defaults[option])
        if not known and not (option == "init_lora_weights" and value in _HARMLESS_STARTS):
            raise CheckpointError(
                f"{paths.shown(file)}: {option}={value!r} cannot be kept apart from the base. Take lora='merged'"
            )
    before = {name: re.sub(r"^model\.", _INSIDE_LLAVA, name) if image else name for name in targets}
    patterns = {}
    for option in ("rank_pattern", "alpha_pattern"):
        pattern = saved.get(option) or {}
        found = {name: get_pattern_key(pattern, old) for name, old in before.items()}
        patterns[option] = {re.escape(name): pattern[hit] for name, hit in found.items() if hit in pattern}
    options = {option: saved[option] for option in _HONOURED if option in saved}
    return LoraConfig(**options, **patterns, target_modules=targets)
