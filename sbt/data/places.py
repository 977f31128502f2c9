"""What is said of a file that can be downloaded: its places, its size, its digest, and the set it belongs to."""

from dataclasses import dataclass

HUB = "https://huggingface.co"
MB, GB = 10**6, 10**9


@dataclass(frozen=True)
class Place:
    """One place a file can be had from: a dataset repository of the Hub (`repo`, `path`, `revision`) or a `url`."""

    repo: str = ""
    path: str = ""
    revision: str | None = None
    url: str = ""

    def shown(self) -> str:
        """The place for people."""
        return self.url or f"{HUB}/datasets/{self.repo} ({self.path}, revision {self.revision or 'main'})"


@dataclass(frozen=True)
class File:
    """A file, its places in the order they are tried, its size in bytes (rounded; 0: not known) and its digest.

    `digest` begins with `md5:` or `sha256:`. `rows` is the form of its rows (`formats.FORMATS`), empty for images.
    """

    name: str
    size: int
    places: tuple[Place, ...]
    digest: str | None = None
    rows: str = ""


@dataclass(frozen=True)
class Source:
    """A set of files, whether the Hub asks for consent first, and where to ask or what to do by hand."""

    title: str
    files: tuple[File, ...]
    gated: bool = False
    number_repeated: bool = False
    page: str = ""
    note: str = ""
