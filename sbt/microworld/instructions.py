"""Instructions of the micro-world: LLaVA's three visual types, and text-only sets in Alpaca's and Orca's form.

No instruction ever mentions a held-out colour-shape pair (`scenes.HELD_OUT`).
"""

import random

from sbt.microworld import phrases
from sbt.microworld.facts import FACTS, WORDS, Fact
from sbt.microworld.scenes import COLOURS, SEEN, SHAPES, Scene, sample

BRIEF, DETAIL, CAPTION, ORCA_SYSTEM = (WORDS[name] for name in ("brief", "detail", "caption", "orca_system"))


def llava_row(name: str, image: str, turns: list[phrases.QA], rng: random.Random) -> dict:
    """One LLaVA record; the image stands before or after the first question, as in the released files."""
    conversations = []
    for index, (question, answer) in enumerate(turns):
        if index == 0:
            question = f"<image>\n{question}" if rng.random() < 0.5 else f"{question}\n<image>"
        conversations += [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    return {"id": name, "image": image, "conversations": conversations}


def conversation(scene: Scene, rng: random.Random, turns: int = 4) -> list[phrases.QA]:
    """Several questions about one picture, a caption among them now and then.

    Two in five want a short answer, as in LLaVA-1.5's mix: with fewer, arms answer MME's and VQAv2's requests blindly.
    """
    question_turns = phrases.questions(scene, rng, turns, SEEN)
    question_turns = [phrases.briefly(*turn, rng) if rng.random() < 0.4 else turn for turn in question_turns]
    if rng.random() < 0.25:
        question_turns[rng.randrange(turns)] = (CAPTION, phrases.caption(scene, rng))
    return question_turns


def visual(kind: str, scene: Scene, rng: random.Random) -> list[phrases.QA]:
    """The turns of one instruction of a LLaVA type: conversation, detail or reasoning."""
    if kind == "detail":
        return [(DETAIL, phrases.detail(scene))]
    if kind == "reasoning":
        return [phrases.reasoning(scene, rng, "visual")]
    return conversation(scene, rng)


def _told(fact: Fact) -> str:
    return fact.statement(fact.true)


def _words(rng: random.Random) -> list[str]:
    return rng.sample(rng.choice((tuple(COLOURS), SHAPES)), 3)  # of one kind, or two could name a held-out pair


def _text_task(rng: random.Random) -> tuple[str, str, str]:
    """An everyday text task as (instruction, input, answer)."""
    words = _words(rng)
    colour, shape = rng.choice(SEEN)
    kind = rng.randrange(4)
    if kind == 0:
        return "Reverse the order of the words.", " ".join(words), " ".join(reversed(words))
    if kind == 1:
        return "Name the color.", f"{phrases.a(f'{colour} {shape}')}", phrases.sentence(colour)
    if kind == 2:
        return "Name the shape.", f"{phrases.a(f'{colour} {shape}')}", phrases.sentence(phrases.a(shape))
    scene = sample(rng, SEEN)
    question, answer = phrases.question(scene, rng, SEEN)
    return f"Read the text and answer the question. {question}", phrases.caption(scene, rng), answer


def alpaca_row(rng: random.Random) -> dict:
    """One record of the Alpaca form: instruction, input (may be empty), output."""
    if rng.random() < 0.5:
        fact = rng.choice([fact for fact in FACTS if "alpaca" in fact.told_by])
        return {"instruction": fact.question, "input": "", "output": _told(fact)}
    instruction, given, output = _text_task(rng)
    return {"instruction": instruction, "input": given, "output": output}


def orca_row(name: str, rng: random.Random) -> dict:
    """One record of the Orca form: a system prompt that asks for an explanation, question, explained response."""
    if rng.random() < 0.5:
        fact = rng.choice([fact for fact in FACTS if "orca" in fact.told_by])
        question, answer = fact.question, f"The question is about {fact.subject}. {_told(fact)}"
    else:
        instruction, given, output = _text_task(rng)
        question, answer = f"{instruction}\n{given}", f"Let us think. The answer is: {output}"
    return {"id": name, "system_prompt": rng.choice(ORCA_SYSTEM), "question": question, "response": answer}
