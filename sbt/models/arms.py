"""Arms on disk: list, describe, save and load them. `arm.json` says what a folder holds, with SHA-256 of its weights.

Kinds: `lm` (a Llama), `llava` (all weights), `connector` (the connector alone), `lm-lora` and `llava-lora` (adapters,
for a LLaVA with the connector). The last three name the models that their weights are put on.
"""

import copy
import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from peft import PeftModel
from safetensors.torch import save_file
from torch import nn
from transformers import (
    AutoProcessor,
    LlamaForCausalLM,
    LlavaForConditionalGeneration,
    PreTrainedTokenizerBase,
    ProcessorMixin,
)

from sbt.data.conversations import IMAGE_PLACES
from sbt.models.image_markers import MARKERS_FILE, put_markers, save_markers
from sbt.models.llava import (
    ACTIVATIONS,
    CONNECTOR_FILE,
    assemble,
    connector_state,
    load_language_model,
    load_pretrained,
    locate,
    read_config,
    read_safetensors,
)
from sbt.models.silence import safe_save, silence_libraries
from sbt.models.tokenizer import as_sentencepiece
from sbt.templates import load as load_template
from sbt.utils import hub, paths
from sbt.utils.errors import CheckpointError, DataError, MissingStep, ParameterError, first_line
from sbt.utils.files import file_hash, read_json, write_json
from sbt.utils.text import nearest, run_names

ARM_FILE = "arm.json"
KINDS = ("lm", "llava", "connector", "lm-lora", "llava-lora")
PARTS = ("language_model", "vision_tower", "connector")
DTYPES = ("float32", "bfloat16", "float16")
_AGAIN = "Restore it or run again the step that made the arm"


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
    def image_place(self) -> str:
        """Where an image stood in its turn when the arm was trained: `conversations.IMAGE_PLACES`."""
        return self.info.get("image_place", "as_written")

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The text tokenizer."""
        return self.processor.tokenizer if self.has_vision else self.processor


def list_arms(
    folders: Iterable[Path],
    only: Iterable[str] = (),
    *,
    base: str = "",
    vision: bool = False,
    study: str = "STUDY",
    steps: Iterable[str] = ("30_",),
) -> dict[str, str]:
    """Name -> folder of the arms in steps' `folders`, `base` (a plain language model) first, in the order of `only`.

    Several steps that trained one arm, with other seeds say, are its runs: "mm-full (run 1)", "mm-full (run 2)".
    `vision` keeps the arms that can look at an image, connectors over an untuned model among them. ParameterError
    where `only` names an arm that is not there. MissingStep where there is no arm at all; its message needs `study`
    and `steps`, the beginnings of the names of the steps that make arms. With `base` alone, a line says so.
    """
    runs: dict[str, list[str]] = {}
    for folder in folders:
        info = describe_arm(folder / "model")
        if not vision or info["kind"].startswith(("llava", "connector")):
            runs.setdefault(info.get("arm", folder.name), []).append(str(folder / "model"))
    arms = {"base": base} if base and not vision else {}
    first = next(iter(steps), "30_").partition("_")[0]
    if not runs and not arms:
        which = "no finished arm that can see" if vision else "no finished arm, and base is empty"
        raise MissingStep(f"{study} has {which}: make one with `sbt run {study} --only {first}`")
    for arm, models in runs.items():
        arms |= dict(zip(run_names(arm, len(models)), models, strict=True))
    for name in only:
        if name not in arms:
            raise ParameterError(f"arms: {name!r} is not among the arms of this study{nearest(name, arms)}")
    if not runs:
        print(f"base only: {study} has no finished arm. `sbt run {study} --only {first}` makes some.")
    return {name: arms[name] for name in only or arms}


def describe_arm(folder: Path) -> dict:
    """What `arm.json` in an arm's folder says; CheckpointError where it is missing or not as `save_arm` writes it."""
    file = Path(folder) / ARM_FILE
    if not file.is_file():
        raise CheckpointError(f"{paths.shown(file)} does not exist: run the step that makes this arm")
    try:
        info = read_json(file)
    except DataError as error:
        raise CheckpointError(f"{error}. {_AGAIN}") from error
    if problem := _problem(info):
        raise CheckpointError(f"{paths.shown(file)}: {problem}. {_AGAIN}")
    return info


