"""Puts executed notebooks, made quiet, in the place of their sources: `python -m sbt.study.publish STUDY ...`.

Readers on the web then see tables and figures, and a hash of the source shows outputs that are older than the code.
"""

import json
import shutil
import sys
from pathlib import Path

from sbt.study import params, pipeline, plan
from sbt.utils import files, paths, progress
from sbt.utils.errors import RunError, SbtError

LARGEST = 200_000  # bytes of a committed notebook
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def publish(study: str) -> bool:
    """Run a study where it is not up to date, then copy its executed notebooks into `notebooks/`, made quiet.

    A notebook takes the step that its own defaults name. RunError where one is too large or was not executed whole.
    """
    if not pipeline.run(study):
        return False
    _, steps = plan.load(study)
    quiet_ones = {}
    for step in steps:
        source = paths.notebooks() / f"{step.notebook}.ipynb"
        defaults = {name: parameter.default for name, parameter in params.declared(source).items()}
        if defaults["step"] == step.name:
            if other := [name for name in defaults if name != "study" and step.values[name] != defaults[name]]:
                raise RunError(f"{step.name} is not run at the defaults of {step.notebook}: {', '.join(other)} differ")
            quiet_ones[source] = quiet(step.folder / "notebook.ipynb", source)
    for source, words in quiet_ones.items():
        files.write_text(source, words)
    for picture in sorted((paths.outputs() / study / plan.REPORT).glob("*.png")):  # for the README
        shutil.copyfile(picture, paths.notebooks() / picture.name)
    print(f"published {len(quiet_ones)} notebooks")
    return True


def quiet(executed: Path, source: Path) -> str:
    """The source notebook with the executed one's outputs, without anything that differs from run to run.

    Progress, times, injected parameters and run metadata go; execution counts are 1..n. RunError where a cell was
    not executed, where the code is not the source's, or where the file is larger than LARGEST.
    """
    if not executed.exists():
        command = f"sbt run {executed.parents[1].name} --only {executed.parent.name} --force"
        raise RunError(f"{paths.shown(executed)} does not exist: make it with `{command}`")
    ran, notebook = files.read_json(executed), params.read_notebook(source)
    if params.source_hash(ran) != params.source_hash(notebook):
        raise RunError(f"{paths.shown(executed)} is no run of {paths.shown(source)}: its code differs")
    injected = params.tagged(ran, "injected-parameters")
    codes = iter([c for c in ran["cells"] if c["cell_type"] == "code" and c not in injected])
    count = 0
    for cell in notebook["cells"]:
        cell["metadata"] = {"tags": cell["metadata"]["tags"]} if cell["metadata"].get("tags") else {}
        if cell["cell_type"] == "code":
            count += 1
            cell["execution_count"] = count
            cell["outputs"] = [_output(o, count) for o in next(codes)["outputs"] if o.get("metadata") != progress.MARK]
    hashed = {"source_hash": params.source_hash(notebook)}
    notebook["metadata"] = {"kernelspec": KERNEL, "language_info": {"name": "python"}, "sbt": hashed}
    words = json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
    if (size := len(words.encode())) > LARGEST:
        raise RunError(f"{paths.shown(source)} would have {size:,} bytes (limit {LARGEST:,}): make figures smaller")
    return words


def _output(output: dict, count: int) -> dict:
    if output["output_type"] == "error":
        raise RunError(f"cell {count} ended in {output['ename']}: {output['evalue']}")
    if "execution_count" in output:
        output["execution_count"] = count
    return output


if __name__ == "__main__":
    try:
        sys.exit(0 if all(publish(study) for study in sys.argv[1:]) else 1)
    except SbtError as error:
        sys.exit(f"sbt: {error}")
