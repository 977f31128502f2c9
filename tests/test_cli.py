"""The command line itself: its words, its help, and errors without a traceback."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from sbt import __main__ as cli
from sbt import benchmarks
from sbt.utils.errors import DataError


@pytest.mark.parametrize(
    "words", [["--help"], ["plan", "-h"], ["run", "--help"], ["compare", "-h"], ["score", "--help"]]
)
def test_help(words: list[str], capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(words)
    out = capsys.readouterr().out
    assert stop.value.code == 0 and out.startswith("usage: sbt")
    if words[0] == "score":
        assert "--answers" in out and "--references" in out and "--protocol" in out
        scored = [spec for spec in benchmarks.specs().values() if spec.score_files]
        told = " ".join(out.split())  # its lines are folded
        assert len(scored) >= 8 and all(f"{spec.name} {spec.answer_keys}" in told for spec in scored)


def test_eight_commands_and_nothing_else(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["train"])
    assert stop.value.code == 2
    listed = capsys.readouterr().err.split("choose from ")[1]
    known = ["claims", "compare", "export", "fetch", "plan", "run", "runs", "score"]
    assert sorted(listed.strip(" )\n").replace("'", "").split(", ")) == known


def test_an_error_is_one_message(project: Path, capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["run", "nothing"]) == 2
    assert capsys.readouterr().err == "sbt: there is no params/nothing/plan.yaml; known: tiny\n"


def test_score_prints_one_json_object(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    from sbt import benchmarks

    class Scorer:
        @staticmethod
        def score_files(answers: str, references: str, protocol: str) -> dict:
            if answers == "missing":
                raise DataError("missing does not exist")
            return {"answers": answers, "references": references, "protocol": protocol}

    monkeypatch.setattr(benchmarks, "get", lambda name: SimpleNamespace(load=lambda what: getattr(Scorer, what)))
    assert cli.main(["score", "pope", "--answers", "a", "--references", "r", "--protocol", "paper"]) == 0
    assert json.loads(capsys.readouterr().out) == {"answers": "a", "references": "r", "protocol": "paper"}
    assert cli.main(["score", "pope", "--answers", "missing", "--references", "r"]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err == "sbt: missing does not exist\n"


def test_runs_of_an_empty_project(project: Path, capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["runs"]) == 0
    assert capsys.readouterr().out.splitlines()[0].split()[:2] == ["study", "step"]


def test_claims_and_metrics_of_a_study_are_printed(project: Path, capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["claims", "tiny"]) == 2 and "there are no results of tiny" in capsys.readouterr().err
    assert cli.main(["run", "tiny"]) == 0
    capsys.readouterr()
    assert cli.main(["claims", "tiny"]) == 2 and "no report yet" in capsys.readouterr().err
    assert cli.main(["claims", "tiny/10_make"]) == 2 and "`sbt claims tiny`" in capsys.readouterr().err
    assert cli.main(["claims", ""]) == 2 and "no study is named: `sbt runs` lists" in capsys.readouterr().err
    assert cli.main(["export", "tiny"]) == 0
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.startswith("study,arm,benchmark") and rows
    assert cli.main(["export", "tiny", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == len(rows)
    assert cli.main(["export", "tiny", "--latex"]) == 0 and "toprule" in capsys.readouterr().out
    report = project / "outputs" / "tiny" / "90_report"
    report.mkdir()
    (report / "DONE").touch()
    header, row = "verdict,arms,delta,low,high,why,claim", "supported,a - b,0.1,0.05,0.15,,It is."
    (report / "claims.csv").write_text(f"{header}\n{row}\n")
    assert cli.main(["claims", "tiny"]) == 0 and "+0.100 [+0.050, +0.150]" in capsys.readouterr().out
