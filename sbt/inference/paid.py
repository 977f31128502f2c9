"""A model to ask as a parameter of a notebook: an endpoint within its budget, or an arm.

answers = complete(requests, {"model": "gpt-4-turbo", "price_in": 10, "price_out": 30}, run.path("scratch/api.jsonl"))
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from sbt.inference import openai_api
from sbt.inference.openai_api import Skip
from sbt.utils.errors import MissingStep, ParameterError, RunError
from sbt.utils.text import nearest

# The model, where it is, US dollars a million tokens, and at most. `temperature` None leaves it to the endpoint; a
# reasoning model needs more `max_tokens`.
API = {"model": "", "base_url": openai_api.OPENAI, "key_variable": "OPENAI_API_KEY", "price_in": 0.0, "price_out": 0.0,
       "budget": 1.0, "workers": 4, "max_tokens": 16, "temperature": 0.0, "timeout": 60.0, "retries": 5,
       "max_skipped": 0.05}  # fmt: skip

Asked = TypeVar("Asked")


def named(
    given: Mapping,
    what: str,
    upstream: Callable[[str], Path],
    endpoint: Callable[[Mapping], Asked],
    in_memory: Callable[[str, str], Asked],
) -> Asked:
    """The model that the parameter `given` names, made by `endpoint(given)` or `in_memory(reference, name)`.

    {"model": ...} with keys of API is behind an endpoint; {"arm": ...} is a step, whose folder `upstream` gives, or a
    folder or model of the Hub. ParameterError for anything else, `what` it was for.
    """
    if given.get("model") and "arm" not in given:
        return endpoint(given)
    if set(given) != {"arm"}:
        raise ParameterError(f"{what} needs model (with the keys of an endpoint) or arm alone, found {dict(given)}")
    try:
        return in_memory(str(upstream(given["arm"]) / "model"), given["arm"])
    except MissingStep:
        return in_memory(given["arm"], given["arm"])


def settings(api: Mapping, **defaults: object) -> dict:
    """The parameter with `defaults`, else those of API, for what it leaves out.

    ParameterError for a key that API does not have, or a value of another type.
    """
    if unknown := sorted(set(api) - set(API)):
        raise ParameterError(f"api has no key {unknown[0]!r}{nearest(unknown[0], API)}")
    for name, value in api.items():
        kinds = (int, float) if isinstance(API[name], float) else type(API[name])
        if isinstance(value, bool) or not isinstance(value, kinds) and (name, value) != ("temperature", None):
            raise ParameterError(f"api: {name} takes {type(API[name]).__name__}, not {value!r}")
    return API | defaults | dict(api)


def complete(
    requests: Sequence[dict], api: Mapping, cache: Path, *, what: str = "", keep_unread: bool = False,
    readable: Callable[[dict, str], bool] | None = None, progress: Callable[[int, int], None] | None = None,
    **defaults: object,
) -> list[str | Skip]:  # fmt: skip
    """`openai_api.complete` with the settings of a parameter; the estimated cost is printed first, after `what`.

    RunError where the estimate exceeds `budget` US dollars.
    """
    api = settings(api, **defaults)
    prices, budget = {name: api.pop(name) for name in ("price_in", "price_out")}, api.pop("budget")
    way = {name: api[name] for name in ("model", "base_url", "max_tokens", "temperature")}
    cost = openai_api.estimate(requests, **prices, **way, cache=cache)
    print(f"{what}, {api['model']}:", ", ".join(f"{name} {value}" for name, value in cost.items()))
    if cost["cost"] is not None and cost["cost"] > budget:
        raise RunError(f"asking {api['model']} may cost {cost['cost']:.2f} dollars, the budget is {budget}. Raise it")
    how = {"readable": readable, "keep_unread": keep_unread, "progress": progress}
    return openai_api.complete(requests, **api, cache=cache, **how)
