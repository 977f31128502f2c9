"""The tokenizer of the caption metrics against Stanford's: frozen examples, and every real caption where Java is."""

import importlib.util
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from real_files import real_data

from sbt.benchmarks.captions import ptb

DATA = real_data()
COCO = DATA / "coco_captions" if DATA else None

# Left: a caption; right: what pycocoevalcap's PTBTokenizer makes of it.
FROZEN = {
    "A man riding a wave on top of a surfboard.": "a man riding a wave on top of a surfboard",
    "Two dogs, a cat; and birds: all run -- fast!": "two dogs a cat and birds all run fast",
    "A child's toys and the boys' bikes": "a child 's toys and the boys bikes",
    "It can't be, they're here and it isn't": "it ca n't be they 're here and it is n't",
    "You cannot; we've, he'll, I'm, she'd": "you can not we 've he 'll i 'm she 'd",
    'A sign reads "Do Not Enter."': "a sign reads do not enter",
    "the 'quoted' word": "the quoted word",
    "A man (in a hat) [sic] {x}": "a man -lrb- in a hat -rrb- -lsb- sic -rsb- -lcb- x -rcb-",
    "seven o'clock, rock 'n' roll, hors d'oeuvres": "seven o'clock rock 'n' roll hors d'oeuvres",
    "Mr. Smith on Main St. near Mt. Hood": "mr. smith on main st. near mt. hood",
    "A dog in front of the T.V.": "a dog in front of the t.v.",
    "at 5:30pm or 10 a.m. today": "at 5:30 pm or 10 a.m. today",
    "No. 5 but not no. of it": "no. 5 but not no of it",
    "a mass. of snow near Springfield, Mass. today": "a mass of snow near springfield mass. today",
    "Bus no.7": "bus no. 7",
    "a two-year-old's t-shirt": "a two-year-old 's t-shirt",
    "black/white cat and/or dog": "black/white cat and/or dog",
    "1/2 of it and 1,000 people, 3.5 miles": "1/2 of it and 1,000 people 3.5 miles",
    "1 1/2 pizzas": "1\u00a01/2 pizzas",
    "$5.00 and 20% off #1": "$ 5.00 and 20 % off # 1",
    "wait... what?! No!!": "wait what ?! no !!",
    "two boats near land..": "two boats near land",
    "Beer & chips, M&M's, AT&T": "beer & chips m&m 's at&t",
    "“smart” ‘quotes’ — it’s here…": "smart quotes it 's here",
    "wanna, gonna, gotta, 'tis, 'twas": "wan na gon na got ta 't is 't was",
    "a smile :) and ;-) too": "a smile :-rrb- and ;--rrb- too",
    "x-ray , spaces   and\ttabs ": "x-ray spaces and tabs",
    "a line\nbreak": "a line break",
    "café, naïve and jalapeño": "café naïve and jalapeño",
    "half ½ for £5 or 5¢": "half 1/2 for # 5 or 5 cents",
    "A pair of ski's and banana's.": "a pair of ski 's and banana 's",
    "cats&dogs man,woman left;right": "cats & dogs man woman left right",
    "the '90s and the 1990's": "the '90s and the 1990 's",
    "a dog.The cat": "a dog.the cat",
    "a dog😀 sits": "a dog sits",
    "": "",
    "...": "",
}  # fmt: skip


@pytest.mark.parametrize("caption", FROZEN)
def test_frozen_examples(caption: str) -> None:
    assert ptb.tokenize_all([caption]) == [FROZEN[caption]]


def test_the_next_caption_decides_whether_a_letter_ends_the_sentence() -> None:
    assert ptb.tokenize_all(["This is plan B.", "A cat", "This is plan B.", "two cats"]) == [
        "this is plan b", "a cat", "this is plan b.", "two cats"
    ]  # fmt: skip
    assert ptb.tokenize_all([]) == []


def java_tokens(captions: list[str], folder: Path) -> list[str]:
    """What pycocoevalcap's tokenizer returns, with its own command (and a UTF-8 locale, which it needs)."""
    package = importlib.util.find_spec("pycocoevalcap.tokenizer")
    jar = Path(next(iter(package.submodule_search_locations))) / "stanford-corenlp-3.4.1.jar"
    text = folder / "captions.txt"
    text.write_bytes("\n".join(caption.replace("\n", " ") for caption in captions).encode())
    command = ["java", "-Dfile.encoding=UTF-8", "-cp", str(jar), "edu.stanford.nlp.process.PTBTokenizer"]
    words = [*command, "-preserveLines", "-lowerCase", str(text)]
    done = subprocess.run(words, capture_output=True, check=True, env={**os.environ, "LC_ALL": "C.UTF-8"})
    lines = done.stdout.decode().split("\n")
    return [" ".join(word for word in line.rstrip().split(" ") if word not in ptb.PUNCTUATION) for line in lines]


@pytest.mark.skipif(shutil.which("java") is None, reason="Java is not installed")
def test_frozen_examples_are_what_java_says(tmp_path: Path) -> None:
    captions = [caption for caption in FROZEN if caption]
    # a lower-case line between them: what follows a caption must not decide about its end here
    found = java_tokens([line for caption in captions for line in (caption, "x")], tmp_path)
    assert found[::2] == [FROZEN[caption] for caption in captions]


@pytest.mark.skipif(shutil.which("java") is None, reason="Java is not installed")
@pytest.mark.skipif(COCO is None, reason="the real captions are not here (SBT_DATA)")
def test_equal_to_java_on_every_real_caption(tmp_path: Path) -> None:
    content = json.loads((COCO / "captions_val2014_subsetA_4800.json").read_text(encoding="utf-8"))
    captions = [row["caption"] for row in content["annotations"]]
    results = json.loads((COCO / "captions_val2014_fakecap_results.json").read_text(encoding="utf-8"))
    said = [row["caption"] for row in results]
    assert (len(captions), len(said)) == (24019, 1000)
    for texts in (captions, said):
        expected = java_tokens(texts, tmp_path)
        found = ptb.tokenize_all(texts)
        assert [row for row in zip(texts, found, expected, strict=True) if row[1] != row[2]] == []
    naive = [caption.lower().rstrip(" .") for caption in captions]  # the comparison can fail
    assert sum(one != other for one, other in zip(naive, ptb.tokenize_all(captions), strict=True)) > 1000
