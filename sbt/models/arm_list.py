"""The arms of a study: which there are and what they were built from, read from `arm.json` without loading one."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from sbt.models.arms import ARM_FILE
from sbt.models.llava import CONNECTOR_FILE, locate
from sbt.utils import paths
from sbt.utils.errors import CheckpointError, ParameterError
from sbt.utils.files import read_json
from sbt.utils.text import nearest, run_names

PARTS = ("language_model", "vision_tower", "connector")


def describe(folder: Path) -> dict:
    """What `arm.json` of an arm's folder says; CheckpointError where there is none."""
    file = Path(folder) / ARM_FILE
    if not file.is_file():
        raise CheckpointError(f"{paths.shown(file)} does not exist: run the step that makes this arm")
    return read_json(file)


def references(folder: Path, *, language_model: str = "") -> dict[str, str]:
    """The parts an arm was assembled from, as `assemble` and `save_arm` take them; its own connector included.

    ParameterError where it was built over another `language_model` than the one expected.
    """
    info = describe(folder)
    parts = {part: locate(info[part], folder) for part in PARTS if info.get(part)}
    if language_model and parts.get("language_model") != locate(language_model):
        found = f"{paths.shown(folder)} was made over {info['language_model']!r}"
        raise ParameterError(f"language_model={language_model!r}, but {found}. Name a connector over the same model")
    own = Path(folder) / CONNECTOR_FILE
    return parts | ({"connector": str(own)} if own.is_file() else {})


def arms(
    folders: Iterable[Path], only: Iterable[str] = (), *, base: str = "", vision: bool = False
) -> Mapping[str, str]:
    """Name -> folder of the arms in steps' folders, `base` (a plain language model) first, in the order of `only`.

    Several steps that trained one arm, with other seeds say, are its runs: "mm-full (run 1)", "mm-full (run 2)".
    `vision` keeps those that can look at an image, connectors over an untuned model among them. ParameterError where
    `only` names an arm that is not there.
    """
    runs: dict[str, list[str]] = {}
    for folder in folders:
        info = describe(folder / "model")
        if not vision or info["kind"].startswith(("llava", "connector")):
            runs.setdefault(info["arm"], []).append(str(folder / "model"))
    found = {"base": base} if base and not vision else {}
    for arm, models in runs.items():
        found |= dict(zip(run_names(arm, len(models)), models, strict=True))
    for name in only:
        if name not in found:
            raise ParameterError(f"arms: {name!r} is not among the arms of this study{nearest(name, found)}")
    return {name: found[name] for name in only or found}
