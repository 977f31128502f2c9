"""What a model takes on a card, from its sizes alone: weights, memory, operations, time, disk; none is loaded.

shape = language("meta-llama/Llama-2-7b-hf");  shape.parameters;  memory(Work(shape, tuning="lora"))
A folder tells its sizes by its config.json, and so does a model that is in the Hub's cache. Bytes and operations are
counted from the shapes; assumed are only the share of a card's rate that is reached and the bytes of the loss.
"""

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from sbt.utils import files, hub, paths
from sbt.utils.errors import DataError, ParameterError
from sbt.utils.text import nearest

REMEDY = "Name a folder with its config.json, or add its sizes to sbt/study/costs.py"
CONNECTORS = ("linear", "mlp2x_gelu")
GB = 1e9
FULL, ADAM = 4, 8  # bytes of a float32 weight or gradient, and of Adam's two moments of it
QUANTIZED = 0.516  # bytes of a 4-bit weight with its doubly quantized scales: 4.127 bits (Dettmers et al. 2023)
LOGITS = 14  # bytes of a logit: half precision, float32, its log-softmax and its gradient
CONTEXT_GB = 1.0  # what CUDA and its libraries take before the first tensor
FRAGMENTS = 1.05  # allocated over used
CHECKPOINTING = {"none": 0.0, "half": 0.5, "all": 1.0}  # share of the blocks that are computed again
SHARDED = ("fsdp", "zero2", "zero3")
SCORING = 1.6  # the share of a card's rate that forward passes reach, over that of training
HOST_TOKEN, HOST_STEP = 1.4e-3, 0.03  # host seconds for 32 layers: for a position read, and for a token written
SLOWER_4BIT = 1.4  # weights are unpacked for every product (assumed)


