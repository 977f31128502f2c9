"""Cost of data preparation at full size, measured on generated files: rows a second and peak memory.

measure_preparation(folder, rows=665_000)
"""

import io
import json
import random
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from sbt.data import prepare
from sbt.data.conversations import PLACEHOLDER
from sbt.data.json_stream import reader
from sbt.training.inspect import counter
from sbt.utils import env, paths
from sbt.utils.errors import RunError

WAYS = ("parsed", "parsed and validated", "with the headers of images", "with token lengths")
IMAGE_TOKENS = 256  # of ViT-L/14 at 224 px
_WORDS = (
    *("the", "a", "of", "and", "in", "is", "on", "with", "man", "woman", "dog", "red", "street", "table", "image"),
    *("people", "two", "small", "large", "near", "sitting", "standing", "white", "black", "holding", "wearing"),
    *("looking", "bench", "grass", "water", "building", "several", "which", "appears", "while", "suggest", "activity"),
)


def measure_preparation(
    folder: Path,
    rows: int = 665_000,
    *,
    images: int = 100_000,
    ways: Sequence[str] = WAYS,
    tokenizer: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    """Cost of each way of preparing a generated LLaVA file of so many `rows`: `rows/s`, `CPU seconds`, `peak GB` ...

    Rows have the kind and size of the 80k file's (1.6 kB; half conversations, half one long answer) on `images` JPEGs
    in a zip. Each way runs in its own process, so its peak memory is measured separately; imports are not counted.
    `tokenizer` is a folder; by default one of LLaMA's kind is made. The last way leaves its rows in `folder/prepared`.
    RunError, with the end of its output, for a way that fails.
    """
    folder = Path(folder)
    chat, pictures = generate(folder, rows, images)
    costs, out = [], folder / "prepared"
    for number, way in enumerate(ways, start=1):
        for old in (out, out.with_name(f".{out.name}.partial")):
            shutil.rmtree(old, ignore_errors=True)  # else nothing would be prepared again
        command = [sys.executable, "-c", "from sbt.training.profiling_data import _main; _main()"]
        command += [way, str(chat), str(pictures), str(out), str(tokenizer or "")]
        done = subprocess.run(command, capture_output=True, text=True, cwd=paths.package().parent)
        if done.returncode:
            raise RunError(f"measuring {way!r} failed:\n{done.stderr[-2000:]}")
        cost = json.loads(done.stdout.splitlines()[-1])
        costs.append({"way": way, "rows": rows, "GB": chat.stat().st_size / env.GB, **cost})
        if progress:
            progress(number, len(ways))
    frame = pd.DataFrame(costs)
    frame.insert(4, "rows/s", frame.rows / frame.seconds)
    return frame


def generate(folder: Path, rows: int, images: int, seed: int = 0) -> tuple[Path, Path]:
    """A LLaVA file of `rows` rows and a zip with `images` JPEGs, the same for the same arguments; kept if there."""
    chat, pictures = Path(folder) / f"chat-{rows}.json", Path(folder) / f"images-{images}.zip"
    chat.parent.mkdir(parents=True, exist_ok=True)
    if not pictures.is_file():
        part, data = pictures.with_suffix(".part"), io.BytesIO()
        noise = np.random.default_rng(seed).integers(0, 256, (72, 96, 3), dtype=np.uint8)
        Image.fromarray(noise).save(data, "JPEG")
        with zipfile.ZipFile(part, "w") as packed:
            for number in range(images):
                packed.writestr(zipfile.ZipInfo(f"train2017/{number:012}.jpg"), data.getvalue())  # without the time
        part.replace(pictures)
    if not chat.is_file():
        part, rng = chat.with_suffix(".part"), random.Random(seed)
        said = [" ".join(rng.choices(_WORDS, k=length)) for length in (12, 25, 30, 180, 210) for _ in range(40)]
        with open(part, "w", encoding="utf-8") as file:
            for number in range(rows):
                file.write(f"{',' if number else '['}\n" + json.dumps(_row(number, images, said, rng), indent=2))
            file.write("\n]\n")
        part.replace(chat)
    return chat, pictures


def _row(number: int, images: int, said: Sequence[str], rng: random.Random) -> dict:
    """Half of the rows hold four to six short turns of each side, half one question and a long answer."""
    short, long = said[:120], said[120:]
    pairs = [(rng.choice(short[:40]), rng.choice(short)) for _ in range(rng.randint(4, 6))]
    if number % 2:
        pairs = [(rng.choice(short), rng.choice(long))]
    turns = []
    for index, (asked, answer) in enumerate(pairs):
        turns.append({"from": "human", "value": f"{asked}?\n<image>" if index == 0 else f"{asked}?"})
        turns.append({"from": "gpt", "value": f"{answer}."})
    return {"id": f"{number:012}", "image": f"{number % images:012}.jpg", "conversations": turns}


def llama_like(words: Sequence[str]) -> PreTrainedTokenizerFast:
    """A tokenizer that works as LLaMA's does (byte-pair merges over whole texts, not by word) and knows `words`."""
    made = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    made.train_from_iterator([" ".join(words)] * 2, trainers.BpeTrainer(special_tokens=special, show_progress=False))
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    made.pre_tokenizer = None  # merged over the whole text from here on
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def _main() -> None:
    """One way, in a process of its own; prints its cost as JSON."""
    way, chat, pictures, out, words = sys.argv[1:]
    settings: dict = {"images": [Path(pictures)], "headers": WAYS.index(way) >= 2}
    if way == WAYS[3]:
        tokenizer = AutoTokenizer.from_pretrained(words, trust_remote_code=False) if words else llama_like(_WORDS)
        tokenizer.add_special_tokens({"additional_special_tokens": [PLACEHOLDER]})
        count = counter(tokenizer, "v1", IMAGE_TOKENS)
        settings |= {"lengths": count, "counted_by": "measured", "limit": 2048}
    start, worked = time.perf_counter(), time.process_time()
    if way == WAYS[0]:
        rows = sum(1 for _ in reader(Path(chat)))
    else:
        rows = prepare.prepare([Path(chat)], Path(out), **settings)["counts"]["read"]
    seconds, worked = time.perf_counter() - start, time.process_time() - worked
    assert rows > 0
    print(json.dumps({"seconds": seconds, "CPU seconds": worked, "peak GB": env.peak_memory_gb()}))
