"""What a GPU must not wait for, shown without one: no figure read within a step, no padding, the same numbers."""

import gc
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny
import torch
from peft import LoraConfig, get_peft_model
from tiny_fixtures import small  # noqa: F401 - a fixture
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import TrainerCallback
from transformers.models.llama import modeling_llama
from trl import SFTTrainer

from sbt import models, templates
from sbt.models.measure import measure
from sbt.training import Collator, Settings, gpu, sft, trainer
from sbt.training.collator import Padded
from sbt.training.gpu import Prepared
from sbt.training.settings import Result
from sbt.training.train import _ANSWERS_ONLY, arguments, arrow_rows
from sbt.utils.errors import DataError

POLICIES = {
    "connector": {"connector": "full"},
    "full": {"connector": "full", "language_model": "full"},
    "lora": {"connector": "full", "language_model": "lora"},
}
# the fused optimizer is a GPU's: the plain one reads its count of steps, which lies on the host there
SETTINGS = Settings(
    learning_rate=1e-3, max_steps=6, batch_size=4, accumulation=2, save_minutes=0, optimizer="adamw_torch_fused"
)
WAITS = {"aten::_local_scalar_dense", "aten::nonzero", "aten::is_nonzero", "aten::item"}


def built(small: SimpleNamespace, policy: str) -> tuple:  # noqa: F811
    model, processor = models.assemble(small.llm, small.clip)
    return models.set_trainable(model, POLICIES[policy], {"r": 4, "lora_dropout": 0.0}), processor


def run(folder: Path, small: SimpleNamespace, policy: str, settings: Settings, **options: object) -> Result:  # noqa: F811
    model, processor = built(small, policy)
    return sft(model, processor, tiny.rows(small.images), folder, settings, **options)


