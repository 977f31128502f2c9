"""A study's plan: `params/<study>/plan.yaml` with its steps in order, read, checked and laid over the notebooks.

`title: ...`, `card: ...` (the GPU it is meant for, see `costs.CARDS`; none: a CPU), `jobs: ...` (steps side by side),
`set: {name: value}` (for every step whose notebook declares the name)
and `steps: [{name, notebook, params: file.yaml, set: {name: value}, needs: [step, ...]}, ...]`.
"""

import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import yaml

from sbt.study import estimate, inputs, manifest, params
from sbt.utils import env, paths, text
from sbt.utils.errors import MissingStep, ParameterError

TOP = {"title": "str", "card": "str", "jobs": "int", "set": "dict", "steps": "list"}
REPORT = "90_report"  # the notebook, and the step, that sums a study up
CHECK = "00_check"  # what fails there concerns the whole study
WIDTH = 100  # columns of the table
STEP = re.compile(r"\d\d_[\w-]*")  # how the name of a step begins
MOST_JOBS = 4  # side by side on a CPU: beyond it, the longest chain of steps decides
TYPES = {"name": str, "notebook": str, "params": str, "set": dict, "needs": list}


@dataclass(frozen=True)
class Step:
    """One step: which notebook makes it, with which effective values, after which other steps."""

    name: str
    notebook: str
    needs: tuple[str, ...]
    values: dict
    file: Path | None
    extra: dict = field(default_factory=dict)  # values that come from neither the notebook nor the file
    upstream: tuple[dict, ...] = ()  # values of the steps it needs
    card: str = ""  # of the study
    origin: dict = field(default_factory=dict)  # where each value was given

    @property
    def folder(self) -> Path:
        return manifest.step_folder(self.values["study"], self.name)

    @property
    def scores(self) -> bool:
        """Whether it scores arms: a benchmark's failure says nothing about the other benchmarks."""
        return "arm_steps" in self.values

    @property
    def sums_up(self) -> bool:
        """Whether the step shows what others scored; it needs only those that are finished."""
        return not self.scores and any("arm_steps" in values for values in self.upstream)

    @property
    def estimate(self) -> estimate.Estimate:
        return estimate.step(self.notebook, self.values, self.upstream, self.card)

    def state(self) -> manifest.State:
        """State of the step now; RunError where its folder is corrupt."""
        return manifest.state(self.notebook, self.values)

    def command(self) -> str:
        """The plain papermill command that makes this step, to be pasted in the project's folder."""
        beside = Path(sys.prefix) / "bin" / "papermill"
        papermill = "papermill" if shutil.which("papermill") else os.path.relpath(beside, paths.root())
        notebook = paths.notebooks() / f"{self.notebook}.ipynb"
        words = ["mkdir", "-p", paths.shown(self.folder), "&&", papermill, paths.shown(notebook)]
        words.append(paths.shown(self.folder / "notebook.ipynb"))
        if self.file:
            words += ["-f", paths.shown(self.file)]
        given = yaml.safe_dump(self.extra, default_flow_style=True, width=10_000, sort_keys=False).strip()
        return " ".join(word if word == "&&" else shlex.quote(word) for word in [*words, "-y", given])


@dataclass(frozen=True)
class Plan:
    """A study: its name, title and steps, in an order in which each comes after those it needs."""

    study: str
    title: str
    steps: tuple[Step, ...]
    card: str = ""
    jobs: int = 0

    def side_by_side(self) -> int:
        """How many steps run at once: the plan's own number, else one on a GPU, else one a core, a few at most.

        Small models gain little from a second thread, and most of a notebook's time is Python's.
        """
        return self.jobs or (1 if self.card else min(env.cores(), MOST_JOBS))

    def chosen(self, only: Iterable[str]) -> list[Step]:
        """Steps named by `--only`: by name, or by what stands before its first `_` (`30`). All without `only`."""
        only = list(only)
        wanted = [word.strip() for words in only for word in words.split(",") if word.strip()]
        if only and not wanted:
            raise ParameterError("--only names no step: leave it out for all")
        for word in wanted:
            if not any(word in (step.name, step.name.split("_")[0]) for step in self.steps):
                names = [step.name for step in self.steps]
                shown, near = text.short(word, quotes=False), text.nearest(word[:100], names)
                raise ParameterError(f"--only {shown}: no such step in {self.study}{near}")
        return [s for s in self.steps if not wanted or s.name in wanted or s.name.split("_")[0] in wanted]

    def select(self, only: Iterable[str]) -> list[Step]:
        """The chosen steps; MissingStep where one needs a step that is neither chosen nor finished.

        One that sums up needs a single one of those it names.
        """
        chosen = self.chosen(only)
        names = {step.name for step in chosen}
        finished = manifest.finished_steps(paths.outputs() / self.study)
        for step in chosen:
            lacks = [need for need in step.needs if need not in names and need not in finished]
            if lacks and not (step.sums_up and len(lacks) < len(step.needs)):
                command = f"sbt run {self.study} --only {lacks[0]}"
                raise MissingStep(f"{step.name} needs {lacks[0]}, which is not finished: make it with `{command}`")
        return chosen


