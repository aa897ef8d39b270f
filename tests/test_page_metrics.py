"""Web pages: Design2Code's and WebCode2M's scores against their own code's, worked out by hand, and on real pages."""

import json
import re
from collections import Counter
from difflib import SequenceMatcher

import numpy as np
import pytest
from conftest import needs_a_compiler
from page_pairs import PAIRS, PUBLISHED, page, red_picture
from PIL import Image
from scipy.optimize import linear_sum_assignment
from test_metrics import correlations, facts_of, real

import native
from corpus import benchmarks
from corpus.benchmarks import pictures_beside
from data import Sample
from metrics import design2code, matching, page_preprocessing, webcode2m
from metrics.scoring import Scorer
from render import Renderer

DESIGN2CODE = [f"design2code.{name}" for name in design2code.NAMES]
WEBCODE2M = ["webcode2m.tree_bleu", "webcode2m.word_recall"]


@pytest.fixture(scope="module")
def renderer(tmp_path_factory):
    red_picture(picture := tmp_path_factory.mktemp("pictures") / "rick.jpg")
    try:
        with Renderer(workers=2, timeout=300, files=pictures_beside([picture])) as made:
            yield made
    except RuntimeError as error:
        pytest.skip(str(error))


def scored(renderer, pairs: list[tuple[str, str]], as_published: bool) -> list[dict]:
    """The metrics of (reference, answer)."""
    scorer = Scorer(renderer, as_published)
    jobs = [
        scorer.submit(Sample(str(i), "html", "html", Image.new("RGB", (9, 9)), "", reference), answer)
        for i, (reference, answer) in enumerate(pairs)
    ]
    return [scorer.measure(job, job.rendering.result()) for job in jobs]


# ----------------------------------------------------------------------------------------------- the originals' numbers
def test_as_published_is_the_originals_number(renderer, subtests):
    for name, ours in zip(PAIRS, scored(renderer, list(PAIRS.values()), as_published=True), strict=True):
        with subtests.test(pair=name):
            design, web = PUBLISHED[name]
            assert [ours[metric] for metric in DESIGN2CODE] == pytest.approx(list(design), abs=1e-3)
            for metric, theirs in zip(WEBCODE2M, web, strict=True):
                # where their code raises we count nothing
                assert ours[metric] == (0 if theirs is None else pytest.approx(theirs, abs=1e-6))


def test_a_page_is_equal_to_itself(renderer):
    """Whatever Design2Code makes of it: without body, repeating itself, of 170 paragraphs, wide, with pictures."""
    pages = {text: name for name, pair in PAIRS.items() for text in pair if "<p" in text}
    for text, metrics in zip(pages, scored(renderer, [(text, text) for text in pages], False), strict=True):
        assert metrics == pytest.approx(dict.fromkeys(metrics, 1.0)) and len(metrics) == 7, pages[text]


def test_where_the_default_differs_from_what_was_published(renderer):
    names = ["no body", "text of the body itself", "no tags at all", "it repeats itself", "sixty equal items"]
    names.append("code in a colour of its own")
    default = scored(renderer, [PAIRS[name] for name in names], False)
    default = {name: [one[metric] for metric in DESIGN2CODE] for name, one in zip(names, default, strict=True)}
    published = {name: PUBLISHED[name][0] for name in names}
    assert default["no body"][0] == 1 and published["no body"][0] == 0
    assert default["text of the body itself"][0] < 0.5 and published["text of the body itself"][0] == 1
    assert default["no tags at all"][1] == pytest.approx(published["no tags at all"][1], abs=1e-6)
    assert default["code in a colour of its own"][0] < 1 and published["code in a colour of its own"] == (0, 0, 0, 0)
    # what Design2Code takes out of an answer before it looks at it counts
    for name in ("it repeats itself", "sixty equal items"):
        assert default[name] != pytest.approx(published[name], abs=0.01)


