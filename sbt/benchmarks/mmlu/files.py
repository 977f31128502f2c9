"""MMLU's data: its subjects and categories, and the publisher's folder, `test/SUBJECT_test.csv` and `dev/...`.

The CSVs have no header; their columns are question, A, B, C, D and the letter of the answer.
"""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from sbt.benchmarks.common import language
from sbt.utils import paths
from sbt.utils.errors import DataError
from sbt.utils.files import read_text
from sbt.utils.text import nearest

SPLIT, LETTERS = "test", "ABCD"
# The `tag` of lm_eval/tasks/mmlu/default/mmlu_*.yaml (0.4.13).
_STEM = """abstract_algebra anatomy astronomy college_biology college_chemistry college_computer_science
    college_mathematics college_physics computer_security conceptual_physics electrical_engineering
    elementary_mathematics high_school_biology high_school_chemistry high_school_computer_science
    high_school_mathematics high_school_physics high_school_statistics machine_learning"""
_HUMANITIES = """formal_logic high_school_european_history high_school_us_history high_school_world_history
    international_law jurisprudence logical_fallacies moral_disputes moral_scenarios philosophy prehistory
    professional_law world_religions"""
_SOCIAL = """econometrics high_school_geography high_school_government_and_politics high_school_macroeconomics
    high_school_microeconomics high_school_psychology human_sexuality professional_psychology public_relations
    security_studies sociology us_foreign_policy"""
_OTHER = """business_ethics clinical_knowledge college_medicine global_facts human_aging management marketing
    medical_genetics miscellaneous nutrition professional_accounting professional_medicine virology"""
CATEGORIES = {
    "stem": tuple(_STEM.split()),
    "humanities": tuple(_HUMANITIES.split()),
    "social sciences": tuple(_SOCIAL.split()),
    "other": tuple(_OTHER.split()),
}
_CATEGORY = {subject: category for category, subjects in CATEGORIES.items() for subject in subjects}
OWN = "own subjects"  # the category of a set with none of MMLU's subjects in it, such as the micro-world's


def category(subject: str, protocol: str = "standard") -> str:
    """The subject's category. The authors (evaluate_mmlu.py@47f96a3), like MMLU's own, count anatomy as "other"."""
    return "other" if (subject, protocol) == ("anatomy", "paper") else _CATEGORY.get(subject, OWN)


def read(path: Path | str, split: str = SPLIT) -> dict[str, list[dict]]:
    """{subject: docs {question, choices, answer: 0 to 3, subject}}, sorted, of `data/`, its parent, or one CSV.

    Few-shot docs are the first ones of split "dev". DataError names file and row of what is not six columns.
    """
    path = paths.resolve(str(path))
    folder, end = path / "data" if (path / "data").is_dir() else path, f"_{split}.csv"
    files = [path] if path.is_file() else sorted((folder / split).glob(f"[!.]*{end}"))  # macOS adds ._ files
    if not files:
        raise DataError(f"{paths.shown(folder)} holds no {split}/SUBJECT{end}: unpack MMLU's data.tar there")
    subjects = [file.name.removesuffix(end) for file in files]
    strange = [subject for subject in subjects if subject not in _CATEGORY]
    if 0 < len(strange) < len(subjects):
        hint = nearest(strange[0], _CATEGORY)
        raise DataError(f"{paths.shown(folder)}: {strange[0]!r} is no subject of MMLU{hint} The others are")
    return {subject: _read(file, subject) for subject, file in zip(subjects, files, strict=True)}


def _read(file: Path, subject: str) -> list[dict]:
    name, rows = paths.shown(file), []
    try:
        lines = [cells for cells in csv.reader(io.StringIO(read_text(file), newline="")) if cells]
    except csv.Error as error:
        raise DataError(f"{name}: malformed CSV ({error}): a quotation mark is not closed") from None
    for number, cells in enumerate(lines, start=1):
        if len(cells) != 6:
            raise DataError(f"{name}, row {number}: expected question, A, B, C, D, letter; found {len(cells)} columns")
        if cells[5] not in tuple(LETTERS):
            hint = "These files have no header, and letters for answers"
            raise DataError(f"{name}, row {number}: the answer must be A, B, C or D, found {cells[5]!r}. {hint}")
        rows.append(
            {"question": cells[0], "choices": cells[1:5], "answer": LETTERS.index(cells[5]), "subject": subject}
        )
    return from_rows(rows, name)


def by_subject(docs: Sequence[dict]) -> dict[str, list[dict]]:
    """Docs of all subjects in one list, as the hub has them, by subject and sorted."""
    found: dict[str, list[dict]] = {}
    for doc in docs:
        found.setdefault(doc["subject"], []).append(doc)
    return dict(sorted(found.items()))


def from_rows(rows: Sequence[dict], name: str) -> list[dict]:
    """Docs of the hub's rows; DataError names the row without question, subject, four choices or answer."""
    docs = []
    for where, row in language.listed(rows, name):
        question, subject = (language.text(row, field, where) for field in ("question", "subject"))
        choices, answer = (language.key(row, field, where) for field in ("choices", "answer"))
        if not isinstance(choices, list) or len(choices) != 4 or not all(isinstance(one, str) for one in choices):
            raise DataError(f"{where}: 'choices' must be four texts, found {choices!r}")
        if type(answer) is not int or answer not in range(4):
            raise DataError(f"{where}: 'answer' must be the place of a choice, 0 to 3, found {answer!r}")
        docs.append({"question": question, "choices": choices, "answer": answer, "subject": subject})
    return docs
