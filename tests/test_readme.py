"""README says what the package says: its benchmarks, folders, commands, studies and modules."""

import argparse
import re
from pathlib import Path

from sbt import benchmarks
from sbt.__main__ import _parser

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    (body,) = re.findall(rf"^##+ {title}\n(.*?)(?=^##+ |\Z)", TEXT, flags=re.DOTALL | re.MULTILINE)
    return body


def test_the_table_of_benchmarks_is_made_from_the_specs() -> None:
    rows = [line for line in section("Benchmarks").splitlines() if line.startswith("| [")]
    assert rows == [
        f"| [{spec.title}](notebooks/{spec.notebook}.ipynb) | {spec.kind} | {spec.about.rstrip('.')} | "
        f"{', '.join(headline.title for headline in spec.headline)} |"
        for spec in benchmarks.specs().values()
    ]


def test_the_map_has_every_folder_of_the_package_and_no_other() -> None:
    named = re.findall(r"^\| `(\w+)/` \|", section("Map"), flags=re.MULTILINE)
    assert sorted(named) == sorted(file.parent.name for file in (ROOT / "sbt").glob("*/__init__.py"))


def test_every_command_is_shown() -> None:
    (commands,) = (a for a in _parser()._actions if isinstance(a, argparse._SubParsersAction))
    assert set(re.findall(r"^sbt (\w+)", section("Commands"), flags=re.MULTILINE)) == set(commands.choices)


def test_every_study_is_named() -> None:
    table = re.findall(r"^\| (`.*?) \|", section("The paper at full size"), flags=re.MULTILINE)
    studies = {file.parent.name for file in (ROOT / "params").glob("*/plan.yaml")}
    assert studies == set(re.findall(r"`([\w-]+)`", " ".join(table))) & studies and studies


def test_every_module_that_is_named_exists_and_no_path_has_more_than_nine() -> None:
    assert [name for name in re.findall(r"`(sbt/[\w/.]+)`", TEXT) if not (ROOT / name).exists()] == []
    for row in section("Map").splitlines():
        assert len(re.findall(r"`sbt/[\w/]+\.\w+`", row)) <= 9, row
