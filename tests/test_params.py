"""The parameters cell: its grammar, and the check of values given by file, flag or papermill."""

import datetime
import json
from pathlib import Path

import pytest
from conftest import STUDY, write_notebook

from sbt.study import params
from sbt.utils.errors import ParameterError


def declare(tmp_path: Path, source: str) -> dict[str, params.Parameter]:
    return params.declared(write_notebook(tmp_path / "n.ipynb", [source]))


def test_a_cell_of_all_types_is_read(tmp_path: Path) -> None:
    source = (
        "# a remark, and an empty line\n\n"
        'name: str = "x"  # quoted\n'
        "steps: int = 10_000  # steps\nrate: float = 2e-5  # needs no dot here\nwhole: float = 1  # becomes 1.0\n"
        "on: bool = True  # a switch\nsome: list = [1, 'a']  # a list\nmap: dict = {'a': -1}  # a dict\n"
    )
    found = declare(tmp_path, source)
    assert {name: p.default for name, p in found.items()} == {
        "name": "x", "steps": 10000, "rate": 2e-5, "whole": 1.0, "on": True, "some": [1, "a"], "map": {"a": -1},
    }  # fmt: skip
    assert isinstance(found["whole"].default, float) and found["steps"].help == "steps"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("steps = 1  # no type", "expected one literal assignment a line"),
        ("steps: int  # no value", "expected one literal assignment a line"),
        ("import os", "expected one literal assignment a line"),
        ("some: list = [1,\n  2]  # two lines", "expected one literal assignment a line"),
        ("steps: int | None = 1  # a union", "has type int | None; allowed are str, int"),
        ("steps: tuple = (1, 2)  # a tuple", "has type tuple"),
        ("steps: int = 2 * 3  # arithmetic", "is no literal"),
        ("steps: int = len('a')  # a call", "is no literal"),
        ("steps: int = '1'  # a wrong default", "steps takes int, not str '1'"),
        ("steps: int = True  # a bool is no int", "steps takes int, not bool True"),
        ("steps: int = 1", "needs one comment"),
        ("steps: int = 1  # so that a = b", "needs one comment"),
        ("name: str = 'a#b'  # a hash in the value", "needs one comment"),
        ("steps: int = 1  # type: misleads papermill", "needs one comment"),
        ("steps: int = = 1  # broken", "invalid syntax"),
    ],
)
def test_a_violation_names_notebook_and_line(tmp_path: Path, line: str, expected: str) -> None:
    with pytest.raises(ParameterError) as error:
        declare(tmp_path, f"seed: int = 0  # seed\n{line}\n")
    assert expected in str(error.value) and "n.ipynb: parameters cell, line 2: " in str(error.value)


def test_a_name_declared_twice_and_a_missing_tag_are_errors(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="line 2: seed is declared twice"):
        declare(tmp_path, "seed: int = 0  # a\nseed: int = 1  # b")
    path = write_notebook(tmp_path / "n.ipynb", ["seed: int = 0  # a"])
    path.write_text(path.read_text().replace('"parameters"', '"other"'))
    with pytest.raises(ParameterError, match="exactly one cell carries the tag 'parameters', not 0"):
        params.declared(path)


def test_papermill_reads_the_same_parameters(tmp_path: Path) -> None:
    import papermill

    path = write_notebook(tmp_path / "n.ipynb", [STUDY.format(step="x") + "rate: float = 2e-5  # a rate, in 1/step\n"])
    theirs = papermill.inspect_notebook(str(path))
    ours = params.declared(path)
    assert {n: (p["inferred_type_name"], p["help"]) for n, p in theirs.items()} == {
        name: (parameter.type, parameter.help) for name, parameter in ours.items()
    }


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("float", 3, 3.0), ("float", 0.5, 0.5), ("int", 3, 3), ("bool", False, False), ("str", "", ""),
        ("list", [1], [1]), ("dict", {}, {}),
        ("int", 3.0, None), ("int", True, None), ("float", True, None), ("float", "0.5", None), ("bool", 1, None),
        ("str", 1, None), ("list", "a", None), ("dict", [], None), ("int", None, None),
    ],
)  # fmt: skip
def test_types(kind: str, value: object, expected: object) -> None:
    parameter = params.Parameter("x", kind, None, "")
    if expected is None:
        with pytest.raises(ParameterError, match=f"here: x takes {kind}, not {type(value).__name__}"):
            params.convert(parameter, value, "here")
    else:
        found = params.convert(parameter, value, "here")
        assert found == expected and type(found) is type(expected)


