"""MMLU (Hendrycks et al. 2021): 57 subjects, four options, five-shot; docs are by subject.

The publisher's files are `test/SUBJECT_test.csv` and `dev/...`: question, A, B, C, D, letter, without a header.
Protocol "standard": log-likelihood of the letter, lm_eval/tasks/mmlu/default (0.4.13). Protocol "paper": the authors'
own script, which generates two tokens (UCSC-VLAA/Sight-Beyond-Text: llava/eval/mmlu/evaluate_mmlu.py and
mmlu_modeling.py @47f96a3).
"""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from sbt.benchmarks import check_protocol
from sbt.benchmarks.common import answers as answer_files
from sbt.benchmarks.common import language
from sbt.benchmarks.common.language import flat
from sbt.benchmarks.mmlu import SOURCE
from sbt.data.registry import HUB
from sbt.report import stats
from sbt.utils import checks, paths
from sbt.utils.errors import DataError, ParameterError
from sbt.utils.files import read_text
from sbt.utils.text import nearest

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SPLIT, LETTERS = "test", "ABCD"
_HEADERS = (["question", *"abcd", "answer"], list("012345"))  # which copies add, the second one by pandas
_TASKS = Path(*find_spec("lm_eval").submodule_search_locations, "tasks", "mmlu", "default")  # the harness's files
_CATEGORY = {  # of each subject: "stem" where its file has the tag mmlu_stem_tasks
    file.stem.removeprefix("mmlu_"): yaml.safe_load(read_text(file))["tag"].split("_", 1)[1].rsplit("_", 1)[0]
    for file in sorted(_TASKS.glob("mmlu_*.yaml"))
}
CATEGORIES = {
    kind.replace("_", " "): tuple(subject for subject, own in _CATEGORY.items() if own == kind)
    for kind in ("stem", "humanities", "social_sciences", "other")
}
OWN = "own subjects"  # the category of a set with none of MMLU's subjects in it, such as the micro-world's
_ABOUT = "The following are multiple choice questions (with answers) about"
MAX_NEW_TOKENS, MAX_PROMPT_TOKENS = 2, 2048  # of the authors' script


def category(subject: str, protocol: str = "standard") -> str:
    """The subject's category. The authors (evaluate_mmlu.py@47f96a3), like MMLU's own, count anatomy as "other"."""
    return "other" if (subject, protocol) == ("anatomy", "paper") else _CATEGORY.get(subject, OWN).replace("_", " ")


def read(path: Path | str, split: str = SPLIT) -> dict[str, list[dict]]:
    """{subject: docs {question, choices, answer: 0 to 3, subject}}, sorted, of `data/`, its parent, or one CSV.

    Few-shot docs are the first ones of split "dev". DataError names file and row of what is not six columns.
    """
    path = paths.resolve(str(path))
    folder, end = path / "data" if (path / "data").is_dir() else path, f"_{split}.csv"
    files = [path] if path.is_file() else sorted((folder / split).glob(f"[!.]*{end}"))  # macOS adds ._ files
    if not files:
        raise DataError(f"{paths.shown(folder)} holds no {split}/SUBJECT{end}: unpack MMLU's data.tar there")
    subjects = [file.name.removesuffix(end) for file in files]
    strange = [subject for subject in subjects if subject not in _CATEGORY]
    if 0 < len(strange) < len(subjects):
        hint = nearest(strange[0], _CATEGORY)
        raise DataError(f"{paths.shown(folder)}: {strange[0]!r} is no subject of MMLU{hint} The others are")
    return {subject: _read(file, subject) for subject, file in zip(subjects, files, strict=True)}


def _read(file: Path, subject: str) -> list[dict]:
    name, rows = paths.shown(file), []
    try:
        lines = [cells for cells in csv.reader(io.StringIO(read_text(file), newline="")) if any(cells)]
    except csv.Error as error:
        raise DataError(f"{name}: malformed CSV ({error}): a quotation mark is not closed") from None
    header = bool(lines) and [cell.strip().lower() for cell in lines[0]] in _HEADERS
    for number, cells in enumerate(lines[header:], start=1):
        if len(cells) != 6:
            raise DataError(f"{name}, row {number}: expected question, A, B, C, D, letter; found {len(cells)} columns")
        if cells[5] not in tuple(LETTERS):
            hint = "These files have no header, and letters for answers"
            raise DataError(f"{name}, row {number}: the answer must be A, B, C or D, found {cells[5]!r}. {hint}")
        rows.append(
            {"question": cells[0], "choices": cells[1:5], "answer": LETTERS.index(cells[5]), "subject": subject}
        )
    return from_rows(rows, name)