class Waits(TorchDispatchMode):
    """Counts the operations at which the host would wait for a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(
        self, function: Callable, types: tuple, args: tuple = (), kwargs: dict | None = None
    ) -> object:
        if function.name().split(".")[0] in WAITS:
            self.found.append(function.name())
        return function(*args, **(kwargs or {}))


class Watched(TrainerCallback):
    """Counts the waits between the beginning and the end of each step, logging not included."""

    def __init__(self) -> None:
        self.steps: list[list[str]] = []

    def on_step_begin(self, *args: object, **kwargs: object) -> None:
        self.waits = Waits()
        self.waits.__enter__()

    def on_step_end(self, *args: object, **kwargs: object) -> None:
        self.waits.__exit__(None, None, None)
        self.steps.append(self.waits.found)


@contextmanager
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    """The waits of each step of the trainers that begin meanwhile."""
    callback = Watched()
    with monkeypatch.context() as patch:
        plain = SFTTrainer.train

        def train(self: SFTTrainer, *args: object, **kwargs: object) -> object:
            self.add_callback(callback)
            return plain(self, *args, **kwargs)

        patch.setattr(SFTTrainer, "train", train)
        yield callback


@pytest.mark.parametrize("policy", POLICIES)
def test_a_step_waits_for_nothing(
    tmp_path: Path,
    small: SimpleNamespace,  # noqa: F811
    policy: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = replace(SETTINGS, max_steps=2, padding_free="on", log_steps=2)
    with watched(monkeypatch) as ours:
        run(tmp_path / "ours", small, policy, settings)
    assert ours.steps == [[], []]
    model, processor = built(small, policy)
    processor.chat_template = templates.load("v1")
    rows = arrow_rows([row for row in tiny.rows(small.images) if row["images"]], vision=True)
    with models.silence_libraries(), watched(monkeypatch) as theirs:
        given = arguments(settings, tmp_path / "stock", 2, **_ANSWERS_ONLY)
        SFTTrainer(model=model, args=given, train_dataset=rows, processing_class=processor).train()
    assert min(map(len, theirs.steps)) >= 6, "the counter sees nothing: the stock trainer reads figures in each batch"


@pytest.mark.parametrize("policy", POLICIES)
def test_rows_laid_end_to_end_give_the_same_training(tmp_path: Path, small: SimpleNamespace, policy: str) -> None:  # noqa: F811
    """With and without images, and a batch of texts alone; with log-likelihoods of held-out rows, and a kill."""
    heldout = tiny.rows(small.images, 20)[12:]
    costs = {}
    for name in ("off", "on"):
        settings = replace(SETTINGS, padding_free=name, eval_steps=3)
        model, processor = built(small, policy)
        seen = trainer.core_of(model).model
        given = (model, processor, tiny.rows(small.images), tmp_path / name, settings)
        result, cost = measure(seen, partial(sft, *given, heldout=heldout))
        costs[name] = (result, cost["tokens"], model)
    (padded, most, one), (flat, least, other) = costs["off"], costs["on"]
    batch = Collator(built(small, policy)[1], "v1")(tiny.rows(small.images))
    assert least == 3 * batch["attention_mask"].sum() + 2 * heldout_tokens(small, heldout, policy) < most
    for column in ("loss", "grad_norm", "accuracy", "heldout_loss"):
        apart = (padded.history[column] - flat.history[column]).abs().max()
        assert apart < 1e-5, column
    for (name, a), b in zip(one.named_parameters(), other.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-5), name
    assert trainer.core_of(other).get_decoder().config._attn_implementation == "sdpa"
    with pytest.raises(tiny.Killed):
        settings = replace(SETTINGS, padding_free="on", save_steps=2)
        run(tmp_path / "cut", small, policy, settings, progress=tiny.killed_at(5))
    resumed = run(tmp_path / "cut", small, policy, settings)
    assert (resumed.resumed_from, resumed.weights_sha256) == (4, flat.weights_sha256)


def heldout_tokens(small: SimpleNamespace, rows: list[dict], policy: str) -> int:  # noqa: F811
    """What measuring held-out rows reads, padding included."""
    order = sorted(rows, key=lambda row: len(str(row["messages"])))
    collate = Collator(built(small, policy)[1], "v1")
    return sum(collate(order[start : start + 4])["input_ids"].numel() for start in range(0, len(order), 4))


def test_figures_read_together_are_those_read_one_by_one(tmp_path: Path, small: SimpleNamespace) -> None:  # noqa: F811
    """Also where a checkpoint lies within a window, and after a resume from it; each step is told once."""
    told: list[int] = []
    whole = run(tmp_path / "whole", small, "full", replace(SETTINGS, save_steps=4))
    windows = replace(SETTINGS, save_steps=4, log_steps=3)
    together = run(tmp_path / "windows", small, "full", windows, progress=lambda step, total, loss: told.append(step))
    assert told == [1, 2, 3, 4, 5, 6]
    assert together.history.equals(whole.history) and together.weights_sha256 == whole.weights_sha256
    with pytest.raises(tiny.Killed):  # step 5 is told with step 6: the checkpoint of step 4 is there
        run(tmp_path / "cut", small, "full", windows, progress=tiny.killed_at(5))
    resumed = run(tmp_path / "cut", small, "full", windows)
    assert resumed.resumed_from == 4
    assert resumed.history.equals(whole.history) and resumed.weights_sha256 == whole.weights_sha256


def test_an_error_in_a_process_that_reads_rows_is_one_line(tmp_path: Path, small: SimpleNamespace) -> None:  # noqa: F811
    rows = tiny.rows(small.images)
    rows[4]["images"] = [str(tmp_path / "gone.png")] * len(rows[4]["images"])
    rows[3]["images"] = [str(tmp_path / "gone.png")]
    said = []
    for workers in (0, 2):
        with pytest.raises(DataError, match="image cannot be read") as error:
            model, processor = built(small, "connector")
            sft(model, processor, rows, tmp_path / str(workers), replace(SETTINGS, workers=workers, max_steps=3))
        said.append(str(error.value))
    assert said[0] == said[1] and "\n" not in said[0]


def test_beside_a_gpu_rows_are_read_by_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (Settings().readers(), Settings().flat(), Settings().steps_logged()) == (0, False, 1)
    assert Settings(padding_free="on").flat() and not Settings(padding_free="off").flat()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(16)), raising=False)
    assert (Settings().readers(), Settings().flat(), Settings().steps_logged()) == (8, True, 10)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert (Settings().readers(), Settings(workers=5).readers()) == (3, 5)


def test_a_batch_knows_its_rows_and_labels(small: SimpleNamespace) -> None:  # noqa: F811
    """What is picked is what a padded batch trains, in its order; a stand-in for no row has nothing."""
    collate = Collator(built(small, "full")[1], "v1")
    rows = tiny.rows(small.images)[:5]
    plain = collate(rows)
    following = plain["labels"][:, 1:]
    for flat in (False, True):
        batch = Prepared(Padded(collate), flat)(rows)
        assert batch["shift_labels"].tolist() == [following[following != -100].tolist()] == batch["labels"].tolist()
        before = batch["input_ids"].flatten()[batch["places"]]
        assert before.tolist() == plain["input_ids"][:, :-1][following != -100].tolist()
    assert batch["input_ids"].shape == (1, plain["attention_mask"].sum())
    assert batch["row_lengths"] == plain["attention_mask"].sum(dim=1).tolist()
    assert batch["row_ends"].diff().tolist() == batch["row_lengths"] and batch["row_ends"][0] == 0
    starts = batch["row_ends"][:-1]
    assert batch["position_ids"][0, starts].tolist() == [0] * 5
    nothing = Prepared(Padded(collate), True)([{**rows[0], "id": None}])
    assert nothing["shift_labels"].shape == (1, 0)


@pytest.mark.parametrize("policy", POLICIES)
def test_as_few_blocks_are_computed_again_as_the_memory_allows(small: SimpleNamespace, policy: str) -> None:  # noqa: F811
    model, processor = built(small, policy)
    rows = arrow_rows(tiny.rows(small.images), vision=True)
    collate = Prepared(Collator(processor, "v1"))
    settings = replace(SETTINGS, gradient_checkpointing="auto")
    state = torch.random.get_rng_state()

    def choice(gb: float, engine: str = "") -> tuple[str, str]:
        return gpu.checkpointing(model, rows, collate, settings, engine, room=lambda device: gb)

    needs = [float(part.split()[2]) for part in choice(0.0)[1].split(";")[0].split(", ")]
    assert torch.equal(torch.random.get_rng_state(), state), "the choice has drawn random numbers"
    assert choice(0.0)[0] == "all" and needs == sorted(needs, reverse=True)
    assert gpu.checkpointing(model, rows, collate, settings, "") == ("none", "no GPU")
    assert choice(99.0, "fsdp")[0] == "all"
    name, reason = choice(99.0)
    assert name == "none" and reason.endswith("99.0 GB are free") and "half" not in reason


@pytest.mark.parametrize("policy", POLICIES)
def test_what_a_token_keeps_is_what_a_pass_keeps(small: SimpleNamespace, policy: str) -> None:  # noqa: F811
    """Against passes of more rows; and half of the blocks lie between none and all."""
    model, processor = built(small, policy)
    collate = Prepared(Collator(processor, "v1"))
    row = tiny.rows(small.images)[1]
    token = gpu._kept_by_a_token(model, [collate([row] * 2), collate([row] * 3)], SETTINGS)
    again = gpu._kept_by_a_token(model, [collate([row] * 2), collate([row] * 5)], SETTINGS)
    assert token > 0 and again == pytest.approx(token, rel=0.02)
    none, half, every = (gpu._activations(model, token, share) for share in gpu.SHARES.values())
    assert none == token and every < half < none + token / 2


def test_measuring_a_pass_holds_no_memory(small: SimpleNamespace) -> None:  # noqa: F811
    """A hook that hands a tensor back lets the node that made it hold itself: the model stays for ever."""
    model, processor = built(small, "lora")
    collate = Prepared(Collator(processor, "v1"))
    weights = weakref.WeakSet(model.parameters())
    assert gpu._kept_by_a_token(model, [collate(tiny.rows(small.images)[:count]) for count in (1, 2)], SETTINGS) > 0
    del model
    gc.collect()
    assert not weights


@pytest.mark.parametrize("compute", [torch.float32, torch.bfloat16])
def test_an_update_added_by_its_product_is_lora(compute: torch.dtype) -> None:
    """Outputs and gradients against PEFT's own; and no input is copied to float32."""
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(32, 48), nn.ReLU(), nn.Linear(48, 16))
    config = LoraConfig(target_modules=["0", "2"], r=8, lora_alpha=3, lora_dropout=0.1, init_lora_weights=False)
    model, read = get_peft_model(plain, config), torch.randn(4, 5, 32)
    formats: list[torch.dtype] = []
    layer = model.base_model.model[2]
    layer.lora_dropout["default"].register_forward_hook(lambda module, args, out: formats.append(out.dtype))

    def passed(lean: bool) -> list[torch.Tensor]:
        torch.manual_seed(1)
        model.zero_grad()
        with gpu.lean_adapters(model, lean), torch.autocast("cpu", compute, enabled=compute != torch.float32):
            out = model(read)
        out.float().square().sum().backward()
        return [out, *(weight.grad for weight in model.parameters() if weight.requires_grad)]

    tolerance = 1e-5 if compute == torch.float32 else 0.02
    for stock, lean in zip(passed(False), passed(True), strict=True):
        assert lean.dtype == stock.dtype
        torch.testing.assert_close(lean, stock, rtol=tolerance, atol=tolerance * stock.abs().max().item())
    assert formats == [torch.float32, compute]
    assert not layer.lora_variant, "the layer stays changed"


