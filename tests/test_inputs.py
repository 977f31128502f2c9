"""Files, folders, models and commits that parameters name: looked for before anything starts, and watched later."""

from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import MAKE, write_notebook

import sbt
from sbt.__main__ import main
from sbt.study import inputs, manifest
from sbt.utils import hub, paths
from sbt.utils.errors import ParameterError
from sbt.utils.files import read_json, write_json

READS = """\
instruct_data: str = ""  # rows: a source or a file
images: str = ""  # folder of pictures
language_model: str = "assets/llm"  # folder or hub id
sources: dict = {}  # benchmark and folder
"""
OLD, NEW = "1" * 40, "2" * 40
ROW = dict(arm="base", benchmark="sum", subset="", metric="total", value=1.0, n=3, low=0.0, high=9.0,
           protocol="standard", template_hash="")  # fmt: skip


@pytest.fixture
def reads(project: Path) -> Path:
    """The tiny project, whose first notebook reads what READS names."""
    write_notebook(project / "notebooks" / "10_make.ipynb", [MAKE[0] + READS, *MAKE[1:]])
    return project


@pytest.mark.parametrize(
    ("parameter", "value", "expected"),
    [
        ("instruct_data", "data/rows.json", ["data/rows.json"]), ("instruct_data", "llava-instruct-80k", []),
        ("instruct_data", "llava-instruct-8k", ["llava-instruct-8k"]), ("instruct_data", "owner/name", []),
        ("instruct_data", "", []), ("images", "hub", []), ("images", "pictures", ["pictures"]),
        ("language_model", "owner/name", []), ("language_model", "gpt2", []), ("language_model", "a/b/c", ["a/b/c"]),
        ("language_model", "data/llama", ["data/llama"]), ("language_model", "./llama", ["./llama"]),
        ("checkpoint", "~/llama", ["~/llama"]), ("language_model", "assets/lm", ["assets/lm"]),
        ("sources", {"mmlu": "hub", "gsm8k": "/x", "squad2": "y"}, ["/x", "y"]), ("table", "34_preferences", []),
        ("flickr", {"references": "f.json", "images": "hub", "split": "test"}, ["f.json"]),
        ("table", "pairs.jsonl", ["pairs.jsonl"]), ("preset", "harness", []), ("preset", "shots.txt", ["shots.txt"]),
        ("api", {"base_url": "http://localhost/v1"}, []), ("data", "10_data", []), ("questions_file", "q", ["q"]),
    ],
)  # fmt: skip
def test_which_values_are_paths(parameter: str, value: object, expected: list[str]) -> None:
    from sbt.data import registry

    assert inputs.published is registry.SOURCES
    assert list(inputs.named(parameter, value)) == expected


def test_all_paths_that_are_not_here_are_named_before_anything_starts(
    reads: Path, capsys: pytest.CaptureFixture
) -> None:
    (reads / "params" / "tiny" / "make.yaml").write_text("instruct_data: /none/rows.json\nimages: pictures\n")
    flags = ["--set", "language_model=models/of/mine", "--set", "sources={mmlu: hub, gsm8k: texts}"]
    assert main(["run", "tiny", *flags]) == 2
    lines = capsys.readouterr().err.splitlines()
    expected = {
        "/none/rows.json": "params/tiny/make.yaml: instruct_data of 10_make",
        "pictures": "params/tiny/make.yaml: images of 10_make",
        "models/of/mine": "--set: language_model of 10_make",
        "texts": "--set: sources of 10_make",
    }
    for line, (path, where) in zip(lines, expected.items(), strict=True):
        assert line.strip().removeprefix("sbt: ") == f"{path} does not exist ({where}): {inputs.REMEDY}"
    assert not (reads / "outputs").exists()
    assert main(["plan", "tiny", *flags]) == 0
    shown = capsys.readouterr().out
    assert "10_make" in shown and all(f"{path} does not exist" in shown for path in expected)


