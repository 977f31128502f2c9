"""What is asked on pure text: the requests of ETHICS and of the five language benchmarks, by the harness's task files.

docs, examples = text_tasks.load("gsm8k", folder)
asked = text_tasks.language("gsm8k", docs, examples)
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import lm_eval.tasks
from transformers import PreTrainedTokenizerBase

from sbt.benchmarks import check_protocol
from sbt.benchmarks.boolq import task as boolq
from sbt.benchmarks.common.language import PROTOCOLS
from sbt.benchmarks.ethics import task as ethics
from sbt.benchmarks.gsm8k import task as gsm8k
from sbt.benchmarks.mathqa import task as mathqa
from sbt.benchmarks.mmlu import task as mmlu
from sbt.benchmarks.squad2 import task as squad2
from sbt.benchmarks.truthfulqa import files as truthfulqa_data
from sbt.benchmarks.truthfulqa import generation, mc_task
from sbt.data.registry import HUB
from sbt.inference import harness
from sbt.utils.errors import DataError, ParameterError
from sbt.utils.text import nearest

BENCHMARKS = {module.NAME: module for module in (mmlu, gsm8k, mathqa, boolq, squad2)}
FILES = {
    "mmlu": "mmlu/default/mmlu_{}.yaml",
    "gsm8k": "gsm8k/gsm8k.yaml",
    "mathqa": "mathqa/mathqa.yaml",
    "boolq": "super_glue/boolq/default.yaml",
    "squad2": "squadv2/squadv2.yaml",
    **{subset: f"hendrycks_ethics/{subset}.yaml" for subset in ethics.SUBSETS},
}
_MMLU = "mmlu/default/_default_template_yaml"  # for subjects the harness has no file of: the micro-world's
Tokenizer = PreTrainedTokenizerBase | None


def load(name: str, source: Path | str) -> tuple[list[dict] | dict[str, list[dict]], list[dict] | dict]:
    """(docs, few-shot examples) of a language benchmark from the publishers' files, or from the hub where it is "hub".

    Those of MMLU are by subject. ParameterError for an unknown benchmark, DataError for what is wrong with the data.
    """
    if name not in BENCHMARKS:
        raise ParameterError(f"language benchmark {name!r} is unknown{nearest(name, BENCHMARKS)}")
    module = BENCHMARKS[name]
    splits = [module.SPLIT, *([module.SHOTS_SPLIT] if module.SHOTS else [])]
    if str(source) != HUB:
        found = [module.load(source, split) for split in splits]
    elif name == "mmlu":
        found = [{subject: _hub(name, split, subject) for subject in _subjects()} for split in splits]
    else:
        found = [_hub(name, split) for split in splits]
    return found[0], found[1] if module.SHOTS else []


def load_ethics(source: Path | str, subset: str, split: str) -> list[dict]:
    """Rows of an ETHICS subset from the publishers' files, or from the hub where `source` is "hub"."""
    if str(source) != HUB:
        return ethics.load(source, subset, split)
    return ethics.from_rows(harness.hub_rows(FILES[subset], split), subset, f"{subset} {split} of the hub")


def load_truthfulqa(source: Path | str, version: str = "") -> tuple[list[dict], list[dict], str]:
    """(multiple-choice items, generation rows, data version): see `truthfulqa_data.find`, or from the hub."""
    if str(source) != HUB:
        return truthfulqa_data.find(source, version)
    rows = harness.hub_rows("truthfulqa/truthfulqa_mc1.yaml", "validation")
    items = mc_task.from_rows(rows, "TruthfulQA of the hub")
    if version not in ("", own := mc_task.version(items)):
        raise DataError(f"the hub holds TruthfulQA {own}, not {version!r}. Set truthfulqa_data to a folder with it")
    docs = harness.hub_rows("truthfulqa/truthfulqa_gen.yaml", "validation")
    return items, generation.prepared(docs), own


