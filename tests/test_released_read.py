"""What a checkpoint's files hold, where its tensors went, the stand-in of the embedded study, the hub's files."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import released_standins as standins
import torch
from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError
from huggingface_hub.utils import filter_repo_objects
from tiny_fixtures import small  # noqa: F401 - a fixture

from sbt.microworld import stand_in
from sbt.models import load_arm, silence_libraries
from sbt.models.released import read
from sbt.models.released.convert import convert
from sbt.utils.errors import CheckpointError, RunError
from sbt.utils.files import read_json

WRITERS = {"projector": standins.write_projector, "full": standins.write_full, "lora": standins.write_lora,
           "llava-1.5": partial(standins.write_llava15, vision=True)}  # fmt: skip


@pytest.fixture(scope="module")
def made(small: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:  # noqa: F811
    """By layout: the folder of a checkpoint, and that of the arm it was converted to."""
    root = tmp_path_factory.mktemp("standins")
    folders = {layout: root / layout for layout in WRITERS}
    arms = {layout: root / f"{layout}-arm" for layout in WRITERS}
    for layout, write in WRITERS.items():
        with silence_libraries():
            write(folders[layout], small)
        convert(folders[layout], arms[layout], conversation="v1", language_model=small.llm, vision_tower=small.clip)
    return SimpleNamespace(folder=folders, arm=arms)


def test_every_tensor_is_found_where_it_went(made: SimpleNamespace) -> None:
    tables = {layout: read.moved(made.folder[layout], made.arm[layout]) for layout in WRITERS}
    assert not [row for rows in tables.values() for row in rows if row["became"] == "not found"]
    full = {row["key"]: row for row in tables["full"]}
    assert full["model.layers.*.mlp.up_proj.weight"]["tensors"] == 2
    assert full["model.layers.*.mlp.up_proj.weight"]["became"].endswith("layers.*.mlp.up_proj.weight")
    assert full["model.mm_projector.bias"]["became"] == "multi_modal_projector.linear_1.bias"
    assert full["model.layers.*.self_attn.rotary_emb.inv_freq"]["became"] == "left out"
    folded = {row["became"] for row in tables["lora"] if "lora_" in row["key"]}
    assert folded == {"folded in"}
    rows = {row["key"]: row["became"] for row in tables["projector"]}
    assert rows["model.embed_tokens.weight"] == "its last rows: <im_start>, <im_end>"
    wrong = read.moved(made.folder["full"], made.arm["lora"])  # the control: another model's tensors are missed
    assert "not found" in {row["became"] for row in wrong}


def test_every_tensor_of_the_arm_has_an_origin(made: SimpleNamespace) -> None:
    state, full = standins_state(made.folder["full"]), read.origins(made.folder["full"], made.arm["full"])
    assert full["from the checkpoint"] == len([key for key in state if "inv_freq" not in key])
    assert full["identity layer"] == 2 and "other" not in full
    lora = read.origins(made.folder["lora"], made.arm["lora"])
    assert lora["other"] >= 14, "two layers of seven weights that adapters were folded into"


def standins_state(folder: Path) -> dict[str, torch.Tensor]:
    return read.read_shards(folder).tensors


def test_the_files_are_shown(made: SimpleNamespace) -> None:
    rows = {row["file"]: row for row in read.contents(made.folder["lora"])}
    assert list(rows) == ["adapter_config.json", "adapter_model.bin", "config.json", "non_lora_trainables.bin"]
    assert rows["adapter_model.bin"]["tensors"] == 2 * 2 * 7 and rows["non_lora_trainables.bin"]["dtype"] == "float32"


def test_the_stand_in_is_a_fully_tuned_checkpoint_and_the_seed_decides_its_weights(tmp_path: Path) -> None:
    shard = "pytorch_model-00001-of-00002.bin"
    folders = [stand_in.write(tmp_path / str(n), "assets/llm", "assets/clip", seed=n // 2) for n in range(3)]
    first, second, third = (read.read_bin(folder / shard).tensors for folder in folders)
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not all(torch.equal(first[key], third[key]) for key in first)
    assert read.kind(folders[0]) == "full"
    convert(folders[0], tmp_path / "arm", vision_tower="assets/clip", conversation="v1")
    assert read_json(tmp_path / "arm" / "arm.json")["released"]["ignored"] == []
    words = load_arm(tmp_path / "arm").tokenizer
    size = len(words)
    assert words.convert_tokens_to_ids(["<image>", "<im_start>", "<im_end>"]) == [size - 3, size - 2, size - 1]
    assert not {row["became"] for row in read.moved(folders[0], tmp_path / "arm")} & {"not found", "left out"}


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

        monkeypatch.setattr(read, "HfApi", Api)
        monkeypatch.setattr(read, "snapshot_download", snapshot)
        monkeypatch.setattr(read.constants, "is_offline_mode", lambda: offline)
        return seen

    return serve


def test_only_what_is_read_is_downloaded_and_the_commit_is_named(hub: Callable[..., dict]) -> None:
    seen = hub()
    assert read.fetch(REPO) == (Path("cache/snapshots/c0ffee"), "c0ffee")
    assert seen == {"asked": ["main"], "downloaded": ["config.json", "mm_projector.bin"]}


def test_offline_the_hub_is_not_asked(hub: Callable[..., dict]) -> None:
    seen = hub(offline=True)
    assert read.fetch(REPO, "abc").commit == "abc" and seen["asked"] == []


def test_a_disk_that_is_too_small_is_said_before_the_download(hub: Callable[..., dict]) -> None:
    seen = hub(scale=1e15)
    with pytest.raises(RunError, match=r"GB are needed for .* HF_HOME"):
        read.fetch(REPO)
    assert seen["downloaded"] == []


@pytest.mark.parametrize(
    ("error", "offline", "words"),
    [
        (Gated(), False, "gated: accept its terms"),
        (Absent(), False, "no such repository"),
        (LocalEntryNotFoundError("x"), True, "HF_HUB_OFFLINE is set and the cache does not hold it"),
        (LocalEntryNotFoundError("x"), False, "the Hub cannot be reached"),
        (ConnectionError("no route"), False, "cannot be had: ConnectionError: no route"),
    ],
)
def test_what_goes_wrong_at_the_hub(error: Exception, offline: bool, words: str, hub: Callable[..., dict]) -> None:
    hub(error, offline=offline)
    with pytest.raises(CheckpointError, match=words) as caught:
        read.fetch(REPO)
    assert "\n" not in str(caught.value) and "secret" not in str(caught.value)


def test_a_folder_is_taken_as_it_is_and_a_wrong_name_asks_nothing(hub: Callable[..., dict], tmp_path: Path) -> None:
    seen = hub()
    assert read.fetch(str(tmp_path)) == (tmp_path, "")
    for name in ("PahaII", "outputs/MM-ft", "../x/y"):
        with pytest.raises(CheckpointError, match="no folder here and no hub id"):
            read.fetch(name)
    assert seen["asked"] == []
