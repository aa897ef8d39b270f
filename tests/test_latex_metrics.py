"""The metrics of LaTeX: the originals' numbers on pairs of our own, identities, cases worked out by hand."""

import numpy as np
import pytest
from PIL import Image
from scipy.stats import spearmanr

from metrics import earth_mover, pixels, text

WHITE, BLACK = (255, 255, 255), (0, 0, 0)


def boxes(seed: int, size=(40, 32), background=WHITE, count: int = 3, colours=None) -> Image.Image:
    """Rectangles in seeded places, of seeded colours if none are given: nothing that a font or a version changes."""
    rng = np.random.default_rng(seed)
    pixels = np.full((size[1], size[0], 3), background, np.uint8)
    for _ in range(count):
        x, y, w, h = (rng.random(4) * [size[0] - 6, size[1] - 6, 14, 14] + [0, 0, 3, 3]).astype(int)
        colour = rng.integers(0, 256, 3) if colours is None else colours[rng.integers(len(colours))]
        pixels[y : y + h, x : x + w] = colour
    return Image.fromarray(pixels)


def plain(colour, size=(40, 32)) -> Image.Image:
    return Image.new("RGB", size, colour)


# ------------------------------------------------------------------------------------ the originals: Image2Struct, HELM
PICTURES = {  # name: (target, answer)
    "two drawings": (boxes(0), boxes(1)),
    "one box more": (boxes(2), boxes(2, count=4)),
    "black lines": (boxes(3, colours=[BLACK]), boxes(4, colours=[BLACK])),
    "on black": (boxes(5, background=BLACK), boxes(6, background=BLACK)),
    "on grey 127": (boxes(7, background=(127, 127, 127), count=2), boxes(8, background=(127, 127, 127), count=2)),
    "on grey 126": (boxes(7, background=(126, 126, 126), count=2), boxes(8, background=(126, 126, 126), count=2)),
    "on red": (boxes(9, background=(255, 0, 0), count=2), boxes(10, background=(255, 0, 0), count=2)),
    "on yellow": (boxes(9, background=(255, 255, 0), count=2), boxes(10, background=(255, 255, 0), count=2)),
    "on a background that is not known": (boxes(11, background=(20, 60, 140)), boxes(12, background=(20, 60, 140))),
    "on one that is": (boxes(11, background=(12, 34, 56)), boxes(12, background=(12, 34, 56))),
    "little background": (boxes(13, count=12), boxes(14, count=12)),
    "a blank answer": (boxes(15), plain(WHITE)),
    "a black answer": (boxes(15), plain(BLACK)),
    "a blank target": (plain(WHITE), boxes(15)),
    "sizes differ": (boxes(16, (45, 26)), boxes(17, (31, 39))),
    "more than 100 patches": (boxes(18, (120, 97), count=6), boxes(19, (120, 97), count=6)),
    "padded on a colour": (boxes(22, (37, 29), (200, 30, 90)), boxes(23, (37, 29), (200, 30, 90))),
    "smaller than a window": (boxes(20, (5, 12), count=1), boxes(21, (6, 9), count=1)),
}
# (EMS, SSIM) of HELM 63754d0, `emd_utils.py` and `image_metrics.py`, with OpenCV 5.0 and scikit-image 0.26.
HELM = {
    "two drawings": (0.406409, 0.717811),
    "one box more": (0.796492, 0.937855),
    "black lines": (0.317504, 0.65796),
    "on black": (0.598545, 0.545619),
    "on grey 127": (0.230968, 0.768845),
    "on grey 126": (0.232991, 0.768556),
    "on red": (0.231918, 0.858188),
    "on yellow": (0.482689, 0.837387),
    "on a background that is not known": (0.842815, 0.658378),
    "on one that is": (0.391121, 0.62876),
    "little background": (0.556, 0.592918),
    "a blank answer": (0.149991, 0.807457),
    "a black answer": (0.0, 0.500034),
    "a blank target": (0.19396, 0.807457),
    "sizes differ": (0.579115, 0.736568),
    "more than 100 patches": (0.707324, 0.913191),
    "padded on a colour": (0.478693, 0.736796),
    "smaller than a window": (-0.101184, 0.0),
}
PROGRAMS = {  # name: (target, answer)
    "a number": (r"\draw[red] (0,0) -- (1.5,2);", r"\draw[red] (0,0) -- (1.5,3);"),
    "a line less": (
        "\\draw (0,0) -- (1,1);\n\\fill (1,1) circle (2pt);\n\\node at (1, 2) {a};",
        "\\draw (0,0) -- (1,1);",
    ),
    "a line more": ("\\draw (0,0) -- (1,1);", "\\draw (0,0) -- (1,1);\n\\draw (1,0) -- (0,1);\n"),
    "a formula": (r"$\frac{a}{b} + x_1^2$", r"$\frac{a}{c} + x_2^{2}$"),
    "no dollars": (r"E = mc^2", r"$$E = mc^2$$"),
    "numbers and labels": (r"\begin{align*}a &= b\end{align*}", "\\begin{align}\n  a &= b \\label{eq:a}\n\\end{align}"),
    "a preamble": (
        "\\begin{tikzpicture}\n\\draw (0,0) circle (1);\n\\end{tikzpicture}",
        "\\documentclass[border=2pt]{standalone}\n\\usepackage[dvipsnames]{xcolor}\n\\usepackage{tikz}\n"
        "\\begin{document}\n\\begin{tikzpicture}\n\t\\draw  (0,0) circle (2);\n\n"
        "\\end{tikzpicture}\n\\end{document}\nDone.",
    ),
    "two documents": (
        "\\documentclass{article}\n\\usepackage{tikz}\n\\begin{document}\n"
        "\\tikz\\draw (0,0) -- (1,1);\n\\end{document}",
        "\\documentclass{standalone}\n\\usepackage{tikz}\n\\begin{document}\n"
        "\\tikz\\draw[thick] (0,0) -- (1,2);\n\\end{document}",
    ),
    "comments": (
        "% two lines\n\\draw (0,0) -- (1,1); % one\n\\draw (1,0);",
        "\\draw (0,0) -- (1,1);\n% the other\n\\draw (1,0);",
    ),
    "words": (
        "\\section{It's here}\nDr. Smith can't say ``no'', e.g. at 3 . 5, or 1, 2 or 3?! Let's go...",
        '\\section{It is here}\nDr Smith cannot say "no", e.g. at 3.5, or 1,2 or 3! Let us go.',
    ),
    "a table": (
        r"\begin{tabular}{|l|r|} \hline a & 1 \\ \hline b & 2 \\ \hline \end{tabular}",
        r"\begin{tabular}{lr} a & 1 \\ b & 3 \\ c & 2 \end{tabular}",
    ),
    "parts moved": (
        r"\node (a) {first}; \node[right=of a] (b) {second}; \draw[->] (a) -- (b);",
        r"\draw[->] (a) -- (b); \node[right=of a] (b) {second}; \node (a) {first};",
    ),
    "the same": (
        r"\foreach \x in {1,...,5} \draw (\x,0) -- (\x,1);",
        r"\foreach \x in {1,...,5} \draw (\x,0) -- (\x,1);",
    ),
    "another program": (r"\begin{itemize}\item One\item Two\end{itemize}", r"\int_0^1 x \, dx = \frac12"),
    "nothing": (r"\draw (0,0) -- (1,1);", ""),
}
# Of the same HELM, `compute_edit_sim`, and without its cut, with NLTK 3.10. Where the target has no class both went
# through `latex_to_image` and `strip_unnecessary_latex_parts` first, as there, but nothing was typeset.
HELM_EDIT = {
    "a number": (0.916667, 0.916667),
    "a line less": (1.0, 0.310345),
    "a line more": (0.5, 0.5),
    "a formula": (0.642857, 0.642857),
    "no dollars": (0.428571, 0.428571),
    "numbers and labels": (0.833333, 0.833333),
    "a preamble": (0.941176, 0.941176),
    "two documents": (0.821429, 0.821429),
    "comments": (0.470588, 0.736842),
    "words": (0.548387, 0.606061),
    "a table": (0.5, 0.681818),
    "parts moved": (0.454545, 0.454545),
    "the same": (1.0, 1.0),
    "another program": (0.0, 0.0),
    "nothing": (0.0, 0.0),
}
# Of DeTikZify e2c3558, `eed.py`, with torchmetrics 1.9 and Pygments 2.21.
DETIKZIFY = {
    "a number": 0.054441,
    "a line less": 0.512735,
    "a line more": 0.292308,
    "a formula": 0.145889,
    "no dollars": 0.234043,
    "numbers and labels": 0.208925,
    "a preamble": 0.426087,
    "two documents": 0.108943,
    "comments": 0.007634,
    "words": 0.211503,
    "a table": 0.369278,
    "parts moved": 0.138921,
    "the same": 0.004894,
    "another program": 0.752688,
    "nothing": 0.937888,
}