def load(study: str, only: Iterable[str] = (), given: dict | None = None) -> tuple[Plan, list[Step]]:
    """Plan of a study (`embedded`, `params/embedded`) and its selected steps, every parameter of every step checked.

    `given`: values of `--set`, laid over each selected step whose notebook declares them. ParameterError otherwise.
    """
    folder, given = _study_folder(study), given or {}
    file = folder / "plan.yaml"
    plan = params.load_yaml(file)
    where = paths.shown(file)
    params.check({n: params.Parameter(n, t, None, "") for n, t in TOP.items()}, plan, where)
    card = estimate.card_of(folder.name)
    entries = [_entry(entry, where) for entry in plan.get("steps", [])]
    if not entries:
        raise ParameterError(f"{where}: no steps")
    _check_needs(entries, where)
    title, jobs = plan.get("title", folder.name), plan.get("jobs", 0)
    common = plan.get("set", {})
    bare = Plan(folder.name, title, _linked((_step(folder, e, common, {}) for e in entries), card), card, jobs)
    known = set().union(*(step.values for step in bare.steps))
    if strange := [name for name in common if name not in known]:
        nearest = text.nearest(str(strange[0])[:100], known)
        raise ParameterError(f"{where}: set: no step has the parameter {text.short(strange[0])}{nearest}")
    _check_named_steps(bare.steps, folder.name)
    if not given:
        return bare, bare.select(only)
    names = {step.name for step in bare.chosen(only)}
    known = set().union(*(step.values for step in bare.steps if step.name in names)) - {"study", "step"}
    for name in given:
        if name not in known:
            short, near = text.short(name, quotes=False), text.nearest(name[:100], known)
            raise ParameterError(f"--set {short}: no selected step has this parameter{near}")
    steps = _linked((_step(folder, e, common, given if e["name"] in names else {}) for e in entries), card)
    _check_named_steps(steps, folder.name)
    plan = replace(bare, steps=steps)
    return plan, plan.select(only)


def table(steps: Iterable[Step], states: dict[str, str]) -> str:
    """Steps with arm, state in words, optimizer steps, time, memory and disk; below it, what does not fit its card.

    What several steps fetch stands beside the first one. "?" where a card or a size is not known. At most WIDTH
    columns: states are shortened to fit, and arms left out.
    """
    steps = list(steps)
    found = estimate.fetched_once(step.estimate for step in steps)
    rows, notes, costs = [], [], {step.name: cost for step, cost in zip(steps, found, strict=True)}
    unit = 60 if sum(cost.minutes for cost in costs.values()) >= 60 else 1
    for step in steps:
        cost = costs[step.name]
        numbers = {
            "steps": f"{cost.steps:,}" if cost.steps else "",
            "hours" if unit > 1 else "minutes": f"{cost.minutes / unit:.1f}",
            "GPU GB": f"{cost.gpu_gb:.0f}" if cost.gpu_gb else "",
            "GPUs": str(cost.processes) if cost.gpu_gb else "",
            "memory GB": f"{cost.memory_gb:.1f}",
            "disk GB": f"{cost.disk_gb:.1f}",
            "fetch GB": f"{fetched:.1f}" if (fetched := sum(cost.fetched.values())) else "",
        }
        numbers = {name: "?" if name in cost.unknown else number for name, number in numbers.items()}
        rows.append({"step": step.name, "arm": step.values.get("arm", ""), "state": states[step.name]} | numbers)
        if not cost.fits:
            notes.append(
                f"{step.name} needs {cost.gpu_gb:.0f} GB, more than a {cost.card} has: lower batch_size (and raise "
                "accumulation), set gradient_checkpointing, or spread it with engine fsdp over more processes"
            )
    header = [name for name in rows[0] if any(row[name] for row in rows)]
    for name, least in (("state", 10), ("arm", 0)):
        lines = text.table(header, [[row[name] for name in header] for row in rows]).splitlines()
        widest = max(len(row[name]) for row in rows)
        most = widest - max(0, max(map(len, lines)) - WIDTH)
        if name == "arm" and most < widest:
            header.remove("arm") if "arm" in header else None
        for row in rows:
            row[name] = text.short(row[name], max(most, least), quotes=False)
    return "\n".join([text.table(header, [[row[name] for name in header] for row in rows]), *notes])


def missing(plan: Plan, steps: Iterable[Step]) -> str:
    """Every path that the steps' parameters name and that is not here, a line each, with where it was given.

    What an earlier step of the study makes is left out. Empty where all are here.
    """
    steps = {step.name: step for step in steps}
    found = inputs.missing((step.values for step in steps.values()), (step.folder for step in plan.steps))
    lines = []
    for path, where in found.items():
        given = [(f"{name} of {step}", steps[step].origin[name].partition(" (for ")[0]) for name, step in where]
        by = {source: ", ".join(words for words, other in given if other == source) for _, source in given}
        told = "; ".join(f"{source}: {words}" for source, words in by.items())
        lines.append(f"{path} does not exist ({told}): {inputs.remedy(where[0][0], path)}")
    return "\n".join(lines)


