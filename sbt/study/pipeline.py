"""Runs a study: each step a notebook executed by papermill, after those it needs, skipping what is up to date.

`plan_table` shows what would be done; `run` does it and can be killed at any moment and repeated.
"""

import re
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from sbt.study import estimate, manifest, runs
from sbt.study import plan as plans
from sbt.study.console import Screen
from sbt.study.execute import Execution
from sbt.utils import env, files, paths
from sbt.utils.errors import DataError, ParameterError

FORCED = manifest.State("to run", "forced")
TICK = 0.1  # seconds between two looks at what runs


def plan_table(study: str, only: Iterable[str] = (), given: dict | None = None) -> str:
    """Table of a study's selected steps - state, arm, estimated time, memory, disk - and their papermill commands."""
    plan, steps = plans.load(study, only, given)
    states = _states(steps)
    words = {name: f"{s.kind}: {s.reason}" if s.reason else s.kind for name, s in states.items()}
    waiting = [step for step in steps if states[step.name].kind != "up to date"]
    costs = [step.estimate for step in waiting]
    minutes, disk = sum(cost.minutes for cost in costs) / plan.side_by_side(), estimate.disk_gb(costs)
    commands = "\n".join(step.command() for step in steps)
    time = f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.0f} h"
    total = f"{len(waiting)} of {len(steps)} steps to run, about {time} and {disk:.1f} GB of disk"
    return f"{plan.title}\n\n{plans.table(steps, words)}\n{total}\n\nEach step by itself:\n{commands}"


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
    if not _executed(step.folder / "notebook.ipynb"):
        return manifest.State("resume", "its notebook was not saved to the end")
    return state


def _executed(notebook: Path) -> bool:
    """Whether an executed notebook was saved to its end; True where there is none (a run made in JupyterLab)."""
    if not notebook.exists():
        return True
    try:
        metadata = files.read_json(notebook)["metadata"].get("papermill", {})
    except DataError:
        return False
    return bool(metadata.get("end_time")) and not metadata.get("exception")


def run(study: str, only: Iterable[str] = (), given: dict | None = None, force: bool = False, jobs: int = 0) -> bool:
    """Run the selected steps of a study that are not up to date. False where one failed; the message is printed.

    All parameters of all steps are checked before the first one starts. `force` makes the steps anew. `jobs`: how many
    steps that do not need each other run side by side; 0 for what the study says (`plans.Plan.side_by_side`).
    """
    if jobs < 0:
        raise ParameterError(f"--jobs {jobs}: at least 1; leave it out for the study's own number")
    plan, steps = plans.load(study, only, given)
    busy = f"another `sbt run {plan.study}` is at work"
    with files.lock(paths.outputs() / plan.study / ".locks" / "run", 0, busy):
        # of all steps at once: a corrupt one is an error before anything starts
        states = dict.fromkeys([step.name for step in steps], FORCED) if force else _states(steps)
        if not _work(steps, states, force, jobs or plan.side_by_side()):
            return False
    return True


def _work(steps: list[plans.Step], states: dict[str, manifest.State], force: bool, jobs: int) -> bool:
    """Run steps, each after those it needs and up to `jobs` at once; after a failure no other begins. Whether all ran.

    Steps that might not fit into memory together wait for each other.
    """
    jobs = min(jobs, max(1, sum(state.kind != "up to date" for state in states.values())))  # one alone has all cores
    width = max(len(step.name) for step in steps)
    titles = {step.name: f"[{place:2}/{len(steps)}] {step.name:<{width}}" for place, step in enumerate(steps, start=1)}
    screen, threads = Screen(titles, jobs), max(1, env.cores() // jobs) if jobs > 1 else 0
    waiting, running, well = {step.name: step for step in steps}, {}, True
    finished: list[plans.Step] = []  # their pages are written while the next ones run
    try:
        while running or finished or (waiting and well):
            for step in [step for step in waiting.values() if well]:
                if any(need in waiting or need in running for need in step.needs):
                    continue
                if len(running) >= jobs or not _fits(step, running):
                    continue
                del waiting[step.name]
                state = FORCED if force else _state(step)
                if state.kind == "up to date":
                    screen.say(step.name, "up to date")
                    finished.append(step)
                    continue
                later = [other for name, other in waiting.items() if states[name].kind != "up to date"]
                screen.waiting = sum(other.estimate.minutes for other in later) * 60
                running[step.name] = step, _begin(step, force or state.kind == "to run", threads)
                screen.begin(step)
            if finished:
                _export(finished.pop(0))
            time.sleep(TICK)
            screen.draw()
            for name, (step, execution) in list(running.items()):
                if (problem := execution.problem()) is not None:
                    del running[name]
                    if _ended(step, problem, screen):
                        finished.append(step)
                    else:
                        well = False
    finally:
        for name, (_, execution) in running.items():
            execution.stop()
            screen.end(name, "interrupted")
    return well


def _fits(step: plans.Step, running: dict[str, tuple]) -> bool:
    """Whether a step fits into memory beside those that run."""
    taken = sum(other.estimate.memory_gb for other, _ in running.values())
    return not running or taken + step.estimate.memory_gb < env.memory_gb()


def _begin(step: plans.Step, anew: bool, threads: int) -> Execution:
    """Start a step's notebook."""
    with runs.lock(step.values["study"], step.name):
        if anew:
            manifest.discard(step.folder)
    output = step.folder / "notebook.ipynb"
    with files.writing(output):
        output.parent.mkdir(parents=True, exist_ok=True)
    return Execution(paths.notebooks() / f"{step.notebook}.ipynb", output, step.values, threads)


def _ended(step: plans.Step, problem: str, screen: Screen) -> bool:
    """Close the line of a step whose notebook ended, and say what went wrong, if anything did. Whether all is well."""
    if not problem and not step.values.get("dry_run") and not (step.folder / "DONE").exists():
        problem = "the notebook came to its end without run.finish()"
    screen.end(step.name, "failed" if problem else "done")
    if problem:
        shown = paths.shown(step.folder / "notebook.ipynb")
        print(f"\n{step.name}: {problem}\nexecuted notebook: {shown}", file=sys.stderr)
    return not problem


def _export(step: plans.Step) -> None:
    """Write the executed notebook as one HTML file that loads nothing; the report also without its code."""
    notebook = step.folder / "notebook.ipynb"
    pages = {"notebook.html": False} | ({"report.html": True} if step.notebook == plans.REPORT else {})
    for name, hide in pages.items():
        page = step.folder / name
        if not notebook.exists() or (page.exists() and page.stat().st_mtime >= notebook.stat().st_mtime):
            continue
        from nbconvert import HTMLExporter

        exporter = HTMLExporter(embed_images=True, exclude_input=hide, exclude_input_prompt=hide,
                                exclude_output_prompt=hide, exclude_anchor_links=hide)  # fmt: skip
        html, _ = exporter.from_filename(str(notebook), resources={"metadata": {"name": step.name}})
        files.write_text(page, re.sub(r"<script\b.*?</script>", "", html, flags=re.DOTALL))
