"""What training takes on a card, from the sizes of the models: weights that train, memory, operations, time, disk.

Every byte and operation is counted from the shapes; assumed are only the share of a card's rate that training reaches
and how many bytes the loss needs a token. `Work` says what is trained and how.
"""

import math
from dataclasses import dataclass
from typing import Any

from sbt.study.architectures import Language, Vision, connector

GB = 1e9
FULL, ADAM = 4, 8  # bytes of a float32 weight or gradient, and of Adam's two moments of it
QUANTIZED = 0.516  # bytes of a 4-bit weight with its doubly quantized scales: 4.127 bits (Dettmers et al. 2023)
LOGITS = 14  # bytes of a logit: half precision, float32, its log-softmax and its gradient
CONTEXT_GB = 1.0  # what CUDA and its libraries take before the first tensor
FRAGMENTS = 1.05  # allocated over used
SHARDED = ("fsdp", "zero2", "zero3")
SCORING = 1.6  # the share of a card's rate that forward passes reach, over that of training
HOST_TOKEN, HOST_STEP = 1.4e-3, 0.03  # seconds of the host for 32 layers: a token of every line read, or written
SLOWER_4BIT = 1.4  # weights are unpacked for every product (assumed)


@dataclass(frozen=True)
class Card:
    """A GPU: memory (GB), peak matrix rates (1e12 a second) in half and single precision, share of them reached."""

    memory_gb: float
    half: float
    single: float
    share: float
    bfloat16: bool = True


# Dense rates of the makers' data sheets. The share of an H200 was measured: LLaVA-7B trains stage 1, LoRA and in full
# at .29 to .43 of it, padding and recomputation counted. Smaller cards are assumed to keep busier.
CARDS = {
    "T4": Card(15.8, 65, 8.1, 0.30, bfloat16=False),
    "L4": Card(24.1, 121, 30.3, 0.40),
    "A100-40GB": Card(42.9, 312, 19.5, 0.45),
    "A100-80GB": Card(85.0, 312, 19.5, 0.45),
    "H100-80GB": Card(85.0, 989, 67, 0.36),
    "H200-141GB": Card(150.0, 989, 67, 0.36),
}
PROCESSOR = Card(0.0, 0.07, 0.07, 1.0, bfloat16=False)  # one core on small matrices, measured


@dataclass(frozen=True)
class Work:
    """One training: `tuning` is full, lora or connector (stage 1).

    `tokens` and `longest` are the mean and the most of a row, its image included; `padded` is the mean with what makes
    the rows of a batch equally long (0: as `tokens`). `also` are parts trained in full beside LoRA (embeddings, head,
    connector) or beside the connector (image_markers). `half`: matrix products are made in half precision; weights
    that train are float32 all the same. `processes` are those of all machines together.
    """

    language: Language
    tower: Vision | None = None
    projector: str = "linear"
    tuning: str = "full"
    r: int = 64
    also: tuple[str, ...] = ()
    quantized: bool = False
    half: bool = True
    batch: int = 1
    tokens: float = 512
    padded: float = 0
    longest: int = 2048
    checkpointing: bool = False
    engine: str = ""
    processes: int = 1

    @property
    def connector(self) -> int:
        """Weights of the connector."""
        return connector(self.language, self.tower, self.projector) if self.tower else 0

    @property
    def parameters(self) -> int:
        """Weights in memory that belong to the models, adapters not counted."""
        return self.language.parameters + self.connector + (self.tower.parameters if self.tower else 0)


def trained(work: Work) -> dict[str, int]:
    """Weights that train, by group."""
    model = work.language
    if work.tuning == "full":
        found = {"language model": model.parameters, "connector": work.connector}
    elif work.tuning == "connector":
        found = {"connector": work.connector, "image_markers": 2 * model.hidden if "image_markers" in work.also else 0}
    else:
        parts = {"embeddings": model.embedding, "head": model.head, "connector": work.connector}
        found = {"LoRA adapters": model.lora(work.r)} | {name: parts.get(name, 0) for name in work.also}
    return {name: count for name, count in found.items() if count}


def memory(work: Work) -> dict[str, float]:
    """Gigabytes on each GPU at the peak, by what they hold: a batch of the longest rows, at the loss."""
    each = FULL if not work.half else 2
    count = sum(trained(work).values())
    parts = work.processes if work.engine in SHARDED else 1
    frozen = _frozen_bytes(work, count, each)
    weights = frozen + FULL * count
    if work.engine in (
        "fsdp",
        "zero3",
    ):  # weights are spread too; two blocks and the vocabulary are gathered at a time
        gathered = 2 * work.language.block + work.language.embedding + work.language.head
        weights = weights / parts + each * gathered
    elif work.engine == "zero2":  # a half-precision copy everywhere, the float32 one spread
        weights = frozen + each * count + FULL * count / parts
    elif work.half:
        weights += 2 * count  # autocast keeps a half-precision copy through the forward pass
    gradients = (each if work.engine == "zero2" else FULL) * count / parts
    gradients += FULL * count if work.engine == "ddp" else 0  # the buckets that are exchanged
    found = {
        "weights": weights,
        "gradients": gradients,
        "optimizer": ADAM * count / parts,
        "activations": _activations(work, each),
        "logits": LOGITS * work.batch * work.longest * work.language.vocab,
    }
    found = {name: FRAGMENTS * value / GB for name, value in found.items()}
    return found | {"CUDA": CONTEXT_GB}


