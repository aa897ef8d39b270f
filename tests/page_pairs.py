"""Small pages and answers, and what the benchmarks' own code gives for each (tests/test_page_metrics.py).

Design2Code: NoviScl/Design2Code 7a575e4, `visual_eval_v3_multi` with CLIP left out and the indentation of one `if`
mended, Debian's Chromium through Playwright, beautifulsoup4 4.15.0, `rick.jpg` being `red_picture`. WebCode2M:
`dom_sim` and `bleu_rouge` (rouge 1.0.1); None: they raise.
"""

from PIL import Image


def red_picture(path) -> None:
    Image.new("RGB", (300, 200), "red").save(path)


def page(body: str, head: str = "") -> str:
    return f"<!DOCTYPE html><html><head><title>A title</title>{head}</head><body>{body}</body></html>"


STORY = "It was a bright cold day and the clocks were striking thirteen"
MENU = "<ul>" + "".join(f"<li><a href='#'>{word}</a></li>" for word in ("Home", "News", "About us", "Mail")) + "</ul>"
ROWS = "".join(f"<tr><td>{name}</td><td>{price}</td></tr>" for name, price in (("Tea", 3), ("Coffee", 4), ("Cake", 12)))

WORDS = ["river", "stone", "cloud", "maple", "ember", "frost", "willow", "canyon", "meadow", "harbor"]


def sentences(count: int) -> list[str]:
    """No two of them alike, so that nothing counts as repeated."""
    return [f"{WORDS[i % 10]} {WORDS[i // 10 % 10]} {i * i * 7919 % 100003}" for i in range(count)]


def paragraphs(texts: list[str]) -> str:
    return page("".join(f"<p style='margin:2px'>{text}</p>" for text in texts))


MANY = sentences(170)
BROKEN_UP = MANY[:40] + [part for text in MANY[40:44] for part in text.rsplit(" ", 1)]
PAIRS = {
    "one paragraph moved": (page(f"<h1>Hello</h1><p>{STORY}</p>"), page(f"<p>{STORY}</p><h1>Hello</h1>")),
    "colours": (
        page(f"<h2 style='color:#a00'>Prices</h2><table>{ROWS}</table>"),
        page(f"<h2 style='color:teal'>Prices</h2><table style='color:#555'>{ROWS}</table>"),
    ),
    "a part is missing": (page(f"<h1>Shop</h1>{MENU}<p>{STORY}</p>"), page(f"<h1>Shop</h1>{MENU}")),
    "split and joined": (
        page(f"<p>{STORY[:30]}</p><p>{STORY[30:]}</p><p>The end of it</p>"),
        page(f"<p>{STORY}</p><p>The end</p><p>of it</p>"),
    ),
    "no tags at all": (page(f"<p>{STORY}</p>"), f"{STORY}, and no more"),
    "no body": (page("<h1>Hello</h1><p>one two three</p>"), "<html><h1>Hello</h1><p>one two three</p></html>"),
    "text of the body itself": (page(f"{STORY}<p>A paragraph</p>"), page("Nothing of it<p>A paragraph</p>")),
    "hidden and commented": (
        page("<p style='display:none'>Nobody sees it</p><p>All see it</p><!-- <p>a comment</p> -->"),
        page("<p>Nobody sees it</p><p>All see it</p><div style='visibility:hidden'>Unseen</div>"),
    ),
    "a script within": (
        page("<div>Some words<script>var text = 'not shown';</script></div><p>More of them</p>"),
        page("<div>Some words</div><p>More of them</p><script>document.body.append('made by it')</script>"),
    ),
    "entities": (
        page("<p>Caf&eacute; &amp; bar&nbsp;&copy; 2024</p><p>5 &lt; 6</p>"),
        page("<p>Cafe and bar (c) 2024</p><p>5 < 6</p>"),
    ),
    "inline elements": (
        page("<p>Some <strong style='color:red'>bold</strong> and <em>slanted</em> words</p><p>More</p>"),
        page("<p>Some <strong style='border-color:red'>bold</strong> and <i>slanted</i> word</p><main>More</main>"),
    ),
    "code in a colour of its own": (
        page("<div><code>x = 1</code></div><p>As it is</p>", "<style>code{color:#444}</style>"),
        page("<div><code>x = 1</code></div>", "<style>code{color:#444}</style>"),
    ),
    "styles with semicolons": (
        page("<div style='color-scheme:light;background:url(data:image/gif;base64,R0lGODlhAQABAAAAACw=)'>In it</div>"),
        page("<div style='background-color:#222;color:#eee;opacity:.5'>In it</div><p>And a line</p>"),
    ),
    "colours that win": (
        page("<p class=x>Painted over</p><p>As it is</p>", "<style>.x{-webkit-text-fill-color:green}</style>"),
        page("<p>Painted over</p><p>As it is</p>"),
    ),
    "a picture beside": (
        page(f"<h1>Look</h1><img src='rick.jpg' style='float:left'><p>{STORY}</p>"),
        page(f"<h1>Look</h1><p>{STORY}</p><img src='rick.jpg'>"),
    ),
    "wider than the window": (
        page(f"<div style='width:1900px;text-align:right'>{STORY}</div><p>Left</p>"),
        page(f"<div style='width:1500px;text-align:right'>{STORY}</div><p>Left</p>"),
    ),
    "sixty equal items": (
        page("<ul>" + "<li>x</li>" * 40 + "</ul><p>The end</p>"),
        page("<ul>" + "<li>x</li>" * 60 + "</ul><p>The end</p>"),
    ),
    "it repeats itself": (
        page(f"<h1>Hello</h1><p>{STORY}</p>"),
        page(f"<h1>Hello</h1><p>{STORY}</p>" + f"<p>{STORY}, over and over again it goes on and on</p>" * 12),
    ),
    "170 paragraphs": (paragraphs(MANY), paragraphs(MANY).replace("canyon", "valley", 9)),
    "broken up": (paragraphs(MANY[:44]), paragraphs(BROKEN_UP)),
    "whole words only": (
        page("<p>He said so. She did.</p><p>e.g. this</p>"),
        page("<p>She said so</p><td>this</td><td>e</td>"),
    ),
    "open tags": (
        page("<ul><li>one<li>two</ul><p>a<p>b<br>c"),
        page("<ul><li>one</li><li>two</li></ul><p>a</p><p>b<br>c"),
    ),
    "nothing": (page("<p>Words</p>"), "<html></html>"),
}  # fmt: skip

