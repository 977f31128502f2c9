"""Prompts of the micro-world for preference alignment and judged benchmarks; an annotator and a judge that know.

Questions about new pictures, about scenes told in words, and about the world's facts. The truth being known, the
annotator's noise is a parameter: how much of it does preference alignment survive?

Most questions are open (what, where, how many): an arm that says yes to everything answers half of the others.
"""

import random
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pandas as pd

from sbt.data.preferences import ATTRIBUTES
from sbt.microworld import phrases
from sbt.microworld.facts import FACTS
from sbt.microworld.scenes import COLOURS, SEEN, SHAPES, Scene, plural, render, sample
from sbt.report import stats, tables
from sbt.utils.errors import ParameterError

READ = "Read the text and answer the question."
PLACES = ("top", "bottom", "left", "right", "center")
NAMED = {*COLOURS, *SHAPES, *map(plural, SHAPES), *phrases.NUMBERS, *PLACES}  # what an open answer is judged by


def prompts(folder: Path, split: str, *, pictures: int, texts: int, seed: int) -> list[dict]:
    """Prompts {"id", "image": file or "", "question", "kind", "answer", "right", "wrong"}; pictures go to `folder`.

    `answer` is a whole one; `right` and `wrong` are what decides: yes and no, a fact's truth and its misconception, or
    what an open answer names ("red star", "top left", "two"), without a wrong one. Splits share neither scenes nor
    facts: "train" has every other fact, all others have the rest.
    """
    made = [prompt for _, prompt in _shown(folder, split, pictures, seed)]
    facts = [fact for place, fact in enumerate(FACTS) if (place % 2 == 0) == (split == "train")][: texts // 2]
    for number, fact in enumerate(facts):
        told = {"question": fact.question, "answer": fact.statement(fact.true)}
        told |= {"right": fact.true.lower(), "wrong": fact.misconception.lower()}
        made.append({"id": f"{split}-fact-{number}", "image": "", "kind": "fact", **told})
    for number in range(texts - len(facts)):
        name = f"{split} words {number}"
        scene, question = _scene(f"{seed} {name}", number)
        question["question"] = f"{READ} {question['question']}\n{phrases.caption(scene, random.Random(name))}"
        made.append({"id": f"{split}-words-{number}", "image": "", "kind": "words", **question})
    return made


def _shown(folder: Path, split: str, count: int, seed: int) -> Iterator[tuple[Scene, dict]]:
    """Scenes, each drawn to a file of `folder`, and a prompt about each."""
    for number in range(count):
        scene, question = _scene(f"{seed} {split} picture {number}", number)
        file = folder / f"{split}_{number:06d}.png"
        if not file.is_file():
            folder.mkdir(parents=True, exist_ok=True)
            render(scene).save(file)
        yield scene, {"id": f"{split}-picture-{number}", "image": str(file), "kind": "picture", **question}


def _scene(name: str, number: int) -> tuple[Scene, dict]:
    """A scene and a question about it: in turn what or where one thing is, how many there are, and what is there.

    The last kind is answered by yes and by no in turn.
    """
    rng = random.Random(name)
    scene = sample(rng, SEEN, least=2)
    if number % 3 < 2:
        question, answer = (phrases.about_one, phrases.count)[number % 3](scene, rng)
        return scene, {"question": question, "answer": answer, "right": answer.rstrip(".").lower(), "wrong": ""}
    there = number % 2 == 0
    pair = rng.choice([thing.pair for thing in scene.things]) if there else phrases.absent(scene, rng, SEEN)
    return scene, _whether(scene, pair)


def _whether(scene: Scene, pair: tuple[str, str]) -> dict:
    """The question whether a pair is in a scene."""
    question, answer = phrases.existence(scene, pair)
    right, wrong = ("yes", "no") if scene.has(pair) else ("no", "yes")
    return {"question": question, "answer": answer, "right": right, "wrong": wrong}


def _named(text: str) -> set[str]:
    return set(re.findall(r"[a-z]+", text.lower())) & NAMED


def right(prompt: dict, answer: str) -> float:
    """1.0 where an answer says what is so, else 0.0.

    It begins with the right word (yes, no), names a fact's truth alone, or names what it should and nothing else but
    words of the question. Asked how many there are, the micro-world says "No." where there is none (`phrases.count`).
    """
    words = re.findall(r"[a-z]+", answer.lower())
    if prompt["kind"] == "fact":
        return float(prompt["right"] in words and prompt["wrong"] not in words)
    if prompt["wrong"]:
        return float(words[:1] == [prompt["right"]])
    asked, wanted = prompt["question"].split("\n")[0], _named(prompt["right"])
    return float(_named(answer) - (_named(asked) - wanted) == wanted)


def check(asked: Sequence[dict]) -> None:
    """ParameterError for a question whose truth is not known, which rules cannot annotate."""
    for prompt in asked:
        if "right" not in prompt:
            raise ParameterError(f"{prompt['id']}: the rules know the micro-world alone. Set annotator, or table")


def annotate(
    asked: Sequence[dict], answers: Sequence[Sequence[str]], *, noise: float = 0.0, seed: int = 0
) -> list[dict]:
    """Rows of a preference table: the answers to each prompt with ratings by rules that know the truth, and their own.

    With probability `noise` an answer's ratings are drawn at random instead.
    """
    rows = []
    for prompt, said in zip(asked, answers, strict=True):
        rng = random.Random(f"{seed} {prompt['id']}")
        ratings = []
        for answer in said:
            drawn = {name: rng.randrange(5) for name in ATTRIBUTES}
            ratings.append(drawn if rng.random() < noise else rate(prompt, answer))
        told = {name: prompt[name] for name in ("id", "image", "question")}
        own = {"annotator": f"rules, noise {noise:g}", "annotator_answer": prompt["answer"]}
        rows.append({**told, "answers": list(said), "ratings": ratings, **own})
    return rows


def rate(prompt: dict, answer: str) -> dict[str, int]:
    """An answer's ratings, 0 to 4: what it says counts most, then whether it is a whole sentence, then its length."""
    words = re.findall(r"[A-Za-z]+", answer)
    said = {word.lower() for word in words}
    true, tried = right(prompt, answer), bool(said & {*prompt["right"].split(), prompt["wrong"]})
    whole = bool(re.fullmatch(r"[A-Z].*[.!?]", answer.strip(), re.DOTALL))
    repeats = any(one == other for one, other in zip(words, words[1:], strict=False))
    length = min(4, len(words) // 3)
    return {
        "helpfulness": 4 if true else 1 if tried else 0,
        "correctness": 4 if true else 0,
        "coherence": 0 if not words else 2 * whole + 2 * (not repeats),
        "complexity": min(4, len(said) // 3),
        "verbosity": length,
    }


def judged(asked: Sequence[dict], answers: Mapping[str, Sequence[str]]) -> list[dict]:
    """A record for each arm and prompt: arm, id, kind, answer, right (1, 0; None: not known), empty, characters."""
    return [
        {"arm": arm, "id": prompt["id"], "kind": prompt.get("kind", "question"), "answer": answer,
         "right": right(prompt, answer) if "right" in prompt else None,
         "empty": not answer.strip(), "characters": len(answer)}
        for arm, said in answers.items()
        for prompt, answer in zip(asked, said, strict=True)
    ]  # fmt: skip


def metric_rows(records: pd.DataFrame, *, seed: int = 0) -> list[dict]:
    """Rows of the share of right answers, by arm and kind of prompt, with 95 % intervals."""
    named = {"benchmark": "preference_heldout", "metric": "right", "protocol": "standard", "template_hash": ""}
    return [
        stats.metric_row(list(part["right"]), arm=arm, subset=kind, seed=seed, **named)
        for (arm, kind), part in records.dropna(subset="right").groupby(["arm", "kind"], sort=False)
    ]


def compared(records: pd.DataFrame, arm: str, *, seed: int = 0) -> pd.DataFrame:
    """Paired differences of `arm` from every other arm, on pictures and on texts: arm, benchmark, delta, low, high."""
    records = records.dropna(subset="right")
    texts = records["kind"].map(lambda kind: "pictures" if kind == "picture" else "texts")
    scores = records.assign(on=texts).pivot(index=["on", "id"], columns="arm", values="right")
    others = [name for name in records["arm"].unique() if name != arm]
    return pd.DataFrame(
        {"arm": other, "benchmark": on, **stats.paired(list(part[arm]), list(part[other]), seed=seed)}
        for other in others
        for on, part in scores.groupby(level="on", sort=False)
    )


def answer(differences: pd.DataFrame, arm: str, others: Sequence[str], characters: Mapping[str, float]) -> list[str]:
    """What the differences of `arm` from `others` say, a clause for each that is there; and how long answers are."""
    clauses = []
    for other in others:
        rows = differences[differences["arm"] == other].to_dict("records") if len(differences) else []
        told = [f"{tables.verdict(row)} it on {row['benchmark']} ({tables.signed(row)})" for row in rows]
        clauses += [f"beside {other}, {' and '.join(told)}"] if told else []
    said = [f"Right answers of {arm} to held-out questions: {'; '.join(clauses)}"] if clauses else []
    long = ", ".join(f"{characters[name]:.0f} of {name}" for name in (arm, *others) if name in characters)
    return [*said, f"Characters of an answer: {long}"]


def conversations(count: int, seed: int = 0) -> list[dict]:
    """Questions in MT-Bench's form about facts and scenes told in words; `truth` is what is right, turn by turn.

    Facts are asked in the category stem (temperature 0.1), scenes in extraction (0), some with a reference answer in
    reasoning. The second turn asks about another fact, or again about the scene.
    """
    facts = [one for one in prompts(Path(), "judged", pictures=0, texts=2 * count, seed=seed) if one["kind"] == "fact"]
    made = []
    for number in range(count):
        category = ("stem", "extraction", "reasoning")[number % 3]
        if category == "stem":
            turns = [facts[(number // 3 * 2 + turn) % len(facts)] for turn in (0, 1)]
        else:
            turns = _scene_turns(f"{seed} conversation {number}", number)
        row = {"question_id": number, "category": category, "turns": [turn["question"] for turn in turns]}
        row["truth"] = [{name: turn[name] for name in ("kind", "question", "right", "wrong")} for turn in turns]
        reference = {"reference": [f"{turn['right'].capitalize()}." for turn in turns]}
        made.append(row | (reference if category == "reasoning" else {}))
    return made


def _scene_turns(name: str, number: int) -> list[dict]:
    """Two questions about one scene told in words; only the first one tells it."""
    scene, first = _scene(name, number)
    told = phrases.caption(scene, random.Random(name))
    pair = phrases.absent(scene, random.Random(name), SEEN) if number % 2 == 0 else scene.things[0].pair
    first["question"] = f"{READ} {first['question']}\n{told}"
    return [{**turn, "kind": "words"} for turn in (first, _whether(scene, pair))]


def instructions(count: int, seed: int = 0) -> list[dict]:
    """Instructions in AlpacaEval's form; the reference's output is right every other time. `truth` as above."""
    return [
        {"dataset": one["kind"], "instruction": one["question"], "generator": "right every other time", "truth": one,
         "output": _reference(one, number)}
        for number, one in enumerate(prompts(Path(), "judged", pictures=0, texts=count, seed=seed))
    ]  # fmt: skip


def pictures(folder: Path, count: int, seed: int = 0) -> list[dict]:
    """Questions about pictures in the forms of LLaVA-Bench and of MM-Vet; pictures go to `folder`. `truth` as above.

    The reference's answer is right every other time, as in `instructions`.
    """
    made = []
    for number, (scene, one) in enumerate(_shown(folder, "judged", count, seed)):
        chat = {"text": one["question"], "category": ("conv", "complex")[number % 2]}
        chat |= {"reference": _reference(one, number), "caption": phrases.caption(scene, random.Random(number))}
        vet = {"question": one["question"], "answer": one["right"], "imagename": Path(one["image"]).name}
        vet |= {"capability": ["rec", "spat"] if len(scene.things) > 2 else ["rec"]}
        made.append({"question_id": number, "image": one["image"], "truth": one, **chat, **vet})
    return made


def _reference(one: dict, number: int) -> str:
    """Two right answers, then two wrong ones, and so on: questions alternate in other rhythms."""
    said = one["right"] if number % 4 < 2 else one["wrong"] or "I do not know"
    return f"{said.capitalize()}."


def options(folder: Path, count: int, seed: int = 0) -> list[dict]:
    """The same questions as `mmbench.load` gives them, with the options Yes and No."""
    return [
        {"index": one["question_id"], "question": one["text"], "hint": "", "options": ["Yes", "No"],
         "label": int(one["truth"]["right"] == "no"), "category": one["category"], "image": one["imagename"]}
        for one in pictures(folder, count, seed)
        if one["truth"]["wrong"]  # the others have no two options
    ]  # fmt: skip


def judge(benchmark: str, case: dict) -> str:
    """The verdict of rules that know what is right, in the words that the benchmark's parser reads.

    Of two answers that are equally good the one shown first wins, as with many a judge: ask in both orders.
    """
    truth, order = case["item"]["truth"], case["row"]["order"]
    truth = truth[case["row"]["turn"] - 1] if isinstance(truth, list) else truth
    own, other = (_grade(truth, case[name]) for name in ("answer", "other"))
    shown = (own, other) if order == "first" else (other, own)
    ranks = (1, 2) if shown[0] >= shown[1] else (2, 1)
    return {
        "mtbench": f"The answer is {'right' if right(truth, case['answer']) else 'not right'}. Rating: [[{own:g}]]",
        "alpacaeval": str([{"model": f"model_{n}", "rank": rank} for n, rank in enumerate(ranks, start=1)]),
        "llavabench": f"{shown[0]:g} {shown[1]:g}\nBy rules that know what is in the picture.",
        "mmvet": f"{right(truth, case['answer']):.1f}",
    }[benchmark]


def _grade(truth: dict, answer: str) -> int:
    """1 to 10, from the three ratings that the annotator sums."""
    return max(1, round(10 * sum(rate(truth, answer)[name] for name in ATTRIBUTES[:3]) / 12))
