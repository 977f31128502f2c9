"""The checkpoints that LLaVA's own code writes, the authors' released ones among them, as arms of this study.

What a folder is, its contents decide, never its name:
kind("MM-LLaMA-2-7B-ft");  convert("MM-LLaMA-2-7B-ft", "outputs/released/ft", vision_tower=..., conversation="v1")
"""

import contextlib
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import LlamaForCausalLM, LlavaConfig, LlavaForConditionalGeneration, PreTrainedTokenizerBase

from sbt import templates
from sbt.models.arms import ARM_FILE, save_arm
from sbt.models.image_markers import ADDED, END, MARKERS_FILE, START, with_markers
from sbt.models.llava import ACTIVATIONS, CONNECTOR_FILE, assemble, load_language_model, locate
from sbt.models.released import keys
from sbt.models.released.keys import kind
from sbt.models.released.parts import Job, adapted, base_config, own_tokenizer, tower_config
from sbt.models.silence import safe_save, silence_libraries
from sbt.models.tokenizer import load_tokenizer
from sbt.utils import paths
from sbt.utils.errors import CheckpointError, ParameterError
from sbt.utils.files import file_hash, write_json
from sbt.utils.text import nearest

TEXT_LORA, DTYPES = ("with", "adapter"), ("float32", "bfloat16", "float16")
EMBED, HEAD = "model.embed_tokens.weight", "lm_head.weight"
_LANGUAGE = "language_model"  # folder of the language model while it waits for the other parts
_RULE = "mm_use_im_start_end"


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
    _check(what, out, language_model, vision_tower, conversation, dtype, text_lora)
    work = out.with_name(f".{out.name}.converting")
    job = Job(folder, work, what, language_model, vision_tower, conversation, dtype, strip_markers, info)
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


def _check(
    what: str,
    out: Path,
    language_model: str | Path | None,
    vision_tower: str | Path | None,
    conversation: str | None,
    dtype: str,
    text_lora: str,
) -> None:
    for name, value, known in (("dtype", dtype, DTYPES), ("text_lora", text_lora, TEXT_LORA)):
        if value not in known:
            raise ParameterError(f"{name}={value!r} is unknown{nearest(str(value), known)}")
    if text_lora == "adapter" and what != "lora":
        raise ParameterError(f"text_lora='adapter' is for LoRA checkpoints; this one is {what!r}")
    if language_model is None and what in ("projector", "lora"):
        raise ParameterError(f"language_model: name the base that this {what!r} checkpoint was trained on")
    if vision_tower is None and text_lora != "adapter":
        raise ParameterError("vision_tower: name the CLIP of the checkpoint, as its config.json has it")
    if conversation is not None:
        templates.load(conversation)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ParameterError(f"{paths.shown(out)} exists and is not written over. Remove it or name another folder")


def _save(job: Job, model: torch.nn.Module, processor: object, ignored: list[str], **options: object) -> dict:
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
        language_model=job.language_model,
        released=released,
        **options,
        **job.info,
    )


def _connector(job: Job) -> dict:
    file = job.folder / keys.PROJECTOR_FILE
    text, vision, raw = base_config(job), tower_config(job), _raw(job)
    weights = keys.read_bin(file)
    projector, tensors = keys.connector(weights, file, vision.hidden_size, text.hidden_size)
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


def _full(job: Job) -> dict:
    projector, seen, ignored = _tuned(job)
    return _joined(job, projector, seen, ignored)


