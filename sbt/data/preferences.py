"""One preference table, and every training set that is derived from it (Li, Lin, Pei, ACL 2024: mm-DPO).

A row has "id", "question", "answers" (texts) and "ratings" (an object of attributes, 0 to 4, for each answer). It may
have "image" (a file, relative to the table's folder), "annotator" (a name), "annotator_answer" (its own answer),
"rationale" and "prompt_hash". The functions are pure and seeded: the same table gives the same rows.
"""

import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from sbt.data import conversations, image_zip
from sbt.data.json_stream import reader
from sbt.utils import checks, paths
from sbt.utils.errors import DataError, ParameterError
from sbt.utils.files import read_json, read_jsonl, write_bytes
from sbt.utils.text import nearest

ATTRIBUTES = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")  # HelpSteer's, each 0 to 4
GAP = 2  # points between the best answer and a rejected one
# Which answer is rejected, and what is summed. The paper's words and its code differ; each reading is a data set.
READINGS = {
    "code": "any answer at least 2 points below the best, at random (the authors' notebook)",
    "text": "any other answer at random; the pair is dropped unless it lies 2 points below (the paper's words)",
    "worst": "the worst answer, if it lies 2 points below the best",
    "two_attributes": "as code, over helpfulness and correctness alone",
    "strict": "as code, more than 2 points below the best",
}
# findalexli/mllm-dpo: llava/eval/gen_model_answer.py; the ratings follow in the order of ATTRIBUTES
STEER = (
    "\nPlease answer the question such that your response is in the following attributes in 5-point Likert scale:\n"
)
KEPT = {"scigraphqa": 2522, "lrv": 2562}  # questions of each published set that the paper keeps, of 3,000 drawn
SOURCE = {"file": "", "images": "", "count": 0, "context": False, "within": []}
CONTEXT = ("title", "abstract", "caption", "first_mention")  # of SciGraphQA's figures


def load(file: Path | str) -> list[dict]:
    """The checked rows of a table (JSON lines), images as whole paths; DataError names file, row and what is wrong.

    A file .json is taken for the authors' steerlm.json; their standard_sft.json beside it has the annotator's answers.
    """
    path = paths.resolve(str(file))
    return check(_of_steerlm(path) if path.suffix == ".json" else prompts(path), paths.shown(path))


def _of_steerlm(path: Path) -> list[dict]:
    """The rows of the authors' training file of SteerLM: an answer a row, its ratings behind the question.

    Rows of one image and question are one row here. The annotator's own answers are those of their standard_sft.json,
    if it lies beside. DataError where a row's question does not end in ratings.
    """
    found: dict[tuple[str, str], dict] = {}
    beside = path.with_name("standard_sft.json")
    own = {(image, question): told for *_, image, question, told in _released(beside)} if beside.is_file() else {}
    for where, name, image, asked, answer in _released(path):
        question, _, told = asked.rpartition(STEER.strip())
        ratings = {name.lower(): int(value) for name, value in re.findall(r"(\w+):(\d)\b", told)}
        if sorted(ratings) != sorted(ATTRIBUTES):
            raise DataError(f"{where}: the question does not end in ratings, found {asked[-60:]!r}")
        key = image, question.strip()
        new = {"image": image, "question": key[1], "answers": [], "ratings": [], "annotator": "Gemini"}
        new |= {"annotator_answer": own[key]} if key in own else {}
        kept = found.setdefault(key, {"id": name or str(len(found)), **new})
        kept["answers"].append(answer)
        kept["ratings"].append(ratings)
    return _several(found.values())


def _released(path: Path) -> Iterator[tuple[str, str, str, str, str]]:
    """Where a row of the authors' training files is, its id or "", its picture, question and answer."""
    for where, row in checks.listed(read_json(path), paths.shown(path)):
        try:
            asked, answer = (turn["value"] for turn in row["conversations"][:2])
        except (KeyError, TypeError, ValueError):
            raise DataError(f"{where}: expected conversations of a question and an answer") from None
        image = str(path.parent / row["image"]) if row.get("image") else ""
        yield where, str(row.get("id", "")), image, asked.replace("<image>", "").strip(), answer


