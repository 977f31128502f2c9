"""What this machine is: platform, device, number format and its reason, disk, memory, access; torch only on demand."""

import importlib.metadata
import os
import platform as machine
import re
import shutil
import sys
from pathlib import Path
from typing import NamedTuple

from sbt.utils import paths
from sbt.utils.errors import ParameterError, RunError
from sbt.utils.text import nearest

GB = 1e9
PACKAGES = (
    "torch", "transformers", "trl", "peft", "accelerate", "datasets", "tokenizers", "safetensors", "numpy", "pandas",
    "pillow", "pycocoevalcap",
)  # fmt: skip
ALSO_RECORDED = (
    "huggingface-hub", "lm-eval", "sentencepiece", "protobuf", "pyarrow", "jinja2", "scipy", "statsmodels",
    "sacrebleu", "rouge-score", "openai", "bitsandbytes", "deepspeed", "liger-kernel",
)  # fmt: skip


class Choice(NamedTuple):
    """A choice made for the user, and why."""

    value: str
    reason: str


def platform() -> str:
    """`colab`, `kaggle`, `ci`, `jupyter` (a person), `papermill` (an unattended kernel) or `script`."""
    if "COLAB_RELEASE_TAG" in os.environ:
        return "colab"
    if "KAGGLE_KERNEL_RUN_TYPE" in os.environ:
        return "kaggle"
    if "CI" in os.environ:
        return "ci"
    if "JPY_SESSION_NAME" in os.environ:
        return "jupyter"
    return "papermill" if "JPY_PARENT_PID" in os.environ else "script"


def session_notebook() -> str:
    """Name, without suffix, of the notebook that JupyterLab opened this kernel for; empty elsewhere."""
    return Path(os.environ.get("JPY_SESSION_NAME", "")).stem


def allow_growing_blocks() -> None:
    """Let torch's blocks of GPU memory grow, unless the user chose otherwise.

    Batches whose lengths change leave holes between blocks of fixed size. Where memory is nearly full, torch gives
    blocks back and asks for others in every step. Only Linux can do it, and only before the GPU is first used.
    """
    if sys.platform == "linux":
        os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")


def device() -> Choice:
    """`cuda`, `mps` or `cpu`."""
    import torch

    if torch.cuda.is_available():
        return Choice("cuda", torch.cuda.get_device_name())
    if torch.backends.mps.is_available():
        return Choice("mps", "Apple GPU")
    return Choice("cpu", f"no GPU; {torch.get_num_threads()} threads")


def dtype() -> Choice:
    """Number format of weights that this machine computes in well: `float32`, `bfloat16` or `float16`."""
    kind = device().value
    if kind != "cuda":
        return Choice("float32", f"half precision gains nothing on {kind}, and float32 is reproducible")
    import torch

    major, minor = torch.cuda.get_device_capability()
    if major >= 8:
        return Choice("bfloat16", f"compute capability {major}.{minor} has it: float32's range in half the memory")
    return Choice("float16", f"compute capability {major}.{minor} has no bfloat16; watch the loss for NaN")


def choose_dtype(asked: str = "auto") -> Choice:
    """Number format that training computes in, and why: `auto` goes by the machine, others are checked against it.

    Weights that train are float32 in any case, since small updates vanish in half precision. ParameterError for a
    format that this machine lacks, with the one to take.
    """
    best = dtype()
    known = ("float32", "bfloat16", "float16")
    if asked == "auto":
        kept = "" if best.value == "float32" else "; weights that train are float32"
        return Choice(best.value, best.reason + kept)
    if asked not in known:
        raise ParameterError(f"dtype={asked!r} is unknown{nearest(asked, ('auto', *known))}")
    if asked == "bfloat16" and best.value == "float16":
        raise ParameterError(f"dtype='bfloat16': {best.reason}. Set dtype to float16 or auto")
    if asked == "float16" and device().value != "cuda":
        raise ParameterError("dtype='float16' needs an NVIDIA GPU. Set dtype to float32 or auto")
    return Choice(asked, "as asked; weights that train are float32")