# --------------------------------------------------------------------------------------------------------- by hand
def test_tree_bleu_by_hand():
    reference = "<html><body><div><p>a</p><p>b<br>c</p></div><ul><li>x<li>y</ul></body></html>"
    # html_body, body_div_ul, div_p_p, p_br, ul_li, li_li (an open li holds the next one, as html.parser has it)
    assert len(webcode2m.read(reference).trees) == 6
    assert webcode2m.tree_bleu(reference, reference) == 1
    assert webcode2m.tree_bleu(reference, "") == 0
    other = "<html><body><div><p>z</p><p>z</p></div></body></html>"
    assert webcode2m.tree_bleu(reference, other) == pytest.approx(2 / 6)
    assert webcode2m.tree_bleu("<p>x</p>", "anything") == 1, "no subtree is asked for"
    assert webcode2m.tree_bleu("<p>x</p>", "anything", as_published=True) == 0
    assert webcode2m.tree_bleu(reference, reference[6:], as_published=True) == 0, "it has no html element"
    assert webcode2m.word_recall("<p>to be or not to be</p>", "<b>to be</b><script>or</script>") == pytest.approx(2 / 6)
    title = "<title>be</title><td>to</td><td>be</td> not. or"
    assert webcode2m.word_recall(title, "<p>tobe</p>") == 0
    # betobe, not, or
    assert webcode2m.word_recall(title, "<p>tobe or.not</p>", as_published=True) == pytest.approx(2 / 3)
    for broken in ("<![x", "<!x[", "<", "", "&#xFFFFFFFF;"):
        assert webcode2m.word_recall("<p>to be</p>", broken) == webcode2m.tree_bleu(reference, broken) == 0


def block(text, x=0.1, y=0.1, w=0.2, h=0.1, colour=(0, 0, 0)) -> dict:
    return {"text": text, "box": [x, y, w, h], "colour": list(colour)}


def test_design2code_by_hand():
    page = [block("a heading"), block("some longer text", y=0.5)]
    assert design2code.scores(page, page) == pytest.approx(dict.fromkeys([*design2code.NAMES, "low_level"], 1.0))
    assert set(design2code.scores(page, []).values()) == {0.0} == set(design2code.scores([], page).values())
    moved = design2code.scores([block("a heading")], [block("a heading", x=0.3, y=0.2)])
    assert moved["position"] == pytest.approx(0.8), "the larger of the two shifts"
    missing = design2code.scores(page, page[:1])
    assert missing["block_match"] == pytest.approx(0.04 / 0.06) and missing["text"] == 1
    white = design2code.scores([block("a")], [block("a", colour=(255, 255, 255))])
    assert white["colour"] == pytest.approx(0, abs=1e-3)
    other = design2code.scores([block("abcd")], [block("wxyz")])
    assert set(other.values()) == {0.0}, "matches of texts less than half alike are dropped"
    with pytest.raises(ValueError, match="incomplete"):
        design2code.scores(page, [{"text": "x"}])


def test_design2code_merges_what_was_split():
    whole = [block("the quick brown fox jumps", w=0.4), block("over the lazy dog", y=0.5)]
    split = [block("the quick brown", w=0.2), block("fox jumps", x=0.3, w=0.2), block("over the lazy dog", y=0.5)]
    scores = design2code.scores(whole, split)
    assert scores["text"] > 0.99 and scores["block_match"] == pytest.approx(1.0)


def test_a_merge_is_left_untried_only_where_it_does_not_pay(monkeypatch):
    """Nothing changes if every merge is tried."""
    rng, merges = np.random.default_rng(0), Counter()
    for _ in range(80):
        words = [rng.choice(["ab", "abc", "b", "ca", "cab dab"], rng.integers(1, 12)).tolist() for _ in range(2)]
        if rng.random() < 0.5:  # much in common
            words[1] = [*words[0][:6], " ".join(words[0][6:8]) or "x", *words[0][8:]]
        pages = [[block(text, y=0.01 * i) for i, text in enumerate(side)] for side in words]
        quick = design2code.scores(*pages)
        with monkeypatch.context() as patched:
            patched.setattr(design2code, "worth_trying", lambda blocks, *_: range(len(blocks) - 1))
            assert design2code.scores(*pages) == quick
        a, b = (design2code.merge_equal_boxes(design2code.read(side)) for side in pages)
        a, b, costs = design2code.merge_neighbours(a, b)
        assert (costs == design2code.cost_matrix(a, b)).all()
        tried = design2code.worth_trying(a, b, costs[linear_sum_assignment(costs)].tolist())
        merges["done" if len(a) + len(b) < sum(map(len, words)) else "none"] += 1
        merges["left out" if len(tried) < len(a) - 1 else "all tried"] += 1
    assert len(merges) == 4 and min(merges.values()) >= 10, merges


