"""What the steps of a study need that this machine or its token may lack, checked before anything is downloaded.

rows = checks([step.values for step in steps], paths.downloads(), benchmarks.sources())
print(verdict(rows, steps))  # everything that is missing, and what cannot run for it; an error where nothing can
"""

import re
import urllib.request
from collections.abc import Iterable, Mapping
from pathlib import Path

import huggingface_hub
from huggingface_hub import errors as hub_errors

from sbt.data import download, training_sets
from sbt.data.registry import HUB_URL, BenchmarkFiles, Mirror, Source
from sbt.study import inputs
from sbt.study.plan import Step
from sbt.utils import env, hub, paths
from sbt.utils.errors import DataError, RunError

EXTRAS = {"bitsandbytes": "gpu", "deepspeed": "multi-gpu", "liger-kernel": "gpu"}
_OF_BITSANDBYTES = re.compile(r"adamw_8bit|.*(bnb|paged|lion|ademamix).*")  # as in training.settings
NOT_FOUND = "missing"
Row = tuple[str, str, bool, str, Iterable[str]]


def access(repo: str, kind: str = "model") -> str:
    """Why this machine's token does not open `repo` (`kind` model or dataset), by one small request; "" where it does.

    Never raises and never shows the token: the first minute of a run is where this belongs.
    """
    page = f"{HUB_URL}/{'datasets/' if kind == 'dataset' else ''}{repo}"
    token = "the token found" if env.has_token() else "no token (set HF_TOKEN, or run `hf auth login`)"
    try:
        huggingface_hub.HfApi().auth_check(repo, repo_type=kind)
    except hub_errors.GatedRepoError:
        return f"{repo} is gated, and {token} does not open it: accept its terms at {page}"
    except hub_errors.RepositoryNotFoundError:
        return f"{repo} does not exist or is private, with {token}: look at {page}"
    except Exception as error:  # no network, a proxy's page, a Hub that is down: many types
        return f"{repo} could not be asked for ({type(error).__name__}): is {page} reachable?"
    return ""


def checks(steps: Iterable[dict], folder: Path, published: Mapping[str, BenchmarkFiles]) -> list[dict]:
    """Rows `check, found, ok, why` as `env.checks` gives: packages, GPUs, paths, models, sources, benchmarks, disks.

    `steps` in a row are those that need it; () stands for all. `steps` given are the steps' values, `folder` is what
    is fetched to. Models that are folders or packaged need nothing, nor do those in the Hub's cache; with
    HF_HUB_OFFLINE set nobody is asked.
    """
    steps = list(steps)
    asked: dict[Source, list[str]] = {}
    for values in steps:
        for source in wanted(values, published):
            asked.setdefault(source, []).append(_name(values))
    rows = [*_machine(steps), *_paths(steps), *_repositories(steps), *_benchmarks(asked, folder)]
    rows += _disks(steps, asked, folder)
    return [dict(zip(("check", "found", "ok", "why", "steps"), row, strict=True)) for row in rows]


def wanted(values: Mapping[str, object], published: Mapping[str, BenchmarkFiles]) -> list[Source]:
    """The benchmarks' sources that a step with these parameter values downloads, each once.

    `published` has the parameter `sources.mmlu` for the key `mmlu` of a dict `sources`.
    """
    sources: list[Source] = []
    for parameter, files in published.items():
        name, _, key = parameter.partition(".")
        value = values.get(name)
        if key:
            sources += files.wanted(value.get(key) if isinstance(value, Mapping) else None, "")
        elif isinstance(value, Mapping):
            sources += files.wanted(value.get("references"), value.get("images", ""))
        elif name in values:
            sources += files.wanted(value, values.get("images", ""), values.get("tasks", ()))
    return list(dict.fromkeys(sources))


def verdict(rows: Iterable[dict], steps: Iterable[Step] = ()) -> str:
    """What the study does without, in words; empty where nothing is missing.

    RunError that names every check that failed, with what to do about it, where no arm could be scored, or where the
    whole machine lacks something. `steps` are the study's, in the order of its plan.
    """
    failed = [row for row in rows if not row["ok"]]
    lines = "\n".join(f"  {row['check']} ({row['found']}): {row['why']}" for row in failed)
    lost: set[str] = {name for row in failed for name in row.get("steps", ())}
    steps = list(steps)
    for step in steps:
        if not step.sums_up and lost.intersection(step.needs):
            lost.add(step.name)
    whole = any(not row.get("steps") for row in failed)
    if failed and (whole or not any(step.scores and step.name not in lost for step in steps)):
        raise RunError(f"this machine is not ready:\n{lines}")
    without = ", ".join(step.name for step in steps if step.name in lost)
    return f"missing:\n{lines}\nThe study goes on; without it these cannot run: {without}" if failed else ""


def _name(values: dict) -> str:
    return values.get("step", "a step")


