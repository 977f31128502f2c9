"""Stand-ins for the authors' released checkpoints, in exactly their layouts, of a language model that is at hand.

base = write_base(run.path("base"), "assets/llm");  write(folder, "full", base, "assets/clip")
"""

import json
import shutil
from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import LlamaConfig, PreTrainedTokenizerFast

from sbt.models.image_markers import ADDED
from sbt.models.llava import IMAGE_TOKEN, assemble, connector_state, load_language_model
from sbt.models.released import keys
from sbt.models.silence import safe_save, silence_libraries
from sbt.utils import paths
from sbt.utils.errors import CheckpointError, ParameterError
from sbt.utils.files import write_json
from sbt.utils.text import nearest

LAYOUTS = ("projector", "full", "lora")
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
RANK, ALPHA = 64, 16  # SBT:llava/train/train.py:100-105
EMBED, HEAD = "model.embed_tokens.weight", "lm_head.weight"
SHARDS = 2
MOVED = 0.02  # of a tensor's own spread: another model, which still says what its base says
_OPTIONS = {"base_model_name_or_path": "", "bias": "none", "fan_in_fan_out": False, "inference_mode": True,
            "init_lora_weights": True, "layers_pattern": None, "layers_to_transform": None, "lora_alpha": ALPHA,
            "lora_dropout": 0.05, "modules_to_save": None, "peft_type": "LORA", "r": RANK, "revision": None,
            "target_modules": list(TARGETS), "task_type": "CAUSAL_LM"}  # fmt: skip
_MULTIMODAL = {"freeze_mm_mlp_adapter": False, "image_aspect_ratio": "square", "mm_use_im_patch_token": True,
               "mm_use_im_start_end": True, "mm_vision_select_feature": "patch", "mm_vision_select_layer": -2,
               "mm_vision_tower": "openai/clip-vit-large-patch14", "use_mm_proj": True}  # fmt: skip
_State = dict[str, torch.Tensor]


def write_base(folder: str | Path, language_model: str | Path) -> Path:
    """Write `language_model` with no `<image>` in its vocabulary, as LLaMA's has none, and return its folder.

    The token that had the name is "<unused>", its row stays; a model without it is copied.
    """
    folder = paths.resolve(str(folder))
    model, words = load_language_model(language_model)
    core = json.loads(words.backend_tokenizer.to_str().replace(json.dumps(IMAGE_TOKEN), '"<unused>"'))
    special = {name: getattr(words, name) for name in ("unk_token", "bos_token", "eos_token", "pad_token")}
    plain = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(core)), **special)
    with safe_save(folder), silence_libraries():
        model.save_pretrained(folder)
        plain.save_pretrained(folder)
    return folder


def write(
    folder: str | Path,
    layout: str,
    language_model: str | Path,
    vision_tower: str | Path,
    connector: str | Path | None = None,
    *,
    seed: int = 0,
) -> Path:
    """Write a checkpoint as the authors' code wrote theirs (SBT:llava/train/train.py:180-239), and return its folder.

    - "projector": mm_projector.bin with the whole matrix of embeddings, config.json;
    - "full": two fp32 shards with index and without CLIP, the tokenizer with the three added tokens;
    - "lora": adapter_model.bin, adapter_config.json, non_lora_trainables.bin, config.json, no tokenizer.
    It stands for `language_model` a little moved (by `seed`), three rows longer, with the projector of `connector`, or
    a fresh one. Only the tokenizer differs from theirs: it is a fast one. ParameterError for another layout,
    CheckpointError for a vocabulary that has `<image>` (see `write_base`). A folder that is there is replaced.
    """
    if layout not in LAYOUTS:
        raise ParameterError(f"layout={layout!r} is unknown{nearest(str(layout), LAYOUTS)}")
    folder = paths.resolve(str(folder))
    language, words = load_language_model(language_model)
    state = {key: tensor.clone() for key, tensor in language.state_dict().items()}
    if len(words) != len(state[EMBED]) or IMAGE_TOKEN in words.get_vocab():
        raise CheckpointError(
            f"{language_model}: {len(words)} tokens, {IMAGE_TOKEN} among them or not one for each of the "
            f"{len(state[EMBED])} rows. Make a base without it with write_base"
        )
    whole, _ = assemble(language_model, vision_tower, connector, seed=seed)
    projector = {
        f"{keys.PROJECTOR}{name.removeprefix('linear_1.')}": tensor.detach().clone()
        for name, tensor in connector_state(whole).items()
    }
    tuned = _moved(state, [words.bos_token_id, words.encode("\n")[-1]], seed)
    with safe_save(folder), silence_libraries():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        if layout == "projector":
            torch.save(projector | {EMBED: tuned[EMBED]}, folder / keys.PROJECTOR_FILE)
        elif layout == "full":
            _write_shards(folder, tuned | projector)
            _write_tokenizer(folder, words)
        else:
            others = {EMBED: tuned[EMBED], HEAD: tuned[HEAD]} | projector
            torch.save({f"{keys.LORA_PREFIX}{key}": x for key, x in others.items()}, folder / keys.OTHERS_FILE)
            torch.save(_adapters(state, seed), folder / keys.ADAPTER_FILE)
            write_json(folder / keys.ADAPTER_CONFIG, _OPTIONS)
    _write_config(folder, language.config, whole.config.vision_config.hidden_size, layout)
    return folder


