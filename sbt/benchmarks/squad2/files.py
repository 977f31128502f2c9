"""SQuAD 2.0's data: the publisher's `dev-v2.0.json`, articles of paragraphs of questions, as the hub's flat rows."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from sbt.benchmarks.common import language
from sbt.utils import checks, paths
from sbt.utils.errors import DataError
from sbt.utils.files import read_json

SPLIT = "validation"
FILES = {"validation": ("dev-v2.0.json",), "train": ("train-v2.0.json",)}


def load(path: Path | str, split: str = SPLIT) -> list[dict]:
    """Docs {id, title, context, question, answers: {text, answer_start}} of a file, or of the split's in a folder."""
    path = language.source(path, split, FILES)
    content, name = read_json(path), paths.shown(path)
    if not isinstance(content, dict) or "data" not in content:
        raise DataError(f"{name}: expected an object with 'data': is this SQuAD 2.0's own file?")
    return from_rows(list(_questions(content["data"], name)), name)


def _questions(articles: object, name: str) -> Iterator[dict]:
    for where, article in language.listed(articles, f"{name}, data"):
        title = language.text(article, "title", where)
        for place, paragraph in language.listed(language.key(article, "paragraphs", where), f"{where}, paragraphs"):
            context = language.text(paragraph, "context", place)
            for spot, one in language.listed(language.key(paragraph, "qas", place), f"{place}, qas"):
                found = language.key(one, "answers", spot)
                if not isinstance(found, list):
                    raise DataError(f"{spot}: 'answers' must be a list, found {found!r}")
                pairs = [(_field(a, "text", spot), _field(a, "answer_start", spot)) for a in found]
                if bool(language.key(one, "is_impossible", spot)) == bool(pairs):
                    raise DataError(f"{spot}: {len(pairs)} answers, but is_impossible is {one['is_impossible']}")
                answers = {"text": [text for text, _ in pairs], "answer_start": [start for _, start in pairs]}
                own = {field: language.key(one, field, spot) for field in ("id", "question")}
                yield {**own, "title": title, "context": context, "answers": answers}


def _field(answer: object, field: str, where: str) -> object:
    if not isinstance(answer, dict):
        raise DataError(f"{where}: an answer must be an object with text and answer_start, found {answer!r}")
    return language.key(answer, field, where)


def from_rows(rows: Sequence[dict], name: str) -> list[dict]:
    """Docs of the hub's rows; DataError names the row with an empty text, answers that are no texts, an id again."""
    docs = []
    for place, row in language.listed(rows, name):
        where = f"{place} (id {row.get('id')!r})"
        doc = {field: language.text(row, field, where) for field in ("id", "title", "context", "question")}
        answers = language.key(row, "answers", where)
        texts = answers.get("text") if isinstance(answers, dict) else None
        if not isinstance(texts, list) or not all(isinstance(one, str) and one.strip() for one in texts):
            raise DataError(f"{where}: 'answers' must hold a list 'text' of texts, found {answers!r}")
        docs.append({**doc, "answers": answers})
    checks.once((doc["id"] for doc in docs), f"{name}, row ", "id")
    return docs
