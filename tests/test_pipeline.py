"""`sbt plan` and `sbt run` on a tiny project: order, skipping, resuming, checking, failing."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import MAKE, STUDY, write_notebook

from sbt.__main__ import main
from sbt.report import results
from sbt.study import manifest, params, pipeline, plan, publish
from sbt.utils import files
from sbt.utils.errors import MissingStep, ParameterError, RunError, SbtError


def folder(root: Path, step: str) -> Path:
    return root / "outputs" / "tiny" / step


def done_times(root: Path) -> dict[str, int]:
    return {file.parent.name: file.stat().st_mtime_ns for file in root.glob("outputs/tiny/*/DONE")}


def test_a_run_leaves_every_file_of_the_contract(finished: Path) -> None:
    names = {entry.name for entry in folder(finished, "10_make").iterdir()}
    beside = {"notebook.ipynb", "notebook.html", "params.yaml", "manifest.json"}
    assert names >= beside | {"metrics.json", "samples.jsonl", "DONE", "numbers.json"}
    assert "progress.json" not in names
    recorded = json.loads((folder(finished, "20_use") / "manifest.json").read_text())
    assert recorded["upstream"] == {
        "10_make": json.loads((folder(finished, "10_make") / "DONE").read_text())["result"]
    }
    assert recorded["seed"] == 0 and recorded["peak_memory_gb"] > 0 and recorded["machine"]["python"]
    assert recorded["code"].keys() >= {"study/runs.py", "study/params.py"}
    assert (
        files.read_json(folder(finished, "20_use") / "metrics.json")[0]["value"] == 6.0
    )  # 2 * (0 + 1 + 2) * rate 1.0
    html = (folder(finished, "10_make") / "notebook.html").read_text()
    assert "<script" not in html and "a hundred is too much" in html


def test_folders_given_from_the_working_directory_are_the_same_in_a_notebook(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SBT_ROOT", project.name)
    monkeypatch.setenv("SBT_OUTPUTS", "elsewhere")
    assert main(["run", "tiny", "--only", "10_make"]) == 0
    assert (tmp_path / "elsewhere" / "tiny" / "10_make" / "DONE").is_file()
    assert not list(project.rglob("elsewhere"))


def test_a_notebook_that_names_no_kernel_or_another_one_is_run_as_python(project: Path) -> None:
    for step, kernel in (("10_make", {}), ("20_use", {"name": "julia", "display_name": "J", "language": "julia"})):
        path = project / "notebooks" / f"{step}.ipynb"
        notebook = json.loads(path.read_text())
        notebook["metadata"] = {"kernelspec": kernel} if kernel else {}
        path.write_text(json.dumps(notebook))
    assert main(["run", "tiny"]) == 0
    assert sorted(done_times(project)) == ["10_make", "20_use"]


def test_an_executed_notebook_keeps_no_progress_bar(finished: Path) -> None:
    text = (folder(finished, "10_make") / "notebook.ipynb").read_text()
    assert "3 of 3" in text and "█" not in text and "left" not in text


def test_a_second_run_does_nothing_and_needs_no_papermill(finished: Path, capsys: pytest.CaptureFixture) -> None:
    before = done_times(finished)
    code = "import sys; from sbt.__main__ import main; main(['run', 'tiny']); print('papermill' in sys.modules)"
    start = time.monotonic()
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert time.monotonic() - start < 5
    assert out.count("up to date") == 2 and out.rstrip().endswith("False")
    assert done_times(finished) == before


def test_plan_tells_states_and_the_reason(finished: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["plan", "params/tiny/"]) == 0
    assert capsys.readouterr().out.count("up to date") == 2
    (finished / "params" / "tiny" / "make.yaml").write_text("rate: 2.0\n")
    assert main(["run", "tiny", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "parameter rate changed" in out and "after 10_make" in out and "2 of 2 steps to run" in out
    assert json.loads((folder(finished, "20_use") / "metrics.json").read_text())[0]["value"] == 6.0


def test_what_changed_upstream_is_made_anew_and_the_old_work_is_kept_aside(finished: Path) -> None:
    assert main(["run", "tiny", "--set", "rate=2", "--only", "10"]) == 0
    assert files.read_json(folder(finished, "10_make") / "numbers.json") == [0.0, 2.0, 4.0]
    assert files.read_json(folder(finished, "10_make.stale") / "numbers.json") == [0.0, 1.0, 2.0]
    (finished / "params" / "tiny" / "make.yaml").write_text("rate: 2.0\n")
    before = done_times(finished)
    assert main(["run", "tiny"]) == 0
    after = done_times(finished)
    assert after["10_make"] == before["10_make"] and after["20_use"] > before["20_use"]
    assert files.read_json(folder(finished, "20_use") / "metrics.json")[0]["value"] == 12.0


def test_the_same_results_upstream_leave_a_step_up_to_date(finished: Path, capsys: pytest.CaptureFixture) -> None:
    before = done_times(finished)
    assert main(["run", "tiny", "--only", "10_make", "--force"]) == 0
    assert main(["run", "tiny"]) == 0
    after = done_times(finished)
    assert after["10_make"] > before["10_make"] and after["20_use"] == before["20_use"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--set", "sise=4"], "--set sise: no selected step has this parameter; did you mean 'size'?"),
        (["--set", "size=2e1"], "size takes int, not str '2e1'. YAML reads 2e1 as text: write 20"),
        (["--set", "rate=2e-5"], "YAML reads 2e-5 as text: write 2.0e-05"),
        (["--set", "scale=true"], "scale takes int, not bool True"),
        (["--set", "scale=3", "--only", "10_make"], "--set scale: no selected step has this parameter"),
        (["--set", "step=x"], "--set step: no selected step"),
        (["--set", "size"], "write --set name=value"),
        (["--only", "20_uze"], "--only 20_uze: no such step in tiny; did you mean '20_use'?"),
        (
            ["--only", "20_use"],
            "20_use needs 10_make, which is not finished: make it with `sbt run tiny --only 10_make`",
        ),
    ],
)
def test_wrong_flags_are_one_message_and_nothing_starts(
    project: Path, capsys: pytest.CaptureFixture, words: list[str], expected: str
) -> None:
    assert main(["run", "tiny", *words]) == 2
    captured = capsys.readouterr()
    assert expected in captured.err and captured.err.count("\n") == 1
    assert not (project / "outputs").exists()


@pytest.mark.parametrize(
    ("file", "content", "expected"),
    [
        ("make.yaml", "rat: 1.0\n", "params/tiny/make.yaml (for notebooks/10_make.ipynb): unknown parameter 'rat'"),
        ("make.yaml", "rate: 2e-5\n", "write 2.0e-05"),
        ("make.yaml", "rate: 1.0\nrate: 2.0\n", "params/tiny/make.yaml:2: key 'rate' is given twice"),
        ("make.yaml", "step: 20_use\n", "step is '10_make' here, not '20_use': leave it out"),
        ("make.yaml", "rate: [1\n", "params/tiny/make.yaml:2: "),
        ("plan.yaml", "steps: []\n", "params/tiny/plan.yaml: no steps"),
        ("plan.yaml", "steps: [{name: a, notebook: 10_makes}]\n", "did you mean '10_make'?"),
        ("plan.yaml", "steps: [{name: a, notebook: 10_make, nedes: []}]\n", "unknown parameter 'nedes'; did you mean"),
        ("plan.yaml", "steps: [{name: a/b, notebook: 10_make}]\n", "a step's name is a folder name"),
        ("plan.yaml", "steps: [{name: a, notebook: 10_make, needs: [b]}]\n", "needs 'b', which is no step"),
        ("plan.yaml", "steps: [{name: a, notebook: 10_make, needs: [b]}, {name: b, notebook: 20_use, needs: [a]}]\n",
         "which does not come before it"),
        ("plan.yaml", "steps: [{name: a, notebook: 10_make}, {name: a, notebook: 10_make}]\n", "given twice"),
    ],
)  # fmt: skip
def test_wrong_files_are_found_before_anything_starts(
    project: Path, capsys: pytest.CaptureFixture, file: str, content: str, expected: str
) -> None:
    (project / "params" / "tiny" / file).write_text(content)
    assert main(["run", "tiny"]) == 2
    assert expected in capsys.readouterr().err
    assert not (project / "outputs").exists()


def test_an_unknown_study_is_named_with_the_nearest_one(project: Path) -> None:
    with pytest.raises(ParameterError, match="did you mean 'tiny'"):
        plan.load("params/tinny")


def test_a_failing_step_tells_cell_error_and_notebook(project: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["run", "tiny", "--set", "size=100"]) == 1
    err = capsys.readouterr().err
    assert "10_make: cell In [6]: AssertionError: a size of a hundred is too much" in err
    assert "executed notebook: outputs/tiny/10_make/notebook.ipynb" in err
    assert not (folder(project, "10_make") / "DONE").exists() and not folder(project, "20_use").exists()


ARMS = """\
steps:
  - {name: 30_a, notebook: 30_arm, set: {arm: a}}
  - {name: 30_b, notebook: 30_arm, set: {arm: b}}
  - {name: 50_first, notebook: 50_score, set: {fails: true}, needs: [30_a, 30_b]}
  - {name: 51_second, notebook: 50_score, needs: [30_a, 30_b]}
  - {name: 70_sum, notebook: 50_score, set: {scores: 50_first}, needs: [50_first]}