def by_subject(docs: Sequence[dict]) -> dict[str, list[dict]]:
    """Docs of all subjects in one list, as the hub has them, by subject and sorted."""
    found: dict[str, list[dict]] = {}
    for doc in docs:
        found.setdefault(doc["subject"], []).append(doc)
    return dict(sorted(found.items()))


def from_rows(rows: Sequence[dict], name: str) -> list[dict]:
    """Docs of the hub's rows; DataError names the row without question, subject, four choices or answer."""
    docs = []
    for where, row in checks.listed(rows, name):
        question, subject = (checks.text(row, field, where) for field in ("question", "subject"))
        choices, answer = (checks.key(row, field, where) for field in ("choices", "answer"))
        if not isinstance(choices, list) or len(choices) != 4 or not all(isinstance(one, str) for one in choices):
            raise DataError(f"{where}: 'choices' must be four texts, found {choices!r}")
        if type(answer) is not int or answer not in range(4):
            raise DataError(f"{where}: 'answer' must be the place of a choice, 0 to 3, found {answer!r}")
        docs.append({"question": question, "choices": choices, "answer": answer, "subject": subject})
    return docs


class Mmlu(language.ChoiceTask):
    """Docs {question, choices, answer, subject} by subject, whose ids are SUBJECT/PLACE, places from 0."""

    name, source = "mmlu", SOURCE
    hub = {"test": "test-00000-of-00001.parquet", "dev": "dev-00000-of-00001.parquet"}
    split, shots, shots_split = "test", 5, "dev"
    options, values, label = LETTERS, (0, 1, 2, 3), "answer"
    from_rows = staticmethod(from_rows)

    def load(self, source: Path | str, split: str = "") -> dict[str, list[dict]]:
        """Docs by subject, sorted; see `read`. The hub has all of them in one file."""
        split = split or self.split
        if str(source) != HUB:
            return read(source, split)
        rows = language.parquet_rows(self.source, self.hub[split])
        return by_subject(self.from_rows(rows, f"{self.name} {split}, hub"))

    def requests(
        self, docs: Mapping[str, Sequence[dict]], examples: Mapping[str, Sequence[dict]], *,
        protocol: str = "standard", fewshot: str = "first", conversation: str = "",
        tokenizer: "PreTrainedTokenizerBase | None" = None,
    ) -> dict[str, list[dict]]:  # fmt: skip
        """Requests by "mmlu SUBJECT"; protocol "paper" has the authors' own prompt and needs a tokenizer."""
        from sbt.inference import harness

        check_protocol(protocol, language.PROTOCOLS)
        if protocol == "paper":
            if conversation:
                raise ParameterError("the authors' MMLU script knows no conversation template: set conversation to ''")
            return {f"mmlu {subject}": _paper(docs[subject], examples[subject], tokenizer) for subject in docs}
        asked = {}
        for subject in docs:
            file, changed = f"mmlu/default/mmlu_{subject}.yaml", {}
            if subject not in _CATEGORY:  # the micro-world's: the harness has no file of them
                file = "mmlu/default/_default_template_yaml"
                changed["description"] = f"{_ABOUT} {subject.replace('_', ' ')}.\n\n"
            over = harness.task(file, docs[subject], examples=examples[subject], fewshot=fewshot, **changed)
            how = {"shots": self.shots, "conversation": conversation}
            asked[f"mmlu {subject}"] = harness.requests(over, tokenizer, **how)
        return asked

    def labels(self, docs: language.Parts) -> list[int]:
        """Place of the right choice, 0 to 3, of every doc."""
        return super().labels(flat(docs))

    def per_item(self, docs: Sequence[dict], results: Sequence, protocol: str = "standard") -> dict[str, list[float]]:
        """`acc` of every item; "standard" takes four log-likelihoods an item and adds `tied`, "paper" takes a text."""
        if protocol == "paper":
            golds = self.labels(docs)
            return {"acc": [float(paper_correct(a, LETTERS[gold])) for a, gold in zip(results, golds, strict=True)]}
        return super().per_item(docs, results, protocol)

    def rows(
        self, docs: language.Parts, results: language.Parts, *, arm: str, seed: int = 0, protocol: str = "standard",
        **more,
    ) -> list[dict]:  # fmt: skip
        """Accuracy over all questions (the harness's and the authors'), of the control, of categories and subjects.

        `acc_macro` is the mean over subjects, each counted once; its interval too is over questions.
        """
        docs, results = flat(docs), flat(results)
        hits = self.per_item(docs, results, protocol)["acc"]
        scores = {"all": {"acc": hits}, language.PERMUTED: self.per_item(self.permuted(docs, seed), results, protocol)}
        for place in (lambda subject: category(subject, protocol), str):
            names = [place(doc["subject"]) for doc in docs]
            for name in [*(one for one in CATEGORIES if one in names), *sorted(set(names) - set(CATEGORIES))]:
                scores[name] = {"acc": [hit for hit, own in zip(hits, names, strict=True) if own == name]}
        named = {"arm": arm, "benchmark": self.name, "protocol": protocol, "seed": seed, **more}
        found = language.metric_rows(scores, self.metrics[protocol], **named)
        sizes = {name: len(values["acc"]) for name, values in scores.items()}
        weights = [1 / sizes[doc["subject"]] for doc in docs]
        weighted = [weight * hit for weight, hit in zip(weights, hits, strict=True)]
        macro = stats.metric_row(weighted, weights, subset="all", metric="acc_macro", **named)
        return [found[0], macro, *found[1:]]

    def ids(self, docs: Sequence[dict]) -> list[str]:
        """SUBJECT/PLACE of every doc."""
        seen: dict[str, int] = {}
        found = []
        for doc in docs:
            found.append(f"{doc['subject']}/{seen.get(doc['subject'], 0)}")
            seen[doc["subject"]] = seen.get(doc["subject"], 0) + 1
        return found

    def result(self, row: answer_files.Row, doc: dict, protocol: str) -> object:
        """As `ChoiceTask.result`; "paper" scores the text itself."""
        return answer_files.text(row) if protocol == "paper" else super().result(row, doc, protocol)