# (block match, text, position, colour), (TreeBLEU, word recall)
PUBLISHED = {
    "one paragraph moved": ((1.0, 1.0, 0.931944, 1.0), (0.666667, 0.846154)),
    "colours": ((1.0, 1.0, 1.0, 0.713101), (1.0, 1.0)),
    "a part is missing": ((0.601312, 1.0, 1.0, 1.0), (0.8, 0.142857)),
    "split and joined": ((1.0, 0.996, 0.951866, 0.999213), (1.0, 0.875)),
    "no tags at all": ((1.0, 0.905109, 0.964844, 1.0), (None, 0.769231)),
    "no body": ((0.0, 0.0, 0.0, 0.0), (0.0, 0.5)),
    "text of the body itself": ((1.0, 1.0, 1.0, 1.0), (1.0, 0.142857)),
    "hidden and commented": ((0.483221, 1.0, 0.952778, 1.0), (0.666667, 0.833333)),
    "a script within": ((0.522013, 1.0, 1.0, 1.0), (0.5, 1.0)),
    "entities": ((1.0, 0.842105, 0.996875, 0.999214), (1.0, 0.625)),
    "inline elements": ((0.926544, 0.976744, 0.997656, 0.998425), (0.5, 0.833333)),
    "code in a colour of its own": ((0.0, 0.0, 0.0, 0.0), (0.75, 0.5)),
    "styles with semicolons": ((0.419048, 1.0, 1.0, 0.043592), (0.666667, 0.666667)),
    "colours that win": ((0.52, 1.0, 1.0, 1.0), (0.666667, 1.0)),
    "a picture beside": ((1.0, 1.0, 0.882812, 1.0), (0.666667, 1.0)),
    "wider than the window": ((1.0, 1.0, 0.985194, 1.0), (1.0, 1.0)),
    "sixty equal items": ((0.915069, 1.0, 0.91264, 0.999962), (0.75, 0.666667)),
    "it repeats itself": ((0.863158, 1.0, 1.0, 1.0), (0.666667, 0.923077)),
    "170 paragraphs": ((1.0, 0.988227, 0.999851, 0.999944), (1.0, 0.961538)),
    "broken up": ((1.0, 1.0, 0.962449, 0.999928), (0.666667, 0.901961)),
    "whole words only": ((0.792432, 0.645161, 0.980078, 0.998421), (0.666667, 0.222222)),
    "open tags": ((1.0, 1.0, 1.0, 1.0), (0.428571, 1.0)),
    "nothing": ((0.0, 0.0, 0.0, 0.0), (None, None)),
}
