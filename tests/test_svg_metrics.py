"""svg answers beside their targets: the canvas that both are drawn on, and the numbers of the svg benchmarks."""

import io
import json
import math
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from test_render import draws, need

import reward
import train_virl
from corpus.chunks import Chunks
from data import Sample
from languages import LANGUAGES
from languages.svg import CAIROSVG
from metrics import pixels
from metrics.scoring import Scorer
from prompts import fenced
from render import Renderer, Rendering, within
from report import audit

PATIENCE = 300.0  # seconds: nothing here is about time
PAIRS_BESIDE = Path(__file__).parent.parent.parent / "shared/cases/metrics"
OPEN = '<svg xmlns="http://www.w3.org/2000/svg" '
FLAG = OPEN + 'viewBox="0 0 64 48"><path fill="{}" d="M0 0h64v16H0z"/><path fill="{}" d="M0 32h64v16H0z"/></svg>'
DUTCH = FLAG.format("red", "blue")


@pytest.fixture(scope="module")
def renderer():
    need("svg")
    with Renderer(workers=1, timeout=PATIENCE) as shared:
        yield shared


@pytest.fixture(scope="module")
def cairosvg(renderer):
    """The renderer, where it can draw as the benchmarks do."""
    if renderer.render(LANGUAGES["svg"].sample, CAIROSVG, (8, 8)).image is None:
        pytest.skip(renderer.missing[CAIROSVG])
    return renderer


def svg_sample(code, image):
    return Sample("s", "svg", "svg", image, "Write SVG code.", code)


# ---------------------------------------------------------------------------------------------------------- the canvas
BODY = '<rect x="0" y="0" width="64" height="48" fill="red"/>'
ROOTS = {  # the root's attributes -> where BODY lies on a canvas of 64 x 64, rows and columns
    "a viewBox": ('viewBox="0 0 64 48"', (8, 56, 0, 64)),
    "a size": ('width="128" height="96" viewBox="0 0 64 48"', (8, 56, 0, 64)),
    "a size in percent": ('width="100%" height="100%" viewBox="0 0 64 48"', (8, 56, 0, 64)),
    "a size without viewBox": ('width="64" height="48"', (8, 56, 0, 64)),
    "a size of the style": ("style='width: 12px !important; height: 9px' viewBox='0 0 64 48' ", (8, 56, 0, 64)),
    "a style that ends within brackets": ('viewBox="0 0 64 48" style="fill: rgb("', (8, 56, 0, 64)),
    "a size in an entity": ('viewBox="0 0 64 &a;"', (8, 56, 0, 64)),
    "another place": ('viewBox="0 0 64 48" preserveAspectRatio="xMidYMin"', (0, 48, 0, 64)),
    "no ratio": ('viewBox="0 0 64 48" preserveAspectRatio="none"', (0, 64, 0, 64)),
    "half of a tall one": ('viewBox="0 0 64 128"', (0, 24, 16, 48)),
}


@pytest.mark.parametrize("pen", ["librsvg", "browser"])
@pytest.mark.parametrize("root", ROOTS)
def test_drawn_onto_a_canvas(renderer, root, pen):
    attributes, (top, bottom, left, right) = ROOTS[root]
    code = f'<!DOCTYPE svg [<!ENTITY a "48">]><!-- <svg> -->{OPEN}{attributes}>{BODY}</svg>'
    if pen == "browser":
        need("html")
        code = code.replace('fill="red"', 'style="--a: red; fill: var(--a)"')
    wanted = np.full((64, 64, 3), 255)
    wanted[top:bottom, left:right] = (255, 0, 0)
    drawn = renderer.render(code, "svg", (64, 64))
    assert drawn.error is None and np.array_equal(np.asarray(drawn.image), wanted)


def test_a_canvas_of_its_own_ratio_changes_nothing(renderer):
    code = FLAG.format("url(#g)", "teal").replace("><", '><linearGradient id="g"><stop/></linearGradient><', 1)
    natural = draws(renderer, code, "svg")
    assert natural.size == (448, 336)
    assert renderer.render(code, "svg", (448, 336)).image.tobytes() == natural.tobytes()
    assert renderer.render(code, "svg", (448, 335)).image.size == (448, 335)


