"""The text benchmarks from the Hub: its real clients against a loopback server with the publishers' layout."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from fake_hub import FakeHub
from real_files import real_data

from sbt import benchmarks
from sbt.benchmarks.ethics import task as ethics
from sbt.data import preflight

DATA = real_data()
needs_data = pytest.mark.skipif(DATA is None, reason="the real ETHICS files are not here (SBT_DATA)")
CHOICES = {"choices": ["a", "b"], "labels": [1, 0]}
ROWS = {
    "cais/mmlu": {
        f"all/{split}-00000-of-00001.parquet": [
            {"question": f"{split}?", "subject": subject, "choices": list("wxyz"), "answer": 2}
            for subject in ("virology", "anatomy")
        ]
        for split in ("test", "dev")
    },
    "openai/gsm8k": {
        f"main/{split}-00000-of-00001.parquet": [{"question": f"{split}?", "answer": "So.\n#### 4"}]
        for split in ("test", "train")
    },
    "regisss/math_qa": {
        f"data/{split}-00000-of-00001.parquet": [
            {"Problem": f"{split}?", "Rationale": "r", "correct": "b",
             "options": "a ) 1 , b ) 2 , c ) 3 , d ) 4 , e ) 5"}
        ]
        for split in ("test", "train")
    },
    "aps/super_glue": {
        "boolq/validation-00000-of-00001.parquet": [{"question": "is it", "passage": "It is.", "idx": 0, "label": 1}]
    },
    "rajpurkar/squad_v2": {
        "squad_v2/validation-00000-of-00001.parquet": [
            {"id": "q1", "title": "t", "context": "c", "question": "q",
             "answers": {"text": ["x"], "answer_start": [0]}}
        ]
    },
    "truthfulqa/truthful_qa": {
        "multiple_choice/validation-00000-of-00001.parquet": [
            {"question": "Why?", "mc1_targets": CHOICES, "mc2_targets": CHOICES}
        ],
        "generation/validation-00000-of-00001.parquet": [
            {"type": "t", "category": "c", "question": "Why?", "best_answer": "a", "correct_answers": ["a"],
             "incorrect_answers": ["b"], "source": "s"}
        ],
    },
}  # fmt: skip
PREFIXES = {"commonsense": "cm", "utilitarianism": "util"}


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[FakeHub]:
    for repo, files in ROWS.items():
        for name, rows in files.items():
            file = tmp_path / "hub" / "datasets" / repo / name
            file.parent.mkdir(parents=True, exist_ok=True)
            pd.DataFrame(rows).to_parquet(file)
    with FakeHub(tmp_path / "hub") as server:
        yield server


def ask(hub: FakeHub, folder: Path, *words: str) -> object:
    """What a process with empty caches gets from the hub; nothing else can be reached from it."""
    own = {"HF_ENDPOINT": hub.url, "HF_HOME": str(folder / "cache"), "SBT_DOWNLOADS": str(folder / "downloads")}
    shut = dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9") | {"no_proxy": "127.0.0.1,localhost"}
    environment = {**os.environ, **own, **shut, "HF_HUB_DISABLE_XET": "1", "PYTHONPATH": str(Path.cwd())}
    for name in ("HF_HUB_OFFLINE", "HF_TOKEN"):
        environment.pop(name, None)
    script = Path(__file__).parent / "text_hub_probe.py"
    done = subprocess.run([sys.executable, script, *words], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_every_text_benchmark_comes_from_the_hub_at_its_pinned_commit(hub: FakeHub, tmp_path: Path) -> None:
    for subset in ethics.SUBSETS:
        for split in ethics.SPLITS:
            file = tmp_path / "hub" / "datasets/hendrycks/ethics" / "data" / subset / f"{split}.csv"
            file.parent.mkdir(parents=True, exist_ok=True)
            real = DATA and DATA / "ethics" / f"{PREFIXES.get(subset, subset)}_{split}.csv"
            file.write_bytes(real.read_bytes() if real else b"label,scenario\n1,not the publishers'\n")
    found = ask(hub, tmp_path)
    assert isinstance(found["mmlu"], list), found["mmlu"]
    docs, examples = found["mmlu"]
    assert list(docs) == ["anatomy", "virology"] == list(examples) and examples["anatomy"][0]["question"] == "dev?"
    assert docs["anatomy"] == [{"question": "test?", "choices": list("wxyz"), "answer": 2, "subject": "anatomy"}]
    assert found["gsm8k"] == [[{"question": f"{split}?", "answer": "So.\n#### 4"}] for split in ("test", "train")]
    assert [part[0]["Problem"] for part in found["mathqa"]] == ["test?", "train?"]
    assert found["boolq"] == [[{"question": "is it", "passage": "It is.", "label": 1}], []]
    assert found["squad2"][0][0]["answers"] == {"text": ["x"], "answer_start": [0]}
    items, rows, version = found["truthfulqa"]
    assert items == [{"question": "Why?", "mc1": [["a", 1], ["b", 0]], "mc2": [["a", 1], ["b", 0]]}]
    assert rows[0]["correct_answers"] == ["a.", "I have no comment."]
    assert found["truthfulqa 2025-01"].startswith(f"DataError: the hub holds TruthfulQA {version}, not '2025-01'")
    for subset in ethics.SUBSETS:
        for split in ethics.SPLITS:
            got = found[f"{subset} {split}"]
            if DATA is None:  # files that are not the publishers' are refused
                assert "cannot be had" in got and "github" in got and "Or set the data parameter to a folder" in got
            else:
                assert got == ethics.load(DATA / "ethics", subset, split)
    heads = [asked for asked in hub.asked if asked.startswith("HEAD") and "/cais/mmlu/" in asked]
    assert len(heads) == 2 and all("/c30699e8356da336a370243923dbaf21066bb9fe/all/" in asked for asked in heads)


@pytest.mark.parametrize(("fault", "said"), [(429, "429"), (503, "503"), ("cut", "RemoteProtocolError|Connect")])
def test_a_hub_that_fails_is_named_for_what_it_does(hub: FakeHub, fault: int | str, said: str, tmp_path: Path) -> None:
    hub.faults[""] = fault
    found = ask(hub, tmp_path, "gsm8k")
    assert found.startswith("RunError: test-00000-of-00001.parquet cannot be had:")
    assert any(word in found for word in said.split("|")), found
    assert "huggingface.co/datasets/openai/gsm8k" in found and "Or set the data parameter to a folder" in found


def test_the_preflight_finds_the_text_sources_that_steps_name() -> None:
    steps = {"sources": {"mmlu": "hub", "gsm8k": "my/folder"}, "ethics_data": "hub", "truthfulqa_data": ""}
    assert [source.name for source in preflight.wanted(steps, benchmarks.sources())] == ["ethics", "mmlu"]
