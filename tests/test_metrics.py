"""metrics/: every formula against cases worked out by hand, its identities, and perturbed real programs."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from scipy.stats import spearmanr
from skimage.metrics import structural_similarity as scikit_ssim

from metrics import chartmimic, design2code, earth_mover, molecules, pixels, similarity, text
from render import Renderer

REAL = Path(__file__).parents[2] / "shared/data/real"


def scene(seed: int = 0, size=(160, 96)) -> Image.Image:
    rng = np.random.default_rng(seed)
    image = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(image)
    for _ in range(4):
        x, y, w, h = rng.integers(0, 60, 4).tolist()
        draw.rectangle((x, y, x + w + 5, y + h + 5), fill=tuple(rng.integers(0, 255, 3).tolist()))
    return image


# ---------------------------------------------------------------------------------------------------------------- text
def test_edit_similarity_by_hand():
    assert text.tokens(r"\draw (0,1.5);") == ["\\", "draw", "(", "0", ",", "1", ".", "5", ")", ";"]
    assert text.edit_similarity("a b c d", "a x c") == pytest.approx(1 - 2 / 4)
    assert text.edit_similarity("a b c d", "ab", as_published=True) == pytest.approx(0.0), "two characters: a b"
    assert text.edit_similarity("a b c d", "a b", as_published=True) == pytest.approx(2 / 3), "three characters: a b c"
    assert text.edit_similarity("x y", "x y") == text.edit_similarity("", "") == 1
    assert text.edit_similarity("x y", "") == 0
    assert text.character_similarity("kitten", "sitting") == pytest.approx(1 - 3 / 7)


def test_tex_edit_distance_by_hand():
    assert text.tex_text("\\draw[red] (0,1.5); % a comment\n") == r" \draw [ red ] ( 0 , 1.5 ) ; "
    assert text.tex_edit_distance("x", "x") == 0
    assert text.tex_edit_distance("x", "") == text.tex_edit_distance("", "x") == 1
    # " a " and " b ": cost 1 for the letter; the first blank is visited twice and the letter never: 0.3 each
    assert text.tex_edit_distance("a", "b") == pytest.approx((1 + 0.6) / (3 + 0.6))
    assert 0 < text.tex_edit_distance("a b c d e f g h", "e f g h a b c d") < 0.6, "moving a block is one jump"


def test_tex_edit_distance_equals_the_recurrence_of_the_paper():
    def plain(reference, answer):  # Stanchev et al. 2019, equation by equation
        row = [0.0] + [1.0] * len(answer)
        visits = [-1] * len(row)
        for c in reference:
            new = [row[0] + 1]
            for i in range(1, len(row)):
                new.append(min(new[i - 1] + 0.2, row[i - 1] + (answer[i - 1] != c), row[i] + 1))
            new = [round(x, 9) for x in new]
            best = new.index(min(new))
            visits[best] += 1
            row = [min(x, 2 + new[best]) for x in new] if c == " " else new
        coverage = 0.3 * sum(v if v >= 0 else 1 for v in visits)
        return min(1.0, (row[-1] + coverage) / (len(reference) + coverage))

    assert text.tex_edit_distance("x", "x", as_published=True) == pytest.approx(0.3 / 3.3)
    rng = np.random.default_rng(0)
    for _ in range(40):
        a, b = (" ".join("".join(rng.choice(list("abc"), rng.integers(1, 4))) for _ in range(6)) for _ in range(2))
        published = text.tex_edit_distance(a, b, as_published=True)
        assert published == pytest.approx(plain(f" {a} ", f" {b} "))


def test_tree_bleu_by_hand():
    reference = "<html><body><div><p>a</p><p>b<br>c</p></div><ul><li>x<li>y</ul></body></html>"
    # html_body, body_div_ul, div_p_p, p_br, ul_li, li_li (an open li holds the next one, as html.parser has it)
    assert text._parsed(reference).found.sort() is None and len(set(text._parsed(reference).found)) == 6
    assert text.tree_bleu(reference, reference) == 1
    assert text.tree_bleu(reference, "") == 0
    assert text.tree_bleu(reference, "<html><body><div><p>z</p><p>z</p></div></body></html>") == pytest.approx(2 / 6)
    assert text.tree_bleu("<p>x</p>", "anything") == 1, "no subtree is asked for"
    assert text.word_recall("<p>to be or not to be</p>", "<b>to be</b><script>or</script>") == pytest.approx(2 / 6)


# -------------------------------------------------------------------------------------------------------------- pixels
def test_pixel_metrics_by_hand():
    black, white = Image.new("RGB", (224, 224)), Image.new("RGB", (224, 224), "white")
    half = white.copy()
    half.paste("black", (0, 0, 112, 224))
    assert pixels.starvector(white, black)["mse"] == 1 and pixels.starvector(white, half)["mse"] == 0.5
    left, right = half, half.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    for drawn in (white, right):
        assert pixels.starvector(left, drawn)["masked_mse"] == 1, "nothing is drawn in both"
        assert pixels.starvector(left, drawn, as_published=True)["masked_mse"] == 0
    assert pixels.starvector(white, white)["masked_mse"] == pixels.starvector(left, left)["masked_mse"] == 0
    grey = Image.new("RGB", (224, 224), (51, 51, 51))
    assert pixels.starvector(left, grey)["masked_mse"] == pytest.approx(0.5 * 0.2**2), "the half that both draw"
    dark = Image.new("RGB", (336, 336), (254, 254, 254))
    assert pixels.unisvg(Image.new("RGB", (336, 336), "white"), dark)["psnr"] == pytest.approx(10 * math.log10(255**2))
    published = pixels.unisvg(dark, Image.new("RGB", (336, 336), "white"), as_published=True)["psnr"]
    assert published == pytest.approx(10 * math.log10(255**2)), "255^2 wraps to 1 in uint8"
    assert pixels.unisvg(white, white)["psnr"] == 100


SSIMS = {
    "full": pixels.ssim,
    "unisvg": lambda a, b: pixels.unisvg(a, b)["ssim"],
    "starvector": lambda a, b: pixels.starvector(a, b)["ssim"],
    "image2struct": pixels.image2struct_ssim,
}


@pytest.mark.parametrize("metric", SSIMS.values(), ids=SSIMS)
def test_ssim_identities(metric):
    a, b = scene(0), scene(1)
    assert metric(a, a.copy()) == pytest.approx(1.0)
    assert metric(a, b) == pytest.approx(metric(b, a)) and metric(a, b) < 0.95
    assert pixels.starvector(a, b)["ssim"] != pixels.starvector(a, b, as_published=True)["ssim"]


WINDOWS = {
    "uniform": (similarity.UNIFORM, {"win_size": 7}),
    "wide": (similarity.WIDE_UNIFORM, {"win_size": 11}),
    "gaussian": (similarity.GAUSSIAN, {"win_size": 11, "gaussian_weights": True, "sigma": 1.5}),
}


@pytest.mark.parametrize("window", WINDOWS)
def test_ssim_equals_that_of_scikit_image(window):
    ours, theirs = WINDOWS[window]
    rng = np.random.default_rng(0)
    drawn = [np.asarray(scene(seed)) for seed in (0, 1)]
    corner = drawn[0].copy()
    corner[-1, -1] = 7  # in a single window of each size
    noise = rng.integers(0, 256, (2, 97, 131, 3), dtype=np.uint8)  # more rows than a band, and not a multiple
    black_white = np.zeros((40, 11, 3), np.uint8), np.full((40, 11, 3), 255, np.uint8)
    for a, b in (drawn, (drawn[0], corner), noise, black_white, (drawn[0], drawn[0])):
        for p, q, axis in ((a, b, 2), (a[..., 0], b[..., 0], None)):
            expected = scikit_ssim(p, q, channel_axis=axis, data_range=255, **theirs)
            assert similarity.structural_similarity(p, q, ours) == pytest.approx(expected, abs=1e-6)
    for a, b in ((noise[0], noise[1, :50]), (noise[0, :6], noise[1, :6])):
        with pytest.raises(ValueError, match="resize first"):
            similarity.structural_similarity(a, b, ours)


def test_padding_is_white_and_in_the_corner():
    a, b = pixels.padded(Image.new("RGB", (10, 20), "red"), Image.new("RGB", (30, 8), "blue"))
    assert a.size == b.size == (30, 20)
    assert a.getpixel((9, 19)) == (255, 0, 0) and a.getpixel((10, 0)) == (255, 255, 255)


# --------------------------------------------------------------------------------------------------------- earth mover
def test_earth_mover_identities():
    a = scene(0)
    assert earth_mover.earth_mover_similarity(a, a.copy()) == pytest.approx(1.0)
    assert earth_mover.earth_mover_similarity(a, Image.new("RGB", a.size)) == pytest.approx(0.0), "the worst constant"
    with pytest.raises(ValueError, match="pad or resize"):
        earth_mover.earth_mover_similarity(a, scene(0, (99, 96)))
    values = [earth_mover.earth_mover_similarity(a, washed(a, k / 5)) for k in range(6)]
    assert spearmanr(range(6), values).statistic <= -0.9 and values[0] > values[-1]


def washed(image: Image.Image, share: float) -> Image.Image:
    """Its colours moved towards white."""
    return Image.blend(image, Image.new("RGB", image.size, "white"), share)


def test_earth_mover_by_hand():
    assert earth_mover.patched_size((64, 80)) == (64, 80) and earth_mover.patched_size((640, 480)) == (96, 64)
    white, one = Image.new("RGB", (16, 8), "white"), Image.new("RGB", (16, 8), "white")
    one.paste("black", (0, 0, 8, 8))
    # one patch is left: all its pixels go from white to black, a distance of 1 in grey
    assert earth_mover.earth_mover_distance(one, white) == pytest.approx(1.0)
    other = Image.new("RGB", (16, 8), "white")
    other.paste("black", (8, 0, 16, 8))
    # two patches with weights 1 and 0.001 each way, taken as 1 and 1: both move half the width, 1/2 * 8 / 24
    assert earth_mover.earth_mover_distance(one, other) == pytest.approx(0.5 * 8 / 24, rel=1e-6)


def patch_distance(a, b, weights_a, weights_b) -> float:
    """The transport problem of two patches as it is written down, all 64 x 64 pairs of points in it."""
    import ot

    rows, columns = np.mgrid[:8, :8].reshape(2, -1) / 8
    points = [np.stack([grey.astype(np.float64), rows, columns], axis=1) for grey in (a, b)]
    return ot.emd2(weights_a, weights_b, np.abs(points[0][:, None] - points[1][None]).sum(2))


def test_lazy_transport_equals_the_full_one():
    import ot

    a, b = scene(2, (72, 56)), scene(3, (72, 56))
    colour, _ = earth_mover.most_frequent(b)
    faint = float(np.float32(colour @ earth_mover.GREY / 255))
    (p, places), (q, _) = earth_mover.cut(np.asarray(a), colour), earth_mover.cut(np.asarray(b), colour)
    weights = np.random.default_rng(0).random(len(p))
    weights /= weights.sum()
    distance = np.abs(places[:, None] - places[None]).sum(2) * 8 / (72 + 56)
    wp, wq = earth_mover._pixel_weights(p, faint), earth_mover._pixel_weights(q, faint)
    exact = np.array([[patch_distance(p[i], q[j], wp[i], wq[j]) for j in range(len(q))] for i in range(len(p))])
    quick = [[earth_mover._patch_distance(p[i], q[j], wp[i], wq[j]) for j in range(len(q))] for i in range(len(p))]
    np.testing.assert_allclose(quick, exact, atol=1e-9)
    assert (exact == 0).any() and (p == q).any(1).sum() > (p == q).all(1).sum(), "patches have points in common"
    bounds = earth_mover._bounds(p, q, wp, wq)
    assert (bounds <= exact + 1e-9).all(), "bounds are bounds"
    full = ot.emd2(weights, weights, exact + distance)
    assert earth_mover._transport(weights, p, q, faint, distance) == pytest.approx(full, rel=1e-6)
    black = np.zeros_like(p)  # a constant picture: no plan is needed
    even = np.full(64, 1 / 64)
    exact = [patch_distance(black[0], q[j], even, wq[j]) for j in range(len(q))]
    for quick in (
        [earth_mover._patch_distance(black[0], q[j], even, wq[j]) for j in range(len(q))],
        [earth_mover._patch_distance(q[j], black[0], wq[j], even) for j in range(len(q))],
    ):
        np.testing.assert_allclose(quick, exact, atol=1e-9)
    full = ot.emd2(weights, weights, np.array(exact)[None] + distance)
    assert earth_mover._transport(weights, black, q, faint, distance) == pytest.approx(full, rel=1e-6)


# ----------------------------------------------------------------------------------------------------------- molecules
@pytest.mark.parametrize(
    "code, smiles",
    [
        ("m = Chem.MolFromSmiles('CCO')", "CCO"),
        ("smi = 'CC' + 'O'\nm = Chem.MolFromSmiles(smi)", "CCO"),
        ("SMILES = 'c1ccccc1'\ndef f(s):\n    return indigo.loadMolecule(s)\nf(SMILES)", "c1ccccc1"),
        ("ring = 'c1ccccc1'\nm = MolFromSmiles(f'{ring}C')", "c1ccccc1C"),
        ("m = Chem.MolFromSmiles('CCO'\nbroken(", "CCO"),
        ("print('CCO')", None),
    ],
)
def test_smiles_are_found_without_running_anything(code, smiles):
    assert molecules.smiles_of(code) == smiles


def test_tanimoto():
    assert molecules.tanimoto("CCO", "OCC") == 1, "the same molecule written differently"
    assert molecules.tanimoto("CCO", "not a molecule") == molecules.tanimoto("CCO", None) == 0
    assert molecules.tanimoto("CCO", "CCN") == molecules.tanimoto("CCN", "CCO")
    assert 0 < molecules.tanimoto("CCO", "CCN") < 1
    right, wrong, broken = (f"Chem.MolFromSmiles('{s}')" for s in ("CCO", "CCN", "C(("))
    assert molecules.scores(right, right) == {"validity": 1, "tanimoto": 1, "tanimoto_valid": 1, "same_molecule": 1}
    assert molecules.scores(right, wrong)["same_molecule"] == 0
    failed = molecules.scores(right, broken)
    assert failed["validity"] == failed["tanimoto"] == 0 and failed["tanimoto_valid"] is None


# --------------------------------------------------------------------------------------------------------- Design2Code
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


# ------------------------------------------------------------------------------------------- real programs, perturbed
@pytest.fixture(scope="module")
def renderer():
    try:
        with Renderer(workers=2, timeout=20) as made:
            yield made
    except RuntimeError as error:
        pytest.skip(str(error))


def real(domain: str, count: int) -> list[str]:
    if not REAL.is_dir():
        pytest.skip("../shared/data/real is not here: the real programs are not part of this repository")
    return [path.read_text() for path in sorted((REAL / domain).iterdir())[:count]]


def facts_of(renderer, programs: list[str], kind: str) -> list:
    results = [renderer.submit(program, kind) for program in programs]
    return [json.loads(r.result().facts) if r.result().facts else None for r in results]


def correlations(scores: list[list[float]]) -> list[float]:
    """Spearman's rank correlation of the size of an error with the loss, of every program where the error shows."""
    sizes = range(len(scores[0]))
    return [spearmanr(sizes, [-s for s in row]).statistic for row in scores if len(set(row)) > 1]


