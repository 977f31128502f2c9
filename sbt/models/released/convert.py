"""Checkpoints in LLaVA's own layouts, the authors' released ones among them, converted to arms of this study.

The type of a checkpoint is detected from its files, not from the folder's name:
kind("MM-LLaMA-2-7B-ft");  convert("MM-LLaMA-2-7B-ft", "outputs/released/ft", vision_tower=..., conversation="v1")
"""

import contextlib
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import save_file
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PretrainedConfig,
    PreTrainedTokenizerBase,
)

from sbt import templates
from sbt.models.arms import ARM_FILE, DTYPES, save_arm
from sbt.models.image_markers import ADDED, END, MARKERS_FILE, START, with_markers
from sbt.models.llava import (
    ACTIVATIONS,
    CONNECTOR_FILE,
    assemble,
    load_language_model,
    locate,
    read_config,
    read_json_object,
)
from sbt.models.released import read
from sbt.models.released.read import EMBED, HEAD, kind
from sbt.models.silence import safe_save, silence_libraries
from sbt.models.tokenizer import SENTENCEPIECE, load_tokenizer
from sbt.utils import paths
from sbt.utils.errors import CheckpointError, ParameterError, first_line
from sbt.utils.files import file_hash, write_json
from sbt.utils.text import nearest

TEXT_LORA = ("with", "adapter")
_LANGUAGE = "language_model"  # folder of the language model while it waits for the other parts
_RULE = "mm_use_im_start_end"
# Options of PEFT that are honoured, or that say nothing about what the adapters compute.
_OPTIONS = ("r", "lora_alpha", "lora_dropout", "target_modules", "peft_type", "task_type", "inference_mode",
            "base_model_name_or_path", "revision", "auto_mapping", "peft_version")  # fmt: skip


@dataclass(frozen=True)
class _Job:
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


def convert(
    folder: str | Path,
    out: str | Path,
    *,
    language_model: str | Path | None = None,
    vision_tower: str | Path | None,
    conversation: str | None,
    dtype: str = "float32",
    text_lora: str = "with",
    strip_markers: bool = False,
    **info: object,
) -> dict:
    """Write the checkpoint in `folder` as an arm into `out`, a new folder, and return what its `arm.json` says.

    - a projector becomes a `connector` arm over `language_model`, with the input rows of the two markers beside it;
    - a fully tuned folder, and LLaVA-1.5's, a `llava` arm with the CLIP of `vision_tower`;
    - LoRA over `language_model` the merged `llava` arm, or with text_lora="adapter" a `lm-lora` arm of its adapters
      alone over the base's own vocabulary, as the authors scored text (SBT:eval_scripts/eval_nlp.sh:24-32).
    The prompt of an image is `image_markers.image_text`. `strip_markers` lets the markers swallow the spaces and line
    ends beside them. `info` is kept in `arm.json`, as are the hashes of the files read and the keys left out.
    `language_model` lends its tokenizer to a fully tuned folder that has none.
    CheckpointError names file and key of what is missing, damaged or unknown; ParameterError a wrong option. `out`
    appears whole or not at all.
    """
    folder, out = paths.resolve(str(folder)), paths.resolve(str(out))
    what = kind(folder)
    work = out.with_name(f".{out.name}.converting")
    job = _Job(folder, work, what, language_model, vision_tower, conversation, dtype, strip_markers, info)
    _check(job, out, text_lora)
    make = {"projector": _connector, "lora": _adapter if text_lora == "adapter" else _merged}.get(what, _full)
    fresh = [parent for parent in out.parents if not parent.exists()]
    done = False
    try:
        with safe_save(out):
            shutil.rmtree(work, ignore_errors=True)  # of a conversion that was killed
            work.mkdir(parents=True)
        arm = make(job)
        with safe_save(out):
            work.rename(out)
        done = True
    finally:
        shutil.rmtree(work, ignore_errors=True)
        for parent in [] if done else fresh:
            with contextlib.suppress(OSError):
                parent.rmdir()
    return arm


def _check(job: _Job, out: Path, text_lora: str) -> None:
    for name, value, known in (("dtype", job.dtype, DTYPES), ("text_lora", text_lora, TEXT_LORA)):
        if value not in known:
            raise ParameterError(f"{name}={value!r} is unknown{nearest(str(value), known)}")
    if text_lora == "adapter" and job.kind != "lora":
        raise ParameterError(f"text_lora='adapter' is for LoRA checkpoints; this one is {job.kind!r}")
    if job.language_model is None and job.kind in ("projector", "lora"):
        raise ParameterError(f"language_model: name the base that this {job.kind!r} checkpoint was trained on")
    if job.vision_tower is None and text_lora != "adapter":
        raise ParameterError("vision_tower: name the CLIP of the checkpoint, as its config.json has it")
    if job.conversation is not None:
        templates.load(job.conversation)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ParameterError(f"{paths.shown(out)} exists and is not written over. Remove it or name another folder")


