"""Arms on disk: `arm.json` says what a folder holds (never its name), with the SHA-256 of every weight file.

Kinds: `lm` (a Llama), `llava` (all weights), `connector` (it alone), `lm-lora` and `llava-lora` (adapters, for LLaVA
with the connector, over models named by reference).
"""

import copy
import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path

import torch
from peft import PeftModel
from safetensors.torch import save_file
from torch import nn
from transformers import (
    AutoConfig,
    AutoProcessor,
    LlamaForCausalLM,
    LlavaForConditionalGeneration,
    PreTrainedTokenizerBase,
    ProcessorMixin,
)

from sbt.models.image_markers import MARKS_FILE, put_marks, save_marks
from sbt.models.llava import (
    CONNECTOR_FILE,
    assemble,
    connector_state,
    load_language_model,
    load_pretrained,
    locate,
    read_safetensors,
)
from sbt.models.silence import quiet, saving
from sbt.templates import load as load_template
from sbt.utils import paths
from sbt.utils.errors import CheckpointError, DataError, ParameterError
from sbt.utils.files import file_hash, read_json, write_json

ARM_FILE = "arm.json"
KINDS = ("lm", "llava", "connector", "lm-lora", "llava-lora")


@dataclass
class Arm:
    """A loaded model of the study; `processor` is a tokenizer where there is no vision."""

    model: nn.Module
    processor: ProcessorMixin | PreTrainedTokenizerBase
    kind: str
    conversation: str | None
    info: dict = field(default_factory=dict)

    @property
    def has_vision(self) -> bool:
        """Whether the arm can look at an image."""
        return isinstance(self.processor, ProcessorMixin)

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The text tokenizer."""
        return self.processor.tokenizer if self.has_vision else self.processor


def save_arm(
    folder: Path,
    model: nn.Module,
    processor: ProcessorMixin | PreTrainedTokenizerBase,
    *,
    conversation: str | None,
    language_model: str | Path,
    vision_tower: str | Path | None = None,
    connector: str | Path | None = None,
    connector_only: bool = False,
    **info: object,
) -> dict:
    """Write the model as an arm and return what `arm.json` says; that file is written last and marks the arm complete.

    The references name what the arm was built from; paths inside the package are kept as `assets/...`, others relative
    to the folder. `connector_only` writes the connector alone (stage 1). RunError where the disk is full or read-only.
    """
    folder = Path(folder)
    core = model.get_base_model() if isinstance(model, PeftModel) else model
    kind = "llava" if isinstance(core, LlavaForConditionalGeneration) else "lm"
    kind = "connector" if connector_only else f"{kind}-lora" if isinstance(model, PeftModel) else kind
    with saving(folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ARM_FILE).unlink(missing_ok=True)
        _write_weights(folder, model, processor, kind, conversation)
    refs = {"language_model": language_model, "vision_tower": vision_tower, "connector": connector}
    projector = getattr(core.config, "projector_hidden_act", None)
    arm = {
        "kind": kind,
        **{key: _reference(ref, folder) for key, ref in refs.items()},
        "conversation": conversation,
        "projector": {None: None, "linear": "linear"}.get(projector, "mlp2x_gelu"),
        "dtype": str(core.get_output_embeddings().weight.dtype).removeprefix("torch."),  # a frozen tower may be half
        "files": {file.name: file_hash(file) for file in sorted(folder.glob("*.safetensors"))},
        **info,
    }
    write_json(folder / ARM_FILE, arm)
    return arm


def load_arm(
    ref: str | Path, *, dtype: str | None = None, merge: bool = True, verify: bool = True, quantization: str = ""
) -> Arm:
    """The arm in a folder (or a plain Llama or LLaVA checkpoint: folder, `assets/...`, hub id), in evaluation mode.

    `dtype` overrides the one the arm was saved with; `merge` folds LoRA into the weights; `quantization` (of the base)
    as in `assemble`. CheckpointError names a missing, damaged (`verify` compares SHA-256) or unsuitable file.
    """
    folder = Path(name := locate(ref))
    if not folder.is_dir() or not (folder / ARM_FILE).is_file():
        return _load_plain(name, ref, dtype or "float32", quantization)
    try:
        info = read_json(folder / ARM_FILE)
    except DataError as error:
        raise CheckpointError(f"{error}. Run again the step that made the arm") from error
    if not isinstance(info, dict) or info.get("kind") not in KINDS:
        raise CheckpointError(f"{paths.shown(folder / ARM_FILE)}: 'kind' must be one of {', '.join(KINDS)}")
    if verify:
        check_files(folder, info)
    return _load_kind(folder, info, dtype or info.get("dtype", "float32"), merge, quantization)


def language_model(arm: Arm) -> tuple[LlamaForCausalLM, PreTrainedTokenizerBase]:
    """The arm's language model by itself and its tokenizer. It shares the weights (and adapters, if not merged)."""
    core = arm.model.get_base_model() if isinstance(arm.model, PeftModel) else arm.model
    if isinstance(core, LlamaForCausalLM):
        return core.eval(), arm.tokenizer
    with torch.device("meta"):
        alone = LlamaForCausalLM(copy.deepcopy(core.config.text_config))
    alone.model, alone.lm_head = core.model.language_model, core.lm_head
    alone.generation_config = copy.deepcopy(core.generation_config)
    return alone.eval(), arm.tokenizer


