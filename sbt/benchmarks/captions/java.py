"""METEOR and SPICE, the caption metrics that are Java programs (pycocoevalcap carries them): a value, or None.

None means that the metric does not run here: no Java, too old or new a one, too little memory, or, for SPICE, no
language models (nothing is downloaded).
"""

import contextlib
import importlib.util
import io
import os
import shutil
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path

_SECONDS = 1800  # a Java that hangs must not hang a study
_METEOR = ["-Dfile.encoding=UTF-8", "-Xmx2G", "-jar", "meteor-1.5.jar", "-", "-", "-stdio", "-l", "en", "-norm"]


def meteor(captions: Sequence[str], references: Sequence[Sequence[str]]) -> float | None:
    """METEOR 1.5 of tokenized captions, or None where it does not run.

    pycocoevalcap's own class waits for ever where the program fails to start.
    """
    folder, java = _folder("pycocoevalcap.meteor"), shutil.which("java")
    if java is None or folder is None:
        return None
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    try:
        process = subprocess.Popen([java, *_METEOR], cwd=folder, encoding="utf-8", **pipes)
        watch = threading.Timer(_SECONDS, process.kill)
        watch.start()
        try:
            return _meteor(process, captions, references)
        finally:
            watch.cancel()
            process.kill()
            process.communicate()
    except (OSError, ValueError):  # it ended, or said something that is no number
        return None


def _meteor(process: subprocess.Popen, captions: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    def ask(*parts: str) -> str:
        process.stdin.write(" ||| ".join(parts) + "\n")
        process.stdin.flush()
        return process.stdout.readline().strip()

    pairs = zip(captions, references, strict=True)
    statistics = [ask("SCORE", *texts, said.replace("|||", "").replace("  ", " ")) for said, texts in pairs]
    ask("EVAL", *statistics)  # answers with a line an image, then the one of the corpus
    return float([process.stdout.readline() for _ in captions][-1])


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