def test_pictures_are_kept_by_their_canvas(renderer):
    sizes = [renderer.render(DUTCH, "svg", canvas).image.size for canvas in ((60, 60), (60, 90), None, (60, 60))]
    assert sizes == [(60, 60), (60, 90), (448, 336), (60, 60)]
    assert renderer.submit(DUTCH, "svg", (60, 60)) is renderer.submit(DUTCH, "svg", (60, 60))


def test_a_canvas_is_bounded_and_other_languages_have_none(renderer):
    need("html")
    assert within(100, 5, 5) == (5, 5) and within(100, 20, 20) == (10, 10)
    for huge in ((10**9, 1), (1, 10**9), (10**6, 10**6)):
        width, height = within(100, *huge)
        assert width >= 1 and height >= 1 and width * height <= 100
    with Renderer(workers=1, max_pixels=40_000, timeout=PATIENCE) as small:
        assert small.render(DUTCH, "svg", (5000, 5000)).image.size == (200, 200)
    assert renderer.submit("<p>a</p>", "html", (9, 9)) is renderer.submit("<p>a</p>", "html")


def test_a_perfect_answer_to_a_letterboxed_flag_is_worth_all(cairosvg, tmp_path):
    """In the reward, in evaluation, on the command line; whether we drew the target or cairosvg did."""
    judge = reward.Rewards()
    for pen, least in (("svg", 1 - 1e-6), (CAIROSVG, 0.99)):
        target = cairosvg.render(DUTCH, pen, (336, 336)).image
        shown = cairosvg.render(DUTCH, "svg", target.size)
        (score,) = judge.score([svg_sample(DUTCH, target)], [fenced(DUTCH, "svg")], [shown])
        assert score.visual >= least and score.total >= least and pixels.ssim(target, shown.image) >= least
        for published in (False, True):
            scorer = Scorer(cairosvg, as_published=published)
            job = scorer.submit(svg_sample(DUTCH, target), DUTCH)
            values = scorer.measure(job, job.rendering.result())
            psnr = 0 if published else 100  # of equal pictures
            best = {"unisvg.ssim": 1, "unisvg.psnr": psnr, "starvector.mse": 0, "starvector.ssim": 1}
            assert values == pytest.approx(best | {"starvector.masked_mse": 0}, abs=1e-9)


def test_an_answer_is_drawn_onto_its_target_wherever_it_is_compared(monkeypatch, tmp_path, capsys):
    class Noting:
        """Notes canvases; draws nothing."""

        def __init__(self, **_):
            self.canvases = []

        def submit(self, code, language, canvas=None):
            self.canvases += [canvas] if language == "svg" else []
            future = Future()
            future.set_result(Rendering(None, "not drawn", 0.0))
            return future

        def render(self, *program):
            return self.submit(*program).result()

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

    sample = svg_sample(DUTCH, Image.new("RGB", (90, 60), "red"))
    noted = {name: Noting() for name in ("evaluation", "ViRL", "audit", "drafts", "reward.py")}
    Scorer(noted["evaluation"]).submit(sample, DUTCH)

    completion = SimpleNamespace(number=0, index=0, text=f"```svg\n{DUTCH}\n```")
    monkeypatch.setattr(train_virl, "generate", lambda *_: [completion])
    policy = SimpleNamespace(device=SimpleNamespace(type="cpu"))
    train_virl.rollout(policy, {0: (sample, None)}, noted["ViRL"], train_virl.Config(group=1), 0)

    audit.examine([sample], {}, noted["audit"])

    chunks = Chunks.__new__(Chunks)
    chunks.renderer, chunks.workers, chunks.seconds = noted["drafts"], 1, train_virl.defaultdict(float)
    list(chunks._draw([(SimpleNamespace(), sample)], lambda *_: None))
    picture = io.BytesIO()
    sample.image.save(picture, "png")
    chunks.config, entry = None, {"image": picture.getvalue()}
    given = sample.__class__(**vars(sample) | {"draft": DUTCH})
    chunks._given_drafts([(None, given, entry | {"came_with_draft": True})], lambda *_: None)

    (tmp_path / "target.png").write_bytes(picture.getvalue())
    (tmp_path / "answer.svg").write_text(DUTCH)
    monkeypatch.setattr(reward, "Renderer", lambda **_: noted["reward.py"])
    monkeypatch.setattr("sys.argv", ["reward.py", str(tmp_path / "target.png"), str(tmp_path / "answer.svg")])
    with pytest.raises(SystemExit, match="did not render"):
        reward.main()
    for name, one in noted.items():
        assert one.canvases and set(one.canvases) == {(90, 60)}, name


