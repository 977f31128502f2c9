"""The pictures of a benchmark under corruptions (MSCOCO-C, Flickr30k-C, VQAv2-C): made on the fly, or read.

made = CorruptedImages(folder, cache, seed)
rows, samples = evaluate_corrupted(vqav2, items, arms, clean, made, caches, corruptions=["fog"], severities=[3], ...)
"""

import io
import multiprocessing
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import product, starmap
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont, ImageOps

from sbt import benchmarks, models
from sbt.benchmarks.common.evaluate import Questions
from sbt.benchmarks.common.protocol import PAPER, Decoding, decoding
from sbt.data import corruptions as corrupting
from sbt.data import images as image_files
from sbt.report import plots, stats, tables
from sbt.utils import paths
from sbt.utils.errors import DataError

CLEAN, ALL = "clean", "all corruptions"  # subsets of metric rows
SUBSET = r"^(?P<corruption>\w+), severity (?P<severity>\d)$"
MANY = 200  # pictures to make: from so many on, processes are worth the seconds that each takes to start


@dataclass(frozen=True)
class CorruptedImages:
    """Pictures in the folder `images` under a corruption: the same file, name, severity and seed give the same bytes.

    Made ones are kept in `cache` as PNG. Where `ready` names a folder, nothing is made: its images are read, in the
    authors' layout {corruption}/{severity}/val2014/NAME (`data.corruptions.find`).
    """

    images: Path
    cache: Path
    seed: int = 0
    ready: str | Path = ""

    @property
    def folder(self) -> Path:
        """Folder that `names` are relative to."""
        return paths.resolve(str(self.ready or self.cache))

    def names(self, pictures: Sequence[str], corruption: str, severity: int) -> list[str]:
        """Files in `folder`, in the order of the `pictures` (names in `images`), each made where it is not there yet.

        DataError: there are no ready images; a picture is missing, damaged or smaller than 32 pixels. ParameterError:
        an unknown corruption or severity. Whether every ready image is there, `make` has looked.
        """
        if self.ready:
            found = corrupting.find(self.ready, corruption, severity)
            return [(found / name).relative_to(self.folder).as_posix() for name in pictures]
        asked = self.folder, corruption, severity, self.seed
        made = {name: corrupting.cached(self.images / name, *asked) for name in dict.fromkeys(pictures)}
        return [made[name].relative_to(self.folder).as_posix() for name in pictures]

    def make(
        self, pictures: Sequence[str], names: Sequence[str], severities: Sequence[int], *, on_bad: str = "stop",
        workers: int = 0, progress: Callable[[int, int], None] | None = None,
    ) -> list[str]:  # fmt: skip
        """Make all that is not there yet, in `workers` processes (0: one a core); returns the pictures that are there.

        Every picture is decoded before the first is made; with `ready`, all of the corrupted ones are. A bad file, and
        one too small to corrupt, stops with a DataError, or with `on_bad` "skip" its picture is left out of all
        corruptions and severities, so that the same ones are compared. What was made stays when it is interrupted.
        `progress(done, total)`.
        """
        pictures = list(dict.fromkeys(pictures))
        if self.ready:
            places = [corrupting.find(self.ready, *cell) for cell in product(names, severities)]
            return _usable(pictures, places, on_bad, min_side=image_files.MIN_SIDE, progress=progress)
        pictures = _usable(pictures, [self.images], on_bad, min_side=corrupting.MIN_SIDE)
        jobs = list(product(pictures, names, severities))
        given = [(self.images / name, self.folder, corruption, level, self.seed) for name, corruption, level in jobs]
        workers = min(workers or os.cpu_count() or 1, len(jobs) // MANY)
        if workers < 2:
            _drain(starmap(corrupting.cached, given), len(jobs), progress)
            return pictures
        # spawned: a fork of a process that has torch's threads may hang
        with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
            _drain(pool.map(corrupting.cached, *zip(*given, strict=True), chunksize=8), len(jobs), progress)
        return pictures


def _usable(pictures: Sequence[str], folders: Sequence[Path], on_bad: str, **how: object) -> list[str]:
    """The pictures whose files in all of the folders are good; `how`: keywords of `images.check`."""
    files = {folder / name: name for folder in folders for name in pictures}
    left_out = {files[problem.path] for problem in image_files.settle(image_files.check(files, **how), on_bad)[1]}
    if kept := [name for name in pictures if name not in left_out]:
        return kept
    where = ", ".join(paths.shown(folder) for folder in folders[:2])
    raise DataError(f"{where}: each of the {len(pictures)} pictures is bad in one folder or more. Replace the files")


def _drain(made: Iterator, total: int, progress: Callable[[int, int], None] | None) -> None:
    for done, _ in enumerate(made, start=1):
        if progress:
            progress(done, total)


def subset(corruption: str, severity: int) -> str:
    """What metric rows of one corruption and severity are called."""
    return f"{corruption}, severity {severity}"


def evaluate_corrupted(
    task: Any, items: Sequence[dict], arms: Mapping[str, str], clean: Mapping[str, Sequence[str]],
    made: CorruptedImages, caches: Path, *, corruptions: Sequence[str], severities: Sequence[int], value: str,
    name: str = "", protocol: str = "standard", paper: Decoding = PAPER, limit: int = 0, on_bad: str = "stop",
    max_new_tokens: int = 16, batch_size: int = 64, progress: Callable[[int, int], None] | None = None,
) -> tuple[list[dict], list[dict]]:  # fmt: skip
    """(metric rows, samples) of the items once more, clean and under each corruption and severity, and what is lost.

    `clean`: each arm's answers about the clean pictures, one an item. Only the first `limit` items are taken, 0 for
    all. `value` is the key of the task's samples that the relative drop is of: CIDEr, accuracy. `name` stands before
    the subsets where a step has several data sets. Items whose picture cannot be used are left out where `on_bad` is
    "skip". Nothing is asked where `corruptions` or `severities` is empty. Raises what `CorruptedImages.make` does.
    """
    cells = list(product(corruptions, severities))
    if not cells:
        return [], []
    pictures = [item["image"] for item in items[: limit or None]]
    usable = set(made.make(pictures, corruptions, severities, on_bad=on_bad, progress=progress))
    places = [place for place, picture in enumerate(pictures) if picture in usable]
    kept = [items[place] for place in places]
    files = [file for cell in cells for file in made.names([item["image"] for item in kept], *cell)]
    asked = [{**item, "file": file} for item, file in zip(kept * len(cells), files, strict=True)]
    how, size = decoding(protocol, max_new_tokens, paper=paper), {"batch_size": batch_size, "progress": progress}
    questions = Questions(task, asked, made.folder, caches, protocol, how, seed=made.seed, **size)
    rows, samples = [], []
    for arm, loaded in models.load_vision_models(arms):
        answers = questions.answers(arm, loaded, "real")
        said = {CLEAN: [clean[arm][place] for place in places]}
        said |= {subset(*cell): answers[k * len(kept) : (k + 1) * len(kept)] for k, cell in enumerate(cells)}
        origin = benchmarks.provenance(protocol, {arm: how.conversation or loaded.conversation})[arm]
        scored = score(task, kept, said, value, arm=arm, seed=made.seed, **origin)
        rows, samples = rows + scored[0], samples + scored[1]
    start = f"{name}, " if name else ""
    return tuple([{**row, "subset": f"{start}{row['subset']}"} for row in part] for part in (rows, samples))


def score(
    task: Any, items: Sequence[dict], said: Mapping[str, Sequence[str]], value: str, *, arm: str,
    protocol: str = "standard", seed: int = 0, **same: object,
) -> tuple[list[dict], list[dict]]:  # fmt: skip
    """(metric rows, samples) of an arm's answers to the same items, `said` of CLEAN and of every `subset`.

    Where the clean score is 0 nothing can be lost, and there are no rows of the drop.
    """
    rows, samples, values = [], [], {}
    for part, answers in said.items():
        common = {"arm": arm, "subset": part, "protocol": protocol}
        rows += task.rows(items, answers, seed=seed, **common, **same)
        judged = task.samples(items, answers, **common)
        samples += [{**sample, "protocol": protocol} for sample in judged]
        values[part] = [sample[value] for sample in judged]
    if not any(values[CLEAN]):
        return rows, samples
    under: dict[str, dict[int, list[float]]] = {}
    for part, found in values.items():
        if cell := re.match(SUBSET, part):
            under.setdefault(cell["corruption"], {})[int(cell["severity"])] = found
    common = {"arm": arm, "benchmark": rows[0]["benchmark"], "protocol": protocol, **same}
    pictures = [item["image"] for item in items]
    return rows + drop_rows(values[CLEAN], under, groups=pictures, seed=seed, **common), samples


def drop_rows(
    clean: Sequence[float], under: Mapping[str, Mapping[int, Sequence[float]]], *, groups: Sequence | None = None,
    seed: int = 0, **same: object,
) -> list[dict]:  # fmt: skip
    """Metric rows of the share of a score that is lost, with 95 % intervals: of all corruptions, then of each.

    `clean` and `under[corruption][severity]` are scores of the same items (CIDEr of a picture, accuracy of a question)
    in the same order. A corruption's score is the mean over its severities, and every corruption weighs the same; 0.2
    is a fifth lost: 1 - rPC of Michaelis et al. (2019, arXiv 1907.07484). Items, or `groups` of them (one a picture),
    are resampled with their clean score: the interval is of the paired drop.
    """
    means = {name: np.mean([np.asarray(found, float) for found in by.values()], axis=0) for name, by in under.items()}
    found = []
    for name, values in ({ALL: np.mean(list(means.values()), axis=0)} | means).items():
        value, low, high = stats.ratio(clean, np.asarray(clean, float) - values, groups=groups, share=False, seed=seed)
        row = {"subset": name, "metric": "relative_drop", "value": value, "low": low, "high": high}
        found.append({**row, "n": len(clean), **same})
    return found


def drops(rows: Sequence[dict]) -> pd.DataFrame:
    """The rows of the relative drop."""
    return pd.DataFrame([row for row in rows if row["metric"] == "relative_drop"])


def verdicts(rows: Sequence[dict], protocol: str) -> str:
    """Whether each arm loses by corruption, a line a data set and arm: the whole interval of its drop is above 0."""
    found = [row for row in rows if row["metric"] == "relative_drop" and row["subset"].endswith(ALL)]
    return "\n".join(
        f"{row['arm']}, {row['subset']}: {'loses' if row['low'] > 0 else 'not shown to lose'} ({tables.cell(row)})"
        for row in found
        if row["protocol"] == protocol
    )


def curves(rows: pd.DataFrame, title: str, label: str) -> Figure:
    """A score over severity, one panel a corruption, one line an arm, with 95 % intervals; severity 0 is clean.

    `rows` are metric rows of one metric, with the subsets CLEAN and `subset(...)`; others are left out.
    """
    found = pd.concat([rows, rows["subset"].str.extract(SUBSET)], axis=1)
    names = list(dict.fromkeys(found["corruption"].dropna()))
    figure, axes = plt.subplots(1, len(names), figsize=(1.8 * len(names) + 0.6, 2.5), sharey=True, squeeze=False)
    for axis, name in zip(axes[0], names, strict=True):
        shown = found[(found["corruption"] == name) | (found["subset"] == CLEAN)]
        for arm, line in shown.assign(severity=shown["severity"].fillna(0).astype(int)).groupby("arm", sort=False):
            line, ink = line.sort_values("severity"), plots.colour(arm)
            error = np.clip([line["value"] - line["low"], line["high"] - line["value"]], 0, None)
            axis.errorbar(line["severity"], line["value"], error, fmt="o-", color=ink, label=arm, ms=4, elinewidth=1)
        axis.set(title=name.replace("_", " "), xlabel="severity", xticks=sorted(set(line["severity"])))
    axes[0][0].set(ylabel=label, ylim=(0, None))
    return plots.finish(figure, title, axes[0][0])


def sheet(image: Image.Image, seed: int = 0, severity: int = 3, *, side: int = 96, columns: int = 5) -> bytes:
    """JPEG of an image, clean and under all 19 corruptions, in tiles of `side` pixels with their names.

    As PNG, noise would take more than a committed notebook may have.
    """
    tiles, font = corrupting.contact_sheet(image, seed, severity), ImageFont.load_default(11)
    width, height = side + 6, side + 22
    whole = Image.new("RGB", (columns * width, -(-len(tiles) // columns) * height), "white")
    draw = ImageDraw.Draw(whole)
    for place, (title, tile) in enumerate(tiles):
        left, top = place % columns * width, place // columns * height
        whole.paste(ImageOps.pad(tile, (side, side), color="white"), (left + 3, top))
        name = title.partition(",")[0].replace("_", " ")
        draw.text((left + 3, top + side + 2), name, fill=plots.PLAIN, font=font)
    buffer = io.BytesIO()
    whole.save(buffer, "JPEG", quality=60, optimize=True)
    return buffer.getvalue()
