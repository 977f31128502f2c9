"""Finished results as text: the table of a study, the list of runs, two studies or steps side by side."""

import contextlib
import json
import sys
from pathlib import Path

from sbt.study import manifest, runs
from sbt.study.plan import REPORT
from sbt.utils import files, paths, text
from sbt.utils.errors import MissingStep, RunError

FORMS = ("csv", "json", "latex")
ROW = ("arm", "benchmark", "subset", "metric", "protocol")


def study_table(study: str) -> str:
    """The report's own summary where it wrote one, else every metric of the study's finished steps."""
    folder = paths.outputs() / study
    report = manifest.whole(folder / REPORT)
    if (report / "summary.txt").exists() and (report / "DONE").exists():
        return files.read_text(report / "summary.txt").rstrip()
    rows = []
    for row in metric_rows(folder):
        ends = row["low"], row["high"]
        interval = "" if None in ends else " to ".join(map(text.number, ends))
        value = text.number(row["value"])
        rows.append([row["arm"], row["benchmark"], row["subset"], row["metric"], value, interval, row["n"]])
    return text.table(["arm", "benchmark", "subset", "metric", "value", "95 % interval", "n"], rows) if rows else ""


def study_summary(study: str) -> str:
    """What `sbt run` prints at its end: the table of a study, and where its report and executed notebooks are."""
    folder = paths.outputs() / Path(study).name
    pages = [manifest.whole(folder / step) / "report.html" for step in manifest.finished_steps(folder)]
    reports = [f"report:    {paths.shown(page)}" for page in pages if page.exists()]
    return "\n".join([study_table(folder.name), *reports, f"notebooks: {paths.shown(folder)}/*/notebook.html"])


def metric_rows(folder: Path) -> list[dict]:
    """Metric rows of a step's folder, or of every finished step of a study's folder; damaged ones are said."""
    if (folder / "DONE").exists():
        return runs.metrics(folder)
    rows = []
    for name in manifest.finished_steps(folder):
        try:
            rows += runs.metrics(manifest.whole(folder / name))
        except RunError as error:
            print(f"left out: {error}", file=sys.stderr)
    return rows


def runs_table() -> str:
    """Finished steps of all studies: when, how long, how much memory, and the hash of their results.

    `<step>.stale`: the earlier results, while the step is made anew or where that failed.
    """
    rows = []
    studies = sorted({done.parents[1] for done in paths.outputs().glob("*/*/DONE")})
    for folder in [manifest.whole(study / step) for study in studies for step in manifest.finished_steps(study)]:
        names = [folder.parent.name, folder.name]
        try:
            m = manifest.read(folder, "manifest.json")
            cost = [f"{m['seconds'] / 60:.1f}", f"{m['peak_memory_gb']:.1f}"]
            rows.append([*names, m["notebook"], m["finished"], *cost, m["result"][:10]])
        except (RunError, KeyError, TypeError, ValueError, OverflowError):
            rows.append([*names, "", "damaged", "", "", ""])
    return text.table(["study", "step", "notebook", "finished", "minutes", "memory GB", "result"], rows)


def is_step(name: str) -> bool:
    """Whether a name is a finished step's, not a study's."""
    return (_folder(name) / "DONE").exists()


def compare_table(first: str, second: str) -> str:
    """Metrics of two steps (`study/step`) side by side with their difference."""
    tables = []
    for name in (first, second):
        found = {tuple(row[key] for key in ROW): row["value"] for row in metric_rows(_folder(name))}
        if not found:
            raise MissingStep(f"{name} has no finished step with metrics: `sbt runs` lists what there is")
        tables.append(found)
    rows = []
    for key in tables[0] | tables[1]:
        a, b = (table.get(key) for table in tables)
        change = f"{b - a:+.4g}" if a is not None and b is not None else ""
        rows.append([*key, *("" if value is None else text.number(value) for value in (a, b)), change])
    return text.table([*ROW, first, second, "difference"], rows)


def claims_table(study: str) -> str:
    """The claims of the papers with their verdicts, as the report of a study wrote them. MissingStep without one."""
    folder = _folder(study)
    if (folder / "manifest.json").exists():
        raise MissingStep(f"{study} is a step, and claims belong to a study: `sbt claims {folder.parent.name}`")
    folders = [manifest.whole(folder / step) for step in manifest.finished_steps(folder)]
    ledgers = [step / "claims.csv" for step in folders if (step / "claims.csv").exists()]
    if not ledgers:
        raise MissingStep(f"{study} has no report yet: make it with `sbt run {Path(study).name} --only {REPORT}`")
    import pandas as pd  # here: what only plans or looks for results needs none

    from sbt.report import tables

    rows = []
    for row in pd.concat(map(pd.read_csv, ledgers)).to_dict("records"):
        here = tables.signed(row) if row["delta"] == row["delta"] else row["why"]
        rows.append([row["verdict"], row["arms"], here, row["claim"]])
    return text.table(["verdict", "arms", "difference here", "claim"], rows)


def exported(name: str, form: str) -> str:
    """All metric rows of a study or step as CSV, JSON or a LaTeX table (arms as columns)."""
    rows = metric_rows(_folder(name))
    if not rows:
        raise MissingStep(f"{name} has no finished step with metrics: `sbt runs` lists what there is")
    import pandas as pd  # here, as above

    if form == "json":
        return json.dumps(rows, ensure_ascii=False, indent=1)
    frame = pd.DataFrame(rows)
    if form == "csv":
        return frame.to_csv(index=False).rstrip()
    index = ["benchmark", "subset", "metric", "protocol"]
    table = frame.pivot_table("value", index, "arm", aggfunc="first", sort=False)
    return table.to_latex(float_format="%.3f", na_rep="", multirow=False, sparsify=False).rstrip()


def _folder(name: str) -> Path:
    """Folder of `study`, `study/step`, or either written as a path (`outputs/study/step/`, `params/study`)."""
    candidates = [paths.outputs() / name, paths.outputs() / Path(name).name, paths.root() / name]
    if name in ("", "."):
        raise MissingStep("no study is named: `sbt runs` lists what there is")
    for folder in candidates:
        with contextlib.suppress(OSError, ValueError):  # a name that no folder can have
            if folder.is_dir() or manifest.whole(folder) != folder:
                return manifest.whole(folder.absolute())
    raise MissingStep(f"there are no results of {name}: `sbt runs` lists what there is")
