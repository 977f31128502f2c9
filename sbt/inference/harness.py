"""The LM evaluation harness: its pinned task files over our rows, and a model class that computes prefixes once.

asked = harness.requests(harness.task("hendrycks_ethics/justice.yaml", docs), tokenizer)
lm_eval.simple_evaluate(model=harness.PrefixLM(model, tokenizer), tasks=[...])   # any task of the harness
"""

import importlib.metadata
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import datasets
import lm_eval.tasks
from lm_eval.api.instance import Instance
from lm_eval.api.task import ConfigurableTask
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import normalize_gen_kwargs
from lm_eval.tasks._yaml_loader import load_yaml
from torch import nn
from transformers import PreTrainedTokenizerBase

from sbt import __version__, templates
from sbt.inference import loglikelihood as likelihood
from sbt.inference.completion import complete
from sbt.inference.prefix_tree import TokenSequence
from sbt.inference.tokens import context_length, encode, fit
from sbt.models import silence_libraries
from sbt.utils.errors import DataError, ParameterError
from sbt.utils.files import sha256

VERSION = importlib.metadata.version("lm_eval")
FEWSHOT_SEED = 1234  # of the harness, for examples drawn anew for every question
SAMPLERS = {"first": "first_n", "random": "default"}
_OF_SAMPLING = ("top_p", "top_k", "min_p", "typical_p")  # without effect on a greedy text
_NEUTRAL = {"num_beams": 1, "repetition_penalty": 1.0, "no_repeat_ngram_size": 0, "length_penalty": 1.0,
            "early_stopping": False, "use_cache": True, "num_return_sequences": 1}  # fmt: skip


def task(
    file: str,
    docs: Sequence[Mapping],
    *,
    examples: Sequence[Mapping] = (),
    fewshot: str = "first",
    **changed: object,
) -> ConfigurableTask:
    """A task of the harness by its file below `lm_eval/tasks/`, over `docs` in the fields of its hub data set.

    `examples` are the few-shot examples to choose from: the `first` ones for every question, so that their part of the
    prompt is computed once, or `random` ones drawn anew for each, as the harness does by default. `changed` are values
    of the task file to replace. DataError where there are no docs, ParameterError for an unknown way of choosing.
    """
    if not docs:
        raise DataError(f"{file}: no rows to score")
    if fewshot not in SAMPLERS:
        raise ParameterError(f"fewshot {fewshot!r} is unknown: known are {', '.join(SAMPLERS)}")
    config = load_yaml(Path(lm_eval.tasks.__file__).parent / file, resolve_func=True)
    kind = config.pop("class", ConfigurableTask)
    train = "train" if examples else None
    config |= {"task": Path(file).stem, "test_split": "test", "validation_split": None, "training_split": train}
    config |= {"fewshot_split": train, "fewshot_config": {"sampler": SAMPLERS[fewshot]} if examples else None}
    rows = datasets.Dataset.from_list(list(docs))
    data = {"test": rows, "validation": rows, "train": datasets.Dataset.from_list(list(examples))}
    with silence_libraries():
        found = type("LocalTask", (_LocalTask, kind), {"local": data})(config=config | changed)
    found.set_fewshot_seed(FEWSHOT_SEED)
    return found


class _LocalTask(ConfigurableTask):
    """A task whose rows are given instead of downloaded."""

    local: dict

    def download(self, dataset_kwargs: dict | None = None, **kwargs: object) -> None:
        """Where the harness would fetch the data set."""
        self.dataset = self.local


def requests(
    over: ConfigurableTask,
    tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    shots: int = 0,
    conversation: str = "",
) -> list[dict]:
    """What the task asks of each row, in their order: {"id", "context", "continuations" or "until" or both}.

    `conversation` names a conversation template, for which the `tokenizer` gives the special tokens; few-shot examples
    are turns of it then. "": the harness's plain text.
    """
    chat = {"apply_chat_template": bool(conversation), "chat_template": _renderer(tokenizer, conversation)}
    found = []
    with silence_libraries():
        docs = list(over.eval_docs)
    for number, doc in enumerate(docs):
        context = over.fewshot_context(doc, shots, fewshot_as_multiturn=bool(conversation), **chat)
        made = over.construct_requests(doc, context, metadata=(over.config.task, number, 1), **chat)
        asked = {"id": str(number), "context": context}
        for instance in made if isinstance(made, list) else [made]:
            if instance.request_type == "loglikelihood":
                asked.setdefault("continuations", []).append(instance.args[1])
            else:
                asked["until"] = list(instance.args[1]["until"])
        found.append(asked)
    return found


def as_chat(asked: Sequence[Mapping], tokenizer: PreTrainedTokenizerBase, conversation: str) -> list[dict]:
    """Requests of our own making as the harness would put them with a chat template: the context is the user's turn,
    and the blank before a continuation goes."""
    if not conversation:
        return list(asked)
    render, found = _renderer(tokenizer, conversation), []
    for one in asked:
        texts = (
            {"continuations": [text.removeprefix(" ") for text in one["continuations"]]}
            if "continuations" in one
            else {}
        )
        found.append({**one, "context": render([{"role": "user", "content": one["context"]}]), **texts})
    return found


def provenance(protocol: str, asked: Mapping[str, Sequence[Mapping]], **settings: object) -> dict[str, str]:
    """What metric rows say of their making: the protocol, the versions, and a hash of all prompts and `settings`.

    `asked` are the requests by task. Equal for all arms of a run, for they are asked the same in the same way.
    """
    texts = [f"{name}={settings[name]}" for name in sorted(settings)]
    for task_name in sorted(asked):
        for one in asked[task_name]:
            texts += [task_name, one["context"], *one.get("continuations", []), *one.get("until", [])]
    versions = f"sbt {__version__}, lm-eval {VERSION}"
    return {"protocol": protocol, "template_hash": sha256("\x1f".join(texts))[:12], "harness_version": versions}