def _save(job: _Job, model: torch.nn.Module, processor: object, ignored: list[str], **options: object) -> dict:
    files = sorted(file for file in job.folder.iterdir() if file.suffix == ".bin" or file.name == "config.json")
    released = {
        "kind": job.kind,
        "files": {file.name: file_hash(file) for file in files},
        "ignored": sorted(ignored),
        "strip_markers": job.strip,
    }
    return save_arm(
        job.work,
        model,
        processor,
        conversation=job.conversation,
        image_place="front",  # as all code that writes LLaVA's layout trains
        language_model=job.language_model,
        released=released,
        **options,
        **job.info,
    )


def _connector(job: _Job) -> dict:
    file = job.folder / read.PROJECTOR_FILE
    text, vision, raw = _base_config(job), _tower_config(job), _raw(job)
    if raw.get("image_aspect_ratio") == "pad":
        raise CheckpointError(
            f"{paths.shown(job.folder / 'config.json')}: image_aspect_ratio is 'pad', which a projector by itself "
            "cannot keep. Convert the tuned checkpoint"
        )
    weights = read.read_bin(file)
    projector, tensors = read.connector(weights, file, vision.hidden_size, text.hidden_size)
    markers = raw.get(_RULE, bool(weights.tensors))
    rows = weights.tensors[EMBED] if markers and EMBED in weights.tensors else None
    count = 2 if rows is not None and len(rows) == 2 else text.vocab_size + len(ADDED)
    weights.expect({EMBED: (count, text.hidden_size)} if markers else {}, file)
    with torch.device("meta"):  # the arm names its models: none of their weights is needed
        shell = LlavaForConditionalGeneration(
            LlavaConfig(vision_config=vision, text_config=text, projector_hidden_act=ACTIVATIONS[projector])
        ).to(getattr(torch, job.dtype))
    layers = {name: tensor.to(shell.dtype, copy=True) for name, tensor in tensors.items()}
    shell.model.multi_modal_projector.load_state_dict(layers, strict=False, assign=True)
    ignored = [f"{EMBED}[:{count - 2}]"] if count > 2 and markers else []
    more = {"vision_tower": job.vision_tower, "connector_only": True}
    arm = _save(job, shell, load_tokenizer(locate(job.language_model))[0], ignored, **more)
    if markers:
        own = job.work / MARKERS_FILE
        with safe_save(own):
            save_file({START: rows[-2].float().clone(), END: rows[-1].float().clone()}, own)
            own.chmod(0o644)
        arm["files"][MARKERS_FILE] = file_hash(own)
        write_json(job.work / ARM_FILE, arm)
    return arm


def _full(job: _Job) -> dict:
    projector, seen, ignored = _tuned(job)
    return _joined(job, projector, seen, ignored)


def _tuned(job: _Job) -> tuple[str, read.Weights, list[str]]:
    """Lay out the language model and the connector of a fully tuned folder; what is left of its weights."""
    source = job.folder / (read.INDEX if (job.folder / read.INDEX).is_file() else read.WHOLE)
    config, raw = read.llama_config(job.folder)
    tokenizer = _own_tokenizer(job)
    markers = raw.get(_RULE, job.kind == "full")
    if markers:
        tokenizer = with_markers(tokenizer, config.vocab_size, strip=job.strip)
    elif len(tokenizer) != config.vocab_size:
        raise CheckpointError(
            f"{paths.shown(job.folder / 'config.json')}: vocab_size is {config.vocab_size} and {_RULE} false, but the "
            f"tokenizer has {len(tokenizer)} tokens"
        )
    weights = read.read_shards(job.folder)
    weights.ignore(".rotary_emb.inv_freq")
    seen = weights.take(read.VISION)
    projector, tensors = read.connector(weights, source, _tower_config(job).hidden_size, config.hidden_size)
    with torch.device("meta"):
        wanted = LlamaForCausalLM(config).state_dict()
    weights.expect({key: tensor.shape for key, tensor in wanted.items()}, source)
    with silence_libraries():
        model = LlamaForCausalLM.from_pretrained(
            None, config=config, state_dict=weights.tensors, dtype=job.dtype, trust_remote_code=False
        )
    _lay_out(job, model, tokenizer, tensors)
    return projector, seen, weights.ignored


def _merged(job: _Job) -> dict:
    return _joined(job, _tuned_by_lora(job), read.Weights({}, {}), [])


