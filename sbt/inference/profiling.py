"""Time, tokens and memory of scoring: our model class against the harness's own, same model, same requests, one run.

frame = performance.compare(model, tokenizer, {"TruthfulQA": asked, ...}, batch_size=16)
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import SimpleNamespace

import numpy as np
import pandas as pd
import psutil
import torch
from lm_eval.models.huggingface import HFLM
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from sbt.inference.harness import PrefixLM
from sbt.models import silence_libraries
from sbt.utils import env

OURS, THEIRS = "prefixes shared", "HFLM"
_EVERY = 0.005  # seconds between two looks at the memory


def random_llama(
    tokenizer: PreTrainedTokenizerBase,
    hidden: int = 512,
    layers: int = 8,
    *,
    heads: int = 0,
    length: int = 4096,
    seed: int = 0,
    dtype: str = "float32",
) -> LlamaForCausalLM:
    """A Llama with random weights, on the GPU if there is one: what scoring costs does not depend on what it says."""
    config = llama_config(tokenizer, hidden, layers, length, heads)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config).eval()
    return model.to(env.device().value, getattr(torch, dtype))


def llama_config(
    tokenizer: PreTrainedTokenizerBase, hidden: int, layers: int, length: int = 4096, heads: int = 0
) -> LlamaConfig:
    """A Llama's shape with LLaMA-7B's proportions, for the vocabulary of a tokenizer.

    `heads` 0: LLaMA's own heads of 128 from its width of 4096 on, of 64 below it.
    """
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=hidden * 43 // 16,  # LLaMA-7B's 11008 / 4096
        num_hidden_layers=layers,
        num_attention_heads=heads or hidden // (128 if hidden >= 4096 else 64),
        max_position_embeddings=length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def compare(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    asked: Mapping[str, Sequence[dict]],
    *,
    batch_size: int = 16,
    add_bos: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    """One row a task and scorer: `seconds`, `tokens` the model read, `peak_gb`, and how far the numbers are apart.

    `asked` are requests as `harness.requests` makes them; a continuation that stands there twice is asked twice, as
    the harness does. `difference`: the largest of two log-likelihoods; `same`: the share of questions with the same
    choice.
    """
    with silence_libraries():
        limit = model.config.max_position_embeddings
        given = {"pretrained": model, "tokenizer": tokenizer, "max_length": limit, "device": str(model.device)}
        theirs = HFLM(**given, backend="causal", batch_size=batch_size, add_bos_token=add_bos)
        scorers = {THEIRS: theirs, OURS: PrefixLM(model, tokenizer, batch_size=batch_size, add_bos=add_bos)}
    rows = []
    for number, (task, requests) in enumerate(asked.items()):
        found = {}
        for scorer, lm in scorers.items():
            with silence_libraries():
                lm.loglikelihood(_instances(requests[:2]), disable_tqdm=True)  # first calls of a kernel cost extra
                call = partial(lm.loglikelihood, _instances(requests), disable_tqdm=True)
                found[scorer], cost = measure(model, call)
            rows.append({"task": task, "scorer": scorer, "questions": len(requests), **cost})
            if progress is not None:
                progress(2 * number + len(found), 2 * len(asked))
        for row in rows[-2:]:
            row.update(_apart(requests, *found.values()))
    return pd.DataFrame(rows)


def ratios(frame: pd.DataFrame) -> pd.DataFrame:
    """By task: how many times faster, how many times fewer tokens, and our peak memory over the harness's."""
    parts = {name: rows.set_index("task") for name, rows in frame.groupby("scorer")}
    theirs, ours = parts[THEIRS].reindex(frame.task.unique()), parts[OURS].reindex(frame.task.unique())
    found = {"times faster": theirs.seconds / ours.seconds, "times fewer tokens": theirs.tokens / ours.tokens}
    return pd.DataFrame(found | {"memory ratio": ours.peak_gb / theirs.peak_gb, "difference": ours.difference})


def measure(model: LlamaForCausalLM, call: Callable[[], object]) -> tuple[object, dict[str, float]]:
    """The result of `call` and its cost: `seconds`, `tokens` that went through the model, padding included, `peak_gb`.

    Memory is the GPU's where the model is on one, else the process's: its peak while the call runs.
    """
    tokens = 0

    def count(module: torch.nn.Module, args: tuple, given: dict) -> None:
        nonlocal tokens
        tokens += (given["input_ids"] if given.get("input_ids") is not None else args[0]).numel()

    hook = model.register_forward_pre_hook(count, with_kwargs=True)
    try:
        with _Peak(model.device) as peak:
            start = time.perf_counter()
            result = call()
            if model.device.type == "cuda":
                torch.cuda.synchronize()
            seconds = time.perf_counter() - start
    finally:
        hook.remove()
    return result, {"seconds": seconds, "tokens": tokens, "peak_gb": peak.gb}


class _Peak:
    """Peak memory while the context is open, in GB."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.gb, self._open = device, 0.0, True

    def __enter__(self) -> "_Peak":
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        else:
            self._watch = threading.Thread(target=self._look, daemon=True)
            self._watch.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self.device.type == "cuda":
            self.gb = torch.cuda.max_memory_allocated() / 1e9
        else:
            self._open = False
            self._watch.join()

    def _look(self) -> None:
        process = psutil.Process()
        while True:  # once at least, however short the call
            self.gb = max(self.gb, process.memory_info().rss / 1e9)
            if not self._open:
                return
            time.sleep(_EVERY)


def _instances(requests: Sequence[dict]) -> list[SimpleNamespace]:
    return [
        SimpleNamespace(args=(request["context"], text)) for request in requests for text in request["continuations"]
    ]


def _apart(requests: Sequence[dict], theirs: Sequence[tuple], ours: Sequence[tuple]) -> dict[str, float]:
    a, b = (np.array([value for value, _ in found]) for found in (theirs, ours))
    ends = np.cumsum([len(request["continuations"]) for request in requests])[:-1]
    same = [np.argmax(x) == np.argmax(y) for x, y in zip(np.split(a, ends), np.split(b, ends), strict=True)]
    return {"difference": float(np.abs(a - b).max()), "same": float(np.mean(same))}
