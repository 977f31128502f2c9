"""Some three hundred wrong inputs, by kind: one line that says what is wrong, no traceback, nothing half-written."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from sbt.__main__ import main
from sbt.study import params

Said = Callable[..., str]
DIGITS, DEEP = "9" * 5000, "[" * 10_000 + "]" * 10_000
SECRETS = (
    "https://user:pa55word@host/x", "s3://me:pa55word@bucket", "https://host/?api_key=pa55word", "Bearer pa55word123",
    "sk-pa55word12345678", "hf_pa55wordpa55wordpa55", "ghp_pa55wordpa55wordpa55word", "AKIAPA55WORDPA55WORD",
    "see https://u:pa55word@h and more", "https://host/?x=1&token=pa55word", "https://pa55word@host/x",
    "https://host/x?access_token=pa55word", "https://host/?X-Amz-Signature=pa55word", "https://host/#sig=pa55word",
    "-----BEGIN OPENSSH PRIVATE KEY----- pa55word", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOipa55word.x", "Basic pa55wordcGE=",
    "glpat-pa55wordpa55word", "sk_live_pa55wordpa55", "ASIAPA55WORDPA55WORD", "AccountKey=pa55wordpa55wordpa55==",
    "me:pa55word@host", "me:pa55word@10.0.0.1:8000", "me:pa55word@host/v1", "proxy=a.b:pa55word@proxy.org:3128",
    "by root:pa55word@gpu01", "me:pa55word%21@[::1]:80",
)  # fmt: skip
SECRET_NAMES = ("password", "passwd", "key", "apiKey", "X-Api-Key", "auth", "hf_token", "aws_secret_access_key")
HARMLESS = (
    "https://host/v1", "ssh://git@host/x", "owner/name@refs/pr/1", "basic understanding", "data/key=7/x.json",
    "https://h/?sort=key", "mailto:me@x.org", "sk-small", "hf_model", "me@x.org", "write to: me@x.org",
    "git@github.com:owner/name", "git@github.com:owner/name.git@main", "owner/name@main", "hf:owner/name@0a1b2c3",
    "host:5000/owner/name@main", "registry/name:tag@sha256:0a1b", "name:tag@sha256:0a1b", "C:\\x@y", "C:/data@home/x",
    "npm:react@18.2.0", "pass:1@5", "contact:me@x.org", "at 12:30 @home",
)  # fmt: skip
# What YAML reads, or cannot read: no value of a number, and most of a text neither.
VALUES = {
    "digits": DIGITS, "minus digits": f"-{DIGITS}", "deep list": DEEP, "deep map": "{a: " * 400 + "}" * 400,
    "nan": ".nan", "infinity": ".inf", "minus infinity": "-.inf", "date": "2024-02-30", "real date": "2024-02-28",
    "time": "2024-13-01T99:00:00", "sexagesimal": "1:99:99", "nul": '"\\0"', "bell": '"\\a"', "escape": '"\\e[31m"',
    "surrogate": '"\\ud800"', "raw nul": "a\0b", "raw control": "a\x1bb", "raw surrogate": "a\ud800b",
    "tab": "\tx: 1", "alias": "*a", "anchor loop": "&a [*a]", "tag": "!!python/object:os.system {}",
    "set": "!!set {a}",
    "binary": "!!binary aGk=", "twice": "{a: 1, a: 2}", "null key": "{null: 1}", "list key": "{[1]: 1}", "open": "[1",
    "colon": "a: b: c", "percent": "%x", "null": "null", "map": "{a: 1}", "nested nan": "[[.nan]]", "true": "true",
    "nested date": "[2024-01-01]", "huge": "[" + "1," * 20_000 + "1]", "exponent": "1e999999",
    "hex": "0x" + "f" * 4000, "leading zero": "010", "short time": "1:30", "zero in a list": "[[-012]]",
    "minus": "-1", "mixed": "[a, 1, null]", "set of sets": "{a: {b: !!set {c}}}", "pairs": "!!pairs [a: 1]",
    "long text": "x" * 100_000, "backtick": "`", "at": "@x", "octal": "0o17" + "7" * 3000,
}  # fmt: skip
ACCEPTED = {  # of these a parameter takes some: numbers a float, a list any list
    "size": (), "rate": (), "dry_run": ("true",), "names": ("huge",), "seed": (),
}  # fmt: skip


def tree(root: Path) -> dict[str, bytes]:
    found = {file.relative_to(root).as_posix(): file for file in root.rglob("*") if file.is_file()}
    return {name: file.read_bytes() for name, file in found.items() if ".locks" not in name}


@pytest.fixture
def said(capsys: pytest.CaptureFixture) -> Said:
    """Runs a command that must end in one line, and returns it."""

    def run(*words: str, also: tuple[int, ...] = ()) -> str:
        status = main(list(words))
        out, err = capsys.readouterr()
        assert status in (2, *also), f"{words}: {status}"
        if status == 2:
            assert err.startswith("sbt: ") and err.count("\n") == 1 and out == "", err[:2000]
        for line in err.splitlines():
            assert len(line) < 1000 and "Traceback" not in line and line.isprintable(), line[:2000]
        assert "pa55word" not in (out + err).lower()
        return err

    return run


@pytest.mark.parametrize("kind", VALUES)
def test_a_parameter_by_flag(project: Path, said: Said, kind: str) -> None:
    for name in ("size", "rate", "dry_run", "names"):
        if kind in ACCEPTED[name] or (kind, name) in (("minus digits", ""),):
            continue
        assert f"{name}" in said("plan", "tiny", "--set", f"{name}={VALUES[kind]}"), name
    assert not (project / "outputs").exists()


@pytest.mark.parametrize("kind", VALUES)
def test_a_parameter_by_file(project: Path, said: Said, kind: str) -> None:
    for name in ("size", "dry_run"):
        if kind in ACCEPTED[name]:
            continue
        (project / "params" / "tiny" / "make.yaml").write_bytes(
            f"rate: 1.0\n{name}: {VALUES[kind]}\n".encode("utf-8", "surrogatepass")
        )
        assert "params/tiny/make.yaml" in said("run", "tiny")
    assert not (project / "outputs").exists()


@pytest.mark.parametrize("secret", SECRETS)
def test_secrets_are_neither_taken_nor_shown(project: Path, said: Said, secret: str) -> None:
    for value in (secret, [secret], {"a": [secret]}, {secret: 1}):
        assert "looks like a password or key" in said("run", "tiny", "--set", f"names={json.dumps([value])}")
    (project / "params" / "tiny" / "make.yaml").write_text(f"names: [{json.dumps(secret)}]\n")
    assert "looks like a password or key" in said("run", "tiny")
    assert not (project / "outputs").exists()


def test_secrets_by_name_are_not_taken_and_what_looks_a_little_like_one_is(project: Path, said: Said) -> None:
    for name in SECRET_NAMES:
        assert "looks like a password or key" in said("run", "tiny", "--set", f"names=[{{{name}: pa55word}}]")
    kept = [*HARMLESS, {"key_variable": "OPENAI_API_KEY", "pad_token": "<pad>", "key": "", "tokens": "many"}]
    assert params.convert(params.Parameter("names", "list", [], ""), kept, "here") == kept


NOTEBOOKS = {
    "tags": lambda notebook: notebook["cells"][1]["metadata"].update(tags=None),
    "tag": lambda notebook: notebook["cells"][1]["metadata"].update(tags="parameters"),
    "source": lambda notebook: notebook["cells"][1].update(source=3),
    "line": lambda notebook: notebook["cells"][1].update(source=["1", 2]),
    "lines": lambda notebook: notebook["cells"][1].update(source={"a": 1}),
    "kind": lambda notebook: notebook["cells"][1].update(cell_type=3),
    "no kind": lambda notebook: notebook["cells"][1].pop("cell_type"),
    "cell": lambda notebook: notebook["cells"].append(None),
    "metadata": lambda notebook: notebook.pop("metadata"),
    "no format": lambda notebook: notebook.pop("nbformat"),
    "old": lambda notebook: notebook.update(nbformat=3),
}


@pytest.mark.parametrize("kind", NOTEBOOKS)
def test_a_notebook_of_another_shape(project: Path, said: Said, kind: str) -> None:
    path = project / "notebooks" / "10_make.ipynb"
    notebook = json.loads(path.read_text())
    NOTEBOOKS[kind](notebook)
    path.write_text(json.dumps(notebook))
    for command in ("plan", "run"):
        assert "notebooks/10_make.ipynb is " in said(command, "tiny")
    assert not (project / "outputs").exists()


FILES = {
    "utf-16": "rate: 1.0\n".encode("utf-16"), "latin-1": b"rate: 1.0 # \xe9\n", "zeros": bytes(100),
    "zip": b"PK\x03\x04\xff",
    "list": b"- 1\n- 2\n", "text": b"hello", "number": b"3", "html": b"<!DOCTYPE html><html>",
    "unknown": b"rat: 1.0\n",
    "twice": b"rate: 1.0\nrate: 2.0\n", "tabs": b"rate:\t1.0\n\tsize: 2\n", "two": b"rate: 1.0\n---\nsize: 3\n",
    "key of a list": b"? [a]\n: 1\n", "number as key": b"3: 4\n", "surrogate": b"rate: \xed\xa0\x80\n",
    "merge": b"<<: 3\n",
    "long key": b"x" * 5000 + b": 1\n", "colour": b"\x1b[31m: 1\n", "own step": b"step: other\n",
    "deep": DEEP.encode(),
    "own study": b"study: ../../x\n", "alias bomb": b"a: &a [x]\nb: &b [*a,*a]\nrate: [*b,*b]\n",
}  # fmt: skip


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("name", ["make.yaml", "plan.yaml"])
def test_a_file_of_parameters_or_a_plan_that_is_none(project: Path, said: Said, name: str, kind: str) -> None:
    (project / "params" / "tiny" / name).write_bytes(FILES[kind])
    assert f"params/tiny/{name}" in said("run", "tiny")
    assert f"params/tiny/{name}" in said("plan", "tiny")
    assert not (project / "outputs").exists()


PLANS = (
    "steps: 3", "steps: {}", "steps: [3]", "steps: [null]", "steps: [[]]", "steps: []", "title: 3", "card: 3",
    "card: [x]", "jobs: many", "jobs: -1", "set: []", "set: {size: x}", "set: {1: 2}", "set: {names: [2024-02-30]}",
    "steps: [{name: 10_make}]", "steps: [{notebook: 10_make}]", "steps: [{name: 3, notebook: 10_make}]",
    "steps: [{name: ../x, notebook: 10_make}]", "steps: [{name: '', notebook: 10_make}]",
    "steps: [{name: a, notebook: ../../etc/passwd}]", "steps: [{name: a, notebook: 10_mak}]",
    'steps: [{name: a, notebook: "10_make\\0"}]', "steps: [{name: a, notebook: ''}]",
    "steps: [{name: a, notebook: 10_make, params: ../../x.yaml}]",
    "steps: [{name: a, notebook: 10_make, params: no.yaml}]",
    'steps: [{name: a, notebook: 10_make, params: "a\\0b"}]', "steps: [{name: a, notebook: 10_make, params: [x]}]",
    "steps: [{name: a, notebook: 10_make, set: [1]}]", "steps: [{name: a, notebook: 10_make, needs: b}]",
    "steps: [{name: a, notebook: 10_make, needs: [a]}]", "steps: [{name: a, notebook: 10_make, needs: [3]}]",
    "steps: [{name: a, notebook: 10_make, needs: [[]]}]", "steps: [{name: a, notebook: 10_make, needs: [{}]}]",
    "steps: [{name: a, notebook: 10_make, more: 1}]", "steps: [{name: a, notebook: 10_make, set: {size: .nan}}]",
    f"steps: [{{name: a, notebook: 10_make, set: {{size: {DIGITS}}}}}]",
    "steps: [{name: a, notebook: 10_make}, {name: a, notebook: 10_make}]", f"title: {DIGITS}", f"jobs: {DIGITS}",
    "steps: [{name: a, notebook: 10_make, set: {1: 2}}]", 'title: "\\0"', "steps: [{name: a, notebook: [x]}]",
    f"steps: [{{name: {'a' * 300}, notebook: 10_make}}]", f"steps: [{{name: a, notebook: {'a' * 5000}}}]",
)  # fmt: skip


@pytest.mark.parametrize("content", PLANS, ids=[str(number) for number in range(len(PLANS))])
def test_a_plan_of_another_shape(project: Path, said: Said, content: str) -> None:
    words = "" if content.startswith("steps") else "steps: [{name: 10_make, notebook: 10_make}]\n"
    (project / "params" / "tiny" / "plan.yaml").write_text(f"{words}{content}\n")
    for command in ("plan", "run"):
        said(command, "tiny")
    assert not (project / "outputs").exists()


WORDS = (
    ("plan", ""), ("plan", "."), ("plan", ".."), ("plan", "/"), ("plan", "a\0b"), ("plan", "x" * 5000), ("plan",
    "\ud800"),
    ("run", "tiny", "--only", "\0"), ("run", "tiny", "--only", "x" * 5000), ("run", "tiny", "--jobs", "-1"),
    ("run", "tiny", "--set", "=1"), ("run", "tiny", "--set", "\0=1"), ("run", "tiny", "--set", "x" * 5000 + "=1"),
    ("run", "tiny", "--set", "size"), ("run", "tiny", "--set", "\x1b[31m=1"), ("run", "tiny", "--set", "\ud800=1"),
    ("compare", "a\0b", "tiny"), ("compare", "x" * 5000, "tiny"), ("compare", "tiny/\ud800", "tiny"), ("claims", "\0"),
    ("export", "x" * 5000), ("export", "\x1b"), ("export", "tiny/../.."), ("claims", "x" * 300),
    ("plan", "/etc/tiny"), ("run", "other/params/tiny"), ("plan", "params/../tiny"), ("plan", "tiny", "--only", ""),
    ("run", "tiny", "--only", " , "), ("run", "tiny", "--set", "size=3", "--set", "size=4"),
    ("plan", "tiny", "--set", "seed=4294967296"), ("score", "pope", "--answers", "", "--references", ""),
    ("score", "mtbench", "--judgements", ""),
)  # fmt: skip


@pytest.mark.parametrize("words", WORDS, ids=[str(number) for number in range(len(WORDS))])
def test_words_that_name_nothing(project: Path, said: Said, words: tuple[str, ...]) -> None:
    said(*words)
    assert not (project / "outputs").exists()


SHAPES = (
    "", "3", "null", "[]", "{}", '"x"', "[3]", "[[]]", "[null]", "{", "\0", DIGITS, DEEP, '{"a": NaN}', "[{}]",
    "\ufeff[]",
    '[{"arm": 3}]', '{"result": 3}', '{"result": null, "outputs": []}', '{"outputs": {"x": 3}, "result": "x"}',
    "\ud800",
)  # fmt: skip
KEPT = ("DONE", "manifest.json", "metrics.json", "samples.jsonl", "params.yaml")


@pytest.mark.parametrize("content", SHAPES, ids=[str(number) for number in range(len(SHAPES))])
def test_a_recorded_file_of_another_shape(finished: Path, said: Said, content: str) -> None:
    folder = finished / "outputs" / "tiny" / "10_make"
    for name in KEPT:
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(content.encode("utf-8", "surrogatepass"))
        before = tree(finished)
        for words in (("plan", "tiny"), ("runs",), ("compare", "tiny", "tiny"), ("export", "tiny"), ("claims", "tiny"),
                      ("export", "tiny/10_make"), ("run", "tiny", "--dry-run")):  # fmt: skip
            said(*words, also=(0,))
        assert tree(finished) == before, name
        (folder / name).write_bytes(whole)


def wrong_rows() -> list[tuple[str, object]]:
    """A key of a manifest or of a metric row, and a value of another type."""
    values = (None, 3, "x", [], {}, [[]], True, -1, {"a": None})
    keys = ("notebook", "params", "upstream", "inputs", "code", "outputs", "listings", "seconds", "value", "arm",
    "low")
    return [(key, value) for key in keys for value in values]


@pytest.mark.parametrize("key", sorted({key for key, _ in wrong_rows()}))
def test_a_recorded_value_of_another_type(finished: Path, said: Said, key: str) -> None:
    folder = finished / "outputs" / "tiny" / "10_make"
    manifest, metrics = (json.loads((folder / name).read_text()) for name in ("manifest.json", "metrics.json"))
    for value in [value for other, value in wrong_rows() if other == key]:
        if key in manifest:
            (folder / "manifest.json").write_text(json.dumps(manifest | {key: value}))
        else:
            (folder / "metrics.json").write_text(json.dumps([metrics[0] | {key: value}]))
        before = tree(finished)
        for words in (("plan", "tiny"), ("runs",), ("compare", "tiny", "tiny"), ("export", "tiny")):
            said(*words, also=(0,))
        assert tree(finished) == before
    shutil.rmtree(folder)


# Names that no file can have, and numbers that no float holds or that are none, as recorded by a step.
RECORDED = {
    **{field: {"x" * 300: "y"} for field in ("code", "inputs", "upstream", "outputs", "listings")},
    "seconds": 10**400, "peak_memory_gb": 10**400,
}  # fmt: skip


@pytest.mark.parametrize("field", RECORDED)
def test_a_recorded_name_or_number_beyond_all_bounds(finished: Path, said: Said, field: str) -> None:
    path = finished / "outputs" / "tiny" / "20_use" / "manifest.json"
    whole = json.loads(path.read_text())
    for value in (RECORDED[field], float("nan"), float("inf")):
        path.write_text(json.dumps(whole | {field: value}))
        for words in (("plan", "tiny"), ("plan", "tiny", "--set", "seed=1"), ("runs",), ("compare", "tiny", "tiny")):
            said(*words, also=(0,))


@pytest.mark.parametrize("content", ["3", "[]", "null", '{"a/b": 3}', '{"a/b": null}', "{", '{"a/b": {}}'])
def test_a_file_of_commits_of_another_shape(finished: Path, said: Said, content: str) -> None:
    (finished / "outputs" / "tiny" / "hub.json").write_text(content)
    for words in (("plan", "tiny"), ("run", "tiny")):
        assert "outputs/tiny/hub.json" in said(*words)