def _several(rows: Iterable[dict]) -> list[dict]:
    """The rows with two answers or more, ids made unique; a row with one says nothing of what is better."""
    kept = [row for row in rows if len(row["answers"]) > 1]
    times = Counter(row["id"] for row in kept)
    return [{**row, "id": f"{row['id']}-{n}"} if times[row["id"]] > 1 else row for n, row in enumerate(kept)]


def prompts(file: Path | str) -> list[dict]:
    """Rows {"id", "image", "question", ...} of a file, images as whole paths: relative ones lie below its folder."""
    path = paths.resolve(str(file))
    return [{**row, "image": str(path.parent / row["image"]) if row.get("image") else ""} for row in read_jsonl(path)]


def published(sources: Mapping[str, Mapping], folder: Path, *, seed: int = 0) -> list[dict]:
    """Questions of SciGraphQA and LRV-Instruction, drawn with the seed: rows {"id", "image", "question", "kind"}.

    `sources` gives each of "scigraphqa" and "lrv" the publisher's `file` and `images` (a folder or zip; pictures of a
    zip are copied to `folder`), and may give `count` (KEPT where left out), `within` (the first row and the one after
    the last: the authors took rows 10,000 to 13,000 of LRV's file) and `context`: what SciGraphQA tells of a figure
    stands before the question. The authors asked both ways; their words are not released, these are ours. The question
    is a row's first (findalexli/SciGraphQA: data_parsing/convert_llavav2.py), and `kind` tells LRV's negative ones,
    about what is not there. ParameterError for an unknown name or too few rows, DataError for a faulty row.
    """
    made = []
    for form, source in sources.items():
        for name, known in ((form, KEPT), *((name, SOURCE) for name in source)):
            if name not in known:
                raise ParameterError(f"questions_from: {name!r} is unknown{nearest(str(name), known)}")
        if missing := [name for name in ("file", "images") if not source.get(name)]:
            raise ParameterError(f"questions_from: {form} has no {missing[0]!r}: name the publisher's")
        made += _drawn(form, SOURCE | {"count": KEPT[form]} | dict(source), folder, random.Random(f"{seed} {form}"))
    return made


def _drawn(form: str, source: Mapping, folder: Path, rng: random.Random) -> list[dict]:
    file, places = paths.resolve(source["file"]), [paths.resolve(source["images"])] if source["images"] else []
    first, end = source["within"] or (0, float("inf"))
    # a figure of SciGraphQA may have no question; two passes, since 70,000 figures with their texts fill the memory
    asked = [
        place for place, row in reader(file)
        if first <= place < end and not (isinstance(row, dict) and row.get("q_a_pairs") == [])
    ]  # fmt: skip
    if len(asked) < source["count"]:
        raise ParameterError(f"{paths.shown(file)}: {len(asked)} questions. Set the count of {form} to fewer")
    asked, made = set(rng.sample(asked, source["count"])), []
    parse, faults, find = conversations.parser(form), conversations.Faults(file), image_zip.ImageFinder(places)
    for place, entry in reader(file):
        if place not in asked:
            continue
        if isinstance(entry, dict) and entry.get("q_a_pairs"):
            entry = {**entry, "conversations": None}
        row = parse(entry, place, faults.at(place, entry))
        image = _unpacked(conversations.place_image(row["images"][0], find, faults), folder / form)
        question = conversations.asked([row], 1)[0]["text"]
        kind = "negative" if entry.get("task") == "negative" else "positive" if form == "lrv" else "figure"
        if source["context"] and form == "scigraphqa":
            told = [f"{name.replace('_', ' ').capitalize()}: {entry[name]}" for name in CONTEXT if entry.get(name)]
            question, kind = "\n".join([*told, question]), "figure, in context"
        made.append({"id": f"{form}-{place}", "image": image, "question": question, "kind": kind})
    return made