@pytest.mark.parametrize("name", PICTURES)
def test_ems_and_ssim_equal_helms(name):
    target, answer = PICTURES[name]
    pair = pixels.padded(target, answer)
    ems, ssim = HELM[name]
    assert earth_mover.earth_mover_similarity(*pair, as_published=True) == pytest.approx(ems, abs=2e-5)
    assert pixels.image2struct_ssim(target, answer, as_published=True) == pytest.approx(ssim, abs=2e-6)


@pytest.mark.parametrize("name", PROGRAMS)
def test_edit_similarity_equals_helms(name):
    as_published, uncut = HELM_EDIT[name]
    assert text.edit_similarity(*PROGRAMS[name], as_published=True) == pytest.approx(as_published, abs=2e-6)
    assert text.edit_similarity(*PROGRAMS[name]) == pytest.approx(uncut, abs=2e-6)


@pytest.mark.parametrize("name", PROGRAMS)
def test_tex_edit_distance_equals_detikzifys(name):
    """Sums of tenths are rounded there, so that ties may fall otherwise."""
    assert text.tex_edit_distance(*PROGRAMS[name], as_published=True) == pytest.approx(DETIKZIFY[name], abs=5e-3)


# -------------------------------------------------------------------------------------- what the default does otherwise
def test_edit_similarity_by_hand():
    assert text.edit_similarity("a b c d", "a x c") == pytest.approx(1 - 2 / 4)
    assert text.edit_similarity("a b c d", "a b", as_published=True) == 1, "three characters are left of the reference"
    assert text.edit_similarity("a b c d", "a b") == pytest.approx(2 / 4)
    assert text.edit_similarity("x y", "x y") == 1
    assert text.edit_similarity("x y", "") == text.edit_similarity("", "") == 0