def test_yaml_text_that_looks_like_a_number_gets_its_remedy(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("rate: 2e-5\n")
    values = params.load_yaml(tmp_path / "x.yaml")
    declared = {"rate": params.Parameter("rate", "float", 0.0, "")}
    with pytest.raises(ParameterError, match=r"x: rate takes float.* YAML reads 2e-5 as text: write 2.0e-05"):
        params.check(declared, values, "x")
    (tmp_path / "x.yaml").write_text("rate: 2.0e-05\n")  # the control: what the message tells to write
    assert params.check(declared, params.load_yaml(tmp_path / "x.yaml"), "x") == {"rate": 2e-5}


def test_effective_tells_the_last_layer_that_gave_a_value(tmp_path: Path) -> None:
    path = write_notebook(tmp_path / "n.ipynb", ["a: int = 1  # a\nb: int = 2  # b\nc: float = 3  # c"])
    declared = params.declared(path)
    values, origin = params.effective(declared, [("f.yaml", {"b": 5, "c": 6}), ("--set", {"c": 7})])
    assert values == {"a": 1, "b": 5, "c": 7.0}
    assert origin == {"a": "default", "b": "f.yaml", "c": "--set"}
    with pytest.raises(ParameterError, match=r"f.yaml: unknown parameter 'bb'; did you mean 'b'"):
        params.effective(declared, [("f.yaml", {"bb": 5})])


@pytest.mark.parametrize("name", ["../up", "a/b", "", "a b", ".hidden"])
def test_a_study_cannot_leave_the_outputs_folder(tmp_path: Path, name: str) -> None:
    path = write_notebook(tmp_path / "n.ipynb", [STUDY.format(step="x")])
    with pytest.raises(ParameterError, match="study is a folder's name"):
        params.effective(params.declared(path), [("--set", {"study": name})])


@pytest.mark.parametrize(
    ("content", "expected"),
    [("a: 1\n\na: 2\n", ":3: key 'a' is given twice"), ("- a\n", "expected `name: value` lines, found list"),
     ("a: [1\n", "x.yaml:2: "), ("a:\n  b: 1\n  b: 2\n", ":3: key 'b' is given twice")],
)  # fmt: skip
def test_malformed_yaml(tmp_path: Path, content: str, expected: str) -> None:
    (tmp_path / "x.yaml").write_text(content)
    with pytest.raises(ParameterError) as error:
        params.load_yaml(tmp_path / "x.yaml")
    assert expected in str(error.value)


def test_set_flags_are_read_as_yaml() -> None:
    assert params.parse_set(["a=1", "b=x=y", "c=[1, 2]", "d=", "e=true"]) == {
        "a": 1, "b": "x=y", "c": [1, 2], "d": "", "e": True,
    }  # fmt: skip
    with pytest.raises(ParameterError, match="write --set name=value"):
        params.parse_set(["a"])
    with pytest.raises(ParameterError, match="no YAML"):
        params.parse_set(["a={b"])


def test_source_hash_is_of_the_code_alone(tmp_path: Path) -> None:
    notebook = json.loads(write_notebook(tmp_path / "n.ipynb", ["a: int = 1  # a", "a + 1"]).read_text())
    first = params.source_hash(notebook)
    notebook["cells"][1] |= {
        "execution_count": 3,
        "outputs": [{"output_type": "stream", "name": "stdout", "text": "x"}],
    }
    notebook["cells"][1]["source"] = ["a +", " 1"]
    notebook["cells"].insert(0, {"cell_type": "markdown", "metadata": {}, "source": "words"})
    injected = {"cell_type": "code", "metadata": {"tags": ["injected-parameters"]}, "source": "a = 2"}
    notebook["cells"].insert(2, injected)
    assert params.source_hash(notebook) == first
    notebook["cells"][-1]["source"] = "a + 2"
    assert params.source_hash(notebook) != first


ANY = {name: params.Parameter("x", name, None, "") for name in params.TYPES}


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("dict", {"base_url": "https://user:hunter2@host/v1"}, "looks like a password or key"),
        ("dict", {"api_key": "abcdef"}, "looks like a password or key"),
        ("list", ["sk-0123456789abcdef0123"], "looks like a password or key"),
        ("str", "hf_abcdefghijklmnopqrstuvwx", "looks like a password or key"),
        pytest.param("int", 10**5000, "a number of 5,000 digits", id="digits"),
        ("float", float("nan"), "is nan: write a finite number"),
        ("int", -1, "is -1, but cannot be negative"),
        ("str", "a\0b", "holds a control character"),
        ("str", "\ud800", "control character or half of one"),
        ("list", [datetime.date(2024, 1, 1)], 'write "2024-01-01"'),
        ("dict", {None: 1}, "a key is None; quote it"),
        ("list", [{1, 2}], "holds a set"),
    ],
)
def test_what_cannot_be_recorded_or_shown_is_refused_in_one_short_line(
    kind: str, value: object, expected: str
) -> None:
    with pytest.raises(ParameterError) as error:
        params.convert(ANY[kind], value, "here")
    assert expected in str(error.value) and len(str(error.value)) < 250 and "\n" not in str(error.value)
    assert "hunter2" not in str(error.value) and "abcdef" not in str(error.value)


