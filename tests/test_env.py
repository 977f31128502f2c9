"""What surrounds a notebook: its setup cell on a fresh machine, replaced packages, and the line about the machine."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from IPython.core.inputtransformer2 import TransformerManager

from sbt.study import publish
from sbt.utils import env
from sbt.utils.errors import RunError

URL = "https://github.com/someone/sight"


def run_setup(url: str) -> list[tuple[str, str]]:
    """The magics that the setup cell of an address calls."""
    asked: list[tuple[str, str]] = []
    shell = SimpleNamespace(run_line_magic=lambda *words: asked.append(words))
    exec(TransformerManager().transform_cell(publish.setup_cell(url)), {"get_ipython": lambda: shell})
    return asked


def test_the_setup_cell_installs_the_project_where_it_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    assert run_setup(URL) == [] and capsys.readouterr().out == ""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert run_setup(URL) == [("pip", f'install -q "sight-beyond-text @ git+{URL}"')]
    assert capsys.readouterr().out == "Installing the project; this takes some minutes\n"


def test_without_an_address_the_setup_cell_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_setup(f"https://github.com{publish.PLACEHOLDER}") == []  # sbt is here: nothing is needed
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="names no address to get it from: `make address URL=...`"):
        run_setup(f"https://github.com{publish.PLACEHOLDER}")


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


def test_peak_memory_is_of_this_process_and_not_of_the_one_that_started_it() -> None:
    held = np.ones(60_000_000)  # 480 MB
    code = "from sbt.utils import env; print(env.peak_memory_gb())"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert env.peak_memory_gb() > held.nbytes / env.GB and 0 < float(found.stdout) < 0.3
