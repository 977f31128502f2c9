"""The language models inside a study's arms, one after the other, for text benchmarks.

for arm in TextArms({"base": "assets/llm", "mm-lora": "outputs/embedded/30_mm-lora/model"}):
    loglikelihoods(arm.model, arm.tokenizer, requests, identity=arm.identity, cache=...)
"""

import copy
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerBase
from transformers.utils import cached_file

from sbt.models.arms import ARM_FILE, check_files, describe_arm, language_model, load_arm
from sbt.models.image_markers import MARKERS_FILE
from sbt.models.llava import locate
from sbt.models.lora import CONFIG_FILE, put_adapters, sharing
from sbt.models.tokenizer import IMAGE_TOKEN, MARKERS, add_tokens
from sbt.templates import load as load_template
from sbt.utils import env, hub
from sbt.utils.errors import CheckpointError, ParameterError
from sbt.utils.files import file_hash, sha256
from sbt.utils.text import nearest

LORA_MODES = ("switched", "merged", "adapter")
_ADAPTED = ("lm-lora", "llava-lora")
_OF_TOKENS = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json")  # they change results as weights do
_CONFIGS = ("config.json", CONFIG_FILE)
_Language = tuple[LlamaForCausalLM, PreTrainedTokenizerBase]


@dataclass(frozen=True)
class TextArm:
    """A language model ready to score.

    `identity` is the same for the same files, dtype and way of taking LoRA, in any process. `ignored` are the keys of
    the tensors trained in full that lora="adapter" left out.
    """

    name: str
    model: LlamaForCausalLM
    tokenizer: PreTrainedTokenizerBase
    identity: str
    ignored: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Source:
    ref: str
    info: dict  # empty where there is no arm.json
    dtype: str

    @property
    def base(self) -> str | None:
        """The language model an adapter or a connector was trained on."""
        over = self.info.get("kind") in (*_ADAPTED, "connector") and self.info.get("language_model")
        return locate(self.info["language_model"], Path(self.ref)) if over else None


