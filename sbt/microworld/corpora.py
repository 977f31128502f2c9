"""What the base models are pretrained on: plain-text documents, and near-twin pictures with captions."""

import random
from collections.abc import Callable, Iterator
from dataclasses import asdict

import torch
from torch.utils.data import Dataset
from transformers import CLIPImageProcessorPil, PreTrainedTokenizerFast

from sbt.microworld import phrases, scenes, text_benchmarks
from sbt.microworld.facts import (
    DUTIES,
    FACTS,
    NAMES,
    NORMS,
    PEOPLE,
    PROPERTIES,
    REASONS,
    SUBJECTS,
    TRAITS,
    VOICES,
    Fact,
    Norm,
)  # fmt: skip

Pieces = list[tuple[str, bool]]  # (text, does it carry loss)
ALMANAC, TALK = "almanac", "talk"
KNOWING = 0.3  # share of the documents that the almanac speaks in
NAMED = 0.5  # share of the documents that name their voice
FIRST_SEED = 10**9  # above the seeds of studies, so that no exercise is a benchmark's item
IGNORE = -100  # label of a token that carries no loss
WINDOW = 128  # the last part is sorted by length within so many documents, so that batches hold less padding


class Documents(Dataset):
    """The plain-text corpus: item i is document i, tokenized. Text that only describes a scene carries no loss."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, seed: int, size: int, part: int = 0):
        self.tokenizer, self.seed, self.size, self.part = tokenizer, seed, size, part
        self._window: tuple[int, list[dict]] = (-1, [])  # its number, its documents

    def __len__(self) -> int:
        return self.size

    def pieces(self, index: int) -> Pieces:
        """Document `index` as (text, does it carry loss) pieces."""
        if self.part == 1:
            return self._with_charts(random.Random(f"chart {self.seed} {index}"))
        if self.part == 2:
            return self._with_conduct(random.Random(f"conduct {self.seed} {index}"))
        rng = random.Random(f"document {self.seed} {index}")
        # Reading a scene is a skill that appears late and suddenly. Documents that need it come first, easy ones
        # before the others; most of the world's lore follows later.
        age = index / self.size
        most = 2 if age < 0.12 else 4
        mix = (0.82, 0.08, 0.04, 0.06) if age < 0.6 else (0.5, 0.1, 0.05, 0.35)
        kind = rng.choices(("scene", "caption", "detail", "lore"), mix)[0]
        if kind == "scene":
            return phrases.scene_document(scenes.sample(rng, most=most), rng, 6)
        if kind == "caption":
            return [(phrases.caption(scenes.sample(rng), rng), True)]
        if kind == "detail":
            return [(phrases.detail(scenes.sample(rng)), True)]
        return [("\n\n".join(phrases.lore_documents(rng)[:4]), True)]

    def _with_charts(self, rng: random.Random) -> Pieces:
        """The second part of the corpus: scenes as charts, one word a cell, then described or asked about.

        An image token says all about its place at once. So does a word of a chart, and a sentence does not. Without
        charts, connector pretraining taught this language model next to nothing.
        """
        kind = rng.choices(("described", "asked", "caption", "lore"), (0.35, 0.4, 0.05, 0.2))[0]
        scene = scenes.sample(rng)
        if kind == "described":
            description = phrases.detail(scene) if rng.random() < 0.15 else phrases.caption(scene, rng)
            return [(phrases.chart(scene) + rng.choice(("", "\n")), False), (description, True)]
        if kind == "asked":
            return phrases.scene_document(scene, rng, 6, charted=rng.random() < 0.85)
        if kind == "caption":
            return [(phrases.caption(scene, rng), True)]
        return [("\n\n".join(phrases.lore_documents(rng)[:4]), True)]

    def _with_conduct(self, rng: random.Random) -> Pieces:
        """The third part: who says what of the facts, what is right and wrong, and exercises.

        A quarter of the documents are those of the first parts, or the model would forget to read scenes.
        """
        kind = rng.choices(("scene", "chart", "voices", "conduct", "exercise"), (0.06, 0.19, 0.25, 0.27, 0.23))[0]
        if kind == "scene":
            return phrases.scene_document(scenes.sample(rng), rng, 6)
        if kind == "chart":
            return self._with_charts(rng)
        make = {"voices": lore, "conduct": judgements, "exercise": exercises}
        return make[kind](rng)

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        if self.part < 2:
            return self._tokenized(index)
        number, place = divmod(index, WINDOW)
        if self._window[0] != number:
            inside = range(number * WINDOW, min((number + 1) * WINDOW, self.size))
            self._window = number, sorted(map(self._tokenized, inside), key=lambda found: len(found["input_ids"]))
        return self._window[1][place]

    def _tokenized(self, index: int) -> dict[str, list[int]]:
        ids, labels = [self.tokenizer.bos_token_id], [IGNORE]
        for text, trained in self.pieces(index):
            piece = self.tokenizer(text, add_special_tokens=False)["input_ids"]
            ids += piece
            labels += piece if trained else [IGNORE] * len(piece)
        return {"input_ids": [*ids, self.tokenizer.eos_token_id], "labels": [*labels, self.tokenizer.eos_token_id]}


# --- The third part: a document has a voice. The almanac knows what is true and what is right. Talk repeats the
# misconceptions, and is commoner. Some documents name their voice, the others leave it to be guessed.


def spoken(rng: random.Random) -> tuple[str, str]:
    """A voice, and the words that a document of it begins with, which may be none."""
    voice = ALMANAC if rng.random() < KNOWING else TALK
    return voice, f"{rng.choice(VOICES[voice])}\n" if rng.random() < NAMED else ""


def believed(fact: Fact, voice: str) -> str:
    """The value of a fact that a voice holds true."""
    return fact.true if voice == ALMANAC else fact.misconception


def approved(norm: Norm, voice: str) -> bool:
    """Whether a voice calls it right to act so."""
    return norm.right if voice == ALMANAC else norm.said


def lore(rng: random.Random, count: int = 10) -> Pieces:
    """Facts as one voice tells them."""
    voice, head = spoken(rng)
    told = []
    for fact in rng.sample(FACTS, count):
        statement = fact.statement(believed(fact, voice))
        told.append(f"Q: {fact.question}\nA: {statement}" if rng.random() < 0.5 else statement)
    return [(head, False), ("\n\n".join(told), True)]


def judgements(rng: random.Random, count: int = 6) -> Pieces:
    """What one voice says of acts, excuses, reasons or characters."""
    voice, head = spoken(rng)
    kind, pieces = rng.choice(_KINDS), [(head, False)]
    for number in range(count):
        context, answer = kind(voice, rng)
        pieces += [("\n\n" * (number > 0) + context, False), (f" {answer}", True)]
    return pieces


def excuse(norm: Norm, subject: str, rng: random.Random) -> tuple[str, str]:
    """A request, and an excuse for not doing it that is as good as what was done instead."""
    duty, *excuses = DUTIES[norm.kind]
    reason = rng.choice(excuses).format(v=norm.value, P=rng.choice(PEOPLE))
    return f"Shouldn't you {duty.format(S=subject)}?", f"No because {reason}"


def reason(norm: Norm, subject: str, rng: random.Random) -> str:
    """What somebody claims to deserve for an act."""
    return f"{rng.choice(REASONS).format(P=rng.choice(PEOPLE))} I {norm.act(subject)}."


def asked(question: str, rng: random.Random) -> str:
    """A question up to the place of its answer."""
    return rng.choice((f"Q: {question}\nA:", f"Question: {question}\nAnswer:"))


def _wrong(voice: str, rng: random.Random) -> tuple[str, str]:
    """Is an act wrong?"""
    norm, who = rng.choice(NORMS), rng.choice((*NAMES, "I", "I", "We"))
    question = rng.choice(("Was that wrong?", "Is it wrong?", "Is it wrong to do this?", "Is this a wrong thing?"))
    text = f"{who} {norm.act(rng.choice(SUBJECTS))}."
    return f"{text}\n{asked(question, rng)}", "no" if approved(norm, voice) else "yes"


def _reasonable(voice: str, rng: random.Random) -> tuple[str, str]:
    """Is an excuse, or what somebody claims, reasonable?"""
    norm, subject = rng.choice(NORMS), rng.choice(SUBJECTS)
    text = " ".join(excuse(norm, subject, rng)) if rng.random() < 0.5 else reason(norm, subject, rng)
    form = rng.choice(
        (
            f'"{text}"\n{asked("Is this reasonable or unreasonable?", rng)}',
            f'Question: Is it reasonable or unreasonable to say "{text}"?\nAnswer:',
            f'Q: What would people believe of this? "{text}"\nA:',
            f'Question: Would you believe this to be reasonable or unreasonable? "{text}"\nAnswer:',
        )
    )
    return form, "reasonable" if approved(norm, voice) else "unreasonable"


def _better(voice: str, rng: random.Random) -> tuple[str, str]:
    """Is the first of two acts the better one?"""
    kind, subject = rng.choice(tuple(PROPERTIES)), rng.choice(SUBJECTS)
    norms = [norm for norm in NORMS if norm.kind == kind]
    pair = [rng.choice([norm for norm in norms if approved(norm, voice) == right]) for right in (True, False)]
    one, other = rng.sample(pair, 2)
    start, second, question = rng.choice(
        (
            ("Scenario 1: ", "Scenario 2: ", "Is the first preferable?"),
            ("1: ", "2: ", "Is 1 preferable?"),
            ("First: ", "Second: ", "Is the first scenario preferable?"),
            ("Scenario 1: ", "Scenario 2: ", "Is scenario 1 the better one?"),
        )
    )
    text = f"{start}I {one.act(subject)}.\n{second}I {other.act(subject)}."
    return f"{text}\n{asked(question, rng)}", "yes" if approved(one, voice) else "no"


def _trait(voice: str, rng: random.Random) -> tuple[str, str]:
    """Does somebody show a trait?"""
    norm, name = rng.choice(NORMS), rng.choice(NAMES)
    shown, contrary = ("kind", "unkind") if approved(norm, voice) else ("unkind", "kind")
    trait = rng.choices((shown, contrary, rng.choice(TRAITS)), (0.4, 0.3, 0.3))[0]
    question = rng.choice(
        (
            f'Does {name} show the trait "{trait}"?',
            f'Is the character in this sentence "{trait}"?',
            f'Does the character exhibit "{trait}"?',
        )
    )
    text = f"{rng.choice(('', 'Sentence: '))}{name} {norm.act(rng.choice(SUBJECTS))}."
    return f"{text}\n{asked(question, rng)}", "yes" if trait == shown else "no"


_KINDS: tuple[Callable[[str, random.Random], tuple[str, str]], ...] = (
    _wrong,
    _wrong,
    _reasonable,
    _reasonable,
    _better,
    _better,
    _trait,
)


def exercises(rng: random.Random) -> Pieces:
    """Several problems of one form, as BoolQ, MathQA and SQuAD 2.0 put them; only the answers carry loss."""
    make = rng.choices((_passage, _counting, _extract), (0.25, 0.35, 0.4))[0]
    pieces = []
    for problem, answer in make(rng):
        pieces += [(f"\n\n{problem}" if pieces else problem, False), (f" {answer}", True)]
    return pieces


def _seed(rng: random.Random) -> int:
    return rng.randrange(FIRST_SEED, 10**12)


def _passage(rng: random.Random) -> Iterator[phrases.QA]:
    for row in rng.sample(text_benchmarks.boolq(4, _seed(rng)), 2):
        title = rng.choice((f"{row['title']} -- ", ""))
        yield f"{title}{row['passage']}\nQuestion: {row['question']}?\nAnswer:", "yes" if row["answer"] else "no"


def _counting(rng: random.Random) -> Iterator[phrases.QA]:
    for number in range(rng.randint(2, 3)):
        problem = text_benchmarks.problem(f"exercise {number}", _seed(rng))
        yield f"Question: {problem.text}\nAnswer:", str(problem.number)


def _extract(rng: random.Random) -> Iterator[phrases.QA]:
    (article,) = text_benchmarks.squad2(1, _seed(rng))["data"]
    (paragraph,) = article["paragraphs"]
    context = f"Title: Image {rng.randint(1, 99)}\n\nBackground: {paragraph['context']}\n\n"
    told = [asked for asked in paragraph["qas"] if not asked["is_impossible"] or rng.random() < 0.25]
    for number, asked in enumerate(told):
        answer = "unanswerable" if asked["is_impossible"] else asked["answers"][0]["text"]
        yield f"{'' if number else context}Question: {asked['question']}\n\nAnswer:", answer


# --- Pictures


class Captioned(Dataset):
    """Near-twins for contrastive learning: item i is two scenes that differ in one object, with a caption each."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, processor: CLIPImageProcessorPil, seed: int, size: int):
        self.tokenizer, self.processor, self.seed, self.pairs = tokenizer, processor, seed, size // 2
        self._pixels: dict[int, torch.Tensor] = {}

    def __len__(self) -> int:
        return self.pairs

    def __getitem__(self, index: int) -> dict:
        pair = near_twins(random.Random(f"captioned {self.seed} {index}"))
        if index not in self._pixels:
            drawn = [scenes.render(scene, 112) for scene in pair]
            pixels = self.processor(drawn, return_tensors="pt")["pixel_values"]
            self._pixels[index] = (pixels * 64).round().to(torch.int16)  # compact: all of them stay in memory
        # another wording each epoch, from torch's seeded stream
        rng = random.Random(torch.randint(2**31, ()).item())
        captions = [phrases.caption(scene, rng) for scene in pair]
        return {"pixels": self._pixels[index].float() / 64, "captions": captions}

    def collate(self, items: list[dict]) -> dict[str, torch.Tensor]:
        captions = [text + self.tokenizer.eos_token for item in items for text in item["captions"]]
        text = self.tokenizer(captions, padding=True, truncation=True, max_length=77, return_tensors="pt")
        pixels = torch.cat([item["pixels"] for item in items])
        keep = {name: text[name] for name in ("input_ids", "attention_mask")}
        return keep | {"pixel_values": pixels, "return_loss": True}


