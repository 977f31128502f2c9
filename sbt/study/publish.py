"""What readers on the web see: executed notebooks in the place of their sources, and the repository's address in them.

python -m sbt.study.publish STUDY ...            runs the studies and publishes every notebook
python -m sbt.study.publish --only STEP STUDY    executes one step on the results that are there, and publishes it
python -m sbt.study.publish --address URL        writes the address to pyproject.toml, the notebooks and README
"""

import argparse
import json
import re
import shutil
import sys
from pathlib import Path

from sbt.study import manifest, params, pipeline, plan
from sbt.utils import files, paths, progress
from sbt.utils.errors import ParameterError, RunError, SbtError

LARGEST = 250_000  # bytes of a committed notebook: the report holds the most figures
PLACEHOLDER = "/OWNER/NAME"
URL = re.compile(r'^Repository = "(https://[^"]+)"', re.MULTILINE)
UNKNOWN = "sbt is not installed, and this copy names no address to get it from: `make address URL=...`"
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def publish(study: str, only: str = "") -> bool:
    """Run a study where it is not up to date, then copy its executed notebooks into `notebooks/`, made quiet.

    A notebook takes the step that its own defaults name. `only`: execute this step anew, and publish no other one.
    RunError where a notebook is too large, was not executed whole, or has other values than its defaults (lists name
    steps and arms, which are the study's).
    """
    if not pipeline.run(study, [only] if only else (), force=bool(only)):
        return False
    quiet_ones = {}
    for step in plan.load(study, [only] if only else ())[1]:
        source = paths.notebooks() / f"{step.notebook}.ipynb"
        defaults = {name: parameter.default for name, parameter in params.declared(source).items()}
        if defaults["step"] == step.name:
            own = [name for name, value in defaults.items() if name != "study" and not isinstance(value, list)]
            if other := [name for name in own if step.values[name] != defaults[name]]:
                raise RunError(f"{step.name} is not run at the defaults of {step.notebook}: {', '.join(other)} differ")
            quiet_ones[source] = quiet(step.folder / "notebook.ipynb", source)
    for source, content in quiet_ones.items():
        files.write_text(source, content)
    for picture in sorted((paths.outputs() / study / plan.REPORT).glob("*.png")):  # for the README
        shutil.copyfile(picture, paths.notebooks() / picture.name)
    report = paths.notebooks() / f"{plan.REPORT}.ipynb"
    if report in quiet_ones:
        readme = paths.root() / "README.md"
        words = {"answer": answer(report), "cost": cost(paths.outputs() / study)}
        files.write_text(readme, with_blocks(files.read_text(readme), words))
    print(f"published {len(quiet_ones)} notebooks of {study}")
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


def answer(executed: Path) -> str:
    """The answer that an executed notebook gives to its question, in bold; RunError where it gives none."""
    cells = files.read_json(executed)["cells"]
    shown = [output.get("data", {}) for cell in cells for output in cell.get("outputs", ())]
    texts = ["".join(data.get("text/markdown", "")) for data in shown]
    if not (found := [text for text in texts if text.startswith("**")]):
        raise RunError(f"{paths.shown(executed)} gives no answer: run `make notebooks ONLY={executed.stem}`")
    return found[0]


def cost(study: Path) -> str:
    """What time, memory and disk a finished study took, in three sentences."""
    finished = [manifest.read(study / step, "manifest.json") for step in manifest.finished_steps(study)]
    memory = max(one["peak_memory_gb"] for one in finished)
    disk = sum(file.stat().st_size for file in study.rglob("*") if file.is_file()) / 1e9
    minutes = sum(one["seconds"] for one in finished) / 60
    time = f"The steps of the study take {minutes:.0f} minutes together; two cores run two at a time."
    return f"{time}\nA step takes at most {memory:.1f} GB of memory. The results take {disk:.1f} GB of disk."


