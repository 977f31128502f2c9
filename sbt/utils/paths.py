"""Where things are: the project's folders and the package's assets.

Nothing else in the package builds a path from the working directory, so a step runs the same from any folder.
"""

import os
from pathlib import Path

OF_FOLDERS = ("SBT_ROOT", "SBT_OUTPUTS", "SBT_DOWNLOADS")  # variables that name them


def environment() -> dict[str, str]:
    """The variables that name folders, as whole paths: a process that works in another folder then means the same."""
    return {name: str(Path(given).absolute()) for name in OF_FOLDERS if (given := os.environ.get(name))}


def package() -> Path:
    """Folder of the `sbt` package."""
    return Path(__file__).resolve().parents[1]


def root() -> Path:
    """Folder of the project: `SBT_ROOT`, else the nearest above with `notebooks/` and `sbt/`, else the package's.

    Where the package was installed without a checkout, it is the working directory.
    """
    if given := os.environ.get("SBT_ROOT"):
        return Path(given).resolve()
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "notebooks").is_dir() and (folder / "sbt").is_dir():
            return folder
    return package().parent if (package().parent / "notebooks").is_dir() else here


def notebooks() -> Path:
    """Folder of the notebooks: the project's, else those that were installed with the package."""
    return _own("notebooks")


def params() -> Path:
    """Folder of the studies' parameter files: the project's, else those that were installed with the package."""
    return _own("params")


def _own(name: str) -> Path:
    folder, installed = root() / name, package() / name
    return installed if installed.is_dir() and not folder.is_dir() else folder


def outputs() -> Path:
    """Folder everything is written to: `SBT_OUTPUTS`, else `outputs/` of the project."""
    given = os.environ.get("SBT_OUTPUTS")
    return Path(given).absolute() if given else root() / "outputs"


def downloads() -> Path:
    """Folder that training files are fetched to: `SBT_DOWNLOADS` (a disk of this machine, say), else in outputs."""
    given = os.environ.get("SBT_DOWNLOADS")
    return Path(given).absolute() if given else outputs() / "downloads"


def assets() -> Path:
    """Folder of the small models kept in the package."""
    return package() / "microworld" / "assets"


def resolve(text: str) -> Path:
    """Path a parameter names: `assets/...` is in the package, `/...` and `~/...` stay, others are in the project."""
    path = Path(text).expanduser() if text.startswith("~/") else Path(text)
    if path.is_absolute():
        return path
    return (assets().parent if path.parts[:1] == ("assets",) else root()) / path


def exists(text: str) -> bool:
    """Whether a parameter's value names a file or folder that is there; a name that no path can have does not."""
    try:
        return resolve(text).exists()
    except (OSError, ValueError):
        return False


def shown(path: Path) -> str:
    """The path as messages and manifests show it: relative to the project where it lies inside it."""
    path = Path(path).absolute()
    for base in (root(), package().parent):
        if path.is_relative_to(base):
            return path.relative_to(base).as_posix()
    return path.as_posix()


def in_place(path: Path) -> Path:
    """The absolute path that a result will have: without the `.stale` of a step that is being made anew."""
    path = Path(path).absolute()
    if not path.is_relative_to(outputs()):
        return path
    return outputs().joinpath(*(part.removesuffix(".stale") for part in path.relative_to(outputs()).parts))


def recorded(path: Path) -> str:
    """The path as results keep it: relative to the folder of outputs where it lies inside, which may move.

    Downloads that were put elsewhere stay whole paths, wherever that is.
    """
    path = in_place(path)
    if path.is_relative_to(outputs()):
        return path.relative_to(outputs()).as_posix()
    return path.as_posix() if path.is_relative_to(downloads()) else shown(path)