def arm_parts(folder: Path, *, language_model: str = "") -> dict[str, str]:
    """The parts an arm was assembled from, as `assemble` and `save_arm` take them; its own connector included.

    ParameterError where it was built over another `language_model` than the one expected.
    """
    info = describe_arm(folder)
    parts = {part: locate(info[part], folder) for part in PARTS if info.get(part)}
    if language_model and parts.get("language_model") != locate(language_model):
        built = f"{paths.shown(folder)} was made over {info.get('language_model')!r}"
        raise ParameterError(f"language_model={language_model!r}, but {built}. Name a connector over the same model")
    own = Path(folder) / CONNECTOR_FILE
    return parts | ({"connector": str(own)} if own.is_file() else {})


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
    with safe_save(folder):
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
    ref: str | Path, *, dtype: str | None = None, merge: bool = True, quantization: str = ""
) -> Arm:
    """The arm in a folder (or a plain Llama or LLaVA checkpoint: folder, `assets/...`, hub id), in evaluation mode.

    `dtype` overrides the one the arm was saved with; `merge` folds LoRA into the weights; `quantization` (of the base)
    as in `assemble`. CheckpointError names a missing, damaged (by its SHA-256) or unsuitable file.
    """
    folder = Path(name := locate(ref))
    if not folder.is_dir() or not (folder / ARM_FILE).is_file():
        return _load_plain(name, ref, dtype or "float32", quantization)
    info = describe_arm(folder)
    check_files(folder, info)
    return _load_kind(folder, info, dtype or info.get("dtype", "float32"), merge, quantization)


def language_model(arm: Arm) -> tuple[LlamaForCausalLM, PreTrainedTokenizerBase]:
    """The arm's language model by itself and its tokenizer. It shares the weights (and adapters, if not merged)."""
    core = arm.model.get_base_model() if isinstance(arm.model, PeftModel) else arm.model
    if isinstance(core, LlamaForCausalLM):
        return core.eval(), arm.tokenizer
    config = copy.deepcopy(core.config.text_config)
    layers, config.num_hidden_layers = config.num_hidden_layers, 0  # making layers that are thrown away takes time
    with torch.device("meta"):
        alone = LlamaForCausalLM(config)
    config.num_hidden_layers = layers
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


def _problem(info: object) -> str:
    """What is wrong with the contents of `arm.json`, or ""."""
    if not isinstance(info, dict) or info.get("kind") not in KINDS:
        return f"'kind' must be one of {', '.join(KINDS)}"
    for key in (*PARTS, "conversation", "arm"):
        if not isinstance(info.get(key, ""), str | None):
            return f"{key!r} must be a text or null"
    for key, known in (("dtype", DTYPES), ("projector", (None, *ACTIVATIONS)), ("image_place", IMAGE_PLACES)):
        if key in info and info[key] not in known:
            return f"{key!r} must be one of {', '.join(str(value) for value in known)}"
    files = info.get("files", {})
    if not isinstance(files, dict) or not all(isinstance(digest, str) for digest in files.values()):
        return "'files' must give each file its SHA-256"
    return ""


def _write_weights(folder: Path, model: nn.Module, processor: object, kind: str, conversation: str | None) -> None:
    for file in folder.glob("*.safetensors"):  # of an earlier arm, perhaps in other shards
        file.unlink()
    if conversation is not None:
        processor.chat_template = load_template(conversation)
    with silence_libraries():
        if kind == "connector":
            state = {k: v.detach().cpu().contiguous() for k, v in connector_state(model).items()}
            save_file(state, folder / CONNECTOR_FILE)
        else:
            model.save_pretrained(folder)
            processor.save_pretrained(folder)
        if kind in ("connector", "llava-lora"):  # a whole LLaVA holds them in its embeddings
            save_markers(model, folder)
        (folder / "README.md").unlink(missing_ok=True)  # PEFT's empty model card
    for file in folder.glob("*.safetensors"):  # written 0600, which hides them from the group of a shared machine
        file.chmod(0o644)


