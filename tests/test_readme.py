"""README says what the package says: its benchmarks, folders, commands, studies and modules; its commands run."""

import argparse
import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
import standin_data
import yaml
from fake_endpoint import FakeEndpoint

from sbt import benchmarks
from sbt.__main__ import _parser, main
from sbt.benchmarks.pope import task as pope
from sbt.report import claims, collect
from sbt.study import params, runs

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


# --- every command of a block is parsed, and run where that takes seconds

COMMANDS = [
    shlex.split(line, comments=True)
    for block in re.findall(r"^```bash\n(.*?)^```", TEXT, flags=re.DOTALL | re.MULTILINE)
    for line in block.splitlines()
    if line.startswith("sbt ")
]
STUDIES = sorted(file.parent.name for file in (ROOT / "params").glob("*/plan.yaml"))
QUESTIONS = [
    {"question_id": number, "image": f"COCO_val2014_00000000000{number}.jpg", "label": label,
     "text": "Is there a dog in the image?"} for number, label in ((1, "yes"), (2, "no"), (3, "no"))
]  # fmt: skip


def of(command: str) -> list[list[str]]:
    return [words[1:] for words in COMMANDS if words[1] == command]


def write_lines(file: Path, rows: list[dict]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture
def away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Results go to an empty folder, in which the commands are given; the studies are the repository's."""
    monkeypatch.setenv("SBT_OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_all_commands_of_the_readme_are_found_and_parse() -> None:
    assert len(COMMANDS) >= 14
    assert {_parser().parse_args(words[1:]).command for words in COMMANDS} >= {"plan", "run", "score", "claims"}


@pytest.mark.parametrize("study", STUDIES)
def test_every_study_is_planned_and_its_papermill_commands_name_what_is_there(
    study: str, away: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(["plan", f"params/{study}", "--commands"]) == 0
    commands = [shlex.split(line) for line in capsys.readouterr().out.splitlines() if "papermill " in line]
    assert commands
    for words in commands:
        program = next(n for n, word in enumerate(words) if Path(word).name == "papermill")  # perhaps .venv/bin's
        words = words[program + 1 :]
        declared = params.declared(ROOT / words[0])
        assert words[1].endswith("notebook.ipynb")
        files = [params.load_yaml(ROOT / words[n + 1]) for n, word in enumerate(words) if word == "-f"]
        given = [yaml.safe_load(words[n + 1]) for n, word in enumerate(words) if word == "-y"]
        assert given and {name for values in (*files, *given) for name in values} <= set(declared)


def published(root: Path) -> None:
    """FOLDER and FOLDER_OF_val2014 with POPE, ETHICS and pictures, as their publishers lay them out."""
    for kind in pope.SPLITS[:3]:
        write_lines(root / "FOLDER" / f"coco_pope_{kind}.json", QUESTIONS)
    shorts = {"cm": "commonsense", "util": "utilitarianism"}
    for name, content in standin_data._ethics().items():
        file = Path(name).name
        folder = root / "FOLDER" / shorts.get(file.partition("_")[0], file.partition("_")[0])
        folder.mkdir(exist_ok=True)
        (folder / file).write_bytes(content)
    (root / "FOLDER_OF_val2014").mkdir()
    for question in QUESTIONS:
        (root / "FOLDER_OF_val2014" / question["image"]).write_bytes(standin_data.picture(question["question_id"]))


def in_place(words: list[str], root: Path, endpoint: str = "") -> list[str]:
    """A command with the folders that lie below `root`, and the address of an endpoint."""
    placed = [re.sub(r"=(FOLDER\w*)", lambda found: f"={root / found[1]}", word) for word in words]
    return [word.replace("api={", f"api={{base_url: {endpoint}, ") for word in placed]


def test_runs_of_the_readme_are_planned(away: Path, capsys: pytest.CaptureFixture) -> None:
    published(away)
    for words in [*of("run"), *of("plan")]:
        status = main([*in_place(words, away), *(["--dry-run"] if words[0] == "run" else [])])
        out, error = capsys.readouterr()
        assert (status == 0 and "steps" in out) or "is not finished: make it with `sbt run" in error, words


SMALL = {"max_steps": 2, "batch_size": 4, "accumulation": 1, "pretrain": 24, "instruct": 24, "instruct_images": 24,
         "captions": 4, "pope": 4, "heldout": 4}  # fmt: skip
ARMS = "10_data,20_connector,30,40"


def test_runs_of_the_readme_run_on_folders_as_their_publishers_lay_them_out(
    away: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    published(away)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    small = [word for name, value in SMALL.items() for word in ("--set", f"{name}={value}")]
    assert main(["run", "params/embedded", "--only", ARMS, *small]) == 0, capsys.readouterr().err
    done = away / "outputs" / "embedded" / "30_mm-full" / "DONE"
    for words in of("run"):
        if "--only" not in words:
            continue  # whole studies: test_small_runs, and `make run` itself
        before = done.stat().st_mtime_ns
        more = small[:6] if "--force" in words else []
        with FakeEndpoint(lambda prompt, time: "A") as server:
            assert main([*in_place(words, away, server.url), *more]) == 0, (words, capsys.readouterr().err)
        assert (done.stat().st_mtime_ns != before) is ("--force" in words), words
    rows = {step: runs.metrics(done.parents[1] / step) for step in ("50_truthfulqa", "51_ethics", "63_pope")}
    arms = {step: {row["arm"] for row in found} for step, found in rows.items()}
    assert arms["51_ethics"] == {"base", "mm-full"} and arms["63_pope"] == {"mm-full", "mm-lora", "mm-l2t"}
    assert {row["subset"] for row in rows["63_pope"]} >= set(pope.SPLITS[:3])
    assert {row["n"] for row in rows["63_pope"] if row["subset"] == "random"} == {len(QUESTIONS)}
    assert "gpt-4-turbo" in arms["50_truthfulqa"] and server.asked


def test_scores_of_the_readme(away: Path, capsys: pytest.CaptureFixture) -> None:
    write_lines(away / "coco_pope_random.json", QUESTIONS)
    write_lines(away / "answers.jsonl", [{"question_id": n, "answer": "No, there is none."} for n in (1, 2, 3)])
    log = {"target": "6 #### 6", "arguments": [["Question", {"until": ["Question:"]}]], "filter": "flexible-extract",
           "filtered_resps": ["6"], "exact_match": 1.0}  # fmt: skip
    log |= {"doc_id": 0, "doc": {"question": "How many?", "answer": "6 #### 6"}, "resps": [["So it is 6."]]}
    write_lines(away / "samples_gsm8k.jsonl", [log])
    verdict = {"instruction": "a", "output_1": "b", "output_2": "c", "annotator": "m", "preference": 2.0}
    (away / "annotations.json").write_text(json.dumps([verdict, verdict | {"preference": 1.0}]), encoding="utf-8")
    scores = {}
    for words in of("score"):
        assert main(words) == 0, words
        scores[words[1]] = json.loads(capsys.readouterr().out)
    assert scores["pope"]["accuracy"] == pytest.approx(2 / 3) and scores["gsm8k"]["n"] == 1
    assert scores["alpacaeval"]["arms"]["the arm"]["win_rate"] == 50.0


def test_finished_results_are_listed_compared_and_exported(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    outputs = finished / "outputs"
    for study in ("embedded", "other"):
        shutil.copytree(outputs / "tiny" / "10_make", outputs / study / "50_truthfulqa")
    report = Path(shutil.copytree(outputs / "tiny" / "20_use", outputs / "embedded" / "90_report"))
    claims.ledger(collect.Results([], {}, {}, {}), {}, benchmarks.specs()).to_csv(report / "claims.csv", index=False)
    shown = {"runs": "50_truthfulqa", "compare": "difference", "claims": "cannot tell", "export": r"\begin{tabular}"}
    for command, wanted in shown.items():
        for words in of(command):
            assert main(words) == 0, words
            assert wanted in capsys.readouterr().out
