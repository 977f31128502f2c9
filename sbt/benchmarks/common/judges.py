"""The judges that a notebook's parameter `judge` may name.

{"model": ..., "base_url": ..., "budget": ...}: behind an OpenAI-compatible endpoint; keys of `inference.paid.API`
{"arm": "30_mm-full"}: a step's arm, or a folder or model of the Hub, asked on this machine
{"replay": "verdicts.jsonl"}: raw verdicts of an earlier run, of the same answers to the same prompts
{}: the rules of the micro-world, which know the truth; real answers are then described and not judged
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sbt import models
from sbt.benchmarks.common import judge as judging
from sbt.benchmarks.common.judge import Judge, Progress, Protocol
from sbt.inference import generation, paid
from sbt.inference.decoding import Decoding
from sbt.utils import paths
from sbt.utils.errors import DataError

Rules = Callable[[str, dict], str]
NOBODY = Judge("nobody", lambda protocol, cases, cache, progress: [None] * len(cases))


def named(run: Any, rules: Rules | None = None) -> Judge:
    """The judge that the run's parameter `judge` names; where it is empty `rules`, and nobody without them.

    ParameterError for a parameter that names none, or several (`paid.named`).
    """
    given = dict(run.p.judge)
    if not given:
        return by_rules(rules) if rules is not None else NOBODY
    if set(given) == {"replay"}:
        return replay(given["replay"])
    return paid.named(given, "judge needs replay alone, or", run.upstream, behind, in_memory)


def by_rules(rules: Rules) -> Judge:
    """A judge that is a function of the benchmark's name and the case, as `Protocol.case` makes it."""
    return Judge("rules", lambda protocol, cases, cache, progress: [rules(protocol.benchmark, one) for one in cases])


def behind(api: Mapping) -> Judge:
    """A model behind an endpoint; the cost is printed before it is asked. Unread verdicts are paid for: they are kept.

    ParameterError for a setting that an endpoint does not have.
    """
    paid.settings(api)

    def ask(protocol: Protocol, cases: Sequence[dict], cache: Path, progress: Progress) -> list[object]:
        requests = [{"id": _name(case), "messages": case["messages"]} for case in cases]
        how = {"max_tokens": protocol.max_tokens, "temperature": protocol.temperature, "progress": progress}
        how |= {"keep_unread": True, "readable": lambda request, verdict: protocol.parse(verdict) is not None}
        return paid.complete(requests, api, cache, what=f"{protocol.benchmark}, judging", **how)

    return Judge(api["model"], ask, api.get("temperature"))


def in_memory(reference: str, name: str) -> Judge:
    """An arm, or another model that this machine loads, asked in its own conversation format."""

    def ask(protocol: Protocol, cases: Sequence[dict], cache: Path, progress: Progress) -> list[object]:
        texts = ["\n\n".join(message["content"] for message in case["messages"]) for case in cases]
        requests = [{"id": _name(case), "image": None, "text": text} for case, text in zip(cases, texts, strict=True)]
        how = Decoding(protocol.max_tokens, temperature=protocol.temperature)
        arm = models.load_arm(reference)
        return list(generation.generate(arm, requests, cache=cache, decoding=how, progress=progress))

    return Judge(name, ask)


def replay(file: Path | str) -> Judge:
    """The verdicts of a file, each under the name of who gave it.

    DataError where an answer has no verdict there, or another answer or prompt was judged.
    """

    def ask(protocol: Protocol, cases: Sequence[dict], cache: Path, progress: Progress) -> list[object]:
        rows = judging.read(protocol, paths.resolve(str(file)))
        known = {tuple(str(row[one]) for one in judging.KEY): row for row in rows}
        found = []
        for case in cases:
            row = known.get(tuple(str(case["row"][one]) for one in judging.KEY))
            if row is None or row.get("asked") != case["row"]["asked"]:
                why = "has no verdict" if row is None else "has another answer or prompt than was judged"
                raise DataError(f"{file}: {_name(case)} {why}. Judge it, or score the file by itself: `sbt score`")
            found.append(row)
        return found

    return Judge("replay", ask)


def _name(case: dict) -> str:
    return " ".join(str(case["row"][one]) for one in ("benchmark", *judging.KEY)).strip()
