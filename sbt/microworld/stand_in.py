"""A stand-in that this project wrote, in the layout of LLaVA's fully tuned checkpoints: the inverse of the converter.

No file of the authors is in it. It is the small language model, each weight moved a little, with a connector.
"""

import json
import shutil
from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from sbt.models import assemble, load_language_model, silence_libraries
from sbt.models.image_markers import ADDED
from sbt.models.llava import connector_state
from sbt.models.released.read import EMBED, HEAD, INDEX, PROJECTOR
from sbt.models.silence import safe_save
from sbt.models.tokenizer import IMAGE_TOKEN
from sbt.utils import paths
from sbt.utils.files import write_json

MOVED = 0.02  # of a tensor's own spread: another model, which still says what its base says
SHARDS = 2
_FIELDS = {"image_aspect_ratio": "square", "mm_use_im_patch_token": True, "mm_use_im_start_end": True,
           "mm_vision_select_feature": "patch", "mm_vision_select_layer": -2, "use_mm_proj": True,
           "model_type": "llama", "torch_dtype": "float32", "tie_word_embeddings": False}  # fmt: skip


def write(
    folder: str | Path, language_model: str | Path, vision_tower: str | Path, connector: str | Path | None = None,
    *, seed: int = 0,
) -> Path:  # fmt: skip
    """Write the stand-in and return its folder, which is replaced where it is there.

    Two float32 shards with their index and without CLIP, config.json, and the tokenizer with the three added tokens
    (SBT:llava/train/train.py:180-239). `connector` is a folder made by stage 1, or None for an untrained one. `seed`
    decides how the weights are moved. The token `<image>`, which is not in LLaMA's vocabulary, is renamed.
    """
    folder = paths.resolve(str(folder))
    language, words = load_language_model(language_model)
    whole, _ = assemble(language_model, vision_tower, connector, seed=seed)
    state = _moved(language.state_dict(), [words.bos_token_id, words.encode("\n")[-1]], seed)
    for name, tensor in connector_state(whole).items():
        state[PROJECTOR + name.removeprefix("linear_1.")] = tensor.detach().clone()
    names = list(state)
    shards = [1 + number * SHARDS // len(names) for number in range(len(names))]
    files = {key: f"pytorch_model-{n:05d}-of-{SHARDS:05d}.bin" for key, n in zip(names, shards, strict=True)}
    size = sum(tensor.numel() * tensor.element_size() for tensor in state.values())
    raw = {key: value for key, value in language.config.to_dict().items() if key not in ("dtype", "rope_parameters")}
    raw |= _FIELDS | {"vocab_size": len(words) + len(ADDED), "mm_hidden_size": whole.config.vision_config.hidden_size}
    with safe_save(folder), silence_libraries():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for file in sorted(set(files.values())):
            torch.save({key: state[key].contiguous() for key in names if files[key] == file}, folder / file)
        _write_tokenizer(folder, words)
    write_json(folder / INDEX, {"metadata": {"total_size": size}, "weight_map": files})
    write_json(folder / "config.json", raw | {"rope_theta": language.config.rope_parameters["rope_theta"]})
    return folder


def _moved(state: dict[str, torch.Tensor], like: list[int], seed: int) -> dict[str, torch.Tensor]:
    """All tensors moved a little, with rows for the added tokens: the mean, as the authors began with them
    (SBT:llava/model/llava_arch.py:209-217). The markers' input rows are those of the ids `like`: untrained ones would
    spoil the description of the picture.
    """
    generator, moved = torch.Generator().manual_seed(seed), {}
    for key, tensor in state.items():
        spread = float(tensor.std()) if tensor.numel() > 1 else 0.0
        if key in (EMBED, HEAD):
            mean = tensor.mean(dim=0, keepdim=True)
            tensor = torch.cat([tensor, mean, tensor[like] if key == EMBED else mean.expand(2, -1)])
        moved[key] = tensor + MOVED * spread * torch.randn(tensor.shape, generator=generator)
    return moved


def _write_tokenizer(folder: Path, words: PreTrainedTokenizerFast) -> None:
    core = json.loads(words.backend_tokenizer.to_str().replace(json.dumps(IMAGE_TOKEN), '"<unused>"'))
    special = {name: getattr(words, name) for name in ("unk_token", "bos_token", "eos_token", "pad_token")}
    plain = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(core)), **special)
    first = len(plain)
    plain.add_special_tokens({"additional_special_tokens": list(ADDED)})
    plain.save_pretrained(folder)
    write_json(folder / "added_tokens.json", {token: first + place for place, token in enumerate(ADDED)})
