"""PrefixLM against the harness's own model class (HFLM): tiny random models of many kinds, BOS, and endings."""

import warnings
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import tiny
import torch
import transformers as hf
from lm_eval.models.huggingface import HFLM
from peft import LoraConfig, get_peft_model
from tiny_fixtures import small  # noqa: F401 - a fixture; it sets the threads, too
from tokenizers import processors

from sbt.inference import loglikelihood
from sbt.inference.harness import PrefixLM
from sbt.models import silence_libraries
from sbt.utils.errors import ParameterError

SIZE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
WIDE = {**SIZE, "intermediate_size": 64, "num_key_value_heads": 2, "max_position_embeddings": 512}
LONGROPE = {"rope_type": "longrope", "rope_theta": 10000.0, "short_factor": [1.0] * 4, "long_factor": [2.0] * 4}
# By name: the configuration, and whether its prefixes can be shared.
KINDS: dict[str, tuple[Callable[[int], hf.PreTrainedConfig], bool]] = {
    "llama": (lambda v: hf.LlamaConfig(vocab_size=v, **WIDE), True),
    "llama, eager": (lambda v: hf.LlamaConfig(vocab_size=v, **WIDE, attn_implementation="eager"), True),
    "mistral": (lambda v: hf.MistralConfig(vocab_size=v, **WIDE, sliding_window=None), True),
    "mistral, window": (lambda v: hf.MistralConfig(vocab_size=v, **WIDE, sliding_window=16), False),
    "mistral, long window": (lambda v: hf.MistralConfig(vocab_size=v, **WIDE, sliding_window=30), False),
    "qwen2": (lambda v: hf.Qwen2Config(vocab_size=v, **WIDE), True),
    "qwen3": (lambda v: hf.Qwen3Config(vocab_size=v, **WIDE, head_dim=8), True),
    "gemma": (lambda v: hf.GemmaConfig(vocab_size=v, **WIDE, head_dim=8), True),
    "gemma2": (lambda v: hf.Gemma2Config(vocab_size=v, **WIDE, head_dim=8, final_logit_softcapping=3.0), True),
    "gemma3": (lambda v: hf.Gemma3TextConfig(vocab_size=v, **WIDE, head_dim=8), True),
    "cohere": (lambda v: hf.CohereConfig(vocab_size=v, **WIDE, logit_scale=0.0625), True),
    "granite": (lambda v: hf.GraniteConfig(vocab_size=v, **WIDE, logits_scaling=8.0), True),
    "phi": (lambda v: hf.PhiConfig(vocab_size=v, **WIDE | {"num_key_value_heads": 4}), True),
    "phi3, longrope": (
        lambda v: hf.Phi3Config(vocab_size=v, **WIDE, pad_token_id=0, bos_token_id=1, eos_token_id=2,
                                rope_parameters=LONGROPE, original_max_position_embeddings=24), False
    ),
    "olmo2": (lambda v: hf.Olmo2Config(vocab_size=v, **WIDE), True),
    "mixtral": (lambda v: hf.MixtralConfig(vocab_size=v, **WIDE, num_local_experts=4), True),
    "opt": (lambda v: hf.OPTConfig(vocab_size=v, **SIZE, ffn_dim=64, word_embed_proj_dim=32), True),
    "gpt2": (lambda v: hf.GPT2Config(vocab_size=v, n_embd=32, n_layer=2, n_head=4), True),
    "neox": (lambda v: hf.GPTNeoXConfig(vocab_size=v, **SIZE, intermediate_size=64), True),
    "falcon": (lambda v: hf.FalconConfig(vocab_size=v, **SIZE), True),
    "bloom": (lambda v: hf.BloomConfig(vocab_size=v, hidden_size=32, n_layer=2, n_head=4), False),
    "mamba": (lambda v: hf.MambaConfig(vocab_size=v, hidden_size=32, num_hidden_layers=2, state_size=4), False),
}  # fmt: skip


def words() -> hf.PreTrainedTokenizerFast:
    return tiny.tokenizer(pad="<unk>")


def made(config: hf.PreTrainedConfig, seed: int = 0) -> hf.PreTrainedModel:
    torch.manual_seed(seed)
    with silence_libraries():
        model = hf.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(6.0)
    return model.eval()


PREFIX = "".join(f"Is there a red star {n} in the picture? Yes, there is.\n" for n in range(5))
PAIRS = [(f"{PREFIX}Is it {n}?", text) for n in range(9) for text in (" yes", " no, it is a star", " blue")]
PAIRS += [(f"Star {n}: ", text) for n in range(4) for text in ("a circle", " no")]


def asked(*pairs: tuple) -> list[SimpleNamespace]:
    return [SimpleNamespace(args=pair) for pair in pairs]


def theirs(model: torch.nn.Module, tokenizer: object, **given: object) -> HFLM:
    with silence_libraries():
        return HFLM(pretrained=model, tokenizer=tokenizer, backend="causal", device="cpu",
                    softmax_dtype="float64", **{"batch_size": 6} | given)  # fmt: skip


