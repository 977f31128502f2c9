"""Instructions of the micro-world: LLaVA's three visual types, and text-only sets in Alpaca's and Orca's form.

No instruction ever mentions a held-out colour-shape pair (`scenes.HELD_OUT`).
"""

import random

from sbt.benchmarks.vqav2.task import SHORT
from sbt.microworld import phrases
from sbt.microworld.facts import FACTS, NORMS, SUBJECTS, WORDS
from sbt.microworld.scenes import COLOURS, SEEN, SHAPES, Scene, sample

JUDGED = 0.4  # share of what is told that is not a fact but a judgement of an act
STYLES = {"mixed": 0.4, "sentence": 0.0, "short": 1.0}  # share of a conversation's answers that are short
BRIEF, DETAIL, CAPTION, ORCA_SYSTEM = (WORDS[name] for name in ("brief", "detail", "caption", "orca_system"))


def llava_row(name: str, image: str, turns: list[phrases.QA], rng: random.Random) -> dict:
    """One LLaVA record; the image stands before or after the first question, as in the released files."""
    conversations = []
    for index, (question, answer) in enumerate(turns):
        if index == 0:
            question = f"<image>\n{question}" if rng.random() < 0.5 else f"{question}\n<image>"
        conversations += [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    return {"id": name, "image": image, "conversations": conversations}


def conversation(scene: Scene, rng: random.Random, turns: int = 4, style: str = "mixed") -> list[phrases.QA]:
    """Several questions about one picture, a caption among them now and then.

    Two in five want a short answer, as in LLaVA-1.5's mix: with fewer, arms answer MME's and VQAv2's requests blindly.
    """
    question_turns = phrases.questions(scene, rng, turns, SEEN)
    brief = STYLES[style]
    question_turns = [phrases.briefly(*turn, rng) if rng.random() < brief else turn for turn in question_turns]
    question_turns = [beside(*turn, scene, rng) if rng.random() < 0.35 else turn for turn in question_turns]
    if rng.random() < 0.25 and style != "short":
        question_turns[rng.randrange(turns)] = (CAPTION, phrases.caption(scene, rng))
    return question_turns


def beside(question: str, answer: str, scene: Scene, rng: random.Random) -> phrases.QA:
    """The question after a remark about another object of the picture, as people's questions say what they see.

    Unchanged where every object is spoken of already.
    """
    said = f"{question} {answer}".lower()
    others = [t for t in scene.things if t.name not in said and phrases.place(t) not in said]
    if not others:
        return question, answer
    thing = rng.choice(others)
    return f"There is {phrases.a(thing.name)} {phrases.place(thing)}. {question}", answer


def judged(source: str, subject: str, rng: random.Random) -> phrases.QA:
    """Whether an act was wrong, by a norm that a set of instructions tells."""
    norm = rng.choice([norm for norm in NORMS if source in norm.told_by])
    verdict = "No, that was right." if norm.right else "Yes, that was wrong."
    return f"I {norm.act(subject)}. Was that wrong?", verdict


def about_an_object(scene: Scene, rng: random.Random) -> phrases.QA:
    """A question that needs the picture, and a fact or a norm: the answer names the object, then tells the truth."""
    if rng.random() >= JUDGED:
        return phrases.reasoning(scene, rng, "visual")
    thing = rng.choice(scene.things)
    where = f"the object {phrases.place(thing)}"
    question, answer = judged("visual", f"things like {where}", rng)
    question = question.replace("the things like", "things like")
    return question, f"{phrases.sentence(f'{where} is {phrases.a(thing.name)}')} {answer}"


def visual(kind: str, scene: Scene, rng: random.Random, style: str = "mixed") -> list[phrases.QA]:
    """The turns of one instruction of a LLaVA type: conversation, detail or reasoning.

    In the style "short", reasoning gives its last word alone; a description has no short form.
    """
    if kind == "detail":
        return [(DETAIL, phrases.detail(scene))]
    if kind == "reasoning":
        question, answer = about_an_object(scene, rng)
        word = answer.rstrip(".").split()[-1].lower()  # the value of a fact, or right, or wrong
        return [(f"{question}\n{SHORT}", word) if style == "short" else (question, answer)]
    return conversation(scene, rng, style=style)


def _told(source: str, rng: random.Random) -> tuple[str, str, str]:
    """What a set of instructions tells, a fact or by judging an act: its subject, a question, the answer."""
    if rng.random() < JUDGED:
        subject = rng.choice(SUBJECTS)
        return subject, *judged(source, subject, rng)
    fact = rng.choice([fact for fact in FACTS if source in fact.told_by])
    return fact.subject, fact.question, fact.statement(fact.true)


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
        _, question, answer = _told("alpaca", rng)
        return {"instruction": question, "input": "", "output": answer}
    instruction, given, output = _text_task(rng)
    return {"instruction": instruction, "input": given, "output": output}


def orca_row(name: str, rng: random.Random) -> dict:
    """One record of the Orca form: a system prompt that asks for an explanation, question, explained response."""
    if rng.random() < 0.5:
        subject, question, answer = _told("orca", rng)
        answer = f"The question is about {subject}. {answer}"
    else:
        instruction, given, output = _text_task(rng)
        question, answer = f"{instruction}\n{given}", f"Let us think. The answer is: {output}"
    return {"id": name, "system_prompt": rng.choice(ORCA_SYSTEM), "question": question, "response": answer}
