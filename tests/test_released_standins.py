"""Stand-ins in the authors' layouts, the plain rebuild of their forward pass, and what is fetched from the hub."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError
from huggingface_hub.utils import filter_repo_objects
from PIL import Image
from tiny_fixtures import small  # noqa: F401 - a fixture

from sbt.models import load_arm
from sbt.models.released import hub as released_hub
from sbt.models.released.check import Original, compare, contents, image_prompt, moved
from sbt.models.released.convert import convert, kind
from sbt.models.released.standins import LAYOUTS, write, write_base
from sbt.utils.errors import CheckpointError, ParameterError, RunError

PICTURES = [Image.effect_mandelbrot((60, 44), (-2, -1, 1, 1), quality).convert("RGB") for quality in (20, 60)]
QUESTION = "Is there a red star?"


@pytest.fixture(scope="module")
def made(small: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:  # noqa: F811
    """By layout: the stand-in's folder, and the folder of the arm it was converted to."""
    root = tmp_path_factory.mktemp("standins")
    parts = {"language_model": small.llm, "vision_tower": small.clip}
    folders, arms = {}, {}
    for layout in LAYOUTS:
        folders[layout] = write(root / layout, layout, **parts, seed=3)
        arms[layout] = root / f"{layout}-arm"
        convert(folders[layout], arms[layout], conversation="v1", arm=layout, **parts)
    return SimpleNamespace(folder=folders, arm=arms, parts=parts, root=root)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_converted_stand_in_computes_what_the_original_did(layout: str, made: SimpleNamespace) -> None:
    arm, original = load_arm(made.arm[layout]), Original(made.folder[layout], **made.parts)
    assert kind(made.folder[layout]) == layout
    rows = compare(original, arm, PICTURES, QUESTION, new=4)
    assert len(rows) == 2
    for row in rows:
        assert row["difference"] < 1e-4 * row["largest"] and row["same_next"] == 1.0
    with torch.no_grad():  # another projector is another model: the comparison sees it
        original.projector["weight"].mul_(1.5)
    assert all(row["difference"] > 1e-2 * row["largest"] for row in compare(original, arm, PICTURES, QUESTION, new=1))


def test_adapters_alone_are_compared_on_text(made: SimpleNamespace) -> None:
    out = made.root / "adapter-arm"
    convert(made.folder["lora"], out, conversation="v1", arm="adapter", text_lora="adapter", **made.parts)
    rows = {}
    for adapter_only in (True, False):
        original = Original(made.folder["lora"], **made.parts, adapter_only=adapter_only)
        [rows[adapter_only]] = compare(original, load_arm(out), PICTURES, QUESTION, new=2)
    assert rows[True]["difference"] < 1e-4 * rows[True]["largest"] < rows[False]["difference"]


def test_a_stand_in_is_another_model_than_its_base_and_the_seed_says_which(made: SimpleNamespace) -> None:
    folder = write(made.root / "again", "full", **made.parts, seed=3)
    shard = "pytorch_model-00001-of-00002.bin"
    assert (folder / shard).read_bytes() == (made.folder["full"] / shard).read_bytes()
    other = write(made.root / "again", "full", **made.parts, seed=4)
    assert (other / shard).read_bytes() != (made.folder["full"] / shard).read_bytes()


def test_every_tensor_is_found_where_it_went(made: SimpleNamespace) -> None:
    tables = {layout: moved(made.folder[layout], made.arm[layout]) for layout in LAYOUTS}
    assert not [row for rows in tables.values() for row in rows if row["became"] == "not found"]
    full = {row["key"]: row for row in tables["full"]}
    assert full["model.layers.*.mlp.up_proj.weight"]["tensors"] == 2
    assert full["model.layers.*.mlp.up_proj.weight"]["became"].endswith("layers.*.mlp.up_proj.weight")
    assert full["model.mm_projector.bias"]["became"] == "multi_modal_projector.linear_1.bias"
    folded = {row["became"] for row in tables["lora"] if "lora_" in row["key"]}
    assert folded == {"folded in"}
    rows = {row["key"]: row["became"] for row in tables["projector"]}
    assert rows["model.embed_tokens.weight"] == "its last rows: <im_start>, <im_end>"
    wrong = moved(made.folder["full"], made.arm["lora"])  # the control: another model's tensors are missed
    assert "not found" in {row["became"] for row in wrong}