def _unpacked(image: str, folder: Path) -> str:
    """The path of an image; one inside a zip is copied to `folder`."""
    inside = image_zip.split(image)
    if inside is None:
        return image
    return str(write_bytes(folder / Path(inside[1]).name, image_zip.open_zip(inside[0]).read(inside[1])))


def apart(rows: Sequence[dict], every: int = 10) -> tuple[list[dict], list[dict]]:
    """The questions about every tenth picture (or every tenth question without one), and all others."""
    about = [row["image"] or row["id"] for row in rows]
    taken = set(list(dict.fromkeys(about))[::every])
    held, others = [], []
    for row, one in zip(rows, about, strict=True):
        (held if one in taken else others).append(row)
    return held, others


def below(rows: Sequence[dict], folder: Path) -> list[dict]:
    """The rows with images below `folder` named relative to it, as a file in that folder has them."""
    near = [Path(row["image"]).is_relative_to(folder) for row in rows]
    return [
        {**row, "image": Path(row["image"]).relative_to(folder).as_posix()} if row["image"] and close else row
        for row, close in zip(rows, near, strict=True)
    ]


def check(rows: Sequence[dict], name: str = "preference table") -> list[dict]:
    """The rows, if each is as the module says; DataError names the first that is not."""
    seen: set[str] = set()
    for where, row in checks.listed(rows, name, "a preference table, at least one row"):
        if problem := _problem(row, seen):
            raise DataError(f"{where}: {problem}")
        seen.add(str(row["id"]))
    return list(rows)


def parted(rows: Sequence[dict], share: float, *, seed: int = 0) -> tuple[list[dict], list[dict]]:
    """The rows of a seeded `share` of the questions, rounded, and the other ones, both in their order.

    A larger share holds the rows of a smaller one, so that arms of growing data differ in nothing else.
    ParameterError for a share that does not lie between 0 and 1.
    """
    taken = _some(len(rows), share, seed)
    kept = [row for place, row in enumerate(rows) if place in taken]
    return kept, [row for place, row in enumerate(rows) if place not in taken]


def total(ratings: dict, attributes: Sequence[str] = ATTRIBUTES[:3]) -> float:
    """Sum of an answer's ratings over `attributes`: helpfulness, correctness and coherence, as the authors' code."""
    return sum(ratings[name] for name in attributes)


def pairs(rows: Sequence[dict], reading: str = "code", *, seed: int = 0) -> tuple[list[dict], Counter]:
    """Pairs {"id", "image", "question", "chosen", "rejected"}, at most one a row, and why the other rows give none.

    The chosen answer has the largest sum, the first of equals. `reading` is one of READINGS, else ParameterError.
    """
    if reading not in READINGS:
        raise ParameterError(f"reading {reading!r} is unknown{nearest(str(reading), READINGS)}")
    made, dropped = [], Counter()
    for row in rows:
        sums = [total(one, ATTRIBUTES[: 2 if reading == "two_attributes" else 3]) for one in row["ratings"]]
        best = sums.index(max(sums))
        place = _rejected(sums, best, reading, random.Random(f"{seed} {row['id']}"))
        if place is None:
            dropped["no answer far enough below the best"] += 1
        elif problem := _useless(row["answers"][best], row["answers"][place]):
            dropped[problem] += 1
        else:
            made.append(_pair(row, best, place))
    return made, dropped


