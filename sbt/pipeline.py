"""Runs a study: its steps in order, each a notebook executed by papermill, skipping what is up to date.

`plan_table` shows what would be done; `run` does it and can be killed at any moment and repeated.
"""

import contextlib
import logging
import re
import shutil
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path

from sbt import env, estimate, files, paths, plans, records, results, runs, text
from sbt.errors import DataError

FORCED = records.State("to run", "forced")
KERNEL_DIED = (
    "the kernel died: the system ended it, probably for memory (this machine has {:.0f} GB). Close other programs or "
    "lower the batch size; the same command resumes the work"
)


def plan_table(study: str, only: Iterable[str] = (), given: dict | None = None) -> str:
    """Table of a study's selected steps - state, arm, estimated time, memory, disk - and their papermill commands."""
    plan, steps = plans.load(study, only, given)
    states = _states(steps)
    words = {name: f"{s.kind}: {s.reason}" if s.reason else s.kind for name, s in states.items()}
    waiting = [step for step in steps if states[step.name].kind != "up to date"]
    costs = [step.estimate for step in waiting]
    minutes, disk = sum(cost.minutes for cost in costs), estimate.disk_gb(costs)
    commands = "\n".join(step.command() for step in steps)
    time = f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.0f} h"
    total = f"{len(waiting)} of {len(steps)} steps to run, about {time} and {disk:.1f} GB of disk"
    return f"{plan.title}\n\n{plans.table(steps, words)}\n{total}\n\nEach step by itself:\n{commands}"


def _states(steps: Iterable[plans.Step]) -> dict[str, records.State]:
    """States of steps in order; RunError where one is corrupt."""
    states: dict[str, records.State] = {}
    for step in steps:
        states[step.name] = _state(step, [name for name, state in states.items() if state.kind != "up to date"])
    return states


def _state(step: plans.Step, waiting: Iterable[str] = ()) -> records.State:
    """State of a step, given the steps before it that are still to run."""
    state = step.state()
    if state.kind != "up to date":
        return state
    before = [need for need in step.needs if need in waiting]
    if before:
        return records.State("to run", f"after {before[0]}, if that changes")
    if not _executed(step.folder / "notebook.ipynb"):
        return records.State("resume", "its notebook was not saved to the end")
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


def run(study: str, only: Iterable[str] = (), given: dict | None = None, force: bool = False) -> bool:
    """Run the selected steps of a study that are not up to date. False where one failed; the message is printed.

    All parameters of all steps are checked before the first one starts. `force` makes the steps anew.
    """
    plan, steps = plans.load(study, only, given)
    busy = f"another `sbt run {plan.study}` is at work"
    with files.lock(paths.outputs() / plan.study / ".locks" / "run", 0, busy):
        # of all steps at once: a corrupt one is an error before anything starts
        states = dict.fromkeys([step.name for step in steps], FORCED) if force else _states(steps)
        for number, step in enumerate(steps):
            later = [other for other in steps[number + 1 :] if states[other.name].kind != "up to date"]
            left = sum(other.estimate.minutes for other in later) * 60
            title = f"[{number + 1:2}/{len(steps)}] {step.name:<16}"
            state = FORCED if force else _state(step)
            if state.kind == "up to date":
                print(f"{title} up to date", flush=True)
            elif problem := _execute(step, state, title, left, force):
                print(problem, file=sys.stderr)
                return False
            _export(step)
    print("\n" + results.study_table(plan.study))
    for step in steps:
        if (step.folder / "report.html").exists():
            print(f"report:    {paths.shown(step.folder / 'report.html')}")
    print(f"notebooks: {paths.shown(paths.outputs() / plan.study)}/*/notebook.html")
    return True