@needs_a_compiler
def test_texts_are_compared_as_difflib_does(monkeypatch):
    rng = np.random.default_rng(0)
    letters = ["abc ", "abcdefghij", "aé漢\U0001f600"]
    a = ["".join(rng.choice(list(letters[i % 3]), rng.integers(1, 40))) for i in range(30)]
    b = ["".join(rng.choice(list("etaoin shrdlu, the 0123456789"), n)) for n in (1, 199, 200, 450)] * 2
    b += [text[:90] * 3 for text in b] + ["\ud800x", "a", a[0]]
    counts = matching.matched_characters(a + b, b)
    monkeypatch.setattr(matching, "library", lambda: None)
    assert (counts == matching.matched_characters(a + b, b)).all()
    assert 2 * counts[3, 4] / (len(a[3]) + len(b[4])) == SequenceMatcher(None, a[3], b[4]).ratio()


def test_without_a_compiler_difflib_does_it_and_that_is_said(monkeypatch, capsys):
    monkeypatch.setattr(native, "find_compiler", lambda: None)
    matching.library.cache_clear()
    assert matching.matched_characters(["abcd"], ["bcde", "x"]).tolist() == [[3, 0]]
    assert "install gcc" in capsys.readouterr().err
    matching.library.cache_clear()


def test_what_design2code_does_to_an_answer_by_hand():
    assert page_preprocessing.preprocessed("a < b") == "<html><body><p>a &lt; b</p></body></html>"
    assert page_preprocessing.preprocessed("<HTML lang=de>\r\n<br></HTML>") == '<html lang="de">\n<br/></html>'
    items = "<html>" + "<li><b>x</b></li>" * 60 + "<li>x</li>" * 50 + "</html>"
    left = page_preprocessing.preprocessed(items)
    assert left.count("<li><b>x</b></li>") == 50 and left.count("<li>x</li>") == 50
    line = "The same sentence of just a hundred letters comes again and again until somebody sees it and cuts it"
    for times, cut in ((4, False), (5, True)):
        text = "0123456789" * 10 + line.ljust(100)[:100] * times
        assert (page_preprocessing.without_repeated_text(text) == text[:100]) == cut
    tags = "<p>" + "pq" * 50 + "</p><b>" + (line.ljust(100)[:100] + "</b><b>") * 5
    # the place of the hundredth letter, sought letter by letter, is before the "T" that is meant
    assert page_preprocessing.without_repeated_text(tags) == tags[: tags.index("The same")]


def test_a_page_that_cannot_be_read_is_still_scored(renderer):
    for answer in ("<![x", "<p>" * 300 + "x", "<html><p style='color'>a</p><p style='color:rgb(1,2)'>b</p>"):
        for as_published in (False, True):
            assert len(scored(renderer, [(page("<p>Words</p>"), answer)], as_published)[0]) == 7
    many = renderer.render("<p>x</p>" * 4097, "published page facts")
    assert "4,096" in many.error and renderer.render("", "page facts").error == "the program is empty"


def test_blocks_of_a_long_page_are_found_in_its_own_pixels(renderer):
    text = "".join(f"<p style='margin:0;height:450px'>line {i}</p>" for i in range(30))  # 13,500 px
    facts = json.loads(renderer.render(page(text), "page facts").facts)
    assert [fact["text"] for fact in facts] == [f"line {i}" for i in range(30)]
    tops = np.diff([fact["box"][1] for fact in facts]) * (30 * 450 + 16)
    np.testing.assert_allclose(tops, 450, atol=5)  # drawn in different colours, letters differ at their edges


# ---------------------------------------------------------------------------------------- a benchmark's own pictures
def test_a_benchmarks_picture_is_shown(renderer):
    shown = [
        "<img src=rick.jpg>",
        "<img src='./rick.jpg?large'>",
        "<div style='width:300px;height:200px;background:url(rick.jpg)'></div>",
    ]
    for body in shown:
        image = renderer.render(page(f"<style>body{{margin:0}}</style>{body}"), "html").image
        assert np.abs(np.subtract(image.getpixel((150, 100)), (255, 0, 0))).max() < 3, body
    nothing = renderer.render(page("<img src=rick.jpeg>"), "html").image
    with Renderer(workers=1, timeout=300) as without:
        assert without.render(page("<img src=rick.jpeg>"), "html").image.tobytes() == nothing.tobytes()
        missing = without.render(page("<style>body{margin:0}</style><img src=rick.jpg>"), "html").image
    assert missing.getpixel((150, 100)) == (255, 255, 255)