@dataclass(frozen=True)
class Language:
    """A Llama: what its config.json says (field names there: num_hidden_layers, hidden_size, ...)."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    vocab: int
    tied: bool = False  # one matrix is both embedding and head
    head_dim: int = 0  # 0: hidden / heads

    @property
    def attention(self) -> tuple[int, int]:
        """Width of all queries, and of all keys (or values)."""
        each = self.head_dim or self.hidden // self.heads
        return each * self.heads, each * self.kv_heads

    @cached_property
    def linears(self) -> dict[str, tuple[int, int]]:
        """In and out of the seven linear layers of a block."""
        query, key = self.attention
        return {
            "q_proj": (self.hidden, query),
            "k_proj": (self.hidden, key),
            "v_proj": (self.hidden, key),
            "o_proj": (query, self.hidden),
            "gate_proj": (self.hidden, self.intermediate),
            "up_proj": (self.hidden, self.intermediate),
            "down_proj": (self.intermediate, self.hidden),
        }

    @property
    def block(self) -> int:
        """Weights of one block: seven linear layers without bias and two norms."""
        return sum(wide * out for wide, out in self.linears.values()) + 2 * self.hidden

    @property
    def embedding(self) -> int:
        return self.vocab * self.hidden

    @property
    def head(self) -> int:
        """Weights of the output layer, 0 where it is the embedding."""
        return 0 if self.tied else self.embedding

    @property
    def parameters(self) -> int:
        """All weights; a tied matrix counts once."""
        return self.layers * self.block + self.hidden + self.embedding + self.head

    def lora(self, r: int) -> int:
        """Weights of LoRA adapters of rank `r` on the seven linear layers of every block."""
        return self.layers * sum(r * (wide + out) for wide, out in self.linears.values())

    def resized(self, more: int) -> "Language":
        """The same with `more` rows in the vocabulary."""
        return replace(self, vocab=self.vocab + more)


@dataclass(frozen=True)
class Vision:
    """The vision half of a CLIP."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    image: int
    patch: int

    @property
    def tokens(self) -> int:
        """Features of one image: its patches, without the CLS token."""
        return (self.image // self.patch) ** 2

    @property
    def parameters(self) -> int:
        """All weights of `CLIPVisionModel`: embeddings, two outer norms and the blocks, biases included."""
        embeddings = self.hidden * (1 + 3 * self.patch**2 + self.tokens + 1)
        attention = 4 * (self.hidden**2 + self.hidden)
        mlp = 2 * self.hidden * self.intermediate + self.hidden + self.intermediate
        return embeddings + 4 * self.hidden + self.layers * (attention + mlp + 4 * self.hidden)


_LLAMA_7B = Language(32, 4096, 11008, 32, 32, 32000)
_OPEN_3B = Language(26, 3200, 8640, 32, 32, 32000)
LANGUAGE = {
    "huggyllama/llama-7b": _LLAMA_7B,
    "meta-llama/Llama-2-7b-hf": _LLAMA_7B,
    "meta-llama/Llama-2-7b-chat-hf": _LLAMA_7B,
    "NousResearch/Llama-2-7b-hf": _LLAMA_7B,
    "NousResearch/Llama-2-7b-chat-hf": _LLAMA_7B,
    **{f"lmsys/vicuna-7b-v1.{version}": _LLAMA_7B for version in (1, 3, 5)},
    "lmsys/vicuna-13b-v1.5": Language(40, 5120, 13824, 40, 40, 32000),
    "openlm-research/open_llama_3b_v2": _OPEN_3B,
    "openllmplayground/openalpaca_3b_600bt_preview": _OPEN_3B,
    "meta-llama/Meta-Llama-3-8B": Language(32, 4096, 14336, 32, 8, 128256),
    "NousResearch/Meta-Llama-3-8B": Language(32, 4096, 14336, 32, 8, 128256),
    "HuggingFaceTB/SmolLM2-135M": Language(30, 576, 1536, 9, 3, 49152, tied=True),
    "HuggingFaceTB/SmolLM2-360M": Language(32, 960, 2560, 15, 5, 49152, tied=True),
}
VISION = {
    "openai/clip-vit-large-patch14": Vision(24, 1024, 4096, 16, 224, 14),
    "openai/clip-vit-large-patch14-336": Vision(24, 1024, 4096, 16, 336, 14),
    "openai/clip-vit-base-patch32": Vision(12, 768, 3072, 12, 224, 32),
}

CLIP_GB = dict(zip(VISION, (1.71, 1.71, 0.61), strict=True))  # their files, with the text half, in float32
# The fields of both in config.json, in order, and what stands for one that is not there.
_LANGUAGE_FIELDS = {
    "num_hidden_layers": ..., "hidden_size": ..., "intermediate_size": ..., "num_attention_heads": ...,
    "num_key_value_heads": 0, "vocab_size": ..., "tie_word_embeddings": False, "head_dim": 0,
}  # fmt: skip
_VISION_FIELDS = dict.fromkeys(
    ("num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads", "image_size", "patch_size"), ...
)


def language(ref: str) -> Language:
    """Sizes of a Llama by the config.json of a folder or of the Hub's cache, or by its id; ParameterError else."""
    found = _sizes(ref, LANGUAGE, "text_config", _LANGUAGE_FIELDS)
    if isinstance(found, Language):
        return found
    return Language(*(value or found[3] if place == 4 else value for place, value in enumerate(found)))


def vision(ref: str) -> Vision:
    """Sizes of a CLIP's vision tower, as above."""
    found = _sizes(ref, VISION, "vision_config", _VISION_FIELDS)
    return found if isinstance(found, Vision) else Vision(*found)


def _sizes(ref: str, table: dict, part: str, fields: dict) -> Any:
    """The entry of the table, or the values of the fields in the model's own config.json."""
    folder, name = paths.resolve(str(ref)), str(ref).partition("@")[0]
    file = folder / "config.json" if folder.is_dir() else hub.cached(name, "config.json", hub.split(str(ref))[1])
    if file is None and name in table:
        return table[name]
    if file is None:
        raise ParameterError(f"{ref}: its sizes are not known{nearest(name, table)}. {REMEDY}")
    try:
        config = files.read_json(file)
        config = config.get(part, config)
    except (DataError, AttributeError) as error:
        what = error if isinstance(error, DataError) else f"{paths.shown(file)}: is no object"
        raise ParameterError(f"{what}. {REMEDY}") from None
    if lacking := [name for name, value in fields.items() if value is ... and not isinstance(config.get(name), int)]:
        raise ParameterError(f"{paths.shown(file)}: has no {lacking[0]!r}. {REMEDY}")
    return [config.get(name) or value for name, value in fields.items()]


def connector(language_model: Language, tower: Vision, projector: str) -> int:
    """Weights of the connector that train: one linear layer with bias (the paper's), or LLaVA-1.5's two."""
    if projector not in CONNECTORS:
        raise ParameterError(f"projector {projector!r} is unknown{nearest(projector, CONNECTORS)}")
    first = tower.hidden * language_model.hidden + language_model.hidden
    return first + (language_model.hidden**2 + language_model.hidden if projector == "mlp2x_gelu" else 0)


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
    that train are float32 all the same. `checkpointing` is the share of blocks that are computed again. `processes`
    are those of all machines together.
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
    checkpointing: float = 0
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
    """Peak gigabytes on each GPU, by what takes them. The peak is the loss of a batch of the longest rows."""
    each = FULL if not work.half else 2
    count = sum(trained(work).values())
    parts = work.processes if work.engine in SHARDED else 1
    frozen = _frozen_bytes(work, count, each)
    weights = frozen + FULL * count
    if work.engine in ("fsdp", "zero3"):  # weights too; two blocks and the vocabulary are gathered at a time
        gathered = 2 * work.language.block + work.language.embedding + work.language.head
        weights = weights / parts + each * gathered
    elif work.engine == "zero2":  # a half-precision copy everywhere, the float32 one spread
        weights = frozen + each * count + FULL * count / parts
    elif work.half:
        weights += 2 * count  # autocast keeps a half-precision copy through the forward pass
    buckets = FULL * count if work.engine == "ddp" else 0  # in which gradients are exchanged
    found = {
        "weights": weights,
        "gradients": (each if work.engine == "zero2" else FULL) * count / parts + buckets,
        "optimizer": ADAM * count / parts,
        "activations": _activations(work, each),
        "logits": LOGITS * work.batch * work.longest * work.language.vocab,
    }
    return {name: FRAGMENTS * value / GB for name, value in found.items()} | {"CUDA": CONTEXT_GB}


def checkpointed(work: Work, card: Card) -> Work:
    """The work with the least share of blocks computed again that fits the card; all of them where nothing does."""
    tried = [replace(work, checkpointing=share) for share in CHECKPOINTING.values()]
    return next((one for one in tried if sum(memory(one).values()) <= card.memory_gb), tried[-1])


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
    passes, extra = 2 + (work.tuning == "full") + work.checkpointing, 6 * model.lora(work.r) * (work.tuning == "lora")
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


def disk_gb(work: Work) -> tuple[float, float]:
    """While it trains - the model, a checkpoint with Adam's moments and one being written - and afterwards.

    The model is saved with its frozen parts where they are not named by reference; the last checkpoint has no moments.
    """
    count = sum(trained(work).values())
    frozen = (work.parameters - count) * (2 if work.half else FULL) if work.tuning == "full" else 0
    model = FULL * count + frozen
    return (model + 2 * (FULL + ADAM) * count) / GB, (model + FULL * count) / GB


def _frozen_bytes(work: Work, count: int, each: int) -> float:
    adapters = trained(work).get("LoRA adapters", 0)
    frozen = work.parameters + 2 * work.language.hidden * ("image_markers" in work.also) + adapters - count
    if not work.quantized:
        return each * frozen
    blocks = work.language.layers * (work.language.block - 2 * work.language.hidden)  # norms, embedding, head stay
    return QUANTIZED * blocks + each * (frozen - blocks)


def _activations(work: Work, each: int) -> float:
    """Blocks that are computed again keep their input only, and one of them at a time all of it."""
    block, again = block_activations(work), work.language.layers * work.checkpointing
    # the embeddings' own format, float32 where they train
    stream = FULL if not work.half or work.tuning == "full" or "embeddings" in work.also else 2
    kept = (work.language.layers - again) * block + again * stream * work.language.hidden
    return work.batch * work.longest * (kept + (block if again else 0))
