"""4-bit weights of bitsandbytes for small GPUs (QLoRA), an optional extra: checked before anything is loaded."""

import gc
import importlib.util

import torch
from torch import nn
from transformers import BitsAndBytesConfig, LlamaForCausalLM, PreTrainedModel

from sbt.utils.errors import ParameterError
from sbt.utils.progress import note
from sbt.utils.text import nearest

KINDS = ("", "4bit")
WITHOUT = 'set quantization to ""'


def four_bit(quantization: str, dtype: str) -> dict[str, object]:
    """Options of `from_pretrained` for NormalFloat4 with doubly quantized scales; {} for "".

    `dtype` is what products are computed in. They are put on the GPU that torch has chosen (`torch.cuda.set_device`),
    and stay there. Source: QLoRA (Dettmers et al. 2023). ParameterError where bitsandbytes
    or CUDA is missing.
    """
    if quantization not in KINDS:
        raise ParameterError(f"quantization={quantization!r} is unknown{nearest(str(quantization), KINDS[1:])}")
    if not quantization:
        return {}
    if not torch.cuda.is_available():
        raise ParameterError(f"quantization='4bit' needs an NVIDIA GPU, and there is none: {WITHOUT}")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ParameterError(f"quantization='4bit' needs bitsandbytes: pip install -e '.[gpu]', or {WITHOUT}")
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=getattr(torch, dtype),
    )
    return {"quantization_config": config, "device_map": {"": torch.cuda.current_device()}}


def quantized(model: PreTrainedModel, language: LlamaForCausalLM) -> None:
    """Tell a LLaVA that the linear layers of its language model are in 4 bits, as PEFT and accelerate ask.

    Not `is_quantized`: with that, transformers' trainer refuses stage 1, whose connector is no adapter.
    """
    model.is_loaded_in_4bit = True
    device = next(language.parameters()).device
    model.model.vision_tower.to(device)
    model.model.multi_modal_projector.to(device)


def make_room(model: nn.Module) -> None:
    """Give other processes the GPU memory that a model holds: it goes to the CPU, unless its weights have 4 bits."""
    if not torch.cuda.is_available():
        return
    if getattr(model, "is_loaded_in_4bit", False):
        note("The notebook's own model stays on its GPU beside the processes: weights of 4 bits cannot be moved.")
    else:
        model.to("cpu")
    gc.collect()
    torch.cuda.empty_cache()
