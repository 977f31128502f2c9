"""Caption metrics: the official numbers, the traps of each formula, and what happens without Java."""

import json
import math
import shutil
import subprocess
from pathlib import Path

import pytest
from real_files import real_data

from sbt.benchmarks.captions import metric

DATA = real_data()
needs_data = pytest.mark.skipif(DATA is None, reason="the real captions are not here (SBT_DATA)")


@pytest.fixture(scope="module")
def official() -> tuple[list[str], list[list[str]]]:
    """The 134 captions of coco-caption's example results that have references here."""
    folder = DATA / "coco_captions"
    content = json.loads((folder / "captions_val2014_subsetA_4800.json").read_text(encoding="utf-8"))
    results = json.loads((folder / "captions_val2014_fakecap_results.json").read_text(encoding="utf-8"))
    said = {row["image_id"]: row["caption"] for row in results}
    known: dict[int, list[str]] = {}
    for row in content["annotations"]:
        known.setdefault(row["image_id"], []).append(row["caption"])
    both = [row["id"] for row in content["images"] if row["id"] in said and row["id"] in known]
    return [said[key] for key in both], [known[key] for key in both]


@needs_data
def test_the_official_numbers_without_java(official: tuple, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(subprocess, "Popen", lambda *args, **kwargs: pytest.fail("a program was started"))
    found = metric.scores(*official)
    assert len(official[0]) == 134
    assert {name: round(value, 4) for name, value in found.items()} == {
        "BLEU-1": 0.5523, "BLEU-2": 0.3830, "BLEU-3": 0.2594, "BLEU-4": 0.1742, "ROUGE-L": 0.3735, "CIDEr": 0.5286
    }  # fmt: skip
    assert metric.with_java(*official) == {}


@needs_data
def test_per_image_scores_average_to_the_corpus_score(official: tuple) -> None:
    whole = metric.scores(*official)
    for name in ("CIDEr", "ROUGE-L"):
        values = metric.per_image(*official, name)
        assert len(values) == 134 and sum(values) / 134 == pytest.approx(whole[name], abs=1e-12)
        assert max(values) > 2 * whole[name]  # they are per image


@needs_data
def test_cider_depends_on_the_images_scored_together(official: tuple) -> None:
    said, known = official
    together = metric.per_image(said, known, "CIDEr")[:20]
    apart = metric.per_image(said[:20], known[:20], "CIDEr")
    assert max(abs(a - b) for a, b in zip(together, apart, strict=True)) > 0.01
    rouge = metric.per_image(said, known, "ROUGE-L")[:20]
    assert rouge == metric.per_image(said[:20], known[:20], "ROUGE-L")


TWO = [["a red dog runs on the grass"], ["a blue cat sits under the tree"]]


def test_cider_is_ten_for_a_perfect_caption_and_nothing_for_a_single_image() -> None:
    assert metric.scores(["a red dog runs on the grass", "x y"], TWO)["CIDEr"] == pytest.approx(5.0)
    assert metric.per_image(["a red dog runs on the grass", "x y"], TWO, "CIDEr") == pytest.approx([10.0, 0.0])
    assert metric.scores(["a red dog runs on the grass"], TWO[:1])["CIDEr"] == 0.0  # log(1 image) = 0


def test_cider_clips_repeated_words_and_punishes_length() -> None:
    """CIDEr-D: a word said three times counts once; one bigram more costs the gaussian exp(-1 / 72)."""
    known = [["dog"], ["cat"]]
    once, thrice = (metric.per_image([text, "x"], known, "CIDEr")[0] for text in ("dog", "dog dog dog"))
    assert once == pytest.approx(2.5)  # only unigrams match: a quarter of 10
    # tf-idf 3 clipped to 1: cosine (1 * 1) / (3 * 1), and two bigrams more than the reference's none
    assert thrice == pytest.approx(2.5 / 3 * math.exp(-(2**2) / 72))


def test_rouge_takes_best_precision_and_best_recall_from_different_references() -> None:
    # precision 2/2 against the long reference, recall 1/1 against the short one; beta 1.2
    (value,) = metric.per_image(["a b"], [["a b c d", "a"]], "ROUGE-L")
    assert value == pytest.approx(1.0)
    (value,) = metric.per_image(["a b"], [["a b c d"]], "ROUGE-L")
    assert value == pytest.approx((1 + 1.44) * 1 * 0.5 / (0.5 + 1.44 * 1))


def test_bleu_takes_the_closest_reference_length_the_shorter_on_ties() -> None:
    # 4 words said; references of 3 and 5 are equally close: 3, so no brevity penalty
    found = metric.scores(["a b c d"], [["a b c", "a b c d e"]])
    assert found["BLEU-1"] == pytest.approx(1.0)
    found = metric.scores(["a b c d"], [["a b c d e"]])
    assert found["BLEU-1"] == pytest.approx(math.exp(1 - 5 / 4))
    # corpus level: counts of all images are added before dividing
    found = metric.scores(["a b", "x y z w"], [["a b"], ["q r s t"]])
    assert found["BLEU-1"] == pytest.approx(2 / 6)
    assert 0 < found["BLEU-4"] < 1e-3  # the smoothing constants, not zero


def test_bleu_smooths_with_the_official_constants() -> None:
    """tiny = 1e-15 above, small = 1e-9 below every fraction of counts, so that nothing is 0 or divided by it."""
    found = metric.scores(["x y z w"], [["q r s t"]])
    product = 1.0
    for n, guessed in enumerate((4, 3, 2, 1), start=1):
        product *= 1e-15 / (guessed + 1e-9)
        assert found[f"BLEU-{n}"] == pytest.approx(product ** (1 / n), rel=1e-12)
    # one word of one, (1 + 1e-15) / (1 + 1e-9), with a brevity penalty for the same ratio; pairs: 1e-15 / 1e-9
    single = metric.scores(["q"], [["q"]])
    assert 1 - single["BLEU-1"] == pytest.approx(2e-9, rel=1e-3)
    assert single["BLEU-2"] == pytest.approx((1e-15 / 1e-9) ** 0.5, rel=1e-8)
    # nothing said: a length of 1e-15 against one of 4, whose penalty is 0 in floating point
    assert metric.scores([""], [["q r s t"]])["BLEU-1"] == 0.0


def test_punctuation_and_case_do_not_count_but_brackets_do() -> None:
    plain, odd = ["a red dog runs on the grass", "a cat"], ['A red dog, "runs" on the grass!', "A cat."]
    assert metric.scores(odd, TWO) == metric.scores(plain, TWO)
    assert metric.scores(["(a red dog) runs on the grass", "a cat"], TWO) != metric.scores(plain, TWO)


def test_empty_captions_score_zero_and_break_nothing() -> None:
    found = metric.scores(["", "..."], TWO)
    assert found["CIDEr"] == found["ROUGE-L"] == 0.0 and found["BLEU-1"] < 1e-6
    assert metric.scores(["a", "b"], [["!"], ["."]])["CIDEr"] == 0.0  # references without a word


def test_lengths_must_agree() -> None:
    with pytest.raises(ValueError, match="1 captions for 2 images"):
        metric.scores(["a"], TWO)
    with pytest.raises(ValueError, match="needs a reference"):
        metric.scores(["a", "b"], [["a"], []])


@needs_data
@pytest.mark.skipif(shutil.which("java") is None, reason="Java is not installed")
def test_meteor_where_java_is(official: tuple) -> None:
    found = metric.with_java(*official)
    if not found:
        pytest.skip("METEOR does not run here")
    assert round(found["METEOR"], 4) == 0.1867


@pytest.mark.skipif(shutil.which("java") is None, reason="Java is not installed")
def test_meteor_reads_utf_8(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under another locale too: Java takes the machine's encoding where none is named, and "café" is then no word."""
    for name in ("LC_ALL", "LANG", "LC_CTYPE"):
        monkeypatch.setenv(name, "POSIX")
    said, known = ["a café", "naïve"], [["a café"], ["naïve"]]
    found = metric.meteor(said, known)
    if found is None:
        pytest.skip("METEOR does not run here")
    assert found > 0.9
    assert found > metric.meteor(["a cafè", "naîve"], known), "one accent for another is another word"


def test_meteor_is_told_to_read_utf_8(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same where Java is missing: a program in its place keeps what it is given."""
    program = tmp_path / "java"
    program.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/words\nhead -n 1 >> {tmp_path}/read\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    metric.meteor(["a café"], [["a naïve café"]])
    assert "-Dfile.encoding=UTF-8" in (tmp_path / "words").read_text().split()
    assert (tmp_path / "read").read_bytes().decode("utf-8").startswith("SCORE ||| a naïve café ||| a café\n")


@pytest.mark.parametrize("script", ["exit 1", "echo no number; sleep 0.1", "cat > /dev/null"])
def test_a_java_that_does_not_work_is_an_absent_metric(
    script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "java"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(metric, "_SECONDS", 1.0)  # the third reads for ever and never answers
    assert shutil.which("java") == str(program)
    assert metric.with_java(["a dog", "a cat"], TWO) == {}
