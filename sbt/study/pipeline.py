"""Runs a study: each step a notebook executed by papermill, after those it needs, skipping what is up to date.

`plan_table` shows what would be done; `run` does it and can be killed at any moment and repeated.
"""

import re
import sys
import time
from collections.abc import Iterable
from html import escape
from pathlib import Path

from sbt.study import estimate, manifest, params, runs
from sbt.study import plan as plans
from sbt.study.console import StatusLines
from sbt.study.execute import Execution
from sbt.utils import env, files, hub, paths, text
from sbt.utils.errors import DataError, ParameterError

FORCED = manifest.State("to run", "forced")
NO_WORDS = "No description has been provided for this image"  # nbconvert's own
TICK = 0.1  # seconds between two looks at what runs


def plan_table(study: str, only: Iterable[str] = (), given: dict | None = None, commands: bool = False) -> str:
    """Table of a study's selected steps - arm, state, estimated time, memory, disk - and their total.

    `commands`: the papermill command of each step stands above them.
    """
    plan, steps = plans.load(study, only, given)
    states = _states(steps)
    words = {name: "new" if s.reason == "new" else str(s) for name, s in states.items()}
    costs = estimate.fetched_once(step.estimate for step in steps if states[step.name].kind != "up to date")
    total = f"{len(costs)} of {len(steps)} steps to run, {estimate.total(costs, plan.side_by_side())}"
    title = f"{plan.title} (card: {plan.card})" if plan.card else plan.title
    parts = [title, plans.table(steps, words), total]
    if missing := plans.missing(plan, steps):
        parts.append(f"`sbt run` does not start, since\n{missing}")
    if commands:
        parts.insert(1, "\n".join(step.command() for step in steps))
    return "\n\n".join(parts)


def _states(steps: Iterable[plans.Step]) -> dict[str, manifest.State]:
    """States of steps in order; RunError where one is corrupt."""
    states: dict[str, manifest.State] = {}
    for step in steps:
        states[step.name] = _state(step, [name for name, state in states.items() if state.kind != "up to date"])
    return states


def _state(step: plans.Step, waiting: Iterable[str] = ()) -> manifest.State:
    """State of a step, given the steps before it that are still to run."""
    state = step.state()
    if state.kind != "up to date":
        return state
    before = [need for need in step.needs if need in waiting]
    if before:
        return manifest.State("to run", f"after {before[0]}, if that changes")
    if not _executed(manifest.whole(step.folder) / manifest.NOTEBOOK):
        return manifest.State("resume", "its notebook was not saved to the end")
    return state


def _executed(notebook: Path) -> bool:
    """Whether an executed notebook was saved to its end; True where there is none (a run made in JupyterLab)."""
    if not notebook.exists():
        return True
    try:
        papermill = params.read_notebook(notebook)["metadata"].get("papermill")
    except DataError:
        return False
    return isinstance(papermill, dict) and bool(papermill.get("end_time")) and not papermill.get("exception")


def run(
    study: str,
    only: Iterable[str] = (),
    given: dict | None = None,
    force: bool = False,
    jobs: int = 0,
) -> bool:
    """Run the selected steps of a study that are not up to date. False where one failed; what and why is printed.

    All parameters of all steps are checked before the first one starts, and that every path they name is here. `force`
    makes the steps anew. `jobs`: how many steps that do not need each other run side by side; 0 for the study's own
    number (`plans.Plan.side_by_side`). After a failure the steps that do not need the failed one still run, unless it
    was the check of the whole machine.
    """
    if jobs < 0:
        raise ParameterError(f"--jobs {jobs}: at least 1; leave it out for the study's own number")
    plan, steps = plans.load(study, only, given)
    if missing := plans.missing(plan, steps):
        raise ParameterError(missing)
    busy = f"another `sbt run {plan.study}` is at work"
    with files.lock(paths.outputs() / plan.study / ".locks" / "run", 0, busy):
        hub.pin(paths.outputs() / plan.study, [name for step in steps for name in hub.named(step.values)])
        # of all steps at once: a corrupt one is an error before anything starts
        states = dict.fromkeys([step.name for step in steps], FORCED) if force else _states(steps)
        failures = _Work(steps, states, force, jobs or plan.side_by_side()).run()
    for name, problem in failures.items():
        print(f"{name}: {problem}", file=sys.stderr)
    return not failures


