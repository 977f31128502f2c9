"""Repositories of the Hub as parameters name them (`owner/name`, `owner/name@revision`), and each one's commit.

A study keeps one commit for each name, in `outputs/<study>/hub.json`: all its steps read the same files, whatever is
pushed meanwhile. Remove an entry there, or name a revision, to take another one.
"""

import contextlib
import json
import os
import re
from collections.abc import Iterable
from pathlib import Path

from sbt.utils import files, paths
from sbt.utils.errors import DataError

PINS = "hub.json"
VARIABLE = "SBT_HUB_COMMITS"  # the pins of the study at work as JSON, which processes that train inherit
DATASETS = "datasets/"  # stands before the name of a data set, as in the Hub's addresses
# Parameters that may name a model, and those that may name a data set.
MODELS = ("language_model", "base", "tokenizer", "vision_tower", "checkpoint", "model", "length_tokenizer")
TRAINING = ("pretrain_data", "pretrain_images", "instruct_data", "instruct_images_from", "alpaca_data", "orca_data")
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+(@[\w./-]+)?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
FILE = re.compile(r".*\.(jsonl?|parquet|zip|csv|txt)")
_OURS = ("assets/", "outputs/", "data/")
used: dict[str, str] = {}  # what this process read, by name: the commit


def is_name(value: object) -> bool:
    """Whether a parameter's value names a repository: no file or folder here, and none of the package or a study."""
    named = isinstance(value, str) and _NAME.fullmatch(value) and not value.startswith(_OURS)
    return bool(named) and not FILE.fullmatch(value) and not paths.exists(value)


def split(name: str) -> tuple[str, str | None]:
    """Repository and revision; None for the newest."""
    repo, _, revision = name.partition("@")
    return repo, revision or None


def named(values: dict) -> list[str]:
    """The repositories that a step's parameters name, data sets with DATASETS before them, each once."""
    names = [value for name in MODELS if is_name(value := values.get(name))]
    if names and values.get("revision") and values.get("checkpoint") in names:  # as 25 has it
        names = [f"{one}@{values['revision']}" if one == values["checkpoint"] else one for one in names]
    names += [DATASETS + value for name in TRAINING if is_name(value := values.get(name))]
    return list(dict.fromkeys(names))


def pins(study: Path) -> dict[str, str]:
    """The commits that a study keeps, by name; DataError where the file holds something else."""
    file = study / PINS
    kept = files.read_json(file) if file.is_file() else {}
    if not isinstance(kept, dict) or not all(isinstance(commit, str) for commit in kept.values()):
        raise DataError(f"{paths.shown(file)} does not hold names and their commits: remove it to take the newest")
    return kept


def pin(study: Path, names: Iterable[str]) -> dict[str, str]:
    """Resolve the names that the study has no commit for yet, and have this process and its children read them all.

    A name that cannot be resolved (no network, no permission) gets no commit; loading it says why.
    """
    kept = pins(study)
    if missing := [name for name in dict.fromkeys(names) if name not in kept]:
        with files.lock(study / ".locks" / "hub", 60, f"{paths.shown(study / PINS)} is in use by another process"):
            kept = pins(study)
            found = {name: commit for name in missing if name not in kept and (commit := resolve(name))}
            if found:
                kept |= found
                files.write_json(study / PINS, kept)
    os.environ[VARIABLE] = json.dumps(kept)
    return kept


def resolve(name: str) -> str:
    """The commit a name stands for now: the Hub's, or the cache's with HF_HUB_OFFLINE or no network; else ""."""
    import huggingface_hub
    from huggingface_hub import constants

    kind = "dataset" if name.startswith(DATASETS) else "model"
    repo, revision = split(name.removeprefix(DATASETS))
    if revision and _COMMIT.fullmatch(revision):
        return revision
    if not constants.is_offline_mode():
        with contextlib.suppress(Exception):  # of many libraries; loading it gives the reason
            return huggingface_hub.HfApi().repo_info(repo, revision=revision, repo_type=kind).sha
    folder = Path(constants.HF_HUB_CACHE) / f"{kind}s--{repo.replace('/', '--')}" / "refs"
    ref = folder / (revision or constants.DEFAULT_REVISION)
    return ref.read_text().strip() if ref.is_file() else ""


def cached(repo: str, file: str, revision: str | None = None, kind: str = "model") -> Path | None:
    """Where a file of a repository lies in the Hub's cache; the Hub is not asked."""
    import huggingface_hub

    with contextlib.suppress(ValueError):  # no name of a repository
        found = huggingface_hub.try_to_load_from_cache(repo, file, revision=revision, repo_type=kind)
        return Path(found) if isinstance(found, str) else None
    return None


def commit(name: str) -> str | None:
    """The revision to ask the Hub for: the study's commit, else the revision that the name has, else None."""
    found = json.loads(os.environ.get(VARIABLE, "{}")).get(name)
    if found:
        used[name] = found
    return found or split(name)[1]


def given(name: str) -> tuple[str, dict]:
    """What `from_pretrained` takes for a folder or a model's name: the folder or repository, and its `revision`."""
    if Path(name).is_dir() or not _NAME.fullmatch(name):
        return name, {}
    return split(name)[0], {"revision": found} if (found := commit(name)) else {}
