"""Everything that studies fetch, as stand-ins: a folder for `fake_hub.FakeHub`, and what a study's process is told.

by_hand = write(root)
with FakeHub(root) as hub: subprocess.run([...], env=environment(hub, home))
"""

import os
from pathlib import Path

import standin_data
import standin_models
from fake_hub import FakeHub

CLOSED = "http://127.0.0.1:9"  # nothing but the hub can be reached
UNSET = ("HF_HUB_OFFLINE", "HF_TOKEN", "HF_HUB_CACHE", "HUGGING_FACE_HUB_TOKEN", "SBT_DATA", "SBT_ROOT")


def write(root: Path) -> Path:
    """Write models and data sets below `root`; returns the folder of what is handed out by hand only."""
    standin_models.write(root / "models")
    return standin_data.write(root)


def environment(hub: FakeHub, home: Path) -> dict[str, str]:
    """The environment of a process that has this hub, and caches, downloads and outputs of its own in `home`."""
    kept = {name: value for name, value in os.environ.items() if name not in UNSET}
    own = {"HF_HOME": str(home / "cache"), "SBT_DOWNLOADS": str(home / "downloads"),
           "SBT_OUTPUTS": str(home / "outputs"), "HF_ENDPOINT": hub.url, "SBT_STANDINS": str(hub.root),
           "OMP_NUM_THREADS": "1", "no_proxy": "127.0.0.1,localhost",
           "http_proxy": CLOSED, "https_proxy": CLOSED}  # fmt: skip
    site = str(Path(__file__).parent / "standin_site")
    return kept | own | {"PYTHONPATH": os.pathsep.join([site, str(Path(__file__).parents[1])])}
