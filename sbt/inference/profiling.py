"""Time, tokens and memory of scoring with shared beginnings, beside the ordinary way, in one run.

frame = profiling.compare(model, tokenizer, {"TruthfulQA": asked, ...}, batch_size=16)
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import torch
from lm_eval.models.huggingface import HFLM
from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

from sbt.inference import generation
from sbt.inference.harness import PrefixLM
from sbt.models import Arm, silence_libraries
from sbt.models.measure import measure

FULL = 64  # sequences of HFLM where our batches are filled: a 7B in 16 bits leaves an 80 GB card room
OURS, THEIRS, ORDINARY = "prefixes shared", "HFLM", "one prompt a question"


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
    the harness does. `batch_size` 0 fills our batches by tokens on a GPU. `difference`: the largest of two
    log-likelihoods; `same`: the share of questions with the same choice.
    """
    with silence_libraries():
        limit = model.config.max_position_embeddings
        given = {"pretrained": model, "tokenizer": tokenizer, "max_length": limit, "device": str(model.device)}
        theirs = HFLM(**given, backend="causal", batch_size=batch_size or FULL, add_bos_token=add_bos)
        ours = PrefixLM(model, tokenizer, batch_size=batch_size or "auto", add_bos=add_bos)
        scorers = {THEIRS: theirs, OURS: ours}
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


def _instances(requests: Sequence[dict]) -> list[SimpleNamespace]:
    return [
        SimpleNamespace(args=(request["context"], text)) for request in requests for text in request["continuations"]
    ]


def _apart(requests: Sequence[dict], theirs: Sequence[tuple], ours: Sequence[tuple]) -> dict[str, float]:
    a, b = (np.array([value for value, _ in found]) for found in (theirs, ours))
    ends = np.cumsum([len(request["continuations"]) for request in requests])[:-1]
    same = [np.argmax(x) == np.argmax(y) for x, y in zip(np.split(a, ends), np.split(b, ends), strict=True)]
    return {"difference": float(np.abs(a - b).max()), "same": float(np.mean(same))}


def compare_pictures(
    arm: Arm,
    requests: Sequence[dict],
    folder: Path,
    *,
    batch_size: int = 18,
    max_new_tokens: int = 4,
    repeats: int = 3,
    progress: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    """One row a way of answering: `seconds`, `questions`, and `same`, the share of answers both ways agree on.

    `requests` have opened images. The ordinary way is transformers' own: every question with its image, in batches of
    the same size. It takes long and is gone through once; the shared one is so short that another process can double
    it: of `repeats` the median counts.
    """
    with silence_libraries(), torch.inference_mode():
        _ordinary(arm, requests[:1], 1)  # first calls of a kernel cost extra
        start = time.perf_counter()
        plain = []
        for first in range(0, len(requests), batch_size):
            plain += _ordinary(arm, requests[first : first + batch_size], max_new_tokens)
            if progress is not None:
                progress(min(first + batch_size, len(requests)), 2 * len(requests))
    whole, times = time.perf_counter() - start, []
    size = {"batch_size": batch_size, "max_new_tokens": max_new_tokens}
    folder.mkdir(parents=True, exist_ok=True)
    for _ in range(repeats):
        start = time.perf_counter()
        with tempfile.TemporaryDirectory(dir=folder) as empty:  # answers that are kept would cost nothing
            shared = generation.generate(arm, requests, cache=Path(empty) / "shared.jsonl", **size)
        times.append(time.perf_counter() - start)
    if progress is not None:
        progress(2 * len(requests), 2 * len(requests))
    same = sum(a == b for a, b in zip(plain, shared, strict=True)) / len(requests)
    ways = {ORDINARY: whole, OURS: statistics.median(times)}
    frame = pd.DataFrame(ways.items(), columns=["way", "seconds"])
    return frame.assign(questions=len(requests), same=same)


def _ordinary(arm: Arm, requests: Sequence[dict], new: int) -> list[str]:
    asked = [
        [{"type": "image", "image": one["image"]}, {"type": "text", "text": f"\n{one['text']}"}] for one in requests
    ]
    inputs = arm.processor.apply_chat_template(
        [[{"role": "user", "content": parts}] for parts in asked],
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        add_generation_prompt=True,
        processor_kwargs={"padding": True, "padding_side": "left"},
    ).to(arm.model.device)
    made = arm.model.generate(**inputs, max_new_tokens=new, do_sample=False)[:, inputs["input_ids"].shape[1] :]
    texts = arm.tokenizer.batch_decode(made, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return [text.strip() for text in texts]