def training_rows(
    rows: Sequence[dict], method: str, kind: str = "code", *, flip: float = 0.0, seed: int = 0
) -> tuple[list[dict], str]:
    """What a method trains on, and a sentence that says what it is. Pairs for "dpo", else conversations.

    `kind` of pairs: one of READINGS, or a control, "random" or "length_matched"; `flip`: see `flipped`. ParameterError
    for an unknown method or kind, DataError where nothing is left to train on.
    """
    made = {"rejection": best_answers, "steerlm": steered, "sft": annotator_answers}
    if method in made:
        chosen = made[method](rows)
        return chosen, f"{len(chosen)} conversations of {len(rows)} questions"
    if method != "dpo":
        raise ParameterError(f"method {method!r} is unknown{nearest(str(method), ['dpo', *made])}")
    controls = ("random", "length_matched")
    if kind not in (*READINGS, *controls):
        raise ParameterError(f"pairs {kind!r} is unknown{nearest(str(kind), [*READINGS, *controls])}")
    chosen = random_pairs(rows, seed=seed) if kind == "random" else pairs(rows, seed=seed)[0]
    chosen = pairs(rows, kind, seed=seed)[0] if kind in READINGS else chosen
    chosen = flipped(length_matched(chosen) if kind == "length_matched" else chosen, flip, seed=seed)
    if not chosen:
        raise DataError(f"no row of the preference table makes a pair ({kind}): sample more answers, or take 'code'")
    words = f", of which {round(flip * len(chosen))} are exchanged" if flip else ""
    return chosen, f"{len(chosen)} pairs ({kind}) of {len(rows)} questions{words}"


def random_pairs(rows: Sequence[dict], *, seed: int = 0) -> list[dict]:
    """The control without preference: two different answers of each row at random, whatever their ratings."""
    made = []
    for row in rows:
        chosen, rejected = random.Random(f"{seed} {row['id']}").sample(range(len(row["answers"])), 2)
        if not _useless(row["answers"][chosen], row["answers"][rejected]):
            made.append(_pair(row, chosen, rejected))
    return made


def flipped(given: Sequence[dict], share: float, *, seed: int = 0) -> list[dict]:
    """The control of label noise: in `share` of the pairs, rounded, chosen and rejected change places.

    A larger share flips the pairs of a smaller one too, so that arms of growing noise differ in nothing else.
    """
    swap = _some(len(given), share, seed)
    exchanged = {"chosen": "rejected", "rejected": "chosen"}
    return [
        {name: pair[exchanged.get(name, name)] for name in pair} if number in swap else pair
        for number, pair in enumerate(given)
    ]


def length_matched(given: Sequence[dict], tolerance: float = 0.1) -> list[dict]:
    """The pairs whose two answers differ in length (characters) by at most `tolerance` of the longer one."""
    lengths = [(len(pair["chosen"]), len(pair["rejected"])) for pair in given]
    return [pair for pair, (a, b) in zip(given, lengths, strict=True) if abs(a - b) <= tolerance * max(a, b)]


def lengths(given: Sequence[dict]) -> dict[str, float]:
    """Number of pairs, mean characters of each side, and the share of pairs whose chosen answer is longer."""
    chosen, rejected = ([len(pair[side]) for pair in given] for side in ("chosen", "rejected"))
    longer = sum(a > b for a, b in zip(chosen, rejected, strict=True))
    means = {name: round(sum(some) / max(1, len(given)), 1) for name, some in
             (("chosen, characters", chosen), ("rejected, characters", rejected))}  # fmt: skip
    return {"pairs": len(given), **means, "chosen is longer": round(longer / max(1, len(given)), 2)}


def best_answers(rows: Sequence[dict]) -> list[dict]:
    """Rejection sampling: training rows of each question with its best answer, the first of equals."""
    made = []
    for row in rows:
        sums = [total(one) for one in row["ratings"]]
        made.append((row, row["question"], row["answers"][sums.index(max(sums))]))
    return _conversations(made)


def steered(rows: Sequence[dict]) -> list[dict]:
    """SteerLM: training rows of every answer, its own ratings in the question."""
    return _conversations(
        (row, row["question"] + condition(ratings), answer)
        for row in rows
        for answer, ratings in zip(row["answers"], row["ratings"], strict=True)
    )


def annotator_answers(rows: Sequence[dict]) -> list[dict]:
    """Training rows of each question with the annotator's own answer; rows without one are left out."""
    return _conversations((row, row["question"], row.get("annotator_answer", "")) for row in rows)


def condition(ratings: dict | None = None) -> str:
    """What SteerLM appends to a question: these ratings, or the best of each attribute, as asked of a trained arm."""
    wanted = ratings or dict.fromkeys(ATTRIBUTES, 4)
    return STEER + ",".join(f"{name.capitalize()}:{wanted[name]:g}" for name in ATTRIBUTES)


