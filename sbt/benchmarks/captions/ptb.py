"""The Penn Treebank tokenizer of the caption metrics, without Java.

`tokenize_all(captions)` gives what pycocoevalcap makes of each caption with Stanford's PTBTokenizer
(`-preserveLines -lowerCase`): lower-cased tokens, its 17 punctuation tokens left out, joined by blanks.
"""

import itertools
import re
from collections.abc import Iterable, Iterator

# After lower-casing a bracket is "-lrb-" and no longer equals the "-LRB-" of this list: brackets stay in the
# captions. That is a quirk of the published metric, kept because the published numbers contain it.
PUNCTUATION = frozenset(
    ["''", "'", "``", "`", "-LRB-", "-RRB-", "-LCB-", "-RCB-", ".", "?", "!", ",", ":", "-", "--", "...", ";"]
)

# The word lists hold what the Java tokenizer answered when it was asked about 580,000 words.
# Words that keep their final period wherever they stand ...
_ABBREVIATIONS = """adj adm adv al ala alex apr ariz assn assoc asst atty aug ave bhd bldg blvd brig bros capt cf cie
cmdr co col colo conn corp cos cpl ct dak dec dept det dr drs elec ens esq est etc ext feb fla fri ft ga gen gov govs
hon inc ind insp intl invt jan jos jr jul jun kan kans ky lt ltd maj mar md messrs mich minn mlle mme mo mon mont
mr mrs ms msgr mt natl neb nev nov oct okla penn pfc ph plc pres prof pvt rd rep reps rev rt sen sens sep sept seq sfc
sgt spc sq sr st ste supt sys tel tenn thu thurs treas tue tues univ va vs vt wed wis wisc wm wyo"""
_NOT_IN_CAPITALS = "mfg mtg ppte ppty pte ptes pty ptys"  # pty. and Pty., but not PTY.
_ONLY_CAPITALISED = "ark az del ill la mass miss ore pa tex wash"  # Mass. but not "a mass."
_BEFORE_NUMBERS = "art ca fig figs no nos op pp prop"  # "no. 5" but not "no."
# "plan B. The cat": only before these words is the period after a single letter the end of a sentence
_STARTERS = """a about according additionally after an as at but earlier he her here however if in it last many more
now once one other our she since so some such that the their then there these they this we what when while yet you"""
_HALVES = {"cannot": 3, "gonna": 3, "gotta": 3, "lemme": 3, "gimme": 3, "wanna": 3, "'tis": 2, "'twas": 2}


def _any(words: str, form=str) -> str:
    return "(?:" + "|".join(form(word) for word in words.split()) + ")"