def _renderer(tokenizer: PreTrainedTokenizerBase, conversation: str) -> Callable[..., str] | None:
    if not conversation:
        return None
    template = templates.load(conversation)

    def render(turns: list[dict], add_generation_prompt: bool = True) -> str:
        return tokenizer.apply_chat_template(
            turns, chat_template=template, tokenize=False, add_generation_prompt=add_generation_prompt
        )

    return render


class PrefixLM(HFLM):
    """A model class for `lm_eval.simple_evaluate`: HFLM's numbers for any causal model, greedy only.

    Shared prefixes are computed once where the model allows it; `loglikelihood` says how that is checked. In
    float32 the numbers are within 1e-4 of HFLM with its `softmax_dtype="float64"`; HFLM's default sums in float32,
    which is off by as much where a choice has several hundred nats. `add_bos` None leaves BOS to the tokenizer, as
    HFLM does. Contexts longer than the model are cut from the left, too, and listed in `truncated` as {text: tokens}.
    ParameterError for what is no loaded causal language model.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        *,
        batch_size: int | str = 32,
        add_bos: bool | None = None,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise ParameterError(
                f"PrefixLM takes a loaded model and its tokenizer, not {model!r:.80}: "
                "AutoModelForCausalLM.from_pretrained gives one"
            )
        given = {"pretrained": model, "tokenizer": tokenizer, "device": str(model.device)}
        with silence_libraries():
            super().__init__(
                **given,
                backend="causal",
                batch_size=_batch_size(batch_size),
                add_bos_token=add_bos,
                max_length=context_length(model, tokenizer),
            )
        self.fills = str(batch_size).startswith("auto") and model.device.type == "cuda"  # batches, by their tokens
        self.truncated: dict[str, int] = {}
        likelihood.can_share(model, 0)

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """As HFLM's, all texts tokenised at once."""
        asked: dict[str, list[str]] = {}
        for context, text in (request.args for request in requests):
            asked.setdefault(context, []).append(text)
        given = [{"id": context, "context": context, "continuations": texts} for context, texts in asked.items()]
        encoded = encode(self.tokenizer, given, self.add_bos_token)
        known = {
            (one["context"], text): sequence
            for one, own in zip(given, encoded, strict=True)
            for text, sequence in zip(dict.fromkeys(one["continuations"]), own, strict=True)
        }
        pairs = [(request.args, known[request.args]) for request in requests]
        tokens = [(args, list(one.context), list(one.continuation)) for args, one in pairs]
        return self._loglikelihood_tokens(tokens, disable_tqdm=disable_tqdm)

    def _loglikelihood_tokens(
        self, requests: list[tuple], disable_tqdm: bool = False, override_bs: int | None = None
    ) -> list[tuple[float, bool]]:
        sequences = [
            self._fitted(text, TokenSequence(tuple(context), tuple(tail))) for text, context, tail in requests
        ]
        places: dict[tuple, list[int]] = {}
        for number, one in enumerate(sequences):
            places.setdefault(one.context, []).append(number)
        items = [[sequences[number] for number in numbers] for numbers in places.values()]
        size = override_bs or (0 if self.fills else self.batch_size)
        found = likelihood.score(self.model, items, batch_size=size)
        answers: list = [None] * len(sequences)
        for numbers, values in zip(places.values(), found, strict=True):
            for number, value in zip(numbers, values, strict=True):
                answers[number] = value
        for (text, _, _), answer in zip(requests, answers, strict=True):
            if text is not None:
                self.cache_hook.add_partial("loglikelihood", text, answer)
        return answers

    def _fitted(self, text: tuple[str, str] | None, one: TokenSequence) -> TokenSequence:
        length = len(one.context) + len(one.continuation)
        if length <= self.max_length + 1:
            return one
        self.truncated[(text or ("a rolling window",))[0]] = length
        return fit(one, self.max_length)

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Greedy continuations; ParameterError names a setting of a task that is not carried out."""
        asked = []
        for number, (context, settings) in enumerate(request.args for request in requests):
            ends = generation_ends(settings, self.max_gen_toks)
            asked.append({"id": str(number), "context": context, **ends})
        with tempfile.TemporaryDirectory() as folder:
            return complete(
                self.model,
                self.tokenizer,
                asked,
                cache=Path(folder) / "answers.jsonl",
                batch_size=self.batch_size,
                add_bos=self.add_bos_token,
                truncated=self.truncated,
            )


def generation_ends(settings: Mapping, max_new_tokens: int) -> dict:
    """{"until", "max_new_tokens"} of a task's `generation_kwargs`, in all spellings the harness knows.

    ParameterError for any other setting that would change a greedy text: it is not carried out here.
    """
    given = normalize_gen_kwargs(dict(settings), max_new_tokens)
    until, new = [text for text in given.pop("until") if text], given.pop("max_gen_toks")
    if given.pop("do_sample") or given.pop("temperature", 0):
        raise ParameterError(f"a task asks for sampling ({dict(settings)}); this model class decodes greedily")
    for name, value in given.items():
        if name not in _OF_SAMPLING and value is not None and value != _NEUTRAL.get(name):
            raise ParameterError(f"a task sets {name}={value!r}, which this model class does not do. Take HFLM for it")
    return {"until": until, "max_new_tokens": new}


def _batch_size(given: int | str) -> int:
    """A number, also as text; "auto", of HFLM, is our default where batches are not filled by their tokens."""
    if str(given).split(":")[0] == "auto":
        return 32
    if not str(given).isdigit() or int(given) < 1:
        raise ParameterError(f"batch_size must be a number from 1 or 'auto', not {given!r}")
    return int(given)
