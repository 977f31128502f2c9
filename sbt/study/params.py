"""Parameters of a notebook: declared in its `parameters` cell, and checked against it wherever they are given.

The grammar of that cell is one literal assignment a line, `name: type = value  # what it does`, which is what
`papermill --help-notebook` reads.
"""

import ast
import datetime
import io
import json
import math
import re
import tokenize
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from sbt.utils import files, paths
from sbt.utils.errors import DataError, ParameterError
from sbt.utils.text import nearest, short

TYPES = {"str": str, "int": int, "float": float, "bool": bool, "list": list, "dict": dict}
NAME = re.compile(r"[A-Za-z0-9][\w-]{0,99}")
INJECTED = "# Parameters"  # the first line of the cell that papermill adds
MOST_VALUES, DEEPEST, LARGEST = 10_000, 10, 10**18  # of one parameter
LARGEST_SEED = 2**32 - 1  # numpy's
# What would be written to params.yaml and printed: a user in an address, what signs one, keys of well-known services.
# Without a scheme, `name:word@host` is a password but for mail addresses and a container image's digest.
SECRETS = re.compile(
    r"(?:^|[\s\"'=,;(])(?!(?:mailto|e-?mail|contact|from|to|cc|ssh|sip|acct):)[a-z0-9][\w.%+-]{0,63}:[^\s/\\@]{1,256}"
    r"@(?!sha\d+:)(?:[a-z]|\d+\.\d+\.\d+\.\d|\[[0-9a-f:])"
    r"|://(?!git@)[^/\s@]+@|[?&#][\w.-]*(?:key|token|password|secret|signature|sig|credential)=\w|AccountKey=\S{20}"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY|\bBearer\s+\S{8}|\bBasic\s+(?=\S*\d)[\w+/]{10}|\beyJ[\w-]{10,}\.[\w-]{10}"
    r"|\b(?:sk-[\w-]{16}|[srp]k_(?:live|test)_\w{10}|hf_\w{16}|gh[pousr]_\w{20}|github_pat_\w{20}|glpat-[\w-]{16}"
    r"|xox[a-z]-[\w-]{10}|A[KS]IA[0-9A-Z]{16}|AIza[\w-]{30}|npm_\w{30}|pypi-[\w-]{20}|nvapi-[\w-]{20}"
    r"|(?:r8|gsk|wandb_v1)_\w{20})",
    re.IGNORECASE,
)
SECRET_NAME = re.compile(
    r"(?:.*[_-])?(?:passw(?:or)?d|pwd|secret|(?:api|access|private|secret)[_-]?key|credentials?|authorization)"
    r"|(?:(?:hf|hub|api|access|auth|bearer|refresh|session)[_-]?)?token|key|auth",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Parameter:
    """One declared parameter; `type` is a key of TYPES."""

    name: str
    type: str
    default: object
    help: str


def read_notebook(path: Path) -> dict:
    """The notebook as JSON; ParameterError where there is none of that name, DataError where it is damaged."""
    if not path.is_file():
        known = [other.stem for other in path.parent.glob("*.ipynb")]
        raise ParameterError(f"there is no notebook {paths.shown(path)}{nearest(path.stem, known)}")
    notebook = files.read_json(path)
    kinds = {"cells": list, "metadata": dict, "nbformat": int}
    if not isinstance(notebook, dict) or not all(isinstance(notebook.get(n), kind) for n, kind in kinds.items()):
        raise DataError(f"{paths.shown(path)} is no notebook: it needs {', '.join(kinds)}")
    if notebook["nbformat"] != 4:
        raise DataError(f"{paths.shown(path)} is of nbformat {notebook['nbformat']}: save it as 4 (JupyterLab does)")
    if not all(map(_is_cell, notebook["cells"])):
        raise DataError(f"{paths.shown(path)} is no notebook: its cells are damaged")
    return notebook


def _is_cell(cell: object) -> bool:
    """Whether it has a kind, a source of text and a list of tags, or none."""
    if not isinstance(cell, dict) or not isinstance(cell.get("metadata"), dict):
        return False
    tags, source = cell["metadata"].get("tags", []), cell.get("source")
    lines = source if isinstance(source, list) else [source]
    known = cell.get("cell_type") in ("code", "markdown", "raw")
    return known and isinstance(tags, list) and all(isinstance(line, str) for line in lines)


def cell_source(cell: dict) -> str:
    """A cell's source as one string (notebook files hold either a string or a list of lines)."""
    return "".join(cell["source"])


def tagged(notebook: dict, tag: str) -> list[dict]:
    """Cells that carry a tag."""
    return [cell for cell in notebook["cells"] if tag in cell["metadata"].get("tags", ())]


def source_hash(notebook: dict) -> str:
    """SHA-256 of the code cells' sources, but for papermill's injected cell and the one that installs the package."""
    left_out = tagged(notebook, "injected-parameters") + tagged(notebook, "setup")
    code = [cell_source(c) for c in notebook["cells"] if c["cell_type"] == "code" and c not in left_out]
    return files.sha256(json.dumps(code))


def declared(notebook: Path) -> dict[str, Parameter]:
    """Parameters that a notebook file declares, in order. ParameterError names notebook and line of a violation."""
    cells = tagged(read_notebook(notebook), "parameters")
    where = paths.shown(notebook)
    if len(cells) != 1:
        raise ParameterError(f"{where}: exactly one cell carries the tag 'parameters', not {len(cells)}")
    return declarations(cell_source(cells[0]), f"{where}: parameters cell")


def declared_in_session(executed: Sequence[str]) -> tuple[dict[str, Parameter], list[str]]:
    """What the `parameters` cell declared when it last ran, and the names that papermill's cell behind it assigns.

    `executed`: the cells that ran so far, as IPython keeps them in `In`. A copy of a notebook and edits that are not
    saved are thereby read as they ran. ParameterError where no such cell has run yet.
    """
    for place in reversed(range(len(executed))):
        cell = executed[place]
        if re.search(r"^study: str = ", cell, re.MULTILINE) and re.search(r"^step: str = ", cell, re.MULTILINE):
            behind = executed[place + 1] if place + 1 < len(executed) else ""
            return declarations(cell, "parameters cell"), _assigned(behind) if behind.startswith(INJECTED) else []
    raise ParameterError("run the cell tagged `parameters` first, the one that names `study` and `step`")


def _assigned(source: str) -> list[str]:
    targets = [node.targets[0] for node in ast.parse(source).body if isinstance(node, ast.Assign)]
    return [ast.unparse(target) for target in targets]


def declarations(source: str, where: str) -> dict[str, Parameter]:
    """Parameters that the source of a `parameters` cell declares; ParameterErrors begin with `where` and a line."""
    try:
        statements = ast.parse(source).body
        tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
    except (SyntaxError, ValueError, RecursionError) as error:
        line = getattr(error, "lineno", None) or "?"
        raise ParameterError(f"{where}, line {line}: {getattr(error, 'msg', None) or error}") from None
    comments = {token.start[0]: token.string for token in tokens if token.type == tokenize.COMMENT}
    found = {}
    for statement in statements:
        at = f"{where}, line {statement.lineno}"
        parameter = _declaration(statement, source.splitlines()[statement.lineno - 1], comments, at)
        if parameter.name in found:
            raise ParameterError(f"{at}: {parameter.name} is declared twice")
        found[parameter.name] = parameter
    return found


def _declaration(statement: ast.stmt, line: str, comments: dict[int, str], at: str) -> Parameter:
    form = "one literal assignment a line, `name: type = value  # what it does`"
    if not (
        isinstance(statement, ast.AnnAssign)
        and isinstance(statement.target, ast.Name)
        and statement.value is not None
        and statement.lineno == statement.end_lineno
    ):
        raise ParameterError(f"{at}: expected {form}, found `{line.strip()}`")
    name, kind = statement.target.id, ast.unparse(statement.annotation)
    if kind not in TYPES:
        raise ParameterError(f"{at}: {name} has type {kind}; allowed are {', '.join(TYPES)}")
    try:
        default = ast.literal_eval(statement.value)
    except ValueError:
        raise ParameterError(f"{at}: the default of {name} is no literal; expected {form}") from None
    remark = comments.get(statement.lineno, "").removeprefix("#").strip()
    # papermill reads these lines by a pattern: a second `=`, a `#` in a value or a leading `type:` mislead it.
    if not remark or line.count("=") > 1 or line.count("#") > 1 or remark.startswith("type:"):
        raise ParameterError(f"{at}: {name} needs one comment that says what it does, and no other `#` or `=`")
    return Parameter(name, kind, convert(Parameter(name, kind, None, ""), default, at), remark)


def convert(parameter: Parameter, value: object, source: str) -> object:
    """The value as the declared type (an int becomes a float where one is declared).

    ParameterError for a value that is of another type, holds a secret or cannot be recorded, for a negative number
    where the default is none, and for a list's element that is of another type than those of the default list.
    """
    _check_plain(value, f"{source}: {parameter.name}")
    kind = TYPES[parameter.type]
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
        message = f"{source}: {parameter.name} takes {parameter.type}, not {type(value).__name__} {short(value)}"
        raise ParameterError(message + _remedy(kind, value))
    default = parameter.default
    if kind in (int, float) and value < 0 and not (default is not None and default < 0):
        raise ParameterError(f"{source}: {parameter.name} is {short(value)}, but cannot be negative")
    if kind is int and parameter.name == "seed" and value > LARGEST_SEED:
        raise ParameterError(f"{source}: seed is {short(value)}, but generators take at most {LARGEST_SEED:,}")
    if kind is list and default and all(isinstance(item, str) for item in default):
        for item in value:
            if not isinstance(item, str):
                raise ParameterError(f'{source}: {parameter.name} lists texts, not {short(item)}: write "{item}"')
    return value


def _check_plain(value: object, where: str) -> None:
    """ParameterError unless params.yaml and manifest.json can keep the value and may show it to anybody."""
    waiting, count = [(value, 0, "")], 0
    while waiting:
        one, depth, name = waiting.pop()
        if (count := count + 1) > MOST_VALUES or depth > DEEPEST:
            raise ParameterError(f"{where} is nested too deeply or too large: at most {MOST_VALUES:,} values")
        if isinstance(one, dict):
            if strange := [key for key in one if not isinstance(key, str | int) or isinstance(key, bool)]:
                raise ParameterError(f"{where}: a key is {short(strange[0])}; quote it")
            waiting += [(inner, depth + 1, str(key)) for key, inner in one.items()]
            waiting += [(key, depth + 1, "") for key in one]
        elif isinstance(one, list | tuple):
            waiting += [(inner, depth + 1, name) for inner in one]
        elif isinstance(one, str):
            _check_text(one, name, where)
        elif isinstance(one, float) and not math.isfinite(one):
            raise ParameterError(f"{where} is {one}: write a finite number")
        elif isinstance(one, int) and abs(one) > LARGEST:
            raise ParameterError(f"{where} is a number of {math.log10(abs(one)):,.0f} digits: too large")
        elif isinstance(one, datetime.date):
            raise ParameterError(f'{where}: YAML reads {one} as a date: write "{one}"')
        elif one is not None and not isinstance(one, int | float):
            raise ParameterError(f"{where} holds a {type(one).__name__}, which parameters cannot be")


def _check_text(text: str, name: str, where: str) -> None:
    if SECRETS.search(text) or (SECRET_NAME.fullmatch(name) and text and not text.isupper()):
        raise ParameterError(
            f"{where} holds what looks like a password or key, and parameters are written down and shown. "
            "Put it into an environment variable"
        )
    if any(ord(letter) < 32 and letter not in "\n\t" or 0xD800 <= ord(letter) < 0xE000 for letter in text):
        raise ParameterError(f"{where} holds a control character or half of one: {short(text)}")


def _remedy(kind: type, value: object) -> str:
    if not isinstance(value, str):
        return ""
    if kind is bool:
        return ". Write true or false in YAML; after papermill's -p write True or False"
    try:
        number = float(value)
    except ValueError:
        return ""
    if kind is int and math.isfinite(number):
        return f". YAML reads {short(value, quotes=False)} as text: write {number:.0f}"
    if kind is float and math.isfinite(number):
        return f". YAML reads {short(value, quotes=False)} as text: write {yaml.safe_dump(number).split()[0]}"
    return ""


def check(parameters: dict[str, Parameter], values: dict, source: str) -> dict:
    """Values given by `source`, converted to the declared types. ParameterError: an unknown name or a wrong value."""
    for name in values:
        if name not in parameters:
            raise ParameterError(f"{source}: unknown parameter {short(name)}{nearest(str(name)[:100], parameters)}")
    return {name: convert(parameters[name], value, source) for name, value in values.items()}


def effective(parameters: dict[str, Parameter], layers: Iterable[tuple[str, dict]]) -> tuple[dict, dict[str, str]]:
    """Values of all declared parameters and where each came from; a later layer (source, values) wins."""
    values = {name: parameter.default for name, parameter in parameters.items()}
    origin = dict.fromkeys(parameters, "default")
    for source, given in layers:
        checked = check(parameters, given, source)
        values |= checked
        origin |= dict.fromkeys(checked, source)
    for name in ("study", "step"):
        if name in values and not NAME.fullmatch(values[name]):
            allowed = "a folder's name (letters, digits, - _; at most 100)"
            raise ParameterError(f"{origin[name]}: {name} is {allowed}, not {short(values[name])}")
    return values, origin


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice, where YAML would keep the last one without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = []
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge":  # `<<: *other`
                continue
            seen.append(self.construct_object(key, deep=True))
            if seen.count(seen[-1]) > 1:
                twice = f"key {short(seen[-1])} is given twice"
                raise yaml.constructor.ConstructorError(None, None, twice, key.start_mark)
        return super().construct_mapping(node, deep)


def _plain_number(loader: _Loader, node: yaml.ScalarNode) -> int | float:
    """Refuses what YAML 1.1 reads as octal or to the base of 60: 010 is 8 there, and 1:30 is 90."""
    kind = node.tag.rpartition(":")[2]
    number = getattr(loader, f"construct_yaml_{kind}")(node)
    if ":" in node.value or (kind == "int" and re.match(r"[-+]?0\d", node.value)):
        means = f"YAML reads {short(node.value, quotes=False)} as {short(number)}: write that, or quote it"
        raise yaml.constructor.ConstructorError(None, None, means, node.start_mark)
    return number


_Loader.add_constructor("tag:yaml.org,2002:int", _plain_number)
_Loader.add_constructor("tag:yaml.org,2002:float", _plain_number)


def load_yaml(path: Path) -> dict:
    """Mapping of a YAML file; ParameterError with the line where it is malformed, no mapping, or a key comes twice."""
    name = paths.shown(path)
    try:
        value = yaml.load(files.read_text(path), Loader=_Loader)
    except DataError as error:
        raise ParameterError(str(error)) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ParameterError(f"{name}:{_yaml_fault(error)}") from None
    if not isinstance(value or {}, dict):
        raise ParameterError(f"{name}: expected `name: value` lines, found {type(value).__name__}")
    return value or {}


def _yaml_fault(error: Exception) -> str:
    """Line and kind of what YAML cannot read, as ` line: what`."""
    if isinstance(error, yaml.MarkedYAMLError):
        return f"{error.problem_mark.line + 1 if error.problem_mark else '?'}: {error.problem}"
    if isinstance(error, yaml.reader.ReaderError):
        return f" character {error.position} is a control character, which YAML does not allow"
    if isinstance(error, RecursionError):
        return " nested too deeply to be read"
    return f" a value cannot be read: {str(error)[:100]}"  # a date that does not exist, a number of 5,000 digits


def parse_set(pairs: Iterable[str]) -> dict:
    """Values of `--set name=value` flags; each value is read as YAML."""
    values = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        name = name.strip()
        flag = f"--set {short(name, quotes=False)}"
        if not (name and equals):
            raise ParameterError(f"{flag}: write --set name=value")
        if name in values:
            raise ParameterError(f"{flag} is given twice")
        try:
            values[name] = yaml.load(value, Loader=_Loader) if value.strip() else ""
        except yaml.constructor.ConstructorError as error:
            raise ParameterError(f"{flag}: {error.problem}") from None
        except yaml.MarkedYAMLError:
            raise ParameterError(f"{flag}: the value is no YAML; quote text that holds : or {{") from None
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise ParameterError(f"{flag}:{_yaml_fault(error)}") from None
    return values
