"""The package's rooms: who may import whom, how large a file grows, and that `import sbt` stays light."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "sbt"
FILES = sorted(PACKAGE.rglob("*.py"))
# The ground floor, lowest first: a module imports only those before it.
GROUND = (
    *("errors", "paths", "text", "files", "params", "env", "architectures", "costs", "estimate", "progress"),
    *("records", "runs"),
)
FLOORS = (
    set(GROUND),
    {"templates", "benchmarks", "metrics", "stats", "plots", "tables", "itemcache"},
    {"data", "corruptions"},
    {
        *(
            "base_models",
            "models",
            "training",
            "generation",
            "endpoint",
            "probes",
            "performance",
            "performance_data",
            "performance_training",
            "performance_vision",
        ),
        *(
            "prefixes",
            "kvcache",
            "stops",
            "image_features",
            "likelihood",
            "completion",
            "harness",
            "text_tasks",
            "text_scores",
            "vision_scores",
            "corrupted_scores",
        ),
    },
)
HOUSEKEEPING = (
    "execution",
    "plans",
    "results",
    "screen",
    "pipeline",
    "publish",
    "__main__",
)  # lowest first; beside them, the ground floor only
LEARNING = {"torch", "transformers", "peft", "trl", "accelerate", "safetensors", "tokenizers"}


def room(file: Path) -> str:
    """First part of a module's name inside the package; `sbt/__init__.py` is ''."""
    first = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return "" if first == "__init__" else first


def imports(file: Path, at_top: bool = False) -> Iterator[tuple[str, str, int]]:
    """(`package`, `room` where the package is sbt, line) of every import, or of those at module level only."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in tree.body if at_top else ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: imports are absolute"
            names = [f"sbt.{a.name}" for a in node.names] if node.module == "sbt" else [node.module]
        for name in names:
            parts = name.split(".")
            yield parts[0], parts[1] if len(parts) > 1 else "", node.lineno


def floor(name: str) -> int:
    return next(number for number, names in enumerate(FLOORS) if name in names)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(PACKAGE).as_posix())
def test_a_module_imports_only_what_is_below_it(file: Path) -> None:
    name = room(file)
    known = set().union(*FLOORS, HOUSEKEEPING, {""})
    assert name in known, f"sbt/{name} belongs to no floor: put it into FLOORS"
    for package, target, line in imports(file):
        if package != "sbt" or target in ("__version__", name):
            continue
        where = f"{file.name}:{line} imports sbt.{target}"
        if name == "":
            assert target in GROUND, where
        elif name in GROUND:
            assert target in GROUND[: GROUND.index(name)], where
        elif name in HOUSEKEEPING:
            lower = HOUSEKEEPING[: HOUSEKEEPING.index(name)]
            assert target in (*GROUND, *lower, *(("benchmarks",) if name == "__main__" else ())), where
        else:
            assert target not in HOUSEKEEPING and floor(target) <= floor(name), where


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(PACKAGE).as_posix())
def test_only_the_upper_floors_know_of_learning(file: Path) -> None:
    name = room(file)
    if name in (*GROUND, *HOUSEKEEPING, ""):
        allowed = {*sys.stdlib_module_names, "yaml", "sbt"}
        assert {package for package, _, _ in imports(file, at_top=True)} <= allowed
    elif floor(name) < 3:
        assert not {package for package, _, _ in imports(file)} & LEARNING


def test_the_check_itself_sees_a_wrong_import(tmp_path: Path) -> None:
    file = tmp_path / "x.py"
    file.write_text("import torch.nn\nfrom sbt import runs, models\nfrom sbt.training import sft\n")
    assert list(imports(file)) == [
        ("torch", "nn", 1),
        ("sbt", "runs", 2),
        ("sbt", "models", 2),
        ("sbt", "training", 3),
    ]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(PACKAGE).as_posix())
def test_modules_and_functions_stay_short(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 250
    tree = ast.parse(text)
    assert ast.get_docstring(tree), "a module says what it is"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno - node.lineno < 50, f"{node.name} has more than 50 lines"


def test_import_sbt_is_quick_and_loads_no_torch() -> None:
    code = (
        "import sys, time; start = time.perf_counter(); import sbt; print(time.perf_counter() - start);"
        "print(*sorted({'torch', 'transformers', 'pandas', 'numpy', 'IPython', 'papermill'} & set(sys.modules)))"
    )
    found = []
    for _ in range(3):
        words = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
        assert words[1:] == []
        found.append(float(words[0]))
    assert min(found) < 0.3
