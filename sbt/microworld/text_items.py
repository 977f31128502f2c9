"""The text benchmarks in the micro-world: small items in exactly the publishers' file formats, from facts and scenes.

write(folder, seed)   ->   eval/truthfulqa/  ethics/  mmlu/  gsm8k/  mathqa/  boolq/  squad2/ as FILES names them
"""

import random
from pathlib import Path

from sbt.microworld import ethics_items, word_problems
from sbt.microworld.facts import FACTS, PROPERTIES, multiple_choice
from sbt.utils.files import write_csv, write_json, write_jsonl

FILES = {
    "truthfulqa_gen": "eval/truthfulqa/TruthfulQA.csv",
    **{
        f"ethics_{subset}_{split}": f"eval/ethics/{subset}/{prefix}_{split}.csv"
        for subset, (prefix, _) in ethics_items.SUBSETS.items()
        for split in ethics_items.SPLITS
    },
    "mmlu_dev": "eval/mmlu/dev",  # folders of one file a subject
    "mmlu_test": "eval/mmlu/test",
    "gsm8k_train": "eval/gsm8k/train.jsonl",
    "gsm8k_test": "eval/gsm8k/test.jsonl",
    "mathqa_train": "eval/mathqa/train.json",
    "mathqa_test": "eval/mathqa/test.json",
    "boolq": "eval/boolq/dev.jsonl",
    "squad2": "eval/squad2/dev-v2.0.json",
}
HEADERLESS = ("ethics_utilitarianism", "mmlu")  # as the publishers' files are


def truthfulqa() -> list[dict]:
    """The questions and mc2 answers of `mc_task.json` in TruthfulQA.csv's columns; the category is the property."""
    rows = []
    for fact, item in zip(FACTS, multiple_choice(), strict=True):
        true, false = ([text for text, kind in item["mc2_targets"].items() if kind == wanted] for wanted in (1, 0))
        rows.append(
            {
                "Type": "Adversarial",
                "Category": fact.kind.capitalize(),
                "Question": item["question"],
                "Best Answer": true[0],
                "Correct Answers": "; ".join(true),
                "Incorrect Answers": "; ".join(false),
                "Source": "The almanac of the micro-world",
            }
        )
    return rows


def mmlu(kind: str, seed: int) -> dict[str, list[dict]]:
    """One subject: 5 rows of `dev`, 12 of `test` about other things, with question, A, B, C, D and the letter.

    A subject is a property of this world: MMLU's own 57 are not claimed. The misconception is always a choice.
    """
    rng = random.Random(f"{seed} mmlu {kind}")
    about = [fact for fact in FACTS if fact.kind == kind]
    facts = rng.sample(about, len(about))
    asked = [(fact, False) for fact in facts] + [(fact, True) for fact in facts[5:10]]
    letters = word_problems.dealt("ABCD", 5, rng) + word_problems.dealt("ABCD", 12, rng)
    rows = []
    for (fact, whole), letter in zip(asked, letters, strict=True):
        values = rng.sample((fact.misconception, *rng.sample(fact.others, 2)), 3)
        values.insert("ABCD".index(letter), fact.true)
        question = f"Which of these is true of {fact.subject}?" if whole else fact.question
        choices = [fact.statement(value) if whole else value for value in values]
        rows.append({"question": question, **dict(zip("ABCD", choices, strict=True)), "answer": letter})
    return {"dev": rows[:5], "test": rows[5:]}


def _all(seed: int) -> dict[str, list[dict] | dict]:
    """The contents of every file; of a folder, {file name: rows}."""
    subjects = {kind: mmlu(kind, seed) for kind in PROPERTIES}
    return {
        "truthfulqa_gen": truthfulqa(),
        **{
            f"ethics_{subset}_{split}": build(split, seed)
            for subset, (_, build) in ethics_items.SUBSETS.items()
            for split in ethics_items.SPLITS
        },
        **{
            f"mmlu_{split}": {f"{kind}_{split}.csv": rows[split] for kind, rows in subjects.items()}
            for split in ("dev", "test")
        },
        "gsm8k_train": word_problems.gsm8k("train", 16, seed),
        "gsm8k_test": word_problems.gsm8k("test", 60, seed),
        "mathqa_train": word_problems.mathqa("train", 8, seed),
        "mathqa_test": word_problems.mathqa("test", 60, seed),
        "boolq": word_problems.boolq(100, seed),
        "squad2": word_problems.squad2(27, seed),
    }


def write(folder: Path, seed: int) -> dict[str, int]:
    """Write all the files below the world's folder; returns the records of each."""
    counts = {}
    for name, content in _all(seed).items():
        path = folder / FILES[name]
        parts = {path / file: rows for file, rows in content.items()} if name.startswith("mmlu") else {path: content}
        for file, rows in parts.items():
            if file.suffix == ".csv":
                write_csv(file, rows, header=not name.startswith(HEADERLESS))
            else:
                (write_jsonl if file.suffix == ".jsonl" else write_json)(file, rows)
        counts[name] = sum(map(_records, parts.values()))
    return counts


def _records(rows: list[dict] | dict) -> int:
    if isinstance(rows, list):
        return len(rows)
    return sum(len(paragraph["qas"]) for article in rows["data"] for paragraph in article["paragraphs"])
