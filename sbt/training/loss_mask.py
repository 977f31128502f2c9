"""Which tokens of an instruction are trained beside the response: the L2T mask, its settings, its four variants.

Made in the collator and not by more chat templates: a `{% generation %}` span marks every token it touches, so a role
would come along with the word it is merged with, and a template per variant would double every prompt and its hash.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from itertools import groupby

import numpy as np
from transformers import PreTrainedTokenizerBase

from sbt.data import task_templates
from sbt.models.tokenizer import END, IMAGE_TOKEN, START
from sbt.utils.errors import DataError, ParameterError, RunError
from sbt.utils.text import nearest

ON = ("response", "instruction", "instruction_with_system")
TURNS = ("all", "first")
# The rows of the paper's template ablation (note-A on arXiv 2503.22215, Table 4), each the one before and a change.
VARIANTS = {
    "answer_only": {"on": "response"},
    "instruction": {"on": "instruction_with_system"},
    "no_system": {"on": "instruction"},
    "no_templates": {"on": "instruction", "templates": []},  # of the training set: `variant` puts them in
}
_OPEN, _CLOSE = "\ufdd0", "\ufdd1"  # noncharacters: Unicode keeps them for a program's own use, no text has them
_SPLIT = re.compile(f"([{_OPEN}{_CLOSE}])")


@dataclass(frozen=True)
class LossMaskConfig:
    """Which tokens are trained. Source: L2T / LIT, arXiv 2503.22215; what the paper leaves open can be set here.

    `on`: "response" (the baseline: answers and their end), "instruction" (also the user's words), or
    "instruction_with_system" (everything but image placeholders and padding: system prompt and roles too). No weight
    stands between the two: every trained token counts the same, as in the paper, so long instructions weigh more.
    `templates`: sentences of instructions that are not trained, compared whole, letter by letter, after cutting by
    `splitter` (`data.task_templates`). `text_only`: rows without an image get instruction loss too; the paper does
    not say, its formula makes no exception. `turns`: "all", or "first" for the first instruction alone. `bos`: with
    "instruction_with_system", the beginning-of-sequence tokens too (Llama 2 writes one a turn).
    """

    on: str = "response"
    templates: tuple[str, ...] = ()
    splitter: str = "sentence"
    text_only: bool = True
    turns: str = "all"
    bos: bool = False

    def __post_init__(self) -> None:
        choices = {"on": ON, "turns": TURNS, "splitter": tuple(task_templates.SPLITTERS)}
        for name, known in choices.items():
            if (value := getattr(self, name)) not in known:
                raise ParameterError(f"loss: {name} {value!r} is unknown{nearest(str(value), known)}")
        for name in ("text_only", "bos"):
            if not isinstance(getattr(self, name), bool):
                raise ParameterError(f"loss: {name} must be true or false, found {getattr(self, name)!r}")
        changed = [field.name for field in fields(self) if getattr(self, field.name) != field.default]
        if self.on == "response" and changed:
            raise ParameterError(f"loss: {changed[0]} changes nothing with on: response. Leave it out, or change on")
        for sentence in self.templates:
            if not isinstance(sentence, str) or task_templates.sentences(sentence, self.splitter) != [sentence]:
                raise ParameterError(
                    f"loss: template {sentence!r} is not one whole sentence under splitter {self.splitter!r}, so no "
                    "sentence would ever equal it. Give each sentence by itself, without blanks around it"
                )


def parse(loss: Mapping | None) -> LossMaskConfig:
    """`Settings.loss` as a LossMaskConfig; None is response only. ParameterError for an unknown key or value."""
    known = [field.name for field in fields(LossMaskConfig)]
    if loss is not None and not isinstance(loss, Mapping):
        raise ParameterError(f"loss must be a mapping of {', '.join(known)}, found {loss!r}")
    for name in loss or {}:
        if name not in known:
            raise ParameterError(f"loss: {name!r} is unknown{nearest(str(name), known)}")
    given = dict(loss or {})
    if not isinstance(given.setdefault("templates", ()), list | tuple):
        raise ParameterError(f"loss: templates must be a list of sentences, found {given['templates']!r}")
    return LossMaskConfig(**given | {"templates": tuple(given["templates"])})


def variant(name: str, templates: Iterable[str] = (), **more: object) -> dict:
    """`Settings.loss` of one of the paper's four variants; `templates` (for "no_templates") as `mine` finds them.

    `more` are further values of LossMaskConfig. ParameterError for an unknown name or value, and for "no_templates"
    without sentences, which would silently be "no_system".
    """
    if name not in VARIANTS:
        raise ParameterError(f"loss variant {name!r} is unknown{nearest(str(name), VARIANTS)}")
    made = {**VARIANTS[name], **more}
    if "templates" in VARIANTS[name]:
        made["templates"] = list(templates)
        if not made["templates"]:
            raise ParameterError("loss variant 'no_templates' needs the sentences of task_templates.mine(rows, ...)")
    given = asdict(parse(made))
    return {key: list(value) if key == "templates" else value for key, value in given.items() if key in made}


class InstructionMask:
    """Finds the instruction tokens of a row to train, by characters of the rendered conversation.

    `encode` gives token ids and offsets of a rendered text. ParameterError where the conversation format leaves
    instructions out (`plain`: L2T is for instruction tuning, not for connector pretraining).
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        template: str,
        conversation: str,
        config: LossMaskConfig,
        encode: Callable[[str], tuple[list[int], list[tuple[int, int]]]],
    ) -> None:
        self.tokenizer, self.template, self.config, self.encode = tokenizer, template, config, encode
        self.whole, self.templates = config.on == "instruction_with_system", frozenset(config.templates)
        probe = [{"role": "user", "content": [{"type": "text", "text": f"{_OPEN}a{_CLOSE}"}]}]
        if _OPEN not in self._render(probe):
            raise ParameterError(
                f"conversation {conversation!r} leaves the instruction out, so it has no instruction loss. Use "
                "loss on: response with it (connector pretraining), or another conversation"
            )
        words = tokenizer.get_vocab()
        self.never = [words[token] for token in (IMAGE_TOKEN, START, END) if token in words]
        if not config.bos and tokenizer.bos_token_id is not None:
            self.never.append(tokenizer.bos_token_id)

    def __call__(self, row: dict, ids: np.ndarray, answers: np.ndarray) -> np.ndarray:
        """Which of a row's tokens `ids` (length,) to train beside the response, (length,) of bool.

        `row` has its contents as parts; `answers` are the response tokens (bool). A token is trained where all its
        characters that are no blanks are to be trained: one that holds a bit of a role or template is not. DataError
        names a row with characters that Unicode forbids in texts.
        """
        nothing = np.zeros(len(ids), bool)
        if not (self.config.text_only or row["images"]):
            return nothing
        marked = self._render([self._marked(message, number, row) for message, number in _numbered(row["messages"])])
        text, inside, offsets = self._aligned(marked, ids, row)
        found = _covered(text, inside != self.whole, offsets)
        if self.whole and self.config.turns == "first":
            found[int(answers.argmax()) :] = False
        return found & ~np.isin(ids, self.never) & ~answers

    def _render(self, messages: list[dict]) -> str:
        return self.tokenizer.apply_chat_template(messages, chat_template=self.template, tokenize=False)

    def _marked(self, message: dict, number: int, row: dict) -> dict:
        """The message, instruction `number` of its row, with marks around what is trained of it.

        Where the whole conversation is trained, around what is not: its templates.
        """
        texts = [part["text"] for part in message["content"] if part["type"] == "text"]
        if any(mark in words for words in texts for mark in (_OPEN, _CLOSE)):
            raise DataError(f"row {row.get('id')!r}: a text holds U+FDD0 or U+FDD1, which no text may. Remove it")
        if message["role"] != "user" or (self.config.turns == "first" and number > 0):
            return message
        parts = [
            {**part, "text": self._mark(part["text"])} if part["type"] == "text" else part
            for part in message["content"]
        ]
        return {**message, "content": parts}

    def _mark(self, text: str) -> str:
        made, last = "", 0
        sentences = task_templates.spans(text, self.config.splitter)
        for is_template, run in groupby(sentences, key=lambda span: text[slice(*span)] in self.templates):
            if is_template == self.whole:
                ends = list(run)
                start, end = ends[0][0], ends[-1][1]
                if self.whole:  # the blanks beside a template go with it
                    start, end = len(text[:start].rstrip()), len(text) - len(text[end:].lstrip())
                made += f"{text[last:start]}{_OPEN}{text[start:end]}{_CLOSE}"
                last = end
        return made + text[last:]

    def _aligned(self, marked: str, ids: np.ndarray, row: dict) -> tuple[str, np.ndarray, np.ndarray]:
        """Text without marks, which characters stood between marks, and the (start, end) of every token in it.

        RunError unless it has the tokens `ids`: a mask over others would be shifted without a word.
        """
        images = len(row["images"])
        count = int((ids == self.tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)).sum()) // images if images else 0
        text, inside = _unmarked(marked.replace(IMAGE_TOKEN, IMAGE_TOKEN * count) if images else marked)
        made, offsets = self.encode(text)
        if made != ids.tolist():
            raise RunError(
                f"row {row.get('id')!r}: the conversation has other tokens by itself than in training, so its "
                "instruction cannot be found in them. Train it with loss on: response"
            )
        return text, inside, np.array(offsets).reshape(-1, 2)


