"""What a step will cost, by arithmetic and before a model is loaded: minutes, memory, disk; on which card.

A step that ran before costs what its manifest says; any other one is computed from its parameters, those of the steps
before it, the models' sizes (`architectures`) and the card that its study's plan.yaml names (`costs`).
"""

import contextlib
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from sbt.study import architectures, costs, params
from sbt.utils import files, paths
from sbt.utils.errors import DataError, ParameterError
from sbt.utils.text import nearest

START_MINUTES = 0.3  # a kernel that imports torch and transformers
START_GB = 0.9  # what such a kernel holds before it loads a model
SAVED_GB = 0.05  # notebook, samples, tables
BILLIONS = re.compile(r"(\d+(?:\.\d+)?)b\b", re.IGNORECASE)
NO_TOWER = architectures.Vision(4, 128, 384, 4, 72, 24)  # the embedded study's, where a step's own is not known
NO_MODEL = architectures.Language(4, 128, 352, 4, 4, 1018, 2048)
DOWNLOAD, PARSED = 0.05, 3000  # GB and rows a second while data are prepared (assumed; required of this project)
TIME = ("hours", "minutes")  # columns of the plan's table
SCORED = 5e6  # tokens of a published benchmark and arm
NEEDS_CARD = 5e8  # weights of a model that nobody scores without a GPU


class Set(NamedTuple):
    """A data set: rows, gigabytes with its images, mean and longest text of a row in tokens, template included."""

    rows: int
    gb: float
    tokens: float
    longest: int


# Rows as published (types of instructions: as named). Tokens: the bytes of the file a row, a third of them JSON,
# four characters a token, and 50 of a template. The longest: a caption, and the limit of data preparation.
_LIMIT = 2048
SETS = {
    "cc3m-595k": Set(595_375, 6.7, 40, 128),
    "llava-1.5-558k": Set(558_128, 27.6, 40, 128),
    "llava-instruct-80k": Set(80_000, 0.13, 320, _LIMIT),
    "llava-instruct-150k": Set(158_000, 0.23, 290, _LIMIT),
    "llava-conversation-58k": Set(58_000, 0.13, 410, _LIMIT),
    "llava-detail-23k": Set(23_000, 0.02, 200, _LIMIT),
    "llava-reasoning-77k": Set(77_000, 0.08, 220, _LIMIT),
    "llava-1.5-665k": Set(665_298, 1.03, 310, _LIMIT),
    "alpaca-52k": Set(52_002, 0.02, 130, _LIMIT),
    "slim-orca": Set(517_982, 0.99, 370, _LIMIT),
    "open-orca": Set(994_896, 1.01, 370, _LIMIT),
    "coco-train2017": Set(0, 19.3, 0, 0),
}
OTHER = Set(0, 0.0, 151, 151)  # the micro-world's, and files of one's own


@dataclass(frozen=True)
class Estimate:
    """Cost of a step; `source` is `measured` (an earlier run), `arithmetic`, or `guess` (a model of unknown size).

    `disk_gb` is the most at a time, `left_gb` what stays (0: all of it), `fetched_gb` what of it is downloaded.
    `steps` are optimizer steps. `gpu_gb` is the peak on each of `processes` cards named `card` ("": no GPU).
    `unknown` names the columns of the plan's table whose numbers are not known.
    """

    minutes: float
    memory_gb: float
    disk_gb: float
    source: str
    steps: int = 0
    gpu_gb: float = 0.0
    card: str = ""
    processes: int = 1
    left_gb: float = 0.0
    fetched_gb: float = 0.0
    unknown: tuple[str, ...] = ()

    @property
    def fits(self) -> bool:
        """Whether the card has that much memory."""
        return not self.card or self.gpu_gb <= costs.CARDS[self.card].memory_gb

    def __str__(self) -> str:
        time = f"{self.minutes:.1f} min" if self.minutes < 120 else f"{self.minutes / 60:.1f} h"
        gpu = f"{self.gpu_gb:.0f} GB on {self.processes} x {self.card}, " if self.gpu_gb else ""
        return f"about {time}, {gpu}{self.memory_gb:.1f} GB memory, {self.disk_gb:.2f} GB disk ({self.source})"