CHART_ERRORS = {  # added to a program: a change of the figure whose size is LEVEL of 0..5
    "text_f1": "for _t in _texts[:round(LEVEL / 5 * len(_texts))]: _t.set_text(_t.get_text() + '!')",
    "layout_f1": "for _i in range(LEVEL): _f.add_subplot(3, 7, _i + 1)",
    "type_f1": "for _i in range(LEVEL): _f.axes[0].axhline(0, color='k')",
    "colour_f1": """
import numpy as _n
from matplotlib.colors import to_rgb as _rgb
for _a in _f.findobj(lambda a: hasattr(a, 'set_facecolor') or hasattr(a, 'set_color')):
    try:
        _old = _rgb(_a.get_color() if hasattr(_a, 'get_color') else _a.get_facecolor())
        _new = _n.array(_old) * (1 - LEVEL / 6) + _n.array([1, 0, 1.0]) * LEVEL / 6
        (_a.set_color if hasattr(_a, 'get_color') else _a.set_facecolor)(tuple(_new))
    except Exception: pass
""",
}
TEXTS = """
import matplotlib.pyplot as _p
_f = _p.gcf()
_texts = []
for _a in _f.axes:
    _texts += [_a.title, _a.xaxis.label, _a.yaxis.label, *_a.texts]
    _texts += _a.get_legend().get_texts() if _a.get_legend() else []
_texts = [t for t in _texts if t.get_text()]
"""


