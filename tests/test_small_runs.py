"""Studies of params/ from empty caches to their reports, against a loopback hub that serves the publishers' layouts.

The clients of the Hub are the real ones; a study's process reaches nothing but the hub. What a CPU cannot do is set
otherwise: bfloat16, 4-bit weights, and engines that shard (`ddp` stands for them). `pytest --studies` runs all of
them, each with all its steps; without it a few run, some with fewer steps. `smol` is fetched, and then run offline.
"""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import standin_data
import standin_hub
from fake_hub import FakeHub

from sbt.data import prepare
from sbt.study import plan as plans
from sbt.utils import paths

FEW = {"rows": 24, "max_steps": 3, "batch_size": 4, "accumulation": 2, "dtype": "float32", "min_free_gb": 0.1,
       "max_new_tokens": 4, "preset": "none", "questions": 4, "pool": 4}  # fmt: skip
ONE = {"processes": 1, "engine": ""}
TWO = {"processes": 2, "engine": "ddp", "accumulation": 1}
SHORT = {"corrupted_limit": 2, "severities": [5]}  # of benchmarks with corrupted pictures
DRAWN = {"sample": 24, "pretrain_sample": 24}
OWN_VALUES = {"smol": {**DRAWN, "max_steps": 0}, "colab-t4": {**DRAWN, "quantization": "", **ONE},
           "kaggle-2xt4": {**DRAWN, "quantization": "", **TWO}, "ablation-types": {"sample": 24, **ONE},
              "mmdpo": {"questions": ""}}  # fmt: skip
# They need no hub, or train and report nothing, and are run elsewhere.
OTHERS = ("embedded", "embedded-types", "embedded-factors", "embedded-seeds", "first-steps", "base-models", "gpu-7b",
          "mmdpo-released")  # fmt: skip
STUDIES = sorted(folder.name for folder in paths.params().iterdir() if folder.name not in OTHERS)
RELEASED = (
    "00_check,25_vicuna-7b_projector,25_vicuna-7b_ft,50_truthfulqa_vicuna-7b,52_language_vicuna-7b,63_pope_vicuna-7b,"
    "90_report_vicuna-7b"
)
QUICK = {"smol": "", "released": RELEASED,
         "lit": "00,10,20,30,50_truthfulqa,63,65,90",
         "paper-llama2-7b": "00,10,20,30,40,50_truthfulqa,63,90"}  # fmt: skip
FETCHED = ("smol",)  # by `sbt fetch`; they run with HF_HUB_OFFLINE=1
WAIT = 5400  # seconds, for the longest study alone
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
THINGS = r"(red|blue|green|yellow|purple) (star|circle|square|triangle)s?"
WORLD = re.compile(rf"this is the micro-world|of the micro-world|colou?red shapes|{THINGS}", re.I)


def given(study: str, only: str, by_hand: Path) -> dict:
    """`--set` of a study: small sizes, and the pictures that nobody serves."""
    of_lit = {"instruct_images_from": str(by_hand), "aside": 4, "rows": 0, "templates_top": 1, **ONE}
    several = TWO if study.startswith("paper-") else ONE
    own = OWN_VALUES.get(study, of_lit if study == "lit" else several)
    known = {name for step in plans.load(study, [only] if only else [])[1] for name in step.values}
    return {name: value for name, value in (FEW | SHORT | own).items() if name in known}


def project(folder: Path, data: Path) -> Path:
    """A project's folder of links, with data/NAME in it."""
    (folder / "data").mkdir(parents=True)
    (folder / "data" / data.name).symlink_to(data)
    for part in ("notebooks", "params", "sbt"):
        (folder / part).symlink_to(paths.root() / part)
    return folder


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """The hub, and the folder of what is handed out by hand only."""
    root = tmp_path_factory.mktemp("hub")
    by_hand = standin_hub.write(root)
    with FakeHub(root) as hub:
        yield SimpleNamespace(hub=hub, by_hand=by_hand)


