"""What pictures say: their words as each language's worker knows them, which of them can be seen, how much is right."""

import json
import os
import shutil
from concurrent.futures import Future
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image, ImageDraw

import data
import sandbox
from corpus.__main__ import main as corpus_main
from corpus.words import reader
from data import Sample
from languages import browser, html, protocol
from languages.protocol import Word
from languages.words import words_of
from render import Rendering
from reward import DEFAULTS, Rewards
from rewards.text import Said, agreement, is_number, normal, read_before, said, text, visible, words_file

CHART = """import matplotlib.pyplot as plt
fig, ax = plt.subplots(figsize=(5, 4))
ax.bar(["apples", "pears"], [2, 3])
ax.set_title("Fruit by weight")
ax.set_ylabel("kilograms a day")
"""
SVG = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 400 300">
<style>.big { font-size: 24px; fill: #900 }</style>
<rect width="400" height="300" fill="#eef"/><text class="big" x="200" y="40" text-anchor="middle">Some title</text>
<g transform="translate(50 150) rotate(-90)"><text>upwards</text></g>
<text x="100" y="200">one <tspan fill="blue" font-weight="bold">two</tspan>
<tspan x="100" dy="1.4em">three</tspan></text></svg>"""
TIKZ = r"""\begin{tikzpicture}\draw (0,0) rectangle (6,3);
\node at (2,1) {left label};\node at (5,2) {$x=42$};\end{tikzpicture}"""
PAGE = """<body style="font-family: Arial"><h1>Welcome here</h1><p style="text-transform: uppercase">loud words</p>
<input value="typed text"><textarea>a note</textarea><div style="display: none">absent</div><script>"no"</script>
<p style="opacity: 0.01">ghostly</p><p style="visibility: hidden">hidden</p>
<iframe srcdoc="<p>inside</p>" width="200" height="60"></iframe></body>"""


def found(renderer, code: str, language: str, canvas=None) -> tuple[Rendering, list[str]]:
    """The rendering, and the words that can be seen in it, as they are compared."""
    rendering = renderer.render(code, language, canvas)
    assert rendering.error is None
    return rendering, said(rendering.words, rendering.image).words


WORDS = {  # what each program's picture says
    "chart": (CHART, "python", "apples pears fruit by weight kilograms a day 0 0.5 1 1.5 2 2.5 3"),
    "chart, cropped": (
        CHART + "plt.savefig('x.png', bbox_inches='tight', dpi=150)",
        "python",
        "fruit kilograms pears 3",
    ),
    "outlined": (
        CHART + "import matplotlib.patheffects as pe\n"
        "ax.text(0.2, 1.5, 'outlined', size=20, path_effects=[pe.withStroke(linewidth=3, foreground='w')])",
        "python",
        "outlined fruit",
    ),
    "formulas": (CHART + "ax.set_xlabel(r'$\\alpha_{10}$ of $R^2$'); ax.set_yscale('log')", "python", "α10 of r2"),
    "plotly": (
        "import plotly.express as px\npx.bar(x=['cats', 'dogs'], y=[1, 2], title='Some pets').show()",
        "python",
        "cats dogs some pets x y 0 0.5 1 1.5 2",
    ),
    "svg": (SVG, "svg", "some title upwards one two three"),
    "svg by the browser": (SVG.replace("#eef", "var(--none, #eef)"), "svg", "some title upwards one two three"),
    "page": (PAGE, "html", "welcome here loud words typed text a note inside"),
    "tikz": (TIKZ, "latex", "left label"),
    "document": (
        r"\documentclass{article}\begin{document}\pagestyle{empty}\section*{Heading} Plain \textcolor{red}{words}."
        r"\end{document}".replace(r"\textcolor{red}{words}", "words"),
        "latex",
        "heading plain words",
    ),
    "diagram": (
        "flowchart LR\n    A[Begin here] --> B{Right?}\n    B -->|yes| C[Picture]\n",
        "mermaid",
        "begin here right yes picture",
    ),
}


@pytest.mark.parametrize("name", WORDS)
def test_a_picture_says_what_its_program_wrote(renderer, name):
    code, language, wanted = WORDS[name]
    rendering, words = found(renderer, code, language)
    assert set(wanted.split()) <= set(words), words
    if "0" in wanted.split() or language in ("svg", "html"):
        assert sorted(wanted.split()) == sorted(words)
    for word in visible(rendering.words, rendering.image):
        part = np.asarray(rendering.image.crop((word.left - 2, word.top - 2, word.right + 2, word.bottom + 2)))
        assert np.ptp(part.astype(int), (0, 1)).max() > 40  # there is something in each box


TEX = r"""\documentclass[border=5pt]{standalone}\usepackage{tikz}\begin{document}\fontsize{SIZEpt}{SIZEpt}\selectfont
\begin{tikzpicture}[x=SIZE pt, y=SIZE pt]
\foreach \n in {1,...,7} \node at (0,1.3*\n) {\n};
\node at (8,8) {office, flow: i.e. \textit{AV Will} 11.1};
\node at (8,6) {$x_1 + y^2 = U_{12}$};
\node[rotate=90] at (2,5) {going up}; \node[rotate=-90] at (4,5) {going down}; \node[rotate=30] at (9,3) {a slope};
\end{tikzpicture}\end{document}"""


@pytest.mark.parametrize("size", ("7", "10", "11", "12.5", "15", "22"))
def test_words_of_tex_are_the_same_in_every_size(renderer, size):
    _, words = found(renderer, TEX.replace("SIZE", size), "latex")
    plain = "1 2 3 4 5 6 7 office flow i.e av will 11.1 x1 y2 u12 going up going down a slope"
    assert sorted(words) == sorted(plain.split())


SMALL = r"""\documentclass[tikz,border=2pt]{standalone}
\begin{document}\begin{tikzpicture}[scale=%s, every node/.style={transform shape}]
\draw[->] (0,0) -- (8,0); \node at (1,1) {$\sin x$}; \node at (3,1) {$-0.5$}; \node at (5,1) {$y$};
\node at (6,2) {curve}; \node at (2,2.4) {$\frac{3}{2}$};
\end{tikzpicture}\end{document}"""


@pytest.mark.parametrize("scale", [0.4, 0.5, 0.55, 1])
def test_thin_letters_are_seen_in_every_size(renderer, scale):
    """None of their pixels has the whole of their colour."""
    drawn = renderer.render(SMALL % scale, "latex")
    assert said(drawn.words, drawn.image).words == ["sin", "x", "-0.5", "y", "curve", "3", "2"], drawn.error


def test_words_lie_where_they_are_drawn(renderer):
    """Each word alone on a page: its box holds all the ink."""
    programs = [
        ("import matplotlib.pyplot as plt\nfig = plt.figure(figsize=(4, 3))\n"
         "fig.text(0.3, 0.4, 'Letters', rotation=ANGLE)", "python"),
        ('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 300 200"><text x="90" y="120" font-size="30" '
         'transform="rotate(-ANGLE 90 120)">Letters</text></svg>', "svg"),
        ('<body><div style="margin: 200px; width: 90px; transform: rotate(-ANGLEdeg)">Letters</div>', "html"),
        (r"\documentclass{article}\usepackage{graphicx}\pagestyle{empty}\begin{document}"
         r"\rotatebox{ANGLE}{Letters}\end{document}", "latex"),
    ]  # fmt: skip
    for code, language in programs:
        for angle in ("0", "90", "30"):
            rendering = renderer.render(code.replace("ANGLE", angle), language)
            (word,) = rendering.words
            dark = np.asarray(rendering.image.convert("L")) < 128
            rows, columns = np.nonzero(dark)
            box = np.array([word.left, word.top, word.right, word.bottom])
            ink = np.array([columns.min(), rows.min(), columns.max(), rows.max()])
            slack = 3 + 0.3 * min(box[2] - box[0], box[3] - box[1])  # ascenders, the space below the line
            assert word.text == "Letters" and (np.abs(box - ink) < slack).all(), (language, angle, box, ink)


def test_the_words_of_a_page_are_those_of_its_picture(renderer):
    """Of pages that are wider, longer, scrolled, drawn smaller or change without an end, one after the other: in each
    word's box there is ink, and what is beside them is white."""
    line = "font: 30px Arial; margin: 0; position: absolute; "
    pages = {
        "wide": f"<p style='{line}left: 2000px; top: 40px'>Far<p style='{line}left: 9px; top: 9px'>Near",
        "long": f"<p style='{line}top: 3000px'>Below<p style='{line}top: 9px'>Above",
        "fixed": f"<p style='{line}position: fixed; bottom: 0; right: 0'>Corner<p style='{line}top: 2000px'>Below",
        "scrolled": f"<p style='{line}top: 2000px'>Below<script>scrollTo(0, 500)</script>",
        "very long": f"<p style='{line}top: 15000px; font-size: 90px'>Below<p style='{line}font-size: 90px'>Above",
        "counting": f"<p id=p style='{line}top: 9px'>0<script>let n = 0;"
        "setInterval(() => p.textContent = 'no' + ++n, 1)</script>",
        "another's names": "<script>Range.prototype.getBoundingClientRect = self.getComputedStyle = JSON.stringify ="
        f" () => 5</script><p style='{line}top: 9px'>Mine",
    }
    for name, page in pages.items():
        rendering = renderer.render(f"<!DOCTYPE html><body>{page}", "html")
        assert len(rendering.words) == page.count("<p"), (name, rendering.words)
        paper = np.asarray(rendering.image.convert("L")).copy()
        for word in rendering.words:
            box = np.s_[max(0, word.top - 1) : word.bottom + 1, max(0, word.left - 1) : word.right + 1]
            assert paper[box].min() < 100, (name, word)
            paper[box] = 255
        assert name == "counting" or paper.min() > 200, name
    for name in ("one", "two", "three"):  # a marquee is at rest before its first step, right of the page
        (word,) = renderer.render(f"<!DOCTYPE html><body style='margin: 0'><marquee>{name}</marquee>", "html").words
        assert word.left >= 1280


def test_all_scripts_of_a_document_share_one_world(tmp_path, monkeypatch):
    """The page's size and its words; a new document has a world of its own, and no page sees either."""
    if browser.chromium_path() is None:
        pytest.skip("no Chromium is here")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    others = sandbox.descendants(os.getpid())
    try:
        chromium = browser.Browser(browser.chromium_path(), 1 << 30)
        asked, ask = [], chromium.devtools.ask
        chromium.devtools.ask = lambda method, **how: asked.append(method) or ask(method, **how)
        for text in ("first", "second"):
            asked.clear()
            chromium.open(f"<p>{text}<script>self.mine = 5</script>")
            picture = html.draw_with_words(chromium, *chromium.size())
            assert [word.text for word in words_of(picture)] == [text]
            assert chromium.evaluate("[typeof mine, typeof kept, globalThis.kept = 7]") == ["undefined"] * 2 + [7]
            assert chromium.run("[typeof mine, typeof kept]") == ["number", "undefined"]
            assert asked.count("Page.createIsolatedWorld") == 1
            chromium.leave()
            assert not chromium.devtools.answers
    finally:
        sandbox.kill_below(os.getpid(), others)


UNSEEN = {  # a word that is in the program, and that nobody can read
    "white on white": ("python", CHART + "ax.text(0.3, 2.5, 'secret', color='white', size=14)"),
    "transparent": ("python", CHART + "ax.text(0.3, 2.5, 'secret', alpha=0.01)"),
    "off the canvas": ("python", CHART + "fig.text(1.5, 0.5, 'secret')"),
    "tiny": ("python", CHART + "ax.text(0.3, 2.5, 'secret', size=0.8)"),
    "behind a patch": ("python", CHART + "ax.text(0.4, 2.7, 'secret')\nax.axvspan(0.3, 0.9, color='green', zorder=9)"),
    "behind another word": (
        "python",
        CHART + "ax.text(0.4, 2.7, 'secret', zorder=5)\n"
        "ax.axvspan(0.35, 0.9, color='white', zorder=6)\nax.text(0.4, 2.7, 'public', zorder=7)",
    ),
    "over another word, unseen": (
        "python",
        CHART + "ax.text(0.4, 2.7, 'public')\nax.text(0.4, 2.7, 'secret', color='white', alpha=0.3, zorder=9)",
    ),
    "the page's colour": ("html", "<body><p>public</p><p style='color: #fff'>secret</p>"),
    "clipped": ("html", "<body><p>public</p><div style='height: 0; overflow: hidden'>secret</div>"),
    "a pixel": ("html", "<body><p>public</p><p style='font-size: 1px'>secret</p>"),
    "moved away": ("html", "<body><p>public</p><p style='position: absolute; left: -999px'>secret</p>"),
    "below a picture": (
        "html",
        "<body style='margin: 0'><p>public</p><div style='position: relative'>secret"
        "<div style='position: absolute; inset: 0; background: #ccc'></div></div>",
    ),
    "no fill": ("svg", SVG.replace("</svg>", '<text x="200" y="280" fill="none">secret</text></svg>')),
    "below a shape": (
        "svg",
        SVG[:-6] + '<text x="200" y="280">secret</text><rect x="150" y="250" width="200" height="50"/></svg>',
    ),
    "white ink": (
        "latex",
        r"\begin{tikzpicture}\node at (0,0) {public};\node[text=white] at (3,0) {secret};\end{tikzpicture}",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", UNSEEN)
def test_what_nobody_sees_is_not_said(renderer, name):
    language, code = UNSEEN[name]
    _, words = found(renderer, code, language)
    assert "secret" not in words and len(words) >= 1, words


# ---- how much of it is right -----------------------------------------------------------------------------------------

SENTENCE = "Sales of fruit by region in 2024 and how they grew since March"
TARGET = [*SENTENCE.split(), "0", "10", "20", "30", "40", "50"]


def at(words: list[str], places=None) -> Said:
    """Words on a grid, or at places of their own."""
    grid = [(0.1 + 0.16 * (k % 6), 0.1 + 0.25 * (k // 6)) for k in range(len(words))]
    return Said([normal(word) for word in words], np.array(grid if places is None else places, dtype=float))


def score(answer: Said, target: Said | None = None, is_read: bool = False) -> float:
    return agreement(target or at(TARGET), answer, Image.new("RGB", (640, 480), "white"), is_read)


def changed(*indices: int, to: str = "Zqxv") -> Said:
    return at([to if k in indices else word for k, word in enumerate(TARGET)])


def test_words_are_worth_their_share():
    assert score(at(TARGET)) == 1.0 == score(at([word.upper() for word in TARGET]))
    losses = [1 - score(changed(*range(k))) for k in range(13)]
    assert losses == sorted(losses) and losses[0] == 0 and losses[1] > 0.1 and losses[12] > 0.6
    assert score(Said([], np.empty((0, 2)))) == 0.0
    assert 0.5 < score(changed(0, to="Salez")) - score(changed(0)) + 0.5 < 1  # one letter is less than the word
    assert score(at(TARGET[:-1])) < 1 > score(at([*TARGET, "surplus"]))  # missing, too many
    wrong_number = score(changed(len(TARGET) - 1, to="51"))
    assert wrong_number == score(changed(len(TARGET) - 1, to="99")) < 0.9  # near is not right


def test_places():
    target = at(TARGET)
    moved = target.places.copy()
    moved[0] += (0.3, 0)
    alone, drifted = score(Said(target.words, moved)), score(Said(target.words, target.places * 0.9 + 0.05))
    assert 0.85 < alone < 1 and 0.8 < drifted < 1
    assert score(Said(target.words, target.places + 0.005)) == 1.0
    in_disorder = Said(target.words, target.places[np.random.default_rng(0).permutation(len(TARGET))])
    backwards = Said(target.words, target.places[::-1])
    assert score(in_disorder) < 0.1 and score(backwards) < 0.1
    two = at(["left", "right"])
    assert score(Said(two.words, two.places[::-1]), two) == 0.0


def test_copies_do_not_pay():
    rng = np.random.default_rng(0)
    places = rng.uniform(0, 1, (1000, 2))
    copies = Said([normal(word) for word in rng.choice(TARGET, 1000)], places)
    assert score(copies) < 0.1
    assert score(Said([*at(TARGET).words, *copies.words], np.concatenate([at(TARGET).places, places]))) < 0.1


def test_numbers_are_compared_as_numbers():
    for a, b in (("1.0", "1"), ("1,000", "1000"), ("−5", "-5"), (".5", "0.50"), ("(3)", "3"), ("2e3", "2000")):
        assert normal(a) == normal(b) and is_number(normal(a)), (a, b)
    assert not is_number("nan") and not is_number("infinity") and not is_number("1_0") and not is_number("3rd")
    assert normal("—") == normal("...") == "" and normal("R²") == "r2" and normal("“Quoted,”") == "quoted"
    assert normal("9" * 400 + "e99")  # no overflow


def test_words_that_were_read_off_a_picture_may_be_too_few():
    """What the reader overlooked is ink there; what is written on empty paper is too much."""
    picture = Image.new("RGB", (640, 480), "white")
    ImageDraw.Draw(picture).text((300, 200), "overlooked", "black", font_size=20)
    place = (330 / 640, 212 / 480)
    answer = Said([*at(TARGET).words, "overlooked"], np.array([*at(TARGET).places, place]))
    assert agreement(at(TARGET), answer, picture, True) == 1.0 > agreement(at(TARGET), answer, picture, False)
    answer.places[-1] = 0.95
    assert agreement(at(TARGET), answer, picture, True) < 1.0


# ---- as a reward -----------------------------------------------------------------------------------------------------


def a_sample(rendering: Rendering | None) -> Sample:
    drawing = Future() if rendering else None
    if drawing:
        drawing.set_result(rendering)
    image = rendering.image if rendering else Image.new("RGB", (100, 80), "white")
    return Sample("a", "chart", "python", image, "Draw it.", CHART, drawing=drawing)


def test_the_default_reward_reads(renderer):
    rewards = Rewards()
    assert list(rewards.chosen) == ["visual", "text", "alignment"]
    sample = Sample("a", "chart", "python", renderer.render(CHART, "python").image, "Draw it.", CHART)
    rewards.prepare([sample], renderer)
    wrong = renderer.render(CHART.replace("Fruit by weight", "Tiurf yb thgiew"), "python")
    answers = [renderer.render(CHART, "python"), wrong, Rendering(None, "failed", 0.0)]
    right, scrambled, failed = rewards.score([sample] * 3, [f"```python\n{CHART}```"] * 3, answers)
    assert right.total == right.parts["text"] == 1.0 and failed.parts["text"] == 0.0
    assert scrambled.visual > 0.98 and scrambled.parts["text"] < 0.8
    assert right.total - scrambled.total > 0.25 * 0.2 > 10 * 0.65 * (1 - scrambled.visual) / 10


def test_a_target_that_says_nothing_gives_its_weight_to_the_first_reward(renderer):
    """Unknown, as of a row without a program, or known to have no words."""
    plain = renderer.render('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"><circle r="5"/></svg>', "svg")
    before = Rewards(("visual=0.9", "alignment=0.1"))
    for sample in (a_sample(None), a_sample(plain)):
        (score,) = Rewards().score([sample], ["```python\nx\n```"], [plain])
        (old,) = before.score([sample], ["```python\nx\n```"], [plain])
        assert score.parts["text"] is None and score.total == pytest.approx(old.total)
    assert list(Rewards(mode="vincicoder").chosen) == ["visual", "alignment"]  # the paper's numbers
    assert set(DEFAULTS) == {"calibrated", "vincicoder"}


def test_a_failed_target_and_a_reward_without_targets(renderer):
    """A target's program that does not draw says nothing; text alone is then worth 0."""
    sample = a_sample(Rendering(None, "it failed", 0.0))
    sample.image = Image.new("RGB", (50, 50))
    answer = renderer.render(CHART, "python")
    assert text([sample], [""], [answer]) == [None]
    (score,) = Rewards(["text"]).score([sample], [""], [answer])
    assert score.total == 0.0 and score.parts == {"text": None}


# ---- the pipe between worker and caller ------------------------------------------------------------------------------


def test_words_pass_the_pipe_as_they_are():
    words = [Word("α,β", -5, 0, 40, 12, "ff00aa"), Word("日本", 1, 2, 3, 4), Word("a b", 0, 0, 1, 1)]
    assert list(protocol.unpack_words(protocol.pack_words(words))) == words[:2]  # a space is no part of a word
    assert protocol.unpack_words(b"\xff\xfe\n1 2 3 4 zzzzzz x\n9999999999 0 0 0  x\n1 2 3 4 000000 \n\n[[[") == ()
    many = [Word("x" * 150, 0, 0, 9, 9)] * 4000
    packed = protocol.pack_words(many)
    assert len(packed) == protocol.MAX_WORDS and set(protocol.unpack_words(packed)[:-1]) == {many[0]}
    assert protocol.is_sound(10, 10, 300 + protocol.MAX_WORDS, 1000)
    assert not protocol.is_sound(10, 10, 301 + protocol.MAX_WORDS, 1000) and not protocol.is_sound(10, 10, 299, 1000)


def test_words_never_cost_a_picture(renderer):
    """Programs that put anything where words are kept, and documents that are too deep to be walked."""
    programs = {
        "python": [
            CHART + "ax.text(float('nan'), 1, 'x'); ax.text(1e300, 1, 'y'); fig.text(0.1, 0.1, 'z' * 5000)",
            CHART + "from matplotlib.backends.backend_agg import RendererAgg\nRendererAgg.lines = 5",
            "from PIL import Image\nim = Image.new('RGB', (50, 40), 'red')\nim.info['words'] = 7\nim.save('x.png')",
        ],
        "svg": [
            SVG[:-6] + "<g>" * 200 + "<text>x</text>" + "</g>" * 200 + "</svg>",
            '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"><text x="nan" font-size="1e99">x</text></svg>',
        ],
        "html": [
            "<body>" + "<div>" * 600 + "deep",
            "<script>Range.prototype.getBoundingClientRect = () => { throw 1 }</script><p>text",
            "<body><form><input name=value><input name=tagName><input name=parentElement></form><p>text",
        ],
    }  # fmt: skip
    for language, codes in programs.items():
        for code in codes:
            rendering = renderer.render(code, language)
            assert rendering.image is not None, (rendering.error, code[:200])


# ---- words that were read off pictures -------------------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("tesseract") is None, reason="tesseract is not here (apt install tesseract-ocr)")
def test_words_are_read_off_pictures_once(renderer, tmp_path, monkeypatch):
    """Kept beside the data set, found by the reward; what is there is not read again, rows with a program are not."""
    page = renderer.render("<body style='font: 24px Arial'><h1>Quarterly results</h1><p>Nothing changed.</p>", "html")
    chart = renderer.render(CHART + "plt.savefig('x.png', dpi=150)", "python")
    rows = []
    for name, image in (("page", page.image), ("chart", chart.image), ("with-code", chart.image.resize((300, 200)))):
        image.save(tmp_path / f"{name}.png")
        rows.append({"id": name, "domain": "html", "language": "html", "image": f"{name}.png", "prompt": "Draw it."})
    rows[2]["path"] = "code.html"
    (tmp_path / "code.html").write_text("<p>known</p>")
    (tmp_path / "MANIFEST.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setattr("sys.argv", ["corpus", "words", str(tmp_path)])
    corpus_main()
    file = tmp_path.with_name(tmp_path.name + ".words")
    assert len(file.read_text().splitlines()) == 2
    file.write_text(file.read_text()[:-20])  # killed in the middle of a line
    corpus_main()
    assert len(read_before(tmp_path)) == 2

    rewards, samples = Rewards(), list(data.load(tmp_path))
    rewards.prepare(samples, renderer, SimpleNamespace(data=tmp_path))
    assert [word.text for word in samples[0].drawing.result().words] == ["Quarterly", "results", "Nothing", "changed."]
    assert [word.text for word in samples[2].drawing.result().words] == ["known"]
    answers = [page, renderer.render("<body style='font: 24px Arial'><h1>Retrauqly results</h1><p>No.", "html")]
    right, wrong = text(samples[:1] * 2, ["", ""], answers)
    assert right == 1.0 and wrong < 0.7
    (of_chart,) = text([samples[1]], [""], [renderer.render(CHART + "plt.savefig('x.png', dpi=150)", "python")])
    assert of_chart > 0.9


def test_what_is_no_file_of_words_is_said(tmp_path):
    data_set = tmp_path / "pool.parquet"
    words_file(data_set).write_text('{"no": "picture"}\n')
    with pytest.raises(ValueError, match=r"pool.parquet.words is no file of `python -m corpus words`"):
        read_before(data_set)
    assert read_before(tmp_path / "other.parquet") == {} and words_file("a/b:test").name == "b.words"


def test_an_engine_that_is_not_here_is_named(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(RuntimeError, match="apt install tesseract-ocr"):
        reader("tesseract")