"""


@pytest.fixture
def arms(project: Path) -> Path:
    begin = "import sbt\nrun = sbt.begin(globals())"
    arm = STUDY.format(step="30_a") + 'arm: str = "a"  # its name\nfails: bool = False  # end in an error\n'
    score = STUDY.format(step="50_first") + 'arms: list = []  # of them\narm_steps: list = ["30_"]  # prefixes\n'
    score += 'fails: bool = False  # end in an error\nscores: str = ""  # a step that scored\n'
    for name, cell in (("30_arm", arm), ("50_score", score)):
        cells = [cell, begin, "assert not run.p.fails", "run.finish()"]
        write_notebook(project / "notebooks" / f"{name}.ipynb", cells)
    (project / "params" / "tiny" / "plan.yaml").write_text(ARMS)
    return project


def test_after_a_benchmarks_failure_the_steps_that_do_not_need_it_run(
    arms: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(["run", "tiny"]) == 1
    assert sorted(done_times(arms)) == ["30_a", "30_b", "51_second"]
    err = capsys.readouterr().err
    assert re.search(r"50_first: cell In \[\d\]: AssertionError", err)
    assert "70_sum: not run, since it needs 50_first" in err


def test_after_a_failure_everything_runs_that_does_not_need_it(arms: Path) -> None:
    plan_file = arms / "params" / "tiny" / "plan.yaml"
    plan_file.write_text("jobs: 1\n" + ARMS.replace("{arm: a}", "{arm: a, fails: true}"))
    assert main(["run", "tiny"]) == 1
    assert sorted(done_times(arms)) == ["30_b"]


def test_what_sums_up_shows_the_benchmarks_that_are_finished(arms: Path) -> None:
    plan_file = arms / "params" / "tiny" / "plan.yaml"
    plan_file.write_text(ARMS + "  - {name: 90_all, notebook: 30_arm, needs: [50_first, 51_second]}\n")
    assert main(["run", "tiny"]) == 1
    assert sorted(done_times(arms)) == ["30_a", "30_b", "51_second", "90_all"]


def test_a_step_that_is_told_its_arms_needs_no_other_ones(arms: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["plan", "tiny", "--only", "51", "--set", "arms=[base]"]) == 0
    assert main(["plan", "tiny", "--only", "51", "--set", "arms=[b (run 2)]"]) == 2
    assert "51_second needs 30_b" in capsys.readouterr().err


def test_a_parameter_that_names_no_step_of_the_plan_is_found_before_anything_starts(
    arms: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(["run", "tiny", "--set", "scores=50_frist"]) == 2
    err = capsys.readouterr().err
    assert "scores names 50_frist, which is no step of tiny: set it to another one" in err
    assert "did you mean '50_first'?" in err
    assert not (arms / "outputs").exists()


def test_a_plan_sets_values_for_all_its_steps(arms: Path, capsys: pytest.CaptureFixture) -> None:
    file = arms / "params" / "tiny" / "plan.yaml"
    file.write_text("set: {seed: 7}\n" + ARMS)
    _, steps = plan.load("tiny")
    assert {step.values["seed"] for step in steps} == {7} and "seed: 7" in steps[0].command()
    file.write_text("set: {sead: 7}\n" + ARMS)
    assert main(["plan", "tiny"]) == 2
    assert "set: no step has the parameter 'sead'; did you mean 'seed'?" in capsys.readouterr().err


def test_the_plan_fits_a_terminal_and_shows_commands_only_when_asked(
    arms: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(["plan", "tiny"]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 100 and "papermill" not in out
    assert out.splitlines()[-1].startswith("5 of 5 steps to run, at least "), "no SPEC names 50_score"
    assert main(["plan", "tiny", "--commands"]) == 0
    assert capsys.readouterr().out.count("papermill") == 5


def test_the_last_whole_results_stay_until_there_are_new_ones(finished: Path, capsys: pytest.CaptureFixture) -> None:
    whole = files.read_json(folder(finished, "10_make") / "DONE")
    executed = (folder(finished, "10_make") / "notebook.ipynb").read_bytes()
    for size in (100, 101):  # two runs that fail
        assert main(["run", "tiny", "--set", f"size={size}"]) == 1
        assert "earlier results: outputs/tiny/10_make.stale" in capsys.readouterr().err
        assert files.read_json(folder(finished, "10_make.stale") / "DONE") == whole
    assert main(["run", "tiny"]) == 0
    assert "10_make up to date" in " ".join(capsys.readouterr().out.split())
    assert (folder(finished, "10_make") / "notebook.ipynb").read_bytes() == executed  # and not that of the failure


def total(root: Path) -> float:
    """What readers see of 10_make."""
    assert manifest.finished_steps(root / "outputs" / "tiny", "10") == ["10_make"]
    assert "10_make" in results.runs_table()
    (row,) = [row for row in results.metric_rows(root / "outputs" / "tiny") if row["metric"] == "total"]
    assert results.metric_rows(results._folder("tiny/10_make")) == [row]
    return row["value"]


def test_earlier_results_stand_until_there_are_new_ones_and_come_back_when_they_are_asked_for(
    finished: Path, capsys: pytest.CaptureFixture
) -> None:
    before, done = done_times(finished), files.read_json(folder(finished, "10_make") / "DONE")
    assert main(["run", "tiny", "--set", "size=100"]) == 1  # fails after it began
    assert total(finished) == 3.0 and not (folder(finished, "10_make") / "DONE").exists()
    assert main(["run", "tiny", "--only", "20_use", "--set", "scale=3"]) == 0  # reads the earlier ones
    read = files.read_json(folder(finished, "20_use") / "manifest.json")["upstream"]
    assert read == {"10_make": done["result"]}
    assert main(["plan", "tiny", "--only", "10"]) == 0
    assert "0 of 1 steps to run" in capsys.readouterr().out
    assert main(["run", "tiny", "--only", "10"]) == 0  # as it was before: nothing is made
    assert done_times(finished)["10_make"] == before["10_make"] and total(finished) == 3.0
    assert not list(folder(finished, "").glob("*10_make?*")), "what failed is gone"


class Killed(BaseException):
    """As kill -9 would end it: nothing is caught, nothing put in order."""


def test_a_kill_between_any_two_renames_leaves_whole_results(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, place = folder(finished, "10_make"), tmp_path / "kept"
    for work in (manifest.discard, manifest.restore):
        if work is manifest.restore:
            manifest.discard(made)
            begun = files.read_json(made.with_name("10_make.stale") / "manifest.json")
            files.write_json(made / "manifest.json", begun | {"params": begun["params"] | {"size": 4}})
        shutil.copytree(made.parent, place)
        for last in range(20):  # calls that are made before the kill
            calls = iter(range(100))
            for name in ("rmtree", "replace", "mkdir", "touch", "unlink"):
                holder = shutil if name == "rmtree" else Path
                real = getattr(holder, name)

                def stopped(*given: object, real=real, calls=calls, last=last, **more: object) -> object:
                    if next(calls) >= last:
                        raise Killed
                    return real(*given, **more)

                monkeypatch.setattr(holder, name, stopped)
            ended = True
            try:
                work(made)
            except Killed:
                ended = False
            monkeypatch.undo()
            monkeypatch.setenv("SBT_ROOT", str(finished))
            assert total(finished) == 3.0, (work.__name__, last)
            state = plan.load("tiny", ["10"])[1][0].state()
            assert state.kind == "up to date" or state == manifest.NEW, "the same command makes it whole"
            if ended:
                break
            shutil.rmtree(made.parent)
            shutil.copytree(place, made.parent)
        assert 3 < last < 19
        shutil.rmtree(place)


def seen(root: Path) -> float:
    """`total`, looked at again where results were moved between two of its looks: a step moves them once."""
    for _ in range(3):
        with contextlib.suppress(AssertionError, ValueError, SbtError):
            return total(root)
    return total(root)


@pytest.mark.parametrize("seconds", [0.0, 1.2, 2.0])
def test_kill_9_of_a_forced_run_keeps_the_earlier_results_in_sight(finished: Path, seconds: float) -> None:
    command = [sys.executable, "-m", "sbt", "run", "tiny", "--only", "10", "--set", "pause=0.5", "--set", "size=4"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    begun = folder(finished, "10_make.stale") / "DONE"
    deadline = time.monotonic() + 60
    while process.poll() is None and not begun.exists() and time.monotonic() < deadline:
        assert seen(finished) in (3.0, 6.0)
    until = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < until:
        assert seen(finished) in (3.0, 6.0)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert total(finished) in (3.0, 6.0)
    assert subprocess.run(command, stdout=subprocess.DEVNULL).returncode == 0
    assert total(finished) == 6.0 and files.read_json(folder(finished, "10_make.stale") / "numbers.json") == [0, 1, 2]


def test_a_page_that_cannot_be_made_ends_nothing(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def broken(*_: object) -> str:
        raise KeyError("template")

    monkeypatch.setattr(pipeline, "_html", broken)
    assert main(["run", "tiny"]) == 0
    assert "10_make/notebook.html could not be made: KeyError: 'template'" in capsys.readouterr().err


def test_a_damaged_folder_is_shown_beside_the_healthy_ones(finished: Path, capsys: pytest.CaptureFixture) -> None:
    for content in ("[]", "{}", '{"outputs": 3}'):
        (folder(finished, "20_use") / "manifest.json").write_text(content)
        assert main(["runs"]) == 0
        out = capsys.readouterr().out
        assert "10_make" in out and "damaged" in out
    (folder(finished, "20_use") / "metrics.json").write_text("[3]")
    assert main(["compare", "tiny", "tiny"]) == 0
    captured = capsys.readouterr()
    assert "left out: outputs/tiny/20_use/metrics.json is not whole" in captured.err and "total" in captured.out


def test_a_kernel_that_dies_is_explained(project: Path, capsys: pytest.CaptureFixture) -> None:
    killed = [*MAKE[:3], "import os\nimport signal\n\nos.kill(os.getpid(), signal.SIGKILL)", *MAKE[3:]]
    write_notebook(project / "notebooks" / "10_make.ipynb", killed)
    assert main(["run", "tiny"]) == 1
    assert "10_make: the kernel died" in (err := capsys.readouterr().err) and "memory" in err


@pytest.mark.parametrize(("deaths", "status"), [(2, 0), (3, 1)])
def test_a_kernel_that_dies_while_it_starts_is_started_again(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, deaths: int, status: int
) -> None:
    """A kernel dies like this where another process took the ports that it had chosen."""
    spec = project / "jupyter" / "kernels" / "python3"
    spec.mkdir(parents=True)
    start = (
        "import os, pathlib, sys; tried = pathlib.Path(sys.argv[1]); times = tried.stat().st_size; "
        f"tried.write_text('x' * (times + 1)); times < {deaths} and sys.exit(1); "
        "os.execv(sys.executable, [sys.executable, '-m', 'ipykernel_launcher', '-f', sys.argv[2]])"
    )
    (project / "tried").write_text("")
    argv = [sys.executable, "-c", start, str(project / "tried"), "{connection_file}"]
    (spec / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": "dies", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(project / "jupyter"))
    assert main(["run", "tiny", "--only", "10_make"]) == status
    assert ("did not start in 3 attempts" in capsys.readouterr().err) == bool(status)


def test_a_notebook_that_never_finishes_its_run_fails(project: Path, capsys: pytest.CaptureFixture) -> None:
    write_notebook(project / "notebooks" / "10_make.ipynb", MAKE[:-1])
    assert main(["run", "tiny"]) == 1
    assert "came to its end without run.finish()" in capsys.readouterr().err


def test_kill_9_then_the_same_command_resumes_to_equal_results(project: Path) -> None:
    command = [sys.executable, "-m", "sbt", "run", "tiny", "--set", "pause=0.5", "--set", "size=8"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    cache = folder(project, "10_make") / "scratch" / "numbers.jsonl"
    deadline = time.monotonic() + 60
    while not (cache.exists() and len(cache.read_text().splitlines()) >= 3):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (folder(project, "10_make") / "DONE").exists()
    assert subprocess.run(command, stdout=subprocess.DEVNULL).returncode == 0
    pids = [row["pid"] for row in files.read_jsonl(cache)]
    assert len(set(pids)) == 2 and pids == sorted(pids, key=pids.index)  # two kernels, one after the other
    assert files.read_json(folder(project, "10_make") / "numbers.json") == [float(i) for i in range(8)]
    assert files.read_json(folder(project, "10_make") / "manifest.json")["resumed"] is True
    assert main(["run", "tiny", "--set", "pause=0.5", "--set", "size=8", "--force"]) == 0
    whole, first = files.read_json(folder(project, "10_make") / "DONE"), folder(project, "10_make.stale") / "DONE"
    assert whole == files.read_json(first)


def test_a_kill_after_done_makes_the_notebook_whole_again(finished: Path) -> None:
    notebook = folder(finished, "10_make") / "notebook.ipynb"
    before = done_times(finished)
    notebook.write_text(notebook.read_text()[:500])
    assert main(["run", "tiny"]) == 0
    assert (
        "3 of 3" not in notebook.read_text()[:500] and files.read_json(notebook)["metadata"]["papermill"]["end_time"]
    )
    assert done_times(finished) == before  # the cached results stand


@pytest.mark.parametrize("name", ["DONE", "manifest.json", "metrics.json", "numbers.json", "samples.jsonl"])
def test_corrupt_results_are_an_error_until_they_are_forced(
    finished: Path, capsys: pytest.CaptureFixture, name: str
) -> None:
    file = folder(finished, "10_make") / name
    file.write_text(file.read_text()[:-4])
    assert main(["run", "tiny"]) == 2
    err = capsys.readouterr().err
    assert f"outputs/tiny/10_make/{name}" in err and "`sbt run tiny --only 10_make --force`" in err
    if name == "DONE":
        assert main(["run", "tiny", "--only", "10_make", "--force"]) == 0
        assert main(["run", "tiny", "--dry-run"]) == 0
        assert "0 of 2 steps to run" in capsys.readouterr().out


def test_unwritable_outputs_are_one_message(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    (project / "file").write_text("")
    monkeypatch.setenv("SBT_OUTPUTS", str(project / "file" / "outputs"))
    assert main(["run", "tiny"]) == 2
    assert "cannot be written (Not a directory). Make that folder writable" in capsys.readouterr().err


def test_two_runs_of_one_study_do_not_mix(finished: Path, capsys: pytest.CaptureFixture) -> None:
    with files.lock(finished / "outputs" / "tiny" / ".locks" / "run", 0, "busy"):
        assert main(["run", "tiny"]) == 2
    assert "another `sbt run tiny` is at work" in capsys.readouterr().err


def test_the_printed_papermill_command_works_as_it_is(project: Path) -> None:
    _, steps = plan.load("tiny", given={"rate": 2e-05, "names": ["it's", "b: c"]})
    subprocess.run(steps[0].command(), shell=True, cwd=project, check=True, capture_output=True)
    assert files.read_json(folder(project, "10_make") / "numbers.json")[1] == 2e-05
    assert steps[0].state().kind == "up to date"


def test_papermill_by_itself_cannot_pass_a_misspelt_parameter(project: Path) -> None:
    import papermill

    source, output = project / "notebooks" / "10_make.ipynb", project / "out.ipynb"
    with pytest.raises(papermill.PapermillExecutionError) as error:
        papermill.execute_notebook(source, output, {"sise": 4}, kernel_name="python3", progress_bar=False)
    assert error.value.ename == "ParameterError" and error.value.evalue.endswith("did you mean 'size'?")
    assert not (project / "outputs").exists()


def test_a_dry_run_of_a_step_stops_it_without_an_error(project: Path) -> None:
    assert main(["run", "tiny", "--only", "10_make", "--set", "dry_run=true"]) == 0
    assert not (folder(project, "10_make") / "manifest.json").exists()
    text = (folder(project, "10_make") / "notebook.ipynb").read_text()
    assert "Dry run, nothing was done" in text and "Traceback" not in text and "To exit" not in text


def test_compare_and_runs(finished: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["runs"]) == 0
    assert "10_make" in (out := capsys.readouterr().out) and "20_use" in out
    assert main(["run", "tiny", "--set", "rate=2.0"]) == 0
    capsys.readouterr()
    assert main(["compare", "tiny/20_use.stale", "outputs/tiny/20_use"]) == 0
    row = capsys.readouterr().out.splitlines()[-1].split()
    assert row[-3:] == ["6", "12", "+6"]
    with pytest.raises(MissingStep, match="sbt runs"):
        results.compare_table("tiny", "nothing")


def test_environment_of_the_kernel_is_this_one(finished: Path) -> None:
    assert os.environ["SBT_ROOT"] == str(finished)
    assert files.read_json(folder(finished, "10_make") / "manifest.json")["machine"]["platform"] in ("papermill", "ci")


def test_publishing_puts_quiet_executed_notebooks_in_place(finished: Path) -> None:
    source = finished / "notebooks" / "10_make.ipynb"
    with pytest.raises(RunError, match="10_make is not run at the defaults of 10_make: rate differ"):
        publish.publish("tiny")
    (finished / "params" / "tiny" / "make.yaml").write_text("rate: 0.5\n")
    before = params.source_hash(files.read_json(source))
    assert publish.publish("tiny")
    notebook = files.read_json(source)
    assert notebook["metadata"]["sbt"]["source_hash"] == before == params.source_hash(notebook)
    assert [cell["execution_count"] for cell in notebook["cells"]] == [1, 2, 3, 4, 5, 6]
    assert not params.tagged(notebook, "injected-parameters") and params.tagged(notebook, "parameters")
    text = source.read_text()
    assert "papermill" not in text and str(finished) not in text and "1.5" in text and "8 parameters, all at" in text
    done = done_times(finished)
    assert publish.publish("tiny") and source.read_text() == text and done_times(finished) == done


def test_a_study_says_what_it_cost_and_a_notebook_what_it_answers(finished: Path) -> None:
    cost = publish.cost(finished / "outputs" / "tiny")
    assert re.fullmatch(r"The steps of the study take 0 minutes.*\n.*\d GB of memory.* 0\.0 GB of disk\.", cost)
    source = finished / "notebooks" / "10_make.ipynb"
    with pytest.raises(RunError, match="10_make.ipynb gives no answer: run `make notebooks ONLY=10_make`"):
        publish.answer(source)


def test_a_notebook_of_other_code_is_not_published(finished: Path) -> None:
    executed, source = folder(finished, "10_make") / "notebook.ipynb", finished / "notebooks" / "10_make.ipynb"
    write_notebook(source, [*MAKE, "1 + 1"])
    with pytest.raises(RunError, match="its code differs"):
        publish.quiet(executed, source)
    with pytest.raises(RunError, match="sbt run tiny --only 30_x --force"):
        publish.quiet(folder(finished, "30_x") / "notebook.ipynb", source)
