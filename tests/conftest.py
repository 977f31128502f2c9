"""Fixtures for all tests: a tiny project of two notebooks that need no torch, as it is and as it stands after a run.

The random generators are seeded before every test, and no test sees the outputs of a real study.
"""

import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# Several test processes share the cores. With more threads than cores, torch takes up to ten times as long.
if (workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))) > 1:
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))

KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
STUDY = """\
study: str = "tiny"  # folder of the study
step: str = "{step}"  # folder of this step
seed: int = 0  # seed of everything random
dry_run: bool = False  # stop after the estimate
"""
MAKE = [
    STUDY.format(step="10_make") + 'size: int = 3  # how many numbers\nrate: float = 0.5  # what each is times\n'
    'pause: float = 0.0  # seconds a number takes\nnames: list = ["a"]  # a list\n',
    'import sbt\nrun = sbt.begin(globals())\np = run.p',
    "1 + 1",
    # Each number is appended with the process that made it, so that a test sees which ones a resumed run kept.
    "import os\nimport time\n\nfrom sbt.study import runs\n\ncache = run.path('scratch/numbers.jsonl')\n"
    "numbers = runs.read_jsonl(cache) if cache.exists() else []\n"
    "for i in range(len(numbers), p.size):\n    time.sleep(p.pause)\n"
    "    numbers.append({'i': i, 'value': i * p.rate, 'pid': os.getpid()})\n    runs.write_jsonl(cache, numbers)\n"
    "    run.progress(i + 1, p.size, value=i * p.rate)",
    "assert p.size < 100, 'a size of a hundred is too much'\nvalues = [number['value'] for number in numbers]\n"
    "_ = runs.write_json(run.path('numbers.json'), values)\nsum(values)",
    "run.finish([dict(arm='base', benchmark='sum', subset='', metric='total', value=sum(values), n=p.size, low=0.0,\n"
    "                 high=9.0, protocol='standard', template_hash='')], samples=[{'v': value} for value in values])",
]  # fmt: skip
USE = [
    STUDY.format(step="20_use") + "scale: int = 2  # factor\n",
    'import sbt\nrun = sbt.begin(globals())\np = run.p',
    "from sbt.study import runs\n\nvalues = runs.read_json(run.upstream('10_make') / 'numbers.json')",
    "run.finish([dict(arm='base', benchmark='sum', subset='', metric='scaled', value=p.scale * sum(values), n=3,\n"
    "                 low=0, high=None, protocol='standard', template_hash='')])",
]  # fmt: skip
PLAN = """\
title: A tiny study
steps:
  - {name: 10_make, notebook: 10_make, params: make.yaml}
  - {name: 20_use, notebook: 20_use, needs: [10_make]}
"""


def write_notebook(path: Path, sources: list[str], kernelspec: dict = KERNEL) -> Path:
    """Write a notebook of code cells; the first one is tagged `parameters`."""
    cells = [
        {"cell_type": "code", "id": f"c{number}", "metadata": {"tags": ["parameters"]} if number == 0 else {},
         "execution_count": None, "outputs": [], "source": source}
        for number, source in enumerate(sources)
    ]  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"cells": cells, "metadata": {"kernelspec": kernelspec}, "nbformat": 4, "nbformat_minor": 5}
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def build_project(root: Path) -> Path:
    """Lay the tiny project into a folder."""
    write_notebook(root / "notebooks" / "10_make.ipynb", MAKE)
    write_notebook(root / "notebooks" / "20_use.ipynb", USE)
    (root / "params" / "tiny").mkdir(parents=True)
    (root / "params" / "tiny" / "plan.yaml").write_text(PLAN)
    (root / "params" / "tiny" / "make.yaml").write_text("rate: 1.0\n")
    return root


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--studies", action="store_true", help="run every study of params/ at toy sizes, with all steps")


@pytest.fixture(autouse=True)
def _seeded(monkeypatch: pytest.MonkeyPatch) -> None:
    random.seed(0)
    for name in ("SBT_ROOT", "SBT_OUTPUTS", "SBT_DOWNLOADS", "SBT_DATA"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tiny project before anything ran; `paths.root()` is its folder."""
    root = build_project(tmp_path / "project")
    monkeypatch.setenv("SBT_ROOT", str(root))
    return root


@pytest.fixture(scope="session")
def _ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from sbt.__main__ import main

    root = build_project(tmp_path_factory.mktemp("ran") / "project")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SBT_ROOT", str(root))
        patch.delenv("SBT_OUTPUTS", raising=False)
        assert main(["run", "tiny"]) == 0
    return root


@pytest.fixture
def finished(_ran: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the tiny project after `sbt run tiny`."""
    root = Path(shutil.copytree(_ran, tmp_path / "project"))
    monkeypatch.setenv("SBT_ROOT", str(root))
    return root


@pytest.fixture
def namespace(project: Path) -> Iterator[Callable[..., dict]]:
    """Makes the globals of a kernel that has run the `parameters` cell of `10_make`, with some of them changed."""
    from sbt.study import runs

    made = []  # kept, so that no two of them have one id

    def make(**changed: object) -> dict:
        found: dict = {}
        exec(MAKE[0], found)
        found = {name: value for name, value in found.items() if not name.startswith("_")}
        made.append(found | {"In": ["", MAKE[0], "import sbt"], "Out": {}, "_hidden": 1} | changed)
        return made[-1]

    yield make
    for run in runs._begun.values():
        run.release()
    runs._begun.clear()


@pytest.fixture(scope="module")
def text_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The micro-world's text benchmarks as the publishers' files."""
    from sbt.microworld import facts, text_benchmarks

    folder = tmp_path_factory.mktemp("world")
    text_benchmarks.write(folder, 0)
    (folder / "eval" / "mc_task.json").write_text(json.dumps(facts.multiple_choice()))
    return folder / "eval"
