"""One run without a kernel: strict parameters, what is kept and what is set aside, disk, locks, records."""

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import MAKE, write_notebook
from real_files import real_data

import sbt
from sbt.study import estimate, params, runs
from sbt.study import manifest as records
from sbt.utils import env, files, paths, progress
from sbt.utils.errors import DataError, MissingStep, ParameterError, RunError

ROW = {"arm": "base", "benchmark": "b", "subset": "", "metric": "m", "value": 0.5, "n": 2, "low": 0.1, "high": 0.9,
       "protocol": "standard", "template_hash": ""}  # fmt: skip
Namespace = Callable[..., dict]


def finish(namespace: dict, rows: list[dict] | None = None) -> runs.Run:
    run = sbt.begin(namespace)
    if not run.cached:
        run.path("out.txt").write_text("out")
    run.finish([ROW] if rows is None else rows, [{"answer": "é"}])
    return run


def test_defaults_are_one_short_line_and_changes_a_table(
    namespace: Namespace, capsys: pytest.CaptureFixture, project: Path
) -> None:
    sbt.begin(namespace())
    assert capsys.readouterr().out == "10_make: 8 parameters, all at their defaults\n"
    run = sbt.begin(namespace(step="other", rate=2))
    out = capsys.readouterr().out
    assert "rate       2.0      changed from 0.5" in out and "size       3        default" in out
    assert str(project) not in out
    assert run.p.rate == 2.0 and run.folder == project / "outputs" / "tiny" / "other"
    assert params.load_yaml(run.folder / "params.yaml")["rate"] == 2.0
    with pytest.raises(AttributeError):
        run.p.rate = 3.0


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"size": "4"}, "size takes int, not str '4'"),
        ({"rate": "2e-5"}, "write 2.0e-05"),
        ({"dry_run": "true"}, "after papermill's -p write True or False"),
        ({"study": "../x"}, "study is a folder's name"),
    ],
)
def test_wrong_parameters_stop_before_anything_is_written(
    namespace: Namespace, project: Path, changed: dict, expected: str
) -> None:
    with pytest.raises(ParameterError) as error:
        sbt.begin(namespace(**changed))
    assert expected in str(error.value)
    assert not (project / "outputs").exists()


def test_papermill_cannot_pass_an_unknown_name_and_the_readers_own_variables_are_no_parameters(
    namespace: Namespace,
) -> None:
    mine = {"threshold": 0.5, "sise": 4, "dry-run": True}
    assert sbt.begin(namespace(**mine)).p.size == 3
    injected = ["", MAKE[0], "# Parameters\nsize = 5\nsise = 4\n", "import sbt"]
    with pytest.raises(ParameterError, match="10_make: unknown parameter 'sise'; did you mean 'size'?"):
        sbt.begin(namespace(In=injected))
    again = [*injected, MAKE[0]]  # in JupyterLab: the parameters cell by itself, once more
    assert sbt.begin(namespace(In=again, step="other")).p.size == 3


def test_a_copy_and_an_unsaved_edit_are_read_as_they_ran(namespace: Namespace, project: Path) -> None:
    edited = MAKE[0] + "extra: int = 7  # not saved yet\n"
    run = sbt.begin(namespace(In=["", edited], extra=8))
    assert run.p.extra == 8
    run.release()
    copy = project / "notebooks" / "10_make-Copy1.ipynb"
    write_notebook(copy, MAKE)
    assert sbt.begin(namespace(step="copied"))._manifest["notebook"] == "10_make"
    mine = MAKE[0].replace('"10_make"', '"10_mine"')
    write_notebook(copy, [mine, *MAKE[1:]])
    assert sbt.begin(namespace(In=["", mine], step="10_mine"))._manifest["notebook"] == "10_make-Copy1"
    strange = "study: str = 'a'  # s\nstep: str = 'x'  # s\n"
    with pytest.raises(ParameterError, match="no notebook in notebooks declares the step 'x': save this one there"):
        sbt.begin(namespace(In=["", strange]))


def test_begin_again_in_a_kernel_takes_results_for_no_parameters(namespace: Namespace) -> None:
    globals_ = namespace()
    first = sbt.begin(globals_)
    globals_ |= {"rows": [1, 2], "best": 0.5}
    assert sbt.begin(globals_).folder == first.folder


def test_begin_before_the_parameters_cell_says_so(namespace: Namespace) -> None:
    globals_ = namespace()
    del globals_["rate"]
    with pytest.raises(ParameterError, match="no value for rate: run the cell tagged `parameters` again"):
        sbt.begin(globals_)
    with pytest.raises(ParameterError, match="run the cell tagged `parameters` first"):
        sbt.begin(globals_ | {"In": ["", "1 + 1"]})


