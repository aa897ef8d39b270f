"""The words around a picture: how prompts name a language, fences, prompts. Text in, text out."""

import re

import numpy as np

from languages import LANGUAGES

# ----------------------------------------------------------------------------------------------------------- languages

ALIASES = {tag: one.name for one in LANGUAGES.values() for tag in one.tags}
WORDS = "|".join(one.words for one in LANGUAGES.values())
NAMED = "|".join(f"(?P<{one.name}>{one.words})" for one in LANGUAGES.values())
ASKED = re.compile(
    r"(?P<verb>\b(?:write|create|generate|produce|give|output|return|answer|into)\s+(?:\w+\s+){0,3}?)?"
    rf"(?P<in>\b(?:in|to|as|using|with)\s+(?:an?\s+|the\s+)?)?(?P<fence>`{{3,}})?(?<![\w.])(?:{NAMED})\b"
    r"(?P<code>[ -](?:\w+[ -])?(?:code|program|script|source|markup|document|snippet))?"
)
REFUSED = re.compile(
    r"\b(?:not|no|never|without|avoid|instead of|rather than|don't|other than)\s+(?:\w+\s+){0,3}?"
    rf"(?:{WORDS})\b"
)
FENCED = re.compile(r"(?ms)^ {0,3}(`{3,})[^`\n]*\n.*?^ {0,3}\1\s*$")


def mentions(text: str) -> list[tuple[int, str]]:
    """(strength, language) of every mention: `svg code` says more than `write svg`, than `in svg`, than `svg`."""
    hits = [hit.groupdict() for hit in ASKED.finditer(text)]
    strengths = {"code": 3, "fence": 3, "verb": 2, "in": 1}
    strength = lambda groups: max([0, *(value for name, value in strengths.items() if groups[name])])  # noqa: E731
    return [(strength(groups), next(name for name in LANGUAGES if groups[name])) for groups in hits]


def language_of(prompt: str) -> str:
    """The language a prompt asks for, which need not be the first it mentions ("python code that draws this svg").

    Fenced code and parentheses are ignored, so are negated mentions. Raises ValueError if no language is named.
    """
    words = FENCED.sub("", prompt.replace("\r\n", "\n")).lower()
    plain = re.sub(r"\([^()]*\)", "", words)
    for text in (REFUSED.sub("", plain), REFUSED.sub("", words), words):
        if found := mentions(text):
            return max(found, key=lambda mention: mention[0])[1]  # the first of the strongest
    raise ValueError(f"the prompt names no language; say one of {', '.join(LANGUAGES)} in it, or add a language column")


def language_named(word) -> str:
    """The language that a column names. Raises ValueError for one that is none of ours."""
    for one in LANGUAGES.values():
        if isinstance(word, str) and re.fullmatch(one.words, word.strip().lower()):
            return one.name
    raise ValueError(f"language is {str(word)[:40]}; use one of {', '.join(LANGUAGES)}")


def domain_of(language: str, code: str | None) -> str:
    """The domain of a program: what kind of picture it draws."""
    one = LANGUAGES[language]
    return one.domain_of(code or "") if one.domain_of else language


# --------------------------------------------------------------------------------------------------- fences and prompts


def blocks(text: str) -> list[tuple[str, str]]:
    """(tag, content) of every closed, non-empty fenced block that lies in no other, in order.

    Fences are lines of their own as in CommonMark, so backticks inside a string end nothing. A tagged fence inside a
    block opens a nested one: documentation strings with examples survive. An unclosed block does not hide later ones.
    """
    lines, opened, found = text.replace("\r\n", "\n").split("\n"), [], []
    for number, line in enumerate(lines):
        pattern = r" {0,3}(`{3,})\s*([\w+-]*)\s*" if opened else r"(?:.*\s)?(`{3,})[ \t]*([\w+-]*)[^`]*"
        if not (fence := re.fullmatch(pattern, line)):
            continue
        ticks, tag = len(fence[1]), fence[2].lower()
        if opened and ticks < opened[-1][0]:
            continue  # shorter than the fence around it: content
        if tag or not opened:
            opened.append((ticks, ALIASES.get(tag, tag), number))
        else:
            _, tag, start = opened.pop()
            found = [block for block in found if block[1] < start] + [(tag, start, number)]
    contents = [(tag, "\n".join(lines[start + 1 : end])) for tag, start, end in found]
    return [(tag, code) for tag, code in contents if code.strip()]


def extract_code(text: str, language: str) -> str | None:
    """The content of the last fenced block tagged with `language` or an alias of it; None if there is none."""
    codes = [code for tag, code in blocks(text) if tag == language]
    return codes[-1] if codes else None


def fenced(code: str, language: str) -> str:
    longest = max(map(len, re.findall(r"(?m)^ {0,3}(`{3,})", code)), default=2)
    ticks = "`" * (longest + 1)  # three, or more than any line of the code begins with
    return f"{ticks}{language}\n{code}\n{ticks}"


PLACEHOLDER = r"(?:<image>|<\|vision_start\|><\|image_pad\|><\|vision_end\|>)"
UNFENCED = re.compile(r"`[^`\n]*`|(?s:<svg[\s>].*?(?:</svg>|\Z))")


def without_placeholder(text: str) -> str:
    """The prompt without the marks that stand for its picture: those at its start, or those at its end, and all that
    are not in code, where an svg has elements of the same name.

    A row has one picture, which comes before the words, wherever it was marked and however often: two marks are no
    second picture that the model would miss, and a mark that stayed would be read as a word."""
    text = text.strip()
    for outside in (rf"\A(?:{PLACEHOLDER}\s*)+", rf"(?:\s*{PLACEHOLDER})+\Z"):
        text, found = re.subn(outside, "", text)
        if found:
            break
    code = [match.span() for pattern in (FENCED, UNFENCED) for match in pattern.finditer(text)]
    in_code = lambda mark: any(start <= mark.start() < end for start, end in code)  # noqa: E731
    return re.sub(PLACEHOLDER, lambda mark: mark[0] if in_code(mark) else "", text).strip()


THING = {domain: thing for one in LANGUAGES.values() for domain, thing in one.domains.items()}
DIRECT = (
    "Write {code} that reproduces this {thing}.",
    "Look at this {thing} and write the {code} that draws it.",
    "Give me {code} whose result looks just like this {thing}.",
    "Create {code} that renders to the same {thing}.",
    "Turn this {thing} into {code}, as close as you can.",
    "Which {code} draws this {thing}? Answer with the code alone.",
)
REFINE = (
    "This {code} should draw the picture but has mistakes. Write the corrected {code}.",
    "Fix this {code} so that it draws the picture exactly.",
    "The {code} below does not match the picture. Give me {code} that does.",
    "Compare the picture with this {code} and write improved {code}.",
)


def direct_prompt(language: str, domain: str, rng: np.random.Generator) -> str:
    """One of several natural phrasings that ask for `language` and name it."""
    code = LANGUAGES[language].codes.get(domain, LANGUAGES[language].code)
    return DIRECT[rng.integers(len(DIRECT))].format(code=code, thing=THING.get(domain, "picture"))


def refine_prompt(language: str, draft: str, rng: np.random.Generator | None = None) -> str:
    """One of several phrasings that ask to correct `draft`, which follows in a fence; the first one without `rng`."""
    phrasing = REFINE[rng.integers(len(REFINE)) if rng is not None else 0]
    return phrasing.format(code=LANGUAGES[language].code) + "\n\n" + fenced(draft, language)