def _reference(ref: str | Path | None, folder: Path) -> str | None:
    if ref is None:
        return None
    path = paths.resolve(str(ref))
    if path.is_relative_to(paths.assets()):
        return f"assets/{path.relative_to(paths.assets()).as_posix()}"
    return os.path.relpath(paths.in_place(path).resolve(), folder.resolve()) if path.exists() else str(ref)


def check_files(folder: Path, info: dict) -> None:
    """CheckpointError where a weight file that `arm.json` names is missing or not what was saved (SHA-256)."""
    for name, recorded in info.get("files", {}).items():
        file = folder / name
        problem = "is not what was saved: its SHA-256 differs" if file.is_file() else "is missing"
        if not file.is_file() or file_hash(file) != recorded:
            raise CheckpointError(f"{paths.shown(file)} {problem}. {_AGAIN}")


def _load_kind(folder: Path, info: dict, dtype: str, merge: bool, quantization: str) -> Arm:
    kind, conversation = info["kind"], info.get("conversation")
    if kind == "lm":
        model, processor = load_language_model(folder, dtype=dtype)
    elif kind == "llava":
        model, processor = _load_llava(str(folder), dtype)
    else:
        model, processor = _load_over(folder, info, dtype, quantization)
    if merge and isinstance(model, PeftModel):
        with silence_libraries():
            model = model.merge_and_unload().eval()
    if conversation is not None:
        processor.chat_template = load_template(conversation)
    return Arm(model, processor, kind, conversation, info)


def _load_over(folder: Path, info: dict, dtype: str, quantization: str) -> tuple[nn.Module, object]:
    refs = {part: locate(info[part], folder) for part in PARTS if info.get(part)}
    for part in PARTS[: 1 if info["kind"] == "lm-lora" else 2]:
        if part not in refs:
            raise CheckpointError(f"{paths.shown(folder / ARM_FILE)}: no {part!r} to put the weights on. {_AGAIN}")
    if info["kind"] == "lm-lora":
        model, processor = load_language_model(refs["language_model"], dtype=dtype, quantization=quantization)
    else:
        connector = folder if info["kind"] == "connector" else refs.get("connector")
        parts = refs["language_model"], refs["vision_tower"], connector
        projector = info.get("projector") or "linear"
        model, processor = assemble(*parts, projector=projector, dtype=dtype, quantization=quantization)
        if (folder / MARKERS_FILE).is_file():
            put_markers(model, processor, folder)
    if info["kind"] == "connector":
        return model, processor
    read_safetensors(folder / "adapter_model.safetensors")
    with silence_libraries():
        return PeftModel.from_pretrained(model, str(folder)).eval(), processor


def _load_llava(name: str, dtype: str) -> tuple[LlavaForConditionalGeneration, ProcessorMixin]:
    with silence_libraries():
        try:
            repo, at = hub.given(name)
            processor = AutoProcessor.from_pretrained(repo, backend="pil", trust_remote_code=False, **at)
        except Exception as error:  # a damaged file raises whatever its parser raises
            raise CheckpointError(f"{name}: the processor cannot be loaded ({first_line(error)}). {_AGAIN}") from error
    processor.tokenizer.backend = "tokenizers"  # the keyword is meant for images, but reaches the tokenizer too
    processor.tokenizer, _ = as_sentencepiece(processor.tokenizer, name)
    return load_pretrained(LlavaForConditionalGeneration, name, dtype=dtype), processor


def _load_plain(name: str, ref: str | Path, dtype: str, quantization: str) -> Arm:
    if Path(name).is_dir() and not (Path(name) / "config.json").is_file():
        raise CheckpointError(f"{ref}: neither arm.json nor a model's config.json is in it")
    model_type = read_config(name).model_type
    if model_type == "llama":
        return Arm(*load_language_model(name, dtype=dtype, quantization=quantization), "lm", None)
    if model_type == "llava":
        return Arm(*_load_llava(name, dtype), "llava", None)
    raise ParameterError(f"{ref}: a {model_type!r} model is no arm of this study; it takes llama and llava")