def _execute(step: plans.Step, state: records.State, title: str, later: float, force: bool) -> str:
    """Execute a step's notebook and show its progress line. The problem in words, or an empty string."""
    import papermill
    from nbclient.exceptions import DeadKernelError

    logging.getLogger("papermill").setLevel(logging.ERROR)
    with runs.lock(step.values["study"], step.name):
        if force or state.kind == "to run":
            records.discard(step.folder)
    output = step.folder / "notebook.ipynb"
    with files.writing(output):
        output.parent.mkdir(parents=True, exist_ok=True)
    with Line(title, step, later) as line, files.writing(output):
        try:
            papermill.execute_notebook(
                paths.notebooks() / f"{step.notebook}.ipynb", output, step.values, kernel_name="python3",
                progress_bar=False, cwd=paths.notebooks(), extra_arguments=["--log-level=40"],
            )  # fmt: skip
            problem = ""
        except papermill.PapermillExecutionError as error:
            where = f"cell In [{error.exec_count}]"
            problem = f"{where}: {error.ename}: {error.evalue.strip()}"
        except DeadKernelError:
            problem = KERNEL_DIED.format(env.memory_gb())
        line.end("failed" if problem else "done")
    if not problem and not step.values.get("dry_run") and not (step.folder / "DONE").exists():
        problem = "the notebook came to its end without run.finish()"
    return f"\n{step.name}: {problem}\nexecuted notebook: {paths.shown(output)}" if problem else ""


class Line:
    """The progress line of one step: rewritten twice a second on a terminal, begun and ended elsewhere."""

    def __init__(self, title: str, step: plans.Step, later: float) -> None:
        self.title, self.step, self.later = title, step, later
        self.expected = step.estimate.minutes * 60
        self.live = sys.stdout.isatty()
        self.started = time.monotonic()
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Line":
        if self.live:
            self.thread.start()
        else:
            print(f"{self.title} (about {text.duration(self.expected)}) ... ", end="", flush=True)
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        if not self.stopped.is_set():
            self.end("interrupted" if kind is KeyboardInterrupt else "failed")

    def end(self, outcome: str) -> None:
        """Close the line with its outcome and the time it took."""
        self.stopped.set()
        if self.live:
            self.thread.join()
        took = text.duration(time.monotonic() - self.started)
        left = f", about {text.duration(self.later)} left" if self.later and outcome == "done" else ""
        words = f"{outcome} in {took}{left}"
        print(f"\r\033[K{self.title} {words}" if self.live else words, flush=True)

    def _watch(self) -> None:
        while not self.stopped.wait(0.5):
            words = f"{self.title} {self._now()}"[: shutil.get_terminal_size().columns - 1]
            print(f"\r\033[K{words}", end="", flush=True)

    def _now(self) -> str:
        elapsed = time.monotonic() - self.started
        left, live = self.expected - elapsed, ""
        with contextlib.suppress(DataError):  # no loop has begun yet
            loop = files.read_json(self.step.folder / "progress.json")
            done, total = loop["done"], loop["total"]
            numbers = "".join(f" {name} {text.number(value)}" for name, value in loop["numbers"].items())
            live = f" · {text.bar(done / max(total, 1), 12)} {done}/{total}{numbers}"
            left = max(left, loop["remaining"] or 0)
        left = max(left, 0) + self.later
        return text.duration(elapsed) + (f", about {text.duration(left)} left in all" if left >= 1 else "") + live


def _export(step: plans.Step) -> None:
    """Write the executed notebook as one HTML file that loads nothing; the report also without its code."""
    notebook = step.folder / "notebook.ipynb"
    pages = {"notebook.html": False} | ({"report.html": True} if step.notebook == results.REPORT else {})
    for name, hide in pages.items():
        page = step.folder / name
        if not notebook.exists() or (page.exists() and page.stat().st_mtime >= notebook.stat().st_mtime):
            continue
        from nbconvert import HTMLExporter

        exporter = HTMLExporter(embed_images=True, exclude_input=hide, exclude_input_prompt=hide,
                                exclude_output_prompt=hide, exclude_anchor_links=hide)  # fmt: skip
        html, _ = exporter.from_filename(str(notebook), resources={"metadata": {"name": step.name}})
        files.write_text(page, re.sub(r"<script\b.*?</script>", "", html, flags=re.DOTALL))