class TextArms:
    """Language models of arms (name -> folder, `assets/...` or hub id), one full model in memory at a time.

    `lora` says how LoRA arms are taken:
    - "switched": what the arm computes, its adapters and other trained tensors over the base, which stays loaded and
      untouched for the base itself and for other arms over it.
    - "merged": the same folded into a full model of its own.
    - "adapter": only the low-rank adapters over the base with the base's own vocabulary, as the paper's authors scored
      theirs (SBT:eval_scripts/eval_nlp.sh:24-32). Embeddings and whatever else was trained in full are left out.
    Each arm has its own vocabulary: a LLaVA's has a row more than its base's where `<image>` was added.

    Iteration yields the arms over one base together, at the place of the first of them (`order`), so no model is read
    twice; `loads` lists the full models read. Loading an arm over another base frees the previous model's memory, even
    while a variable still names it.
    """

    def __init__(
        self,
        references: Mapping[str, str | Path],
        *,
        dtype: str | None = None,
        lora: str = "switched",
        device: str | None = None,
    ) -> None:
        if lora not in LORA_MODES:
            raise ParameterError(f"lora={lora!r} is unknown{nearest(lora, LORA_MODES)}")
        self.lora, self.device, self.loads = lora, device or env.device().value, []
        self._sources = {name: _source(ref, dtype) for name, ref in references.items()}
        groups: dict[tuple[str, str], list[str]] = {}
        for name, source in self._sources.items():
            groups.setdefault(self._weights(source), []).append(name)
        self.order = tuple(name for group in groups.values() for name in group)
        self._contents: dict[str, dict] = {}
        self._held: tuple[str, str] | None = None
        self._models: dict[tuple, _Language] = {}  # (): as read; else by the tokens added, over the same memory
        self._made: dict[str, TextArm] = {}

    def __iter__(self) -> Iterator[TextArm]:
        for name in self.order:
            yield self.load(name)

    def load(self, name: str) -> TextArm:
        """One arm. Another base or full model is freed first, and read again when it is asked for again.

        ParameterError for an unknown name. CheckpointError names the file, and the tensor or option, that is missing,
        damaged or does not fit.
        """
        source = self._of(name)
        with torch.random.fork_rng(devices=[]):  # layers are initialised before their weights are read
            if self._weights(source) != self._held:
                self._release()
                self._read(source)
            if name not in self._made:
                self._made[name] = self._make(name, source)
        return self._made[name]

    def identity(self, name: str) -> str:
        """SHA-256 that names an arm's results in a cache; no weights are loaded for it."""
        source = self._of(name)
        mode = self.lora if source.info.get("kind") in _ADAPTED else None
        return sha256(json.dumps([self._content(source), source.dtype, mode], sort_keys=True))

    def _of(self, name: str) -> _Source:
        if name not in self._sources:
            raise ParameterError(f"arm {name!r} is unknown{nearest(name, self._sources)}")
        return self._sources[name]

    def _is_adapted(self, source: _Source) -> bool:
        return self.lora != "merged" and source.info.get("kind") in _ADAPTED and source.base is not None

    def _weights(self, source: _Source) -> tuple[str, str]:
        """The full model that an arm needs in memory, and its dtype."""
        return source.base if self._is_adapted(source) else source.ref, source.dtype

    def _content(self, source: _Source) -> dict:
        if source.ref not in self._contents:
            base = {"base": self._content(_source(source.base, source.dtype))} if source.base else {}
            self._contents[source.ref] = _hashes(source) | base
        return self._contents[source.ref]

    def _read(self, source: _Source) -> None:
        ref, dtype = self._weights(source)
        model, tokenizer = language_model(load_arm(ref, dtype=dtype))
        self.loads.append(ref if self._is_adapted(source) else source.base or ref)
        self._models[()] = model.requires_grad_(False).to(self.device), tokenizer
        self._held = ref, dtype

    def _release(self) -> None:
        for model in (*(model for model, _ in self._models.values()), *(arm.model for arm in self._made.values())):
            for tensor in (*model.parameters(), *model.buffers()):
                tensor.data = tensor.data.new_empty(0)  # frees it even while the caller's variable names the model
        self._models, self._made, self._held = {}, {}, None

    def _make(self, name: str, source: _Source) -> TextArm:
        model, tokenizer, ignored = self._adapt(source) if self._is_adapted(source) else (*self._models[()], ())
        tokenizer = copy.deepcopy(tokenizer)  # others over the same base have another template
        if source.info.get("conversation") is not None:  # a LLaVA arm keeps it on the processor only
            tokenizer.chat_template = load_template(source.info["conversation"])
        return TextArm(name, model, tokenizer, self.identity(name), ignored)

    def _adapt(self, source: _Source) -> tuple[LlamaForCausalLM, PreTrainedTokenizerBase, tuple[str, ...]]:
        folder, image = Path(source.ref), source.info["kind"] == "llava-lora"
        check_files(folder, source.info)
        markers = MARKERS if (folder / MARKERS_FILE).is_file() else ()
        over = (IMAGE_TOKEN, *markers) if image and self.lora != "adapter" else ()
        if over not in self._models:
            self._models[over] = _with_tokens(*self._models[()], over)
        base, tokenizer = self._models[over]
        model, ignored = put_adapters(folder, sharing(base), image=image, low_rank_only=self.lora == "adapter")
        return model, tokenizer, ignored


def _source(ref: str | Path, dtype: str | None) -> _Source:
    name = locate(ref)
    info = describe_arm(Path(name)) if (Path(name) / ARM_FILE).is_file() else {}
    return _Source(name, info, dtype or info.get("dtype", "float32"))


def _hashes(source: _Source) -> dict[str, str]:
    folder = Path(source.ref)
    if not folder.is_dir():
        try:  # the folder of the hub's cache is named by the commit, which stands for all of its files
            repo, at = hub.given(source.ref)
            return {source.ref: Path(cached_file(repo, "config.json", **at)).parent.name}
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{source.ref}: no such folder, and the hub gives no config.json for it") from error
    weights = source.info.get("files") or {file.name: file_hash(file) for file in folder.glob("*.safetensors")}
    return weights | {n: file_hash(folder / n) for n in (*_CONFIGS, *_OF_TOKENS) if (folder / n).is_file()}


def _with_tokens(base: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, tokens: tuple[str, ...]) -> _Language:
    """The base with rows for added tokens. The larger matrices hold the base's, which become their first rows."""
    rows = [(layer.weight, len(layer.weight)) for layer in (base.get_input_embeddings(), base.get_output_embeddings())]
    # resizing replaces the data of a parameter in place: were it the base's own, the base would grow too
    model, words = sharing(base, apart=tuple(weight for weight, _ in rows)), copy.deepcopy(tokenizer)
    add_tokens(model, words, *tokens)
    grown = (model.get_input_embeddings(), model.get_output_embeddings())
    for (weight, count), layer in zip(rows, grown, strict=True):
        weight.data = layer.weight.data[:count]
    return model.requires_grad_(False), words
