"""The benchmarks' real files, where this machine has them."""

import os
from pathlib import Path

from sbt.utils import paths


def real_data() -> Path | None:
    """Folder of the real benchmark files: `SBT_DATA`, else `shared/data` beside the project, else None."""
    given = os.environ.get("SBT_DATA")
    folder = Path(given).absolute() if given else paths.root().parent / "shared" / "data"
    return folder if folder.is_dir() else None
