"""LLaVA's own checkpoints: fetched from the hub, read safely with every key accounted for, compared with their arm.

folder, commit = fetch("PahaII/MM-LLaMA-2-7B-ft", "main");  kind(folder);  moved(folder, run.path("model"))
"""

import hashlib
import os
import pickle
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

import torch
from huggingface_hub import HfApi, constants, snapshot_download
from safetensors import safe_open
from transformers import LlamaConfig

from sbt.data import download
from sbt.models.llava import ASPECT_RATIOS, read_json_object
from sbt.models.silence import silence_libraries
from sbt.utils import env, hub, paths
from sbt.utils.errors import CheckpointError, SbtError, first_line

INDEX, WHOLE = "pytorch_model.bin.index.json", "pytorch_model.bin"
PROJECTOR_FILE, OTHERS_FILE = "mm_projector.bin", "non_lora_trainables.bin"
ADAPTER_FILE, ADAPTER_CONFIG = "adapter_model.bin", "adapter_config.json"
PROJECTOR, VISION = "model.mm_projector.", "model.vision_tower.vision_tower."
EMBED, HEAD = "model.embed_tokens.weight", "lm_head.weight"
LORA_PREFIX = "base_model.model."
_DOWNLOAD = "Download the file again"
# Fields that change the computation, and the values that are honoured (LLaVA-1.6's `anyres` is not).
_FIELDS = {"mm_vision_select_layer": (-2,), "mm_vision_select_feature": ("patch",),
           "image_aspect_ratio": (*ASPECT_RATIOS, None), "mm_patch_merge_type": ("flat",)}  # fmt: skip
# By name, for these files also say how the picture is read, which other versions of a config refuse.
_LLAMA = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "hidden_act",
          "num_key_value_heads", "max_position_embeddings", "rms_norm_eps", "tie_word_embeddings", "initializer_range",
          "bos_token_id", "eos_token_id", "rope_theta", "rope_scaling", "attention_bias")  # fmt: skip
# What conversion reads: no optimizer, no trainer_state.json, and no training_args.bin, which is a pickle of objects.
NEEDED = ("config.json", PROJECTOR_FILE, "pytorch_model*.bin", INDEX, ADAPTER_FILE, ADAPTER_CONFIG, OTHERS_FILE,
          "tokenizer*", "added_tokens.json", "special_tokens_map.json")  # fmt: skip


class Fetched(NamedTuple):
    """Folder of a checkpoint, and the hub's commit it is of ("" for a folder that was there)."""

    folder: Path
    commit: str


def fetch(checkpoint: str, revision: str = "") -> Fetched:
    """The folder `checkpoint`, or a snapshot of that hub repository's needed files in the hub's own cache.

    With HF_HUB_OFFLINE set nothing is asked for: what the cache holds is taken. CheckpointError where the name, the
    revision or the permission is wrong, or the hub cannot be reached; RunError, before anything is downloaded, where
    the disk is too small.
    """
    folder = paths.resolve(checkpoint)
    if folder.is_dir():
        return Fetched(folder, "")
    if not hub.is_name(checkpoint):
        raise CheckpointError(
            f"checkpoint={checkpoint!r} is no folder here and no hub id like PahaII/MM-LLaMA-2-7B-ft"
        )
    name = f"{checkpoint}@{revision}" if revision else checkpoint
    checkpoint, _ = hub.split(name)
    wanted = hub.commit(name) or constants.DEFAULT_REVISION
    try:
        with silence_libraries():
            if not download.offline_mode():
                info = HfApi().model_info(checkpoint, revision=wanted, files_metadata=True)
                wanted, read = info.sha, [file for file in info.siblings if is_needed(file.rfilename)]
                size = sum(one.size or 0 for one in read if not hub.cached(checkpoint, one.rfilename, wanted))
                need = download.SPARE * size / env.GB
                env.check_space(Path(constants.HF_HUB_CACHE), need, f" for {checkpoint}", download.LARGER_DISK)
            found = Path(snapshot_download(checkpoint, revision=wanted, allow_patterns=list(NEEDED)))
    except SbtError:
        raise
    except Exception as error:  # the client raises whatever its transport does
        raise CheckpointError(f"{checkpoint} cannot be had: {download.reason(error)}") from error
    return Fetched(found, found.name)


def is_needed(name: str) -> bool:
    """Whether conversion reads a file of this name."""
    return any(fnmatch(name, pattern) for pattern in NEEDED)


