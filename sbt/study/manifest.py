"""What the folder of a step says: its manifest, whether its work is still good, and which files are its results.

`manifest.json` is written when a run begins and grows with every input; `DONE` is written last of all.
"""

import contextlib
import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from sbt.study import params
from sbt.utils import files, hub, paths
from sbt.utils.errors import DataError, MissingStep, RunError

# Written beside the results, but no results: they hold times, or are made by others.
BESIDE = {
    "DONE", "manifest.json", "notebook.html", "notebook.ipynb", "params.yaml", "progress.json", "report.html",
}  # fmt: skip
SHAPES = {  # what the files of a folder must hold; the others are lists
    "DONE": {"result": str},
    "manifest.json": {"notebook": str, "source": str, "params": dict, "upstream": dict, "listings": dict,
                      "inputs": dict, "code": dict},
}  # fmt: skip
NOTEBOOK, STALE = "notebook.ipynb", ".stale"
LONGEST_NAME = 255  # of a file, in most file systems: no longer one can be looked for
EARLIER = ".earlier"  # marks whole results in `<step>.stale` while the new ones are made
NOT_IN_KEY = ("dry_run", "min_free_gb")  # parameters that cannot change a result


@dataclass(frozen=True)
class State:
    """`kind` is `up to date`, `resume` or `to run`; `reason` says why it is not the first."""

    kind: str
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.kind}: {self.reason}" if self.reason else self.kind


NEW = State("to run", "new")


def step_folder(study: str, step: str) -> Path:
    """Folder of a step's results."""
    return paths.outputs() / study / step


def force(folder: Path) -> str:
    """The command that makes a step anew."""
    return f"`sbt run {folder.parent.name} --only {folder.name.removesuffix(STALE)} --force`"


def read(folder: Path, name: str) -> dict | list:
    """A JSON file of a step's folder; RunError with the remedy where it is damaged."""
    try:
        value = files.read_json(folder / name)
    except DataError as error:
        if not folder.joinpath(name).exists() and (moved := whole(folder)) != folder:  # a moment ago
            return read(moved, name)
        raise RunError(f"{error}. Make the step anew with {force(folder)}") from None
    fields = SHAPES.get(name, {})
    sound = isinstance(value, dict if fields else list)
    if sound and fields:
        sound = all(isinstance(value.get(field), kind) for field, kind in fields.items())
        names = [name for held in value.values() if isinstance(held, dict) for name in held]
        sound &= all(len(part) <= LONGEST_NAME for name in names for part in name.split("/"))
    if not sound:
        raise RunError(f"{paths.shown(folder / name)} is not whole. Make the step anew with {force(folder)}")
    return value


def new_manifest(notebook: str, values: dict) -> dict:
    """Manifest of a run that begins: what identifies its work, and no inputs yet."""
    source = params.source_hash(params.read_notebook(paths.notebooks() / f"{notebook}.ipynb"))
    key = files.sha256(json.dumps([identity(values), source], sort_keys=True))
    inputs = {"upstream": {}, "listings": {}, "inputs": {}, "hub": {}, "code": {}}
    return {"notebook": notebook, "key": key, "source": source, "params": identity(values), **inputs}


def identity(values: dict) -> dict:
    """The parameters that a result depends on, as JSON keeps them."""
    return json.loads(json.dumps({name: value for name, value in values.items() if name not in NOT_IN_KEY}))


def loaded_code() -> dict[str, str]:
    """SHA-256 of every source file of the package that is loaded, and of its templates."""
    package = paths.package()
    modules = [module for name, module in sys.modules.items() if name.split(".")[0] == package.name]
    sources = {Path(module.__file__) for module in modules if getattr(module, "__file__", None)}
    sources.update(package.glob("templates/*.jinja"))
    return {file.relative_to(package).as_posix(): files.file_hash(file) for file in sorted(sources)}


def state(notebook: str, values: dict) -> State:
    """State of the step that `notebook` makes with effective parameters `values`; RunError where it is corrupt.

    Where other work was begun to replace them, earlier results that are asked for again are up to date; `restore` puts
    them back in their place.
    """
    folder = step_folder(values["study"], values["step"])
    found = _state(folder, notebook, values)
    if found.kind == "to run" and found != NEW and (before := whole(folder)) != folder:
        with contextlib.suppress(RunError):  # a damaged one is made anew
            earlier = _state(before, notebook, values)
            return earlier if earlier.kind == "up to date" else found
    return found


def _state(folder: Path, notebook: str, values: dict) -> State:
    done = (folder / "DONE").exists()
    if not done and not (folder / "manifest.json").exists():
        return NEW
    manifest = read(folder, "manifest.json")
    if reason := _difference(folder, manifest, new_manifest(notebook, values)):
        return State("to run", reason)
    if not done:
        return State("resume", "not finished")
    outputs = manifest.get("outputs")
    for name in outputs if isinstance(outputs, dict) else ():
        if not (folder / name).exists():
            return State("to run", f"{name} is missing")
    finished(folder)
    return State("up to date")


