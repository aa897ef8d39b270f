"""WebCode2M's metrics of two pages' sources: TreeBLEU and word recall.

Gui et al., arXiv 2404.06369, `scripts/evaluation/{metrics,html_tree}.py`. Both are shares of what the reference has, in
[0, 1], 1 for equal pages. Pages are read as BeautifulSoup reads them with html.parser, which mends nothing: an `<li>`
that is not closed holds the next one.
"""

import warnings
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache

from bs4 import BeautifulSoup, MarkupResemblesLocatorWarning, ParserRejectedMarkup, Tag

warnings.filterwarnings("ignore", category=MarkupResemblesLocatorWarning)  # an answer may be a single word


@dataclass(frozen=True)
class Source:
    """What a page's source is made of. `trees`: "tag_child1_child2.." of every element with children; `trees_of_html`:
    of those in its first <html>. `words`: that it shows; `published_words`: see `word_recall`."""

    trees: frozenset[str]
    trees_of_html: frozenset[str]
    words: Counter
    published_words: frozenset[str]


def parsed(html: str) -> BeautifulSoup:
    """An empty page where html.parser gives up, which it does at a few broken declarations."""
    try:
        return BeautifulSoup(html, "html.parser")
    except ParserRejectedMarkup:
        return BeautifulSoup("", "html.parser")


@lru_cache(64)  # a reference is compared with several answers
def read(html: str) -> Source:
    page = parsed(html)
    shown = [string.split() for string in page.strings if string.find_parent("title") is None]
    sentences = [" ".join(sentence.split()) for sentence in " ".join(page.get_text().split()).split(".") if sentence]
    return Source(
        trees=frozenset(subtrees(page)),
        trees_of_html=frozenset(subtrees(page.html)) if page.html else frozenset(),
        words=Counter(word for words in shown for word in words),
        published_words=frozenset(word for sentence in sentences for word in sentence.split(" ")),
    )


def subtrees(root: Tag) -> list[str]:
    elements = root.find_all(True) if isinstance(root, BeautifulSoup) else [root, *root.find_all(True)]
    children = ((element, [child.name for child in element.contents if isinstance(child, Tag)]) for element in elements)
    return ["_".join([element.name, *names]).lower() for element, names in children if names]


def tree_bleu(reference: str, answer: str, as_published: bool = False) -> float:
    """Share of the reference's distinct one-level subtrees that the answer has as well.

    `tree_rouge_1` of the code, "TreeBLEU" of the paper: |S(answer) & S(reference)| / |S(reference)|, S being the set of
    "tag_child1_child2..". 1 if the reference has none. As published only what is within <html> counts, so that an
    answer without that element has no tree, and a reference without subtrees gives 0.
    """
    a, b = read(reference), read(answer)
    wanted, given = (a.trees_of_html, b.trees_of_html) if as_published else (a.trees, b.trees)
    return len(wanted & given) / len(wanted) if wanted else float(not as_published)


def word_recall(reference: str, answer: str, as_published: bool = False) -> float:
    """ROUGE-1 recall of the words shown, with multiplicity; 1 if the reference shows none.

    As published words count once however often they come, those of the title too; texts of neighbouring elements
    without a blank between them are one word; a full stop ends a word (the `rouge` package, version 1.0.1); and a page
    without words gives 0.
    """
    a, b = read(reference), read(answer)
    if as_published:
        return len(a.published_words & b.published_words) / max(1, len(a.published_words))
    return (a.words & b.words).total() / a.words.total() if a.words else 1.0
