"""TruthfulQA's two files of one data version: `mc_task.json` for multiple choice, `TruthfulQA.csv` for generation."""

from pathlib import Path

from sbt.benchmarks.truthfulqa import csv_file, mc_task
from sbt.utils import paths
from sbt.utils.errors import DataError


def find(source: Path | str, version: str = "") -> tuple[list[dict], list[dict], str]:
    """(multiple-choice items, generation rows, version) from a folder, or from an mc_task.json and the CSV beside it.

    Of several versions in a folder `version` ("2021-09", "2021-10", "2025-01") chooses one; without it there must be
    one only. The rows are [] where no CSV has the same questions. DataError where the data is missing, or is another
    version than the one asked for.
    """
    path = paths.resolve(str(source))
    files = sorted(path.glob("mc_task*.json")) if path.is_dir() else [path]
    known = {file: mc_task.load(file) for file in files}
    versions = {file: mc_task.version(items) for file, items in known.items()}
    found = [file for file in files if version in ("", versions[file])]
    if len(found) != 1:
        held = ", ".join(sorted(versions.values())) or "no mc_task*.json"
        wish = f"{len(found) or 'none'} of them {version!r}" if version else "and truthfulqa_version names none"
        raise DataError(f"{paths.shown(path)} holds {held}, {wish}. Set truthfulqa_version, or name the file")
    items, own = known[found[0]], versions[found[0]]
    folder = path if path.is_dir() else path.parent
    return items, _beside(folder, items, own), own


def _beside(folder: Path, items: list[dict], version: str) -> list[dict]:
    """Rows of the CSV of the same version (of unpublished data: with the same questions), here or one folder below."""
    asked = {item["question"].strip() for item in items}
    for file in sorted([*folder.glob("TruthfulQA*.csv"), *folder.glob("*/TruthfulQA*.csv")]):
        rows = csv_file.load(file)
        own = csv_file.version(rows)
        published = not version.startswith("other-")
        if own == version if published else {row["question"].strip() for row in rows} == asked:
            return rows
    return []
