"""Ask every arm that can see the same questions: about the right picture, about another one, and about none.

answers, conversations = vision_scores.ask(arms, prompts, pictures, folder, run.path("scratch/answers"))
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from sbt import models
from sbt.benchmarks.common import controls
from sbt.benchmarks.common.protocol import PAPER, Decoding, decoding
from sbt.data import images
from sbt.inference import generation
from sbt.utils import paths
from sbt.utils.files import sha256

QA = tuple[str, str]
Told = dict[tuple[str, str], list[str]]


def usable(
    folder: Path | str,
    names: Iterable[str],
    on_bad: str = "stop",
    *,
    min_side: int = images.MIN_SIDE,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Path, dict[str, list[str]], pd.DataFrame]:
    """(the folder, the pictures in it that can be used, those that cannot with kind and reason).

    The good ones by name, each with which of `images.NOTED` it is: CMYK, 16 bits, ... (`noted` tells). Every file is
    decoded once, before an arm is loaded; `min_side` in pixels. DataError counts and names the bad ones where `on_bad`
    is "stop", or where none is good; "skip" leaves them out.
    """
    folder, names = paths.resolve(str(folder)), sorted(set(names))
    report = images.check((folder / name for name in names), min_side=min_side, progress=progress)
    _, bad = images.settle(report, on_bad)
    left_out = {problem.path: problem for problem in bad}
    found = [(name, left_out[folder / name]) for name in names if folder / name in left_out]
    rows = [(name, problem.kind, problem.reason) for name, problem in found]
    good = {name: report.noted.get(folder / name, []) for name in names if folder / name not in left_out}
    return folder, good, pd.DataFrame(rows, columns=["picture", "kind", "reason"])


def noted(good: Mapping[str, Sequence[str]]) -> str:
    """What is unusual in the good pictures of `usable`, counted, the first ones named: "2 cmyk (a.jpg, b.jpg)".

    CMYK, 16 bits and transparency are converted as `data.images.to_rgb` says; the others are taken as they are.
    """
    told = []
    for kind in images.NOTED:
        names = [name for name, kinds in good.items() if kind in kinds]
        more = ", ..." if len(names) > images.NAMED else ""
        if names:
            told.append(f"{len(names)} {kind} ({', '.join(names[: images.NAMED])}{more})")
    return ", ".join(told) or "nothing unusual"


def ask(
    references: Mapping[str, str],
    prompts: Sequence[str],
    pictures: Sequence[str],
    folder: Path,
    caches: Path,
    *,
    conditions: Sequence[str] = controls.CONDITIONS,
    protocol: str = "standard",
    max_new_tokens: int = 16,
    paper: Decoding = PAPER,
    demonstrations: Sequence[Sequence[QA]] = (),
    seed: int = 0,
    batch_size: int = 64,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Told, dict[str, str | None]]:
    """(answers by arm and condition, in the order of the prompts; each arm's conversation template).

    `pictures` are the file names in `folder`, and `demonstrations` (question, answer) turns without an image, one a
    prompt. Protocol "standard" decodes greedily with `max_new_tokens`, "paper" as `paper` says. A question that is
    asked twice about one picture is answered once. `caches` keeps finished answers.
    """
    answers: Told = {}
    conversations = {}
    how = decoding(protocol, max_new_tokens, paper=paper)
    shots = [tuple(map(tuple, turns)) for turns in demonstrations] or [()] * len(prompts)
    asked = list(zip(pictures, prompts, shots, strict=True))
    distinct = list(dict.fromkeys(asked))
    for name, arm in models.load_vision_models(references):
        conversations[name] = how.conversation or arm.conversation
        for condition in conditions:
            shown = controls.shown(folder, list(pictures), condition, seed)
            requests = [_request(one, shown[one[0]]) for one in distinct]
            cache = caches / protocol / f"{name}-{condition}.jsonl"
            size = {"decoding": how, "batch_size": batch_size, "progress": progress}
            known = dict(zip(distinct, generation.generate(arm, requests, cache=cache, **size), strict=True))
            answers[name, condition] = [known[one] for one in asked]
    return answers, conversations


def _request(one: tuple[str, str, tuple[QA, ...]], image: object) -> dict:
    picture, text, shots = one
    name = f"{picture}|{text}" + (f"|{sha256(repr(shots))[:12]}" if shots else "")
    return {"id": name, "image": image, "text": text, "demonstrations": shots}