def version(package: str) -> str | None:
    """Installed version of a package, None where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def check_restart() -> None:
    """RunError where a package was replaced after this kernel had imported it, as an installation in Colab can do.

    Called before anything is fetched: half of the old package and half of the new one fail late, and oddly.
    """
    for name, module in (("numpy", "numpy"), ("torch", "torch"), ("pillow", "PIL")):
        loaded = getattr(sys.modules.get(module), "__version__", None)
        if loaded and (found := version(name)) and loaded.split("+")[0] != found.split("+")[0]:
            raise RunError(
                f"{name} {found} was installed, but this kernel runs {loaded}: restart the runtime and run all again"
            )


def packages() -> dict[str, str]:
    """Versions of the packages that results depend on, as far as they are installed."""
    return {name: found for name in (*PACKAGES, *ALSO_RECORDED) if (found := version(name))}


def free_gb(folder: Path) -> float:
    """Free disk space (GB) where `folder` is, or will be."""
    folder = Path(folder).absolute()
    while not folder.is_dir():
        folder = folder.parent
    return shutil.disk_usage(folder).free / GB


def check_space(folder: Path, need: float, why: str = "", remedy: str = "Free some space and repeat") -> None:
    """RunError where less than `need` (GB) is free on the disk of `folder`; `why` says what it is for."""
    if (free := free_gb(folder)) < need:
        raise RunError(f"{paths.shown(folder)}: {need:.1f} GB are needed{why}, {free:.1f} GB are free. {remedy}")


def cores() -> int:
    """Processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_gb() -> float:
    """Memory (GB) this process may use: the machine's, or the container's limit where that is lower."""
    import psutil

    total = psutil.virtual_memory().total
    limit = Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text().strip() if limit.is_file() else "max"
    return min(total, int(text) if text.isdigit() else total) / GB


def peak_memory_gb() -> float:
    """Largest resident memory (GB) of this process so far."""
    status = Path("/proc/self/status")  # Linux, where getrusage would count the memory of the starting process, too
    if status.is_file() and (found := re.search(r"^VmHWM:\s+(\d+) kB", status.read_text(), re.MULTILINE)):
        return int(found[1]) * 1024 / GB
    try:
        import resource
    except ImportError:  # Windows
        import psutil

        return psutil.Process().memory_info().peak_wset / GB
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / GB if sys.platform == "darwin" else peak * 1024 / GB


def has_token() -> bool:
    """Whether a Hugging Face token is present. The token itself is never read into a result or shown."""
    if os.environ.get("HF_TOKEN") or os.environ.get("HF_TOKEN_PATH"):
        return True
    home = os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface"
    return (Path(home) / "token").is_file()


def commit(folder: Path) -> str | None:
    """Git commit of a folder, with `+changes` where files differ from it; None outside of git."""
    import subprocess

    def git(*words: str) -> str:
        command = ["git", "-C", str(folder), *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def describe() -> dict[str, str]:
    """What a manifest records of the machine: platform, system, Python and, where torch is loaded, the device."""
    found = {"platform": platform(), "system": machine.platform(), "python": machine.python_version()}
    if "torch" in sys.modules:
        found["device"] = device().value
        found["device_name"] = device().reason
    return found


def gpus() -> int:
    """How many NVIDIA GPUs torch sees, where it is loaded, else how many the system shows."""
    if torch := sys.modules.get("torch"):
        return torch.cuda.device_count()
    return len([device for device in Path("/dev").glob("nvidia*") if device.name[6:].isdigit()])


def line(folder: Path) -> str:
    """This machine in a line, quickly found: GPUs, free disk where `folder` is, and whether there is a token."""
    seen = f"{count} NVIDIA GPU{'s' if count > 1 else ''}" if (count := gpus()) else "no NVIDIA GPU"
    return f"{seen}, {free_gb(folder):.0f} GB of disk free, Hub token: {'yes' if has_token() else 'no'}"


def checks(folder: Path, need_gb: float = 1.0) -> list[dict]:
    """Rows `check, found, ok, why` that tell in minute one whether minute six hundred can succeed."""
    kind, number, free = device(), dtype(), free_gb(folder)
    rows = [
        ("python", machine.python_version(), sys.version_info >= (3, 11), "3.11 or newer"),
        ("platform", platform(), True, "colab, kaggle, ci, jupyter, papermill or script"),
        ("device", kind.value, True, kind.reason),
        ("dtype", number.value, True, number.reason),
        ("cores", str(cores()), True, "the embedded study is sized for 2"),
        ("memory", f"{memory_gb():.0f} GB", memory_gb() >= 3.5, "the embedded study needs 4 GiB"),
        ("disk", f"{free:.0f} GB free", free >= need_gb, f"at least {need_gb:g} GB"),
        ("hub token", "yes" if has_token() else "no", True, "needed for gated models only"),
    ]
    rows += [(name, found or "missing", bool(found), "installed") for name in PACKAGES for found in [version(name)]]
    return [dict(zip(("check", "found", "ok", "why"), row, strict=True)) for row in rows]