def test_what_is_no_secret_and_no_fault_passes() -> None:
    fine = {"api_key_env": "OPENAI_API_KEY", "token": "HF_TOKEN", "base_url": "https://host:8000/v1", "n": [1, None]}
    assert params.convert(ANY["dict"], fine, "here") == fine
    assert params.convert(params.Parameter("x", "int", -1, ""), -2, "here") == -2


def test_deep_endless_and_huge_values_are_refused_at_once() -> None:
    endless: list = []
    endless.append(endless)
    wide: object = "lol"
    for _ in range(30):
        wide = [wide] * 10
    for value in (endless, wide):
        with pytest.raises(ParameterError, match="nested too deeply or too large"):
            params.convert(ANY["dict"], value, "here")


def test_a_list_of_texts_takes_no_numbers() -> None:
    steps = params.Parameter("arm_steps", "list", ["30_"], "")
    with pytest.raises(ParameterError, match='arm_steps lists texts, not 31: write "31"'):
        params.convert(steps, [31], "here")
    assert params.convert(steps, ["31_"], "here") == ["31_"]


def test_yaml_as_a_reader_takes_it(tmp_path: Path) -> None:
    """Merge keys are read; numbers to another base than they look, and keys given twice, are not."""
    (tmp_path / "x.yaml").write_text("a: &a {r: 1, s: 2}\nb: {<<: *a, r: 3}\n")
    assert params.load_yaml(tmp_path / "x.yaml")["b"] == {"r": 3, "s": 2}
    for value, words in (("010", "YAML reads 010 as 8"), ("1:30", "YAML reads 1:30 as 90"), ("{a: 1, a: 2}", "twice")):
        with pytest.raises(ParameterError, match=f"--set x: .*{words}"):
            params.parse_set([f"x={value}"])
    taken = {"0": 0, "-0": 0, "0.5": 0.5, "00.5": 0.5, "1_000": 1000, "0x1F": 31, '"010"': "010", "2.0e-05": 2e-05}
    assert {value: params.parse_set([f"x={value}"])["x"] for value in taken} == taken
    with pytest.raises(ParameterError, match="--set size is given twice"):
        params.parse_set(["size=3", " size =4"])


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param("9" * 5000, "a value cannot be read", id="digits"),
        pytest.param("[" * 3000, "nested too deeply", id="deep"),
        ("2024-02-31", "a value cannot be read"),
        ("a\0b", "control character"),
    ],
)
def test_yaml_that_python_cannot_hold(tmp_path: Path, value: str, expected: str) -> None:
    (tmp_path / "x.yaml").write_text(f"a: {value}\n")
    with pytest.raises(ParameterError, match=rf"x.yaml:.*{expected}"):
        params.load_yaml(tmp_path / "x.yaml")
    with pytest.raises(ParameterError, match=f"--set a: .*{expected}"):
        params.parse_set([f"a={value}"])
