"""The errors this package raises on purpose: one message that names the file, row or key, and the remedy.

The command line shows them without a traceback; anything else that is raised is a bug.
"""


class SbtError(Exception):
    """Base of every error that is the user's to mend."""


class ParameterError(SbtError):
    """A parameter is unknown, has the wrong type, or is declared outside the grammar."""


class DataError(SbtError):
    """An input file is missing, malformed or inconsistent."""


class CheckpointError(SbtError):
    """Weights are missing, corrupt or not those of the model they are loaded into."""


class MissingStep(SbtError):
    """A step reads the results of another one that is not finished."""


class RunError(SbtError):
    """A run cannot start, write or be trusted: disk, lock, corrupt results."""


def first_line(error: BaseException) -> str:
    """What an error of a library says, in one line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