def _difference(folder: Path, old: dict, new: dict) -> str:
    """First reason why recorded work is not what a run would do now; empty where there is none."""
    study = folder.parent
    if old["notebook"] != new["notebook"]:
        return f"was made by {old['notebook']}"
    names = [name for name in old["params"] | new["params"] if old["params"].get(name) != new["params"].get(name)]
    if names:
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        return f"parameter {', '.join(names[:3])}{more} changed"
    if old["source"] != new["source"]:
        return "the notebook's code changed"
    for file, recorded in old["code"].items():
        path = paths.package() / file
        if not path.is_file() or files.file_hash(path) != recorded:
            return f"sbt/{file} changed"
    for path, recorded in old["inputs"].items():
        if not files.unchanged(paths.root() / path, recorded):
            return f"{path} changed"
    kept = hub.pins(study)
    for name, commit in old.get("hub", {}).items():
        if kept.get(name, commit) != commit:
            return f"{name} is at commit {kept[name][:7]} now"
    for step, result in old["upstream"].items():
        if not (whole(study / step) / "DONE").exists():
            return f"{step} is not finished"
        if read(whole(study / step), "DONE")["result"] != result:
            return f"{step} has new results"
    for prefix, steps in old["listings"].items():
        if finished_steps(study, prefix, but=folder.name.removesuffix(STALE)) != steps:
            return f"other steps {prefix}* are finished now"
    return ""


def finished(folder: Path) -> str:
    """Result hash of a finished step. MissingStep where it is not finished, RunError where a result was altered."""
    study, step = folder.parent.name, folder.name
    if not (folder / "DONE").exists():
        command = f"sbt run {study} --only {step}"
        raise MissingStep(f"step {step} of study {study} is not finished: make it with `{command}`")
    result = read(folder, "DONE")["result"]
    manifest = read(folder, "manifest.json")
    if not isinstance(manifest.get("outputs"), dict):
        raise RunError(f"{paths.shown(folder)}/manifest.json lists no outputs. Make it anew with {force(folder)}")
    if manifest.get("result") != result:
        raise RunError(f"{paths.shown(folder)}: manifest.json and DONE disagree. Make it anew with {force(folder)}")
    for name, recorded in manifest["outputs"].items():
        if not files.unchanged(folder / name, recorded):
            where = paths.shown(folder / name)
            raise RunError(f"{where} is damaged: it is not what the step wrote. Make it anew with {force(folder)}")
    return result


def finished_steps(study: Path, prefix: str = "", but: str = "") -> list[str]:
    """Names of the steps of a study's folder that have whole results and start with `prefix`, sorted.

    Each is looked at twice, since its results may be moved between two looks (`discard`).
    """
    found = {folder.name.removesuffix(STALE) for folder in study.glob(f"{prefix}*")} - {but}
    return sorted(name for name in found if any((whole(study / name) / "DONE").exists() for _ in range(2)))


def results(folder: Path) -> dict[str, dict]:
    """Fingerprints of a step's result files. Checkpoints, `scratch/` and hidden files are means, not results."""
    found = {}
    for file in sorted(folder.rglob("*")):
        parts = file.relative_to(folder).parts
        means = any(part == "scratch" or part.startswith((".", "checkpoint-")) for part in parts)
        if file.is_file() and not means and file.relative_to(folder).as_posix() not in BESIDE:
            found["/".join(parts)] = files.fingerprint(file)
    return found


def whole(folder: Path) -> Path:
    """Where the last whole results of a step are: its folder, or `<step>.stale` until the new ones are whole."""
    before = folder.with_name(f"{folder.name}{STALE}")
    stands_in = (before / EARLIER).exists() and (before / "DONE").exists() and not (folder / "DONE").exists()
    return before if stands_in else folder


def discard(folder: Path, notebook: bool = False) -> None:
    """Make room for new work in a step's folder: what a finished run left goes to `<step>.stale`.

    It stands in for the new results until they are whole (`whole`). What an unfinished run left is removed, but kept
    in the same way where nothing whole is. `notebook`: the executed notebook stays, since papermill is writing it. One
    rename moves all, so that a kill leaves whole results here or there.
    """
    if not any(entry.name != NOTEBOOK for entry in folder.glob("*")):
        return
    before, done = folder.with_name(f"{folder.name}{STALE}"), (folder / "DONE").exists()
    with files.writing(before):
        if done:
            (folder / EARLIER).touch()
        _swap(folder, before if done or not (before / "DONE").exists() else None, notebook)


def restore(folder: Path, notebook: bool = False) -> None:
    """Put the earlier results back in their place, and remove the unfinished work that was to replace them.

    `notebook`: the executed notebook stays, as in `discard`.
    """
    before = whole(folder)
    if before != folder:
        with files.writing(folder):
            _swap(folder, None, notebook, before)
            (folder / EARLIER).unlink(missing_ok=True)


def _swap(folder: Path, place: Path | None, notebook: bool, instead: Path | None = None) -> None:
    """Move a folder to `place` (None: away), and `instead` (None: an empty one) to where it was."""
    gone = folder.with_name(f".{folder.name}.discarded")
    place = place or gone
    shutil.rmtree(place, ignore_errors=not place.exists())
    if folder.exists():
        folder.replace(place)
    instead.replace(folder) if instead else folder.mkdir(parents=True)
    if notebook and (place / NOTEBOOK).exists():
        (place / NOTEBOOK).replace(folder / NOTEBOOK)
    shutil.rmtree(gone, ignore_errors=True)
