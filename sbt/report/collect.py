"""Results of the benchmarks of one study, found by what the steps hold and not by their names.

results = collect.results(run, benchmarks.specs());  results.rows;  results.scores["mc2"]  (items x arms)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from sbt.report import paired
from sbt.study import manifest, params, runs
from sbt.utils.errors import MissingStep


@dataclass(frozen=True)
class Results:
    """`rows`: metric rows, each arm's from the first step that scored it. `folders`: benchmark -> step -> its folder.

    `scores`: score -> items x arms, from all steps. `one_answer`: score -> arm -> share of items that get the arm's
    commonest option, where a benchmark tells it.
    """

    rows: list[dict]
    folders: dict[str, dict[str, Path]]
    scores: dict[str, pd.DataFrame]
    one_answer: dict[str, dict[str, float]]

    def samples(self, benchmark: str) -> pd.DataFrame:
        """Scored items of the first step that scored a benchmark; an empty frame where none did."""
        first = next(iter(self.folders.get(benchmark, {}).values()), None)
        return pd.DataFrame(runs.samples(first) if first else [])


def results(run: Any, specs: Mapping[str, Any], steps: Sequence[str] = (), kind: str = "") -> Results:
    """Read what the finished steps of the run's study scored, each step recorded as an input of the run.

    `steps`: those of these that are finished; empty: every step that scored a benchmark of `specs`. `kind`: scores of
    items of "text" or "vision" benchmarks only. Steps that asked other arms in the same way are joined: the later ones
    hold further runs. MissingStep where there is none.
    """
    study = run.folder.parent
    folders: dict[str, dict[str, Path]] = {}
    metric_rows: list[dict] = []
    scored: set[tuple[str, str]] = set()  # (benchmark, arm)
    finished = manifest.finished_steps(study, but=run.step)
    if steps and not set(finished) & set(steps):
        run.upstream(steps[0])  # says how to make it
    for step in [step for step in steps if step in finished] or finished:
        folder = run.upstream(step) if steps else manifest.whole(study / step)
        rows = [row for row in runs.metrics(folder) if row["benchmark"] in specs]
        if rows and not steps:
            run.upstream(step)  # reads every result file to check its hash: once a step
        for benchmark in dict.fromkeys(row["benchmark"] for row in rows):
            folders.setdefault(benchmark, {})[step] = folder
        metric_rows += [row for row in rows if (row["benchmark"], row["arm"]) not in scored]
        scored |= {(row["benchmark"], row["arm"]) for row in rows}
    if not folders:
        raise MissingStep(f"no finished step of {run.study} scored a benchmark: make them with `sbt run {run.study}`")
    scores, one_answer = {}, {}
    samples = cache(runs.samples)  # a step may hold several benchmarks
    for benchmark, spec in specs.items():
        if benchmark in folders and spec.per_item and kind in ("", spec.kind):
            read, of_steps = spec.load("per_item"), list(folders[benchmark].values())
            asked = [_asked(folder) for folder in of_steps]
            alike = [folder for folder, way in zip(of_steps, asked, strict=True) if way == asked[0]]
            scores |= paired.together([read(samples(folder)) for folder in alike])
            if spec.one_answer:
                one_answer |= spec.load("one_answer")(samples(of_steps[0]))
    return Results(metric_rows, folders, scores, one_answer)


def _asked(folder: Path) -> dict:
    """The parameters of a benchmark's step but for those that say which arms it asked."""
    values = params.load_yaml(folder / "params.yaml")
    return {name: value for name, value in values.items() if name not in ("step", "arms", "arm_steps", "seed")}


def arms(run: Any) -> pd.DataFrame:
    """The arms that finished steps of the study made: arm, step, tuned on, what of it was tuned, loss, steps."""
    rows = []
    for step in manifest.finished_steps(run.folder.parent):
        values = params.load_yaml(manifest.whole(run.folder.parent / step) / "params.yaml")
        if not values.get("arm"):
            continue
        words = {"visual": "the visual instructions, their pictures taken away"}
        on = "visual instructions, with their pictures" if "connector" in values else ""
        if source := values.get("source"):
            on = words.get(source, f"text-only instructions ({source})")
        loss = values.get("loss", "answer_only") if "tuning" in values else ""
        steps = values.get("max_steps") or values.get("epochs") and f"{values['epochs']:g} epochs" or ""
        row = {"arm": values["arm"], "step": step, "tuned on": on, "tuning": values.get("tuning", "")}
        rows.append(row | {"loss": loss, "optimizer steps": str(steps)})
    return pd.DataFrame(rows)