# ------------------------------------------------------------------------------------------------------------ formulas
def test_pixel_metrics_by_hand():
    black, white = Image.new("RGB", (512, 512)), Image.new("RGB", (512, 512), "white")
    half = white.copy()
    half.paste("black", (0, 0, 256, 512))
    assert pixels.starvector(white, black)["mse"] == 1 and pixels.starvector(white, half)["mse"] == 0.5
    left, right = half, half.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    for drawn in (white, right):
        assert pixels.starvector(left, drawn)["masked_mse"] == 1, "nothing is drawn in both"
        assert pixels.starvector(left, drawn, as_published=True)["masked_mse"] == 0
    assert pixels.starvector(white, white)["masked_mse"] == pixels.starvector(left, left)["masked_mse"] == 0
    grey = Image.new("RGB", (512, 512), (51, 51, 51))
    assert pixels.starvector(left, grey)["masked_mse"] == pytest.approx(0.5 * 0.2**2), "the half that both draw"
    dark = Image.new("RGB", (336, 336), (254, 254, 254))
    assert pixels.unisvg(Image.new("RGB", (336, 336), "white"), dark)["psnr"] == pytest.approx(10 * math.log10(255**2))
    published = pixels.unisvg(dark, Image.new("RGB", (336, 336), "white"), as_published=True)["psnr"]
    assert published == pytest.approx(10 * math.log10(255**2)), "255^2 wraps to 1 in uint8"
    assert pixels.unisvg(white, white)["psnr"] == 100
    assert pixels.unisvg(white, white, as_published=True)["psnr"] == 0, "an infinite value is left out of the sum"
    almost = dark.copy()
    almost.putpixel((9, 9), (254, 254, 255))
    assert pixels.unisvg(dark, almost)["psnr"] == 100 < pixels.unisvg(dark, almost, as_published=True)["psnr"]


def test_a_picture_in_a_square():
    wide = pixels.in_square(Image.new("RGB", (40, 30), "red"), 40)
    assert wide.getbbox() == (0, 0, 40, 40) and [wide.getpixel((9, y))[1] for y in (4, 5, 34, 35)] == [255, 0, 0, 255]
    tall = pixels.in_square(Image.new("RGB", (10, 20), "red"), 80)
    assert tall.size == (80, 80) and tall.getpixel((40, 40)) == (255, 0, 0) and tall.getpixel((5, 40)) == (255,) * 3


