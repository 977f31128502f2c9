"""A run of one step: `begin` checks the parameters and opens the step's folder, `finish` closes it with its metrics.

Work that is still good is kept: a finished run is `cached`, an interrupted one is resumed, any other is set aside.
"""

import contextlib
import copy
import math
import time
import warnings
from collections.abc import Iterable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import make_dataclass
from pathlib import Path

import yaml

from sbt.study import estimate, inputs, manifest, params
from sbt.utils import env, files, hub, paths, text
from sbt.utils.errors import DataError, ParameterError, RunError
from sbt.utils.files import read_json, read_jsonl, write_json, write_jsonl
from sbt.utils.progress import Answer, Progress, note

__all__ = [
    "Run",
    "begin",
    "best",
    "lock",
    "metrics",
    "read_json",
    "read_jsonl",
    "samples",
    "write_json",
    "write_jsonl",
]

LOCK_SECONDS = 60
MIN_FREE_GB = 1.0
METRIC = (
    "study", "arm", "benchmark", "subset", "metric", "value", "n", "low", "high",
    "protocol", "template_hash", "harness_version", "data",
)  # fmt: skip
_begun: dict[int, "Run"] = {}  # the run of each namespace, by the namespace's id


def begin(namespace: dict) -> "Run":
    """Begin the run of the notebook whose `globals()` are `namespace`, or end it here where `dry_run` is set.

    Parameters are the values that the namespace holds of the names that the `parameters` cell declared when it ran;
    other names in it are the reader's own. ParameterError: a value is missing or of a wrong type, names a path that is
    not here, or papermill gave an unknown name. RunError: the folder cannot be used, or a package was replaced.
    """
    warnings.filterwarnings("ignore", message="IProgress not found")  # tqdm's, about bars that nobody will see
    env.check_restart()
    env.allow_growing_blocks()
    note(env.line(paths.outputs()))
    if previous := _begun.pop(id(namespace), None):
        previous.release()
    executed = namespace.get("In", ())
    declared, injected = params.declared_in_session(executed) if any(executed) else (_declared_in_file(namespace), [])
    notebook = _notebook(declared)
    params.check(declared, dict.fromkeys([name for name in injected if name not in declared]), notebook)
    if missing := [name for name in ("study", "step", *declared) if name not in declared or name not in namespace]:
        raise ParameterError(f"{notebook}: no value for {', '.join(missing)}: run the cell tagged `parameters` again")
    values, _ = params.effective(declared, [(notebook, {name: namespace[name] for name in declared})])
    print(_summary(notebook, declared, values))
    if values.get("dry_run"):
        raise Stopped(f"Dry run, nothing was done. It would take {estimate.step(notebook, values)}.")
    inputs.check(values)
    _begun[id(namespace)] = run = Run(notebook, values)
    return run


def _declared_in_file(namespace: dict) -> dict[str, params.Parameter]:
    """What the notebook of this step in `notebooks/` declares: nbval keeps no history of the cells that ran."""
    for file in sorted(paths.notebooks().glob("*.ipynb")):
        with contextlib.suppress(ParameterError, DataError):  # another notebook's fault
            declared = params.declared(file)
            if "step" in declared and declared["step"].default == namespace.get("step"):
                return declared
    raise ParameterError("run the cell tagged `parameters` first, the one that names `study` and `step`")


def _notebook(declared: dict[str, params.Parameter]) -> str:
    """Name of the notebook in `notebooks/` that declares these parameters, a saved copy of it or not.

    Its `step` has the same default; else it is the one that this session was opened with, or declares the same names.
    """
    session = env.session_notebook()

    def likeness(file: Path) -> tuple[bool, bool, bool, int, str]:
        try:
            theirs = params.declared(file)
        except (ParameterError, DataError):  # another notebook's fault
            theirs = {}
        same_step = "step" in theirs and theirs["step"].default == declared["step"].default
        return same_step, file.stem == session, theirs.keys() == declared.keys(), -len(file.stem), file.stem

    best = max(paths.notebooks().glob("*.ipynb"), key=likeness, default=None)
    if best is None or not any(likeness(best)[:3]):
        where, name = paths.shown(paths.notebooks()), text.short(declared["step"].default)
        raise ParameterError(f"no notebook in {where} declares the step {name}: save this one there first")
    return best.stem


def _summary(notebook: str, declared: dict[str, params.Parameter], values: dict) -> str:
    if all(values[name] == parameter.default for name, parameter in declared.items()):
        return f"{notebook}: {len(declared)} parameters, all at their defaults"
    rows = []
    for name, parameter in declared.items():
        changed = f"changed from {parameter.default!r}" if values[name] != parameter.default else "default"
        rows.append([name, text.short(values[name]), changed[:80]])
    return text.table(["parameter", "value", "origin"], rows)