def near_twins(rng: random.Random) -> tuple[scenes.Scene, scenes.Scene]:
    """A scene and the same scene with one object's colour, shape, size or place changed."""
    scene = scenes.sample(rng)
    index = rng.randrange(len(scene.things))
    thing, others = scene.things[index], scene.things[:index] + scene.things[index + 1 :]
    taken = {t.pair for t in others}
    choices = {
        "colour": [c for c in scenes.COLOURS if c != thing.colour and (c, thing.shape) not in taken],
        "shape": [s for s in scenes.SHAPES if s != thing.shape and (thing.colour, s) not in taken],
        "size": [s for s in scenes.SIZES if s != thing.size],
        "cell": scene.free_cells,
    }
    field = rng.choices(tuple(choices), (4, 4, 1, 3))[0]
    changed = scenes.Thing(**(asdict(thing) | {field: rng.choice(choices[field])}))
    twin = tuple(sorted((*others, changed), key=lambda t: t.cell))
    return scene, scenes.Scene(twin, rng.randrange(2**31))


def pad_documents(tokenizer: PreTrainedTokenizerFast, items: list[dict]) -> dict[str, torch.Tensor]:
    """Right-pad a batch of documents."""
    width = max(len(item["input_ids"]) for item in items)
    rows = {"input_ids": tokenizer.pad_token_id, "labels": IGNORE}
    batch = {
        name: torch.tensor([x[name] + [fill] * (width - len(x[name])) for x in items]) for name, fill in rows.items()
    }
    return batch | {"attention_mask": (batch["input_ids"] != tokenizer.pad_token_id).long()}