def test_pictures_that_cannot_be_served_are_named(tmp_path):
    red_picture(tmp_path / "rick.jpg")
    assert pictures_beside([tmp_path / "rick.jpg"] * 2) == {"rick.jpg": str(tmp_path / "rick.jpg")}
    for name, size in (("notes.txt", 1), ("big.png", (8 << 20) + 1), ("rick.jpg", 1)):
        (path := tmp_path / "other" / name).parent.mkdir(exist_ok=True)
        path.write_bytes(b"x" * size)
        with pytest.raises(ValueError, match=name):
            pictures_beside([tmp_path / "rick.jpg", path])
    with pytest.raises(ValueError, match="absent.png is no picture"):
        pictures_beside([tmp_path / "absent.png"])


def test_design2codes_picture_is_found_in_its_folder(tmp_path, capsys):
    (tmp_path / "design2code/testset").mkdir(parents=True)
    assert benchmarks.pictures(["design2code,synthetic-5"], tmp_path) == []
    assert "design2code lacks rick.jpg" in capsys.readouterr().err
    red_picture(picture := tmp_path / "design2code/testset/rick.jpg")
    assert benchmarks.pictures(["chartmimic", "design2code"], tmp_path) == [picture]
    assert benchmarks.pictures([f"design2code={picture.parent}"], "nowhere") == [picture]


# ----------------------------------------------------------------------------------------------- real pages, perturbed
PAGE_ERRORS = {
    "text": """
        const wrong = (text) => "x".repeat(Math.ceil(text.length * LEVEL / 14)) + text.slice(text.length * LEVEL / 14);
        for (const node of texts) node.data = wrong(node.data.trim());""",
    "block_match": """for (const node of texts.slice(0, LEVEL)) node.data = "";""",
    "position": """
        const body = document.body.style;
        body.setProperty("position", "relative"), body.setProperty("left", "LEVEL0px");
        body.setProperty("top", "LEVEL0px");""",
    "colour": """
        const colour = (element) => getComputedStyle(element).color.match(/[\\d.]+/g);
        const now = [...document.querySelectorAll("*")].map((element) => [element, colour(element)]);
        const mix = (c) => [255, 0, 255].map((to, i) => Math.round(to * LEVEL / 6 + c[i] * (1 - LEVEL / 6)));
        for (const [element, c] of now) if (c) element.style.setProperty("color", `rgb(${mix(c)})`, "important");""",
}
SOME = """<script>addEventListener("load", () => {
    const texts = [], walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    for (let node; (node = walker.nextNode());) {
        const owner = node.parentElement, range = document.createRange();
        range.selectNode(node);
        const box = range.getBoundingClientRect(), inside = box.left >= 0 && box.right < innerWidth;
        if (node.data.trim().length > 3 && box.width && inside && owner.checkVisibility()
            && !["SCRIPT", "STYLE"].includes(owner.tagName)) texts.push(node);
    }
    %s
});</script>"""


@pytest.mark.parametrize("metric", PAGE_ERRORS)
def test_design2code_falls_as_real_pages_are_perturbed(renderer, metric):
    programs = [page for page in real("html", 24) if len(re.findall(r">\s*\w{4,}[^<]*<", page)) >= 8][:8]
    edited = [page + SOME % PAGE_ERRORS[metric].replace("LEVEL", str(level)) for page in programs for level in range(6)]
    facts = np.empty(len(edited), dtype=object)
    facts[:] = facts_of(renderer, edited, "page facts")
    rows = [
        [design2code.scores(row[0], one)[metric] for one in row]
        for row in facts.reshape(-1, 6)
        if row[0] and len(row[0]) > 5
    ]
    assert all(row[0] == pytest.approx(1) for row in rows), "the same page twice is perfect"
    measured = correlations(rows)
    assert len(measured) >= 3 and min(measured) >= 0.9, (len(measured), measured)
