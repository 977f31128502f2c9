"""params/released: it plans without a network, and with a folder of stand-ins the same steps run to a report."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from released_standins import write_full, write_lora, write_projector

from sbt.__main__ import main
from sbt.models import list_arms, silence_libraries
from sbt.models.released.convert import convert
from sbt.study import plan as plans
from sbt.utils import paths
from sbt.utils.errors import MissingStep
from sbt.utils.files import read_json

CONVERT = "25_released_checkpoints"
FULL = ("LLaMA-2-7B", "LLaMA-2-7B-chat", "LLaMA-3B", "Alpaca-3B")
TUNED_ONLY = ("Vicuna-7B", "LLaMA-7B")
VISION = ("60_mme", "61_vqav2", "62_captioning", "63_pope", "64_unicorn")
TEXT = ("50_truthfulqa", "51_ethics", "52_language_ability")


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def test_the_plan_has_every_checkpoint_and_asks_no_network(
    no_network: None, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SBT_OUTPUTS", str(tmp_path))
    assert main(["plan", "params/released"]) == 0
    assert "steps to run" in capsys.readouterr().out and not any(tmp_path.iterdir())
    _, steps = plans.load("released")
    made = [step.values for step in steps if step.notebook == CONVERT]
    wanted = {f"PahaII/MM-{name}-{what}" for name in FULL for what in ("projector", "ft", "lora")}
    wanted |= {f"PahaII/MM-{name}-{what}" for name in TUNED_ONLY for what in ("projector", "ft")}
    assert {values["checkpoint"] for values in made} == wanted and len(wanted) == 16
    assert len(made) == len({values["arm"] for values in made}) == 16 + len(FULL)  # LoRA in two variants
    alone = {values["checkpoint"] for values in made if values["text_lora"] == "adapter"}
    assert alone == {f"PahaII/MM-{name}-lora" for name in FULL}
    for values in made:
        template = "llava_llama_2" if "LLaMA-2" in values["checkpoint"] else "v1"
        assert values["conversation"] == template and values["vision_tower"] == "openai/clip-vit-large-patch14"


def test_every_arm_is_scored_on_everything_beside_its_own_base() -> None:
    _, steps = plans.load("released")
    folders = {step.name: step.values for step in steps if step.notebook == CONVERT}
    scored: dict[str, set[str]] = {}
    for step in steps:
        if step.notebook not in (*VISION, *TEXT):
            continue
        found = [n for n in folders if n.startswith(tuple(step.values["arm_steps"]))]
        if step.notebook in TEXT:
            found = [name for name in found if folders[name]["arm"] in step.values["arms"]]
            assert {folders[name]["language_model"] for name in found} == {step.values["base"]}
            assert "base" in step.values["arms"] and len(found) == len(step.values["arms"]) - 1
        else:
            found = [name for name in found if folders[name]["text_lora"] != "adapter"]
        assert set(found) == set(step.needs), step.name
        for name in found:
            protocols = step.values.get("protocols") or [step.values["protocol"]]
            scored.setdefault(name, set()).update((step.notebook, protocol) for protocol in protocols)
    both = ("standard", "paper")
    for name in folders:
        seen = set() if name.endswith("_lora-adapter") else {(n, protocol) for n in VISION for protocol in both}
        read = set() if name.endswith("_projector") else {(n, protocol) for n in TEXT for protocol in both}
        assert scored[name] == seen | read, name


# --- with stand-ins -------------------------------------------------------------------------------------------------
PLAN = """
title: stand-ins for the released checkpoints
steps:
  - {name: 10_data, notebook: 10_data_preparation,
     set: {pretrain: 48, instruct: 48, instruct_images: 24, captions: 8, pope: 8, heldout: 4}}
"""
FAMILY = {"projector": {}, "ft": {}, "lora": {}, "lora-adapter": {"text_lora": "adapter"}}
SCORED = ("50_truthfulqa", "60_mme", "61_vqav2", "62_captioning", "63_pope", "64_unicorn")
LAYOUT = {"projector": "projector", "ft": "full", "lora": "lora", "lora-adapter": "lora"}


@pytest.fixture(scope="module")
def standins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the authors' page on the hub: a stand-in in each layout, and their base, which has no `<image>`."""
    root = tmp_path_factory.mktemp("released")
    base = shutil.copytree(paths.assets() / "llm", root / "base")
    for file in base.glob("*.json"):
        file.write_text(file.read_text().replace('"<image>"', '"<unused>"'))
    models = SimpleNamespace(llm=base, clip=paths.assets() / "clip")
    writers = {"projector": write_projector, "full": write_full, "lora": write_lora}
    with silence_libraries():
        for layout, write in writers.items():
            write(root / layout, models)
    return root