def test_a_front_end_that_keeps_no_history_is_read_from_the_notebooks_file(namespace: Namespace) -> None:
    globals_ = namespace(In=[""], size=7)  # as under nbval
    assert sbt.begin(globals_).p.size == 7
    with pytest.raises(ParameterError, match="run the cell tagged `parameters` first"):
        sbt.begin({**globals_, "step": "no such step"})


def test_a_finished_run_is_cached_until_something_it_depends_on_changes(namespace: Namespace, project: Path) -> None:
    assert not finish(namespace()).folder.with_name("10_make.stale").exists()
    done = project / "outputs" / "tiny" / "10_make" / "DONE"
    time = done.stat().st_mtime_ns
    again = sbt.begin(namespace())
    assert again.cached
    again.release()
    assert records.state("10_make", vars(again.p) | {"dry_run": True}).kind == "up to date"
    assert done.stat().st_mtime_ns == time
    globals_ = namespace()
    with pytest.raises(RunError, match="but with other numbers"):
        finish(globals_, [ROW | {"value": 0.6}])
    write_notebook(project / "notebooks" / "10_make.ipynb", [*MAKE, "1 + 1"])
    run = sbt.begin(globals_)
    assert not run.cached and not done.exists() and not (run.folder / "out.txt").exists()
    assert (run.folder.with_name("10_make.stale") / "out.txt").read_text() == "out"