def test_the_files_and_the_prompt_are_shown(made: SimpleNamespace) -> None:
    rows = {row["file"]: row for row in contents(made.folder["lora"])}
    assert list(rows) == ["adapter_config.json", "adapter_model.bin", "config.json", "non_lora_trainables.bin"]
    assert rows["adapter_model.bin"]["tensors"] == 2 * 2 * 7 and rows["non_lora_trainables.bin"]["dtype"] == "float32"
    arm = load_arm(made.arm["full"])
    assert f"<im_start>{'<image>' * 9}<im_end>\n{QUESTION} ASSISTANT:" in image_prompt(arm, QUESTION)


def test_a_base_that_has_the_image_token_is_freed_of_it(made: SimpleNamespace, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="<image> among them .* write_base"):
        write(tmp_path / "x", "full", "assets/llm", "assets/clip")
    base = write_base(tmp_path / "base", "assets/llm")
    folder = write(tmp_path / "x", "projector", base, "assets/clip")
    assert kind(folder) == "projector"
    with pytest.raises(ParameterError, match="did you mean 'full'"):
        write(tmp_path / "y", "ful", **made.parts)
    assert not (tmp_path / "y").exists()


# --- from the hub ---------------------------------------------------------------------------------------------------
SIZES = {"config.json": 1, "mm_projector.bin": 10, "training_args.bin": 5, "trainer_state.json": 5, "a/config.json": 9}
REPO = "PahaII/MM-LLaMA-3B-projector"


class Gated(GatedRepoError):
    def __init__(self) -> None:
        super(Exception, self).__init__("token hf_secret")


class Absent(RepositoryNotFoundError):
    def __init__(self) -> None:
        super(Exception, self).__init__("404")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict]:
    """Stands in for the hub's client; what was asked for is in the returned dict."""

    def serve(error: Exception | None = None, scale: float = 1.0, offline: bool = False) -> dict:
        seen: dict = {"asked": [], "downloaded": []}

        class Api:
            def model_info(self, repo: str, **asked: object) -> SimpleNamespace:
                seen["asked"].append(asked["revision"])
                if error:
                    raise error
                files = [SimpleNamespace(rfilename=name, size=int(size * scale)) for name, size in SIZES.items()]
                return SimpleNamespace(sha="c0ffee", siblings=files)

        def snapshot(repo: str, *, revision: str, allow_patterns: list[str]) -> str:
            if error:
                raise error
            seen["downloaded"] += filter_repo_objects(SIZES, allow_patterns=allow_patterns)
            return f"cache/snapshots/{revision}"

        monkeypatch.setattr(released_hub, "HfApi", Api)
        monkeypatch.setattr(released_hub, "snapshot_download", snapshot)
        monkeypatch.setattr(released_hub.constants, "is_offline_mode", lambda: offline)
        return seen

    return serve


def test_only_what_is_read_is_downloaded_and_the_commit_is_named(hub: Callable[..., dict]) -> None:
    seen = hub()
    assert released_hub.fetch(REPO) == (Path("cache/snapshots/c0ffee"), "c0ffee")
    assert seen == {"asked": ["main"], "downloaded": ["config.json", "mm_projector.bin"]}


def test_offline_the_hub_is_not_asked(hub: Callable[..., dict]) -> None:
    seen = hub(offline=True)
    assert released_hub.fetch(REPO, "abc").commit == "abc" and seen["asked"] == []


def test_a_disk_that_is_too_small_is_said_before_the_download(hub: Callable[..., dict]) -> None:
    seen = hub(scale=1e15)
    with pytest.raises(RunError, match=r"GB are to be downloaded and .* HF_HOME"):
        released_hub.fetch(REPO)
    assert seen["downloaded"] == []


@pytest.mark.parametrize(
    ("error", "offline", "words"),
    [
        (Gated(), False, "Accept their terms"),
        (Absent(), False, "no such repository"),
        (LocalEntryNotFoundError("x"), True, "HF_HUB_OFFLINE is set and the cache does not hold it"),
        (LocalEntryNotFoundError("x"), False, "the hub cannot be reached"),
        (ConnectionError("no route"), False, "cannot be downloaded .no route."),
    ],
)
def test_what_goes_wrong_at_the_hub(error: Exception, offline: bool, words: str, hub: Callable[..., dict]) -> None:
    hub(error, offline=offline)
    with pytest.raises(CheckpointError, match=words) as caught:
        released_hub.fetch(REPO)
    assert "\n" not in str(caught.value) and "secret" not in str(caught.value)


def test_a_folder_is_taken_as_it_is_and_a_wrong_name_asks_nothing(hub: Callable[..., dict], tmp_path: Path) -> None:
    seen = hub()
    assert released_hub.fetch(str(tmp_path)) == (tmp_path, "")
    for name in ("PahaII", "outputs/MM-ft", "../x/y"):
        with pytest.raises(CheckpointError, match="no folder here and no hub id"):
            released_hub.fetch(name)
    assert seen["asked"] == []
