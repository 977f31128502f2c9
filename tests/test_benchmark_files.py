"""The vision benchmarks' own files by "hub": fetched from stand-ins in the publishers' layouts, unpacked, read."""

# ruff: noqa: F811 - fixtures are imported

import dataclasses
import io
import json
import re
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from download_fixtures import hub, server, sha  # noqa: F401 - fixtures
from huggingface_hub import constants
from PIL import Image

from sbt import benchmarks
from sbt.benchmarks.captions import task as captions
from sbt.benchmarks.mme import task as mme
from sbt.benchmarks.pope import task as pope
from sbt.benchmarks.unicorn import task as unicorn
from sbt.benchmarks.vqav2 import task as vqav2
from sbt.benchmarks.vqav2 import task as vqav2_files
from sbt.data import benchmark_files, download, images, preflight
from sbt.data.registry import HUB, BenchmarkFiles, Mirror, Source
from sbt.utils import paths
from sbt.utils.errors import DataError, RunError

PARAMETERS = {"mme": "mme_data", "vqav2": "questions_file", "coco": "references", "flickr30k": "flickr",
              "pope": "pope_data", "unicorn": "unicorn_data", "demonstrations": "demonstrations"}  # fmt: skip
POPE = [file.name for file in benchmarks.sources()["pope_data"].questions.files]
COCO = [f"COCO_val2014_{number:012d}.jpg" for number in (1, 2, 3)]
TASKS = ("oodcv-vqa", "oodcv-counterfactual", "sketchy-vqa", "sketchy-challenging")
DRAWING, PHOTO = "skechydata/png/airplane/1.png", "phase-2/images/659.jpg"


def picture(seed: int, kind: str = "JPEG") -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (20, 16), (40 * seed % 255, 90, 200)).save(data, kind)
    return data.getvalue()


def packed(members: dict[str, bytes | str | list | dict]) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as made:
        for name, content in members.items():
            made.writestr(name, content if isinstance(content, bytes | str) else json.dumps(content))
    return data.getvalue()


def vqa() -> tuple[bytes, bytes]:
    said = [{"answer": "yes", "answer_confidence": "yes", "answer_id": number} for number in range(1, 11)]
    told = {"question_type": "is it", "multiple_choice_answer": "yes", "answer_type": "yes/no", "answers": said}
    questions = [{"question_id": 10 + image, "image_id": image, "question": "Is it?"} for image in (1, 2)]
    annotations = [{"question_id": 10 + image, "image_id": image, **told} for image in (1, 2)]
    return (
        packed({"v2_OpenEnded_mscoco_val2014_questions.json": {"questions": questions}}),
        packed({"v2_mscoco_val2014_annotations.json": {"annotations": annotations}}),
    )


def split_of(name: str) -> dict:
    said = [{"raw": f"Caption {number}."} for number in range(5)]
    return {"images": [{"filename": name, "split": "test", "sentences": said}]}


def mme_zip() -> bytes:
    inside = "MME_Benchmark_release_version/MME_Benchmark"
    two = "Is it there? Please answer yes or no.\tYes\nIs it gone? Please answer yes or no.\tNo\n"
    return packed(
        {
            f"{inside}/existence/1.jpg": picture(1),
            f"{inside}/existence/1.txt": two,
            f"{inside}/landmark/images/2.jpg": picture(2),
            f"{inside}/landmark/questions_answers_YN/2.txt": two,
            "MME_Benchmark_release_version/eval_tool/Your_Results/existence.txt": "1.jpg\tIs it there?\tYes\n",
            f"__MACOSX/{inside}/existence/._1.jpg": b"no picture",
        }
    )


def unicorn_zip() -> bytes:
    ood, drawn = "safety_evaluation_benchmark_datasets/ood/oodcv-vqa", {"image": DRAWING, "question": "A plane?"}
    seen = {"image": PHOTO, "question": "A bus?", "text_answer": "Yes", "situation": "iid"}
    situation = next(iter(unicorn.SITUATIONS))
    return packed(
        {
            f"{ood}/oodcv-vqa.json": [seen | {"situation": situation}],
            f"{ood}/oodcv-counterfactual.json": [seen | {"situation": situation}],
            **{f"{ood[:-9]}sketchy-vqa/{task}.json": [drawn | {"answer": "yes"}] for task in TASKS[2:]},
            "safety_evaluation_benchmark_datasets/gpt4v_challenging_set/oodcv-vqa-counterfactual.json": [],
        }
    )


@pytest.fixture(autouse=True)
def _no_source_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "refusal", lambda source, folder: "")


