"""What a study's steps need: repositories asked for once, packages, GPUs, disks; all in one error."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import httpx
import huggingface_hub
import pytest
from huggingface_hub import constants
from huggingface_hub import errors as hub_errors

from sbt import benchmarks
from sbt.data import download, preflight
from sbt.data.preflight import access, verdict
from sbt.study import inputs, plan
from sbt.utils import env, paths
from sbt.utils.errors import RunError

GATED = "meta-llama/Llama-2-7b-hf"
TOWER = "openai/clip-vit-large-patch14"


@pytest.fixture(autouse=True)
def _no_source_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "refusal", lambda source, folder: "")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """A Hub that opens all but LLaMA 2 and the data set `me/data`, and an empty cache; what it was asked for."""
    seen = []

    def check(self: object, repo: str, *, repo_type: str) -> None:
        seen.append(repo)
        if repo in (GATED, "me/data"):
            raise hub_errors.GatedRepoError(
                "no", response=httpx.Response(403, request=httpx.Request("GET", "https://x"))
            )

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.HfApi, "auth_check", check)
    monkeypatch.setattr(preflight.hub, "cached", lambda *words: None)
    monkeypatch.setattr(download.env, "free_gb", lambda folder: 1000.0)
    monkeypatch.setattr(env, "gpus", lambda: 0)
    return seen


def checks(steps: list[dict], folder: Path) -> list[dict]:
    return preflight.checks(steps, folder, benchmarks.sources())


def failed(steps: list[dict]) -> dict[str, str]:
    return {row["check"]: row["why"] for row in checks(steps, Path("/nowhere")) if not row["ok"]}


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (None, ""),
        ("GatedRepoError", "accept its terms at https://huggingface.co/meta-llama/Llama-2-7b-hf"),
        ("RepositoryNotFoundError", "does not exist or is private"),
        ("ConnectionError", "could not be asked for"),
    ],
)
def test_access_says_in_words_where_to_ask(monkeypatch: pytest.MonkeyPatch, error: str | None, words: str) -> None:
    def check(self: object, repo: str, *, repo_type: str) -> None:
        response = httpx.Response(403, request=httpx.Request("GET", "https://huggingface.co"))
        if error == "ConnectionError":
            raise ConnectionError("no route")
        if error:
            raise getattr(hub_errors, error)("no", response=response)

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.HfApi, "auth_check", check)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    found = access("meta-llama/Llama-2-7b-hf")
    assert bool(found) is bool(error) and words in found and "secret" not in found


def test_every_repository_is_asked_for_once_and_all_refused_are_named(asked: list[str]) -> None:
    steps = [
        {"step": "10", "tokenizer": GATED, "pretrain_data": "me/data", "instruct_data": "llava-instruct-80k"},
        {"step": "20", "language_model": GATED, "vision_tower": TOWER, "connector": "20_connector"},
        {"step": "50", "base": GATED, "language_model": "assets/llm"},
    ]
    with pytest.raises(RunError) as error:
        verdict(checks(steps, Path("/nowhere")))
    assert sorted(asked) == ["me/data", GATED, TOWER]
    words = str(error.value)
    assert f"https://huggingface.co/{GATED}" in words and "https://huggingface.co/datasets/me/data" in words
    assert TOWER not in words and len(words.splitlines()) == 3


def test_nobody_is_asked_for_what_is_here(asked: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    local = {"language_model": str(tmp_path / "model"), "base": "assets/llm", "tokenizer": "", "quantization": ""}
    assert checks([local], tmp_path) == []
    assert checks([step.values for step in plan.load("embedded")[1]], tmp_path) == [] and asked == []
    monkeypatch.setattr(preflight.hub, "cached", lambda *words: tmp_path)
    assert [row["found"] for row in checks([{"base": GATED}], tmp_path)] == ["cached"] and asked == []
    monkeypatch.setattr(preflight.hub, "cached", lambda *words: None)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert [row["ok"] for row in checks([{"base": GATED}], tmp_path)] == [True] and asked == []


def test_packages_and_gpus_are_looked_for_by_what_asks_for_them(
    asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = [
        {"step": "20", "quantization": "4bit", "engine": "", "language_model": "openlm-research/open_llama_3b_v2"},
        {"step": "30", "engine": "zero3", "processes": 8, "machines": 2, "liger": True},
    ]
    monkeypatch.setattr(env, "version", lambda package: None)
    assert set(failed(steps)) == {*preflight.EXTRAS, "NVIDIA GPUs"}
    assert 'pip install -e ".[multi-gpu]"' in failed(steps)["deepspeed"] and "of 30" in failed(steps)["deepspeed"]
    monkeypatch.setattr(env, "version", lambda package: "1.0")
    assert failed(steps) == {"NVIDIA GPUs": "engine 'zero3' of 30, 4 processes on a machine needs 4"}
    monkeypatch.setattr(env, "gpus", lambda: 4)
    assert failed(steps) == {}
    two = [{"step": "30", "engine": "ddp", "processes": 8}]
    assert "needs 8" in failed(two)["NVIDIA GPUs"]
    monkeypatch.setattr(env, "gpus", lambda: 0)
    assert failed(two) == {}, "ddp trains on a CPU, too"


def test_every_path_that_is_not_here_is_named_at_once(asked: list[str], tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    steps = [
        {"step": "10", "instruct_data": "llava-instruct-80", "pretrain_data": "cc3m-595k", "alpaca_data": ""},
        {"step": "52", "sources": {"gsm8k": "hub", "mmlu": "data/none/mmlu"}, "base": "/none/model"},
        {"step": "60", "mme_data": "data/none/mme", "images": str(tmp_path / "pictures"), "preset": "harness"},
        {"step": "62", "references": "hub", "flickr": {"references": "data/none/f.json", "split": "test"}},
        {"step": "63", "pope_data": "data/none/pope", "images": "data/none/mme", "api": {"model": "a/b"}},
        {"step": "65", "heldout_data": str(paths.outputs() / "embedded" / "made-later.json")},
    ]
    with pytest.raises(RunError) as error:
        verdict(checks(steps, tmp_path))
    named = [line.strip() for line in str(error.value).splitlines()[1:]]
    assert [line.partition(" (")[0].removeprefix("path ").removeprefix(f"{paths.root()}/") for line in named] == [
        "llava-instruct-80", "data/none/mmlu", "/none/model", "data/none/mme", "data/none/f.json", "data/none/pope"
    ]  # fmt: skip
    assert "instruct_data of 10: put it there" in named[0] and "or name one of cc3m-595k" in named[0]
    assert "mme_data of 60, images of 63" in named[3] and "flickr of 62" in named[4]


def test_the_text_sets_of_a_step_are_among_what_it_downloads() -> None:
    asked_for = {"sources": {"mmlu": "hub", "gsm8k": "data/gsm8k"}, "truthfulqa_data": "hub", "ethics_data": ""}
    names = [source.name for source in preflight.wanted(asked_for, benchmarks.sources())]
    assert sorted(names) == ["mmlu", "truthfulqa"]


@pytest.mark.parametrize("notebook", sorted(path.stem for path in paths.notebooks().glob("*.ipynb")))
def test_every_parameter_that_names_a_path_is_looked_at(notebook: str) -> None:
    cells = json.loads((paths.notebooks() / f"{notebook}.ipynb").read_text())["cells"]
    (cell,) = [one for one in cells if "parameters" in one["metadata"].get("tags", ())]
    for line in "".join(cell["source"]).splitlines():
        name, words = line.partition(":")[0], line.partition("#")[2]
        if not re.search(r"\b(folder|file|zip|JSON lines)\b", words) or re.search(r"step's folder|folder of p", words):
            continue
        if (": str" in line or ": dict" in line) and name not in ("split", "truthfulqa_version"):
            found = [*inputs.named(name, "/none/x"), *inputs.named(name, {"a": "/none/x"})]
            assert "/none/x" in found, f"{notebook}: {name} names a path that the preflight does not look at"


def test_a_disk_too_small_for_the_downloads_is_named(asked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "_filesystem", lambda at: hash(at))
    monkeypatch.setattr(download.env, "free_gb", lambda folder: 10.0)
    rows = checks([{"pretrain_data": "cc3m-595k", "instruct_images_from": "coco-train2017"}], Path("/nowhere"))
    assert [row["ok"] for row in rows] == [True, False]
    assert "/nowhere: 19.7 GB are needed (train2017.zip 19.3 GB), 10.0 GB are free" in rows[1]["why"]


def test_what_set_gives_reaches_the_check() -> None:
    given = {"language_model": "assets/llm", "quantization": ""}
    check = plan.load("colab-t4", given=given)[1][0]
    assert check.notebook == "00_check" and check.values["changed"] == given
    assert plan.load("colab-t4")[1][0].values["changed"] == {}
    again = {step.values["step"]: step.values for step in plan.load("colab-t4", given=check.values["changed"])[1]}
    assert again["20_connector"]["language_model"] == "assets/llm" and not again["30_mm-lora"]["quantization"]
    assert plan.load("colab-t4")[1][2].values["quantization"] == "4bit" and paths.params().is_dir()


def test_what_only_some_steps_need_is_said_and_the_study_goes_on() -> None:
    def step(name: str, *needs: str, sums_up: bool = False) -> SimpleNamespace:
        return SimpleNamespace(name=name, needs=needs, sums_up=sums_up, scores=name.startswith("5"))

    steps = [step("25_a"), step("25_b"), step("50_a", "25_a"), step("50_b", "25_b")]
    steps.append(step("90_report", "50_a", "50_b", sums_up=True))
    row = {"check": "model me/a", "found": "refused", "ok": False, "why": "it is gated", "steps": ["25_a"]}
    words = verdict([row], steps)
    assert "model me/a (refused): it is gated" in words and words.endswith("these cannot run: 25_a, 50_a")
    assert verdict([row | {"ok": True}], steps) == ""
    for lost in (["25_a", "25_b"], ()):  # no arm could be scored; the machine lacks it
        with pytest.raises(RunError, match="this machine is not ready"):
            verdict([row | {"steps": lost}], steps)
