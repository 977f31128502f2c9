"""Corrupted pictures asked about and scored: what the arms are asked, what is left out, what the rows are called."""

from types import SimpleNamespace

from sbt.benchmarks.captions import task as captions
from sbt.benchmarks.common import corrupted_scores
from sbt.benchmarks.common.corrupted import CLEAN

ITEMS = [{"id": k, "image": f"{k}.png", "references": [f"a red star number {k}", "a star"]} for k in range(3)]


def test_items_without_a_usable_picture_are_left_out_of_clean_and_corrupted(monkeypatch, tmp_path):
    made = SimpleNamespace(
        seed=5,
        folder=tmp_path,
        make=lambda pictures, names, severities, **how: [name for name in pictures if name != "1.png"],
        names=lambda pictures, name, level: [f"{name}/{level}/{picture}" for picture in pictures],
    )
    asked = {}

    def ask(references, prompts, pictures, folder, caches, **how):
        asked.update(prompts=prompts, pictures=pictures, **how)
        return {("a", "real"): ["a star"] * len(prompts)}, {"a": "v1"}

    monkeypatch.setattr(corrupted_scores.vision_scores, "ask", ask)
    clean = {"a": [f"a red star number {k}" for k in range(3)]}
    rows, samples = corrupted_scores.score(
        {"a": "folder"}, captions, ITEMS, ["p0", "p1", "p2"], clean, made, tmp_path,
        corruptions=["fog", "snow"], severities=[3], value="CIDEr", name="flickr30k",
        demonstrations=[[("q", str(k))] for k in range(3)], on_bad="skip",
    )  # fmt: skip
    assert asked["prompts"] == ["p0", "p2"] * 2 and asked["seed"] == 5 and asked["conditions"] == ["real"]
    assert asked["pictures"] == ["fog/3/0.png", "fog/3/2.png", "snow/3/0.png", "snow/3/2.png"]
    assert asked["demonstrations"] == [[("q", "0")], [("q", "2")]] * 2
    named = {row["subset"] for row in rows}
    assert {f"flickr30k, {CLEAN}", "flickr30k, fog, severity 3", "flickr30k, snow"} <= named
    kept = [sample for sample in samples if sample["subset"] == f"flickr30k, {CLEAN}"]
    assert [sample["answer"] for sample in kept] == ["a red star number 0", "a red star number 2"]
    drop = next(row for row in rows if row["metric"] == "relative_drop" and row["subset"] == "flickr30k, fog")
    assert drop["n"] == 2 and drop["value"] == 1  # what is said of every picture weighs nothing in CIDEr

    made.make = lambda pictures, *rest, **how: list(pictures)
    rows, _ = corrupted_scores.score(
        {"a": "folder"}, captions, ITEMS, ["p0", "p1", "p2"], clean, made, tmp_path,
        corruptions=["fog"], severities=[3], value="CIDEr", limit=2,
    )  # fmt: skip
    assert {row["n"] for row in rows} == {2} and "fog, severity 3" in {row["subset"] for row in rows}