def both(model: torch.nn.Module, tokenizer: object, pairs: list = PAIRS, **given: object) -> tuple[list, list, list]:
    """(HFLM's values, ours, what ours warns of)."""
    wanted = theirs(model, tokenizer).loglikelihood(asked(*pairs), disable_tqdm=True)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        found = PrefixLM(model, tokenizer, batch_size=6, **given).loglikelihood(asked(*pairs), disable_tqdm=True)
    return wanted, found, [str(one.message) for one in told if "shares no prefixes" in str(one.message)]


@pytest.mark.parametrize("name", KINDS)
def test_any_causal_model_gets_hflm_s_numbers(name: str, small: SimpleNamespace) -> None:  # noqa: F811
    config, shares = KINDS[name]
    tokenizer = words()
    model = made(config(len(tokenizer)))
    pairs = PAIRS[:27] if "longrope" in name else PAIRS  # HFLM's short rows would depend on the long ones beside them
    wanted, found, told = both(model, tokenizer, pairs)
    assert [value for value, _ in found] == pytest.approx([value for value, _ in wanted], abs=1e-4)
    assert [greedy for _, greedy in found] == [greedy for _, greedy in wanted]
    assert max(value for value, _ in wanted) - min(value for value, _ in wanted) > 5
    assert len(told) == (not shares), told
    assert both(model, tokenizer, pairs[:1])[2] == [], "it is told once"
    texts = asked(*((context, {"until": ["star"], "max_gen_toks": 6}) for context in dict(pairs)))
    with silence_libraries():
        assert PrefixLM(model, tokenizer, batch_size=5).generate_until(texts, disable_tqdm=True) == theirs(
            model, tokenizer, batch_size=1
        ).generate_until(texts, disable_tqdm=True)


def test_adapters_and_llava_are_causal_models_too() -> None:
    tokenizer = words()
    llama = made(KINDS["llama"][0](len(tokenizer)))
    lora = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM", init_lora_weights=False)
    vision = hf.CLIPVisionConfig(**SIZE, intermediate_size=64, image_size=28, patch_size=14)
    llava = hf.LlavaForConditionalGeneration(
        hf.LlavaConfig(text_config=llama.config, vision_config=vision, image_token_index=3)
    )
    for model in (llava.eval(), get_peft_model(llama, lora).eval()):
        wanted, found, told = both(model, tokenizer)
        assert [value for value, _ in found] == pytest.approx([value for value, _ in wanted], abs=1e-4)
        assert told == []


def test_what_is_no_causal_model_is_refused_by_name() -> None:
    tokenizer = words()
    v = len(tokenizer)
    t5 = hf.T5ForConditionalGeneration(hf.T5Config(vocab_size=v, d_model=32, d_ff=64, num_layers=2, num_heads=4))
    bert = hf.BertForMaskedLM(hf.BertConfig(vocab_size=v, **SIZE, intermediate_size=64))
    with torch.no_grad():
        for parameter in bert.parameters():
            parameter.mul_(6.0)
    training = made(hf.GPT2Config(vocab_size=v, n_embd=32, n_layer=2, n_head=4, resid_pdrop=0.5))
    for model in (t5.eval(), bert.eval()):
        with pytest.raises(ParameterError, match=f"{type(model).__name__} cannot be scored: it must be a causal"):
            PrefixLM(model, tokenizer)
    with pytest.raises(ParameterError, match="GPT2LMHeadModel cannot be scored: .* in evaluation mode"):
        loglikelihood.can_share(training.train(), 0)
    with pytest.raises(ParameterError, match="PrefixLM takes a loaded model and its tokenizer, not 'a/name'"):
        PrefixLM("a/name", tokenizer)