def _tuned(job: Job) -> tuple[str, keys.Weights, list[str]]:
    """Lay out the language model and the connector of a fully tuned folder; what is left of its weights."""
    source = job.folder / (keys.INDEX if (job.folder / keys.INDEX).is_file() else keys.WHOLE)
    config, raw = keys.llama_config(job.folder)
    tokenizer = own_tokenizer(job)
    markers = raw.get(_RULE, job.kind == "full")
    if markers:
        tokenizer = with_markers(tokenizer, config.vocab_size, strip=job.strip)
    elif len(tokenizer) != config.vocab_size:
        raise CheckpointError(
            f"{paths.shown(job.folder / 'config.json')}: vocab_size is {config.vocab_size} and {_RULE} false, but the "
            f"tokenizer has {len(tokenizer)} tokens"
        )
    weights = keys.read_shards(job.folder)
    weights.ignore(".rotary_emb.inv_freq")
    seen = weights.take(keys.VISION)
    projector, tensors = keys.connector(weights, source, tower_config(job).hidden_size, config.hidden_size)
    with torch.device("meta"):
        wanted = LlamaForCausalLM(config).state_dict()
    weights.expect({key: tensor.shape for key, tensor in wanted.items()}, source)
    with silence_libraries():
        model = LlamaForCausalLM.from_pretrained(
            None, config=config, state_dict=weights.tensors, dtype=job.dtype, trust_remote_code=False
        )
    _lay_out(job, model, tokenizer, tensors)
    return projector, seen, weights.ignored


def _merged(job: Job) -> dict:
    return _joined(job, _tuned_by_lora(job), keys.Weights({}, {}), [])


def _tuned_by_lora(job: Job) -> str:
    """Lay out the base with its new rows and the adapters folded in, and the connector."""
    file = job.folder / keys.OTHERS_FILE
    adapters, others = keys.read_bin(job.folder / keys.ADAPTER_FILE), keys.read_bin(file)
    own = others.take(keys.LORA_PREFIX)
    others.expect({}, file)
    config, vision, markers = base_config(job), tower_config(job), _raw(job).get(_RULE, EMBED in own.tensors)
    projector, tensors = keys.connector(own, file, vision.hidden_size, config.hidden_size)
    rows = config.vocab_size + len(ADDED) * bool(markers)
    own.expect(dict.fromkeys((EMBED, HEAD), (rows, config.hidden_size)) if markers else {}, file, keys.LORA_PREFIX)
    model, tokenizer = load_language_model(job.language_model, dtype=job.dtype)
    if markers:
        tokenizer = with_markers(tokenizer, rows, strip=job.strip)
        with silence_libraries(), torch.no_grad():
            model.resize_token_embeddings(rows, mean_resizing=False)
            model.get_input_embeddings().weight.copy_(own.tensors[EMBED])
            model.get_output_embeddings().weight.copy_(own.tensors[HEAD])
    tuned = adapted(model, adapters, job.folder / keys.ADAPTER_CONFIG)
    with silence_libraries():
        _lay_out(job, tuned.merge_and_unload(), tokenizer, tensors)
    return projector


def _adapter(job: Job) -> dict:
    adapters = keys.read_bin(job.folder / keys.ADAPTER_FILE)
    model, tokenizer = load_language_model(job.language_model, dtype=job.dtype)
    return _save(job, adapted(model, adapters, job.folder / keys.ADAPTER_CONFIG), tokenizer, [keys.OTHERS_FILE])


def _raw(job: Job) -> dict:
    return keys.llama_config(job.folder)[1] if (job.folder / "config.json").is_file() else {}


def _lay_out(job: Job, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, connector: dict) -> None:
    with safe_save(job.work), silence_libraries():
        model.save_pretrained(job.work / _LANGUAGE)
        tokenizer.save_pretrained(job.work / _LANGUAGE)
        save_file({name: tensor.contiguous() for name, tensor in connector.items()}, job.work / CONNECTOR_FILE)


def _joined(job: Job, projector: str, seen: keys.Weights, ignored: list[str]) -> dict:
    model, processor = assemble(
        job.work / _LANGUAGE, job.vision_tower, job.work / CONNECTOR_FILE, projector=projector, dtype=job.dtype
    )
    seen.ignore("embeddings.position_ids")
    if seen.tensors:  # a tower that came with the checkpoint, perhaps tuned
        tower, source = model.model.vision_tower, next(iter(seen.files.values()))
        own = seen.take("vision_model.")
        seen.expect({}, source, keys.VISION)
        own.expect({key: x.shape for key, x in tower.state_dict().items()}, source, f"{keys.VISION}vision_model.")
        tower.load_state_dict(own.tensors)
    shutil.rmtree(job.work / _LANGUAGE)
    left = [*ignored, *(keys.VISION + key for key in seen.ignored)]
    return _save(job, model, processor, left, vision_tower=job.vision_tower)