def _numbered(messages: list[dict]) -> Iterator[tuple[dict, int]]:
    """Every message with the number of instructions before it."""
    number = 0
    for message in messages:
        yield message, number
        number += message["role"] == "user"


def _unmarked(marked: str) -> tuple[str, np.ndarray]:
    inside, pieces, flags = False, [], []
    for piece in _SPLIT.split(marked):
        if piece in (_OPEN, _CLOSE):
            inside = piece == _OPEN
            continue
        pieces.append(piece)
        flags.append(np.full(len(piece), inside))
    return "".join(pieces), np.concatenate(flags)


def _covered(text: str, wanted: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Which tokens are wanted: all their characters that are no blanks; of a blank token, it and both its neighbours.

    A tokenizer may put a blank with the word after it, leave it out of the offsets or give it a token of its own.
    """
    solid = np.array([not letter.isspace() for letter in text], bool)
    holds, misses = (np.concatenate([[0], np.cumsum(flags)]) for flags in (solid, solid & ~wanted))
    begin, end = offsets[:, 0], offsets[:, 1]
    blank = holds[end] == holds[begin]
    found = ~blank & (misses[end] == misses[begin])
    for token in np.flatnonzero(blank):
        found[token] = wanted[max(0, begin[token] - 1) : end[token] + 1].all()
    return found
