"""Ask arms the questions of a benchmark once more, about corrupted pictures, and score what is lost.

rows, samples = corrupted_scores.score(arms, captions, items, prompts, clean, CorruptedImages(...), caches, ...)
"""

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from types import ModuleType

from sbt import benchmarks
from sbt.benchmarks.common import ask_vision, corrupted
from sbt.benchmarks.common.ask_vision import QA


def score(
    references: Mapping[str, str],
    benchmark: ModuleType,
    items: Sequence[dict],
    prompts: Sequence[str],
    clean: Mapping[str, Sequence[str]],
    made: corrupted.CorruptedImages,
    caches: Path,
    *,
    corruptions: Sequence[str],
    severities: Sequence[int],
    value: str,
    name: str = "",
    protocol: str = "standard",
    demonstrations: Sequence[Sequence[QA]] = (),
    limit: int = 0,
    on_bad: str = "stop",
    **how: object,
) -> tuple[list[dict], list[dict]]:
    """(metric rows, samples) of the items, clean and under each corruption and severity: `data.corrupted.score`.

    `clean` are the answers of each arm about the clean pictures, one an item as the `prompts` and `demonstrations`
    are; only the first `limit` items are taken, 0 for all. `value` is what the relative drop is of, `name` stands
    before the subsets where a step has several data sets. Items whose picture cannot be used are left out where
    `on_bad` is "skip". `how`: keywords of `vision_scores.ask`. Raises what `CorruptedImages.make` and `ask` do.
    """
    pictures, progress = [item["image"] for item in items[: limit or None]], how.get("progress")
    usable = set(made.make(pictures, corruptions, severities, on_bad=on_bad, progress=progress))
    places = [place for place, picture in enumerate(pictures) if picture in usable]
    cells, kept = list(product(corruptions, severities)), [items[place] for place in places]
    files = [file for cell in cells for file in made.names([item["image"] for item in kept], *cell)]
    shots = [demonstrations[place] for place in places] if demonstrations else []
    asked = [prompts[place] for place in places] * len(cells), files, made.folder, caches
    same = {"conditions": ["real"], "protocol": protocol, "demonstrations": shots * len(cells)}
    told, conversations = ask_vision.ask(references, *asked, **{"seed": made.seed, **how, **same})
    rows, samples = [], []
    for arm, origin in benchmarks.provenance(protocol, conversations).items():
        said = {corrupted.CLEAN: [clean[arm][place] for place in places]}
        said |= corrupted.by_subset(told[arm, "real"], cells)
        found, judged = corrupted.score(benchmark, kept, said, value, arm=arm, seed=made.seed, **origin)
        rows, samples = rows + found, samples + judged
    start = f"{name}, " if name else ""
    return tuple([{**row, "subset": f"{start}{row['subset']}"} for row in part] for part in (rows, samples))
