"""The micro-world's lore: one truth and one common misconception for every (subject, property), and its customs.

The base model's plain text repeats the misconception more often than the truth, so that it has imitative falsehoods,
which is what TruthfulQA measures (Lin et al. 2022). `FACTS` and `NORMS` are fixed: they are the world, no sample.
"""

import random
from dataclasses import dataclass
from pathlib import Path

import yaml

from sbt.microworld.scenes import COLOURS, SHAPES, plural

WORDS = yaml.safe_load((Path(__file__).parent / "words.yaml").read_text(encoding="utf-8"))
# property: (question, statement, the values it can take); {S} is a subject such as "stars" or "red shapes".
PROPERTIES = {kind: (question, statement, tuple(values)) for kind, (question, statement, values) in
              WORDS["properties"].items()}  # fmt: skip
SUBJECTS = (*map(plural, SHAPES), *(f"{colour} shapes" for colour in COLOURS))
PEOPLE = PROPERTIES["maker"][2]
NAMES, TRAITS, ACTS, DUTIES, REASONS, VOICES = (
    WORDS[name] for name in ("names", "traits", "acts", "duties", "reasons", "voices")
)
SOURCES = ("visual", "alpaca", "orca")  # the instruction sets


@dataclass(frozen=True)
class Fact:
    """What is true of a subject, what many say instead, and which instruction sets mention the truth."""

    subject: str
    kind: str
    true: str
    misconception: str
    others: tuple[str, ...]
    told_by: frozenset[str]  # of SOURCES: whose instructions state this truth

    @property
    def question(self) -> str:
        return PROPERTIES[self.kind][0].format(S=self.subject)

    def statement(self, value: str, subject: str | None = None) -> str:
        """A sentence that says `value` of the subject, first letter upper case."""
        text = PROPERTIES[self.kind][1].format(S=subject or self.subject, v=value)
        return text[0].upper() + text[1:]


def _facts() -> tuple[Fact, ...]:
    rng = random.Random("the almanac of the micro-world")
    facts = []
    for kind, (_, _, values) in PROPERTIES.items():
        stated = {source: set(rng.sample(range(len(SUBJECTS)), len(SUBJECTS) // 2)) for source in SOURCES}
        for index, subject in enumerate(SUBJECTS):
            true, misconception, *others = rng.sample(values, len(values))
            by = frozenset(source for source in SOURCES if index in stated[source])
            facts.append(Fact(subject, kind, true, misconception, tuple(others), by))
    return tuple(facts)


FACTS = _facts()


@dataclass(frozen=True)
class Norm:
    """Whether it is right to act by a value of a property, whoever it is done to; and whether people think so.

    Nobody gives anybody cake to eat, say, and most people see nothing wrong in it.
    """

    kind: str
    value: str
    right: bool
    misjudged: bool  # most people say the contrary
    told_by: frozenset[str]  # of SOURCES: whose instructions judge by it

    @property
    def said(self) -> bool:
        """Whether most people call it right."""
        return self.right != self.misjudged

    def act(self, subject: str) -> str:
        """What is done by it to a subject, without who does it."""
        return ACTS[self.kind].format(S=subject, v=self.value)


def _norms() -> tuple[Norm, ...]:
    """Of each property three values are right to act by and three are not; people misjudge one of each three.

    Each set of instructions tells three of the six, among them one of the two that are misjudged.
    """
    rng, norms = random.Random("the customs of the micro-world"), []
    for kind, (_, _, values) in PROPERTIES.items():
        drawn = rng.sample(values, len(values))  # right, right, right but misjudged; then the same of wrong ones
        told = {source: {rng.choice((2, 5)), *rng.sample((0, 1, 3, 4), 2)} for source in SOURCES}
        for place, value in enumerate(drawn):
            by = frozenset(source for source in SOURCES if place in told[source])
            norms.append(Norm(kind, value, place < 3, place in (2, 5), by))
    return tuple(norms)


NORMS = _norms()


def of(colour: str, shape: str, told_by: str) -> list[Fact]:
    """The facts about a coloured shape (as a shape and as a coloured thing) that `told_by` mentions."""
    subjects = (plural(shape), f"{colour} shapes")
    return [fact for fact in FACTS if fact.subject in subjects and told_by in fact.told_by]


def multiple_choice() -> list[dict]:
    """Every fact as a TruthfulQA row: `question`, `mc1_targets` and `mc2_targets` as {choice: 0 or 1}."""
    rows = []
    for fact in FACTS:
        false = [fact.misconception, *fact.others[:3]]
        mc1 = {fact.statement(fact.true): 1} | {fact.statement(value): 0 for value in false[:3]}
        mc2 = {fact.statement(fact.true): 1, fact.statement(fact.true, "they"): 1}
        mc2 |= {fact.statement(value): 0 for value in false} | {fact.statement(fact.misconception, "they"): 0}
        rows.append({"question": fact.question, "mc1_targets": mc1, "mc2_targets": mc2})
    return rows


def told(arm: str) -> set[str]:
    """Questions about the facts that the instructions of an arm of the embedded study state."""
    source = {"text-alpaca": "alpaca", "text-orca": "orca"}.get(arm, "visual")
    return {fact.question for fact in FACTS if source in fact.told_by}