@pytest.mark.parametrize("name", FAMILY)
def test_an_arm_that_can_see_is_listed_as_one(name: str, standins: Path, tmp_path: Path) -> None:
    parts = {"language_model": standins / "base", "vision_tower": "assets/clip"}
    folder = standins / LAYOUT[name]
    convert(folder, tmp_path / "model", conversation="v1", arm=name, strip_markers=True, **parts, **FAMILY[name])
    if name == "lora-adapter":
        with pytest.raises(MissingStep, match="no finished arm that can see"):
            list_arms([tmp_path], vision=True)
    else:
        assert list(list_arms([tmp_path], vision=True)) == [name]


def steps(standins: Path, outputs: Path) -> list[dict]:
    made = []
    for name, more in FAMILY.items():
        given = {"arm": f"MM-{name}", "checkpoint": str(standins / LAYOUT[name]), "conversation": "v1"}
        given |= {"language_model": str(standins / "base"), "strip_markers": True, "stand_in_of": "", **more}
        made.append({"name": f"25_x_{name}", "notebook": CONVERT, "set": given})
    data = outputs / "tiny" / "10_data"
    needs, own = ["10_data", *(step["name"] for step in made)], {"arm_steps": ["25_x_"], "max_new_tokens": 4}
    read = {"base": str(standins / "base"), "arms": ["base", "MM-ft", "MM-lora", "MM-lora-adapter"]}
    vqa, few = data / "eval" / "vqav2", {"corruptions": ["fog"], "severities": [5], "corrupted_limit": 2}
    look = {
        "60_mme": {"mme_data": data / "eval" / "mme"},
        "61_vqav2": {"questions_file": vqa / "questions.json", "annotations": vqa / "annotations.json", **few},
        "62_captioning": {"references": data / "eval" / "captions.json", "other_severities": [5], **few}
        | {"demonstrations": data / "pretrain" / "chat.json"},
        "63_pope": {"pope_data": data / "eval", "splits": ["adversarial"]},
        "64_unicorn": {"unicorn_data": data / "eval" / "unicorn"},
    }
    asked = {"50_truthfulqa": read} | {name: {**given, "images": data / "images"} for name, given in look.items()}
    given = {name: json.loads(json.dumps(own | value, default=str)) for name, value in asked.items()}
    scored = [{"name": name, "notebook": name, "set": value, "needs": needs} for name, value in given.items()]
    none = dict.fromkeys(("data", "text_only"), "")
    summed = none | {"images": str(data / "images"), "tuned": "MM-ft"}
    return [*made, *scored, {"name": "90_report", "notebook": "90_report", "set": summed, "needs": [*asked]}]


def test_a_folder_of_stand_ins_runs_to_a_report(standins: Path, tmp_path: Path) -> None:
    root, outputs = tmp_path / "project", tmp_path / "outputs"
    (root / "params" / "tiny").mkdir(parents=True)
    for name in ("notebooks", "sbt"):
        (root / name).symlink_to(paths.package().parent / name)
    plan = yaml.safe_load(PLAN)
    plan["steps"] += steps(standins, outputs)
    (root / "params" / "tiny" / "plan.yaml").write_text(yaml.safe_dump(plan))
    environment = os.environ | {"SBT_ROOT": str(root), "SBT_OUTPUTS": str(outputs), "OMP_NUM_THREADS": "1"}
    environment |= {"HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "sbt", "run", "tiny"]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    done = {file.parent.name for file in outputs.glob("tiny/*/DONE")}
    assert done == {"10_data", *(f"25_x_{name}" for name in FAMILY), *SCORED, "90_report"}
    assert (outputs / "tiny" / "90_report" / "report.html").is_file()
    scores = {step: read_json(outputs / "tiny" / step / "metrics.json") for step in SCORED}
    assert {row["arm"] for row in scores["50_truthfulqa"]} == {"base", "MM-ft", "MM-lora", "MM-lora-adapter"}
    for step in SCORED[1:]:
        assert {row["arm"] for row in scores[step]} == {"MM-projector", "MM-ft", "MM-lora"}, step
    mc2 = {r["arm"]: r["value"] for r in scores["50_truthfulqa"] if (r["subset"], r["metric"]) == ("all", "mc2")}
    assert len(set(mc2.values())) == 4  # four models, two of them of one checkpoint