def kind(folder: str | Path) -> str:
    """What a folder holds: "projector", "full", "lora" or "llava-1.5", which may have its projector once more.

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
            found = [*(name for name in found if name != "projector"), "llava-1.5"]  # published beside the shards
    if len(found) == 1:
        return found[0]
    inside = f"; {len(listed)} keys, none or too many of a projector" if listed else ""
    remedy = "Give each checkpoint a folder of its own"
    if not found:
        remedy += f". LLaVA's own layouts have {PROJECTOR_FILE}, {WHOLE} or its shards, or {ADAPTER_FILE}"
    raise CheckpointError(
        f"{paths.shown(folder)}: {'looks like ' + ' and '.join(found) if found else 'no checkpoint of LLaVA'} "
        f"(files: {', '.join(names) or 'none'}{inside}). {remedy}"
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
        raise CheckpointError(f"{paths.shown(file)}: is damaged ({first_line(error)}). {_DOWNLOAD}") from error
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
    index = read_json_object(file).get("weight_map")
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
    raw = read_json_object(file)
    if not str(raw.get("model_type", "llama")).startswith(("llama", "llava")):
        raise CheckpointError(f"{paths.shown(file)}: model_type {raw['model_type']!r}, expected llama or llava")
    for key, known in _FIELDS.items():
        if raw.get(key, known[0]) not in known:
            which = " or ".join(repr(value) for value in known if value is not None)
            raise CheckpointError(f"{paths.shown(file)}: {key} is {raw[key]!r}; only {which} is converted")
    absent = [key for key in _LLAMA[:5] if not isinstance(raw.get(key), int)]
    if absent:
        raise CheckpointError(f"{paths.shown(file)}: {absent[0]} is no whole number. {_DOWNLOAD}")
    try:
        return LlamaConfig(**{key: raw[key] for key in _LLAMA if raw.get(key) is not None}), raw
    except Exception as error:  # transformers checks the values with errors of several libraries
        reason = str(error).strip().splitlines()[-1].strip()
        raise CheckpointError(f"{paths.shown(file)}: not the configuration of a Llama ({reason})") from error


def contents(folder: Path) -> list[dict]:
    """One row a file that conversion reads: file, MB, tensors and number format of `.bin` files."""
    rows = []
    for file in sorted(file for file in folder.iterdir() if is_needed(file.name)):
        row = {"file": file.name, "MB": round(file.stat().st_size / 1e6, 2), "tensors": "", "dtype": ""}
        if file.suffix == ".bin":
            tensors = read_bin(file).tensors.values()
            types = sorted({str(tensor.dtype).removeprefix("torch.") for tensor in tensors})
            row |= {"tensors": len(tensors), "dtype": ", ".join(types)}
        rows.append(row)
    return rows


def moved(folder: Path, arm: Path) -> list[dict]:
    """Where the tensors of the checkpoint in `folder` are in the converted `arm`: key, tensors, shape, became.

    A tensor is found by the SHA-256 of its contents in the arm's number format, not by its name. Layers are one row.
    `became` is "folded in" for adapters that are part of other weights now, "left out" for what `arm.json` lists as
    ignored, and "not found" for a tensor that was lost.
    """
    info = read_json_object(arm / "arm.json")
    dtype, ignored = getattr(torch, info["dtype"]), set(info["released"]["ignored"])
    placed: dict[str, list[str]] = {}
    for name, contents in _tensors(arm, folder):
        for one in contents:
            placed.setdefault(one, []).append(name)
    groups: dict[tuple, dict] = {}
    for file in sorted(file for file in folder.glob("*.bin") if is_needed(file.name)):
        for key, tensor in read_bin(file).tensors.items():
            became = "left out" if {key, file.name} & ignored else _place(key, tensor, dtype, placed)
            row = {"key": _layers(key), "shape": " x ".join(map(str, tensor.shape)), "became": _layers(became)}
            groups.setdefault(tuple(row.values()), row | {"tensors": 0})["tensors"] += 1
    return [{name: row[name] for name in ("key", "tensors", "shape", "became")} for row in groups.values()]


def origins(folder: Path, arm: Path) -> dict[str, int]:
    """How many tensors of the converted `arm` hold the contents of one in the checkpoint, and how many others it has.

    The others are the vision tower's, where the checkpoint has none; the fixed second layer of a linear connector; and
    with LoRA the weights that adapters were folded into.
    """
    dtype = getattr(torch, read_json_object(arm / "arm.json")["dtype"])
    read = {
        _contents(form)
        for file in folder.glob("*.bin")
        if is_needed(file.name)
        for tensor in read_bin(file).tensors.values()
        for form in (tensor, tensor.to(dtype))
    }
    counts: dict[str, int] = {}
    for name, contents in _tensors(arm, folder):
        part = "vision tower" if "vision_tower" in name else "identity layer" if "linear_2" in name else "other"
        origin = "from the checkpoint" if contents & read else part
        counts[origin] = counts.get(origin, 0) + 1
    return counts


def _tensors(arm: Path, folder: Path) -> Iterator[tuple[str, set[str]]]:
    """Names of the arm's tensors and their contents; of embeddings also without the rows the arm added, as <image>."""
    file = folder / "config.json"
    words = read_json_object(file).get("vocab_size") if file.is_file() else None
    for file in sorted(arm.glob("*.safetensors")):
        with safe_open(file, "pt") as weights:
            for name in weights.keys():  # noqa: SIM118 - no mapping
                tensor = weights.get_tensor(name)
                own = words and name.endswith(("embed_tokens.weight", HEAD)) and len(tensor) > words
                yield name, {_contents(tensor), *([_contents(tensor[:words])] if own else [])}


def _place(key: str, tensor: torch.Tensor, dtype: torch.dtype, placed: dict[str, list[str]]) -> str:
    """Name of the tensor with these contents; of several that whose name ends most like the key."""
    if names := placed.get(_contents(tensor.to(dtype))) or placed.get(_contents(tensor)):
        return max(names, key=lambda name: len(os.path.commonprefix([name[::-1], key[::-1]])))
    if "lora_" in key:
        return "folded in"
    rows = [placed.get(_contents(row.float()), [""])[0] for row in tensor[-2:]] if tensor.ndim == 2 else []
    return f"its last rows: {', '.join(rows)}" if all(rows) and rows else "not found"


def _contents(tensor: torch.Tensor) -> str:
    flat = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
    return hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)}".encode() + memoryview(flat.numpy())).hexdigest()


def _layers(key: str) -> str:
    return re.sub(r"\.\d+\.", ".*.", key)
