"""What Design2Code does to an answer before it draws and scores it (`pre_process` in `metrics/visual_score.py` and
`data_utils/dedup_post_gen.py`, commit 7a575e4). Only scores as published need it; the reference is left as it is.
"""

import re
from collections import Counter
from difflib import SequenceMatcher

from bs4 import Tag
from rapidfuzz import process
from rapidfuzz.distance import Indel

from metrics.webcode2m import parsed

CHUNK, ALIKE, TIMES = 100, 0.8, 5  # characters of text; the similarity of two chunks; how many of them are too many
MOST_CHUNKS = 2000  # beyond, where the original takes hours, no repetition is looked for
MOST_EQUAL = 50  # elements


def preprocessed(html: str) -> str:
    """The page cut where its text begins to repeat itself, within <html>, without the 51st and later of equal
    elements, and as BeautifulSoup writes it down."""
    html = without_repeated_text(html.replace("\r\n", "\n").replace("\r", "\n"))
    if not re.search("<html[^>]*>", html, re.IGNORECASE):
        html = f"<html><body><p>{html}</p></body></html>"
    soup = parsed(html)
    remove_equal_elements(soup)
    return str(soup)


def without_repeated_text(html: str) -> str:
    """Cut at the first of five chunks of text that are alike; whole if there are none.

    As in the original a place in the text is sought in the source character by character, so that letters of tags are
    taken for the text's: it lies before the place that is meant.
    """
    text = re.sub("<.*?>", "", html)
    start = len(text)
    for first in repeated_chunks([text[i : i + CHUNK] for i in range(0, len(text), CHUNK)][:MOST_CHUNKS]):
        place = min(start, first * CHUNK)
        start = min(start, place_in_source(html, text[: place + 1]) if place < len(text) else len(html))
    return html if start == len(text) else html[:start]


def repeated_chunks(chunks: list[str]) -> list[int]:
    """For each chunk that is at least the fifth of its kind, in their order, where the first of its kind is."""
    kinds: list[str] = []
    members: list[list[int]] = []
    found = []
    for i, chunk in enumerate(chunks):
        # the longest common subsequence bounds what SequenceMatcher finds, and costs a thousandth
        bounds = process.cdist([chunk], kinds, scorer=Indel.normalized_similarity)[0] if kinds else []
        likely = [k for k, bound in enumerate(bounds) if bound >= ALIKE - 1e-6]
        kind = next((k for k in likely if SequenceMatcher(None, chunk, kinds[k]).ratio() >= ALIKE), None)
        if kind is None:
            kinds.append(chunk)
            members.append([i])
            continue
        members[kind].append(i)
        if len(members[kind]) >= TIMES:
            found.append(members[kind][0])
    return found


def place_in_source(html: str, text: str) -> int:
    """Where the last character of a text stands if each is the next equal one of the source."""
    place = -1
    for character in text:
        place = html.index(character, place + 1)
    return place


def remove_equal_elements(soup) -> None:
    """Removes what is the 51st or later of elements that read the same, their content included."""
    elements = soup.find_all(True)
    forms: dict[tuple, int] = {}  # what an element is made of -> its number
    form_of: dict[int, int] = {}
    for element in reversed(elements):  # children before their parents
        content = [form_of[id(c)] if isinstance(c, Tag) else (type(c), str(c)) for c in element.contents]
        form = (element.name, str(element.attrs), *content)
        form_of[id(element)] = forms.setdefault(form, len(forms))
    seen: Counter = Counter()
    for element in elements:
        if not element.decomposed:
            form = form_of[id(element)]
            seen[form] += 1
            if seen[form] > MOST_EQUAL:
                element.decompose()
