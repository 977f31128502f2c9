"""What a released checkpoint is put together from: its base's configuration, a tokenizer, LoRA adapters."""

from dataclasses import dataclass
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerBase,
)

from sbt.models.image_markers import ADDED
from sbt.models.llava import first_line, locate, read_config
from sbt.models.released.keys import Weights, read_object
from sbt.models.silence import silence_libraries
from sbt.models.tokenizer import SENTENCEPIECE, load_tokenizer
from sbt.utils import paths
from sbt.utils.errors import CheckpointError

# Options of PEFT that are honoured, or that say nothing about what the adapters compute.
_OPTIONS = ("r", "lora_alpha", "lora_dropout", "target_modules", "peft_type", "task_type", "inference_mode",
            "base_model_name_or_path", "revision", "auto_mapping", "peft_version")  # fmt: skip


@dataclass(frozen=True)
class Job:
    """One conversion: from `folder` into `work`, which is renamed when all is there."""

    folder: Path
    work: Path
    kind: str
    language_model: str | Path | None
    vision_tower: str | Path | None
    conversation: str | None
    dtype: str
    strip: bool
    info: dict


def base_config(job: Job) -> LlamaConfig:
    """Configuration of the base; CheckpointError where it is none of a Llama."""
    config = read_config(locate(job.language_model))
    if not isinstance(config, LlamaConfig):
        raise CheckpointError(f"{job.language_model}: is a {config.model_type!r} model, no llama")
    return config


def tower_config(job: Job) -> CLIPVisionConfig:
    """Configuration of the vision tower; CheckpointError where it is none of a CLIP."""
    config = read_config(locate(job.vision_tower))
    config = getattr(config, "vision_config", config)
    if not isinstance(config, CLIPVisionConfig):
        raise CheckpointError(f"{job.vision_tower}: is a {config.model_type!r} model, no CLIP")
    return config


def own_tokenizer(job: Job) -> PreTrainedTokenizerBase:
    """The tokenizer of a fully tuned folder, with the tokens of SentencePiece; the base's where the folder has none.

    CheckpointError where there is neither, or added_tokens.json has other tokens than the authors' three.
    """
    added = job.folder / "added_tokens.json"
    if added.is_file() and sorted(found := read_object(added), key=str) != sorted(ADDED):
        raise CheckpointError(
            f"{paths.shown(added)}: holds {', '.join(found) or 'nothing'}, expected {', '.join(ADDED)}"
        )
    if any((job.folder / name).is_file() for name in ("tokenizer.json", SENTENCEPIECE)):
        return load_tokenizer(str(job.folder))[0]
    if job.language_model is not None:
        return load_tokenizer(locate(job.language_model))[0]
    raise CheckpointError(f"{paths.shown(job.folder)}: no tokenizer in it. Name the base as language_model")


def adapted(model: LlamaForCausalLM, adapters: Weights, file: Path) -> PeftModel:
    """The model with the authors' adapters, whose options `file` holds.

    CheckpointError names an option that this does not honour, and a key that is missing, unknown or misshapen.
    """
    saved, defaults = read_object(file), LoraConfig().to_dict()
    for option, value in saved.items():
        if value and option not in _OPTIONS and value != defaults.get(option):
            raise CheckpointError(f"{paths.shown(file)}: {option}={value!r} is no option of the authors' adapters")
    try:
        config = LoraConfig(
            r=saved["r"],
            lora_alpha=saved["lora_alpha"],
            lora_dropout=saved.get("lora_dropout", 0.0),
            target_modules=saved["target_modules"],
            task_type="CAUSAL_LM",
        )
        with silence_libraries(), torch.random.fork_rng(devices=[]):  # layers are initialised, then read
            wrapped = get_peft_model(model, config)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{paths.shown(file)}: not the options of LoRA for this base ({first_line(error)})"
        ) from error
    wanted = get_peft_model_state_dict(wrapped, save_embedding_layers=False)
    adapters.expect({key: tensor.shape for key, tensor in wanted.items()}, next(iter(adapters.files.values()), file))
    with silence_libraries():
        set_peft_model_state_dict(wrapped, adapters.tensors)
    wrapped.peft_config["default"].base_model_name_or_path = ""  # arm.json names it
    return wrapped.eval()