def test_what_an_earlier_step_makes_need_not_be_here_and_what_is_here_is_taken(
    reads: Path, capsys: pytest.CaptureFixture
) -> None:
    (reads / "pictures").mkdir()
    plan = (reads / "params" / "tiny" / "plan.yaml").read_text()
    plan += "  - {name: 30_again, notebook: 10_make, needs: [10_make], set: {instruct_data: %s, images: pictures}}\n"
    (reads / "params" / "tiny" / "plan.yaml").write_text(plan % "outputs/tiny/10_make/numbers.json")
    assert main(["plan", "tiny"]) == 0 and "does not exist" not in capsys.readouterr().out
    (reads / "params" / "tiny" / "plan.yaml").write_text(plan % "outputs/tiny/10_mak/numbers.json")
    assert main(["run", "tiny"]) == 2
    assert "params/tiny/plan.yaml, step 30_again: instruct_data of 30_again" in capsys.readouterr().err
    assert main(["plan", "tiny", "--only", "10_make"]) == 0 and "does not exist" not in capsys.readouterr().out


def test_a_notebook_by_itself_names_them_too(reads: Path, namespace: Callable[..., dict]) -> None:
    source = MAKE[0] + READS
    given = {"In": ["", source, "import sbt"], "instruct_data": "/none/rows.json", "images": "/none/pictures"}
    given |= {"language_model": "assets/llm", "sources": {}}
    with pytest.raises(ParameterError) as error:
        sbt.begin(namespace(**given))
    lines = str(error.value).splitlines()
    assert [line.split(" does not exist")[0] for line in lines] == ["/none/rows.json", "/none/pictures"]
    assert not (reads / "outputs").exists()


def change_file(root: Path) -> None:
    (root / "data" / "rows.json").write_text("[2]")


def change_folder(root: Path) -> None:
    (root / "pictures" / "deep" / "more.png").write_text("new")


def change_picture(root: Path) -> None:
    (root / "pictures" / "deep" / "a.png").write_text("b")


def change_model(root: Path) -> None:
    (root / "models" / "of" / "mine" / "config.json").write_text('{"a": 2}')


def change_weights(root: Path) -> None:
    (root / "models" / "of" / "mine" / "model.safetensors").write_bytes(bytes(7) + b"\1")


def change_inner(root: Path) -> None:
    (root / "texts" / "test.csv").unlink()


def change_commit(root: Path) -> None:
    file = root / "outputs" / "tiny" / hub.PINS
    write_json(file, read_json(file) | {"me/model": NEW})


CHANGES = {  # what is changed, and the one step that reads it
    "10_rows": (change_file, "data/rows.json changed"), "10_pictures": (change_folder, "pictures changed"),
    "10_pictures again": (change_picture, "pictures changed"), "10_model": (change_model, "models/of/mine changed"),
    "10_model again": (change_weights, "models/of/mine changed"), "10_texts": (change_inner, "texts changed"),
    "10_hub": (change_commit, f"me/model is at commit {NEW[:7]} now"),
}  # fmt: skip


@pytest.mark.parametrize("kind", CHANGES)
def test_a_changed_input_makes_exactly_the_steps_that_read_it_to_run(
    reads: Path, namespace: Callable[..., dict], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    for name, content in {
        "data/rows.json": "[1]", "data/other.json": "[]", "pictures/deep/a.png": "a", "texts/test.csv": "1,2",
        "models/of/mine/config.json": '{"a": 1}', "models/of/mine/model.safetensors": "\0" * 8,
    }.items():  # fmt: skip
        (reads / name).parent.mkdir(parents=True, exist_ok=True)
        (reads / name).write_text(content)
    monkeypatch.setattr(hub, "resolve", lambda name: OLD)
    monkeypatch.setenv(hub.VARIABLE, "{}")
    bare = {"In": ["", MAKE[0] + READS, "import sbt"], "instruct_data": "", "images": "", "sources": {}}
    named = {
        "10_rows": {"instruct_data": "data/rows.json"}, "10_pictures": {"images": "pictures"},
        "10_model": {"language_model": "models/of/mine"}, "10_hub": {"language_model": "me/model"},
        "10_texts": {"sources": {"mmlu": "texts"}}, "10_nothing": {},
    }  # fmt: skip
    values = {}
    for step, given in named.items():
        run = sbt.begin(namespace(**bare | {"language_model": "assets/llm"} | given, step=step))
        run.finish([ROW])
        values[step] = vars(run.p)
    assert {manifest.state("10_make", one).kind for one in values.values()} == {"up to date"}
    change, reason = CHANGES[kind]
    change(paths.root())
    found = {step: manifest.state("10_make", one) for step, one in values.items()}
    assert {step: state.reason for step, state in found.items() if state.kind == "to run"} == {kind.split()[0]: reason}
