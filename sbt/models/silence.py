"""Silence library logging and progress bars, and turn their errors on a full disk into one message."""

import contextlib
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import datasets
from safetensors import SafetensorError
from transformers.utils import logging as transformers_logging

from sbt.utils import paths
from sbt.utils.errors import RunError, first_line

_LOUD = ("trl", "peft", "accelerate", "torch", "datasets", "lm_eval")


@contextlib.contextmanager
def silence_libraries() -> Iterator[None]:
    """Show errors only of transformers and the libraries above: no progress bars, no warnings. Restored afterwards."""
    loggers = [logging.getLogger(name) for name in _LOUD]
    levels = [logger.level for logger in loggers]
    verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    data_bars = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()
        if not data_bars:
            datasets.enable_progress_bars()
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextlib.contextmanager
def safe_save(folder: Path) -> Iterator[None]:
    """Turn what safetensors, torch and the system raise on a full or unwritable disk into one RunError."""
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        raise RunError(
            f"{paths.shown(Path(folder))}: weights cannot be written ({first_line(error)}). Free some disk space or "
            "make the folder writable, then repeat the command"
        ) from error