def test_what_liger_exchanges_is_put_back(tmp_path: Path, small: SimpleNamespace) -> None:  # noqa: F811
    """Liger exchanges a function for all models: other trainers of the process would be timed with it."""
    stock = modeling_llama.apply_rotary_pos_emb
    seen = []

    def exchange(step: int, *args: object, **figures: object) -> None:
        seen.append(modeling_llama.apply_rotary_pos_emb is stock)
        modeling_llama.apply_rotary_pos_emb = lambda *given, **more: stock(*given, **more)

    run(tmp_path, small, "full", SETTINGS, progress=exchange)
    assert seen[0] and not seen[1] and modeling_llama.apply_rotary_pos_emb is stock


@pytest.mark.parametrize("share", ["half", "all"])
def test_blocks_computed_again_change_nothing(tmp_path: Path, small: SimpleNamespace, share: str) -> None:  # noqa: F811
    plain = run(tmp_path / "plain", small, "full", SETTINGS)
    calls: list[int] = []

    def count(*args: object) -> None:
        calls.append(1)

    model, processor = built(small, "full")
    for layer in model.model.language_model.layers:
        layer.self_attn.register_forward_hook(count)
    settings = replace(SETTINGS, gradient_checkpointing=share)
    again = sft(model, processor, tiny.rows(small.images), tmp_path / share, settings)
    assert again.history.equals(plain.history) and again.weights_sha256 == plain.weights_sha256
    # six steps of eight and of four rows in turn, two layers: nine batches, forward once and computed again
    assert len(calls) == 9 * (2 + {"half": 1, "all": 2}[share])
