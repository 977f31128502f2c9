"""A contributor adds two benchmarks, each as a folder, a notebook and one line of a plan, and touches nothing else.

They are planned, run for one arm alone, scored by `sbt score`, shown by the report and compared in pairs.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sbt.study import params
from sbt.utils import files, paths

PLAN = """title: Two benchmarks of a contributor
steps:
  - {name: 10_data, notebook: 10_data_preparation}
  - {name: 20_connector, notebook: 20_connector_pretraining, set: {max_steps: 4, save_steps: 0}, needs: [10_data]}
  - name: 30_mm-full
    notebook: 30_instruction_tuning
    set: {max_steps: 4, save_steps: 0, rows: 64}
    needs: [10_data, 20_connector]
  - {name: 53_toyqa, notebook: 53_toyqa, needs: [30_mm-full]}
  - {name: 66_toysight, notebook: 66_toysight, needs: [10_data, 30_mm-full]}
  - {name: 70_ablations, notebook: 70_ablations, set: {seen: mm-full, read: base, of_seen: [], of_read: []},
     needs: [53_toyqa, 66_toysight]}
  - {name: 90_report, notebook: 90_report, set: {text_only: "", data: ""}, needs: [53_toyqa, 66_toysight]}
"""
SPEC = '''"""{title}: a toy."""

from sbt.benchmarks.spec import Headline, Spec

SPEC = Spec(
    name="{name}", title="{title}", kind="{kind}", table="{table}",
    headline=(Headline("all", "accuracy", "{title}", chance=0.5),),
    about="A toy.", notebook="{notebook}", task="sbt.benchmarks.{name}.task",
    per_item="sbt.benchmarks.{name}.task:per_item", score_files="sbt.benchmarks.{name}.task:score_files",
    answer_keys="id and answer",
)
'''
SHARED = '''
import json
from pathlib import Path

import pandas as pd

from sbt.report import stats


def _rows(right, *, arm, benchmark, subset, seed, **provenance):
    value, low, high = stats.bootstrap(right, seed=seed)
    measured = {"metric": "accuracy", "value": value, "n": len(right), "low": low, "high": high}
    return [{"arm": arm, "benchmark": benchmark, "subset": subset, **measured, **provenance}]


def score_files(answers, references, protocol="standard"):
    """Share of answers that are those of the reference file."""
    told, known = json.loads(Path(answers).read_text()), json.loads(Path(references).read_text())
    return {"accuracy": sum(told[name] == answer for name, answer in known.items()) / len(known)}
'''
TEXT = '''"""ToyQA: which of two continuations is likelier?"""
''' + SHARED + '''

DOCS = [{"id": f"q{k}", "question": f"Q: Is {k} a number?\\nA:", "options": [" yes", " no"]} for k in range(8)]


def requests(docs):
    return {"toyqa": [{"id": d["id"], "context": d["question"], "continuations": d["options"]} for d in docs]}


def _right(answers):
    return [float(values[0] > values[1]) for values in answers["toyqa"]]


def rows(docs, answers, *, arm, seed, **provenance):
    return _rows(_right(answers), arm=arm, benchmark="toyqa", subset="all", seed=seed, **provenance)


def samples(docs, answers, *, arm, protocol):
    return [{"arm": arm, "id": doc["id"], "correct": right} for doc, right in zip(docs, _right(answers), strict=True)]


def per_item(samples):
    table = pd.DataFrame([one for one in samples if one["benchmark"] == "toyqa"])
    return {"ToyQA": table.pivot(index="id", columns="arm", values="correct")}
'''
SIGHT = '''"""ToySight: is there something in the picture?"""
''' + SHARED + '''

def items(folder, count=4):
    """The first pictures of a folder, each with a question."""
    names = sorted(path.relative_to(folder).as_posix() for path in Path(folder).rglob("*.png"))[:count]
    return [{"image": name, "question": "Is there a shape in the image?"} for name in names]


def prompt(item, protocol):
    return item["question"]


def rows(items, answers, *, arm, subset, seed, **provenance):
    right = [float(answer.lower().startswith("yes")) for answer in answers]
    return _rows(right, arm=arm, benchmark="toysight", subset=subset, seed=seed, **provenance)


def samples(items, answers, *, arm, subset, protocol):
    named = {"arm": arm, "subset": subset}
    return [{**named, "id": item["image"], "answer": said, "correct": float(said.lower().startswith("yes"))}
            for item, said in zip(items, answers, strict=True)]


def per_item(samples):
    table = pd.DataFrame([one for one in samples if one["subset"] == "all"])
    return {"ToySight": table.pivot(index="id", columns="arm", values="correct")}
'''
ASK_TEXT = """from sbt import models
from sbt.benchmarks.common.evaluate_text import TextTask, evaluate_text
from sbt.benchmarks.toyqa import task

