"""The files of LLaVA's own checkpoints: read safely, every key accounted for, named as transformers names them."""

import pickle
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from transformers import LlamaConfig

from sbt.models.silence import silence_libraries
from sbt.utils import paths
from sbt.utils.errors import CheckpointError, DataError
from sbt.utils.files import read_json

INDEX, WHOLE = "pytorch_model.bin.index.json", "pytorch_model.bin"
PROJECTOR_FILE, OTHERS_FILE = "mm_projector.bin", "non_lora_trainables.bin"
ADAPTER_FILE, ADAPTER_CONFIG = "adapter_model.bin", "adapter_config.json"
PROJECTOR, VISION = "model.mm_projector.", "model.vision_tower.vision_tower."
LORA_PREFIX = "base_model.model."
_DOWNLOAD = "Download the file again"
# By name, for these files also say how the picture is read, which other versions of a config refuse.
_LLAMA = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "hidden_act",
          "num_key_value_heads", "max_position_embeddings", "rms_norm_eps", "tie_word_embeddings", "initializer_range",
          "bos_token_id", "eos_token_id", "rope_theta", "rope_scaling", "attention_bias")  # fmt: skip


def kind(folder: str | Path) -> str:
    """What a folder holds: "projector", "full", "lora" or "llava-1.5".

    CheckpointError lists what is there where it is none of them, or more than one.
    """
    folder = paths.resolve(str(folder))
    if not folder.is_dir():
        raise CheckpointError(f"{paths.shown(folder)} is no folder. Download the checkpoint, or correct the name")
    names, found, listed = sorted(file.name for file in folder.iterdir()), [], {}
    if PROJECTOR_FILE in names:
        found.append("projector")
    if {ADAPTER_FILE, ADAPTER_CONFIG, OTHERS_FILE} & set(names):
        found.append("lora")
    if {INDEX, WHOLE} & set(names):
        listed = shard_keys(folder)
        if f"{PROJECTOR}weight" in listed:
            found.append("full")
        if f"{PROJECTOR}0.weight" in listed:
            found.append("llava-1.5")
    if len(found) == 1:
        return found[0]
    inside = f"; {len(listed)} keys, none or too many of a projector" if listed else ""
    raise CheckpointError(
        f"{paths.shown(folder)}: {'looks like ' + ' and '.join(found) if found else 'no checkpoint of LLaVA'} "
        f"(files: {', '.join(names) or 'none'}{inside}). Give each checkpoint a folder of its own"
    )


@dataclass
class Weights:
    """Tensors of a checkpoint by key, the file each was in, and the keys that are knowingly left out."""

    tensors: dict[str, torch.Tensor]
    files: dict[str, Path]
    ignored: list[str] = field(default_factory=list)

    def take(self, prefix: str) -> "Weights":
        """Remove what begins with `prefix` and return it, the prefix removed."""
        names = {key: key.removeprefix(prefix) for key in self.tensors if key.startswith(prefix)}
        files = {names[key]: self.files[key] for key in names}
        return Weights({names[key]: self.tensors.pop(key) for key in names}, files)

    def ignore(self, suffix: str) -> None:
        """Leave out, and list, the keys that end in `suffix`."""
        for key in [key for key in self.tensors if key.endswith(suffix)]:
            del self.tensors[key]
            self.ignored.append(key)

    def expect(self, wanted: Mapping[str, Iterable[int]], source: Path, prefix: str = "") -> None:
        """CheckpointError that names file and key where the tensors are not those `wanted`: key -> shape."""
        for key, tensor in self.tensors.items():
            where = f"{paths.shown(self.files[key])}: {prefix}{key}"
            if key not in wanted:
                raise CheckpointError(f"{where} is a key this format does not have. Nothing is left out silently")
            if tuple(tensor.shape) != tuple(wanted[key]):
                raise CheckpointError(f"{where} is {tuple(tensor.shape)}, expected {tuple(wanted[key])}")
            if not tensor.is_floating_point():
                raise CheckpointError(f"{where} holds {tensor.dtype}, no weights")
        absent = sorted(set(wanted) - set(self.tensors))
        if absent:
            more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
            raise CheckpointError(f"{paths.shown(source)}: {prefix}{absent[0]}{more} missing. {_DOWNLOAD}")