def step(notebook: str, values: dict, upstream: Iterable[dict] = (), card: str | None = None) -> Estimate:
    """Estimate of one step: `notebook` with effective parameters `values` (`study` and `step` among them).

    `upstream`: the parameters of the steps it needs; of one not among them, those it last ran with, if it ran.
    `card` is a key of `costs.CARDS` or "" for a CPU; None: what the study's plan names.
    """
    if found := _measured(notebook, values):
        return found
    return _arithmetic(values, list(upstream), card_of(str(values.get("study", ""))) if card is None else card)


def disk_gb(estimates: Iterable[Estimate]) -> float:
    """Disk that steps need one after the other: what each leaves, and the most that one of them takes besides."""
    estimates = [(one.disk_gb, one.left_gb or one.disk_gb) for one in estimates]
    return sum(left for _, left in estimates) + max((most - left for most, left in estimates), default=0)


def card_of(study: str) -> str:
    """The `card` that a study's plan.yaml names, "" for none; ParameterError for an unknown one."""
    file = paths.params() / study / "plan.yaml"
    card = (params.load_yaml(file) if file.is_file() else {}).get("card", "")
    if card and card not in costs.CARDS:
        raise ParameterError(f"{paths.shown(file)}: card {card!r} is unknown{nearest(str(card), costs.CARDS)}")
    return card


def data_set(values: dict, data: dict) -> Set:
    """Rows and tokens that a training step reads, from the parameters of the step that prepared the data."""
    kind = "pretrain" if "vision_tower" in values else values.get("source", "visual").replace("visual", "instruct")
    found = SETS.get(data.get(f"{kind}_data", ""), OTHER)
    rows = found.rows or data.get("pretrain" if kind == "pretrain" else "instruct", 0)
    if kind != "pretrain" and (sample := data.get("sample", 0)):
        rows = sample if data.get("repeat") else min(sample, rows)
    return found._replace(rows=values.get("rows", 0) or rows)


def optimizer_steps(values: dict, rows: int) -> int:
    """`max_steps`, or `epochs` over `rows` where that is 0; a last, smaller step counts."""
    if values.get("max_steps", 0) > 0:
        return values["max_steps"]
    return max(1, round(values.get("epochs", 0) * math.ceil(rows / _rows_per_step(values)))) if rows else 0


def work_of(values: dict, upstream: Iterable[dict], card: str = "") -> tuple[costs.Work, Set, bool]:
    """What a training step trains, the data it reads, and whether its models' sizes are known."""
    before = _before(values, upstream)
    connector, data = before("connector"), before("data")
    stage_1 = "vision_tower" in values
    visual = stage_1 or bool(values.get("connector"))
    of_vision = values if stage_1 else connector
    model, known = _language(values.get("language_model") or connector.get("language_model", ""))
    marks = visual and bool(of_vision.get("image_markers"))
    tower = architectures.vision(of_vision["vision_tower"]) if "vision_tower" in of_vision else NO_TOWER
    read = data_set(values, data)
    image = tower.tokens if visual else 0
    half = bool(card) and values.get("dtype", "auto") != "float32"
    work = costs.Work(
        language=model.resized(3 if marks else int(visual)),
        tower=tower if visual else None,
        projector=of_vision.get("projector", "linear"),
        tuning="connector" if stage_1 else values.get("tuning", "full"),
        r=(values.get("lora") or {}).get("r", 64),
        also=("image_markers",) * marks if stage_1 else (*values.get("also", ()), *("connector",) * visual),
        quantized=values.get("quantization") == "4bit",
        half=half,
        batch=values.get("batch_size", 1),
        tokens=read.tokens + image,
        longest=min(read.longest + image, max(_LIMIT, image)),
        checkpointing=values.get("gradient_checkpointing", False),
        engine=values.get("engine", ""),
        processes=max(1, values.get("processes", 1)),
    )
    return work, read, known


def _measured(notebook: str, values: dict) -> Estimate | None:
    study = paths.outputs() / str(values.get("study"))
    for folder in (study / str(values.get("step")), study / f"{values.get('step')}.stale"):
        try:
            manifest = files.read_json(folder / "manifest.json")
        except DataError:
            continue
        with contextlib.suppress(KeyError, TypeError, AttributeError):  # a damaged one is told of when it is needed
            if manifest["notebook"] == notebook and "seconds" in manifest and not manifest["resumed"]:
                disk = sum(output["size"] for output in manifest["outputs"].values()) / costs.GB
                return Estimate(manifest["seconds"] / 60, manifest["peak_memory_gb"] + 0.0, disk, "measured")
    return None


def _arithmetic(values: dict, upstream: list[dict], card: str) -> Estimate:
    if "batch_size" in values and "max_steps" in values:
        return _training(values, upstream, card)
    if "pretrain_data" in values:
        return _preparing(values)
    return _scoring(values, upstream, card)


