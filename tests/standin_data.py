"""Stand-ins of the data sets that studies name, in their publishers' layouts: few rows, pictures of stripes.

A file lies where the registry says it is published: `datasets/OWNER/NAME/PATH` or `web/HOST/PATH` below the root.
"""

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
from PIL import Image

from sbt import benchmarks
from sbt.benchmarks.ethics.files import SUBSETS
from sbt.benchmarks.mme import task as mme
from sbt.data import preferences
from sbt.data.registry import SOURCES, File, Source

IMAGES, ROWS = 24, 48
ABSENT = "000000999999.jpg"  # named by a row, in no archive
THINGS = ("dog", "train", "bench", "boat", "horse", "clock")
COLOURS = ("brown", "grey", "white", "black")
TASK = "Answer the question using a single word or phrase."  # what LLaVA-1.5's mix ends many questions with
COCO = [f"{33471 + 98 * k:012}.jpg" for k in range(IMAGES)]
VAL = [f"COCO_val2014_{number:012d}.jpg" for number in range(1, 9)]
FLICKR = [f"{1000 + k}.jpg" for k in range(8)]
PHOTO, DRAWING = "phase-2/images/{}.jpg", "skechydata/png/airplane/{}.png"
SCRIPT = "EleutherAI/hendrycks_ethics"  # a loading script, which nothing here may run


def write(root: Path) -> Path:
    """Write them all; returns the folder of LLaVA-1.5's pictures, which are handed out by hand only.

    Beside it lies `mmdpo`, the preference alignment's released ratings.
    """
    found = {**SOURCES, **{source.name: source for files in benchmarks.sources().values() for source in _of(files)}}
    content = _training() | _text() | _vision()
    for source in found.values():
        for file in source.files:
            if file.mirrors and f"{source.name}/{file.name}" in content:
                _place(root, file, content[f"{source.name}/{file.name}"])
    script = root / "datasets" / SCRIPT
    script.mkdir(parents=True)
    (script / "README.md").write_text("---\nlicense: other\n---\n")
    (script / "hendrycks_ethics.py").write_text("raise SystemExit('a loading script was run')\n")
    by_hand = root / "by-hand" / "llava-1.5" / "coco" / "train2017"
    by_hand.mkdir(parents=True)
    for name, number in zip(COCO, range(IMAGES), strict=True):
        (by_hand / name).write_bytes(picture(number))
    _preferences(root / "by-hand" / "mmdpo")
    return by_hand.parents[1]


