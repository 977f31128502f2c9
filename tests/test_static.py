"""What can be checked without running anything: notebooks, parameter files, README."""

import ast
import json
import re
import shlex
import shutil
from functools import cache
from pathlib import Path

import pytest
from IPython.core.inputtransformer2 import TransformerManager

from sbt.__main__ import _parser
from sbt.study import params, publish
from sbt.study import plan as plans
from sbt.utils.errors import ParameterError, RunError

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
STUDIES = sorted(file.parent.name for file in (ROOT / "params").glob("*/plan.yaml"))
ABSOLUTE = re.compile(r"(?<![\w.:/~<])/(?:home|root|Users|tmp|mnt|work|content|kaggle|usr|opt|var|srv|data)/\w")
BARS = re.compile(r"[█▏▎▍▌▋▊▉]|it/s\]|s/it\]")
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code_cells(notebook: dict) -> list[dict]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def tree(cell: dict) -> ast.Module:
    return ast.parse(TransformerManager().transform_cell(params.cell_source(cell)))


def faults(notebook: dict) -> list[str]:
    """What a notebook's code holds that belongs elsewhere."""
    found = []
    for number, cell in enumerate(code_cells(notebook), start=1):
        for node in ast.walk(tree(cell)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                found.append(f"cell {number} defines {node.name}")
            if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Lambda):
                found.append(f"cell {number} names a lambda")
            if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv", "putenv"):
                found.append(f"cell {number} uses os.{node.attr}")
            if isinstance(node, ast.ImportFrom) and node.module == "os":
                found.append(f"cell {number} imports from os")
    for number, cell in enumerate(notebook["cells"], start=1):
        texts = [params.cell_source(cell), *shown(cell)]
        found += [f"cell {number} holds the path {m[0]}..." for text in texts for m in ABSOLUTE.finditer(text)]
    return found


def shown(cell: dict) -> list[str]:
    """Texts among a cell's outputs."""
    texts = []
    for output in cell.get("outputs", ()):
        parts = [output.get("text", ""), *(v for k, v in output.get("data", {}).items() if k.startswith("text/"))]
        texts += ["".join(part) for part in parts]
    return texts


@each_notebook
def test_notebook_is_well_formed(path: Path) -> None:
    assert path.stat().st_size <= publish.LARGEST
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert notebook["nbformat"] == 4 and notebook["metadata"]["kernelspec"]["name"] == "python3"
    assert "widgets" not in notebook["metadata"] and "papermill" not in notebook["metadata"]
    assert notebook["cells"][0]["cell_type"] == "markdown" and "# " in params.cell_source(notebook["cells"][0])
    assert len(notebook["cells"]) <= 30
    lines = [[x for x in params.cell_source(cell).splitlines() if x.strip()] for cell in code_cells(notebook)]
    assert sum(map(len, lines[1:])) <= 120  # without the first cell, which is the same everywhere
    tagged = ["parameters" in cell["metadata"].get("tags", ()) for cell in code_cells(notebook)]
    most = [46 if declares else 15 for declares in tagged]  # a list of parameters is read line by line, not as code
    assert [n for n, (cell, size) in enumerate(zip(lines, most, strict=True), start=1) if len(cell) > size] == []


@each_notebook
def test_address_setup_and_begin_are_the_same_everywhere(path: Path) -> None:
    url, notebook = publish.address(), json.loads(path.read_text(encoding="utf-8"))
    placed = json.loads(json.dumps(notebook))
    publish.place_address(placed, url, path.stem)
    assert placed == notebook, "run `make address URL=...` again"
    sources = [params.cell_source(cell) for cell in code_cells(notebook)]
    lines = [[line for line in source.splitlines() if line.strip()] for source in sources[:3]]
    assert len(lines[0]) <= 4 and sources[2] == "import sbt\n\nrun = sbt.begin(globals())"


def test_every_notebook_but_the_last_ends_with_a_link_to_the_next_one() -> None:
    read = [json.loads(path.read_text(encoding="utf-8"))["cells"] for path in NOTEBOOKS]
    last = ["".join(cells[-1]["source"]) for cells in read]
    titles = [cells[0]["source"][0].removeprefix("# ").strip() for cells in read]
    after = list(zip(titles[1:], NOTEBOOKS[1:], strict=True))
    assert last[:-1] == [f"Next: [{title}]({path.name})" for title, path in after]
    assert "Next: [" not in last[-1]


def test_readme_names_the_address_of_the_project() -> None:
    url, readme = publish.address(), (ROOT / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"https://github\.com/[\w-]+/[\w-]+", readme)) >= {url}
    places = set(re.findall(r"colab\.research\.google\.com/github/([\w-]+/[\w-]+)/", readme))
    assert places <= {url.removeprefix("https://github.com/")}


