"""The layout of the package: which folder may import which, and how long modules, functions and folders may be."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "sbt"
FILES = sorted(PACKAGE.rglob("*.py"))
# What the modules of a folder may import of the package, beside their own folder. `""` is sbt/__init__.py.
MAY_IMPORT = {
    "": {"study"},
    "utils": set(),
    "templates": {"utils"},
    "study": {"utils"},
    "report": {"utils", "study"},
    "data": {"utils", "study"},
    "models": {"utils", "data", "templates"},
    "training": {"models", "data", "templates", "utils"},
    "inference": {"models", "data", "templates", "utils"},
    "benchmarks": {"inference", "report", "data", "models", "templates", "study", "utils"},
    "microworld": {"benchmarks", "inference", "training", "report", "data", "models", "templates", "study", "utils"},
    "__main__": {"benchmarks", "report", "data", "study", "utils"},
}
NO_TORCH = ("", "utils", "templates", "study", "report")  # folders that a plan or a table needs
LEARNING = {"torch", "transformers", "peft", "trl", "accelerate", "safetensors", "tokenizers"}
QUICK = ("", "utils", "study", "__main__")  # these import nothing heavy before they need it
RUNS_STUDIES = {"sbt.study.pipeline"}  # only the command line may start whole studies
STILL_OPEN = {  # (module, what it imports) that the rule forbids
    ("data/vision_sources.py", "benchmarks"),
}  # fmt: skip
each_file = pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(PACKAGE).as_posix())


def folder_of(file: Path) -> str:
    """First part of a module's path inside the package; `sbt/__init__.py` is ""."""
    first = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return "" if first == "__init__" else first


def imports(file: Path, at_top: bool = False) -> Iterator[tuple[str, int]]:
    """(module, line) of every import, or of those at module level only; `from sbt import x` gives `sbt.x`."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in tree.body if at_top else ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: imports are absolute"
            names = [node.module]
            if node.module == "sbt" or node.module.startswith("sbt."):
                names = [f"{node.module}.{alias.name}" for alias in node.names]
        yield from ((name, node.lineno) for name in names)


@each_file
def test_a_module_imports_only_the_folders_below_it(file: Path) -> None:
    folder = folder_of(file)
    assert folder in MAY_IMPORT, f"sbt/{folder} has no line in MAY_IMPORT"
    for name, line in imports(file):
        package, _, rest = name.partition(".")
        target = rest.split(".")[0]
        if package != "sbt" or target in (folder, "__version__"):
            continue
        if (file.relative_to(PACKAGE).as_posix(), target) in STILL_OPEN:
            continue
        assert target in MAY_IMPORT[folder], f"{file.relative_to(PACKAGE)}:{line} imports {name}"
        assert folder == "__main__" or name not in RUNS_STUDIES, f"{file.name}:{line} runs studies"


@each_file
def test_plans_and_tables_need_no_torch(file: Path) -> None:
    folder = folder_of(file)
    if folder in NO_TORCH:
        asked_on_demand = {"torch"} if folder == "utils" else set()  # utils.env looks at the device
        assert not {name.split(".")[0] for name, _ in imports(file)} & (LEARNING - asked_on_demand)
    if folder in QUICK:
        allowed = {*sys.stdlib_module_names, "yaml", "filelock", "sbt"}
        assert {name.split(".")[0] for name, _ in imports(file, at_top=True)} <= allowed


def test_the_check_itself_sees_a_wrong_import(tmp_path: Path) -> None:
    file = tmp_path / "x.py"
    file.write_text("import torch.nn\nfrom sbt import runs, models\nfrom sbt.training import sft\n")
    assert list(imports(file)) == [("torch.nn", 1), ("sbt.runs", 2), ("sbt.models", 2), ("sbt.training.sft", 3)]


@each_file
def test_modules_and_functions_stay_short(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 400
    tree = ast.parse(text)
    assert ast.get_docstring(tree), "a module says what it is"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno - node.lineno < 50, f"{node.name} has more than 50 lines"


def test_the_package_is_small_at_every_level() -> None:
    folders = {PACKAGE, *(file.parent for file in FILES)}
    for folder in folders:
        whole = folder != PACKAGE / "benchmarks"  # its folders are the benchmarks, as many as there are
        names = [one.name for one in folder.iterdir() if one.name != "__pycache__" and (whole or one.is_file())]
        most = 12 if folder == PACKAGE else 16
        assert len(names) <= most, f"{folder.relative_to(PACKAGE.parent)} holds {len(names)} names: {sorted(names)}"


def test_import_sbt_loads_nothing_heavy() -> None:
    code = (
        "import sys, sbt; heavy = {'torch', 'transformers', 'pandas', 'numpy', 'IPython', 'papermill', 'datasets'};"
        "print(*sorted(heavy & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.split() == []


@each_file
def test_doubles_are_made_on_the_processor(file: Path) -> None:
    """Apple's GPUs have no float64; a tensor made without a device lies on the processor."""
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        doubles = re.findall(r"(\.cpu\(\))?\.(?:double\(\)|to\((?:dtype=)?torch\.float64)", line)
        assert all(doubles), f"{file.name}:{number}: .cpu() first"
        assert "float64" not in line or "device=" not in line, f"{file.name}:{number}: float64 on a device"