_A = "['\u2019\u0092]"
_L = "[^\\W\\d_]"
_LD = "[^\\W_½¼¾⅓⅔¹²³]"
_AUXILIARY = f"{_A}(?:[msdMSD]|[rR][eE]|[vV][eE]|[lL][lL])"
_WORD = f"{_L}{_LD}*(?:[.!?]{_L}{_LD}*)*"
_SENTENCE_START = f"(?:{_any(_STARTERS, str.capitalize)}|{_any(_STARTERS, str.upper)})"
_URL = r"[^\s\"<>|(){}]"
_PHONE = (
    r"(?:(?:\(\d{2,3}\) ?|(?:\+\+?)?(?:\d{2,4}[- ])?\d{2,4}[- ])\d{3,4}[- ]?\d{3,5}"
    r"|(?:(?:\+\+?)?\d{2,4}\.)?\d{2,4}\.\d{3,4}\.\d{3,5})"
)
# As in any lexer the longest match wins and, of equals, the first. The first group is the token; what a pattern
# matches after it is context, which counts for the length.
_RULES = [
    re.compile(pattern)
    for pattern in (
        r"(</?[A-Za-z!?][^>\r\n]*>)",  # markup, web addresses, mail, mentions
        r"(&(?i:amp|lt|gt|quot|apos|nbsp);)",
        rf"(https?://{_URL}+[^\s\"'<>|.!?(){{}},-])",
        r"((?:www\.(?:[^\s\"<>|.!?(){},/]+\.)+[A-Za-z]{2,4}|(?:[^\s\"`'<>|.!?(){},/$-]+\.)+(?:com|net|org|edu))"
        rf"(?:/{_URL}+[^\s\"'<>|.!?(){{}},-])?)",
        r"([A-Za-z0-9][^\s\"<>|(){}@]*@(?:[^\s\"<>|(){}.@]+\.)*[^\s\"<>|(){}.@]+)",
        r"(@[A-Za-z_]\w*|#[A-Za-z]+)",
        r"([<>]?[:;=][-o*']?[]dpDOP()@[\\{|])(?!\w)",  # smileys
        r"(['x<=>^~-]_['x<=>^~-])",
        r"([Cc]\+\+|[CFcf]#|<<|>>|(?:\\?\*){1,3})",
        # one word that is written as two; contractions; apostrophes that belong to their word: O'Neill, o'clock, 'em
        rf"((?i:{'|'.join(_HALVES)}))(?!{_LD})",
        f"([A-Za-z]*[a-mo-zA-MO-Z])[nN]{_A}[tT]",
        f"([nN]{_A}[tT])",
        f"({_L}+){_AUXILIARY}(?!{_L})",
        f"({_AUXILIARY})(?!{_L})",
        f"([\u2019\u0092](?:{_AUXILIARY[len(_A) :]}|[nN]))",
        f"([A-HJ-XZdlno](?:{_A}|`){_L}{{2,}})",
        f"([A-Za-z]+[aeiouyAEIOUY](?:{_A}|`)[aeiouAEIOU][A-Za-z]*)",
        rf"((?i:li'l|ev'ry|qu'est|c'est|c'mon|e'er|s'mores|{_A}em|{_A}till?|{_A}cause"
        rf"|somethin{_A}|dunkin{_A}|ol{_A}|{_A}n{_A}|[dlj]{_A}))",
        f"({_A}[nN])(?!{_L})",
        f"([yY]{_A}){_L}",
        rf"({_A}\d0s)",
        rf"({_A}\d\d)(?=\s|$)",
        rf"({_WORD})",  # words, and the periods that belong to them
        rf"({_WORD}\.)[,;:]",
        r"([A-Za-z](?:\.[A-Za-z])*\.|Ph\.D\.)",
        rf"([A-Za-z])\.\s+{_SENTENCE_START}\s",
        r"([A-Za-z0-9][A-Za-z0-9.-]*\.(?:bmp|gif|html?|jpe?g|pdf|png|txt|zip))(?!\w)",
        rf"((?i:{_any(_ABBREVIATIONS)})\.)",
        rf"((?:{_any(_NOT_IN_CAPITALS)}|{_any(_NOT_IN_CAPITALS + ' ' + _ONLY_CAPITALISED, str.capitalize)}"
        rf"|{_any(_ONLY_CAPITALISED, str.upper)})\.)",
        rf"((?i:{_any(_BEFORE_NUMBERS)})\.)\s?\d",
        f"({_LD}+)",  # numbers, dates, fractions, telephones
        r"([-+]?(?:\d*(?:[.:,]\d+)+|\d+))",
        r"(\d{1,2}[-/]\d{1,2}[-/]\d{2,4})",
        r"((?:\d{1,4}[- ])?\d{1,4}/\d{1,4})",
        rf"({_PHONE})",
        rf"({_LD}[^\W_]*[\w.,]*(?:-(?:{_LD}+|[A-Za-z](?:\.[A-Za-z])+\.?))+)",
        r"([A-Za-z0-9]+(?:-[A-Za-z]+){0,2}(?:/[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}){1,2})",
        rf"({_LD}+(?:_{_LD}+)+)",
        r"([A-Z]+(?:[&+][A-Z]+)+)",
        r"((?:US|HK|NZ|[A-Z])\$)",
        r"(''|``|[?!]+|\.\.\.|-{5,}|-{2,4}|__+|##+|@@+|.)",
    )
]
_LINE_BREAK = re.compile("[\n\r\x0b\x0c\x85\u2028\u2029]")
_PLAIN = re.compile(r"([A-Za-z]+)(?=\s)")  # a short cut: most words
# White space, and the characters the original leaves out as "untokenizable".
_BLANK = re.compile(r"[\s\u200b-\u200f\ufe0f\ufeff\ufffc\ufffd\U00010000-\U0010ffff]+")
_WRITTEN = {
    **{"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"},
    **{"£": "#", "€": "$", "¢": "cents", "½": "1/2", "¼": "1/4", "¾": "3/4", "⅓": "1/3", "⅔": "2/3"},
    **{"&amp;": "&", "&lt;": "<", "&gt;": ">", "&quot;": "''", "&apos;": "'", "&nbsp;": "''"},
    **dict.fromkeys('"“”„‘’‚‹›«»‐–—―…\u0091\u0092\u0093\u0094', "''"),  # some punctuation: none of it stays
}


def tokenize_all(captions: Iterable[str]) -> list[str]:
    """Tokens of each caption, lower-case and without punctuation, joined by single blanks.

    The order matters in one rare case, as the original reads one text, a caption a line: the word that begins the next
    caption decides whether "plan B." ends a sentence ("b") or is an abbreviation ("b.").
    """
    lines = [_LINE_BREAK.sub(" ", caption) for caption in captions]
    return [
        " ".join(token for token in _tokens(line, following) if token not in PUNCTUATION)
        for line, following in itertools.zip_longest(lines, lines[1:], fillvalue="")
    ]


def _tokens(line: str, following: str) -> Iterator[str]:
    text = f"{line}\n{following}\n"
    at = 0
    while at < len(line):
        if match := _BLANK.match(text, at):
            at = match.end()
            continue
        match = _PLAIN.match(text, at)
        if not match or match[1].lower() in _HALVES:
            match = max(filter(None, (rule.match(text, at) for rule in _RULES)), key=lambda found: found.end())
        yield from _written(match[1].lower())
        at = match.end(1)


def _written(token: str) -> tuple[str, ...]:
    if cut := _HALVES.get(token):
        return token[:cut], token[cut:]
    if re.fullmatch(f"n?{_AUXILIARY}|n{_A}t", token):
        return (re.sub(_A, "'", token),)
    if re.fullmatch("-{2,4}", token):
        return ("--",)
    if re.fullmatch(r"\D{,3}[()]|\(\d+\).+", token):  # a bracket, a smiley's mouth, a telephone number
        return (token.replace("(", "-lrb-").replace(")", "-rrb-").replace(" ", "\u00a0"),)
    # a blank inside a token ("1 1/2") is a no-break space there, as the scorers split at blanks
    return (_WRITTEN.get(token, token).replace(" ", "\u00a0"),)