def read_bin(file: Path) -> Weights:
    """Tensors of a `.bin` file, mapped into memory where its format allows; no code in it is ever run.

    CheckpointError where it is missing, damaged (its checksums are verified) or holds more than named tensors.
    """
    if not file.is_file():
        raise CheckpointError(f"{paths.shown(file)} is missing. {_DOWNLOAD}")
    try:
        mapped = zipfile.is_zipfile(file)  # else torch's format of before version 1.6
        if mapped:
            with zipfile.ZipFile(file) as archive:
                bad = archive.testzip()  # mapping reads no checksum
            if bad:
                raise RuntimeError(f"checksum of {bad} differs")
        with silence_libraries():
            found = torch.load(file, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        if "GLOBAL" in str(error).upper():
            raise CheckpointError(
                f"{paths.shown(file)}: asks for code to be run or objects to be made, which weights never need. "
                "It is refused: do not trust where it comes from"
            ) from error
        raise CheckpointError(f"{paths.shown(file)}: is damaged, or no file of torch tensors. {_DOWNLOAD}") from error
    except Exception as error:  # a damaged pickle raises whatever its operations meet
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{paths.shown(file)}: is damaged ({reason}). {_DOWNLOAD}") from error
    if not isinstance(found, dict) or not all(
        isinstance(key, str) and isinstance(value, torch.Tensor) and value.layout == torch.strided
        for key, value in found.items()
    ):
        raise CheckpointError(f"{paths.shown(file)}: holds something else than tensors by name")
    return Weights(found, dict.fromkeys(found, file))


def shard_keys(folder: Path) -> dict[str, str]:
    """Key -> file name of a fully tuned folder, from its index, else from its only file."""
    if not (folder / INDEX).is_file():
        return dict.fromkeys(read_bin(folder / WHOLE).tensors, WHOLE)
    file = folder / INDEX
    index = read_object(file).get("weight_map")
    names = index.values() if isinstance(index, dict) else [None]
    if not all(isinstance(name, str) and Path(name).name == name for name in names):
        raise CheckpointError(f"{paths.shown(file)}: 'weight_map' must give each key the name of a file beside it")
    return index


def read_shards(folder: Path) -> Weights:
    """All tensors of a fully tuned folder; CheckpointError where index and files do not say the same."""
    listed = shard_keys(folder)
    whole = Weights({}, {})
    for name in dict.fromkeys(listed.values()):
        part = read_bin(folder / name)
        for key in part.tensors:
            if listed.get(key) != name:
                raise CheckpointError(f"{paths.shown(folder / name)}: {key} is not in {INDEX} as a key of this file")
        absent = [key for key, where in listed.items() if where == name and key not in part.tensors]
        if absent:
            raise CheckpointError(f"{paths.shown(folder / name)}: {absent[0]} missing, though {INDEX} lists it")
        whole.tensors |= part.tensors
        whole.files |= part.files
    return whole


def connector(weights: Weights, source: Path, vision_width: int, width: int) -> tuple[str, dict[str, torch.Tensor]]:
    """Take the projector out: "linear" or "mlp2x_gelu", and its tensors as this package's connector names them."""
    own = weights.take(PROJECTOR)
    layers = {"0": "linear_1", "2": "linear_2"} if "0.weight" in own.tensors else {"": "linear_1"}
    names, wanted = {}, {}
    for place, (old, new) in enumerate(layers.items()):
        for leaf, shape in (("weight", (width, width if place else vision_width)), ("bias", (width,))):
            key = f"{old}.{leaf}".lstrip(".")
            names[key], wanted[key] = f"{new}.{leaf}", shape
    own.expect(wanted, source, PROJECTOR)
    return "linear" if len(layers) == 1 else "mlp2x_gelu", {names[key]: own.tensors[key] for key in names}


def llama_config(folder: Path) -> tuple[LlamaConfig, dict]:
    """The language model's part of a LLaVA's own config.json, and the whole of it; CheckpointError where unfit."""
    file = folder / "config.json"
    raw = read_object(file)
    if not str(raw.get("model_type", "llama")).startswith(("llama", "llava")):
        raise CheckpointError(f"{paths.shown(file)}: model_type {raw['model_type']!r}, expected llama or llava")
    for key, value in (("mm_vision_select_layer", -2), ("mm_vision_select_feature", "patch")):
        if raw.get(key, value) != value:
            raise CheckpointError(f"{paths.shown(file)}: {key} is {raw[key]!r}; only {value!r} is converted")
    absent = [key for key in _LLAMA[:5] if not isinstance(raw.get(key), int)]
    if absent:
        raise CheckpointError(f"{paths.shown(file)}: {absent[0]} is no whole number. {_DOWNLOAD}")
    try:
        return LlamaConfig(**{key: raw[key] for key in _LLAMA if raw.get(key) is not None}), raw
    except Exception as error:  # transformers checks the values with errors of several libraries
        reason = str(error).strip().splitlines()[-1].strip()
        raise CheckpointError(f"{paths.shown(file)}: not the configuration of a Llama ({reason})") from error


def read_object(file: Path) -> dict:
    """The object of a JSON file; CheckpointError where it is missing, malformed or something else."""
    try:
        found = read_json(file)
    except DataError as error:
        raise CheckpointError(f"{error}. {_DOWNLOAD}") from error
    if not isinstance(found, dict):
        raise CheckpointError(f"{paths.shown(file)}: must hold an object. {_DOWNLOAD}")
    return found