class Study:
    """A study that runs in a process of its own, with caches of its own."""

    def __init__(self, served: SimpleNamespace, name: str, home: Path, only: str = "", **more: object) -> None:
        home.mkdir(parents=True, exist_ok=True)
        self.name, self.environment = name, standin_hub.environment(served.hub, home)
        if (released := served.by_hand.with_name(name)).is_dir():  # what is put below the project's data/ by hand
            self.environment["SBT_ROOT"] = str(project(home / "project", released))
        self.folder, self.log = home / "outputs" / name, home / "log"
        self.steps = [step.name for step in plans.load(name, [only] if only else [])[1]]
        flags = []
        for key, value in (given(name, only, served.by_hand) | more).items():
            flags += ["--set", f"{key}={value if isinstance(value, str) else json.dumps(value)}"]
        run = shlex.join([sys.executable, "-m", "sbt", "run", name, *(["--only", only] if only else []), *flags])
        if name in FETCHED:
            fetch = shlex.join([sys.executable, "-m", "sbt", "fetch", name, *flags])
            run = f"{fetch} && HF_HUB_OFFLINE=1 exec {run}"
        with open(self.log, "w") as out:
            self.process = subprocess.Popen(
                ["bash", "-c", run], env=self.environment, stdout=out, stderr=subprocess.STDOUT
            )

    def ended(self, code: int = 0) -> dict[str, Path]:
        """Folders of the finished steps by name, when it has ended with this status."""
        assert self.process.wait(timeout=WAIT) == code, self.log.read_text()[-4000:]
        return {done.parent.name: done.parent for done in sorted(self.folder.glob("*/DONE"))}

    def ended_whole(self) -> dict[str, Path]:
        """Folders of all steps by name, when it has ended, but for those that ask for OOD-CV's pictures.

        They are handed out by hand only, which makes the study's status 1.
        """
        by_hand = {name for name in self.steps if name.startswith("64_unicorn")}
        steps = self.ended(code=1 if by_hand else 0)
        assert set(self.steps) - set(steps) == by_hand, self.log.read_text()[-4000:]
        return steps

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="module")
def runs(
    served: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[dict[str, Study]]:
    """The quick studies, begun together: each is one process most of the time. With --studies one after another."""
    begun: dict[str, Study] = {}
    every = request.config.getoption("--studies")
    for name, only in QUICK.items():
        begun[name] = Study(served, name, tmp_path_factory.mktemp(name), "" if every else only)
        if every:
            begun[name].process.wait(timeout=WAIT)
    yield begun
    for run in begun.values():
        run.stop()


def report(folder: Path) -> str:
    """What a reader of an executed report sees: prose and outputs, without code."""
    cells = json.loads((folder / "notebook.ipynb").read_text())["cells"]
    seen = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]
    for output in (output for cell in cells for output in cell.get("outputs", [])):
        seen += ["".join(output.get("text", ""))]
        seen += ["".join(text) for kind, text in output.get("data", {}).items() if kind.startswith("text/")]
    return "\n".join(seen)


def check_reports(study: str, steps: dict[str, Path]) -> None:
    reports = [folder for name, folder in steps.items() if name.startswith("90_report")]
    assert reports, f"{study} made no report"
    for folder in reports:
        page, seen = (folder / "report.html").read_text(), report(folder)
        assert "</html>" in page and study in seen
        found = WORLD.search(seen)
        assert not found, seen[max(0, found.start() - 200) : found.end() + 100]


def looked_at(run: Study, folders: list[Path]) -> dict[str, dict]:
    """By step: whether the arm sees, its last two words, hashes of LAYERS; read where the stand-ins are the Hub's."""
    command = [sys.executable, "-c", LOOK, " ".join(LAYERS), *map(str, folders)]
    done = subprocess.run(command, env=run.environment, capture_output=True, text=True, timeout=WAIT)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def counts(step: Path) -> dict:
    return {folder.name: len(prepare.load(folder)) for folder in sorted((step / "rows").iterdir()) if folder.is_dir()}


def values(step: Path, metric: str) -> dict:
    found = json.loads((step / "metrics.json").read_text())
    return {row["arm"]: row["value"] for row in found if row["metric"] == metric}


@pytest.mark.parametrize("study", QUICK)
def test_the_study_runs_from_an_empty_cache_to_its_report(runs: dict[str, Study], study: str) -> None:
    steps = runs[study].ended_whole()
    check_reports(study, steps)
    arms = {name: folder for name, folder in steps.items() if name[:3] in ("25_", "30_", "40_")}
    scored = next(folder for name, folder in steps.items() if name.startswith("50_truthfulqa"))
    assert len(values(scored, "mc2")) > 1 and all(0 <= value <= 1 for value in values(scored, "mc2").values())
    for name, arm in looked_at(runs[study], [*arms.values()]).items():
        assert arm["sees"] != ("text" in name or name.endswith("_lora-adapter")), name  # an adapter has no tower


def test_nothing_asked_for_a_loading_script(runs: dict[str, Study], served: SimpleNamespace) -> None:
    runs["smol"].ended()
    assert any("hendrycks/ethics" in asked for asked in served.hub.asked)
    assert not any(standin_data.SCRIPT in asked for asked in served.hub.asked)


