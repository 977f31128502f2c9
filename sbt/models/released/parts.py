"""What a released checkpoint is put together from: its base's configuration, a tokenizer, LoRA adapters."""

from dataclasses import dataclass
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from transformers import (
    AutoConfig,
    AutoTokenizer,
    CLIPVisionConfig,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaTokenizer,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.utils import is_protobuf_available, is_sentencepiece_available

from sbt.models.image_markers import ADDED
from sbt.models.llava import locate
from sbt.models.released.keys import Weights, read_object
from sbt.models.silence import silence_libraries
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
    config = _config(job.language_model)
    if not isinstance(config, LlamaConfig):
        raise CheckpointError(f"{job.language_model}: is a {config.model_type!r} model, no llama")
    return config


def tower_config(job: Job) -> CLIPVisionConfig:
    """Configuration of the vision tower; CheckpointError where it is none of a CLIP."""
    config = _config(job.vision_tower)
    config = getattr(config, "vision_config", config)
    if not isinstance(config, CLIPVisionConfig):
        raise CheckpointError(f"{job.vision_tower}: is a {config.model_type!r} model, no CLIP")
    return config


def base_tokenizer(job: Job) -> PreTrainedTokenizerBase:
    """The tokenizer of the base."""
    try:
        with silence_libraries():
            return AutoTokenizer.from_pretrained(locate(job.language_model))
    except Exception as error:  # a damaged tokenizer file raises whatever its parser raises
        raise CheckpointError(f"{job.language_model}: the tokenizer cannot be loaded ({_line(error)})") from error


def own_tokenizer(job: Job) -> PreTrainedTokenizerBase:
    """The tokenizer of a fully tuned folder; of the base where this machine cannot read the folder's slow one.

    CheckpointError where there is neither, or added_tokens.json has other tokens than the authors' three.
    """
    added = job.folder / "added_tokens.json"
    if added.is_file() and sorted(found := read_object(added), key=str) != sorted(ADDED):
        raise CheckpointError(
            f"{paths.shown(added)}: holds {', '.join(found) or 'nothing'}, expected {', '.join(ADDED)}"
        )
    slow = job.folder / "tokenizer.model"
    try:
        with silence_libraries():
            if (job.folder / "tokenizer.json").is_file():
                return PreTrainedTokenizerFast.from_pretrained(job.folder)
            if slow.is_file() and is_sentencepiece_available() and is_protobuf_available():
                return LlamaTokenizer.from_pretrained(job.folder)
    except Exception as error:  # as above
        shown = paths.shown(job.folder)
        raise CheckpointError(
            f"{shown}: the tokenizer cannot be loaded ({_line(error)}). Download it again"
        ) from error
    if job.language_model is not None:
        return base_tokenizer(job)
    if slow.is_file():
        raise CheckpointError(
            f"{paths.shown(slow)}: reading it takes the packages sentencepiece and protobuf. Install them, or name "
            "the base as language_model: its tokenizer is the same but for the three tokens"
        )
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
            f"{paths.shown(file)}: not the options of LoRA for this base ({_line(error)})"
        ) from error
    wanted = get_peft_model_state_dict(wrapped, save_embedding_layers=False)
    adapters.expect({key: tensor.shape for key, tensor in wanted.items()}, next(iter(adapters.files.values()), file))
    with silence_libraries():
        set_peft_model_state_dict(wrapped, adapters.tensors)
    wrapped.peft_config["default"].base_model_name_or_path = ""  # arm.json names it
    return wrapped.eval()


def _config(ref: str | Path) -> object:
    try:
        with silence_libraries():
            return AutoConfig.from_pretrained(locate(ref))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{ref}: no model's configuration can be read from it ({_line(error)})") from error


def _line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