def with_blocks(text: str, words: dict[str, str]) -> str:
    """A text with new words between `<!-- name: ... -->` and `<!-- end of name -->`; RunError without these lines."""
    for name, said in words.items():
        block = re.compile(rf"(<!-- {name}: .*? -->\n).*?(\n<!-- end of {name} -->)", re.DOTALL)
        if len(block.findall(text)) != 1:
            raise RunError(f"README.md needs the lines `<!-- {name}: ... -->` and `<!-- end of {name} -->` once each")
        text = block.sub(lambda found, said=said: found[1] + said + found[2], text)
    return text


def _output(output: dict, count: int) -> dict:
    if output["output_type"] == "error":
        raise RunError(f"cell {count} ended in {output['ename']}: {output['evalue']}")
    if "execution_count" in output:
        output["execution_count"] = count
    return output


def address() -> str:
    """The repository's address as pyproject.toml names it; it ends in PLACEHOLDER until `make address` set it."""
    text = files.read_text(paths.root() / "pyproject.toml")
    if (found := URL.search(text)) is None:
        raise RunError('pyproject.toml has no line `Repository = "https://..."` below [project.urls]')
    return found[1]


def setup_cell(url: str) -> str:
    """Source of the notebooks' first code cell: it installs the package where there is none (Colab, Kaggle)."""
    lines = ["from importlib.util import find_spec", "", 'if find_spec("sbt") is None:  # Colab, Kaggle']
    if url.endswith(PLACEHOLDER):
        lines.append(f'    raise ImportError("{UNKNOWN}")')
    else:
        lines.append('    print("Installing the project; this takes some minutes")')
        lines.append(f'    %pip install -q "sight-beyond-text @ git+{url}"')
    return "\n".join(lines)


def badge(url: str, notebook: str) -> str:
    """The line of a notebook's first cell that opens it in Colab."""
    place = url.removeprefix("https://github.com/")
    page = f"https://colab.research.google.com/github/{place}/blob/main/notebooks/{notebook}.ipynb"
    return f"[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({page})"


def set_address(url: str) -> None:
    """Write the repository's address to pyproject.toml, the notebooks' badges and setup cells, and README."""
    url, old = url.removesuffix("/").removesuffix(".git"), address()
    if not re.fullmatch(r"https://github\.com/[\w.-]+/[\w.-]+", url):
        raise ParameterError(f"URL={url}: expected https://github.com/OWNER/NAME, which Colab can open")
    for path in (paths.root() / "pyproject.toml", paths.root() / "README.md", paths.root() / "CITATION.cff"):
        text = files.read_text(path).replace(old, url)
        files.write_text(path, text.replace(f"/github/{old[19:]}/", f"/github/{url[19:]}/"))
    for path in sorted(paths.notebooks().glob("*.ipynb")):
        notebook = params.read_notebook(path)
        place_address(notebook, url, path.stem)
        files.write_text(path, json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")
    print(f"the address is now {url}")


def place_address(notebook: dict, url: str, name: str) -> None:
    """Put the badge and the setup cell of an address into a notebook."""
    title, (setup,) = notebook["cells"][0], params.tagged(notebook, "setup")
    lines = [line for line in params.cell_source(title).splitlines() if "colab-badge.svg" not in line]
    while lines[1:] and not lines[1].strip():
        del lines[1]
    title["source"] = "\n".join([lines[0], "", badge(url, name), "", *lines[1:]]).splitlines(keepends=True)
    setup["source"] = setup_cell(url).splitlines(keepends=True)


def main() -> int:
    """Exit status: 0, 1 where a step failed; an error is one line."""
    parser = argparse.ArgumentParser(prog="python -m sbt.study.publish")
    parser.add_argument("studies", nargs="*")
    parser.add_argument("--only", default="")
    parser.add_argument("--address", default="")
    words = parser.parse_args()
    try:
        if words.address:
            set_address(words.address)
        return 0 if all(publish(study, words.only) for study in words.studies) else 1
    except SbtError as error:
        print(f"sbt: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