class _Work:
    """The steps of one command: those that wait, those at work, and what failed.

    Each step begins after those it needs, up to `jobs` run at once, and those that might not fit into memory together
    wait for each other.
    """

    def __init__(self, steps: list[plans.Step], states: dict[str, manifest.State], force: bool, jobs: int) -> None:
        todo = sum(state.kind != "up to date" for state in states.values())
        jobs = min(jobs, max(1, todo))  # one alone has all cores
        width = max(len(step.name) for step in steps)
        places = enumerate(steps, start=1)
        titles = {step.name: f"[{place:2}/{len(steps)}] {step.name:<{width}}" for place, step in places}
        self.lines, self.threads = StatusLines(titles, jobs), max(1, env.cores() // jobs) if jobs > 1 else 0
        self.states, self.force, self.jobs = states, force, jobs
        self.waiting = {step.name: step for step in steps}
        self.running: dict[str, tuple[plans.Step, Execution]] = {}
        self.finished: list[plans.Step] = []  # their pages are written while the next ones run
        self.failures: dict[str, str] = {}  # steps that failed or could not begin, and why

    def run(self) -> dict[str, str]:
        """Run them all; what failed, and what was not run for it, with the reasons."""
        try:
            while self.running or self.finished or self.waiting:
                for step in list(self.waiting.values()):
                    self._begin_if_possible(step)
                if self.finished:
                    _export(self.finished.pop(0))
                time.sleep(TICK)
                self.lines.draw()
                for name, (step, execution) in list(self.running.items()):
                    if (problem := execution.problem()) is not None:
                        del self.running[name]
                        self._end(step, problem)
        finally:
            for name, (_, execution) in self.running.items():
                execution.stop()
                self.lines.end(name, "interrupted")
        return self.failures

    def _begin_if_possible(self, step: plans.Step) -> None:
        failed = [need for need in step.needs if need in self.failures]
        if failed and not (step.sums_up and len(failed) < len(step.needs)):
            del self.waiting[step.name]
            self.failures[step.name] = f"not run, since it needs {failed[0]}"
            return
        if any(need in self.waiting or need in self.running for need in step.needs):
            return
        if len(self.running) >= self.jobs or not _fits(step, self.running):
            return
        del self.waiting[step.name]
        state = FORCED if self.force else _state(step)
        if state.kind == "up to date":
            if manifest.whole(step.folder) != step.folder:
                with runs.lock(step.values["study"], step.name):
                    manifest.restore(step.folder)
            self.lines.say(step.name, "up to date")
            self.finished.append(step)
            return
        later = [other for name, other in self.waiting.items() if self.states[name].kind != "up to date"]
        self.lines.waiting = sum(other.estimate.minutes for other in later) * 60
        self.running[step.name] = step, _begin(step, self.force or state.kind == "to run", self.threads)
        self.lines.begin(step)

    def _end(self, step: plans.Step, problem: str) -> None:
        """Close the line of a step whose notebook ended, and note what went wrong, if anything did."""
        dry_run = step.values.get("dry_run")
        if not problem and not dry_run and not (step.folder / "DONE").exists():
            problem = "the notebook came to its end without run.finish()"
        self.lines.end(step.name, "failed" if problem else "done")
        if not problem:
            self.finished.append(step)
            missing = step.folder / "missing.txt"
            if step.notebook == plans.CHECK and missing.is_file() and (words := files.read_text(missing)):
                self.lines.say(step.name, words)
            return
        before = manifest.whole(step.folder)
        kept = f"\nearlier results: {paths.shown(before)}" if before != step.folder else ""
        where = paths.shown(step.folder / "notebook.ipynb")
        self.failures[step.name] = f"{problem}\nexecuted notebook: {where}{kept}"
        if step.notebook == plans.CHECK:
            self.failures |= dict.fromkeys(self.waiting, f"not run after the failure of {step.name}")
            self.waiting.clear()


def _fits(step: plans.Step, running: dict[str, tuple]) -> bool:
    """Whether a step fits into memory beside those that run."""
    taken = sum(other.estimate.memory_gb for other, _ in running.values())
    return not running or taken + step.estimate.memory_gb < env.memory_gb()


def _begin(step: plans.Step, anew: bool, threads: int) -> Execution:
    """Start a step's notebook."""
    with runs.lock(step.values["study"], step.name):
        if anew and not step.values.get("dry_run"):
            manifest.discard(step.folder)
    output = step.folder / "notebook.ipynb"
    with files.writing(output):
        output.parent.mkdir(parents=True, exist_ok=True)
    return Execution(paths.notebooks() / f"{step.notebook}.ipynb", output, step.values, threads)


def _export(step: plans.Step) -> None:
    """Write the executed notebook as one HTML file that loads nothing; the report also without its code.

    A page that cannot be made is said, and ends nothing: the results stand in the step's folder.
    """
    notebook = step.folder / "notebook.ipynb"
    pages = {"notebook.html": False} | ({"report.html": True} if step.notebook == plans.REPORT else {})
    for name, hide in pages.items():
        page = step.folder / name
        if not notebook.exists() or (page.exists() and page.stat().st_mtime >= notebook.stat().st_mtime):
            continue
        try:
            files.write_text(page, _html(notebook, step.name, hide))
        except Exception as error:  # a plug-in of nbconvert, a damaged output, a full disk
            first = f"{type(error).__name__}: {error}".splitlines()[0]
            print(f"{paths.shown(page)} could not be made: {text.short(first, 200, quotes=False)}", file=sys.stderr)


def _html(notebook: Path, title: str, hide_code: bool) -> str:
    from nbconvert import HTMLExporter

    exporter = HTMLExporter(
        embed_images=True,
        exclude_input=hide_code,
        exclude_input_prompt=hide_code,
        exclude_output_prompt=hide_code,
        exclude_anchor_links=hide_code,
    )
    html, _ = exporter.from_filename(str(notebook), resources={"metadata": {"name": title}})
    # nbconvert's template has no place for what a picture shows in words
    cells = params.read_notebook(notebook)["cells"]
    pictures = (o for cell in cells for o in cell.get("outputs", ()) if "image/png" in o.get("data", ()))
    words = iter([picture["metadata"].get("image/png", {}).get("alt", NO_WORDS) for picture in pictures])
    html = re.sub(f'alt="{NO_WORDS}"', lambda _: f'alt="{escape(next(words, NO_WORDS))}"', html)
    return re.sub(r"<script\b.*?</script>", "", html, flags=re.DOTALL)
