"""The authors' released formats as arms: the same logits as the original, and one clear error for what is damaged."""

import io
import json
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import released_standins as standins
import torch
from PIL import Image
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer
from tiny_fixtures import small  # noqa: F401 - a fixture
from transformers import AutoTokenizer, LlamaTokenizer

from sbt.models import TextArms, language_model, load_arm, silence_libraries
from sbt.models.image_markers import image_text, put_markers, with_markers
from sbt.models.released.convert import convert, kind
from sbt.models.tokenizer import as_sentencepiece
from sbt.utils.errors import CheckpointError, ParameterError
from sbt.utils.files import file_hash, read_json

QUESTION = "\nIs there a red star?"
WRITERS = {
    "projector": standins.write_projector,
    "full": standins.write_full,
    "lora": standins.write_lora,
    "llava-1.5": partial(standins.write_llava15, vision=True),
}


@pytest.fixture(scope="module")
def made(small: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:  # noqa: F811
    """A stand-in of each kind under a name that says nothing, with what its writer returned."""
    root = tmp_path_factory.mktemp("released")
    with silence_libraries():
        given = {what: write(root / f"x{number}", small) for number, (what, write) in enumerate(WRITERS.items())}
    return SimpleNamespace(folder={what: root / f"x{number}" for number, what in enumerate(WRITERS)}, given=given)


def converted(folder: Path, out: Path, small: SimpleNamespace, **options: object) -> dict:  # noqa: F811
    return convert(
        folder, out, **{"language_model": small.llm, "vision_tower": small.clip, "conversation": "v1"} | options
    )


def logits(arm: object, text: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits over a picture, the pixels that the arm saw."""
    inputs = arm.processor(images=Image.effect_mandelbrot((60, 44), (-2, -1, 1, 1), 20).convert("RGB"), text=text,
                           return_tensors="pt")  # fmt: skip
    with torch.inference_mode():
        return arm.model(**inputs).logits[0], inputs["pixel_values"]


def check_looks_as_original(arm: object, state: dict, small: SimpleNamespace, *, image_markers: bool) -> None:  # noqa: F811
    words = AutoTokenizer.from_pretrained(small.llm)
    start, end = ([len(words) + 1], [len(words) + 2]) if image_markers else ([], [])
    before = [words.bos_token_id, *words.encode("USER: ", add_special_tokens=False), *start]
    after = [*end, *words.encode(QUESTION, add_special_tokens=False)]
    found, pixels = logits(arm, f"<s>USER: {image_text(arm.tokenizer, 1)}{QUESTION}")
    rows = len(state["lm_head.weight"])
    wanted = standins.original(state, small, pixels, before, after)
    assert len(found) == len(wanted) == len(before) + 9 + len(after)
    assert torch.allclose(found[:, :rows], wanted, atol=1e-4)
    assert arm.model.config.vision_feature_layer == -2 and arm.model.config.image_seq_length == 9


@pytest.mark.parametrize("what", WRITERS)
def test_contents_decide_what_a_folder_is(what: str, made: SimpleNamespace, tmp_path: Path) -> None:
    names = {"projector": "llava-lora-7b", "full": "MM-projector", "lora": "MM-LLaMA-2-7B-ft", "llava-1.5": "lora"}
    (tmp_path / names[what]).symlink_to(made.folder[what])
    assert kind(made.folder[what]) == kind(tmp_path / names[what]) == what


@pytest.mark.parametrize("model_type", ["llama", "llava"])
def test_a_fully_tuned_folder(model_type: str, small: SimpleNamespace, tmp_path: Path) -> None:  # noqa: F811
    state = standins.write_full(tmp_path / "lora", small, model_type)
    info = converted(tmp_path / "lora", tmp_path / "arm", small, language_model=None, arm="mm-full")
    assert info["kind"] == "llava" and info["projector"] == "linear" and info["arm"] == "mm-full"
    arm = load_arm(tmp_path / "arm")
    rows = len(state["lm_head.weight"])
    assert arm.model.config.image_token_index == rows - 3 == arm.processor.image_token_id
    assert arm.tokenizer.convert_tokens_to_ids(["<im_start>", "<im_end>"]) == [rows - 2, rows - 1]
    assert arm.model.config.text_config.vocab_size == rows == len(arm.tokenizer)
    check_looks_as_original(arm, state, small, image_markers=True)
    second = arm.model.model.multi_modal_projector.linear_2
    assert torch.equal(second.weight, torch.eye(32)) and not second.bias.any()
    language, _ = language_model(arm)
    for key, tensor in language.state_dict().items():
        assert torch.equal(tensor, state[key]), key


def test_lora_with_all_that_was_trained(made: SimpleNamespace, small: SimpleNamespace, tmp_path: Path) -> None:  # noqa: F811
    info = converted(made.folder["lora"], tmp_path / "arm", small)
    assert info["kind"] == "llava" and info["released"]["kind"] == "lora"
    check_looks_as_original(load_arm(tmp_path / "arm"), made.given["lora"][0], small, image_markers=True)


def test_lora_as_the_authors_scored_text(made: SimpleNamespace, small: SimpleNamespace, tmp_path: Path) -> None:  # noqa: F811
    info = converted(made.folder["lora"], tmp_path / "arm", small, text_lora="adapter", vision_tower=None)
    assert info["kind"] == "lm-lora" and info["released"]["ignored"] == ["non_lora_trainables.bin"]
    state = made.given["lora"][0] | {
        key: standins.base_state(small)[key] for key in ("model.embed_tokens.weight", "lm_head.weight")
    }
    arm = load_arm(tmp_path / "arm")
    for key, tensor in arm.model.state_dict().items():
        assert torch.allclose(tensor, state[key], atol=1e-5), key
    texts = TextArms({"base": small.llm, "lora": tmp_path / "arm"})
    ids = torch.tensor([[1, 20, 30, 40]])
    with torch.inference_mode():
        merged, base = arm.model(ids).logits, texts.load("base").model(ids).logits.clone()
        assert torch.allclose(texts.load("lora").model(ids).logits, merged, atol=1e-4)
        assert not torch.allclose(merged, base, atol=1e-2)
    assert len(texts.loads) == 1  # over one base


@pytest.mark.parametrize("vision", [True, False])
def test_llava_15(vision: bool, small: SimpleNamespace, tmp_path: Path) -> None:  # noqa: F811
    state = standins.write_llava15(tmp_path / "x", small, vision=vision)
    info = converted(tmp_path / "x", tmp_path / "arm", small, language_model=None)
    assert info["projector"] == "mlp2x_gelu" and info["released"]["kind"] == "llava-1.5"
    assert [key.rpartition(".")[2] for key in info["released"]["ignored"]] == ["position_ids"] * vision
    check_looks_as_original(load_arm(tmp_path / "arm"), state, small, image_markers=False)


def test_llava_15_pads_and_other_ways_to_read_a_picture_are_refused(
    small: SimpleNamespace,  # noqa: F811
    tmp_path: Path,
) -> None:
    standins.write_llava15(tmp_path / "x", small, vision=False)
    config = read_json(tmp_path / "x" / "config.json")
    picture = Image.effect_mandelbrot((60, 30), (-2, -1, 1, 1), 20).convert("RGB")
    pixels = {}
    for how in ("square", "pad"):
        (tmp_path / "x" / "config.json").write_text(json.dumps(config | {"image_aspect_ratio": how}))
        converted(tmp_path / "x", tmp_path / how, small)
        processor = load_arm(tmp_path / how).processor
        pixels[how] = processor.image_processor(images=picture, return_tensors="pt")["pixel_values"]
        assert bool(getattr(processor.image_processor, "do_pad", False)) == (how == "pad"), "an arm's folder keeps it"
    assert pixels["pad"].shape == pixels["square"].shape and not torch.equal(pixels["pad"], pixels["square"])
    for field, value in (("image_aspect_ratio", "anyres"), ("mm_patch_merge_type", "spatial_unpad")):
        (tmp_path / "x" / "config.json").write_text(json.dumps(config | {field: value}))
        with pytest.raises(CheckpointError, match=f"{field} is '{value}'; only .* is converted"):
            converted(tmp_path / "x", tmp_path / "arm", small)
    standins.write_projector(tmp_path / "y", small)
    (tmp_path / "y" / "config.json").write_text(json.dumps(config | {"image_aspect_ratio": "pad"}))
    with pytest.raises(CheckpointError, match="image_aspect_ratio is 'pad', which a projector by itself cannot keep"):
        converted(tmp_path / "y", tmp_path / "arm", small)


def test_a_projector_is_a_connector_over_the_base(
    made: SimpleNamespace,
    small: SimpleNamespace,  # noqa: F811
    tmp_path: Path,
) -> None:
    info = converted(made.folder["projector"], tmp_path / "a" / "arm", small)
    assert info["kind"] == "connector"
    assert sorted(info["files"]) == ["connector.safetensors", "image_markers.safetensors"]
    given, state = made.given["projector"], standins.base_state(small)
    size = len(state["lm_head.weight"])
    assert info["released"]["ignored"] == [f"model.embed_tokens.weight[:{size + 1}]"]
    arm = load_arm(tmp_path / "a" / "arm")
    put_markers(arm.model, arm.processor, tmp_path / "a" / "arm")
    put_markers(arm.model, arm.processor, tmp_path / "a" / "arm")  # nothing is left to do
    for key in ("model.embed_tokens.weight", "lm_head.weight"):
        state[key] = torch.cat([state[key], state[key].mean(dim=0).expand(3, -1)])
    state["model.embed_tokens.weight"][-2:] = given["model.embed_tokens.weight"][-2:]
    check_looks_as_original(arm, state | given | {"model.embed_tokens.weight": state["model.embed_tokens.weight"]},
                            small, image_markers=True)  # fmt: skip


def test_it_says_what_was_read_and_what_was_left_out(
    made: SimpleNamespace,
    small: SimpleNamespace,  # noqa: F811
    tmp_path: Path,
) -> None:
    folder = made.folder["full"]
    converted(folder, tmp_path / "arm", small)
    released = read_json(tmp_path / "arm" / "arm.json")["released"]
    assert released["ignored"] == [f"model.layers.{n}.self_attn.rotary_emb.inv_freq" for n in range(2)]
    bins = sorted(file.name for file in folder.glob("*.bin"))
    assert released["files"] == {name: file_hash(folder / name) for name in ["config.json", *bins]}
    assert sorted(file.name for file in tmp_path.iterdir()) == ["arm"]
    assert not (tmp_path / "arm" / "language_model").exists()


def test_the_dtype(made: SimpleNamespace, small: SimpleNamespace, tmp_path: Path) -> None:  # noqa: F811
    for what in WRITERS:
        converted(made.folder[what], tmp_path / what, small, dtype="bfloat16")
        arm = load_arm(tmp_path / what)
        assert {p.dtype for p in arm.model.parameters()} == {torch.bfloat16}, what


def test_the_old_format_of_torch_is_read(small: SimpleNamespace, tmp_path: Path) -> None:  # noqa: F811
    given = standins.write_projector(tmp_path / "x", small)
    torch.save(given, tmp_path / "x" / "mm_projector.bin", _use_new_zipfile_serialization=False)
    converted(tmp_path / "x", tmp_path / "arm", small)
    state = load_arm(tmp_path / "arm").model.model.multi_modal_projector.state_dict()
    assert torch.equal(state["linear_1.weight"], given["model.mm_projector.weight"])


def test_one_file_without_an_index(made: SimpleNamespace, small: SimpleNamespace, tmp_path: Path) -> None:  # noqa: F811
    folder = shutil.copytree(made.folder["full"], tmp_path / "x")
    for file in [*folder.glob("*.bin"), folder / "pytorch_model.bin.index.json"]:
        file.unlink()
    torch.save(made.given["full"], folder / "pytorch_model.bin")
    converted(folder, tmp_path / "arm", small)
    check_looks_as_original(load_arm(tmp_path / "arm"), made.given["full"], small, image_markers=True)


def test_marks_stand_around_the_image_only_where_the_vocabulary_has_them(small: SimpleNamespace) -> None:  # noqa: F811
    words = AutoTokenizer.from_pretrained(small.llm)
    assert image_text(words, 2) == "<image><image>"
    marked = with_markers(words, len(words) + 3)
    assert image_text(marked, 2) == "<im_start><image><image><im_end>"
    first = len(words)
    text = f"<s>a {image_text(marked, 2)}\nred"
    ids = [1, *words.encode("a "), first + 1, first, first, first + 2, *words.encode("\nred")]
    assert marked.encode(text, add_special_tokens=False) == ids
    assert marked.decode(ids, skip_special_tokens=True) == "a \nred"
    bare = with_markers(words, len(words) + 3, strip=True).encode(text, add_special_tokens=False)
    assert bare == [1, *words.encode("a"), first + 1, first, first, first + 2, *words.encode("red")]


def test_a_word_after_a_special_token_begins_with_a_space(tmp_path: Path) -> None:
    pieces = ["<unk>", "<s>", "</s>", "▁", "a", "▁a"]
    llama = LlamaTokenizer(vocab={piece: i for i, piece in enumerate(pieces)}, merges=[("▁", "a")], legacy=False)
    assert llama.encode("<s>a", add_special_tokens=False) == [1, 4]
    marked = with_markers(as_sentencepiece(llama, str(tmp_path))[0], 9)
    assert marked.encode("<s>a<im_end>a", add_special_tokens=False) == [1, 5, 8, 5]


def test_a_tokenizer_that_does_not_fit_its_rows(small: SimpleNamespace) -> None:  # noqa: F811
    words = AutoTokenizer.from_pretrained(small.llm)
    for rows in (len(words), len(words) + 2, len(words) + 4):
        with pytest.raises(CheckpointError, match=f"have {rows} rows"):
            with_markers(words, rows)
    words.add_special_tokens({"additional_special_tokens": ["<im_start>", "<im_end>", "<im_patch>"]})
    with pytest.raises(CheckpointError, match="the last three for <im_patch>, <im_start>, <im_end>"):
        with_markers(words, len(words))


def test_a_fully_tuned_folder_with_a_sentencepiece_model_alone(
    made: SimpleNamespace,
    small: SimpleNamespace,  # noqa: F811
    tmp_path: Path,
) -> None:
    """As the authors' *_ft: the tokens are SentencePiece's, with a space before every chunk."""
    folder = shutil.copytree(made.folder["full"], tmp_path / "x")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    converted(folder, tmp_path / "with-base", small)
    check_looks_as_original(load_arm(tmp_path / "with-base"), made.given["full"], small, image_markers=True)
    with pytest.raises(CheckpointError, match="no tokenizer in it. Name the base"):
        converted(folder, tmp_path / "arm", small, language_model=None)
    rows = len(made.given["full"]["lm_head.weight"]) - 3
    model = io.BytesIO()
    text = ["a red star is here", "thermal tasks of mine", "return def f: the thing", "one and two"] * 50
    SentencePieceTrainer.train(sentence_iterator=iter(text), model_writer=model, vocab_size=rows, model_type="bpe",
                               byte_fallback=True, normalization_rule_name="identity", minloglevel=2,
                               remove_extra_whitespaces=False)  # fmt: skip
    (folder / "tokenizer.model").write_bytes(model.getvalue())
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer"}')
    pieces = SentencePieceProcessor(model_proto=model.getvalue())
    assert pieces.vocab_size() == rows
    converted(folder, tmp_path / "arm", small, language_model=None, strip_markers=True)
    words = load_arm(tmp_path / "arm").tokenizer
    start, end = words.convert_tokens_to_ids(["<im_start>", "<im_end>"])
    found = words.encode("<s>a red  star <im_start><im_end>\nred", add_special_tokens=False)
    assert found == [1, *pieces.encode("a red  star"), start, end, *pieces.encode("red")]


class Malice:
    """Asks whoever unpickles it to make a folder."""

    def __reduce__(self) -> tuple:
        return os.mkdir, (os.environ["MALICE"],)


def edited(name: str, change: Callable[[dict], object]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        state = torch.load(folder / name, weights_only=True)
        state = change(state) or state
        torch.save(state, folder / name)

    return edit


def edited_json(name: str, change: Callable[[dict], object]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        value = json.loads((folder / name).read_text())
        change(value)
        (folder / name).write_text(json.dumps(value))

    return edit


def cut(name: str, share: float) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: int(len(data) * share)])

    return edit


def flipped(name: str) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        data = bytearray((folder / name).read_bytes())
        data[len(data) // 2] ^= 255
        (folder / name).write_bytes(data)

    return edit


def malicious(name: str, *, old: bool = False) -> Callable[[Path], None]:
    return lambda folder: torch.save({"a": Malice()}, folder / name, _use_new_zipfile_serialization=not old)


SHARD, SECOND = "pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"
INDEX = "pytorch_model.bin.index.json"
WEIGHT = "base_model.model.model.layers.1.mlp.up_proj.lora_B.weight"
DAMAGES = {
    "missing shard": ("full", lambda folder: (folder / SECOND).unlink(), f"{SECOND} is missing"),
    "truncated shard": ("full", cut(SHARD, 0.6), f"{SHARD}: is damaged"),
    "empty shard": ("full", cut(SHARD, 0), f"{SHARD}: is damaged"),
    "a bit that flipped": ("full", flipped(SHARD), f"{SHARD}: is damaged"),
    "malicious shard": ("full", malicious(SHARD), f"{SHARD}: asks for code"),
    "malicious old shard": ("full", malicious(SHARD, old=True), f"{SHARD}: asks for code"),
    "pointer instead of a file": (
        "full",
        lambda folder: (folder / SHARD).write_text("version https://git-lfs.github.com/spec/v1"),
        f"{SHARD}: is damaged",
    ),
    "not only tensors": ("full", edited(SHARD, lambda s: s.update(step=3)), f"{SHARD}: holds something else"),
    "key missing from its shard": (
        "full",
        edited(SECOND, lambda s: s.pop("lm_head.weight") is None),
        f"{SECOND}: lm_head.weight missing, though",
    ),
    "key missing everywhere": (
        "full",
        lambda folder: [
            edited(SECOND, lambda s: s.pop("model.norm.weight") is None)(folder),
            edited_json(INDEX, lambda v: v["weight_map"].pop("model.norm.weight"))(folder),
        ],
        f"{INDEX}: model.norm.weight missing",
    ),
    "key that is not in the index": (
        "full",
        edited(SHARD, lambda s: s.update({"model.more.weight": torch.ones(2)})),
        f"{SHARD}: model.more.weight is not in {INDEX}",
    ),
    "unknown key": (
        "full",
        lambda folder: [
            edited(SHARD, lambda s: s.update({"model.more.weight": torch.ones(2)}))(folder),
            edited_json(INDEX, lambda v: v["weight_map"].update({"model.more.weight": SHARD}))(folder),
        ],
        f"{SHARD}: model.more.weight is a key this format does not have",
    ),
    "misshapen": (
        "full",
        edited(SECOND, lambda s: s.update({"model.norm.weight": torch.ones(31)})),
        f"{SECOND}: model.norm.weight is (31,), expected (32,)",
    ),
    "misshapen projector": (
        "full",
        edited(SECOND, lambda s: s.update({"model.mm_projector.weight": torch.ones(32, 16)})),
        f"{SECOND}: model.mm_projector.weight is (32, 16), expected (32, 32)",
    ),
    "index that is cut": ("full", cut(INDEX, 0.5), f"{INDEX}:"),
    "index that points elsewhere": (
        "full",
        edited_json(INDEX, lambda v: v["weight_map"].update({"lm_head.weight": "../x.bin"})),
        f"{INDEX}: 'weight_map'",
    ),
    "wrong vocabulary": ("full", edited_json("config.json", lambda v: v.update(vocab_size=300)), "have 300 rows"),
    "other tokens": (
        "full",
        edited_json("added_tokens.json", lambda v: v.update({"[PAD]": 333})),
        "added_tokens.json: holds",
    ),
    "another layer": (
        "full",
        edited_json("config.json", lambda v: v.update(mm_vision_select_layer=-1)),
        "config.json: mm_vision_select_layer is -1",
    ),
    "no configuration": ("full", lambda folder: (folder / "config.json").unlink(), "config.json does not exist"),
    "another model": (
        "full",
        edited_json("config.json", lambda v: v.update(model_type="mpt")),
        "config.json: model_type 'mpt'",
    ),
    "impossible model": ("full", edited_json("config.json", lambda v: v.update(hidden_size=33)), "config.json: not"),
    "truncated projector": ("projector", cut("mm_projector.bin", 0.5), "mm_projector.bin: is damaged"),
    "malicious projector": ("projector", malicious("mm_projector.bin"), "mm_projector.bin: asks for code"),
    "projector without rows": (
        "projector",
        edited("mm_projector.bin", lambda s: s.pop("model.embed_tokens.weight") is None),
        "mm_projector.bin: model.embed_tokens.weight missing",
    ),
    "projector of another base": (
        "projector",
        edited("mm_projector.bin", lambda s: s.update({"model.embed_tokens.weight": torch.ones(90, 32)})),
        "mm_projector.bin: model.embed_tokens.weight is (90, 32), expected",
    ),
    "projector without bias": (
        "projector",
        edited("mm_projector.bin", lambda s: s.pop("model.mm_projector.bias") is None),
        "mm_projector.bin: model.mm_projector.bias missing",
    ),
    "lora without the rest": ("lora", lambda f: (f / "non_lora_trainables.bin").unlink(), "trainables.bin is missing"),
    "lora without options": (
        "lora",
        lambda folder: (folder / "adapter_config.json").unlink(),
        "adapter_config.json does not exist",
    ),
    "lora without adapters": ("lora", lambda f: (f / "adapter_model.bin").unlink(), "adapter_model.bin is missing"),
    "lora that lacks one": (
        "lora",
        edited("adapter_model.bin", lambda s: s.pop(WEIGHT) is None),
        f"adapter_model.bin: {WEIGHT} missing",
    ),
    "lora with one more": (
        "lora",
        edited("adapter_model.bin", lambda s: s.update({WEIGHT.replace("up_", "side_"): torch.ones(2)})),
        "side_proj.lora_B.weight is a key",
    ),
    "lora of another rank": (
        "lora",
        edited_json("adapter_config.json", lambda v: v.update(r=8)),
        "lora_A.weight is (4, 32), expected (8, 32)",
    ),
    "lora of another sort": (
        "lora",
        edited_json("adapter_config.json", lambda v: v.update(use_dora=True)),
        "adapter_config.json: use_dora=True",
    ),
    "lora of other rows": (
        "lora",
        edited("non_lora_trainables.bin", lambda s: s.update({"base_model.model.lm_head.weight": torch.ones(9, 32)})),
        "non_lora_trainables.bin: base_model.model.lm_head.weight is (9, 32), expected",
    ),
    "lora with a stray key": (
        "lora",
        edited("non_lora_trainables.bin", lambda s: s.update({"lm_head.weight": torch.ones(9, 32)})),
        "non_lora_trainables.bin: lm_head.weight is a key",
    ),
    "tower that lacks a key": (
        "llava-1.5",
        lambda folder: [
            edited(
                "pytorch_model-00003-of-00003.bin",
                lambda s: s.pop("model.vision_tower.vision_tower.vision_model.post_layernorm.bias") is None,
            )(folder),
            edited_json(
                INDEX,
                lambda v: v["weight_map"].pop("model.vision_tower.vision_tower.vision_model.post_layernorm.bias"),
            )(folder),
        ],
        "vision_model.post_layernorm.bias missing",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_one_clear_error_and_leaves_nothing(
    damage: str,
    made: SimpleNamespace,
    small: SimpleNamespace,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MALICE", str(tmp_path / "malice"))
    what, hurt, message = DAMAGES[damage]
    folder = shutil.copytree(made.folder[what], tmp_path / "x")
    hurt(folder)
    with pytest.raises(CheckpointError) as caught:
        converted(folder, tmp_path / "arms" / "arm", small)
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert [file.name for file in tmp_path.iterdir()] == ["x"]


def test_a_folder_of_something_else_lists_what_is_there(
    made: SimpleNamespace,
    small: SimpleNamespace,  # noqa: F811
    tmp_path: Path,
) -> None:
    with pytest.raises(CheckpointError, match=r"no checkpoint of LLaVA \(files: config.json.*model.safetensors"):
        kind(small.llm)
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"\(files: none\)"):
        kind(tmp_path / "empty")
    with pytest.raises(CheckpointError, match="is no folder"):
        kind(tmp_path / "nothing")
    both = shutil.copytree(made.folder["lora"], tmp_path / "both")
    shutil.copy(made.folder["projector"] / "mm_projector.bin", both)
    with pytest.raises(CheckpointError, match="looks like projector and lora"):
        kind(both)
    plain = tmp_path / "plain"
    plain.mkdir()
    standins.write_shards(plain, standins.base_state(small))
    with pytest.raises(CheckpointError, match=r"21 keys, none or too many of a projector"):
        kind(plain)


@pytest.mark.parametrize(
    ("what", "options", "message"),
    [
        ("lora", {"language_model": None}, "language_model: name the base"),
        ("projector", {"language_model": None}, "language_model: name the base"),
        ("full", {"vision_tower": None}, "vision_tower: name the CLIP"),
        ("full", {"text_lora": "adapter"}, "is for LoRA checkpoints"),
        ("lora", {"text_lora": "adapters"}, "did you mean 'adapter'"),
        ("full", {"dtype": "float8"}, "did you mean 'float32'"),
        ("full", {"conversation": "v11"}, "did you mean"),
    ],
)
def test_wrong_options(
    what: str,
    options: dict,
    message: str,
    made: SimpleNamespace,
    small: SimpleNamespace,  # noqa: F811
    tmp_path: Path,
) -> None:
    with pytest.raises(ParameterError, match=message):
        converted(made.folder[what], tmp_path / "arm", small, **options)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_written_over_and_a_killed_conversion_is_no_arm(
    made: SimpleNamespace,
    small: SimpleNamespace,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def killed(*_: object, **__: object) -> None:
        assert not (tmp_path / "arm").exists()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("sbt.models.released.convert.save_arm", killed)
        with pytest.raises(KeyboardInterrupt):
            converted(made.folder["full"], tmp_path / "arm", small)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / ".arm.converting").mkdir()  # what a kill leaves, which no clean-up sees
    (tmp_path / ".arm.converting" / "half.safetensors").write_text("x")
    converted(made.folder["full"], tmp_path / "arm", small)
    assert [file.name for file in tmp_path.iterdir()] == ["arm"]
    before = file_hash(tmp_path / "arm" / "arm.json")
    with pytest.raises(ParameterError, match="exists and is not written over"):
        converted(made.folder["lora"], tmp_path / "arm", small)
    assert file_hash(tmp_path / "arm" / "arm.json") == before
