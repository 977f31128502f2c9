"""A released checkpoint brought to this machine: only what conversion reads, and not before the disk was checked.

folder, commit = fetch("PahaII/MM-LLaMA-2-7B-ft", "main")
"""

import contextlib
import re
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

from huggingface_hub import HfApi, constants, scan_cache_dir, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from sbt.models.released import keys
from sbt.models.silence import silence_libraries
from sbt.utils import env, paths
from sbt.utils.errors import CheckpointError, RunError, SbtError

# What conversion reads: no optimizer, no trainer_state.json, and no training_args.bin, which is a pickle of objects.
NEEDED = ("config.json", keys.PROJECTOR_FILE, "pytorch_model*.bin", keys.INDEX, keys.ADAPTER_FILE,
          keys.ADAPTER_CONFIG, keys.OTHERS_FILE, "tokenizer*", "added_tokens.json",
          "special_tokens_map.json")  # fmt: skip
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
SPARE = 1.05  # of the size on disk: file systems keep books, too


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
    if not _HUB_ID.fullmatch(checkpoint) or checkpoint.startswith(("assets/", "outputs/", "data/")):
        raise CheckpointError(
            f"checkpoint={checkpoint!r} is no folder here and no hub id like PahaII/MM-LLaMA-2-7B-ft"
        )
    wanted = revision or constants.DEFAULT_REVISION
    with _hub(checkpoint, wanted), silence_libraries():
        if not constants.is_offline_mode():
            info = HfApi().model_info(checkpoint, revision=wanted, files_metadata=True)
            _check_space(checkpoint, sum(file.size or 0 for file in info.siblings if is_needed(file.rfilename)))
            wanted = info.sha
        found = Path(snapshot_download(checkpoint, revision=wanted, allow_patterns=list(NEEDED)))
    return Fetched(found, found.name)


def is_needed(name: str) -> bool:
    """Whether conversion reads a file of this name."""
    return any(fnmatch(name, pattern) for pattern in NEEDED)


def _check_space(checkpoint: str, size: int) -> None:
    cache = Path(constants.HF_HUB_CACHE)
    have = 0
    if cache.is_dir():
        have = sum(repo.size_on_disk for repo in scan_cache_dir(cache).repos if repo.repo_id == checkpoint)
    need, free = max(0, size - have) * SPARE / 1e9, env.free_gb(cache)
    if need > free:
        raise RunError(
            f"{checkpoint}: {need:.1f} GB are to be downloaded and {free:.1f} GB are free below {cache}. Free some "
            "space, or set HF_HOME to a folder on a larger disk"
        )


@contextlib.contextmanager
def _hub(checkpoint: str, revision: str) -> Iterator[None]:
    """Turn what the hub's client raises into one message that says what to do; it never holds a token."""
    try:
        yield
    except GatedRepoError as error:
        raise CheckpointError(
            f"{checkpoint}: its owners give it out on request. Accept their terms on its page, then set HF_TOKEN"
        ) from error
    except RepositoryNotFoundError as error:
        raise CheckpointError(
            f"{checkpoint}: the hub has no such repository, or it is private. Correct the name, or set HF_TOKEN"
        ) from error
    except RevisionNotFoundError as error:
        raise CheckpointError(f"{checkpoint}: there is no revision {revision!r}. Name a branch or a commit") from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        where = "HF_HUB_OFFLINE is set and" if constants.is_offline_mode() else "the hub cannot be reached and"
        raise CheckpointError(
            f"{checkpoint}: {where} the cache does not hold it. Download it elsewhere, and name its folder"
        ) from error
    except SbtError:
        raise
    except Exception as error:  # the client raises whatever its transport does
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise CheckpointError(
            f"{checkpoint}: cannot be downloaded ({reason}). Repeat the step, it continues; with HF_HUB_OFFLINE=1 it "
            "takes what the cache holds"
        ) from error