def test_inputs_code_and_outputs_are_watched(
    namespace: Namespace, project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    source = project / "data.txt"
    source.write_text("abc")
    run = sbt.begin(namespace())
    assert run.input("data.txt") == source
    run.path("out.txt").write_text("out")
    run.finish([ROW])
    values = vars(run.p)
    assert records.state("10_make", values).kind == "up to date"
    os.utime(source, (1, 1))
    assert records.state("10_make", values).kind == "up to date"  # the same contents at another time
    source.write_text("abd")
    assert records.state("10_make", values).reason == "data.txt changed"
    source.write_text("abc")
    manifest = files.read_json(run.folder / "manifest.json")
    code = {**manifest["code"], "study/runs.py": "0" * 64}
    files.write_json(run.folder / "manifest.json", manifest | {"code": code})
    assert records.state("10_make", values).reason == "sbt/study/runs.py changed"
    files.write_json(run.folder / "manifest.json", manifest)
    (run.folder / "out.txt").write_text("oud")
    with pytest.raises(RunError, match=r"10_make/out.txt is damaged.*`sbt run tiny --only 10_make --force`"):
        records.state("10_make", values)
    (run.folder / "out.txt").unlink()
    assert records.state("10_make", values).reason == "out.txt is missing"


def test_files_and_folders_that_parameters_name_are_inputs(namespace: Namespace, project: Path) -> None:
    source = MAKE[0] + "model: str = 'assets/llm'  # a model\nfrom_files: dict = {}  # by name\n"
    write_notebook(project / "notebooks" / "10_make.ipynb", [source, *MAKE[1:]])
    (project / "data").mkdir()
    (project / "data" / "rows.json").write_text("[1]")
    given = {"In": ["", source], "model": "assets/llm", "from_files": {"a": ["data/rows.json", "meta/no-such"]}}
    run = sbt.begin(namespace(**given))
    inputs = files.read_json(run.folder / "manifest.json")["inputs"]
    assert list(inputs) == [str(paths.assets() / "llm"), "data/rows.json"]
    run.finish([ROW])
    assert records.state("10_make", vars(run.p)).kind == "up to date"
    (project / "data" / "rows.json").write_text("[2]")
    assert records.state("10_make", vars(run.p)).reason == "data/rows.json changed"
    with pytest.raises(ParameterError, match=r"sbt/microworld/assets/lm does not exist \(model\)"):
        sbt.begin(namespace(**given | {"model": "assets/lm", "step": "other"}))


def test_an_unfinished_run_keeps_its_work_only_under_the_same_parameters(namespace: Namespace) -> None:
    run = sbt.begin(namespace())
    run.path("scratch/cache").write_text("1")
    (run.folder / "notebook.ipynb").write_text("{}")
    run.release()
    again = sbt.begin(namespace())
    assert not again.cached and (again.folder / "scratch" / "cache").read_text() == "1"
    again.release()
    other = sbt.begin(namespace(size=4))
    assert not (other.folder / "scratch").exists() and (other.folder / "notebook.ipynb").exists()


def test_two_processes_never_write_to_one_step(namespace: Namespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "LOCK_SECONDS", 0.2)
    sbt.begin(namespace())
    with pytest.raises(RunError, match="outputs/tiny/10_make is in use by another process"):
        sbt.begin(namespace())
    sbt.begin(namespace(step="other"))


def test_upstream_names_the_command_and_is_recorded(namespace: Namespace, project: Path) -> None:
    run = sbt.begin(namespace(step="20_use"))
    with pytest.raises(MissingStep, match="step 10_make of study tiny is not finished: make it with `sbt run tiny --"):
        run.upstream("10_make")
    first = finish(namespace())
    assert run.upstream("10_make") == first.folder
    assert run.upstreams("10_", "20_") == {"10_make": first.folder}
    run.finish()
    values = vars(run.p)
    assert records.state("10_make", values).kind == "up to date"
    finish(namespace(step="10_more"))
    assert records.state("10_make", values).reason == "other steps 10_* are finished now"


@pytest.mark.parametrize(
    ("change", "expected"),
    [({"armm": "x"}, "no key 'armm'; did you mean 'arm'"), ({"value": float("nan")}, "value of m of base is nan"),
     ({"low": float("inf")}, "low of m of base is inf")],
)  # fmt: skip
def test_a_metric_row_is_whole_or_refused(namespace: Namespace, change: dict, expected: str) -> None:
    with pytest.raises(RunError, match=expected):
        finish(namespace(), [ROW | change])
    with pytest.raises(RunError, match="lacks n, protocol"):
        finish(namespace(step="other"), [{k: v for k, v in ROW.items() if k not in ("n", "protocol")}])


def test_metrics_samples_and_tables_are_read_back(namespace: Namespace) -> None:
    import numpy as np
    import pandas as pd

    run = sbt.begin(namespace())
    history = pd.DataFrame({"step": [1, 2], "loss": [0.5, 0.25]})
    run.finish(
        [ROW | {"value": np.float32(0.5), "n": np.int64(2)}], [{"answer": "é"}], history=history, part=[{"a": 1}]
    )
    row = runs.metrics(run.folder)[0]
    assert (
        row["study"] == "tiny" and row["value"] == 0.5 and row["n"] == 2 and row["harness_version"].startswith("sbt")
    )
    assert runs.samples(run.folder) == [{"answer": "é"}]
    assert pd.read_csv(run.folder / "history.csv").equals(history)
    assert (run.folder / "part.csv").read_text() == "a\n1\n"


def test_a_full_disk_is_one_clear_error(namespace: Namespace, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(env, "free_gb", lambda folder: 0.2)
    with pytest.raises(RunError, match="1.0 GB are needed, 0.2 GB are free"):
        sbt.begin(namespace())
    monkeypatch.undo()
    monkeypatch.setenv("SBT_ROOT", str(project))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    run = sbt.begin(namespace(step="other"))
    monkeypatch.setattr(files.os, "replace", full)
    with pytest.raises(RunError, match="outputs/tiny/other/x.json: the disk is full"):
        runs.write_json(run.path("x.json"), 1)
    assert not [file for file in run.folder.iterdir() if file.name.endswith(".tmp")]


def test_dry_run_ends_with_the_estimate_and_touches_nothing(namespace: Namespace, project: Path) -> None:
    folder = finish(namespace()).folder
    before = sorted(folder.rglob("*"))
    with pytest.raises(runs.Stopped) as stop:
        sbt.begin(namespace(dry_run=True, size=9))
    assert type(stop.value).__name__ == "SystemExit" and str(stop.value) == ""  # what papermill takes for success
    (line,) = stop.value._render_traceback_()
    assert line.startswith("Dry run, nothing was done. It would take about ")
    assert sorted(folder.rglob("*")) == before and (folder / "DONE").exists()


def test_progress_is_written_for_the_command_line(namespace: Namespace) -> None:
    run = sbt.begin(namespace())
    run.progress(0, 10)
    run.progress(1, 10, loss=0.5)  # at most two updates a second
    assert files.read_json(run.folder / "progress.json")["done"] == 0
    run.progress(10, 10, loss=0.25)
    assert files.read_json(run.folder / "progress.json")["numbers"] == {"loss": 0.25}
    run.finish()
    assert not (run.folder / "progress.json").exists()


def test_loops_of_a_cell_share_a_line_that_a_published_notebook_drops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: dict[object, tuple[str, dict]] = {}

    def display(words: str, metadata: dict, handle: object = None) -> object:
        handle = handle or object()
        lines[handle] = (words, metadata)
        return handle

    monkeypatch.setattr(progress, "_display", display)
    shown = progress.Progress(tmp_path / "progress.json")
    for cell, loops in ((1, 3), (2, 2)):
        monkeypatch.setattr(progress, "_cell", lambda cell=cell: cell)
        for _ in range(loops):
            shown.update(0, 5)
            shown.update(5, 5)
    shown.update(0, 5, loss=2.0)
    shown.update(5, 5, loss=1.5)
    shown.update(0, 7)
    shown.update(7, 7)
    kept = [words for words, metadata in lines.values() if metadata != progress.MARK]
    assert kept == ["5 of 5 · loss 1.5"] and len(lines) == 3  # one a cell, and one after the line that is kept


def test_results_leave_out_means_and_paperwork(namespace: Namespace) -> None:
    run = sbt.begin(namespace())
    for name in ("scratch/a", "arm/weights", "arm/checkpoint-10/b", "notebook.ipynb", ".hidden"):
        run.path(name).write_text("x")
    run.finish([ROW])
    outputs = files.read_json(run.folder / "manifest.json")["outputs"]
    assert sorted(outputs) == ["arm/weights", "metrics.json", "samples.jsonl"]


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"a": 1}\n\n{"a": \n')
    with pytest.raises(DataError, match=r"x.jsonl:3: malformed JSON line"):
        runs.read_jsonl(tmp_path / "x.jsonl")
    (tmp_path / "x.jsonl").write_text('{"a": 1}\n3\n')
    with pytest.raises(DataError, match=r"x.jsonl:2: expected a JSON object, found '3'"):
        runs.read_jsonl(tmp_path / "x.jsonl")
    (tmp_path / "x.json").write_text('{"a": 1,\n "b"')
    with pytest.raises(DataError, match=r"x.json:2:5: malformed JSON .* truncated or damaged"):
        runs.read_json(tmp_path / "x.json")
    runs.write_jsonl(tmp_path / "y.jsonl", [{"a": "\u2028é"}, {"b": 1}])  # a line separator that is no newline
    assert runs.read_jsonl(tmp_path / "y.jsonl") == [{"a": "\u2028é"}, {"b": 1}]


def test_fingerprints_see_contents_not_times(tmp_path: Path) -> None:
    (tmp_path / "d" / "e").mkdir(parents=True)
    (tmp_path / "d" / "e" / "f").write_text("one")
    recorded = files.fingerprint(tmp_path / "d")
    os.utime(tmp_path / "d" / "e" / "f", (1, 1))
    assert recorded["files"] == 1 and recorded["size"] == 3 and files.unchanged(tmp_path / "d", recorded)
    (tmp_path / "d" / "e" / "f").write_text("two")
    assert not files.unchanged(tmp_path / "d", recorded) and not files.unchanged(tmp_path / "x", recorded)


@pytest.mark.parametrize("name", ["7.jpg", "rows.json"])
def test_a_file_exchanged_among_a_thousand_for_one_of_its_size_is_seen(tmp_path: Path, name: str) -> None:
    for number in range(files.HASHED_FILES + 1):
        (tmp_path / f"{number}.jpg").write_bytes(bytes([number % 256]) * 5000)
    (tmp_path / "rows.json").write_text(json.dumps(["a"] * 5000))
    recorded = files.fingerprint(tmp_path)
    os.utime(tmp_path / name, (1, 1))
    assert files.unchanged(tmp_path, recorded)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes().replace(b"\7", b"\6").replace(b"a", b"b", 1))
    assert not files.unchanged(tmp_path, recorded)


def test_an_estimate_is_measured_once_a_step_has_run(namespace: Namespace) -> None:
    values = vars(finish(namespace()).p)
    assert estimate.step("10_make", values).source == "measured"
    other = estimate.step("10_make", values | {"step": "new", "max_steps": 100, "batch_size": 32})
    assert other.source == "arithmetic" and other.minutes > 0
    seven = {"language_model": "meta-llama/Llama-2-7b-hf", "max_steps": 1, "batch_size": 1}
    seven = estimate.step("n", seven)
    assert 100 < seven.memory_gb < 130  # 7e9 weights, gradients and two moments of 4 bytes


def test_root_is_found_from_any_folder(project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SBT_ROOT")
    (project / "sbt").mkdir()
    monkeypatch.chdir(project / "notebooks")
    assert paths.root() == project
    monkeypatch.chdir(tmp_path)
    assert paths.root() == paths.package().parent
    installed = tmp_path / "site" / "sbt"
    (installed / "params").mkdir(parents=True)
    with monkeypatch.context() as patch:  # installed from a wheel: notebooks and params lie in the package
        patch.setattr(paths, "package", lambda: installed)
        assert (paths.root(), paths.params()) == (tmp_path, installed / "params")
    assert paths.resolve("assets/llm") == paths.package() / "microworld" / "assets" / "llm"
    assert paths.resolve("/x") == Path("/x") and paths.resolve("x/y") == paths.root() / "x" / "y"
    monkeypatch.setenv("SBT_DATA", str(project))
    assert real_data() == project


def test_machine_checks_show_no_token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    text = json.dumps(env.checks(tmp_path)) + json.dumps(env.describe())
    assert env.has_token() and "hf_secret" not in text and '"dtype"' in text
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    assert not env.has_token()