def language(
    name: str,
    docs: Sequence[dict] | Mapping[str, Sequence[dict]],
    examples: Sequence[dict] | Mapping[str, Sequence[dict]] = (),
    *,
    protocol: str = "standard",
    fewshot: str = "first",
    conversation: str = "",
    tokenizer: Tokenizer = None,
) -> dict[str, list[dict]]:
    """Requests by task: one task, or of MMLU one a subject. `fewshot`: see `harness.task`.

    Protocol "paper": GSM8K with the stop strings of the harness of that time, MMLU with the authors' own prompt.
    """
    check_protocol(protocol, PROTOCOLS)
    module = BENCHMARKS[name]
    given = {"shots": module.SHOTS, "conversation": conversation, "tokenizer": tokenizer}
    if name == "mmlu":
        if protocol == "paper":
            if conversation:
                raise ParameterError("the authors' MMLU script knows no conversation template: set conversation to ''")
            return {f"mmlu {subject}": _paper_mmlu(docs[subject], examples[subject], tokenizer) for subject in docs}
        return {
            f"mmlu {subject}": harness.requests(_mmlu(subject, docs[subject], examples[subject], fewshot), **given)
            for subject in docs
        }
    over = harness.task(FILES[name], docs, examples=examples, fewshot=fewshot)
    asked = harness.requests(over, **given)
    if "generation" in module.KIND[protocol] and module.UNTIL[protocol] != module.UNTIL["standard"]:
        asked = [{**one, "until": list(module.UNTIL[protocol])} for one in asked]
    return {name: asked}


def moral(
    docs: Mapping[tuple[str, str], Sequence[dict]],
    *,
    protocol: str = "standard",
    conversation: str = "",
    tokenizer: Tokenizer = None,
) -> dict[str, list[dict]]:
    """Requests of ETHICS by "SUBSET SPLIT", from the docs of each (subset, split)."""
    check_protocol(protocol, PROTOCOLS)
    asked = {}
    for (subset, split), rows in docs.items():
        older = ethics.PAPER_TEXT if protocol == "paper" else {}
        changed = {"doc_to_text": older[subset]} if subset in older else {}
        over = harness.task(FILES[subset], rows, **changed)
        asked[f"{subset} {split}"] = harness.requests(over, tokenizer, conversation=conversation)
    return asked


def as_letters(asked: Sequence[Mapping], labels: Sequence[int]) -> list[dict]:
    """Requests with options as the items of `benchmarks.letters`: for models that name a letter."""
    return [
        {"id": one["id"], "text": one["context"], "options": [t.strip() for t in one["continuations"]], "label": label}
        for one, label in zip(asked, labels, strict=True)
    ]


def flat(name: str, answers: Mapping[str, list]) -> list:
    """The answers of a benchmark in the order of its docs: of MMLU one subject after the other."""
    return [one for task, found in answers.items() if task.split()[0] == name for one in found]


def _mmlu(subject: str, docs: Sequence[dict], examples: Sequence[dict], fewshot: str) -> harness.ConfigurableTask:
    if subject in _subjects():
        return harness.task(FILES["mmlu"].format(subject), docs, examples=examples, fewshot=fewshot)
    about = f"The following are multiple choice questions (with answers) about {subject.replace('_', ' ')}.\n\n"
    return harness.task(_MMLU, docs, examples=examples, fewshot=fewshot, description=about)


def _subjects() -> list[str]:
    folder = Path(lm_eval.tasks.__file__).parent / "mmlu" / "default"
    return sorted(file.stem.removeprefix("mmlu_") for file in folder.glob("mmlu_*.yaml"))


def _hub(name: str, split: str, subject: str = "") -> list[dict]:
    rows = harness.hub_rows(FILES[name].format(subject), split)
    return BENCHMARKS[name].from_rows(rows, f"{name} {subject} {split} of the hub")


def _paper_mmlu(docs: Sequence[dict], examples: Sequence[dict], tokenizer: Tokenizer) -> list[dict]:
    if tokenizer is None:
        raise ParameterError("MMLU's protocol 'paper' counts tokens: it needs a tokenizer")
    found = []
    for number, doc in enumerate(docs):
        count = mmlu.shots_that_fit(doc, examples[: mmlu.SHOTS], lambda text: len(tokenizer(text)["input_ids"]))
        prompt = mmlu.paper_prompt(doc, examples[:count])
        ends = {"until": list(mmlu.UNTIL["paper"]), "max_new_tokens": mmlu.MAX_NEW_TOKENS}
        found.append({"id": str(number), "context": prompt, **ends})
    return found