# ------------------------------------------------------------------------------------------ the benchmarks' own numbers
SQUARE = OPEN + 'viewBox="0 0 10 10">{}</svg>'
DISC = '<circle cx="{}" cy="5" r="{}" fill="{}"/>'
GRADIENT = SQUARE.format(
    '<linearGradient id="g"><stop stop-color="{}"/><stop offset="1" stop-color="#fff8"/></linearGradient>'
    '<rect width="10" height="9" fill="url(#g)"/>'
)
IN_MM = OPEN + 'width="40mm" height="20mm"><rect x="{}mm" y="4mm" width="9mm" height="9mm" fill="teal"/></svg>'
FITTED = OPEN + 'viewBox="0 0 20 10" preserveAspectRatio="{}"><path d="M0 0h20v10z" fill="navy"/></svg>'
CURVE = SQUARE.format('<path d="M1 9C1 1 9 1 9 9" fill="none" stroke="#a00" stroke-width="{}" stroke-dasharray="2 1"/>')
PERCENT = OPEN + 'viewBox="0 0 40 30"><rect width="{}%" height="50%" fill="green"/></svg>'
FIRST, SECOND = SQUARE.format(DISC.format(3, 3, "red")), SQUARE.format(DISC.format(6, 2, "red"))
PAIRS = {
    "equal": (DUTCH, DUTCH),
    "colours swapped": (DUTCH, FLAG.format("blue", "red")),
    "another ratio": (DUTCH, DUTCH.replace("64 48", "64 64")),
    "moved": (FIRST, SECOND),
    "apart": (SQUARE.format(DISC.format(2, 2, "red")), SQUARE.format(DISC.format(8, 1, "red"))),
    "a part is missing": (SQUARE.format(DISC.format(3, 3, "red") + DISC.format(7, 3, "#00f8")), FIRST),
    "gradient": (GRADIENT.replace("{}", "#123456"), GRADIENT.replace("{}", "#654321")),
    "in mm": (IN_MM.format(5), IN_MM.format(8)),
    "stretched": (FITTED.format("xMidYMid"), FITTED.format("none")),
    "cut": (FITTED.format("xMidYMid"), FITTED.format("xMinYMin slice")),
    "strokes": (CURVE.format(1), CURVE.format(0.7)),
    "in percent": (PERCENT.format(50), PERCENT.format(100)),
}
# SSIM, PSNR by UniSVG's evaluation.py (Ryanlijinke/unisvg.github.io, 82b0a89), MSE, masked MSE, SSIM by SVG-Bench's
# metrics (joanrod/star-vector, 0e083c1), each from what it draws, with cairosvg 2.9.1 and scikit-image 0.26
NUMBERS = {
    "equal": (1, 0, 0, 0, 1),
    "colours swapped": (0.636566, 52.902016, 0.333333, 0.333333, 0.633703),
    "another ratio": (0.6244, 52.902016, 0.333333, 0, 0.62037),
    "moved": (0.768363, 48.449255, 0.199798, 0.000561, 0.766536),
    "apart": (0.877073, 50.989992, 0.104277, 0, 0.876066),
    "a part is missing": (0.786721, 49.536219, 0.187963, 0.041482, 0.785268),
    "gradient": (0.947794, 28.767935, 0.015253, 0.015253, 0.947692),
    "in mm": (0.965734, 51.567973, 0.016633, 0.000174, 0.964861),
    "stretched": (0.722476, 48.595825, 0.233509, 0.000342, 0.719797),
    "cut": (0.679756, 48.016805, 0.280433, 0.00024, 0.67712),
    "strokes": (0.912165, 44.779498, 0.022149, 0.00127, 0.909412),
    "in percent": (0.796538, 54.151404, 0.187337, 0, 0.79463),
}
NAMES = ("unisvg.ssim", "unisvg.psnr", "starvector.mse", "starvector.masked_mse", "starvector.ssim")


def measured(renderer, gold, answer, published=True, image=None, given=True):
    scorer = Scorer(renderer, as_published=published)
    job = scorer.submit(svg_sample(gold, image or draws(renderer, gold, "svg")), answer, given)
    return scorer.measure(job, job.rendering.result() if job.rendering else Rendering(None, "no code", 0.0))


@pytest.mark.parametrize("pair", PAIRS)
def test_as_published_equals_the_benchmarks_own_numbers(cairosvg, pair):
    assert measured(cairosvg, *PAIRS[pair]) == pytest.approx(dict(zip(NAMES, NUMBERS[pair], strict=True)), abs=1e-5)


def test_as_published_equals_the_benchmarks_on_pairs_of_others(cairosvg):
    if not PAIRS_BESIDE.is_dir():
        pytest.skip("../shared/cases/metrics is not here: pairs with what the benchmarks' own code gave for each")
    every = json.loads((PAIRS_BESIDE / "originals.json").read_text())
    pairs = {name: values["svg"] for name, values in every.items() if "svg" in values}
    assert len(pairs) >= 10
    for name, numbers in pairs.items():
        gold, answer = (Path(f"{PAIRS_BESIDE}/pairs/{name}.{side}.svg").read_text() for side in ("gold", "pred"))
        wanted = [numbers[metric.replace(".", "_pipe.")] for metric in ("uni.ssim", "uni.psnr")]
        wanted += [numbers[f"star_pipe.{metric}"] for metric in ("mse", "masked_mse", "ssim")]
        assert measured(cairosvg, gold, answer) == pytest.approx(dict(zip(NAMES, wanted, strict=True)), abs=1e-3), name