def test_readme_gives_the_answer_of_the_executed_report() -> None:
    readme, said = (ROOT / "README.md").read_text(encoding="utf-8"), publish.answer(ROOT / "notebooks/90_report.ipynb")
    assert publish.with_blocks(readme, {"answer": said}) == readme, "run `make notebooks ONLY=90_report`"
    shown = publish.with_blocks(readme, {"answer": "A", "cost": "C"})
    assert "-->\nA\n<!--" in shown and "-->\nC\n<!--" in shown
    assert re.search(r"take \d+ minutes together.*\n.*at most [\d.]+ GB of memory.* take [\d.]+ GB of disk", readme)
    with pytest.raises(RunError, match=r"README.md needs the lines `<!-- answer: ... -->`"):
        publish.with_blocks("no block", {"answer": said})


def test_make_address_writes_one_address_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("pyproject.toml", "README.md", "CITATION.cff"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks")
    monkeypatch.setenv("SBT_ROOT", str(tmp_path))
    with pytest.raises(ParameterError, match="URL=git@x: expected https://github.com/OWNER/NAME"):
        publish.set_address("git@x")
    publish.set_address("https://github.com/someone/sight.git/"[:-1])
    assert publish.address() == "https://github.com/someone/sight"
    assert "OWNER/NAME" not in (tmp_path / "README.md").read_text(encoding="utf-8")
    for path in (tmp_path / "notebooks").glob("*.ipynb"):
        notebook, before = json.loads(path.read_text(encoding="utf-8")), ROOT / "notebooks" / path.name
        assert "OWNER/NAME" not in json.dumps(notebook)
        assert f"github/someone/sight/blob/main/notebooks/{path.name}" in params.cell_source(notebook["cells"][0])
        setup = params.cell_source(code_cells(notebook)[0])
        assert '"sight-beyond-text @ git+https://github.com/someone/sight"' in setup and "minutes" in setup
        assert params.source_hash(notebook) == params.source_hash(json.loads(before.read_text(encoding="utf-8")))


@each_notebook
def test_notebook_holds_no_logic_and_no_path(path: Path) -> None:
    assert faults(json.loads(path.read_text(encoding="utf-8"))) == []


def test_the_faults_are_found() -> None:
    sources = ["def f(): ...", "g = lambda x: x", "import os\nos.environ['A']", "x = '/home/me/data'", "class A: ...",
               "from os import getenv"]  # fmt: skip
    for source in sources:
        assert len(faults({"cells": [{"cell_type": "code", "source": source}]})) == 1, source
    fine = "sorted([1], key=lambda x: -x)\nurl = 'https://a.org/home/x'\n%matplotlib inline\npath = 'outputs/tmp/x'"
    assert faults({"cells": [{"cell_type": "code", "source": fine}]}) == []


@cache
def steps_of_notebooks() -> list[tuple[str, str]]:
    """Notebook and step of every plan."""
    return [(step.notebook, step.name) for study in STUDIES for step in plans.load(study)[0].steps]


@each_notebook
def test_parameters_follow_the_grammar(path: Path) -> None:
    declared = params.declared(path)
    assert declared["study"].default == "embedded" and declared["seed"].default == 0
    assert declared["dry_run"].default is False
    named = path.stem, declared["step"].default
    assert named in steps_of_notebooks(), f"no plan has the default step of {path.name}"


@each_notebook
def test_notebook_is_committed_executed_and_quiet(path: Path) -> None:
    notebook = json.loads(path.read_text(encoding="utf-8"))
    remedy = f"{path.name} is older than its code: run `make notebooks`"
    assert notebook["metadata"].get("sbt", {}).get("source_hash") == params.source_hash(notebook), remedy
    cells = code_cells(notebook)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert any(cell["outputs"] for cell in cells)
    for number, cell in enumerate(cells, start=1):
        assert set(cell["metadata"]) <= {"tags"}
        for output in cell["outputs"]:
            assert output["output_type"] != "error" and output.get("execution_count") in (None, number)
            assert not any("widget" in kind for kind in output.get("data", {}))
        for text in shown(cell):
            assert not BARS.search(text), f"cell {number} shows a progress bar"


@pytest.mark.parametrize("study", STUDIES)
def test_every_parameter_file_fits_its_notebook(study: str) -> None:
    plan, steps = plans.load(study)
    used = {step.file for step in steps if step.file}
    assert plan.title and set((ROOT / "params" / study).glob("*.yaml")) == used | {
        ROOT / "params" / study / "plan.yaml"
    }
    for step in steps:
        if step.file:  # the file alone must do for a plain papermill command
            assert params.load_yaml(step.file).get("step", params.declared(
                ROOT / "notebooks" / f"{step.notebook}.ipynb")["step"].default) == step.name  # fmt: skip


def test_readme_links_and_commands_exist() -> None:
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8") if readme.exists() else ""
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", text) + re.findall(r'(?:src|href)="([^"#]+)"', text):
        assert re.match(r"https?:|mailto:", target) or (ROOT / target).exists(), f"README links to {target}"
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    blocks = re.findall(r"```(\w*)\n(.*?)```", text, flags=re.DOTALL)
    assert blocks or not text, "the README shows no command"
    for block in [body for language, body in blocks if language in ("bash", "sh", "console")]:
        for line in block.splitlines():
            words = shlex.split(line.removeprefix("$ "), comments=True)
            if words[:1] == ["make"]:
                assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in words[1:]), line
            if words[:1] == ["sbt"]:
                _parser().parse_args(words[1:])