def lock(study: str, step: str) -> AbstractContextManager:
    """Hold a step, so that no two processes write to its folder. RunError where another one keeps it."""
    path = paths.outputs() / study / ".locks" / step
    where = paths.shown(manifest.step_folder(study, step))
    busy = f"{where} is in use by another process: shut that kernel down first"
    try:
        return files.lock(path, 0, busy)
    except RunError:
        note(f"Waiting for another process that works on {step} ...")
        return files.lock(path, LOCK_SECONDS, busy)


def metrics(folder: Path) -> list[dict]:
    """Metric rows of a finished step; RunError where they are damaged."""
    rows = manifest.read(folder, "metrics.json")
    kinds = {name: int | float | None if name in ("value", "n", "low", "high") else str for name in METRIC}
    if not all(
        isinstance(row, dict) and all(name in row and isinstance(row[name], kind) for name, kind in kinds.items())
        for row in rows
    ):
        where = paths.shown(folder / "metrics.json")
        raise RunError(f"{where} is not whole. Make the step anew with {manifest.force(folder)}")
    return rows


def best(folders: Iterable[Path], metric: str) -> dict:
    """The parameters of the step, of those in `folders`, with the largest value of a metric; the first of equals.

    DataError where no step has it.
    """
    found = {folder: row["value"] for folder in folders for row in metrics(folder) if row["metric"] == metric}
    if not found:
        raise DataError(f"no step has the metric {metric!r}, by which the best one is chosen")
    return params.load_yaml(max(found, key=found.__getitem__) / "params.yaml")


def samples(folder: Path) -> list[dict]:
    """Every scored item of a finished step."""
    return read_jsonl(folder / "samples.jsonl")


class Stopped(Exception):
    """A wanted end of a notebook. IPython shows the reason in place of a traceback."""

    def __init__(self, reason: str) -> None:
        super().__init__()  # papermill takes a SystemExit without a text for success
        self.reason = reason

    def _render_traceback_(self) -> list[str]:
        return [self.reason]


Stopped.__name__ = "SystemExit"


