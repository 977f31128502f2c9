"""Parameters of a notebook: declared in its `parameters` cell, and checked against it wherever they are given.

The grammar of that cell is one literal assignment a line, `name: type = value  # what it does`, which is what
`papermill --help-notebook` reads.
"""

import ast
import io
import json
import re
import tokenize
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import yaml

from sbt.utils import files, paths
from sbt.utils.errors import DataError, ParameterError
from sbt.utils.text import nearest

TYPES = {"str": str, "int": int, "float": float, "bool": bool, "list": list, "dict": dict}
NAME = re.compile(r"[A-Za-z0-9][\w-]*")


@dataclass(frozen=True)
class Parameter:
    """One declared parameter; `type` is a key of TYPES."""

    name: str
    type: str
    default: object
    help: str


def read_notebook(path: Path) -> dict:
    """The notebook as JSON; ParameterError where there is none of that name."""
    if not path.is_file():
        known = [other.stem for other in path.parent.glob("*.ipynb")]
        raise ParameterError(f"there is no notebook {paths.shown(path)}{nearest(path.stem, known)}")
    return files.read_json(path)


def cell_source(cell: dict) -> str:
    """A cell's source as one string (notebook files hold either a string or a list of lines)."""
    return "".join(cell["source"])


def tagged(notebook: dict, tag: str) -> list[dict]:
    """Cells that carry a tag."""
    return [cell for cell in notebook["cells"] if tag in cell["metadata"].get("tags", ())]


def source_hash(notebook: dict) -> str:
    """SHA-256 of the code cells' sources; papermill's injected cell is not the notebook's own and is left out."""
    injected = tagged(notebook, "injected-parameters")
    code = [cell_source(c) for c in notebook["cells"] if c["cell_type"] == "code" and c not in injected]
    return files.sha256(json.dumps(code))


def declared(notebook: Path) -> dict[str, Parameter]:
    """Parameters that a notebook file declares, in order. ParameterError names notebook and line of a violation."""
    cells = tagged(read_notebook(notebook), "parameters")
    where = paths.shown(notebook)
    if len(cells) != 1:
        raise ParameterError(f"{where}: exactly one cell carries the tag 'parameters', not {len(cells)}")
    source = cell_source(cells[0])
    try:
        statements = ast.parse(source).body
        tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
    except SyntaxError as error:
        raise ParameterError(f"{where}: parameters cell, line {error.lineno}: {error.msg}") from None
    comments = {token.start[0]: token.string for token in tokens if token.type == tokenize.COMMENT}
    found = {}
    for statement in statements:
        at = f"{where}: parameters cell, line {statement.lineno}"
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
    """The value as the declared type (an int becomes a float where one is declared); ParameterError otherwise."""
    kind = TYPES[parameter.type]
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
        return value
    message = f"{source}: {parameter.name} takes {parameter.type}, not {type(value).__name__} {value!r}"
    raise ParameterError(message + _remedy(kind, value))


def _remedy(kind: type, value: object) -> str:
    if not isinstance(value, str):
        return ""
    if kind is bool:
        return ". Write true or false in YAML; after papermill's -p write True or False"
    try:
        number = float(value)
    except ValueError:
        return ""
    if kind is int:
        return f". YAML reads {value} as text: write {number:.0f}"
    if kind is float:
        return f". YAML reads {value} as text: write {yaml.safe_dump(number).split()[0]}"
    return ""


def check(parameters: dict[str, Parameter], values: dict, source: str) -> dict:
    """Values given by `source`, converted to the declared types. ParameterError: an unknown name or a wrong type."""
    for name in values:
        if name not in parameters:
            raise ParameterError(f"{source}: unknown parameter {name!r}{nearest(str(name), parameters)}")
    return {name: convert(parameters[name], value, source) for name, value in values.items()}


def effective(notebook: Path, layers: Iterable[tuple[str, dict]]) -> tuple[dict, dict[str, str]]:
    """Values of all parameters of a notebook and where each came from; a later layer (source, values) wins."""
    parameters = declared(notebook)
    values = {name: parameter.default for name, parameter in parameters.items()}
    origin = dict.fromkeys(parameters, "default")
    for source, given in layers:
        checked = check(parameters, given, f"{source} (for {paths.shown(notebook)})")
        values |= checked
        origin |= dict.fromkeys(checked, source)
    for name in ("study", "step"):
        if name in values and not NAME.fullmatch(values[name]):
            allowed = "a folder's name (letters, digits, - _)"
            raise ParameterError(f"{origin[name]}: {name} is {allowed}, not {values[name]!r}")
    return values, origin


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice, where YAML would keep the last one without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = []
        for key, _ in node.value:
            seen.append(self.construct_object(key, deep=True))
            if seen.count(seen[-1]) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"key {seen[-1]!r} is given twice", key.start_mark)
        return super().construct_mapping(node, deep)


def load_yaml(path: Path) -> dict:
    """Mapping of a YAML file; ParameterError with the line where it is malformed, no mapping, or a key comes twice."""
    try:
        value = yaml.load(files.read_text(path), Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise ParameterError(f"{paths.shown(path)}:{line}: {error.problem}") from None
    except DataError as error:
        raise ParameterError(str(error)) from None
    if not isinstance(value or {}, dict):
        raise ParameterError(f"{paths.shown(path)}: expected `name: value` lines, found {type(value).__name__}")
    return value or {}


def parse_set(pairs: Iterable[str]) -> dict:
    """Values of `--set name=value` flags; each value is read as YAML."""
    values = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not (name and equals):
            raise ParameterError(f"--set {pair}: write --set name=value")
        try:
            values[name.strip()] = yaml.safe_load(value) if value.strip() else ""
        except yaml.YAMLError:
            raise ParameterError(f"--set {pair}: the value is no YAML; quote text that holds : or {{") from None
    return values