def test_a_wrong_mask_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: if eager attention were given a mask of truth values, the self-check would see it."""
    tokenizer = words()
    model = made(KINDS["llama, eager"][0](len(tokenizer)))
    real = loglikelihood._text_config
    monkeypatch.setattr(loglikelihood, "_text_config", lambda m: SimpleNamespace(
        vocab_size=real(m).vocab_size, _attn_implementation="other", sliding_window=None))  # fmt: skip
    with pytest.warns(UserWarning, match="LlamaForCausalLM shares no prefixes here .*nats off"):
        assert not loglikelihood.can_share(model, 0)


# BOS


def with_bos(tokenizer: hf.PreTrainedTokenizerFast) -> hf.PreTrainedTokenizerFast:
    begin = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", tokenizer.bos_token_id)])
    tokenizer.backend_tokenizer.post_processor = begin
    return tokenizer


def without_bos(tokenizer: hf.PreTrainedTokenizerFast) -> hf.PreTrainedTokenizerFast:
    tokenizer.bos_token = None
    return tokenizer


CASES = [*PAIRS[:4], ("<s>Is it?", " yes"), ("", "yes"), ("", " no"), ("", "<s>yes"), (" ", "yes"), ("\n", "no")]


@pytest.mark.parametrize("change", [lambda t: t, with_bos, without_bos], ids=["none added", "added", "no BOS"])
def test_bos_is_the_tokenizer_s_as_in_hflm(change: Callable) -> None:
    tokenizer = change(words())
    model = made(KINDS["llama"][0](len(tokenizer)))
    cases = [one for one in CASES if one[0].strip() or not one[0] or change is with_bos]  # others HFLM cannot do
    cases = cases if tokenizer.bos_token else [one for one in cases if "<s>" not in one[0] + one[1]]
    wanted, found, _ = both(model, tokenizer, cases)
    assert [value for value, _ in found] == pytest.approx([value for value, _ in wanted], abs=1e-4)
    if change is without_bos:
        with pytest.raises(ParameterError, match="add_bos is true, but the tokenizer has no BOS token"):
            both(model, tokenizer, cases, add_bos=True)
        return
    forced = both(model, tokenizer, cases, add_bos=True)[1]
    assert (forced != found) == (change is not with_bos)
    plain = both(model, tokenizer, PAIRS[:4], add_bos=False)[1]
    hflm = theirs(model, tokenizer, add_bos_token=False).loglikelihood(asked(*PAIRS[:4]), disable_tqdm=True)
    assert [value for value, _ in plain] == pytest.approx([value for value, _ in hflm], abs=1e-4)


# How texts end


def wrote(lm: HFLM, settings: dict, contexts: tuple = tuple(dict(PAIRS))) -> list[str]:
    with silence_libraries():
        return lm.generate_until(asked(*((context, dict(settings)) for context in contexts)), disable_tqdm=True)


@pytest.mark.parametrize(
    "settings",
    [
        {"until": ["\n"], "max_new_tokens": 5},
        {"until": ["star"], "max_tokens": 7},
        {"until": "i", "max_gen_toks": 9, "do_sample": False, "temperature": 0.7},
        {"until": None, "max_gen_toks": 4, "do_sample": False, "top_p": 0.9, "num_beams": 1},
    ],
)
def test_settings_of_a_task_are_hflm_s(settings: dict) -> None:
    tokenizer = words()
    model = made(KINDS["llama"][0](len(tokenizer)))
    found = wrote(PrefixLM(model, tokenizer, batch_size="auto"), settings)
    if settings["until"] is None:
        settings = {**settings, "until": []}
        assert found == wrote(PrefixLM(model, tokenizer), {**settings, "until": [""]}), "an empty stop ends nothing"
    assert found == wrote(theirs(model, tokenizer, batch_size=1), settings) and len(set(found)) > 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"num_beams": 3}, "a task sets num_beams=3, which this model class does not do. Take HFLM"),
     ({"repetition_penalty": 2.0}, "repetition_penalty=2.0"), ({"do_sample": True}, "asks for sampling"),
     ({"temperature": 0.5}, "asks for sampling"), ({"max_length": 9}, "max_length=9")],
)  # fmt: skip
def test_what_is_not_carried_out_is_refused_by_name(settings: dict, message: str) -> None:
    tokenizer = words()
    lm = PrefixLM(made(KINDS["llama"][0](len(tokenizer))), tokenizer)
    with pytest.raises(ParameterError, match=message):
        wrote(lm, {"until": ["\n"], **settings})


def test_the_model_s_generation_config_holds() -> None:
    tokenizer = words()
    tokenizer.pad_token = None
    model = made(KINDS["llama"][0](len(tokenizer)))
    settings = {"until": [], "max_gen_toks": 10}
    free = wrote(PrefixLM(model, words()), settings)
    ids = torch.tensor([tokenizer.encode(PAIRS[0][0])])
    made_ids = model.generate(ids, max_new_tokens=10, do_sample=False, pad_token_id=0)[0, ids.shape[1] :].tolist()
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, *made_ids[3:5]]
    found = wrote(PrefixLM(model, tokenizer), settings)
    assert found == wrote(theirs(model, tokenizer, batch_size=1), settings) != free
    model.generation_config.repetition_penalty = 1.5
    assert wrote(PrefixLM(model, tokenizer), settings) != found
    model.generation_config.num_beams = 2
    with pytest.raises(ParameterError, match="generation_config sets num_beams=2"):
        wrote(PrefixLM(model, tokenizer), settings)


@pytest.mark.parametrize("size", ["auto", "auto:4", "8", 8])
def test_batch_sizes_are_hflm_s(size: object) -> None:
    lm = PrefixLM(made(KINDS["llama"][0](len(words()))), words(), batch_size=size)
    assert lm.batch_size in (8, 32)


@pytest.mark.parametrize("size", ["many", 0, -1])
def test_a_wrong_batch_size_is_named(size: object) -> None:
    with pytest.raises(ParameterError, match="batch_size must be a number from 1 or 'auto'"):
        PrefixLM(made(KINDS["llama"][0](len(words()))), words(), batch_size=size)
