"""Caption metrics as coco-caption computes them, without Java: BLEU, ROUGE-L and CIDEr (CIDEr-D) of pycocoevalcap.

Its scorers are pure Python. Its tokenizer is not: `ptb` replaces it. METEOR and SPICE are Java programs, which
pycocoevalcap carries: `with_java` adds those that run here. One does not where there is no Java, a too old or too new
one, too little memory, or, for SPICE, no language models (nothing is downloaded).
"""

import contextlib
import importlib.util
import io
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pycocoevalcap.bleu.bleu_scorer import BleuScorer
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge

from sbt.benchmarks.captions import ptb

JAVA_METRICS = ("METEOR", "SPICE")
_SECONDS = 1800  # a Java that hangs must not hang a study
_METEOR = ["-Dfile.encoding=UTF-8", "-Xmx2G", "-jar", "meteor-1.5.jar", "-", "-", "-stdio", "-l", "en", "-norm"]


def tokenized(captions: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[list[str], list[list[str]]]:
    """Captions and references as the scorers read them. ValueError where numbers differ or an image has none."""
    if len(captions) != len(references) or not all(references):
        raise ValueError(f"{len(captions)} captions for {len(references)} images, each of which needs a reference")
    # all references are one text to the original tokenizer, all captions another: see ptb.tokenize_all
    flat = iter(ptb.tokenize_all(text for texts in references for text in texts))
    return ptb.tokenize_all(captions), [[next(flat) for _ in texts] for texts in references]


def scores(captions: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
    """BLEU-1 to BLEU-4 (corpus level), ROUGE-L and CIDEr, as coco-caption prints them (CIDEr: 0 to 10).

    CIDEr's weights come from the references given here, so the number depends on which images are scored together;
    a single image scores 0. Images are compared in the given order.
    """
    said, known = tokenized(captions, references)
    return _bleu(said, known) | {name: float(np.mean(_per_image(said, known, name))) for name in ("ROUGE-L", "CIDEr")}


def per_image(captions: Sequence[str], references: Sequence[Sequence[str]], metric: str) -> list[float]:
    """CIDEr or ROUGE-L of each image, with the weights of them all; their mean is the corpus score."""
    return _per_image(*tokenized(captions, references), metric)


def with_java(captions: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
    """METEOR and SPICE, those of them that run on this machine; no entry for one that does not."""
    said, known = tokenized(captions, references)
    found = {"METEOR": meteor(said, known), "SPICE": spice(said, known)}
    return {name: value for name, value in found.items() if value is not None}


def _bleu(said: list[str], known: list[list[str]]) -> dict[str, float]:
    scorer = BleuScorer(n=4)
    for caption, texts in zip(said, known, strict=True):
        scorer += (caption, texts)
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its lengths
        corpus, _ = scorer.compute_score(option="closest", verbose=0)
    return {f"BLEU-{n}": float(value) for n, value in enumerate(corpus, start=1)}


def _per_image(said: list[str], known: list[list[str]], metric: str) -> list[float]:
    if not any(text for texts in known for text in texts):
        return [0.0] * len(said)  # references of punctuation only: there is no n-gram to weigh
    scorer = {"CIDEr": Cider, "ROUGE-L": Rouge}[metric]()
    _, values = scorer.compute_score(dict(enumerate(known)), {place: [text] for place, text in enumerate(said)})
    return [float(value) for value in values]


def meteor(captions: Sequence[str], references: Sequence[Sequence[str]]) -> float | None:
    """METEOR 1.5 of tokenized captions, or None where it does not run.

    pycocoevalcap's own class waits for ever where the program fails to start.
    """
    folder, java = _folder("pycocoevalcap.meteor"), shutil.which("java")
    if java is None or folder is None:
        return None

    def ask(*lines: str) -> list[str]:
        how = {"input": "".join(f"{line}\n" for line in lines), "capture_output": True, "timeout": _SECONDS}
        return subprocess.run([java, *_METEOR], cwd=folder, encoding="utf-8", check=True, **how).stdout.splitlines()

    pairs = zip(captions, references, strict=True)
    asked = [(*texts, said.replace("|||", "").replace("  ", " ")) for said, texts in pairs]
    try:
        statistics = ask(*(" ||| ".join(("SCORE", *texts)) for texts in asked))
        return float(ask(" ||| ".join(("EVAL", *statistics)))[-1])  # after a line an image, the corpus's
    except (OSError, ValueError, IndexError, subprocess.SubprocessError):  # it ended, or said no number
        return None


def spice(captions: Sequence[str], references: Sequence[Sequence[str]]) -> float | None:
    """SPICE 1.0 of tokenized captions, or None where it does not run."""
    folder = _folder("pycocoevalcap.spice")
    models = folder / "lib" / "stanford-corenlp-3.6.0-models.jar" if folder else None
    if shutil.which("java") is None or models is None or not models.exists() or not os.access(folder, os.W_OK):
        return None
    from pycocoevalcap.spice.spice import Spice

    said = {place: [text] for place, text in enumerate(captions)}
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            value, _ = Spice().compute_score(dict(enumerate(references)), said)
        except (OSError, ValueError, subprocess.CalledProcessError):
            return None
    return float(value)


def _folder(module: str) -> Path | None:
    found = importlib.util.find_spec(module)
    return Path(next(iter(found.submodule_search_locations))) if found else None