@pytest.mark.parametrize("metric", CHART_ERRORS)
def test_chartmimic_falls_as_real_charts_are_perturbed(renderer, metric):
    programs = real("chart", 16)
    end = f"{TEXTS}\n%s\n_f.canvas.draw()\n"
    edited = [code + end % CHART_ERRORS[metric].replace("LEVEL", str(level)) for code in programs for level in range(6)]
    facts = np.reshape(np.array(facts_of(renderer, edited, "figure facts"), dtype=object), (-1, 6))
    assert sum(row[0] is not None for row in facts) >= 12
    kind = {"text_f1": "texts", "layout_f1": "layout", "type_f1": "types", "colour_f1": "colours"}[metric]
    facts = [row for row in facts if all(row) and row[0][kind]]  # where there is nothing, one thing more is all wrong
    rows = [[chartmimic.scores(row[0], one)[metric] for one in row] for row in facts]
    assert all(row[0] == 1 for row in rows), "the same program twice is perfect"
    measured = correlations(rows)
    assert len(measured) >= 5 and min(measured) >= 0.9, (len(measured), measured)


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


def test_molecules_of_the_real_set_are_found():
    real("molecule", 1)
    rows = [json.loads(line) for line in (REAL / "MANIFEST.jsonl").read_text().splitlines()]
    rows = [row for row in rows if row["domain"] == "molecule"]
    found = [molecules.tanimoto(row["smiles"], molecules.smiles_of((REAL / row["path"]).read_text())) for row in rows]
    assert len(found) >= 30 and np.mean(found) == 1


def test_a_program_that_fails_has_no_facts(renderer):
    for code, kind in (("1/0", "figure facts"), ("x = 1", "figure facts")):
        answer = renderer.render(code, kind)
        assert answer.facts is None and answer.image is None and answer.error
    page = renderer.render("", "page facts")
    assert page.error == "the program is empty"
