"""Ask every arm's language model the same questions, or a model behind an endpoint; what is known is not asked again.

answers, cut = text_scores.ask(TextArms({...}), {"justice test": requests, ...}, folder, batch_size=32)
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from sbt.benchmarks.common import letters
from sbt.inference import openai_api
from sbt.inference.completion import complete
from sbt.inference.loglikelihood import loglikelihoods
from sbt.models.text_arms import TextArm
from sbt.utils.errors import ParameterError, RunError
from sbt.utils.text import nearest

TOO_LONG = ("error", "truncate")
# What the parameter `api` of a notebook may say: the model, where it is, US dollars a million tokens, and at most.
# `temperature` None leaves it to the endpoint; a reasoning model needs more `max_tokens`.
API = {"model": "", "base_url": openai_api.OPENAI, "key_variable": "OPENAI_API_KEY", "price_in": 0.0, "price_out": 0.0,
       "budget": 1.0, "workers": 4, "max_tokens": 16, "temperature": 0.0, "timeout": 60.0, "retries": 5,
       "max_skipped": 0.05}  # fmt: skip


def ask(
    arms: Iterable[TextArm],
    asked: Mapping[str, Sequence[dict]],
    folder: Path,
    *,
    batch_size: int = 32,
    add_bos: bool = False,
    max_new_tokens: int = 256,
    too_long: str = "error",
    progress: Callable[[int, int], None] | None = None,
) -> tuple[dict[str, dict[str, list]], dict[str, int]]:
    """answers[arm][task], one a request: log-likelihoods of its `continuations`, the text up to its `until`, or both.

    `folder` keeps finished items. `too_long` says what becomes of a prompt longer than the model: "error" (DataError
    names it), or "truncate" (cut from the left, as the harness does); the second result counts those by task,
    of the arm with most of them.
    """
    if too_long not in TOO_LONG:
        raise ParameterError(f"too_long {too_long!r} is unknown: known are {', '.join(TOO_LONG)}")
    answers: dict[str, dict[str, list]] = {}
    cut: dict[str, int] = {}
    for arm in arms:
        answers[arm.name] = {}
        for task, requests in asked.items():
            long: dict[str, int] | None = {} if too_long == "truncate" else None
            same = {"batch_size": batch_size, "add_bos": add_bos, "truncated": long, "identity": arm.identity}
            given = {**same, "progress": progress}
            cache, found = folder / arm.name / task.replace(" ", "-"), []
            if any("continuations" in request for request in requests):
                found.append(loglikelihoods(arm.model, arm.tokenizer, requests, cache=_file(cache, "values"), **given))
            if any("until" in request for request in requests):
                size = {"max_new_tokens": max_new_tokens}
                texts = complete(arm.model, arm.tokenizer, requests, cache=_file(cache, "texts"), **size, **given)
                found.insert(0, texts)
            both = [(text, *values) for text, values in zip(*found, strict=True)] if len(found) == 2 else found[0]
            answers[arm.name][task] = both
            cut[task] = max(cut.get(task, 0), len(long or {}))
    return answers, {task: count for task, count in cut.items() if count}


def by_letters(
    items: Sequence[dict],
    api: Mapping,
    cache: Path,
    *,
    benchmark: str,
    subset: str,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[dict, list[dict]]:
    """(metric row, samples) of a model behind an OpenAI-compatible endpoint that names an option's letter.

    This is no log-likelihood: see `benchmarks.letters`. `api` has keys of API; the estimated cost is printed first.
    ParameterError for another key, RunError where the estimate exceeds `budget` US dollars.
    """
    if unknown := sorted(set(api) - set(API)):
        raise ParameterError(f"api has no key {unknown[0]!r}{nearest(unknown[0], API)}")
    for name, value in api.items():
        kinds = (int, float) if isinstance(API[name], float) else type(API[name])
        if isinstance(value, bool) or not isinstance(value, kinds) and (name, value) != ("temperature", None):
            raise ParameterError(f"api: {name} takes {type(API[name]).__name__}, not {value!r}")
    api = API | dict(api)
    asked = letters.requests(items, seed)
    prices = {name: api.pop(name) for name in ("price_in", "price_out")}
    budget, way = api.pop("budget"), {name: api[name] for name in ("model", "base_url", "max_tokens", "temperature")}
    cost = openai_api.estimate(asked, **prices, **way, cache=cache)
    print(f"{benchmark} {subset}, {api['model']}:", ", ".join(f"{name} {value}" for name, value in cost.items()))
    if cost["cost"] is not None and cost["cost"] > budget:
        raise RunError(
            f"asking {api['model']} may cost {cost['cost']:.2f} dollars, the budget is {budget}. Raise it"
        )
    told = openai_api.complete(asked, **api, cache=cache, readable=letters.readable, progress=progress)
    records = letters.samples(items, told, arm=api["model"], seed=seed)
    score = letters.score(records, seed)
    print(f"{score.pop('unparsed')} answers name no option (wrong), {score.pop('skipped')} questions have no answer")
    metric = "mc1" if benchmark == "truthfulqa" else "accuracy"
    named = {"arm": api["model"], "benchmark": benchmark, "subset": subset, "metric": metric}
    return {**named, **score, **letters.provenance(seed)}, [{**record, "subset": subset} for record in records]


def _file(cache: Path, kind: str) -> Path:
    return cache.with_name(f"{cache.name}.{kind}.jsonl")