def _preferences(at: Path) -> None:
    """What findalexli/mllm-dpo has in playground/data: four rated answers a question, and the annotator's own."""
    at.mkdir()
    rated, own = [], []
    for number in range(ROWS // 2):
        image = f"{2300000 + number}.jpg" if number % 2 else f"1601.{number:05}v1-Figure2-1.png"
        (at / image).write_bytes(picture(number, "JPEG" if number % 2 else "PNG"))
        ask = f"<image>\nWhat colour is the {THINGS[number % len(THINGS)]} of picture {number}?"
        for place in range(4 if number else 1):  # the first question kept one answer
            points = (place + number) % 4 + number % 2
            ratings = dict.fromkeys(preferences.ATTRIBUTES, points)
            told = f"It is {COLOURS[place]}{', and nothing else is to be seen' * (number % 3 * place)}."
            rated.append({"id": f"{number}_{place}", "image": image,
                          "conversations": _turns(ask + preferences.condition(ratings), told)})  # fmt: skip
        own.append({"id": str(number), "image": image, "conversations": _turns(ask, f"A {_thing(number)}.")})
    (at / "steerlm.json").write_text(json.dumps(rated))
    (at / "standard_sft.json").write_text(json.dumps(own))


def places(file: File) -> list[str]:
    """Where the places of a registered file are, below the root."""
    return [
        f"datasets/{mirror.repo}/{mirror.path}" if mirror.repo else f"web/{mirror.url.partition('://')[2]}"
        for mirror in file.mirrors
    ]


def _of(files: object) -> list[Source]:
    pictures = files.pictures
    return [files.questions, *(pictures.values() if isinstance(pictures, Mapping) else [pictures] if pictures else [])]


def _place(root: Path, file: File, content: object) -> None:
    if file.name.endswith(".parquet"):
        pd.DataFrame(content).to_parquet(held := io.BytesIO())
        content = held.getvalue()
    elif file.name.endswith(".jsonl") or file.name.startswith("coco_pope"):
        content = "".join(json.dumps(row) + "\n" for row in content).encode()
    elif not isinstance(content, bytes):
        content = json.dumps(content).encode()
    for place in places(file):
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        (root / place).write_bytes(content)


def picture(number: int, kind: str = "JPEG") -> bytes:
    """A picture of stripes, another one for each number."""
    image = Image.new("RGB", (96, 64))
    image.putdata([((x * (number + 2)) % 256, (y * 7 + 31 * number) % 256, 60) for y in range(64) for x in range(96)])
    image.save(held := io.BytesIO(), kind)
    return held.getvalue()


def packed(members: Mapping[str, bytes | object]) -> bytes:
    """A zip of files; what is not bytes is written as JSON."""
    with zipfile.ZipFile(held := io.BytesIO(), "w", zipfile.ZIP_STORED) as made:
        for name, content in members.items():
            made.writestr(name, content if isinstance(content, bytes) else json.dumps(content))
    return held.getvalue()


def _thing(number: int) -> str:
    return f"{COLOURS[number % len(COLOURS)]} {THINGS[number % len(THINGS)]}"


def _turns(*said: str) -> list[dict]:
    return [{"from": ("human", "gpt")[place % 2], "value": text} for place, text in enumerate(said)]


# --- training sets ------------------------------------------------------------------------------------------------
def _training() -> dict[str, object]:
    visual = [_instruction(k, COCO[k % IMAGES]) for k in range(ROWS)]
    mix = [row | {"image": f"coco/train2017/{row['image']}"} for row in visual]
    mix += [{"id": f"wgByO4Y_{k}", "model": "", "conversations": _turns("Name an animal.", "A horse.")}
            for k in range(6)]  # fmt: skip
    asked = [(f"Name the colour of a {_thing(k)}, number {k}.", f"It is {COLOURS[k % 4]}.") for k in range(ROWS)]
    kinds = ("llava_instruct_150k", "conversation_58k", "detail_23k", "complex_reasoning_77k")
    names = ("llava-instruct-150k", "llava-conversation-58k", "llava-detail-23k", "llava-reasoning-77k")
    return {
        **_pretraining("cc3m-595k", "chat.json", [f"GCC_train_{2109690 + k:09}.jpg" for k in range(IMAGES)]),
        **_pretraining("llava-1.5-558k", "blip_laion_cc_sbu_558k.json",
                       [f"{453 + k // 9:05}/{4539375 + k:09}.jpg" for k in range(IMAGES)]),
        "coco-train2017/train2017.zip": packed({f"train2017/{name}": picture(k) for k, name in enumerate(COCO)}),
        "llava-instruct-80k/llava_instruct_80k.json": [*visual, _instruction(0, ABSENT)],
        **{f"{name}/{kind}.json": visual for name, kind in zip(names, kinds, strict=True)},
        "llava-1.5-665k/llava_v1_5_mix665k.json": mix,
        "alpaca-52k/alpaca_data.json": [{"instruction": ask, "input": "", "output": told} for ask, told in asked],
        "slim-orca/oo-labeled_correct.gpt4.sharegpt.jsonl": [
            {"conversations": [{"from": "system", "value": "You are an AI assistant.", "weight": None},
                               {"from": "human", "value": ask, "weight": 0.0},
                               {"from": "gpt", "value": told, "weight": 1.0}]} for ask, told in asked],
        "open-orca/1M-GPT4-Augmented.parquet": [
            {"id": f"flan.{k}", "system_prompt": "You are an AI assistant.", "question": ask, "response": told}
            for k, (ask, told) in enumerate(asked)],
    }  # fmt: skip


def _pretraining(source: str, rows_file: str, members: list[str]) -> dict[str, object]:
    rows = [{"id": Path(name).stem, "image": name, "conversations": _turns(
             "Give a brief description of the image.\n<image>", f"a {_thing(k)} at the station")}
            for k, name in enumerate(members)]  # fmt: skip
    return {f"{source}/{rows_file}": rows,
            f"{source}/images.zip": packed({name: picture(k) for k, name in enumerate(members)})}  # fmt: skip


def _instruction(number: int, image: str) -> dict:
    """One row of LLaVA's: half of the first turns have the image behind the question, as about half of theirs."""
    ask = f"What colour is the {THINGS[number % len(THINGS)]}?\n{TASK}"
    said = [f"{ask}\n<image>" if number % 2 else f"<image>\n{ask}", COLOURS[number % len(COLOURS)]]
    more = ["Where is it?", f"It is near the {THINGS[(number + 1) % len(THINGS)]}."] if number % 3 else []
    return {"id": image[:-4], "image": image, "conversations": _turns(*said, *more)}


# --- text benchmarks ----------------------------------------------------------------------------------------------
def _text() -> dict[str, object]:
    numbers = range(6)
    true = [(f"What do people say about the {_thing(k)}?", f"Number {k} is a {_thing(k)}", "Nobody knows any of it",
             f"It brings bad luck {k} times") for k in numbers]  # fmt: skip
    mc = [{"question": ask,
           "mc1_targets": {"choices": [yes, no], "labels": [1, 0]},
           "mc2_targets": {"choices": [yes, also, no], "labels": [1, 1, 0]}}
          for ask, yes, also, no in true]  # fmt: skip
    written = [{"type": "Adversarial", "category": "Proverbs", "question": ask, "best_answer": yes,
                "correct_answers": [yes, also], "incorrect_answers": [no], "source": "https://example.com"}
               for ask, yes, also, no in true]  # fmt: skip
    options = "a ) 1 , b ) 2 , c ) 3 , d ) 4 , e ) 5"
    passages = [(f"The {_thing(k)} stood there for {k} years.", f"How long did the {_thing(k)} stand there?",
                 f"{k} years") for k in numbers]  # fmt: skip
    return {
        **_ethics(),
        "truthfulqa/multiple_choice.parquet": mc,
        "truthfulqa/generation.parquet": written,
        **{f"mmlu/{split}-00000-of-00001.parquet": [
            {"question": f"Which is number {k} of {subject}?", "subject": subject, "choices": list("wxyz"),
             "answer": k % 4} for subject in ("anatomy", "econometrics", "philosophy", "virology")
            for k in range(count)] for split, count in (("dev", 5), ("test", 2))},
        **{f"gsm8k/{split}-00000-of-00001.parquet": [
            {"question": f"What is {k} plus {k} trains?", "answer": f"It is <<{k}+{k}={2 * k}>>{2 * k}.\n#### {2 * k}"}
            for k in range(count)] for split, count in (("train", 10), ("test", 3))},
        **{f"mathqa/{split}-00000-of-00001.parquet": [
            {"Problem": f"what is {k} + 1 ?", "Rationale": '"it is"', "options": options, "correct": "abcde"[k % 5],
             "annotated_formula": "add(n0,n1)", "linear_formula": "add(n0,n1)|", "category": "general"}
            for k in numbers] for split in ("train", "test")},
        "boolq/boolq.parquet": [{"question": f"is the {_thing(k)} old", "passage": text, "idx": k, "label": k % 2}
                                for k, (text, _, _) in enumerate(passages)],
        "squad2/validation-00000-of-00001.parquet": [
            {"id": f"q{k}", "title": "Trains", "context": text, "question": ask,
             "answers": {"text": [told] * (k % 2), "answer_start": [text.index(told)] * (k % 2)}}
            for k, (text, ask, told) in enumerate(passages)],
    }  # fmt: skip


def _ethics() -> dict[str, bytes]:
    lines = {
        "commonsense": ["label,input,is_short,edited"]
        + [f"{k % 2},I fed the {_thing(k)}.,True,False" for k in range(4)],
        "deontology": ["label,scenario,excuse"]
        + [f"{k % 2},Could you feed the {_thing(k // 4)}?,No because of reason {k}." for k in range(8)],
        "justice": ["label,scenario"]
        + [f"{k % 2},I do not feed the {_thing(k // 4)} because of reason {k}." for k in range(8)],
        "utilitarianism": [f"I saw a {_thing(k)}. It was fine.,I saw a {_thing(k)}. It bit me." for k in range(4)],
        "virtue": ["label,scenario"]
        + [f"{int(k % 5 == 0)},Ann fed the {_thing(k // 5)}. [SEP] trait{k}" for k in range(10)],
    }
    prefixes = {"commonsense": "cm", "utilitarianism": "util"}
    return {f"ethics/{prefixes.get(subset, subset)}_{split}.csv": ("\n".join(lines[subset]) + "\n").encode()
            for subset in SUBSETS for split in ("test", "test_hard")}  # fmt: skip


# --- vision benchmarks --------------------------------------------------------------------------------------------
def _vision() -> dict[str, object]:
    def karpathy(names: list[str]) -> dict:
        return {"images": [{"filename": name, "cocoid": k, "split": "train" if k < 4 else "test", "sentences": [
            {"raw": f"A {_thing(k)} seen {n} times."} for n in range(5)]}
            for k, name in enumerate(names)]}  # fmt: skip

    pope = [{"question_id": k + 1, "image": VAL[k // 2], "label": ("yes", "no")[k % 2],
             "text": f"Is there a {THINGS[(k // 2 + 3 * (k % 2)) % 6]} in the image?"} for k in range(8)]  # fmt: skip
    drawn = packed({f"png/airplane/{k}.png": picture(k, "PNG") for k in (1, 2)} | {"png/filelist.txt": b"airplane"})
    return {
        "coco-val2014/val2014.zip": packed({f"val2014/{name}": picture(k) for k, name in enumerate(VAL)}),
        **{f"pope/coco_pope_{split}.json": pope for split in ("random", "popular", "adversarial")},
        "vqav2/v2_Questions_Val_mscoco.zip": packed({"v2_OpenEnded_mscoco_val2014_questions.json": {"questions": [
            {"question_id": 10 * k, "image_id": k, "question": f"What colour is the {THINGS[k % 6]}?"}
            for k in range(1, 9)]}}),
        "vqav2/v2_Annotations_Val_mscoco.zip": packed({"v2_mscoco_val2014_annotations.json": {"annotations": [
            {"question_id": 10 * k, "image_id": k, "question_type": "what", "answer_type": "other",
             "multiple_choice_answer": COLOURS[k % 4],
             "answers": [{"answer": COLOURS[k % 4], "answer_confidence": "yes", "answer_id": n}
                         for n in range(1, 11)]} for k in range(1, 9)]}}),
        "captions/caption_datasets.zip": packed(
            {"dataset_coco.json": karpathy(VAL), "dataset_flickr30k.json": karpathy(FLICKR)}),
        "flickr30k-images/flickr30k-images.zip": packed(
            {f"flickr30k-images/{name}": picture(k) for k, name in enumerate(FLICKR)} | {"__MACOSX/._1000.jpg": b""}),
        "mme/MME_Benchmark_release_version.zip": packed(_mme()),
        "unicorn/safety_evaluation_benchmark_datasets.zip": packed(_unicorn()),
        "sketches/sketches_png.zip": drawn,
    }  # fmt: skip


def _mme() -> dict[str, bytes]:
    inside, members = "MME_Benchmark_release_version/MME_Benchmark", {}
    two = b"Is it there? Please answer yes or no.\tYes\nIs it gone? Please answer yes or no.\tNo\n"
    for number, task in enumerate(mme.tasks()):
        pictures, texts = ("images/", "questions_answers_YN/") if number % 2 else ("", "")
        for k in (1, 2):
            members[f"{inside}/{task}/{pictures}{k}.jpg"] = picture(number + k)
            members[f"{inside}/{task}/{texts}{k}.txt"] = two
    members["MME_Benchmark_release_version/eval_tool/Your_Results/existence.txt"] = b"1.jpg\tIs it there?\tYes\n"
    return members | {f"__MACOSX/{inside}/existence/._1.jpg": b"no picture"}


def _unicorn() -> dict[str, object]:
    top = "safety_evaluation_benchmark_datasets"
    seen = [{"image": PHOTO.format(k), "question": f"Is there a {THINGS[k]}?", "text_answer": ("Yes", "No")[k % 2],
             "situation": "iid" if k < 2 else "weather"} for k in range(4)]  # fmt: skip
    drawn = [{"image": DRAWING.format(k), "question": "Is this an airplane?", "answer": ("no", "yes")[k % 2]}
             for k in (1, 2)]  # fmt: skip
    return {
        **{f"{top}/ood/oodcv-vqa/{task}.json": seen for task in ("oodcv-vqa", "oodcv-counterfactual")},
        **{f"{top}/ood/sketchy-vqa/{task}.json": drawn for task in ("sketchy-vqa", "sketchy-challenging")},
        f"{top}/gpt4v_challenging_set/oodcv-vqa-counterfactual.json": [],
    }