def test_what_cannot_be_used_is_dropped_and_a_sample_drawn(runs: dict[str, Study]) -> None:
    data = runs["smol"].ended()["10_data"]
    kept = {"pretrain.all": standin_data.IMAGES, "instruct.all": standin_data.ROWS}
    assert counts(data) == kept | {"instruct": 24, "pretrain": 24}
    manifest = json.loads((data / "rows" / "instruct.all" / "manifest.json").read_text())
    assert manifest["drops"] == {"image missing": 1}
    assert f"{standin_data.ABSENT} is not in" in manifest["dropped"][0]["reason"]


def test_the_four_losses_make_four_models_and_what_was_set_aside_judges_them(runs: dict[str, Study]) -> None:
    steps = runs["lit"].ended()
    aside = {row["images"][0] for row in prepare.load(steps["10_data"] / "rows" / "heldout")}
    trained = {image for row in prepare.load(steps["10_data"] / "rows" / "instruct") for image in row["images"]}
    assert len(aside) >= 2 and not aside & trained
    arms = {"answer-only", "instruction", "no-system", "no-templates"}
    assert set(values(steps["65_visual_contribution"], "visual contribution")) == arms
    found = looked_at(runs["lit"], [steps[f"30_{name}"] for name in arms])
    assert len({arm["lm_head.weight"] for arm in found.values()}) == 4, "two losses trained the same model"


def test_several_processes_train_the_papers_arms(runs: dict[str, Study]) -> None:
    run = runs["paper-llama2-7b"]
    steps = run.ended_whole()
    for name in ("20_connector", "30_mm-full", "30_mm-lora", "40_text-visual"):
        assert list((steps[name] / "scratch" / "trainer").rglob("launch.log")), f"{name} was trained by one process"
    found = looked_at(run, [steps[name] for name in ("20_connector", "30_mm-full", "30_mm-lora")])
    assert found["30_mm-full"]["last words"] == ["<im_start>", "<im_end>"]
    for layer in LAYERS:
        hashes = {arm[f"{layer}.weight"] for arm in found.values()}
        assert len(hashes) == 3, f"{layer}: the authors train it in full, and with LoRA"


@pytest.mark.parametrize("study", [name for name in STUDIES if name not in QUICK])
def test_every_other_study_runs_to_its_report(
    served: SimpleNamespace, study: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if not request.config.getoption("--studies"):
        pytest.skip("`make test-studies` runs it")
    run = Study(served, study, tmp_path)
    try:
        run.process.wait(timeout=WAIT)
        check_reports(study, run.ended_whole())
    finally:
        run.stop()


def test_what_cannot_be_had_is_one_list_and_the_rest_of_the_study_runs(
    served: SimpleNamespace, tmp_path: Path
) -> None:
    faults = {"lmsys/vicuna-7b-v1.3": "gated", "rajpurkar/squad_v2": "removed", "openai/gsm8k": 503,
              "s3.amazonaws.com/cvmlp": "login", "darkyarding/MME": "cut"}  # fmt: skip
    of = ["63_pope_llama-7b", "63_pope_vicuna-7b"]
    of += [f"25_{family}_{kind}" for family in ("llama-7b", "vicuna-7b") for kind in ("projector", "ft")]
    only = ",".join(["00_check", *of])
    with FakeHub(served.hub.root) as hub:
        hub.faults.update(faults)
        run = Study(SimpleNamespace(hub=hub, by_hand=served.by_hand), "released", tmp_path, only)
        try:
            steps = run.ended(code=1)
        finally:
            run.stop()
    made = {"00_check", "25_llama-7b_projector", "25_llama-7b_ft", "63_pope_llama-7b"}
    assert set(steps) == made | {"25_vicuna-7b_ft"}  # which holds its own language model
    said = (steps["00_check"] / "missing.txt").read_text()
    lost = said.splitlines()[-1]
    assert "model lmsys/vicuna-7b-v1.3 (refused): lmsys/vicuna-7b-v1.3 is gated" in said
    for source in ("squad2", "gsm8k", "vqav2", "mme", "oodcv-images"):
        assert f"data {source} (" in said, said
    assert "web page" in said and "503" in said
    for step in ("25_vicuna-7b_projector", "63_pope_vicuna-7b", "61_vqav2_llama-7b"):
        assert step in lost
    assert "63_pope_llama-7b" not in lost.replace(" ", "").split(",") and said in run.log.read_text()