def _machine(steps: list[dict]) -> Iterable[Row]:
    """Optional packages, each with the parameter that asks for it, and GPUs."""
    asked: dict[str, str] = {}
    cards: dict[str, int] = {}
    for values in steps:
        of = _name(values)
        if values.get("quantization") == "4bit":
            asked.setdefault("bitsandbytes", f"quantization '4bit' of {of}")
            cards.setdefault(f"quantization '4bit' of {of}", 1)
        if _OF_BITSANDBYTES.fullmatch(optimizer := str(values.get("optimizer", ""))):
            asked.setdefault("bitsandbytes", f"optimizer {optimizer!r} of {of}")
        if values.get("liger"):
            asked.setdefault("liger-kernel", f"liger of {of}")
            cards.setdefault(f"liger of {of}", 1)
        if (engine := str(values.get("engine", ""))).startswith("zero"):
            asked.setdefault("deepspeed", f"engine {engine!r} of {of}")
        if engine and (engine != "ddp" or env.gpus()):  # without any, ddp trains on the CPU
            here = values.get("processes", 1) // max(1, values.get("machines", 1))
            cards.setdefault(f"engine {engine!r} of {of}, {here} processes on a machine", here)
    for package, why in asked.items():
        found = env.version(package)
        why = f'{why} needs it: pip install -e ".[{EXTRAS[package]}]"'
        yield package, found or NOT_FOUND, found is not None, why, ()
    if cards:
        why, most = max(cards.items(), key=lambda card: card[1])
        yield "NVIDIA GPUs", str(env.gpus()), env.gpus() >= most, f"{why} needs {most}", ()


def _paths(steps: list[dict]) -> Iterable[Row]:
    """Every file and folder that a parameter names and that is not here, with the step and the parameter.

    What lies in the folder of outputs is left out: another step may write it.
    """
    for name, where in inputs.missing(steps, [paths.outputs()]).items():
        parameters = ", ".join(f"{parameter} of {step}" for parameter, step in where)
        why = f"{parameters}: {inputs.remedy(where[0][0], name)}"
        yield f"path {name}", NOT_FOUND, False, why, [step for _, step in where]


def _repositories(steps: list[dict]) -> Iterable[Row]:
    """Every repository that the steps name, asked for where the cache does not have it."""
    wanted: dict[tuple[str, str], list[str]] = {}
    for values in steps:
        named = hub.named(values)
        repos = [(name, "dataset" if name.startswith(hub.DATASETS) else "model") for name in named]
        for repo in repos:
            wanted.setdefault(repo, []).append(_name(values))
    for (name, kind), needed in wanted.items():
        repo, _ = hub.split(name.removeprefix(hub.DATASETS))
        if kind == "model" and hub.cached(repo, "config.json", hub.commit(name)):
            yield f"{kind} {repo}", "cached", True, "in the Hub's cache", needed
        elif download.offline_mode():
            yield f"{kind} {repo}", "not asked for", True, "HF_HUB_OFFLINE is set", needed
        else:
            refused = access(repo, kind)
            yield f"{kind} {repo}", "refused" if refused else "open", not refused, refused, needed


def _benchmarks(asked: Mapping[Source, list[str]], folder: Path) -> Iterable[Row]:
    """Sources of the benchmarks that parameters take from the hub, each with its terms and where it is from."""
    for source, needed in asked.items():
        files = download.plan(source, folder)
        terms = f". {source.note[:1].upper()}{source.note[1:]}" if source.note else ""
        said = f"{source.title}: {', '.join(files['from'])}{terms}"
        if line := by_hand(source, folder):
            yield f"data {source.name}", NOT_FOUND, False, line, needed
        elif refused := refusal(source, folder):
            yield f"data {source.name}", "refused", False, f"{source.title}: {refused}", needed
        else:
            yield f"data {source.name}", "here" if files["here"].all() else "to be fetched", True, said, needed


def by_hand(source: Source, folder: Path) -> str:
    """What to do about a source that no address gives, and that is not here; empty for any other."""
    missing = [file for file in source.files if not file.mirrors and not download.here(source, file, folder)]
    if not missing:
        return ""
    places = ", ".join(paths.shown(folder / source.name / file.name) for file in missing)
    return f"{source.title}: handed out by hand only. Fetch it from {source.page} and put it to {places}"


def refusal(source: Source, folder: Path) -> str:
    """Why the first file of a source that is still to be fetched cannot be had, in words; empty where it can.

    One small request a place, until one gives the file; nothing is asked with HF_HUB_OFFLINE set.
    """
    missing = [file for file in source.files if file.mirrors and not download.here(source, file, folder)]
    if not missing or download.offline_mode():
        return ""
    failures = []
    for mirror in missing[0].mirrors:
        try:
            _ask_for_head(mirror)
            return ""
        except Exception as error:  # of many libraries: each is shown
            failures.append(f"{mirror.shown()}: {download.reason(error)}")
    return "; ".join(failures)


def _ask_for_head(mirror: Mirror) -> None:
    """Ask a place for the head of its file; an error of any type where it does not have it."""
    if mirror.repo:
        where = {"repo_type": "dataset", "revision": mirror.revision}
        huggingface_hub.get_hf_file_metadata(huggingface_hub.hf_hub_url(mirror.repo, mirror.path, **where))
        return
    request = urllib.request.Request(mirror.url, headers={"User-Agent": "sight-beyond-text"}, method="HEAD")
    with urllib.request.urlopen(request, timeout=download.TIMEOUT) as answer:
        if answer.headers.get_content_type() == "text/html":
            raise DataError("the server sends a web page instead of the file: a log-in, a consent or an error page")


def _disks(steps: list[dict], asked: Iterable[Source], folder: Path) -> Iterable[Row]:
    """Disks that training files and benchmarks are fetched to."""
    training = [source for values in steps for source in training_sets.whole(values)]
    for one in download.room([*training, *asked], folder):
        yield "disk of downloads", f"{one.free:.0f} GB free", one.free >= one.need, str(one), ()
