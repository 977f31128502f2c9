"""Fixtures over `tiny`: import the names a test module uses."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny
import torch

from sbt.models import silence_libraries

torch.set_num_threads(1)  # tiny tensors: a second thread waits more than it works, and far more on a busy machine


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """`llm`, `clip`: checkpoint folders, written once a session; `images`: three files."""
    folder = Path(tmp_path_factory.getbasetemp()) / "small"
    if not folder.exists():  # each module that imports the fixture has its own copy of it
        folder.mkdir()
        with silence_libraries():
            tiny.write_models(folder)
    return SimpleNamespace(llm=folder / "llm", clip=folder / "clip", images=tiny.write_images(folder / "images"))