@pytest.fixture
def publishers(
    server: SimpleNamespace, hub: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> SimpleNamespace:
    """Stand-ins for the published files: `of` a benchmark, `sources` by parameter; `asked()` counts requests."""
    questions, annotations = vqa()
    line = [{"question_id": n, "image": COCO[n - 1], "text": "Is there a cat?", "label": "yes"} for n in (1, 2)]
    data = {
        "MME_Benchmark_release_version.zip": mme_zip(),
        "v2_Questions_Val_mscoco.zip": questions,
        "v2_Annotations_Val_mscoco.zip": annotations,
        "val2014.zip": packed({f"val2014/{name}": picture(number) for number, name in enumerate(COCO)}),
        "caption_datasets.zip": packed(
            {"dataset_coco.json": split_of(COCO[0]), "dataset_flickr30k.json": split_of("7.jpg")}
        ),
        "flickr30k-images.zip": packed({"flickr30k-images/7.jpg": picture(7), "__MACOSX/._7.jpg": b""}),
        "safety_evaluation_benchmark_datasets.zip": unicorn_zip(),
        "sketches_png.zip": packed({"png/airplane/1.png": picture(3, "PNG"), "png/filelist.txt": "airplane/1.png"}),
        **{name: "".join(json.dumps(one) + "\n" for one in line).encode() for name in POPE},
    }

    def standin(source: Source) -> Source:
        made = []
        for file in source.files:
            there = tuple(one if one.repo else Mirror(url=f"{server.url}/{file.name}") for one in file.mirrors)
            hub.files.update({(one.repo, one.path): data[file.name] for one in there if one.repo})
            server.files.update({f"/{file.name}": data[file.name] for one in there if one.url})
            digest, size = (f"sha256:{sha(data[file.name])}", len(data[file.name])) if there else (None, 0)
            made.append(dataclasses.replace(file, mirrors=there, digest=digest, size=size))
        return dataclasses.replace(source, files=tuple(made))

    def standins(files: BenchmarkFiles) -> BenchmarkFiles:
        shown = files.pictures
        if isinstance(shown, dict):
            shown = {task: standin(source) for task, source in shown.items()}
        elif shown is not None:
            shown = standin(shown)
        return dataclasses.replace(files, questions=standin(files.questions), pictures=shown)

    vision = PARAMETERS.values()
    published = {name: standins(files) for name, files in benchmarks.sources().items() if name in vision}
    monkeypatch.setenv("SBT_DOWNLOADS", str(tmp_path / "downloads"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    of = {name: published[parameter] for name, parameter in PARAMETERS.items()}
    return SimpleNamespace(data=data, sources=published, of=of, asked=lambda: len(server.asked) + len(hub.asked))


def good(folder: Path | str, names: list[str]) -> None:
    report = images.check(Path(folder) / name for name in names)
    assert len(report.good) == len(set(names)) > 0, report.problems


def from_hub(name: str, files: BenchmarkFiles) -> None:
    """What the notebook of a benchmark does with "hub"."""
    if name in ("coco", "flickr30k"):
        given = {name: {"references": "hub", "images": "hub" if name == "flickr30k" else "", "split": "test"}}
        found = benchmark_files.captions(given, {name: files})[name]
        items = captions.load(found["references"], found["split"])
        assert len(items[0]["references"]) == 5 and captions.demonstrations(found["references"], items, 0, count=1)
        return good(benchmark_files.pictures(files, "", found["images"], [items[0]["image"]]), [items[0]["image"]])
    source = benchmark_files.questions(files, "hub")
    if name == "mme":
        items = mme.load(source)
        assert [item["task"] for item in items] == ["existence"] * 2 + ["landmark"] * 2
        shown = benchmark_files.pictures(files, "hub", "", [])
        return good(shown, [item["file"] for item in mme.with_pictures(shown, items)])
    if name == "vqav2":
        named = [item["image"] for item in vqav2.load(*vqav2_files.files(source))]
    elif name == "pope":
        found = pope.files(source, ["random", "popular", "adversarial"])
        named = [row["image"] for file in found.values() for row in pope.load(file)]
    else:
        named = {task: [item["image"] for item in unicorn.load(source, task)] for task in TASKS}
        assert list(map(len, named.values())) == [1] * 4
        shown = benchmark_files.pictures(files, "hub", "", {task: named[task] for task in TASKS[2:]})
        return good(shown, [DRAWING])
    assert set(named) == set(COCO[:2])
    return good(benchmark_files.pictures(files, "hub", "", named), named)


@pytest.mark.parametrize("name", ["mme", "vqav2", "coco", "flickr30k", "pope", "unicorn"])
def test_a_benchmark_comes_from_the_hub_once_and_is_what_its_reader_wants(
    name: str, publishers: SimpleNamespace
) -> None:
    from_hub(name, publishers.of[name])
    before = publishers.asked()
    files = {file: file.stat().st_mtime_ns for file in paths.downloads().rglob("*") if file.suffix != ".json"}
    assert before and files
    from_hub(name, publishers.of[name])
    assert publishers.asked() == before, "fetched twice"
    assert {file: file.stat().st_mtime_ns for file in files} == files, "unpacked twice"


def test_what_is_no_hub_is_left_as_it_is(publishers: SimpleNamespace, tmp_path: Path) -> None:
    pope = publishers.of["pope"]
    for given in ("", "data/pope", str(tmp_path)):
        assert benchmark_files.questions(pope, given) == given
        assert benchmark_files.pictures(pope, given, "", COCO) == ""
        assert benchmark_files.pictures(pope, "hub", given or "data/coco", COCO) == (given or "data/coco")
    assert not publishers.asked() and not paths.downloads().exists()


def test_only_the_pictures_asked_for_are_unpacked_and_others_stay_missing(
    publishers: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, pope = [], publishers.of["pope"]
    size = download.SPARE * len(picture(0)) / 1e9
    monkeypatch.setattr(benchmark_files.env, "free_gb", lambda folder: 1.0)
    benchmark_files.questions(pope, "hub", lambda *told, file: seen.append((file, *told)))
    monkeypatch.setattr(benchmark_files.env, "free_gb", lambda folder: size * 0.9)
    with pytest.raises(RunError, match=r"pictures: .* unpack 1 files of val2014.zip, .* Free some space"):
        monkeypatch.setattr(download, "_rooms", lambda missing, folder: [])
        benchmark_files.pictures(pope, "hub", "", COCO[:1])
    assert not list(paths.downloads().rglob("COCO*"))
    monkeypatch.setattr(benchmark_files.env, "free_gb", lambda folder: 1.0)
    folder = benchmark_files.pictures(pope, "", "hub", [COCO[0], "gone.jpg"])
    assert [file.name for file in folder.iterdir()] == [COCO[0]]
    (folder / COCO[0]).write_bytes(b"cut off")
    good(benchmark_files.pictures(publishers.of["vqav2"], "hub", "", COCO[:2]), COCO[:2])  # the same folder, mended
    assert {file for file, *_ in seen} >= {"coco_pope_random.json"}
    with pytest.raises(DataError, match="leaves its folder"):
        benchmark_files.pictures(pope, "hub", "", ["../x.jpg"])


def test_what_cannot_be_had_says_what_to_do_instead(
    publishers: SimpleNamespace, hub: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    unicorn, pope = publishers.of["unicorn"], publishers.of["pope"]
    with pytest.raises(RunError) as error:
        benchmark_files.pictures(unicorn, "hub", "", {"oodcv-vqa": [PHOTO]})
    words = str(error.value)
    by_hand = tmp_path / "downloads" / "oodcv-images" / "oodcv-images.zip"
    assert "Google Drive" in words and f"put it to {by_hand} by hand" in words
    assert "vllm-safety-benchmark#datasets" in words and "Or set images to a folder with the pictures" in words
    by_hand.parent.mkdir(parents=True, exist_ok=True)
    by_hand.write_bytes(packed({"oodcv/phase-2/images/659.jpg": picture(5), "oodcv/phase-1/images/659.jpg": b"x"}))
    both = benchmark_files.pictures(unicorn, "hub", "", {"oodcv-vqa": [PHOTO], "sketchy-vqa": [DRAWING]})
    good(both, [PHOTO, DRAWING])
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    before = publishers.asked()
    with pytest.raises(RunError, match=r"(?s)val2014.zip cannot be had .HF_HUB_OFFLINE is set.*Or set images"):
        benchmark_files.pictures(pope, "hub", "", COCO)
    hub.files.clear()
    with pytest.raises(RunError, match=r"(?s)MME_Benchmark.*by hand, from https://github.com/BradyFU.*Or name files"):
        benchmark_files.questions(publishers.of["mme"], "hub")
    assert publishers.asked() == before + 1  # of the Hub's own cache, which has nothing


def test_a_zip_that_its_owner_changed_is_named(publishers: SimpleNamespace, hub: SimpleNamespace) -> None:
    for benchmark, missing in (("unicorn", "oodcv-vqa.json"), ("mme", "folder existence")):
        source = publishers.of[benchmark].questions
        (file,), data = source.files, packed({"other.json": []})
        hub.files[file.mirrors[0].repo, file.mirrors[0].path] = data
        changed = dataclasses.replace(source, files=(dataclasses.replace(file, digest=None, size=len(data)),))
        with pytest.raises(DataError, match=f"{file.name}: there is no {missing}"):
            benchmark_files.questions(dataclasses.replace(publishers.of[benchmark], questions=changed), "hub")


def test_the_check_names_what_a_study_takes_from_the_hub(
    publishers: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def names(values: dict) -> list[str]:
        return [source.name for source in preflight.wanted(values, publishers.sources)]

    steps = [
        {"step": "60", "mme_data": "hub", "images": ""},
        {"step": "61", "questions_file": "hub", "images": str(tmp_path)},
        {"step": "62", "references": "hub", "images": "", "demonstrations": "hub",
         "flickr": {"references": str(tmp_path), "images": "hub"}},
        {"step": "63", "pope_data": str(tmp_path), "images": "hub"},
        {"step": "64", "unicorn_data": "hub", "images": "", "tasks": ["sketchy-vqa"]},
    ]  # fmt: skip
    assert [names(step) for step in steps] == [
        ["mme"],
        ["vqav2"],
        ["captions", "coco-val2014", "flickr30k-images"],
        ["coco-val2014"],
        ["unicorn", "sketches"],
    ]
    folder = tmp_path / "downloads"
    rows = {row["check"]: row for row in preflight.checks(steps, folder, publishers.sources)}
    assert {name for name in rows if name.startswith("data ")} == {f"data {one}" for s in steps for one in names(s)}
    assert all(row["ok"] for row in rows.values()) and rows["data mme"]["found"] == "to be fetched"
    assert "forms.illinois.edu" in rows["data flickr30k-images"]["why"]
    benchmark_files.questions(publishers.of["mme"], "hub")
    steps[-1]["tasks"] = ["oodcv-vqa"]
    rows = {row["check"]: row for row in preflight.checks(steps, folder, publishers.sources)}
    assert rows["data mme"]["found"] == "here" and "data sketches" not in rows
    assert not rows["data oodcv-images"]["ok"]
    with pytest.raises(RunError, match="handed out by hand only.*put it to .*oodcv-images.zip"):
        preflight.verdict(rows.values())
    (folder / "oodcv-images").mkdir()
    (folder / "oodcv-images" / "oodcv-images.zip").write_bytes(b"")
    preflight.verdict(preflight.checks(steps, folder, publishers.sources))
    monkeypatch.setattr(download.env, "free_gb", lambda at: 0.0)
    rows = preflight.checks(steps, folder, publishers.sources)
    assert not all(row["ok"] for row in rows if row["check"].startswith("disk"))


@pytest.mark.parametrize("notebook", ["60_mme", "61_vqav2", "62_captioning", "63_pope", "64_unicorn"])
def test_every_parameter_that_may_be_hub_is_known_to_the_check(notebook: str) -> None:
    cells = json.loads((paths.notebooks() / f"{notebook}.ipynb").read_text())["cells"]
    (cell,) = [one for one in cells if "parameters" in one["metadata"].get("tags", ())]
    lines = [line for line in "".join(cell["source"]).splitlines() if re.search(r"#.*\bhub\b", line)]
    found = {line.partition(":")[0]: line for line in lines if not line.startswith("images")}
    assert len(found) == (3 if notebook == "62_captioning" else 1)
    published = benchmarks.sources()
    for name, line in found.items():
        value = {"references": "hub", "images": "hub"} if ": dict" in line else "hub"
        wanted = preflight.wanted({name: value, "images": "", "tasks": TASKS}, published)
        assert wanted, f"{notebook} takes {name}='hub' unseen"
        assert not preflight.wanted({name: "data/folder", "images": "data/pictures", "tasks": TASKS}, published)


def test_vqav2s_two_files_are_found_in_a_folder_or_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds neither v2_OpenEnded.* nor questions.json"):
        vqav2_files.files(tmp_path)
    (tmp_path / "questions.json").write_text("{}")
    assert vqav2_files.files(tmp_path) == (tmp_path / "questions.json", tmp_path / "annotations.json")
    other = tmp_path / "other.json"
    assert vqav2_files.files(tmp_path, other)[1] == other
    assert vqav2_files.files(tmp_path / "questions.json", other) == (tmp_path / "questions.json", other)
    with pytest.raises(DataError, match="set `annotations`"):
        vqav2_files.files(tmp_path / "questions.json")


def test_hub_is_one_word() -> None:
    assert HUB == "hub"
    assert preflight.wanted({"pope_data": "Hub"}, benchmarks.sources()) == []
