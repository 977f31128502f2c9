"""Files as other programs leave them: encodings, byte order marks, macOS's own files, lines of commas, headers."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from sbt.benchmarks.captions import task as captions
from sbt.benchmarks.common import language
from sbt.benchmarks.ethics import task as ethics
from sbt.benchmarks.mme import task as mme
from sbt.benchmarks.truthfulqa import files as truthfulqa
from sbt.utils import files
from sbt.utils.errors import DataError


def csv_of(text_world: Path, name: str) -> Path:
    return next((text_world / "ethics").rglob(f"{name}_test.csv"))


READERS: dict[str, Callable] = {
    "boolq": lambda path: language.get("boolq").load(path),
    "gsm8k": lambda path: language.get("gsm8k").load(path),
    "mathqa": lambda path: language.get("mathqa").load(path),
    "squad2": lambda path: language.get("squad2").load(path),
    "mmlu": lambda path: list(language.get("mmlu").load(path).values()),
    "commonsense": lambda path: ethics.load(path, "commonsense"),
    "utilitarianism": lambda path: ethics.load(path, "utilitarianism"),
    "TruthfulQA": truthfulqa.read_items,
    "captions": lambda path: captions.load(path, captions.ALL),
}


@pytest.fixture
def file_of(text_world: Path, tmp_path: Path) -> Callable[[str], Path]:
    def found(name: str) -> Path:
        if name in ("commonsense", "utilitarianism"):
            source = csv_of(text_world, {"commonsense": "cm"}.get(name, "util"))
        elif name == "TruthfulQA":
            source = text_world / "mc_task.json"
        elif name == "mmlu":
            source = next((text_world / "mmlu").rglob("*_test.csv"))
        elif name == "captions":
            source = tmp_path / "captions.csv"
            source.write_text("image,caption\n1.jpg,A dog runs.\n2.jpg,A cat sits.\n")
            return source
        else:
            split, benchmark = language.get(name).split, language.get(name)
            files = (text_world / name / file for file in benchmark.files[split])
            source = next(file for file in files if file.is_file())
        copy = tmp_path / source.name
        copy.write_bytes(source.read_bytes())
        return copy

    return found


@pytest.mark.parametrize("name", READERS)
def test_a_file_of_another_kind_is_named_for_what_it_is(name: str, file_of: Callable) -> None:
    path = file_of(name)
    for start, kind in files.FOREIGN.items():
        path.write_bytes(start.upper() + b" and more\n" * 20)
        with pytest.raises(DataError, match=f"{re.escape(path.name)} is {re.escape(kind)}"):
            READERS[name](path)


@pytest.mark.parametrize("name", READERS)
def test_encodings_are_read_or_named(name: str, file_of: Callable) -> None:
    path = file_of(name)
    rows, content = READERS[name](path), path.read_bytes()
    path.write_bytes(b"\xef\xbb\xbf" + content)
    assert READERS[name](path) == rows, "a byte order mark is no content"
    path.write_bytes(content.decode().encode("utf-16"))
    with pytest.raises(DataError, match=rf"{path.name}: expected UTF-8, the file is UTF-16\. Save it as UTF-8"):
        READERS[name](path)
    path.write_bytes(content + "é".encode("latin-1"))
    with pytest.raises(DataError, match=rf"{path.name}: expected UTF-8, byte {len(content)} is not: Latin-1"):
        READERS[name](path)
    beside = path.with_name(f"._{path.name}")
    beside.write_bytes(b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        \x00\xb0")
    with pytest.raises(DataError, match="is what macOS keeps beside a file, not its data. Name"):
        READERS[name](beside)


@pytest.mark.parametrize("name", ["mmlu", "commonsense", "utilitarianism", "captions"])
def test_a_line_of_commas_is_no_row(name: str, file_of: Callable) -> None:
    """A spreadsheet ends its export with such lines."""
    path = file_of(name)
    rows, text = READERS[name](path), path.read_text()
    path.write_text(text + "," * {"mmlu": 5, "commonsense": text.partition("\n")[0].count(",")}.get(name, 1) + "\n")
    assert READERS[name](path) == rows


def test_a_line_of_commas_in_truthfulqa_s_table(text_world: Path, tmp_path: Path) -> None:
    (source,) = (text_world / "truthfulqa").glob("TruthfulQA*.csv")
    copy = tmp_path / source.name
    copy.write_text(source.read_text() + "," * source.read_text().partition("\n")[0].count(",") + "\n")
    assert truthfulqa.read_csv(copy) == truthfulqa.read_csv(source)


@pytest.mark.parametrize(
    ("name", "header"),
    [("mmlu", "question,A,B,C,D,answer"), ("mmlu", "0,1,2,3,4,5"), ("utilitarianism", "baseline,less_pleasant"),
     ("utilitarianism", "activity,baseline")],
)  # fmt: skip
def test_a_header_that_a_copy_adds_is_no_row(name: str, header: str, file_of: Callable) -> None:
    path = file_of(name)
    rows = READERS[name](path)
    first = path.read_text().partition("\n")[0]
    body = path.read_text().split("\n", 1)[1] if first in ("activity,baseline", header) else path.read_text()
    path.write_text(f"{header}\n{body}")
    assert READERS[name](path) == rows


def test_macos_s_files_in_a_folder_are_passed_over(text_world: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mmlu" / "test"
    folder.mkdir(parents=True)
    for source in (text_world / "mmlu").rglob("*_test.csv"):
        (folder / source.name).write_bytes(source.read_bytes())
        (folder / f"._{source.name}").write_bytes(b"\x00\x05\x16\x07\xb0")
    assert language.get("mmlu").load(folder.parent) == language.get("mmlu").load(text_world / "mmlu")
    pictures = tmp_path / "mme" / "existence"
    pictures.mkdir(parents=True)
    (pictures / "1.txt").write_text("A dog?\tYes\nA cat?\tNo\n")
    (pictures / "._1.txt").write_bytes(b"\x00\x05\x16\x07\xb0")
    assert len(mme.load(pictures.parent)) == 2
    for name in ("mc_task.json", "._mc_task.json"):
        (tmp_path / name).write_bytes((text_world / "mc_task.json").read_bytes() if name[0] == "m" else b"\xb0")
    assert truthfulqa.read_items(tmp_path) == truthfulqa.read_items(text_world / "mc_task.json")
