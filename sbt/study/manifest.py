"""What the folder of a step says: its manifest, whether its work is still good, and which files are its results.

`manifest.json` is written when a run begins and grows with every input; `DONE` is written last of all.
"""

import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from sbt.study import params
from sbt.utils import files, paths
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
NOT_IN_KEY = ("dry_run", "min_free_gb")  # parameters that cannot change a result


@dataclass(frozen=True)
class State:
    """`kind` is `up to date`, `resume` or `to run`; `reason` says why it is not the first."""

    kind: str
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.kind}: {self.reason}" if self.reason else self.kind


def step_folder(study: str, step: str) -> Path:
    """Folder of a step's results."""
    return paths.outputs() / study / step


def force(folder: Path) -> str:
    """The command that makes a step anew."""
    return f"`sbt run {folder.parent.name} --only {folder.name} --force`"


def read(folder: Path, name: str) -> dict | list:
    """A JSON file of a step's folder; RunError with the remedy where it is damaged."""
    try:
        value = files.read_json(folder / name)
    except DataError as error:
        raise RunError(f"{error}. Make the step anew with {force(folder)}") from None
    fields = SHAPES.get(name, {})
    whole = isinstance(value, dict if fields else list)
    if not whole or any(not isinstance(value.get(field), kind) for field, kind in fields.items()):
        raise RunError(f"{paths.shown(folder / name)} is not whole. Make the step anew with {force(folder)}")
    return value


def new_manifest(notebook: str, values: dict) -> dict:
    """Manifest of a run that begins: what identifies its work, and no inputs yet."""
    source = params.source_hash(params.read_notebook(paths.notebooks() / f"{notebook}.ipynb"))
    key = files.sha256(json.dumps([identity(values), source], sort_keys=True))
    inputs = {"upstream": {}, "listings": {}, "inputs": {}, "code": {}}
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
    """State of the step that `notebook` makes with effective parameters `values`; RunError where it is corrupt."""
    folder = step_folder(values["study"], values["step"])
    done = (folder / "DONE").exists()
    if not done and not (folder / "manifest.json").exists():
        return State("to run", "new")
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
    for step, result in old["upstream"].items():
        if not (study / step / "DONE").exists():
            return f"{step} is not finished"
        if read(study / step, "DONE")["result"] != result:
            return f"{step} has new results"
    for prefix, steps in old["listings"].items():
        if finished_steps(study, prefix, but=folder.name) != steps:
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
    """Names of the finished steps of a study's folder that start with `prefix`, sorted."""
    found = [done.parent.name for done in study.glob(f"{prefix}*/DONE")]
    return sorted(name for name in found if name != but and not name.endswith(".stale"))


def results(folder: Path) -> dict[str, dict]:
    """Fingerprints of a step's result files. Checkpoints, `scratch/` and hidden files are means, not results."""
    found = {}
    for file in sorted(folder.rglob("*")):
        parts = file.relative_to(folder).parts
        means = any(part == "scratch" or part.startswith((".", "checkpoint-")) for part in parts)
        if file.is_file() and not means and file.relative_to(folder).as_posix() not in BESIDE:
            found["/".join(parts)] = files.fingerprint(file)
    return found


def discard(folder: Path) -> None:
    """Make room for new work: what a finished run left goes to `<step>.stale`, what an unfinished one left is removed.

    So the last whole results stay until there are new ones. Unfinished work is kept, too, where nothing whole is. An
    executed notebook stays, since papermill may be writing it. DONE goes first and the manifest last, so that whatever
    a kill leaves behind is recognised as unfinished and old.
    """
    last = {"DONE": -1, "manifest.json": 1}
    entries = [entry for entry in folder.glob("*") if entry.name != "notebook.ipynb"]
    entries.sort(key=lambda entry: last.get(entry.name, 0))
    stale = folder.with_name(f"{folder.name}.stale")
    done, begun = (folder / "DONE").exists(), (folder / "manifest.json").exists()
    with files.writing(stale):
        if begun and not done and (stale / "DONE").exists() and (stale / "manifest.json").exists():
            for entry in entries:
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
            return
        if begun and stale.exists():
            shutil.rmtree(stale)
        for entry in entries:
            target = stale / entry.name
            stale.mkdir(exist_ok=True)
            if target.is_dir():
                shutil.rmtree(target)
            entry.replace(target)