def requests(rows: Sequence[dict], added: str = "") -> list[dict]:
    """What `generation.generate` is asked: the rows' questions, with `added` behind each."""
    return [{"id": row["id"], "image": row["image"] or None, "text": row["question"] + added} for row in rows]


def shown(row: dict) -> list[tuple[str, str]]:
    """(role, text) of a pair or of a conversation, for the eye."""
    if "chosen" in row:
        return [(name, row[name]) for name in ("question", "chosen", "rejected")]
    texts = [(turn["role"], "".join(part["text"] or "" for part in turn["content"])) for turn in row["messages"]]
    return [(role, text.strip()) for role, text in texts]


def conversation(asked: dict, question: str, answer: str, name: str) -> dict:
    """A training row of one question, its picture first where it has one, and one answer."""
    image = asked.get("image") or ""
    content = [{"type": "image", "text": None}] if image else []
    content.append({"type": "text", "text": ("\n" if image else "") + question})
    return {
        "id": name,
        "images": [image] if image else [],
        "messages": [
            {"role": "user", "content": content},
            {"role": "assistant", "content": [{"type": "text", "text": answer}]},
        ],
    }


def _some(size: int, share: float, seed: int) -> set[int]:
    """Places of a seeded share; a larger one holds those of a smaller one."""
    if not 0 <= share <= 1:
        raise ParameterError(f"a share must lie between 0 and 1, found {share!r}")
    return set(random.Random(seed).sample(range(size), size)[: round(share * size)])


def _conversations(answered: Sequence) -> list[dict]:
    rows, asked = [], Counter()
    for row, question, answer in answered:
        if answer.strip():
            asked[row["id"]] += 1
            rows.append(conversation(row, question, answer, f"{row['id']}-{asked[row['id']]}"))
    if not rows:
        raise DataError("no row of the preference table gives an answer to train on; sft needs the annotator's own")
    return rows


def _pair(row: dict, chosen: int, rejected: int) -> dict:
    own = {name: row.get(name, "") for name in ("id", "image", "question")}
    return own | {"chosen": row["answers"][chosen], "rejected": row["answers"][rejected]}


def _rejected(sums: list[float], best: int, reading: str, rng: random.Random) -> int | None:
    others = [place for place in range(len(sums)) if place != best]
    if reading == "text":
        place = rng.choice(others)
        return place if sums[best] - sums[place] >= GAP else None
    if reading == "worst":
        place = min(others, key=sums.__getitem__)
        return place if sums[best] - sums[place] >= GAP else None
    far = [p for p in others if sums[best] - sums[p] > GAP or (reading != "strict" and sums[best] - sums[p] == GAP)]
    return rng.choice(far) if far else None


def _useless(chosen: str, rejected: str) -> str:
    """Why two answers teach nothing, or ""."""
    if not chosen.strip() or not rejected.strip():
        return "an answer is empty"
    return "both answers are the same" if chosen.strip() == rejected.strip() else ""


def _problem(row: dict, seen: set[str]) -> str:
    for name in ("id", "question", "answers", "ratings"):
        if name not in row:
            return f"no {name!r}, only {', '.join(map(repr, row))}"
    if str(row["id"]) in seen:
        return f"id {row['id']!r} is used twice"
    answers, ratings = row["answers"], row["ratings"]
    if not isinstance(row["question"], str) or not row["question"].strip():
        return "'question' must be a text that is not empty"
    if not isinstance(answers, list) or len(answers) < 2 or not all(isinstance(one, str) for one in answers):
        return "'answers' must be a list of two texts or more"
    if not isinstance(ratings, list) or len(ratings) != len(answers):
        return f"'ratings' must be a list of {len(answers)}, one for each answer"
    for one in ratings:
        for name in ATTRIBUTES:
            value = one.get(name) if isinstance(one, dict) else None
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 4:
                return f"a rating must give {name!r} a number from 0 to 4, found {str(one)[:60]}"
    return ""