class Run:
    """One run. `p`: frozen parameters; `folder`: where it writes; `cached`: finished before, and still good."""

    def __init__(self, notebook: str, values: dict) -> None:
        self.study, self.step = values["study"], values["step"]
        self.p = make_dataclass("Parameters", values, frozen=True)(**values)
        self.folder = manifest.step_folder(self.study, self.step)
        self._started = time.monotonic()
        self._held = ExitStack()
        self._held.enter_context(lock(self.study, self.step))
        self._progress = Progress(self.folder / "progress.json")
        try:
            self._open(notebook, values)
        except BaseException:
            self.release()
            raise
        self._answer = Answer()

    def _open(self, notebook: str, values: dict) -> None:
        pinned = hub.pin(self.folder.parent, hub.named(values))
        hub.used.clear()
        found = manifest.state(notebook, values)
        self.cached = found.kind == "up to date"
        if self.cached:
            manifest.restore(self.folder, notebook=True)
        if found.kind == "to run":
            manifest.discard(self.folder, notebook=True)
            self._manifest = manifest.new_manifest(notebook, values) | {"resumed": False}
        else:
            self._manifest = manifest.read(self.folder, "manifest.json") | {"resumed": True}
            note("Finished before, and still good." if self.cached else "Resuming what was begun before.")
        if self.cached:
            return
        # of results: `download.fetch` looks at the room for downloads, and 00_check asks for `min_free_gb`
        need = max(MIN_FREE_GB, estimate.step(notebook, values).disk_gb)
        with files.writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        env.check_space(self.folder, need)
        files.write_text(self.folder / "params.yaml", yaml.safe_dump(values, sort_keys=False, allow_unicode=True))
        self._written: dict = {}
        self._record()
        hub.used |= {name: pinned[name] for name in hub.named(values) if name in pinned}
        for path in inputs.local(values):
            self.input(path)

    def _record(self) -> None:
        """Write down what the work so far depends on, before more of it is done."""
        if self.cached:
            return
        self._manifest["code"] |= manifest.loaded_code()
        self._manifest["hub"] = self._manifest.get("hub", {}) | hub.used
        if self._manifest != self._written:
            write_json(self.folder / "manifest.json", self._manifest)
            self._written = copy.deepcopy(self._manifest)

    def path(self, name: str) -> Path:
        """Path of a result file in the step's folder; its folder is made. `scratch/...` holds no results (caches)."""
        self._record()
        path = self.folder / name
        with files.writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def scratch(self, name: str) -> Path:
        """A folder, made here, for what is no result: caches, pictures, unpacked files."""
        folder = self.path(f"scratch/{name}")
        with files.writing(folder):
            folder.mkdir(exist_ok=True)
        return folder

    def input(self, path: Path | str) -> Path:
        """Record a file or folder as an input of this run. DataError where it does not exist."""
        path = paths.resolve(str(path))
        if not path.exists():
            raise DataError(f"{paths.shown(path)} does not exist, and {self.step} reads it")
        name = path.relative_to(paths.root()).as_posix() if path.is_relative_to(paths.root()) else path.as_posix()
        self._manifest["inputs"][name] = files.fingerprint(path)
        self._record()
        return path

    def upstream(self, step: str) -> Path:
        """Folder of a finished step of this study, recorded as an input. MissingStep where it is not finished.

        While the step is made anew, or where that failed, it is the folder of its earlier results.
        """
        folder = manifest.whole(manifest.step_folder(self.study, step))
        if folder.name != step:
            note(f"{step} has no new results yet: the earlier ones are read.")
        self._manifest["upstream"][step] = manifest.finished(folder)
        self._record()
        return folder

    def upstreams(self, *prefixes: str) -> dict[str, Path]:
        """Folders of all finished steps whose names start with one of `prefixes`, by step, each recorded."""
        for prefix in prefixes or ("",):
            self._manifest["listings"][prefix] = manifest.finished_steps(self.folder.parent, prefix, but=self.step)
        names = sorted({step for prefix in prefixes or ("",) for step in self._manifest["listings"][prefix]})
        return {step: self.upstream(step) for step in names}

    def answer(self, *sentences: str) -> None:
        """Answer the notebook's question where it stands: sentences from the results, in bold."""
        self._answer.write(" ".join(f"{one.removesuffix('.')}." for one in sentences if one))

    def progress(self, done: int, total: int, **numbers: object) -> None:
        """Show that `done` of `total` items of a loop are done, and some numbers (a loss, an arm's name)."""
        if done == 0 or done == total:
            self._record()
        self._progress.update(done, total, **numbers)

    def finish(self, metrics: Iterable[dict] = (), samples: Iterable[dict] = (), **tables: object) -> None:
        """Write metric rows, scored items and tables (`name=rows or DataFrame` -> `name.csv`), then DONE.

        A metric row has the keys of METRIC; `study`, `harness_version` and `data` (which version of the benchmark's
        files, where there are several) are filled in. RunError where a row is not whole, or where a cached run is
        finished with other numbers than it was the first time.
        """
        rows = [self._row(row) for row in metrics]
        if self.cached:
            self._same(rows)
        else:
            self._record()
            write_jsonl(self.folder / "samples.jsonl", samples)
            write_json(self.folder / "metrics.json", rows)
            for name, table in tables.items():
                records_of = table.to_dict("records") if hasattr(table, "to_dict") else table
                files.write_csv(self.folder / f"{name}.csv", records_of)
            self._close()
        self.release()
        print(f"{self.step}: finished, {len(rows)} metrics")

    def _row(self, row: dict) -> dict:
        from sbt import __version__

        row = {"study": self.study, "harness_version": f"sbt {__version__}", "data": ""} | row
        for name in row:
            if name not in METRIC:
                raise RunError(f"{self.step}: a metric row has no key {name!r}{text.nearest(name, METRIC)}")
        if missing := [name for name in METRIC if name not in row]:
            raise RunError(f"{self.step}: a metric row lacks {', '.join(missing)}: {row}")
        for name in ("value", "low", "high"):
            if row[name] is not None and not math.isfinite(row[name]):
                raise RunError(f"{self.step}: {name} of {row['metric']} of {row['arm']} is {row[name]}")
        # JSON knows no numpy scalars
        return {name: row[name].item() if hasattr(row[name], "item") else row[name] for name in METRIC}

    def _same(self, rows: list[dict]) -> None:
        if rows != manifest.read(self.folder, "metrics.json"):
            raise RunError(
                f"{self.step} was finished with the same parameters and saved code, but with other numbers: save the "
                f"notebook if it was edited, else make the step anew with {manifest.force(self.folder)}"
            )

    def _close(self) -> None:
        (self.folder / "progress.json").unlink(missing_ok=True)
        outputs = manifest.results(self.folder)
        result = files.sha256("".join(f"{name} {output['sha256']}\n" for name, output in outputs.items()))
        self._manifest |= {
            "outputs": outputs,
            "result": result,
            "seed": getattr(self.p, "seed", None),
            "seconds": round(time.monotonic() - self._started, 1),
            "peak_memory_gb": round(env.peak_memory_gb(), 2),
            "finished": time.strftime("%Y-%m-%d %H:%M"),
            "commit": env.commit(paths.root()),
            "packages": env.packages(),
            "machine": env.describe(),
        }
        write_json(self.folder / "manifest.json", self._manifest)
        write_json(self.folder / "DONE", {"result": result, "key": self._manifest["key"]})
        (self.folder.with_name(f"{self.step}{manifest.STALE}") / manifest.EARLIER).unlink(missing_ok=True)
        self.cached = True

    def release(self) -> None:
        """Let go of the step's folder."""
        self._held.close()
