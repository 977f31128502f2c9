"""What a step will cost, by arithmetic and before a model is loaded: minutes, memory, disk; on which card.

A step that ran before costs what its manifest says; any other one is computed from its parameters, those of the steps
before it, the models' sizes and the card that its study's plan.yaml names (`costs`).
"""

import contextlib
import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from sbt.study import costs, params
from sbt.utils import files, paths
from sbt.utils.errors import DataError, ParameterError
from sbt.utils.text import nearest

START_MINUTES = 0.3  # a kernel that imports torch and transformers
START_GB = 0.9  # what such a kernel holds before it loads a model
SAVED_GB = 0.05  # notebook, samples, tables
NO_TOWER = costs.Vision(4, 128, 384, 4, 72, 24)  # the embedded study's, where a step's own is not known
NO_MODEL = costs.Language(4, 128, 352, 4, 4, 1018)
DOWNLOAD, DISK = 0.05, 0.3  # GB a second that are fetched, and that are read or written (assumed)
PARSED = 3000  # rows a second while data are prepared (required of this project)
PICTURE = 0.008  # seconds to decode a picture and fit it to the tower; measured: 4 to 12 ms
TIME = ("hours", "minutes")  # columns of the plan's table
NEEDS_CARD = 5e8  # weights of a model that nobody scores without a GPU
MODELS = ("language_model", "base", "vision_tower")  # parameters that name models


class Set(NamedTuple):
    """A data set: rows, gigabytes of them, mean and longest text of a row in tokens, template included; its images."""

    rows: int
    gb: float
    tokens: float
    longest: int
    images: int = 0
    images_gb: float = 0.0


# Rows as published (types of instructions: as named). Tokens: the bytes of the file a row, a third of them JSON,
# four characters a token, and 50 of a template. The longest: a caption, and the limit of data preparation.
_LIMIT = 2048
SETS = {
    "cc3m-595k": Set(595_375, 0.21, 40, 128, 595_375, 6.46),
    "llava-1.5-558k": Set(558_128, 0.18, 40, 128, 558_128, 27.4),
    "llava-instruct-80k": Set(80_000, 0.13, 320, _LIMIT),
    "llava-instruct-150k": Set(158_000, 0.23, 290, _LIMIT),
    "llava-conversation-58k": Set(58_000, 0.13, 410, _LIMIT),
    "llava-detail-23k": Set(23_000, 0.02, 200, _LIMIT),
    "llava-reasoning-77k": Set(77_000, 0.08, 220, _LIMIT),
    "llava-1.5-665k": Set(665_298, 1.03, 310, _LIMIT),
    "alpaca-52k": Set(52_002, 0.02, 130, _LIMIT),
    "slim-orca": Set(517_982, 0.99, 370, _LIMIT),
    "open-orca": Set(994_896, 1.01, 370, _LIMIT),
    "coco-train2017": Set(0, 0.0, 0, 0, 118_287, 19.34),
}
FEW = 15_000  # rows of a sample up to which the images that it names are fetched one by one
OTHER = Set(0, 0.0, 151, 151)  # the micro-world's, and files of one's own


class Load(NamedTuple):
    """What a benchmark asks of one arm: prompts and their tokens, pictures among them, tokens of a written answer."""

    prompts: int
    tokens: float
    pictures: int = 0
    written: float = 0


def nothing_known(notebook: str, values: dict) -> tuple[list[Load], dict[str, float]]:
    """In the place of `workload` until `sbt.benchmarks`, which this folder may not import, has put its own there."""
    return [], {}


workload = nothing_known  # (notebook, values) -> what each benchmark asks of an arm, and GB of its files by name


