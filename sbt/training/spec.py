"""A model to train and its rows as a JSON value: built by the same code in the notebook and in every worker.

spec = {"model": {"arm": "outputs/embedded/20_connector/model"},
        "train": {"policy": {"connector": "full", "language_model": "full"}, "seed": 0}, "rows": "rows.jsonl"}
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from datasets import Dataset
from torch import nn
from transformers import PreTrainedTokenizerBase, ProcessorMixin

from sbt.data import prepare
from sbt.models import assemble, load_arm, load_language_model, set_trainable
from sbt.utils import paths
from sbt.utils.errors import ParameterError
from sbt.utils.files import read_jsonl, write_jsonl, writing
from sbt.utils.text import nearest

PARTS = ("model", "train", "rows")


def build(spec: Mapping) -> tuple[nn.Module, ProcessorMixin | PreTrainedTokenizerBase]:
    """The model of a spec, frozen and freed as it says, and its processor.

    `model`: `{"arm": reference, ...}` with arguments of `models.load_arm`; `{"language_model": ..., "vision_tower":
    ..., ...}` with those of `models.assemble`, or without a tower those of `models.load_language_model`. `train`:
    arguments of `models.set_trainable` (policy, lora, seed). ParameterError for a name that is none of them.
    """
    for part in spec:
        if part not in PARTS:
            raise ParameterError(f"spec: {part!r} is unknown{nearest(part, PARTS)}")
    given = dict(spec.get("model") or {})
    if "arm" in given:
        arm = _call(load_arm, "model", given.pop("arm"), **given)
        model, processor = arm.model, arm.processor
    elif "vision_tower" in given:
        model, processor = _call(assemble, "model", **given)
    elif "language_model" in given:
        model, processor = _call(load_language_model, "model", given.pop("language_model"), **given)
    else:
        raise ParameterError("spec: 'model' names neither an 'arm' nor a 'language_model'")
    return _call(set_trainable, "train", model, **(spec.get("train") or {"policy": {}})), processor


def formats(tuning: str, precision: str, engine: str = "") -> dict[str, str]:
    """`load`: the format weights are read in, and `frozen`: that of those that stay frozen ("" for as they are).

    Weights that train are never rounded to half precision; FSDP wants one format in all of a shard.
    """
    load = "float32" if tuning == "full" or engine == "fsdp" else precision
    return {"load": load, "frozen": "" if engine == "fsdp" else precision}


def rows_of(spec: Mapping) -> Sequence[dict] | Dataset:
    """The rows of a spec: a list as it is, a JSON-lines file, or a folder of prepared data, mapped not read."""
    rows = spec.get("rows")
    if rows is None:
        raise ParameterError("spec: no 'rows': name a JSON-lines file or a folder of a prepared data set")
    if not isinstance(rows, str | Path):
        return rows
    path = paths.resolve(str(rows))
    return prepare.load(path) if path.is_dir() else read_jsonl(path)


def save_rows(spec: Mapping, rows: Sequence[dict] | Dataset, folder: Path) -> Path | str:
    """Where workers find the rows of a spec: where it says, or in `folder`, as the same kind that the notebook has."""
    if isinstance(given := spec["rows"], str | Path):
        return given
    if not isinstance(rows, Dataset):
        return write_jsonl(folder / "rows.jsonl", rows)
    with writing(folder / "rows"), prepare.quiet():
        rows.save_to_disk(str(folder / "rows"))
    return folder / "rows"


def _call(function: Callable, part: str, *args: object, **given: object) -> object:
    known = list(inspect.signature(function).parameters)
    for name in given:
        if name not in known:
            raise ParameterError(f"spec: {part}[{name!r}] is unknown{nearest(name, known)}")
    return function(*args, **given)