def block_activations(work: Work) -> float:
    """Bytes a token that one block keeps for its backward pass, as PyTorch saves them under SDPA attention.

    Of any block: the inputs of the norms in float32, queries, keys, values and their outcome, three tensors of the
    MLP's width. Where weights train, also what they are multiplied with: the norms' outputs, and the linear layers'
    inputs, each cast by itself. With LoRA, the inputs of the adapters behind the dropout, and its mask.
    """
    model, (query, key) = work.language, work.language.attention
    each = 2 if work.half else FULL
    kept = 2 * FULL * model.hidden + each * (2 * query + 2 * key) + 3 * each * model.intermediate
    inputs = sum(wide for wide, _ in model.linears.values())
    if work.tuning == "lora":
        return kept + (each + 1) * inputs + each * work.r * len(model.linears)
    if work.tuning == "full":
        # the five layers behind the norms, cast each by itself in half precision, share their inputs otherwise
        casts = each * (5 if work.half else 2) * model.hidden
        return kept + 2 * FULL * model.hidden + casts + each * model.intermediate
    return kept


def operations(work: Work, rows: float) -> float:
    """Floating-point operations to train on `rows` rows, forward, backward and recomputed.

    Two a weight and token forward; as many backward to pass the gradient on, even through frozen weights, and again
    for the weights' own gradient where they train (Kaplan et al. 2020).
    """
    model, attention = work.language, work.language.attention[0]
    matrices = model.layers * (model.block - 2 * model.hidden) + model.vocab * model.hidden
    tokens = work.padded or work.tokens
    scores = 2 * model.layers * attention * tokens  # causal: half of the square, two products
    forward = 2 * matrices + scores
    passes = 2 + (1 if work.tuning == "full" else 0) + (1 if work.checkpointing else 0)
    extra = 6 * model.lora(work.r) if work.tuning == "lora" else 0
    tower = 2 * work.tower.parameters * (work.tower.tokens + 1) if work.tower else 0
    return rows * (tokens * (passes * forward + extra) + tower)


def hours(work: Work, rows: float, card: Card) -> float:
    """Hours on `work.processes` cards at the share of their rate that training is assumed to reach."""
    rate = (card.half if work.half else card.single) * 1e12 * card.share * work.processes
    return operations(work, rows) * (SLOWER_4BIT if work.quantized else 1) / rate / 3600


def padding(batch: int) -> float:
    """Tokens of a batch of shuffled rows over those of its texts; measured with pictures: 1.3 to 1.5 for 16 rows."""
    return 1 + 0.25 * math.log2(batch)


def scoring_seconds(model: Language, tower: Vision, load: Any, batch: int, card: Card, half: bool) -> float:
    """Seconds in which one arm reads the prompts of a load (`estimate.Load`) and writes its answers.

    Two operations a weight and token, and what the host needs to start a forward pass: on an H200 a 7B read 9,500
    tokens a second in batches of 16 lines and 21,500 in batches of 64, where its products alone allow 50,000.
    """
    tokens = load.prompts * load.tokens + load.pictures * tower.tokens
    rate = (card.half if half else card.single) * 1e12 * min(1, SCORING * card.share)
    each = 2 * model.parameters / rate
    host = model.layers / 32 * (card is not PROCESSOR)
    written = load.prompts * load.written * (each + HOST_STEP * host / batch)
    return tokens * (each + HOST_TOKEN * host / batch) + written


def disk_gb(work: Work, kept: int = 1) -> tuple[float, float]:
    """While it trains - the model, `kept` checkpoints with Adam's moments and one being written - and afterwards.

    The model is saved with its frozen parts where they are not named by reference; the last checkpoint has no moments.
    """
    count = sum(trained(work).values())
    frozen = (work.parameters - count) * (2 if work.half else FULL) if work.tuning == "full" else 0
    model = FULL * count + frozen
    return (model + (kept + 1) * (FULL + ADAM) * count) / GB, (model + FULL * count) / GB


def _frozen_bytes(work: Work, count: int, each: int) -> float:
    adapters = trained(work).get("LoRA adapters", 0)
    frozen = work.parameters + 2 * work.language.hidden * ("image_markers" in work.also) + adapters - count
    if not work.quantized:
        return each * frozen
    blocks = work.language.layers * (work.language.block - 2 * work.language.hidden)  # norms, embedding, head stay
    return QUANTIZED * blocks + each * (frozen - blocks)


def _stream(work: Work) -> int:
    """Bytes of a number of the residual stream: the embeddings' own, float32 where they train."""
    return FULL if not work.half or work.tuning == "full" or "embeddings" in work.also else 2


def _activations(work: Work, each: int) -> float:
    """With checkpointing every block keeps its input only, and one block at a time all of it."""
    rows = work.batch * work.longest
    block = block_activations(work)
    if not work.checkpointing:
        return rows * work.language.layers * block
    return rows * (work.language.layers * _stream(work) * work.language.hidden + block)