p = run.p
arms = models.TextArms(models.list_arms(run.upstreams("30_").values(), p.arms, base=p.base))
tasks = [TextTask("toyqa", task, task.DOCS, task.requests(task.DOCS))]
result = evaluate_text(arms, tasks, run.path("scratch/answers"), seed=p.seed)
run.finish(result.rows, result.samples)"""
ASK_SIGHT = """from sbt import models
from sbt.benchmarks.common.evaluate import evaluate_vision
from sbt.benchmarks.toysight import task

p = run.p
folder = run.upstream(p.data) / "images"
arms = models.list_arms(run.upstreams("30_").values(), p.arms, vision=True)
result = evaluate_vision(task, {"all": task.items(folder)}, arms, folder, run.path("scratch/answers"), seed=p.seed)
run.finish(result.rows, result.samples)"""
DECLARED = """study: str = "embedded"  # folder of parameter files below params/, and of results below outputs/
step: str = "{step}"  # this step's folder below outputs/<study>/
seed: int = 0  # of everything random
data: str = "10_data"  # the step that prepared the data
base: str = "assets/llm"  # the untuned language model, the arm `base`
arms: list = []  # arms to score; empty: every arm
dry_run: bool = False  # stop after the estimate"""


def write_notebook(file: Path, like: dict, title: str, work: str) -> None:
    """A notebook with the setup and begin cells of another one."""
    code = [cell for cell in like["cells"] if cell["cell_type"] == "code"]
    setup = next(params.cell_source(cell) for cell in code if "setup" in cell["metadata"].get("tags", ()))
    begin = next(params.cell_source(cell) for cell in code if "sbt.begin(" in params.cell_source(cell))
    declared = DECLARED.format(step=file.stem)
    cells = [("markdown", f"# {title}", []), ("code", setup, ["setup"]), ("code", declared, ["parameters"]),
             ("code", begin, []), ("code", work, [])]  # fmt: skip
    written = []
    for number, (kind, source, tags) in enumerate(cells):
        cell = {"cell_type": kind, "id": f"c{number}", "metadata": {"tags": tags} if tags else {}, "source": source}
        written.append(cell | ({"execution_count": None, "outputs": []} if kind == "code" else {}))
    file.write_text(json.dumps({**like, "cells": written}))


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project with two benchmarks more, in a folder of its own."""
    root = tmp_path_factory.mktemp("project")
    project = paths.package().parent
    for name in ("sbt", "notebooks"):
        shutil.copytree(project / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    (root / "params" / "toy").mkdir(parents=True)
    (root / "params" / "toy" / "plan.yaml").write_text(PLAN)
    like = files.read_json(project / "notebooks" / "63_pope.ipynb")
    for name, title, kind, table, notebook, task, work in (
        ("toyqa", "ToyQA", "text", "Language ability", "53_toyqa", TEXT, ASK_TEXT),
        ("toysight", "ToySight", "vision", "Vision", "66_toysight", SIGHT, ASK_SIGHT),
    ):
        folder = root / "sbt" / "benchmarks" / name
        folder.mkdir()
        (folder / "__init__.py").write_text(
            SPEC.format(name=name, title=title, kind=kind, table=table, notebook=notebook)
        )
        (folder / "task.py").write_text(task)
        write_notebook(root / "notebooks" / f"{notebook}.ipynb", like, title, work)
    return root


def sbt(root: Path, *words: str) -> subprocess.CompletedProcess:
    """The command line of the copy."""
    env = os.environ | {"PYTHONPATH": str(root), "SBT_ROOT": str(root), "SBT_OUTPUTS": str(root / "outputs")}
    command = [sys.executable, "-m", "sbt", *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=root, env=env)


def test_one_arm_is_planned_and_run_without_the_others(copy: Path) -> None:
    alone = ["params/toy", "--only", "53_toyqa", "--set", "arms=[base]"]
    planned = sbt(copy, "plan", *alone)
    assert planned.returncode == 0 and "53_toyqa" in planned.stdout, planned.stderr
    done = sbt(copy, "run", *alone)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = files.read_json(copy / "outputs" / "toy" / "53_toyqa" / "metrics.json")
    assert [(row["arm"], row["benchmark"], row["n"]) for row in rows] == [("base", "toyqa", 8)]


def test_score_and_its_help_know_them(copy: Path) -> None:
    (copy / "a.json").write_text('{"q0": "yes", "q1": "no"}')
    (copy / "b.json").write_text('{"q0": "yes", "q1": "yes"}')
    for name in ("toyqa", "toysight"):
        scored = sbt(copy, "score", name, "--answers", "a.json", "--references", "b.json")
        assert scored.returncode == 0 and json.loads(scored.stdout) == {"accuracy": 0.5}, scored.stderr
        assert name in sbt(copy, "score", "--help").stdout


def test_they_are_in_the_report_and_in_the_paired_comparison(copy: Path) -> None:
    done = sbt(copy, "run", "params/toy")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ToyQA" in done.stdout, "the first table stands in the terminal"
    report = (copy / "outputs" / "toy" / "90_report" / "report.html").read_text()
    assert "ToyQA" in report and "ToySight" in report
    added = (copy / "outputs" / "toy" / "70_ablations" / "images_add.csv").read_text()
    assert "ToyQA" in added