@dataclass(frozen=True)
class Estimate:
    """Cost of a step; `source` is `measured` (an earlier run) or `arithmetic`.

    `disk_gb` is the most that results take at a time, `left_gb` what stays (0: all of it). `fetched`: gigabytes by the
    name of what is downloaded, which other steps may share. `steps` are optimizer steps. `gpu_gb` is the peak on each
    of `processes` cards named `card` ("": no GPU). `unknown` names the table's columns whose numbers are not known.
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
    fetched: dict[str, float] = field(default_factory=dict)
    unknown: tuple[str, ...] = ()

    @property
    def fits(self) -> bool:
        """Whether the card has that much memory."""
        return not self.card or self.gpu_gb <= costs.CARDS[self.card].memory_gb

    def __str__(self) -> str:
        time = f"{self.minutes:.1f} min" if self.minutes < 120 else f"{self.minutes / 60:.1f} h"
        gpu = f"{self.gpu_gb:.0f} GB on {self.processes} x {self.card}, " if self.gpu_gb else ""
        about = "at least" if self.unknown else "about"
        return f"{about} {time}, {gpu}{self.memory_gb:.1f} GB memory, {self.disk_gb:.2f} GB disk ({self.source})"


def step(notebook: str, values: dict, upstream: Iterable[dict] = (), card: str | None = None) -> Estimate:
    """Estimate of one step: `notebook` with effective parameters `values` (`study` and `step` among them).

    `upstream`: the parameters of the steps it needs; of one not among them, those it last ran with, if it ran.
    `card` is a key of `costs.CARDS` or "" for a CPU; None: what the study's plan names.
    """
    if found := _measured(notebook, values):
        return found
    card = card_of(str(values.get("study", ""))) if card is None else card
    found = _arithmetic(notebook, values, list(upstream), card)
    fetched = ({} if "pretrain_data" in values else _models(values)) | found.fetched
    return replace(found, fetched=fetched, minutes=found.minutes + sum(fetched.values()) / DOWNLOAD / 60)


def fetched_once(estimates: Iterable[Estimate]) -> list[Estimate]:
    """Estimates of steps in their order, in which only the first one that needs a file fetches it."""
    seen, found = set(), []
    for one in estimates:
        new = {name: gb for name, gb in one.fetched.items() if name not in seen}
        saved = sum(one.fetched.values()) - sum(new.values())
        seen |= new.keys()
        found.append(replace(one, fetched=new, minutes=one.minutes - saved / DOWNLOAD / 60))
    return found


def total(estimates: Iterable[Estimate], side_by_side: int = 1) -> str:
    """Time and disk of steps in words: "about 5 h, 2.0 GB of results and 26.1 GB of downloads"."""
    estimates = list(estimates)
    minutes = sum(one.minutes for one in estimates) / side_by_side
    time = f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.0f} h"
    about = "at least" if any(one.unknown for one in estimates) else "about"
    fetched = sum(sum(one.fetched.values()) for one in estimates)
    more = f" and {fetched:.1f} GB of downloads" if fetched else ""
    return f"{about} {time}, {disk_gb(estimates):.1f} GB of results{more}"


def disk_gb(estimates: Iterable[Estimate]) -> float:
    """Disk for the results of steps one after the other: what each leaves, and the most that one takes besides."""
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
    if sample := data.get("pretrain_sample" if kind == "pretrain" else "sample", 0):
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
    connector, data = before("connector") or before("start"), before("data")
    stage_1 = "vision_tower" in values
    visual = stage_1 or bool(values.get("connector"))
    of_vision = values if stage_1 else connector
    model, known = _language(values.get("language_model") or connector.get("language_model", ""))
    marks = visual and bool(of_vision.get("image_markers"))
    tower = costs.vision(of_vision["vision_tower"]) if "vision_tower" in of_vision else NO_TOWER
    read = data_set(values, data)
    image, batch = tower.tokens if visual else 0, values.get("batch_size", 1)
    batch *= 2 if values.get("method") == "dpo" else 1  # a pair is two rows
    half = bool(card) and values.get("dtype", "auto") != "float32"
    again = values.get("gradient_checkpointing", "none")
    work = costs.Work(
        language=model.resized(3 if marks else int(visual)),
        tower=tower if visual else None,
        projector=of_vision.get("projector", "linear"),
        tuning="connector" if stage_1 else values.get("tuning", "full"),
        r=(values.get("lora") or {}).get("r", 64),
        also=("image_markers",) * marks if stage_1 else (*values.get("also", ()), *("connector",) * visual),
        quantized=values.get("quantization") == "4bit",
        half=half,
        batch=batch,
        tokens=read.tokens + image,
        padded=image + read.tokens * costs.padding(1 if card or values.get("group_by_length") else batch),
        longest=min(read.longest + image, max(_LIMIT, image)),
        checkpointing=costs.CHECKPOINTING.get(again, 1.0),
        engine=values.get("engine", ""),
        processes=max(1, values.get("processes", 1)),
    )
    if again == "auto" and work.engine not in costs.SHARDED:  # which computes all blocks again
        work = costs.checkpointed(work, costs.CARDS[card]) if card else replace(work, checkpointing=0)
    return work, read, known


def _measured(notebook: str, values: dict) -> Estimate | None:
    study = paths.outputs() / str(values.get("study"))
    for folder in (study / str(values.get("step")), study / f"{values.get('step')}.stale"):
        try:
            manifest = files.read_json(folder / "manifest.json")
        except DataError:
            continue
        with contextlib.suppress(KeyError, TypeError, AttributeError, OverflowError):  # told of when it is needed
            if manifest["notebook"] == notebook and "seconds" in manifest and not manifest["resumed"]:
                disk = sum(output["size"] for output in manifest["outputs"].values()) / costs.GB
                found = Estimate(manifest["seconds"] / 60, manifest["peak_memory_gb"] + 0.0, disk, "measured")
                if math.isfinite(found.minutes + found.memory_gb + found.disk_gb):
                    return found
    return None


def _arithmetic(notebook: str, values: dict, upstream: list[dict], card: str) -> Estimate:
    if "batch_size" in values and "max_steps" in values:
        return _training(values, upstream, card)
    if "pretrain_data" in values:
        return _preparing(values)
    if "arm_steps" in values or "base" in values:
        return _scoring(notebook, values, upstream, card)
    if "checkpoint" in values:
        return _converting(values)
    model, known = _language(values.get("language_model", ""))
    timed = not values.keys() & {"first_steps", "hidden"}  # models of their own, of any size: 05, 95 and 96
    memory = START_GB + (model.parameters * costs.FULL / costs.GB if "language_model" in values else 0)
    return Estimate(START_MINUTES, memory, SAVED_GB, "arithmetic", unknown=() if known and timed else TIME)


def _training(values: dict, upstream: list[dict], card: str) -> Estimate:
    work, read, known = work_of(values, upstream, card)
    steps = optimizer_steps(values, read.rows)
    peak = costs.memory(work)
    rows = steps * _rows_per_step(values)
    minutes = START_MINUTES + 60 * costs.hours(work, rows, costs.CARDS.get(card, costs.PROCESSOR))
    if work.tower and not card:  # else they are read while the card computes
        minutes += rows * PICTURE / work.processes / 60
    disk, left = (SAVED_GB + gb for gb in costs.disk_gb(work))
    unknown = () if known else (*TIME, "memory GB", "GPU GB", "disk GB")
    unknown = unknown or (() if steps else TIME)  # by epochs, over rows that are not counted yet
    if not card:
        memory = START_GB + sum(peak.values()) - peak["CUDA"]
        return Estimate(minutes, memory, disk, "arithmetic", steps, left_gb=left, unknown=unknown)
    # every process reads the weights before it moves them to its GPU, and the notebook has a copy beside them
    each = costs.FULL if work.tuning == "full" or work.engine == "fsdp" or not work.half else 2
    copies = 1 + (work.processes // max(1, values.get("machines", 1)) if work.engine else 0)
    loading = copies * (START_GB + work.parameters * each / costs.GB)
    return Estimate(
        minutes, loading, disk, "arithmetic", steps, sum(peak.values()), card, work.processes, left, unknown=unknown
    )


def _preparing(values: dict) -> Estimate:
    named = {str(value): name for name, value in values.items() if name.endswith(("_data", "_images", "_from"))}
    sets = {name: SETS[name] for name in sorted(named.keys() & SETS.keys())}
    rows = sum(found.rows for found in sets.values())
    gb = {}
    for name, found in sets.items():
        sample = values.get("pretrain_sample" if named[name].startswith("pretrain") else "sample", 0)
        few = 0 < sample <= FEW and found.images
        gb[name] = found.gb + found.images_gb * (min(1, sample / found.images) if few else 1)
    return Estimate(START_MINUTES + rows / PARSED / 60, START_GB, SAVED_GB, "arithmetic", fetched=gb)


def _converting(values: dict) -> Estimate:
    """A released checkpoint: fetched, converted to `dtype`, then loaded in float32 and asked about pictures."""
    model, known = _language(values.get("language_model", ""))
    ref, each = values["checkpoint"].partition("@")[0], costs.FULL if values.get("dtype") == "float32" else 2
    tower = costs.vision(values["vision_tower"])
    others = model.embedding + costs.connector(model, tower, "linear")
    whole = model.parameters + tower.parameters
    # What the authors released, by the end of its name: bytes that are fetched, and weights that the arm keeps.
    kinds = {
        "ft": (costs.FULL * (model.parameters + others - model.embedding), whole),
        "lora": (2 * (model.lora(64) + others + model.head), whole),
        "projector": ((2 if model.layers < 32 else costs.FULL) * others, others),
    }
    fetched, kept = kinds.get(ref.rpartition("-")[2], (0, whole))
    if values.get("text_lora") == "adapter":
        kept = model.lora(64)
    left = SAVED_GB + each * kept / costs.GB
    seconds = (fetched / costs.GB + 3 * left) / DISK  # read, written, read again
    unknown = (*TIME, "fetch GB") if ref and not fetched and not paths.exists(ref) else ()
    unknown += () if known else ("memory GB", "disk GB")
    most = left if kept == others else 2 * left
    memory = START_GB + costs.FULL * whole / costs.GB
    return Estimate(
        START_MINUTES + seconds / 60, memory, most, "arithmetic", left_gb=left,
        fetched={ref: fetched / costs.GB} if fetched else {}, unknown=unknown,
    )  # fmt: skip


def _models(values: dict) -> dict[str, float]:
    """Gigabytes of the models that a step takes from the Hub; a language model is published in half precision."""
    found = {}
    for ref in {str(values.get(name) or "").partition("@")[0] for name in MODELS}:
        if ref in costs.LANGUAGE:
            found[ref] = 2 * costs.LANGUAGE[ref].parameters / costs.GB
        elif ref in costs.VISION:
            found[ref] = costs.CLIP_GB[ref]
    return found


def _scoring(notebook: str, values: dict, upstream: list[dict], card: str) -> Estimate:
    """Every arm reads the prompts of every benchmark of the notebook, and their pictures, and writes its answers."""
    vision = "base" not in values
    tuned = [other for other in upstream if other.get("arm") and (other.get("connector", "x") or not vision)]
    refs = [values.get("base")] + [other.get("language_model") for other in tuned]
    model, known = _language(next((ref for ref in refs if ref), ""))
    arms = len(values.get("arms", ())) or len(tuned) + bool(values.get("base"))
    loads, fetched = workload(notebook, values)
    on = costs.CARDS.get(card, costs.PROCESSOR)
    half = bool(card) and values.get("dtype") != "float32"
    tower = next((costs.vision(o["vision_tower"]) for o in tuned if o.get("vision_tower")), None)
    tower = tower or (NO_TOWER if model is NO_MODEL else costs.VISION["openai/clip-vit-large-patch14"])
    seconds = sum(
        costs.scoring_seconds(model, tower, load, values.get("batch_size", 1), on, half) + load.pictures * PICTURE
        for load in loads
    )
    asked = loads and arms and all(load.prompts for load in loads) and not values.get("api")
    timed = asked and known and (card or model.parameters < NEEDS_CARD)
    minutes = START_MINUTES + arms * seconds / 60
    weights = model.parameters * (2 if half else costs.FULL) / costs.GB
    gpu = costs.FRAGMENTS * weights + costs.CONTEXT_GB + 2 if card else 0.0  # two gigabytes of logits and keys
    unknown = (*TIME,) * (not timed) + ("memory GB", "GPU GB") * (not known) + ("fetch GB",) * (0 in fetched.values())
    memory = START_GB + weights
    return Estimate(minutes, memory, SAVED_GB, "arithmetic", 0, gpu, card, fetched=fetched, unknown=unknown)


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


def _language(ref: str) -> tuple[costs.Language, bool]:
    """Sizes of a language model, and whether they are known: else those of the embedded study's stand in."""
    try:
        return (costs.language(ref) if ref else NO_MODEL), True
    except ParameterError:
        return NO_MODEL, False
