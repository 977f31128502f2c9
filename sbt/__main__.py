"""The command line: `sbt plan | run | fetch | runs | compare | claims | export | score`. An error is one message."""

import argparse
import inspect
import json
import sys
import textwrap
from collections.abc import Sequence

from sbt.report import results
from sbt.study import params, pipeline
from sbt.utils import text
from sbt.utils.errors import MissingStep, ParameterError, SbtError


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="sbt", description="Plan, run and compare the studies in params/.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    plan = commands.add_parser("plan", help="what a study would do: state, minutes, memory, disk, commands")
    run = commands.add_parser("run", help="run a study; what is up to date is skipped, what was killed is resumed")
    fetch = commands.add_parser("fetch", help="download all that a study reads, and stop; it then runs offline")
    for command in (plan, run, fetch):
        command.add_argument("study", help="a folder in params/, as embedded or params/embedded")
        command.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a parameter, as YAML")
    for command in (plan, run):
        command.add_argument("--only", action="append", default=[], metavar="STEP", help="30_mm-lora, or 30")
    run.add_argument("--force", action="store_true", help="make the steps anew, up to date or not")
    run.add_argument(
        "--jobs", type=int, default=0, metavar="N", help="steps side by side; 0 (default): the study's own"
    )
    run.add_argument("--dry-run", action="store_true", help="show the plan and do nothing")

    plan.add_argument("--commands", action="store_true", help="show the papermill command of each step, too")

    commands.add_parser("runs", help="list the finished steps of all studies")
    compare = commands.add_parser("compare", help="studies side by side, or every metric of two steps")
    compare.add_argument("names", nargs="+", metavar="NAME", help="studies; or two of study/step")

    claims = commands.add_parser("claims", help="the papers' claims with the verdicts of a study's report")
    export = commands.add_parser("export", help="all metrics of a study, to be read by other tools")
    for command in (claims, export):
        command.add_argument("study", help="a study with finished steps; export also takes study/step")
    for form in results.FORMS:
        export.add_argument(f"--{form}", dest="form", action="store_const", const=form, help=f"as {form}")
    export.set_defaults(form=results.FORMS[0])

    score = commands.add_parser(
        "score", help="score answers that any tool made; prints one JSON object", epilog=_answer_keys(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    score.add_argument("benchmark", help="one of those below")
    given = score.add_mutually_exclusive_group(required=True)
    given.add_argument("--answers", metavar="FILE", help="what the model said; a folder for mme")
    given.add_argument("--judgements", metavar="FILE", help="what a judge said of it")
    score.add_argument("--references", metavar="FILE", help="the benchmark's own file; mme and some logs need none")
    score.add_argument("--subset", help="which part of the benchmark the files are of (ethics)")
    score.add_argument("--task", help="which task the files are of (unicorn)")
    score.add_argument("--protocol", default="standard", help="standard (default) or paper")
    return parser


def _answer_keys() -> str:
    """What an answer file of each benchmark must hold, and in which forms."""
    from sbt import benchmarks
    from sbt.benchmarks.spec import FORMS

    scored = {spec.name: spec.answer_keys for spec in benchmarks.specs().values() if spec.score_files}
    width, lines = max(map(len, scored)), ["answer files hold:"]
    for name, told in (*scored.items(), ("", ""), *FORMS.items()):
        indents = {"initial_indent": f"  {name:<{width}}  ", "subsequent_indent": " " * (width + 4)}
        lines += textwrap.wrap(told, 118, break_on_hyphens=False, **indents) or [""]
    return "\n".join(lines)


def _score(words: argparse.Namespace) -> None:
    from sbt import benchmarks

    score_files = benchmarks.get(words.benchmark).load("score_files")
    takes = inspect.signature(score_files).parameters
    if words.answers is not None and "answers" not in takes:
        raise ParameterError(f"{words.benchmark} is scored by a judge: give its verdicts, as --judgements FILE")
    if words.judgements is not None and "judgements" not in takes:
        raise ParameterError(f"{words.benchmark} needs no judge: give the --answers")
    given = {name: getattr(words, name) for name in ("subset", "task") if getattr(words, name) is not None}
    if strange := [name for name in given if name not in takes]:
        raise ParameterError(f"{words.benchmark} has no {strange[0]}s: leave --{strange[0]} out")
    if words.references is None and "references" in takes and takes["references"].default is inspect.Parameter.empty:
        raise ParameterError(f"{words.benchmark} needs --references, the benchmark's own file")
    files = (words.judgements,) if words.answers is None else (words.answers, words.references)
    result = score_files(*files, protocol=words.protocol, **given)
    print(json.dumps(result))


def _compared(names: Sequence[str]) -> str:
    """Whole studies, each with its own base; two steps, or two studies without a benchmark, metric by metric."""
    if len(names) == 2 and all(results.is_step(name) for name in names):
        return results.compare_table(*names)
    from sbt import benchmarks
    from sbt.report import across

    try:
        return across.text(names, benchmarks.specs())
    except MissingStep:
        if len(names) != 2:
            raise
        return results.compare_table(*names)


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0; 1 where a step failed or something could not be had; 2 for an error of the user's to mend."""
    words = _parser().parse_args(argv)
    try:
        if words.command == "score":
            _score(words)
        elif words.command == "runs":
            print(results.runs_table())
        elif words.command == "compare":
            print(_compared(words.names))
        elif words.command == "claims":
            print(results.claims_table(words.study))
        elif words.command == "export":
            print(results.exported(words.study, words.form))
        elif words.command == "fetch":
            from sbt import benchmarks
            from sbt.data import fetch

            return 0 if fetch.study(words.study, params.parse_set(words.set), benchmarks.sources()) else 1
        elif words.command == "plan" or words.dry_run:
            shown = getattr(words, "commands", False)
            print(pipeline.plan_table(words.study, words.only, params.parse_set(words.set), shown))
        else:
            given = params.parse_set(words.set)
            if not pipeline.run(words.study, words.only, given, words.force, words.jobs):
                return 1
            print("\n" + results.study_summary(words.study))
    except SbtError as error:
        print(f"sbt: {text.lines(error)}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # as by `sbt export embedded | head`
        sys.stdout = None
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