def _tuned_by_lora(job: _Job) -> str:
    """Lay out the base with its new rows and the adapters folded in, and the connector."""
    file = job.folder / read.OTHERS_FILE
    adapters, others = read.read_bin(job.folder / read.ADAPTER_FILE), read.read_bin(file)
    own = others.take(read.LORA_PREFIX)
    others.expect({}, file)
    config, vision, markers = _base_config(job), _tower_config(job), _raw(job).get(_RULE, EMBED in own.tensors)
    projector, tensors = read.connector(own, file, vision.hidden_size, config.hidden_size)
    rows = config.vocab_size + len(ADDED) * bool(markers)
    own.expect(dict.fromkeys((EMBED, HEAD), (rows, config.hidden_size)) if markers else {}, file, read.LORA_PREFIX)
    model, tokenizer = load_language_model(job.language_model, dtype=job.dtype)
    if markers:
        tokenizer = with_markers(tokenizer, rows, strip=job.strip)
        with silence_libraries(), torch.no_grad():
            model.resize_token_embeddings(rows, mean_resizing=False)
            model.get_input_embeddings().weight.copy_(own.tensors[EMBED])
            model.get_output_embeddings().weight.copy_(own.tensors[HEAD])
    tuned = _adapted(model, adapters, job.folder / read.ADAPTER_CONFIG)
    with silence_libraries():
        _lay_out(job, tuned.merge_and_unload(), tokenizer, tensors)
    return projector


def _adapter(job: _Job) -> dict:
    adapters = read.read_bin(job.folder / read.ADAPTER_FILE)
    model, tokenizer = load_language_model(job.language_model, dtype=job.dtype)
    return _save(job, _adapted(model, adapters, job.folder / read.ADAPTER_CONFIG), tokenizer, [read.OTHERS_FILE])


def _raw(job: _Job) -> dict:
    return read.llama_config(job.folder)[1] if (job.folder / "config.json").is_file() else {}


def _lay_out(job: _Job, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, connector: dict) -> None:
    with safe_save(job.work), silence_libraries():
        model.save_pretrained(job.work / _LANGUAGE)
        tokenizer.save_pretrained(job.work / _LANGUAGE)
        save_file({name: tensor.contiguous() for name, tensor in connector.items()}, job.work / CONNECTOR_FILE)


def _joined(job: _Job, projector: str, seen: read.Weights, ignored: list[str]) -> dict:
    parts = job.work / _LANGUAGE, job.vision_tower, job.work / CONNECTOR_FILE
    aspect = _raw(job).get("image_aspect_ratio") or "square"
    model, processor = assemble(*parts, projector=projector, dtype=job.dtype, image_aspect_ratio=aspect)
    seen.ignore("embeddings.position_ids")
    if seen.tensors:  # a tower that came with the checkpoint, perhaps tuned
        tower, source = model.model.vision_tower, next(iter(seen.files.values()))
        own = seen.take("vision_model.")
        seen.expect({}, source, read.VISION)
        own.expect({key: x.shape for key, x in tower.state_dict().items()}, source, f"{read.VISION}vision_model.")
        tower.load_state_dict(own.tensors)
    shutil.rmtree(job.work / _LANGUAGE)
    left = [*ignored, *(read.VISION + key for key in seen.ignored)]
    return _save(job, model, processor, left, vision_tower=job.vision_tower)


def _base_config(job: _Job) -> LlamaConfig:
    """Configuration of the base; CheckpointError where it is none of a Llama."""
    return _config_of(job.language_model, read_config(locate(job.language_model)), LlamaConfig)


def _tower_config(job: _Job) -> CLIPVisionConfig:
    """Configuration of the vision tower; CheckpointError where it is none of a CLIP."""
    config = read_config(locate(job.vision_tower))
    return _config_of(job.vision_tower, getattr(config, "vision_config", config), CLIPVisionConfig)


def _config_of(ref: str | Path, config: PretrainedConfig, kind: type) -> PretrainedConfig:
    if not isinstance(config, kind):
        raise CheckpointError(f"{ref}: is a {config.model_type!r} model, no {kind.__name__.removesuffix('Config')}")
    return config


def _own_tokenizer(job: _Job) -> PreTrainedTokenizerBase:
    """The tokenizer of a fully tuned folder, with the tokens of SentencePiece; the base's where the folder has none.

    CheckpointError where there is neither, or added_tokens.json has other tokens than the authors' three.
    """
    added = job.folder / "added_tokens.json"
    if added.is_file() and sorted(found := read_json_object(added), key=str) != sorted(ADDED):
        raise CheckpointError(
            f"{paths.shown(added)}: holds {', '.join(found) or 'nothing'}, expected {', '.join(ADDED)}"
        )
    if any((job.folder / name).is_file() for name in ("tokenizer.json", SENTENCEPIECE)):
        return load_tokenizer(str(job.folder))[0]
    if job.language_model is not None:
        return load_tokenizer(locate(job.language_model))[0]
    raise CheckpointError(f"{paths.shown(job.folder)}: no tokenizer in it. Name the base as language_model")


def _adapted(model: LlamaForCausalLM, adapters: read.Weights, file: Path) -> PeftModel:
    """The model with the authors' adapters, whose options `file` holds.

    CheckpointError names an option that this does not honour, and a key that is missing, unknown or misshapen.
    """
    saved, defaults = read_json_object(file), LoraConfig().to_dict()
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
