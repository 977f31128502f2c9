"""Sizes of the study's language models and vision towers, and how many weights they hold, without loading one.

shape = language("meta-llama/Llama-2-7b-hf");  shape.parameters;  shape.lora(64)
A folder tells its sizes by its config.json, and so does a model that is in the Hub's cache.
"""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from sbt.utils import files, hub, paths
from sbt.utils.errors import DataError, ParameterError
from sbt.utils.text import nearest

REMEDY = "Name a folder with its config.json, or add its sizes to sbt/architectures.py"
_WIDTHS = ("num_hidden_layers", "hidden_size", "intermediate_size")
CONNECTORS = ("linear", "mlp2x_gelu")


@dataclass(frozen=True)
class Language:
    """A Llama: what its config.json says (field names there: num_hidden_layers, hidden_size, ...)."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    vocab: int
    context: int
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
        """Weights of the input embedding."""
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


_LLAMA_7B = Language(32, 4096, 11008, 32, 32, 32000, 2048)
_LLAMA2_7B = replace(_LLAMA_7B, context=4096)
_OPEN_3B = Language(26, 3200, 8640, 32, 32, 32000, 2048)
LANGUAGE = {
    "huggyllama/llama-7b": _LLAMA_7B,
    "meta-llama/Llama-2-7b-hf": _LLAMA2_7B,
    "meta-llama/Llama-2-7b-chat-hf": _LLAMA2_7B,
    "NousResearch/Llama-2-7b-hf": _LLAMA2_7B,
    "NousResearch/Llama-2-7b-chat-hf": _LLAMA2_7B,
    "lmsys/vicuna-7b-v1.1": _LLAMA_7B,
    "lmsys/vicuna-7b-v1.3": _LLAMA_7B,
    "lmsys/vicuna-7b-v1.5": _LLAMA2_7B,
    "openlm-research/open_llama_3b_v2": _OPEN_3B,
    "openllmplayground/openalpaca_3b_600bt_preview": _OPEN_3B,
    "meta-llama/Meta-Llama-3-8B": Language(32, 4096, 14336, 32, 8, 128256, 8192),
    "NousResearch/Meta-Llama-3-8B": Language(32, 4096, 14336, 32, 8, 128256, 8192),
    "HuggingFaceTB/SmolLM2-135M": Language(30, 576, 1536, 9, 3, 49152, 8192, tied=True),
    "HuggingFaceTB/SmolLM2-360M": Language(32, 960, 2560, 15, 5, 49152, 8192, tied=True),
}
VISION = {
    "openai/clip-vit-large-patch14": Vision(24, 1024, 4096, 16, 224, 14),
    "openai/clip-vit-large-patch14-336": Vision(24, 1024, 4096, 16, 336, 14),
    "openai/clip-vit-base-patch32": Vision(12, 768, 3072, 12, 224, 32),
}

CLIP_GB = dict(zip(VISION, (1.71, 1.71, 0.61), strict=True))  # their files, with the text half, in float32


def language(ref: str) -> Language:
    """Sizes of a Llama by the config.json of a folder or of the Hub's cache, or by its id; ParameterError else."""
    file, config = _config(ref)
    if file is None:
        return _known(ref, LANGUAGE)
    found = config.get("text_config", config)
    return _built(
        file,
        lambda: Language(
            *(found[name] for name in _WIDTHS),
            found["num_attention_heads"],
            found.get("num_key_value_heads") or found["num_attention_heads"],
            found["vocab_size"],
            found.get("max_position_embeddings", 2048),
            bool(found.get("tie_word_embeddings", False)),
            found.get("head_dim") or 0,
        ),
    )


def vision(ref: str) -> Vision:
    """Sizes of a CLIP's vision tower, as above."""
    file, config = _config(ref)
    if file is None:
        return _known(ref, VISION)
    found = config.get("vision_config", config)
    names = (
        "num_hidden_layers",
        "hidden_size",
        "intermediate_size",
        "num_attention_heads",
        "image_size",
        "patch_size",
    )
    return _built(file, lambda: Vision(*(found[name] for name in names)))


def connector(language_model: Language, tower: Vision, projector: str) -> int:
    """Weights of the connector that train: one linear layer with bias (the paper's), or LLaVA-1.5's two."""
    if projector not in CONNECTORS:
        raise ParameterError(f"projector {projector!r} is unknown{nearest(projector, CONNECTORS)}")
    first = tower.hidden * language_model.hidden + language_model.hidden
    return first + (language_model.hidden**2 + language_model.hidden if projector == "mlp2x_gelu" else 0)


def _config(ref: str) -> tuple[Path | None, dict]:
    """The config.json that tells the sizes of `ref`, and what it says; None where there is no such file."""
    folder = paths.resolve(str(ref))
    file = folder / "config.json" if folder.is_dir() else _cached(str(ref))
    if file is None:
        return None, {}
    try:
        found = files.read_json(file)
    except DataError as error:
        raise ParameterError(f"{error}. {REMEDY}") from None
    return file, found if isinstance(found, dict) else {}


def _cached(ref: str) -> Path | None:
    """The config.json of a hub id in the Hub's cache; the Hub is not asked."""
    import huggingface_hub

    with contextlib.suppress(ValueError):  # no hub id
        repo, _ = hub.split(ref)
        found = huggingface_hub.try_to_load_from_cache(repo, "config.json", revision=hub.commit(ref))
        return Path(found) if isinstance(found, str) else None
    return None


def _known(ref: str, table: dict) -> object:
    if ref not in table:
        raise ParameterError(f"{ref}: its sizes are not known{nearest(str(ref), table)}. {REMEDY}")
    return table[ref]


def _built(file: Path, make: Callable[[], object]) -> object:
    try:
        return make()
    except KeyError as error:
        raise ParameterError(f"{paths.shown(file)}: has no {error.args[0]!r}. {REMEDY}") from None
