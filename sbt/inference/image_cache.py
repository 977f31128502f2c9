"""Images as a language model reads them: projected features, each distinct image encoded once.

images = Images(arm, requests); images.features(0)
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import torch
from PIL import Image

from sbt.data.images import open_rgb
from sbt.models import Arm
from sbt.utils.errors import DataError
from sbt.utils.files import file_hash, sha256

T = TypeVar("T")
_IMAGES_AT_ONCE = 16
_FEATURE_BYTES = 2**30


class Images:
    """Projected features by image, each distinct one encoded once, in groups that do not depend on a resume.

    Groups are neighbours in the order of first use, which `arrange` tells: few features are kept, so that an image
    whose neighbours are asked about later would be encoded again for each of them.
    """

    def __init__(self, arm: Arm, requests: Sequence[dict]) -> None:
        self.arm, self.requests = arm, requests
        self.names = [self._name(request) for request in requests]
        self.arrange(range(len(requests)))
        self.source = {name: request for name, request in zip(self.names, requests, strict=True) if name is not None}
        self.hashes: dict[str, str] = {}
        self.kept: OrderedDict[str, torch.Tensor] = OrderedDict()
        self.placeholder: int | None = getattr(arm.processor, "image_token_id", None)

    def arrange(self, numbers: Iterable[int]) -> None:
        """Say in which order the requests, given by all their numbers, will ask for features."""
        self.distinct = list(dict.fromkeys(self.names[i] for i in numbers if self.names[i] is not None))
        self.place = {name: i for i, name in enumerate(self.distinct)}

    def key(self, number: int) -> str:
        """What names the image of a request in a cache: its contents, for files are replaced and folders move."""
        name = self.names[number]
        if name is not None and name not in self.hashes:
            given = self.source[name]["image"]
            self.hashes[name] = name if isinstance(given, Image.Image) else self._guard(name, lambda: file_hash(given))
        return self.hashes.get(name, "")

    def features(self, number: int) -> torch.Tensor | None:
        """Features (tokens, width) of a request's image; None if it has none."""
        name = self.names[number]
        if name is None:
            return None
        if name not in self.kept:
            self._encode(self.place[name] // _IMAGES_AT_ONCE)
        self.kept.move_to_end(name)
        return self.kept[name]

    def _encode(self, group: int) -> None:
        names = self.distinct[group * _IMAGES_AT_ONCE : (group + 1) * _IMAGES_AT_ONCE]
        model = self.arm.model
        pixels = self.arm.processor.image_processor([self._open(name) for name in names], return_tensors="pt")
        pixels = pixels["pixel_values"].to(model.device, model.dtype)
        encoded = model.get_image_features(pixel_values=pixels).pooler_output
        self.kept.update(zip(names, encoded, strict=True))
        size = encoded[0].numel() * encoded[0].element_size()
        while len(self.kept) > max(2 * _IMAGES_AT_ONCE, _FEATURE_BYTES // size):
            self.kept.popitem(last=False)

    def _open(self, name: str) -> Image.Image:
        given = self.source[name]["image"]
        if isinstance(given, Image.Image):
            return given.convert("RGB")
        return self._guard(name, lambda: open_rgb(given))

    def _guard(self, name: str, read: Callable[[], T]) -> T:
        try:
            return read()
        except (DataError, OSError) as error:
            item = self.source[name]["id"]
            raise DataError(f"item {item!r}: image {name} cannot be read ({error}). Restore the file") from error

    @staticmethod
    def _name(request: dict) -> str | None:
        image = request.get("image")
        if isinstance(image, Image.Image):
            return sha256(image.convert("RGB").tobytes() + str(image.size).encode())
        return None if image is None else str(image)