def _linked(steps: Iterable[Step], card: str) -> tuple[Step, ...]:
    """Steps that know their study's card and the values of those they need.

    A step that is told which `arms` to score needs no step that makes another one.
    """
    steps = tuple(steps)
    values = {step.name: step.values for step in steps}
    linked = []
    for step in steps:
        asked = [str(arm).split(" (run ")[0] for arm in step.values.get("arms", ())]
        needs = [need for need in step.needs if not asked or values[need].get("arm", asked[0]) in asked]
        linked.append(replace(step, card=card, needs=tuple(needs), upstream=tuple(values[need] for need in needs)))
    return tuple(linked)


def _check_named_steps(steps: Iterable[Step], study: str) -> None:
    """ParameterError where a parameter names a step that is none of the study."""
    steps = tuple(steps)
    names = [step.name for step in steps]
    for step in steps:
        for name, value in step.values.items():
            if name == "step" or not isinstance(value, str) or not STEP.fullmatch(value) or value in names:
                continue
            raise ParameterError(
                f"{step.name}: {name} names {value}, which is no step of {study}: set it to another one, "
                f"or to '' where there is none{text.nearest(value, names)}"
            )


def _study_folder(study: str) -> Path:
    """Accepts `embedded`, `params/embedded` and `params/embedded/`."""
    name = Path(study).name
    if not params.NAME.fullmatch(name) or not (paths.params() / name / "plan.yaml").is_file():
        known = [file.parent.name for file in paths.params().glob("*/plan.yaml")]
        shown, near = text.short(name, quotes=False), text.nearest(name[:100], known)
        raise ParameterError(f"there is no params/{shown}/plan.yaml{near}")
    folder = paths.params() / name
    if str(Path(study).parent) not in (".", "params") and Path(study).resolve() != folder.resolve():
        raise ParameterError(f"{text.short(study)} is no folder of {paths.params()}: give its name alone")
    return folder


def _entry(entry: object, where: str) -> dict:
    if not isinstance(entry, dict) or not {"name", "notebook"} <= entry.keys():
        raise ParameterError(f"{where}: a step needs a name and a notebook, found {text.short(entry)}")
    at = f"{where}: step {text.short(entry['name'], quotes=False)}"
    entry = params.check({n: params.Parameter(n, t.__name__, None, "") for n, t in TYPES.items()}, entry, at)
    for name, kind in (("name", "folder"), ("notebook", "file")):
        if not params.NAME.fullmatch(entry[name]):
            raise ParameterError(f"{at}: a step's {name} is a {kind} name (letters, digits, - _; at most 100)")
    return {"params": "", "set": {}, "needs": []} | entry


def _check_needs(entries: list[dict], where: str) -> None:
    """Every need is a step that stands earlier: no cycle, nothing missing, nothing twice."""
    names, earlier = [entry["name"] for entry in entries], []
    for entry in entries:
        at = f"{where}: step {entry['name']}"
        if entry["name"] in earlier:
            raise ParameterError(f"{at}: the name is given twice")
        for need in entry["needs"]:
            says = f"{at}: needs {text.short(need)}, which"
            if need not in names:
                raise ParameterError(f"{says} is no step{text.nearest(str(need)[:100], names)}")
            if need not in earlier:
                raise ParameterError(f"{says} does not come before it: a cycle or wrong order")
        earlier.append(entry["name"])


def _step(folder: Path, entry: dict, common: dict, given: dict) -> Step:
    notebook = paths.notebooks() / f"{entry['notebook']}.ipynb"
    declared = params.declared(notebook)
    file = folder / entry["params"] if entry["params"] else None
    plan = f"{paths.shown(folder / 'plan.yaml')}, step {entry['name']}"
    own = {"study": folder.name, "step": entry["name"]}
    flags = {name: value for name, value in given.items() if name in declared}
    if given and "changed" in declared:  # 00_check looks at what the other steps will run with
        flags["changed"] = given
    common = {name: value for name, value in common.items() if name in declared}
    of_file = [(paths.shown(file), params.load_yaml(file))] if file else []
    layers = [(plan, own | common), *of_file, (plan, entry["set"]), ("--set", flags)]
    layers = [(f"{source} (for {paths.shown(notebook)})", given) for source, given in layers]
    values, origin = params.effective(declared, layers)
    for name, value in own.items():
        if values[name] != value:
            raise ParameterError(f"{origin[name]}: {name} is {value!r} here, not {values[name]!r}: leave it out")
    extra = own | common | entry["set"] | flags
    return Step(entry["name"], entry["notebook"], tuple(entry["needs"]), values, file, extra, origin=origin)