MMLU = Mmlu()


def paper_prompt(doc: dict, shots: Sequence[dict]) -> str:
    """The authors' prompt: two blanks before the subject (format_subject, gen_prompt), the question not stripped.

    Their pandas turned the choice "None" into "nan" (10 cells) and "0.50" into "0.5"; that is not copied here.
    """
    head = f"{_ABOUT}  {doc['subject'].replace('_', ' ')}.\n\n"
    answered = "".join(f"{_asked(shot)} {LETTERS[shot['answer']]}\n\n" for shot in shots)
    return head + answered + _asked(doc)


def shots_that_fit(
    doc: dict, shots: Sequence[dict], count: Callable[[str], int], limit: int = MAX_PROMPT_TOKENS
) -> int:
    """How many of the first shots the authors keep: the last are dropped until the prompt, BOS included, fits."""
    return next((k for k in range(len(shots), 0, -1) if count(paper_prompt(doc, shots[:k])) <= limit), 0)


def paper_correct(answer: str, label: str) -> bool:
    """The authors' test of two generated tokens: "Answer" is right where the letter is A."""
    return answer.strip().startswith(label)


def _asked(doc: dict) -> str:
    options = "".join(f"\n{letter}. {one}" for letter, one in zip(LETTERS, doc["choices"], strict=True))
    return f"{doc['question']}{options}\nAnswer:"


def _paper(docs: Sequence[dict], examples: Sequence[dict], tokenizer: "PreTrainedTokenizerBase | None") -> list[dict]:
    if tokenizer is None:
        raise ParameterError("MMLU's protocol 'paper' counts tokens: it needs a tokenizer")
    asked = []
    for number, doc in enumerate(docs):
        count = shots_that_fit(doc, examples[: MMLU.shots], lambda text: len(tokenizer(text)["input_ids"]))
        prompt = paper_prompt(doc, examples[:count])
        asked.append({"id": str(number), "context": prompt, "until": [], "max_new_tokens": MAX_NEW_TOKENS})
    return asked
