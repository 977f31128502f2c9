"""Full-size studies from the Hub's files to their benchmarks, on stand-ins: the code that a GPU runs, other sizes.

What a CPU cannot do is set otherwise: bfloat16, 4-bit weights, and engines that shard (`ddp` stands for them).
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import standin_hub

from sbt.data import prepare
from sbt.microworld import write

SIZES = write.Sizes(pretrain=6, instruct=6, instruct_images=4, captions=4, pope=6, heldout=4)
FEW = {"rows": 24, "max_steps": 3, "batch_size": 4, "accumulation": 2, "dtype": "float32", "min_free_gb": 0.1}
FEWER = {"corrupted_limit": 2, "severities": [5]}
STUDIES = {
    "smol": ("", {"sample": 24, "max_steps": 0}),
    "colab-t4": ("", {"sample": 24, "quantization": ""}),
    "lit": ("", {"processes": 1, "engine": "", "aside": 4, "rows": 0, "templates_top": 1, **FEWER}),
    "paper-llama2-7b": ("00,10,20,30,40,50_truthfulqa,63", {"engine": "ddp", "processes": 2, "accumulation": 1}),
}
WAIT = 900  # seconds
LAYERS = ("lm_head", "model.language_model.embed_tokens", "model.language_model.layers.0.mlp.up_proj")
LOOK = """
import hashlib, json, sys
from pathlib import Path
from sbt.models import load_arm
found, wanted = {}, [f"{name}.weight" for name in sys.argv[1].split()]
for folder in map(Path, sys.argv[2:]):
    arm = load_arm(folder / "model")
    words, weights = arm.tokenizer.get_vocab(), arm.model.state_dict()
    hashes = {name: hashlib.sha256(weights[name].numpy().tobytes()).hexdigest() for name in wanted if name in weights}
    found[folder.name] = {"sees": arm.has_vision, "last words": sorted(words, key=words.get)[-2:], **hashes}
print(json.dumps(found))
"""


def given(study: str, own: Path, world: Path) -> dict:
    """`--set` of a study: sizes, the files that are not of the Hub, and the micro-world's benchmarks."""
    here = {"instruct_images_from": own / "train2017.zip", "truthfulqa_data": world / "eval", "preset": "none"}
    pope = {"pope_data": world / "eval", "images": world / "images", "splits": ["adversarial"]}
    shown = {"references": str(world / write.FILES["captions"]), "images": str(world / "images"), "split": ""}
    ethics = {"ethics_data": world / "eval" / "ethics"}
    other = {
        "smol": ethics,
        "colab-t4": ethics,
        "lit": {"instruct_data": own / "llava_v1_5_mix665k.json", "flickr": shown, **pope, **shown},
        "paper-llama2-7b": pope,
    }
    return FEW | here | {"max_new_tokens": 4} | other[study] | STUDIES[study][1]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, SimpleNamespace]]:
    """The studies, begun together: each is one process most of the time."""
    folder = tmp_path_factory.mktemp("small")
    own = standin_hub.write(folder / "home")
    write.write(folder / "world", SIZES, seed=0)
    environment = os.environ | {"HF_HOME": str(folder / "home"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    environment["SBT_OUTPUTS"] = str(folder / "outputs")
    begun = {}
    for study, (only, _) in STUDIES.items():
        command = [sys.executable, "-m", "sbt", "run", study, *(["--only", only] if only else [])]
        for name, value in given(study, own, folder / "world").items():
            command += ["--set", f"{name}={value if isinstance(value, str | Path) else json.dumps(value)}"]
        log = open(folder / f"{study}.log", "w")  # noqa: SIM115 - closed below
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
        at = folder / "outputs" / study
        begun[study] = SimpleNamespace(process=process, log=log, folder=at, environment=environment)
    yield begun
    for run in begun.values():
        run.process.kill()
        run.process.wait()
        run.log.close()


def finished(run: SimpleNamespace) -> dict[str, Path]:
    """Folders of the study's steps by name, when all are done."""
    code = run.process.wait(timeout=WAIT)
    assert code == 0, Path(run.log.name).read_text()[-3000:]
    return {done.parent.name: done.parent for done in sorted(run.folder.glob("*/DONE"))}


def looked_at(run: SimpleNamespace, folders: list[Path]) -> dict[str, dict]:
    """By step: whether the arm sees, its last two words, hashes of LAYERS; read where the stand-ins are the Hub's."""
    command = [sys.executable, "-c", LOOK, " ".join(LAYERS), *map(str, folders)]
    done = subprocess.run(command, env=run.environment, capture_output=True, text=True, timeout=WAIT)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def counts(step: Path) -> dict:
    return {
        folder.name: len(prepare.load(folder)) for folder in sorted((step / "rows").iterdir()) if folder.is_dir()
    }


def values(step: Path, metric: str) -> dict:
    found = json.loads((step / "metrics.json").read_text())
    return {row["arm"]: row["value"] for row in found if row["metric"] == metric}


@pytest.mark.parametrize("study", STUDIES)
def test_the_study_runs_to_its_end(runs: dict[str, SimpleNamespace], study: str) -> None:
    steps = finished(runs[study])
    arms = {name.partition("_")[2]: folder for name, folder in steps.items() if name[:3] in ("30_", "40_")}
    scored = values(steps["50_truthfulqa"], "mc2")
    assert set(scored) == {"base", *arms} and all(0 < value < 1 for value in scored.values())
    for name, arm in looked_at(runs[study], [*arms.values()]).items():
        assert arm["sees"] == ("text" not in name), name


def test_what_cannot_be_used_is_dropped_and_a_sample_drawn(runs: dict[str, SimpleNamespace]) -> None:
    data = finished(runs["smol"])["10_data"]
    assert counts(data) == {"instruct": 24, "instruct.all": standin_hub.ROWS, "pretrain": standin_hub.IMAGES}
    manifest = json.loads((data / "rows" / "instruct.all" / "manifest.json").read_text())
    assert manifest["drops"] == {"image missing": 1}
    assert "000000999999.jpg is not in" in manifest["dropped"][0]["reason"]


def test_the_four_losses_make_four_models_and_what_was_set_aside_judges_them(runs: dict[str, SimpleNamespace]) -> None:
    steps = finished(runs["lit"])
    aside = {row["images"][0] for row in prepare.load(steps["10_data"] / "rows" / "heldout")}
    trained = {image for row in prepare.load(steps["10_data"] / "rows" / "instruct") for image in row["images"]}
    assert len(aside) >= 2 and not aside & trained
    arms = {"answer-only", "instruction", "no-system", "no-templates"}
    assert set(values(steps["65_visual_contribution"], "visual contribution")) == arms
    found = looked_at(runs["lit"], [steps[f"30_{name}"] for name in arms])
    assert len({arm["lm_head.weight"] for arm in found.values()}) == 4, "two losses trained the same model"


def test_several_processes_train_the_papers_arms(runs: dict[str, SimpleNamespace]) -> None:
    steps = finished(runs["paper-llama2-7b"])
    for name in ("20_connector", "30_mm-full", "30_mm-lora", "40_text-visual"):
        assert list((steps[name] / "scratch" / "trainer").rglob("launch.log")), f"{name} was trained by one process"
    found = looked_at(runs["paper-llama2-7b"], [steps[name] for name in ("20_connector", "30_mm-full", "30_mm-lora")])
    assert found["30_mm-full"]["last words"] == ["<im_start>", "<im_end>"]
    for layer in LAYERS:
        hashes = {arm[f"{layer}.weight"] for arm in found.values()}
        assert len(hashes) == 3, f"{layer}: the authors train it in full, and with LoRA"