def test_a_program_as_image2struct_keeps_it():
    body = "\\begin{align*}\na &= b\\\\\n\\end{align*}\ntext"
    code = "\\documentclass{article}\n\\usepackage[a]{b}\\usepackage{c}\n\\begin{document}\n\n"
    code += "\\begin{align} \ta  &= b\\\\\n\\end{align}\\label{x} \ntext\n\\end{document} more"
    assert text.tex_body(code) == text.tex_body(body) == body


def test_tex_edit_distance_by_hand():
    assert text.tex_text("\\draw[red] (0, 1.5); % a comment\n") == r" \draw [red] (0,1 .5); ", "as EED has numbers"
    assert text.tex_text("$x_1+2$") == " $ x _ 1 + 2 $ " and text.tex_text("a{ b . }") == " a { b . } "
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


# --------------------------------------------------------------------------------------------------------------- pixels
def test_padding_is_white_and_in_the_corner():
    a, b = pixels.padded(Image.new("RGB", (10, 20), "red"), Image.new("RGB", (30, 8), "blue"))
    assert a.size == b.size == (30, 20)
    assert a.getpixel((9, 19)) == (255, 0, 0) and a.getpixel((10, 0)) == (255, 255, 255)


def test_a_picture_smaller_than_the_window():
    dot = plain("red", (3, 3))
    assert pixels.image2struct_ssim(dot, dot) == pytest.approx(1.0)
    assert pixels.image2struct_ssim(dot, dot, as_published=True) == 0


# --------------------------------------------------------------------------------------------------------- earth mover
def test_earth_mover_identities():
    a = boxes(0, (160, 96))
    assert earth_mover.earth_mover_similarity(a, a.copy()) == pytest.approx(1.0)
    assert earth_mover.earth_mover_similarity(a, Image.new("RGB", a.size)) == pytest.approx(0.0), "the worst constant"
    with pytest.raises(ValueError, match="pad or resize"):
        earth_mover.earth_mover_similarity(a, boxes(0, (99, 96)))
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


def test_the_background_is_known_by_its_own_grey():
    target, answer = PICTURES["on a background that is not known"]
    values = [earth_mover.earth_mover_similarity(target, answer, published) for published in (False, True)]
    assert abs(values[0] - values[1]) > 0.1
    target, answer = PICTURES["on red"]  # weights of patches and of pixels are as they are meant
    values = [earth_mover.earth_mover_similarity(target, answer, published) for published in (False, True)]
    assert values[0] == pytest.approx(values[1], abs=1e-6)


def test_lazy_transport_equals_the_full_one():
    import ot

    a, b = boxes(2, (72, 56)), boxes(3, (72, 56))
    colour, _ = earth_mover.most_frequent(b)
    faint = np.float32(earth_mover.luminance(earth_mover.fractions(colour)))
    (p, places), (q, _) = (earth_mover.cut(np.asarray(picture), colour) for picture in (a, b))
    p, q = p.astype(np.float32), q.astype(np.float32)
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