def test_the_default_differs_where_it_says(cairosvg):
    """Not in what is drawn: only in formulas, and in what a failure counts."""
    for gold, answer in (PAIRS["moved"], PAIRS["in mm"]):
        default, published = (measured(cairosvg, gold, answer, published=flag) for flag in (False, True))
        differ = {name for name in NAMES if default[name] != published[name]}
        assert differ == {"unisvg.psnr", "starvector.ssim"} and default["unisvg.psnr"] < published["unisvg.psnr"]
    assert measured(cairosvg, *PAIRS["equal"], published=False)["unisvg.psnr"] == 100


def test_what_an_answer_counts_that_draws_nothing(cairosvg):
    gold, empty = FIRST, OPEN + 'viewBox="0 0 9 9"/>'
    white = measured(cairosvg, gold, empty)
    # no answer at all, one without svg, one whose svg draws nothing and is left out
    cases = ((None, False, [0.0, 0.0]), (None, True, [white[name] for name in NAMES[:2]]), ("<svg", True, [None] * 2))
    for answer, given, counted in cases:
        default, published = (measured(cairosvg, gold, answer, flag, given=given) for flag in (False, True))
        assert [default[name] for name in NAMES[:2]] == [0.0] * 2
        assert [published[name] for name in NAMES[:2]] == counted
        assert [published[name] for name in NAMES[2:]] == [white[name] for name in NAMES[2:]], "a white picture"


def test_unisvg_compares_with_its_own_pictures(cairosvg):
    own = Image.new("RGB", (pixels.UNISVG_SIDE,) * 2, "white")
    values = measured(cairosvg, FIRST, FIRST, image=own)
    drawn = cairosvg.render(FIRST, CAIROSVG, own.size).image
    assert values["unisvg.ssim"] == pytest.approx(pixels.unisvg(own, drawn)["ssim"]) and values["unisvg.ssim"] < 0.9
    assert values["starvector.ssim"] == 1, "SVG-Bench draws its references"


def test_pictures_without_a_program_are_brought_to_the_canvas(cairosvg):
    """RL rows have no reference: what is compared then are the pictures themselves."""
    target = draws(cairosvg, DUTCH, "svg")
    for answer, best in ((DUTCH, True), (DUTCH.replace("red", "green"), False)):
        own = measured(cairosvg, "", answer, published=False, image=target)
        assert (own["unisvg.psnr"] == 100 and own["starvector.mse"] == 0) == best
    drawn = draws(cairosvg, DUTCH.replace("red", "green"), "svg")
    assert own["unisvg.ssim"] == pixels.unisvg(pixels.in_square(target, 336), pixels.in_square(drawn, 336))["ssim"]


def test_without_cairosvg_the_default_says_so_and_as_published_refuses(renderer, capsys):
    class Without:
        missing = {CAIROSVG: "libcairo is not here"}

        def submit(self, code, language, canvas=None):
            if language != CAIROSVG:
                return renderer.submit(code, language, canvas)
            future = Future()
            future.set_result(Rendering(None, self.missing[CAIROSVG], 0.0))
            return future

    without, sample = Without(), svg_sample(DUTCH, draws(renderer, DUTCH, "svg"))
    scorer = Scorer(without)
    for _ in range(2):
        job = scorer.submit(sample, DUTCH)
        assert scorer.measure(job, job.rendering.result())["unisvg.psnr"] == 100
    assert capsys.readouterr().err.count("libcairo is not here") == 1
    published = Scorer(without, as_published=True)
    job = published.submit(sample, DUTCH)
    with pytest.raises(ValueError, match="need cairosvg.*libcairo is not here"):
        published.measure(job, job.rendering.result())
