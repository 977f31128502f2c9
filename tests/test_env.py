"""What surrounds a notebook: its first cell on a fresh machine, replaced packages, and the line about the machine."""

import json
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from types import SimpleNamespace

import pytest

from sbt.study import params
from sbt.study.runs import PLAIN
from sbt.utils import env, paths
from sbt.utils.errors import RunError

CELL = next(
    params.cell_source(cell)
    for cell in params.read_notebook(paths.notebooks() / "00_check.ipynb")["cells"]
    if cell["cell_type"] == "code"
)
AFTER = """
import json
plain = [name for name, value in globals().items() if not name.startswith("_") and type(value) in (PLAIN)]
print(json.dumps({"where": sbt.__file__, "plain": plain, "torch": "torch" in sys.modules}))
"""
TOY = """\
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "toy"
version = "0.1"
dependencies = ["numpy>=1.26", "torch>=2.0"]
[tool.setuptools]
packages = ["sbt"]
"""
PIP = """\
import json, os, sys
open(os.environ["ASKED"], "a").write(json.dumps(sys.argv[1:]) + "\\n")
"""
GIT = """\
#!/bin/sh
for to; do :; done
echo "$@" >> "$ASKED"
cp -r "$TOY" "$to"
"""


@pytest.fixture
def machine(tmp_path: Path) -> SimpleNamespace:
    """A Python of its own whose packages are this one's but for sbt, a toy checkout, and a `git` that copies it."""
    toy = tmp_path / "toy"
    (toy / "notebooks").mkdir(parents=True)
    (toy / "sbt").mkdir()
    (toy / "sbt" / "__init__.py").write_text("")
    (toy / "sbt" / "runs.py").write_text("")
    (toy / "pyproject.toml").write_text(TOY)
    venv.create(tmp_path / "venv", with_pip=False, symlinks=True)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "git").write_text(GIT)
    (tmp_path / "bin" / "git").chmod(0o755)
    (tmp_path / "fake").mkdir()
    (tmp_path / "fake" / "pip.py").write_text(PIP)
    (tmp_path / "fresh").mkdir()
    asked = tmp_path / "asked"
    asked.write_text("")
    names = ", ".join(kind.__name__ for kind in PLAIN)

    def run(cwd: Path, cell: str = CELL, *, real_pip: bool = False) -> subprocess.CompletedProcess:
        # by PYTHONPATH packages are found, but .pth files are not read: the editable sbt of this machine is not there
        where = [sysconfig.get_paths()["purelib"]] if real_pip else [str(tmp_path / "fake"), *_packages()]
        given = os.environ | {"PYTHONPATH": os.pathsep.join(where), "ASKED": str(asked), "TOY": str(toy),
                              "PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}", "PIP_NO_INDEX": "1",
                              "PIP_NO_BUILD_ISOLATION": "0", "PIP_NO_CACHE_DIR": "1"}  # fmt: skip
        code = cell + AFTER.replace("PLAIN", names)
        return subprocess.run(
            [tmp_path / "venv" / "bin" / "python", "-c", code], cwd=cwd, env=given, capture_output=True, text=True
        )

    def _packages() -> list[str]:
        return [sysconfig.get_paths()["purelib"]]

    return SimpleNamespace(run=run, toy=toy, fresh=tmp_path / "fresh", asked=lambda: asked.read_text().splitlines())


def told(done: subprocess.CompletedProcess) -> dict:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_the_first_cell_installs_the_checkout_and_imports_it_in_the_same_process(machine: SimpleNamespace) -> None:
    found = told(machine.run(machine.toy / "notebooks", real_pip=True))  # no index: what is there has to do
    assert found == {"where": str(machine.toy / "sbt" / "__init__.py"), "plain": [], "torch": False}
    other = machine.run(machine.fresh, "import sys\nimport sbt", real_pip=True)
    assert told(other)["where"] == found["where"], "a new kernel does not find what was installed"


def test_the_first_cell_clones_where_there_is_no_checkout_and_leaves_torch_alone(machine: SimpleNamespace) -> None:
    home = machine.fresh / "sbt-checkout"
    for clones in (1, 1):  # a second kernel takes the clone that is there
        assert told(machine.run(machine.fresh))["where"] == str(home / "sbt" / "__init__.py")
        asked = machine.asked()
        assert sum(line.startswith("clone ") for line in asked) == clones
    install = json.loads(asked[-1])
    assert install[0] == "install" and install[-2:] == ["-e", str(home)] and "--upgrade" not in install
    pinned = [word for word in install if "torch" in word or "numpy" in word]
    assert sorted(pinned) == [f"numpy=={env.version('numpy')}", f"torch=={env.version('torch')}"]


def test_without_its_path_the_checkout_is_not_found_in_the_same_process(machine: SimpleNamespace) -> None:
    """The control: pip's own path is read when an interpreter starts."""
    without = "\n".join(line for line in CELL.splitlines() if "sys.path" not in line)
    assert "No module named 'sbt'" in machine.run(machine.toy / "notebooks", without).stderr


@pytest.mark.parametrize(("name", "module"), [("numpy", "numpy"), ("torch", "torch"), ("pillow", "PIL")])
def test_a_package_replaced_under_the_kernel_asks_for_a_restart(
    name: str, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = env.version(name)
    monkeypatch.setitem(sys.modules, module, SimpleNamespace(__version__=f"{installed.split('+')[0]}+other"))
    env.check_restart()
    monkeypatch.setitem(sys.modules, module, SimpleNamespace(__version__="0.1"))
    with pytest.raises(RunError, match=rf"{name} .* was installed, but this kernel runs 0.1: restart the runtime"):
        env.check_restart()


def test_the_line_about_the_machine_names_no_token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setattr(env, "gpus", lambda: 2)
    monkeypatch.setattr(env, "free_gb", lambda folder: 12.4)
    assert env.line(tmp_path) == "2 NVIDIA GPUs, 12 GB of disk free, Hub token: yes"
    monkeypatch.setattr(env, "gpus", lambda: 0)
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    assert env.line(tmp_path) == "no NVIDIA GPU, 12 GB of disk free, Hub token: no"