def _moved(state: _State, like: list[int], seed: int) -> _State:
    """All tensors moved a little, with rows for the added tokens: the mean, as the authors began with them
    (SBT:llava/model/llava_arch.py:209-217), but the marks' input rows are those of the ids `like`: untrained ones
    would take the picture's description apart.
    """
    generator, tuned = torch.Generator().manual_seed(seed), {}
    for key, tensor in state.items():
        spread = float(tensor.std()) if tensor.numel() > 1 else 0.0
        if key in (EMBED, HEAD):
            mean = tensor.mean(dim=0, keepdim=True)
            tensor = torch.cat([tensor, mean, tensor[like] if key == EMBED else mean.expand(2, -1)])
        tuned[key] = tensor + MOVED * spread * torch.randn(tensor.shape, generator=generator)
    return tuned


def _adapters(state: _State, seed: int) -> _State:
    generator, made = torch.Generator().manual_seed(seed + 1), {}
    for key, tensor in state.items():
        if key.split(".")[-2] in TARGETS:
            name = f"{keys.LORA_PREFIX}{key.removesuffix('.weight')}"
            size = (MOVED * float(tensor.std()) * RANK / ALPHA) ** 0.5 / RANK**0.25
            for side, shape in (("A", (RANK, tensor.shape[1])), ("B", (tensor.shape[0], RANK))):
                made[f"{name}.lora_{side}.weight"] = size * torch.randn(shape, generator=generator)
    return made


def _write_shards(folder: Path, state: _State) -> None:
    names = list(state)
    files = [f"pytorch_model-{1 + i * SHARDS // len(names):05d}-of-{SHARDS:05d}.bin" for i in range(len(names))]
    places = dict(zip(names, files, strict=True))
    for file in sorted(set(files)):
        torch.save({key: state[key].contiguous() for key in names if places[key] == file}, folder / file)
    size = sum(tensor.numel() * tensor.element_size() for tensor in state.values())
    write_json(folder / keys.INDEX, {"metadata": {"total_size": size}, "weight_map": places})


def _write_tokenizer(folder: Path, words: PreTrainedTokenizerFast) -> None:
    first = len(words)
    words.add_special_tokens({"additional_special_tokens": list(ADDED)})
    words.save_pretrained(folder)
    write_json(folder / "added_tokens.json", {token: first + place for place, token in enumerate(ADDED)})


def _write_config(folder: Path, config: LlamaConfig, vision_width: int, layout: str) -> None:
    """config.json as transformers 4.28 wrote it: the released fully tuned ones say `llama`, the others `llava`."""
    raw = {key: value for key, value in config.to_dict().items() if key not in ("dtype", "rope_parameters")}
    raw |= _MULTIMODAL | {"mm_hidden_size": vision_width, "tune_mm_mlp_adapter": layout == "projector"}
    raw |= {"model_type": "llama" if layout == "full" else "llava", "vocab_size": config.vocab_size + len(ADDED)}
    raw |= {"torch_dtype": "float32", "transformers_version": "4.28.1", "tie_word_embeddings": False}
    write_json(folder / "config.json", raw | {"rope_theta": config.rope_parameters["rope_theta"]})
