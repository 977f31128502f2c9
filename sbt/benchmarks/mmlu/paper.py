"""The authors' own MMLU script: its prompt, how many shots fit, and what it takes for a right answer.

Source: UCSC-VLAA/Sight-Beyond-Text: llava/eval/mmlu/evaluate_mmlu.py and mmlu_modeling.py @47f96a3.
"""

from collections.abc import Callable, Sequence

from sbt.benchmarks.mmlu.files import LETTERS

MAX_NEW_TOKENS, MAX_PROMPT_TOKENS = 2, 2048


def paper_prompt(doc: dict, shots: Sequence[dict]) -> str:
    """The authors' prompt: two blanks before the subject (format_subject, gen_prompt), the question not stripped.

    Their pandas turned the choice "None" into "nan" (10 cells) and "0.50" into "0.5"; that is not copied here.
    """
    head = f"The following are multiple choice questions (with answers) about  {doc['subject'].replace('_', ' ')}.\n\n"
    answered = "".join(f"{_asked(shot)} {LETTERS[shot['answer']]}\n\n" for shot in shots)
    return head + answered + _asked(doc)


def _asked(doc: dict) -> str:
    options = "".join(f"\n{letter}. {one}" for letter, one in zip(LETTERS, doc["choices"], strict=True))
    return f"{doc['question']}{options}\nAnswer:"


def shots_that_fit(
    doc: dict, shots: Sequence[dict], count: Callable[[str], int], limit: int = MAX_PROMPT_TOKENS
) -> int:
    """How many of the first shots the authors keep: the last are dropped until the prompt, BOS included, fits."""
    return next((k for k in range(len(shots), 0, -1) if count(paper_prompt(doc, shots[:k])) <= limit), 0)


def paper_correct(answer: str, label: str) -> bool:
    """The authors' test of two generated tokens: "Answer" is right where the letter is A."""
    return answer.strip().startswith(label)