def _training(values: dict, upstream: list[dict], card: str) -> Estimate:
    work, read, known = work_of(values, upstream, card)
    steps = optimizer_steps(values, read.rows)
    peak = costs.memory(work)
    minutes = START_MINUTES + 60 * costs.hours(
        work, steps * _rows_per_step(values), costs.CARDS.get(card, costs.PROCESSOR)
    )
    disk, left = (SAVED_GB + gb for gb in costs.disk_gb(work))
    source = "arithmetic" if known else "guess"
    if not card:
        return Estimate(minutes, START_GB + sum(peak.values()) - peak["CUDA"], disk, source, steps, left_gb=left)
    # every process reads the weights before it moves them to its GPU, and the notebook has a copy beside them
    each = costs.FULL if work.tuning == "full" or work.engine == "fsdp" or not work.half else 2
    copies = 1 + (work.processes // max(1, values.get("machines", 1)) if work.engine else 0)
    loading = copies * (START_GB + work.parameters * each / costs.GB)
    return Estimate(minutes, loading, disk, source, steps, sum(peak.values()), card, work.processes, left)


def _preparing(values: dict) -> Estimate:
    named = [str(value) for name, value in values.items() if name.endswith(("_data", "_images", "_from"))]
    sets = [SETS[name] for name in sorted(set(named)) if name in SETS]
    gb, rows = sum(found.gb for found in sets), sum(found.rows for found in sets)
    minutes = START_MINUTES + (gb / DOWNLOAD + rows / PARSED) / 60
    return Estimate(minutes, START_GB, SAVED_GB + gb, "arithmetic", fetched_gb=gb)


def _scoring(values: dict, upstream: list[dict], card: str) -> Estimate:
    if values.get("checkpoint"):  # a released one: converted, after a download of unknown size
        unknown = (*TIME, "memory GB", "disk GB")
        return Estimate(START_MINUTES, START_GB, SAVED_GB, "arithmetic", unknown=unknown)
    tuned = [other for other in upstream if "arm" in other]
    named = [values.get("base")] + [other.get("language_model") for other in tuned]
    model, known = _language(next((ref for ref in named if ref), ""))
    if not card or not tuned:
        unknown = TIME if not known or model.parameters > NEEDS_CARD else ()
        memory = START_GB + model.parameters * costs.FULL / costs.GB
        return Estimate(START_MINUTES, memory, SAVED_GB, "arithmetic", unknown=unknown)
    rate = costs.CARDS[card].half * costs.CARDS[card].share * 1e12
    minutes = (len(tuned) + bool(values.get("base"))) * SCORED * 2 * model.parameters / rate / 60
    weights = model.parameters * (costs.FULL if values.get("dtype") == "float32" else 2) / costs.GB
    gpu = costs.FRAGMENTS * weights + costs.CONTEXT_GB + 2  # two gigabytes of logits and keys
    unknown = () if known else (*TIME, "memory GB", "GPU GB")
    source = "arithmetic" if known else "guess"
    return Estimate(START_MINUTES + minutes, START_GB + weights, SAVED_GB, source, 0, gpu, card, unknown=unknown)


def _rows_per_step(values: dict) -> int:
    return values["batch_size"] * max(1, values.get("accumulation", 1)) * max(1, values.get("processes", 1))


def _before(values: dict, upstream: Iterable[dict]) -> object:
    """Finds the parameters of the step that a parameter names: among `upstream`, else those it ran with, else none."""
    named = {other.get("step"): other for other in upstream}

    def find(name: str) -> dict:
        other = str(values.get(name) or "")
        ran = paths.outputs() / str(values.get("study")) / other / "params.yaml"
        if not other or other in named or not ran.is_file():
            return named.get(other, {})
        return params.load_yaml(ran)

    return find


def _language(ref: str) -> tuple[architectures.Language, bool]:
    """Sizes of a language model; for an unknown one (`meta/Llama-7b`), those of the known one nearest in billions."""
    try:
        return (architectures.language(ref), True) if ref else (NO_MODEL, True)
    except ParameterError:
        found = BILLIONS.search(ref) if "/" in ref else None
        if found is None or Path(ref).is_absolute():
            return NO_MODEL, False
        count = float(found[1]) * 1e9
        return min(architectures.LANGUAGE.values(), key=lambda shape: abs(shape.parameters - count)), False