def weights_sha256(model: nn.Module, *, trained_only: bool = False) -> str:
    """SHA-256 over names and bytes of all parameters (or those that train), in order of their names."""
    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        if parameter.requires_grad or not trained_only:
            digest.update(name.encode())
            digest.update(parameter.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def weights_sample(model: nn.Module) -> str:
    """Hash of names, shapes and some 64 values of every parameter: tells models apart without reading all of them."""
    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        flat = parameter.detach().reshape(-1)
        digest.update(f"{name} {tuple(parameter.shape)}".encode())
        digest.update(flat[:: max(1, flat.numel() // 64)].float().cpu().numpy().tobytes())
    return digest.hexdigest()


def _write_weights(folder: Path, model: nn.Module, processor: object, kind: str, conversation: str | None) -> None:
    for file in folder.glob("*.safetensors"):  # of an earlier arm, perhaps in other shards
        file.unlink()
    if conversation is not None:
        processor.chat_template = load_template(conversation)
    with quiet():
        if kind == "connector":
            state = {k: v.detach().cpu().contiguous() for k, v in connector_state(model).items()}
            save_file(state, folder / CONNECTOR_FILE)
        else:
            model.save_pretrained(folder)
            processor.save_pretrained(folder)
        if kind in ("connector", "llava-lora"):  # a whole LLaVA holds them in its embeddings
            save_marks(model, folder)
        (folder / "README.md").unlink(missing_ok=True)  # PEFT's empty model card
    for file in folder.glob("*.safetensors"):  # written 0600, which hides them from the group of a shared machine
        file.chmod(0o644)


def _reference(ref: str | Path | None, folder: Path) -> str | None:
    if ref is None:
        return None
    path = paths.resolve(str(ref))
    if path.is_relative_to(paths.assets()):
        return f"assets/{path.relative_to(paths.assets()).as_posix()}"
    return os.path.relpath(path.resolve(), folder.resolve()) if path.exists() else str(ref)


def check_files(folder: Path, info: dict) -> None:
    """CheckpointError where a weight file that `arm.json` names is missing or not what was saved (SHA-256)."""
    for name, recorded in info.get("files", {}).items():
        file = folder / name
        problem = "is not what was saved: its SHA-256 differs" if file.is_file() else "is missing"
        if not file.is_file() or file_hash(file) != recorded:
            raise CheckpointError(f"{paths.shown(file)} {problem}. Restore it or run again the step that made the arm")


def _load_kind(folder: Path, info: dict, dtype: str, merge: bool, quantization: str) -> Arm:
    kind, conversation = info["kind"], info.get("conversation")
    if kind == "lm":
        model, processor = load_language_model(folder, dtype=dtype)
    elif kind == "llava":
        model, processor = _load_llava(str(folder), dtype)
    else:
        model, processor = _load_over(folder, info, dtype, quantization)
    if merge and isinstance(model, PeftModel):
        with quiet():
            model = model.merge_and_unload().eval()
    if conversation is not None:
        processor.chat_template = load_template(conversation)
    return Arm(model, processor, kind, conversation, info)


def _load_over(folder: Path, info: dict, dtype: str, quantization: str) -> tuple[nn.Module, object]:
    refs = {key: locate(info[key], folder) for key in ("language_model", "vision_tower", "connector") if info.get(key)}
    if "language_model" not in refs:
        raise CheckpointError(f"{paths.shown(folder / ARM_FILE)}: no 'language_model' to put the weights on")
    if info["kind"] == "lm-lora":
        model, processor = load_language_model(refs["language_model"], dtype=dtype, quantization=quantization)
    else:
        connector = folder if info["kind"] == "connector" else refs.get("connector")
        parts = refs["language_model"], refs["vision_tower"], connector
        model, processor = assemble(*parts, projector=info["projector"], dtype=dtype, quantization=quantization)
        if (folder / MARKS_FILE).is_file():
            put_marks(model, processor, folder)
    if info["kind"] == "connector":
        return model, processor
    read_safetensors(folder / "adapter_model.safetensors")
    with quiet():
        return PeftModel.from_pretrained(model, str(folder)).eval(), processor


def _load_llava(name: str, dtype: str) -> tuple[LlavaForConditionalGeneration, ProcessorMixin]:
    with quiet():
        processor = AutoProcessor.from_pretrained(name, backend="pil")
    processor.tokenizer.backend = "tokenizers"  # the keyword is meant for images, but reaches the tokenizer too
    return load_pretrained(LlavaForConditionalGeneration, name, dtype=dtype), processor


def _load_plain(name: str, ref: str | Path, dtype: str, quantization: str) -> Arm:
    try:
        with quiet():
            model_type = AutoConfig.from_pretrained(name).model_type
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{ref}: neither arm.json nor a model's config.json is in it") from error
    if model_type == "llama":
        return Arm(*load_language_model(name, dtype=dtype, quantization=quantization), "lm", None)
    if model_type == "llava":
        return Arm(*_load_llava(name, dtype), "llava", None)
    raise ParameterError(f"{ref}: a {model_type!r} model is no arm of this study; it takes llama and llava")
