"""Checkpoints of a run in progress: the trained tensors and the trainer's state, complete or not there at all.

Only what trains is kept (8 MB for a connector, not 13 GB). A checkpoint is written aside, closed with a list of its
files and renamed, so one cut off by a kill is never taken for whole.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import torch
from datasets import Dataset
from safetensors.torch import save_file
from torch import nn

from sbt import paths
from sbt.errors import CheckpointError, DataError
from sbt.files import read_json, sha256, write_json
from sbt.models.arms import weights_sample
from sbt.models.assemble import read_safetensors
from sbt.training.settings import Settings, World

WEIGHTS, COMPLETE, STATE = "trained.safetensors", "complete.json", "trainer_state.json"
_PREFIX = "checkpoint-"


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters that train, by name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def save_weights(model: nn.Module, folder: Path, gathered: dict[str, torch.Tensor] | None = None) -> None:
    """Write the trained tensors; `gathered` is the whole state where each process holds only a part of the model.

    CheckpointError where a tensor that trains is not in it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    wanted = trained(model)
    if gathered is not None:
        if absent := sorted(set(wanted) - set(gathered)):
            raise CheckpointError(f"{paths.shown(folder)}: the engine gathered no {absent[0]}: weights are not saved")
        wanted = {name: gathered[name] for name in wanted}
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in wanted.items()}
    save_file(state, folder / WEIGHTS)


def load_weights(model: nn.Module, folder: Path) -> None:
    """Put the trained tensors back; CheckpointError unless they are exactly those that train now."""
    state, wanted = read_safetensors(Path(folder) / WEIGHTS), trained(model)
    if {k: v.shape for k, v in state.items()} != {k: v.shape for k, v in wanted.items()}:
        odd = sorted(set(state) ^ set(wanted)) or ["shapes"]
        raise CheckpointError(
            f"{paths.shown(Path(folder) / WEIGHTS)}: not the weights that train in this run ({odd[0]}). "
            "Delete the folder to start anew"
        )
    with torch.no_grad():
        for name, parameter in wanted.items():
            parameter.copy_(state[name])


def publish(staged: Path, folder: Path, keep: int) -> None:
    """Close the checkpoint in `staged`, move it into `folder` in one step, then drop all but the newest `keep`."""
    final = folder / staged.name
    found = sorted(file for file in staged.rglob("*") if file.is_file())  # sharded engines write folders
    files = {file.relative_to(staged).as_posix(): file.stat().st_size for file in found}
    write_json(staged / COMPLETE, files)
    shutil.rmtree(final, ignore_errors=True)  # a damaged one of the same step
    os.replace(staged, final)
    for old in _numbered(folder)[keep:]:
        shutil.rmtree(old, ignore_errors=True)


def newest(folder: Path) -> Path | None:
    """The newest checkpoint whose files are all there at their full size; None if there is none."""
    return next((checkpoint for checkpoint in _numbered(folder) if _whole(checkpoint)), None)


def step_of(checkpoint: Path) -> int:
    """Optimizer steps done at a checkpoint."""
    return int(checkpoint.name.removeprefix(_PREFIX))


def fingerprint(
    model: nn.Module, rows: Sequence[dict] | Dataset, settings: Settings, world: World | None = None
) -> str:
    """16 hex digits that name the run: settings, rows (images by file name) and a sample of the starting weights.

    With several processes, their number and engine too: optimizer state and random numbers are kept by process.
    """
    identity = settings.identity()
    if world is not None and world.processes > 1:
        identity |= {"processes": world.processes, "engine": world.engine}
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True, default=str).encode())
    for piece in _table_pieces(rows) if isinstance(rows, Dataset) else _row_pieces(rows):
        digest.update(piece)
    digest.update(json.dumps(sorted(trained(model))).encode() + weights_sample(model).encode())
    return sha256(digest.digest())[:16]


def _row_pieces(rows: Sequence[dict]) -> Iterator[bytes]:
    for row in rows:
        images = [Path(image).name if isinstance(image, str) else "" for image in row.get("images") or []]
        yield json.dumps([row.get("id"), images, row["messages"]], sort_keys=True, default=str).encode()


def _table_pieces(data: Dataset) -> Iterator[bytes]:
    """The same of a prepared data set, by the bytes of its columns: row by row half a million take a minute."""
    for table in data.with_format("arrow").iter(batch_size=10_000):
        images = table["images"].to_pylist() if "images" in table.column_names else []
        names = [[Path(image).name for image in one or []] for one in images]
        yield json.dumps([table["id"].to_pylist(), names]).encode()
        for chunk in table["messages"].chunks:
            yield pa.RecordBatch.from_arrays([chunk], ["messages"]).serialize().to_pybytes()


def _numbered(folder: Path) -> list[Path]:
    found = [path for path in folder.glob(f"{_PREFIX}*") if path.name.removeprefix(_PREFIX).isdigit()]
    return sorted(found, key=step_of, reverse=True)


def _whole(checkpoint: Path) -> bool:
    try:
        files = read_json(checkpoint / COMPLETE)
        state = read_json(checkpoint / STATE)
    except DataError:
        return False
    sizes = {name: (checkpoint / name).stat().st_size for name in files if (checkpoint / name).is_file()}
    return sizes == files and state.get("global_step") == step_of(checkpoint)
