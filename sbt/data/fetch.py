"""All that a study's steps read from the network, fetched ahead: `sbt fetch STUDY`, for machines whose jobs have none.

Afterwards `HF_HUB_OFFLINE=1 sbt run STUDY` finds everything.
"""

import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import huggingface_hub
from huggingface_hub import constants

from sbt.data import download, preflight, training_sets
from sbt.data.registry import BenchmarkFiles, Source
from sbt.study import plan as plans
from sbt.utils import env, hub, paths, text
from sbt.utils.errors import ParameterError

_WEIGHTS, _BESIDE = (".safetensors", ".bin"), (".json", ".model", ".txt", ".jinja")
_NOT_READ = ("training_args", "optimizer", "scheduler", "rng_state", "consolidated")


@dataclass
class Item:
    """One thing to fetch: its name, bytes still to come (None: not known), how, or why it cannot be had."""

    name: str
    size: int | None
    fetch: Callable[[], object]
    problem: str = ""

    def shown(self) -> str:
        """Gigabytes still to come."""
        return "?" if self.size is None else f"{self.size / env.GB:.2f}" if self.size else "here"


def study(name: str, given: Mapping[str, object], published: Mapping[str, BenchmarkFiles]) -> bool:
    """List what the steps of a study read, with sizes, fetch it, and say at the end what could not be had and why.

    `given`: values of `--set`; `published`: the benchmarks' files by parameter. False where something failed.
    Sources that are handed out by hand only are named, and are no failure.
    """
    if download.offline_mode():
        raise ParameterError("HF_HUB_OFFLINE is set, so nothing is asked for: unset it, and repeat")
    plan, steps = plans.load(name, (), dict(given))
    values = [step.values for step in steps]
    hub.pin(paths.outputs() / plan.study, [repo for one in values for repo in hub.named(one)])
    items, by_hand = _items(values, published)
    rows = [[item.name, item.shown()] for item in items]
    print(text.table(["what", "GB"], rows) if items else f"{plan.study} reads nothing from the network")
    failed = {item.name: problem for n, item in enumerate(items, 1) if (problem := _done(item, f"[{n}/{len(items)}]"))}
    for line in by_hand:
        print(line)
    if failed:
        said = f"{len(failed)} of {len(items)} could not be fetched; the same command goes on from here:"
        print("\n".join([said, *(f"  {one}: {problem}" for one, problem in failed.items())]), file=sys.stderr)
    return not failed


def _done(item: Item, place: str) -> str:
    """Fetch an item; why it could not be had, empty if it is here."""
    problem = item.problem
    if not problem:
        try:
            item.fetch()
        except Exception as error:  # of many libraries; what the others need is fetched all the same
            problem = download.reason(error)
    print(f"{place} {item.name}: {'failed' if problem else 'done'}", flush=True)
    return problem


def _items(steps: list[dict], published: Mapping[str, BenchmarkFiles]) -> tuple[list[Item], list[str]]:
    """What to fetch, and a line for each source that is handed out by hand only and is not here."""
    models = dict.fromkeys(name for values in steps for name in hub.named(values) if not name.startswith(hub.DATASETS))
    items = [_model(name) for name in models]
    for values in steps:
        items += [Item(*one) for one in training_sets.wanted(values, paths.downloads())]
    sources = dict.fromkeys(source for values in steps for source in preflight.wanted(values, published))
    items += [_source(source) for source in sources if not preflight.by_hand(source, paths.downloads())]
    lines = [line for source in sources if (line := preflight.by_hand(source, paths.downloads()))]
    return list({item.name: item for item in items}.values()), lines


def _source(source: Source) -> Item:
    return Item(f"data {source.name}", download.missing_size(source, paths.downloads()),
                partial(download.fetch, source, paths.downloads()))  # fmt: skip


def _model(name: str) -> Item:
    """A model's repository: the files that loading it reads, of the study's commit."""
    repo, _ = hub.split(name)
    revision = hub.commit(name)
    try:
        info = huggingface_hub.HfApi().model_info(repo, revision=revision, files_metadata=True)
    except Exception as error:  # as above
        return Item(f"model {name}", None, lambda: None, download.reason(error))
    read = needed([file.rfilename for file in info.siblings])
    sizes = {file.rfilename: file.size for file in info.siblings if file.rfilename in read}
    missing = {file: size for file, size in sizes.items() if not hub.cached(repo, file, info.sha)}
    size = sum(missing.values()) if None not in missing.values() else None
    return Item(f"model {name}", size, partial(_snapshot, repo, info.sha, list(sizes), size or 0))


def needed(names: Iterable[str]) -> list[str]:
    """Which files of a repository loading a model reads: safetensors, else .bin, and what describes them."""
    top = [name for name in names if "/" not in name and not name.startswith(_NOT_READ)]
    kind = next((kind for kind in _WEIGHTS if any(name.endswith(kind) for name in top)), _WEIGHTS[0])
    return [name for name in top if name.endswith((kind, *_BESIDE))]


def _snapshot(repo: str, commit: str, names: list[str], size: int) -> None:
    env.check_space(Path(constants.HF_HUB_CACHE), download.SPARE * size / env.GB, remedy=download.LARGER_DISK)
    huggingface_hub.snapshot_download(repo, revision=commit, allow_patterns=names)
