"""The reward: the paper's released numbers in one mode, sensible properties in the other."""

import importlib.util
import itertools
import json
import re
import subprocess
import sys
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFilter
from scipy.stats import spearmanr
from torch.nn.functional import cosine_similarity

import data
import features
import reward
import train_virl
from data import Sample
from render import Rendering
from report import audit
from reward import Rewards, Visual, visual_of
from rewards.vincicoder import Released, vincicoder_grid

ROOT = Path(__file__).parents[1]
FACTS = ROOT.parent / "shared" / "reference"
needs_facts = pytest.mark.skipif(not FACTS.is_dir(), reason="needs ../shared/reference, the released code's numbers")
reward_modes = ("calibrated", "vincicoder")
KINDS = ("circle", "square", "triangle")
COLOURS = ("crimson", "royalblue", "seagreen", "darkorange", "purple", "teal", "black", "gold")


def draw(shapes, background="white", side=64, scale=4) -> Image.Image:
    """A picture of [(kind, x, y, radius, colour)], anti-aliased."""
    image = Image.new("RGB", (side * scale, side * scale), background)
    pen = ImageDraw.Draw(image)
    for kind, x, y, r, colour in shapes:
        box = [(x - r) * scale, (y - r) * scale, (x + r) * scale, (y + r) * scale]
        if kind == "circle":
            pen.ellipse(box, fill=colour)
        elif kind == "square":
            pen.rectangle(box, fill=colour)
        else:
            pen.polygon([(box[0], box[3]), (box[2], box[3]), (x * scale, box[1])], fill=colour)
    return image.resize((side, side), Image.Resampling.BOX)


def shapes_of(seed: int, n: int = 2):
    """n shapes in different quarters of a 64 px picture, of different colours."""
    rng = np.random.default_rng(seed)
    colours, quarters = rng.permutation(len(COLOURS))[:n], rng.permutation(4)[:n]
    return [
        (
            KINDS[rng.integers(3)],
            14 + 32 * (q % 2) + int(rng.integers(4)),
            14 + 32 * (q // 2) + int(rng.integers(4)),
            int(rng.integers(7, 12)),
            COLOURS[c],
        )
        for q, c in zip(quarters, colours, strict=True)
    ]


def line_drawing(seed: int, size=(480, 360)) -> Image.Image:
    """Thin black lines and small text on white, as a chart, a molecule or a formula."""
    rng = np.random.default_rng(seed)
    image = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(image)
    points = [(int(x), int(y)) for x, y in rng.uniform(0.1, 0.9, (7, 2)) * size]
    pen.line(points, fill="black", width=2)
    for x, y in points[:4]:
        pen.text((x, y), f"{rng.integers(100)}", fill="black")
    return image


def shifted(image: Image.Image, pixels: int) -> Image.Image:
    moved = Image.new("RGB", image.size, "white")
    moved.paste(image, (pixels, 0))
    return moved


def scores(target: Image.Image, *attempts: Image.Image, by: Visual | None = None) -> list[reward.Likeness]:
    renderings = [Rendering(image=attempt, error=None, seconds=0.0) for attempt in attempts]
    return (by or Visual()).compare([target] * len(attempts), renderings)


def judged(by: Rewards, target: Image.Image, *answers: tuple[Rendering, str]) -> list[reward.Score]:
    """(rendering, text) of answers to one target, which asks for svg."""
    renderings, texts = zip(*answers, strict=True)
    return by.score([Sample("a", "svg", "svg", target, "Write SVG code.")] * len(answers), texts, renderings)


def visuals(target, *attempts, by=None) -> list[float]:
    return [score.visual for score in scores(target, *attempts, by=by)]


@pytest.fixture(scope="module")
def dino_folder(tmp_path_factory):
    """A DINOv2 with random weights, large enough ones that pictures differ in its eyes."""
    from transformers import Dinov2Config, Dinov2Model

    config = Dinov2Config(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, patch_size=56, image_size=448)
    torch.manual_seed(0)
    model = Dinov2Model(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    folder = tmp_path_factory.mktemp("dino")
    model.save_pretrained(folder)
    return str(folder)


# The released reward, written down independently of reward.py ---------------------------------------------------------


def released_grid(width, height):
    grids = {(i, j) for n in range(1, 13) for i in range(1, n + 1) for j in range(1, n + 1) if i * j <= 12}
    best, best_difference = (1, 1), float("inf")
    for i, j in sorted(grids, key=lambda grid: grid[0] * grid[1]):
        difference = abs(width / height - i / j)
        larger = difference == best_difference and width * height > 0.5 * 448 * 448 * i * j
        if difference < best_difference or larger:
            best, best_difference = (i, j), difference
    return best


def released_frames(image):
    cols, rows = released_grid(*image.size)
    resized = image.resize((448 * cols, 448 * rows))
    corners = [(448 * (k % cols), 448 * (k // cols)) for k in range(cols * rows)]
    frames = [resized.crop((x, y, x + 448, y + 448)) for x, y in corners]
    if len(frames) > 1:
        frames.append(image.resize((448, 448)))
    mean, std = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
    pixels = np.stack([(np.asarray(f.convert("RGB"), np.float32) / 255 - mean) / std for f in frames])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).bfloat16().float()


@torch.no_grad()
def released_reward(folder, target, generated):
    from transformers import Dinov2Model

    model = Dinov2Model.from_pretrained(folder).eval()
    pictures = target, generated.convert("RGB").resize(target.size, Image.Resampling.BICUBIC)
    cls = [model(released_frames(p), output_hidden_states=True).hidden_states[-1][:, 0] for p in pictures]
    return ((cosine_similarity(*cls) + 1) / 2).mean().item()


# Mode vincicoder ------------------------------------------------------------------------------------------------------


@needs_facts
def test_tile_grids_equal_the_released_codes():
    for fact in json.loads((FACTS / "tiling_facts.json").read_text())["facts"]:
        assert vincicoder_grid(fact["width"], fact["height"]) == (fact["cols"], fact["rows"]), fact


@needs_facts
def test_rewards_equal_the_released_codes():
    spec = importlib.util.spec_from_file_location("facts", FACTS / "reward_facts_gen.py")
    generator = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generator)
    facts = json.loads((FACTS / "reward_facts.json").read_text())["pairs"]
    names, targets, attempts = zip(*generator.pairs(), strict=True)
    assert list(names) == [fact["name"] for fact in facts]
    renderings = [Rendering(image=attempt, error=None, seconds=0.0) for attempt in attempts]
    by = Released(str(FACTS / "tiny_dino"), batch_frames=16)
    for score, fact in zip(by.compare(targets, renderings), facts, strict=True):
        assert score.visual == pytest.approx(fact["reward"], abs=2e-4), fact["name"]
        cosines = [*fact["cosine_per_frame"]]
        coarse = cosines.pop() if len(cosines) > 1 else cosines[0]
        assert [2 * s - 1 for s in score.fine] == pytest.approx(cosines, abs=2e-3), fact["name"]
        assert 2 * score.coarse - 1 == pytest.approx(coarse, abs=2e-3), fact["name"]


def test_vincicoder_mode_equals_an_independent_reference(dino_folder):
    grey = line_drawing(3, (300, 200)).convert("L")
    palette = line_drawing(4, (200, 260)).quantize(16)
    clear = line_drawing(5, (120, 40)).convert("RGBA")
    clear.putalpha(clear.convert("L").point(lambda v: 255 - v))
    by = Released(dino_folder, batch_frames=8)
    for target in (line_drawing(0), draw(shapes_of(1)), grey, palette, clear):
        for attempt in (line_drawing(6), target.convert("RGB")):
            expected = released_reward(dino_folder, target, attempt)
            assert visuals(target, attempt, by=by)[0] == pytest.approx(expected, abs=1e-5)


def test_vincicoder_grid_is_the_sorted_set_of_the_released_code():
    rng = np.random.default_rng(0)
    sizes = [(w, h) for w in (1, 30, 448, 640, 1000, 3000) for h in (1, 30, 448, 640, 1000, 3000)]
    for width, height in sizes + rng.integers(1, 3000, (200, 2)).tolist():
        assert vincicoder_grid(width, height) == released_grid(width, height), (width, height)


# Mode calibrated ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoder", ["pyramid", "dino"])
def test_identical_is_one_and_plain_pages_are_nothing(encoder, dino_folder):
    by = Visual(encoder="pyramid" if encoder == "pyramid" else dino_folder)
    for target in (draw(shapes_of(0)), draw(shapes_of(1, 3), "navy"), line_drawing(2), line_drawing(3, (900, 200))):
        mean = target.resize((1, 1), Image.Resampling.BOX).resize(target.size)
        plain = [Image.new("RGB", target.size, colour) for colour in ("white", "black", "crimson", "#eeeeee")]
        same, *rest = visuals(target, target.copy(), mean, *plain, by=by)
        assert same == pytest.approx(1.0, abs=1e-6)
        assert max(rest) <= 0.02


def test_a_dot_on_a_plain_page_is_hardly_worth_more():
    target = draw(shapes_of(1))
    assert (
        max(visuals(target, draw([("square", 60, 60, 1, "black")]), draw([("square", 60, 60, 1, "red")], "grey"))) < 0.1
    )


def test_signal_on_small_scenes():
    """Right ~1, a little off a little less, wrong colour clearly lower, one of two about half, unrelated near 0."""
    by, values = Visual(), {"off by 4": [], "recoloured": [], "one missing": [], "unrelated": []}
    far_colour = dict(
        zip(COLOURS, ("teal", "gold", "purple", "royalblue", "gold", "crimson", "gold", "royalblue"), strict=True)
    )
    for seed in range(20):
        first, second = shapes_of(seed)
        kind, x, y, r, colour = first
        values["off by 4"].append(draw([(kind, x + 4, y, r, colour), second]))
        values["recoloured"].append(draw([(kind, x, y, r, far_colour[colour]), second]))
        values["one missing"].append(draw([second]))
        values["unrelated"].append(draw(shapes_of(seed + 100)))
    targets = [draw(shapes_of(seed)) for seed in range(20)]
    means = {
        name: np.mean([visuals(target, attempt, by=by)[0] for target, attempt in zip(targets, attempts, strict=True)])
        for name, attempts in values.items()
    }
    assert 0.8 < means["off by 4"] < 0.95, means
    assert 0.5 < means["recoloured"] < 0.8, means
    assert 0.4 < means["one missing"] < 0.7, means
    assert means["unrelated"] < 0.35, means


def graded(seed):
    """name -> pictures that differ more and more from draw(shapes_of(seed, 3))."""
    (kind, x, y, r, colour), *others = shapes = shapes_of(seed, 3)
    target = draw(shapes)
    red, green, blue = Image.new("RGB", (1, 1), colour).getpixel((0, 0))
    tints = [tuple(round(c + (255 - c - c) * k / 6) for c in (red, green, blue)) for k in range(5)]
    return target, {
        "shift": [shifted(target, k) for k in (0, 1, 2, 3, 5, 7, 10)],
        "move one": [draw([(kind, x, y + k, r, colour), *others]) for k in (0, 1, 2, 3, 5, 8)],
        "scale": [draw([(kind, x, y, r * k, colour), *others]) for k in (1, 1.1, 1.25, 1.5, 1.75)],
        "colour": [draw([(kind, x, y, r, tint), *others]) for tint in tints],
        "missing": [draw(shapes[: 3 - k]) for k in range(4)],
        "blur": [target.filter(ImageFilter.GaussianBlur(k)) for k in (0, 0.7, 1.5, 3, 6)],
        "smaller canvas": [target.resize((64, 64 - k)) for k in (0, 4, 8, 16, 32)],
    }


def test_more_error_costs_more():
    by, correlations = Visual(), {}
    for seed in range(8):
        target, kinds = graded(seed)
        for name, attempts in kinds.items():
            values = visuals(target, *attempts, by=by)
            assert values[0] == pytest.approx(1.0, abs=1e-6) and max(values[1:]) < 1
            correlations.setdefault(name, []).append(-spearmanr(range(len(values)), values).statistic)
    assert all(np.mean(values) >= 0.9 for values in correlations.values()), correlations
    assert np.mean([value >= 0.9 for values in correlations.values() for value in values]) >= 0.95, correlations


def test_small_errors_of_line_drawings_cost_little_and_other_drawings_are_low():
    by = Visual()
    for seed in range(6):
        target = line_drawing(seed)
        near, far, other, gone = visuals(
            target,
            shifted(target, 2),
            shifted(target, 24),
            line_drawing(seed + 50),
            Image.new("RGB", (480, 360), "white"),
            by=by,
        )
        assert near > 0.75 > far > other > gone and other < 0.4


def test_order_same_perturbed_other_blank():
    by, right, total = Visual(), 0, 0
    for seed in range(30):
        shapes = shapes_of(seed, 1 + seed % 3)
        kind, x, y, r, colour = shapes[0]
        perturbed = draw([(kind, x + 2, y, r, colour), *shapes[1:]])
        ranked = [draw(shapes), perturbed, draw(shapes_of(seed + 200, 2)), Image.new("RGB", (64, 64), "white")]
        values = visuals(draw(shapes), *ranked, by=by)
        right += sum(a > b for a, b in itertools.pairwise(values))
        total += 3
    assert right / total >= 0.97


def test_aspect_and_size_errors_cost_moderately():
    target = line_drawing(0, (400, 300))
    square, twice, a_pixel = visuals(
        target, target.resize((350, 350)), target.resize((800, 600)), target.resize((400, 301))
    )
    assert 0.6 < square < 0.9 and 0.85 < twice < 0.97 and a_pixel > 0.97
    assert reward.shape_factor((400, 300), (400, 300)) == 1
    assert reward.shape_factor((400, 100), (100, 100)) == pytest.approx(0.5 * (20000 / 170000) ** 0.05)


def test_a_blank_target_wants_a_blank_rendering():
    blank = Image.new("RGB", (64, 64), "white")
    same, some, full = visuals(
        blank, blank.copy(), draw([("circle", 20, 20, 5, "red")]), Image.new("RGB", (64, 64), "red")
    )
    assert same == 1 and 0.5 < some < 1 and full == 0


@pytest.mark.parametrize("side", [112, 48, 16, 7, 5, 4])
def test_a_pyramids_level_is_the_mean_of_overlapping_boxes(side):
    maps = torch.rand(2, 7, side, side)
    pooled = torch.nn.functional.avg_pool2d(maps, 4, stride=2, padding=1, count_include_pad=False)
    torch.testing.assert_close(features.halved(maps), pooled)


@pytest.mark.parametrize("mode", ["calibrated", "vincicoder"])
def test_modes_of_pictures_and_odd_sizes(mode):
    by, shown = visual_of(mode), draw(shapes_of(0))
    clear = shown.convert("RGBA")
    clear.putalpha(Image.fromarray(np.where(np.asarray(shown).min(2) == 255, 0, 255).astype(np.uint8)))
    for target in (shown.quantize(32), shown.convert("L"), clear, shown.convert("LA"), shown.convert("1")):
        (score,) = scores(target, reward.to_rgb(target), by=by)
        assert 0 <= score.visual <= 1 and (mode == "vincicoder" or score.visual == pytest.approx(1.0, abs=1e-6))
    for size in ((1, 1), (1, 700), (3000, 2), (23, 47), (1500, 100), (17, 16)):
        target, attempt = shown.resize(size), Image.new("RGB", size[::-1], "teal")
        for score in scores(target, attempt, target, by=by):
            assert 0 <= score.visual <= 1 + 1e-6 and len(score.fine) == score.grid[0] * score.grid[1] <= 12


def test_calibrated_grid_keeps_tiles_large_enough_and_nearly_square():
    assert features.calibrated_grid(64, 64) == (2, 2) and features.calibrated_grid(40, 40) == (1, 1)
    for width, height in ((64, 48), (336, 336), (640, 480), (1280, 3000), (200, 30), (1000, 1), (5, 900)):
        cols, rows = features.calibrated_grid(width, height)
        assert cols * rows <= 12 and (cols == 1 or width / cols >= 24) and (rows == 1 or height / rows >= 24)
    assert features.calibrated_grid(640, 480) == (4, 3) and features.calibrated_grid(1280, 3000) == (2, 5)


# Both modes: bookkeeping ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["calibrated", "vincicoder"])
def test_scores_do_not_depend_on_the_batch(mode):
    targets = [draw(shapes_of(i)) for i in range(4)] + [line_drawing(i, (200 + 90 * i, 200)) for i in range(4)]
    attempts = [draw(shapes_of(i + 1)) for i in range(4)] + [line_drawing(i + 1) for i in range(4)]
    renderings = [Rendering(image=attempt, error=None, seconds=0.0) for attempt in attempts]
    alone = [visuals(t, a, by=visual_of(mode))[0] for t, a in zip(targets, attempts, strict=True)]
    for order in (range(8), np.random.default_rng(0).permutation(8)):
        batch = visual_of(mode, batch_frames=10).compare([targets[i] for i in order], [renderings[i] for i in order])
        assert [score.visual for score in batch] == pytest.approx([alone[i] for i in order], abs=1e-5)


def test_equal_pictures_are_encoded_once_and_the_cache_is_bounded():
    by, target = Visual(), draw(shapes_of(0))
    group = [draw(shapes_of(i % 3)) for i in range(8)]  # three distinct renderings
    scores(target, *group, by=by)
    assert by.frames_encoded == 5 * (1 + 2) and by.cache_hits == 0, "one of the three is the target itself"
    scores(target.copy(), *group, by=by)
    assert by.frames_encoded == 5 * (1 + 2 + 2) and by.cache_hits == 1

    one = next(iter(by.cache.values())).nbytes()
    small = Visual(cache_mb=3.5 * one / 2**20)
    for i in range(6):
        same, other = visuals(draw(shapes_of(i)), draw(shapes_of(i)), target if i else group[1], by=small)
        assert same == pytest.approx(1.0, abs=1e-6) and 0 < other < 1
    assert len(small.cache) == 3
    assert visuals(draw(shapes_of(5)), target, by=small) == visuals(draw(shapes_of(5)), target, by=Visual())
    assert small.cache_hits == 1
    forgetful = Visual(cache_mb=0)
    assert visuals(target, target, by=forgetful) == [1.0] and forgetful.frames_encoded == 0, "equal: nothing to encode"
    assert visuals(target, group[1], by=forgetful) == visuals(target, group[1]) and not forgetful.cache


SVG = "```svg\n<svg/>\n```"


def test_total_alignment_and_failures():
    target = draw(shapes_of(0))
    good, failed = Rendering(image=target, error=None, seconds=0.0), Rendering(image=None, error="boom", seconds=0.1)
    a, b, c = judged(Rewards(["visual=0.8", "alignment=0.2"]), target, (good, SVG), (failed, SVG), (failed, "no"))
    assert a.total == pytest.approx(1.0, abs=1e-6) and a.executed and a.error is None
    assert (b.total, b.visual, b.executed, b.error) == (pytest.approx(0.2), 0.0, False, "boom")
    assert c.total == 0 and c.fine == [0.0] * 4 and sum(c.weights) == pytest.approx(1) and c.grid == (2, 2)
    assert sum(a.weights) == pytest.approx(1) and 0.9 * a.visual <= a.coarse <= 1
    assert a.parts == {"visual": 1.0, "alignment": 1.0} and c.parts == {"visual": 0.0, "alignment": 0.0}
    assert Rewards().score([], [], []) == []


def test_alignment_asks_for_a_closed_block_in_the_language():
    assert reward.alignment("Here:\n```svg\n<svg/>\n```", "svg") == 1.0
    assert reward.alignment("```html\n<p>\n```", "svg") == 0.0
    assert reward.alignment("```svg\n  \n```", "svg") == 0.0
    assert reward.alignment("no code", "python") == 0.0


# Answers, and what the released code's `extract_code` and `cal_format_reward` gave for them (VinciCoder dbe1e94).
RELEASED_FORMAT = [  # (its reward, language, answer)
    (1, "python", "```python\nx = 1\n```"),
    (1, "python", "Here it is:\n\n```python\nx = 1\n```\nThat is all."),
    (0, "python", "```Python\nx = 1\n```"),
    (0, "python", "```PYTHON\nx\n```"),
    (0, "python", "```py\nx = 1\n```"),
    (1, "python", "```python3\nx = 1\n```"),
    (0, "python", "``` python\nx = 1\n```"),
    (1, "python", "```python x = 1```"),
    (1, "python", "```python```"),
    (1, "python", "```python\n```"),
    (1, "python", "```python\n   \n```"),
    (0, "python", "```python\nx = 1"),
    (0, "python", "x = 1"),
    (0, "python", ""),
    (0, "python", "```\nx = 1\n```"),
    (1, "python", "````python\nx\n````"),
    (0, "python", "~~~python\nx\n~~~"),
    (0, "python", "```python\nx\n``"),
    (1, "python", "```python\nx```"),
    (1, "python", "   ```python\n   x\n   ```"),
    (1, "python", "> ```python\n> x\n> ```"),
    (0, "python", "```svg\n<svg/>\n```"),
    (1, "python", "```python {.line}\nx\n```"),
    (0, "python", "```{.python}\nx\n```"),
    (1, "python", "```python\nx\n```svg\n<svg/>"),
    (0, "python", "```svg\n<svg/>\n```python"),
    (0, "python", "text ```python text"),
    (0, "python", "python\nx\n```"),
    (1, "python", "```pythonx```"),
    (1, "python", "```python\r\nx\r\n```"),
    (1, "latex", "```latex\n\\draw\n```"),
    (0, "latex", "```tex\n\\draw\n```"),
    (0, "latex", "```tikz\n\\draw\n```"),
    (0, "latex", "```LaTeX\n\\draw\n```"),
    (1, "latex", "```latex```"),
    (1, "latex", "```tikz\n\\draw\n```\n```latex\n\\draw\n```"),
    (1, "svg", "```svg\n<svg/>\n```"),
    (1, "svg", "```svg+xml\n<svg/>\n```"),
    (0, "svg", "```xml\n<svg/>\n```"),
    (0, "svg", "<svg/>"),
    (0, "svg", "```SVG\n<svg/>\n```"),
    (1, "svg", "Use ```svg <svg/> ``` inline"),
    (1, "html", "```html\n<p>\n```"),
    (1, "html", "```html5\n<p>\n```"),
    (0, "html", "```htm\n<p>\n```"),
    (0, "html", "```HTML\n<p>\n```"),
    (0, "html", "```xhtml\n<p>\n```"),
    (1, "html", "```html\n<pre>```</pre>"),
    (1, "mermaid", "```mermaid\ngraph TD\n```"),
    (0, "mermaid", "```mmd\ngraph TD\n```"),
]


def test_format_reward_equals_the_released_codes():
    found = [(Released().alignment(text, language), language, text) for _, language, text in RELEASED_FORMAT]
    assert found == RELEASED_FORMAT and len(found) == 50


def test_without_a_block_the_released_code_gives_nothing():
    target = draw(shapes_of(0))
    drawn = Rendering(image=target, error=None, seconds=0.0)
    totals = {mode: judged(Rewards(mode=mode), target, (drawn, SVG), (drawn, "")) for mode in reward_modes}
    totals = {mode: [score.total for score in scores] for mode, scores in totals.items()}
    assert totals == {"calibrated": pytest.approx([1.0, 0.9]), "vincicoder": pytest.approx([1.0, 0.0])}


def test_errors_name_the_remedy(tmp_path):
    with pytest.raises(ValueError, match="unknown reward mode 'best'"):
        visual_of("best")
    with pytest.raises(ValueError, match="1 samples, 0 texts, 0 renderings: give the same number"):
        Rewards().score([Sample("a", "svg", "svg", draw([]), "")], [], [])
    with pytest.raises(FileNotFoundError, match="no encoder at"):
        Visual(encoder=str(tmp_path / "absent"))
    with pytest.raises(RuntimeError, match="cannot load a DINOv2 encoder"):
        Visual(encoder=str(tmp_path))


# rewards and encoders of one's own ------------------------------------------------------------------------------------

OWN = """
import numpy as np
import torch

def shorter(samples, texts, renderings):
    assert samples[0].image.size == (64, 64) and renderings[0].error is None
    return [1 / (1 + len(text)) for text in texts]

def reds(samples, texts, renderings):
    return torch.tensor([np.asarray(r.image)[..., 0].mean() / 255 for r in renderings])

def visual(samples, texts, renderings): return [0] * len(texts)
def not_a_number(samples, texts, renderings): return [0.5, float("nan")]
def nothing(samples, texts, renderings): return [0.5, None]
def too_few(samples, texts, renderings): return [0.5]
def a_column(samples, texts, renderings): return np.ones((2, 1))
def words(samples, texts, renderings): return ["much", "little"]
def forgets(samples, texts, renderings): pass
def broken(samples, texts, renderings):
    return [1 / 0 for text in texts]
"""


@pytest.fixture
def own(tmp_path) -> str:
    (tmp_path / "own.py").write_text(OWN)
    return str(tmp_path / "own.py")


def two(by: Rewards) -> list[reward.Score]:
    """Two answers to one target."""
    attempts = [Rendering(draw(shapes_of(seed)), None, 0.0) for seed in (1, 2)]
    return judged(by, draw(shapes_of(0)), (attempts[0], SVG), (attempts[1], "no block"))


@pytest.mark.parametrize("mode", reward_modes)
def test_the_total_is_the_weighted_sum_of_what_was_chosen(own, mode):
    chosen = ["visual=0.5", f"{own}:shorter=2", f"{own}:reds", "alignment=0"]
    scores, usual = two(Rewards(chosen, mode)), two(Rewards(mode=mode))
    for score, default, text in zip(scores, usual, (SVG, "no block"), strict=True):
        assert list(score.parts) == ["visual", "shorter", "reds", "alignment"]
        assert score.parts["shorter"] == 1 / (1 + len(text)) and 0.5 < score.parts["reds"] < 1
        total = 0.5 * score.visual + 2 * score.parts["shorter"] + score.parts["reds"]
        assert score.total == (pytest.approx(total, abs=1e-12) if mode == "calibrated" or score.alignment else 0)
        assert (score.visual, score.fine, score.alignment) == (default.visual, default.fine, default.alignment)
    only = two(Rewards([f"{own}:reds"]))  # calibrated
    assert [s.total for s in only] == [s.parts["reds"] for s in scores]


def test_the_default_is_nine_tenths_of_the_likeness_and_one_of_the_block():
    likenesses = Visual().compare([draw(shapes_of(0))] * 2, [Rendering(draw(shapes_of(k)), None, 0.0) for k in (1, 2)])
    totals = [(1 - 0.1) * s.visual + 0.1 * aligned for s, aligned in zip(likenesses, (1.0, 0.0), strict=True)]
    assert [score.total for score in two(Rewards())] == totals
    share = train_virl.rewards_of(train_virl.Config(alignment_weight=0.1))
    assert [score.total for score in two(share)] == totals


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        ("visual=much", "--reward visual=much: the weight 'much' is no number"),
        ("visual=nan", "--reward visual=nan: the weight has to be finite"),
        (
            "visuals",
            "--reward visuals: there is no such reward; use visual, alignment, text, judge or FILE.py:FUNCTION",
        ),
        ("gone.py:f", "gone.py:f: there is no file gone.py"),
        ("own.py:absent=0.5", "own.py has no function 'absent'; it has shorter, reds, visual"),
        ("own.py:visual", "visual has a meaning already; give the function another name"),
        ("bad.py:f", "bad.py cannot be imported: ZeroDivisionError: division by zero (bad.py line 2)"),
        ("unread.py:f", "unread.py cannot be imported: SyntaxError"),
    ],
)
def test_what_is_no_reward_is_said_in_one_sentence(own, choice, said, tmp_path, monkeypatch):
    (tmp_path / "bad.py").write_text("\nx = 1 / 0\n")
    (tmp_path / "unread.py").write_text("def f(:\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=re.escape(said)) as error:
        Rewards([choice])
    assert "\n" not in str(error.value)


def test_rewards_are_given_once(own, tmp_path):
    (tmp_path / "other.py").write_text(OWN)
    for chosen in (["visual", "visual=2"], [f"{own}:reds", f"{tmp_path}/other.py:reds"]):
        with pytest.raises(ValueError, match="two rewards named"):
            Rewards(chosen)
    assert list(Rewards([]).chosen) == ["visual", "text", "alignment"]
    with pytest.raises(ValueError, match="give one of the two"):
        train_virl.rewards_of(train_virl.Config(alignment_weight=0.5, reward=("visual",)))


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("not_a_number", "reward not_a_number gave nan for answer 1 of 2"),
        ("too_few", "reward too_few gave numbers of shape (1,) for 2 answers, not (2,)"),
        ("a_column", "reward a_column gave numbers of shape (2, 1) for 2 answers"),
        ("words", "reward words gave ['much', 'little'], which are no numbers"),
        ("forgets", "reward forgets gave None, which are no numbers"),
        ("broken", "reward broken raised ZeroDivisionError: division by zero (own.py line 20)"),
    ],
)
def test_a_reward_that_gives_no_numbers_is_named(own, function, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        two(Rewards([f"{own}:{function}"]))


def test_a_reward_that_has_nothing_to_say_gives_its_weight_to_the_first(own):
    first, second = two(Rewards(["visual=0.5", f"{own}:nothing=0.25"]))
    assert second.parts["nothing"] is None and second.total == pytest.approx(0.75 * second.visual)
    assert first.total == pytest.approx(0.5 * first.visual + 0.25 * first.parts["nothing"])


ENCODERS = """
import torch
from features import Features

class Encoder:
    def __init__(self, change=lambda vectors: Features(vectors)):
        self.change = change
    def frame_side(self, tile_width, tile_height): return 16
    def __call__(self, frames, backgrounds):
        pixels = frames.float()
        pixels = pixels if backgrounds is None else pixels - backgrounds[:, :, None, None]
        return self.change(pixels.flatten(1))

def good(): return Encoder()
def levels(): return Encoder(lambda v: Features(None, [v.abs()], [v.abs()]))
def one_frame(): return Encoder(lambda v: Features(v[0]))
def half_a_pair(): return Encoder(lambda v: Features(None, [v, v], [v]))
def both(): return Encoder(lambda v: Features(v, [v], [v]))
def neither(): return Encoder(lambda v: Features())
def a_list(): return Encoder(lambda v: [v])
def nan(): return Encoder(lambda v: Features(v / 0 * 0))
def huge(): return Encoder(lambda v: Features(v * 1e30))
def raises(): return Encoder(lambda v: v.absent)
def no_encoder(): return 7
"""


@pytest.fixture
def encoders(tmp_path) -> str:
    (tmp_path / "encoders.py").write_text(ENCODERS)
    return str(tmp_path / "encoders.py")


@pytest.mark.parametrize("mode", reward_modes)
def test_an_encoder_of_ones_own(encoders, mode):
    target = draw(shapes_of(0))
    for name in ("good", "Encoder", "levels"):
        by = visual_of(mode, f"{encoders}:{name}")
        same, near, other = visuals(target, target.copy(), shifted(target, 1), draw(shapes_of(5)), by=by)
        assert same == pytest.approx(1) and 1 > near > other >= 0 and by.frames_encoded > 0


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("one_frame", "one_frame gave (768,) for 5 frames, not (5, D)"),
        ("half_a_pair", "half_a_pair has to give vectors, or as many colours as edges, and not both"),
        ("both", "both has to give vectors, or as many colours as edges, and not both"),
        ("neither", "neither has to give vectors"),
        ("a_list", "a_list gave list, not features.Features"),
        ("nan", "nan gave features that are no finite numbers"),
        ("huge", "huge gave features too large to be compared"),
        ("raises", "raises raised AttributeError"),
        ("no_encoder", "no_encoder makes no encoder"),
        ("absent", "has no function 'absent'; it has Encoder, good"),
    ],
)
def test_an_encoder_that_cannot_be_compared_is_named(encoders, name, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        visuals(draw(shapes_of(0)), draw(shapes_of(1)), by=Visual(encoder=f"{encoders}:{name}"))


def test_the_audit_takes_any_reward(own):
    """Of which it shows the total: here that of a reward which all pictures of one text share."""

    class Nothing:
        def submit(self, *program):
            future = Future()
            future.set_result(Rendering(None, "not drawn", 0.0))
            return future

    code = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 64 64"/>'
    samples = [Sample(f"{seed}", "svg", "svg", draw(shapes_of(seed)), "SVG", code) for seed in range(2)]
    (found, _) = audit.examine(samples, {"mine": Rewards([f"{own}:shorter=3"])}, Nothing())["mine"]
    assert found.same == found.hacks["blank"] == found.graded["shift"][4] == 3 / (1 + len(data.answer_text(samples[0])))


def test_command_line_with_rewards_and_an_encoder_of_ones_own(own, encoders, tmp_path):
    draw(shapes_of(0)).save(tmp_path / "target.png")
    draw(shapes_of(0)[:1]).save(tmp_path / "attempt.png")
    chosen = ["--reward", "visual=0.5", "own.py:reds=2", "--encoder", "encoders.py:good"]
    done = run("target.png", "attempt.png", *chosen, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    said = dict(line.split(None, 1) for line in done.stdout.splitlines() if not line.startswith((" ", "fine", "wrote")))
    visual, reds = float(said["visual"].split(",")[0]), float(said["reds"].split(",")[0])
    assert said["reds"].endswith("weight 2") and float(said["total"]) == pytest.approx(
        0.5 * visual + 2 * reds, abs=2e-4
    )
    done = run("target.png", "attempt.png", "--reward", "own.py:words", cwd=tmp_path)
    assert done.returncode == 1 and done.stderr.startswith("reward.py: reward words gave ")
    assert len(done.stderr.strip().splitlines()) == 1


def run(*arguments, cwd):
    command = [sys.executable, str(ROOT / "reward.py"), *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True)


def test_command_line(tmp_path):
    draw(shapes_of(0)).save(tmp_path / "target.png")
    draw(shapes_of(0)[:1]).save(tmp_path / "attempt.png")
    done = run("target.png", "attempt.png", "-o", "out.png", cwd=tmp_path)
    assert done.returncode == 0 and "visual  0." in done.stdout and "2 x 2 tiles" in done.stdout, done.stderr
    with Image.open(tmp_path / "out.png") as picture:
        assert picture.width > picture.height > 200 and len(picture.convert("RGB").getcolors(1 << 20)) > 50


@pytest.mark.parametrize("attempt", ["absent.png", "broken.png", "absent.svg"])
def test_command_line_says_what_is_wrong_in_one_sentence(tmp_path, attempt):
    draw(shapes_of(0)).save(tmp_path / "target.png")
    (tmp_path / "broken.png").write_bytes((tmp_path / "target.png").read_bytes()[:100])
    done = run("target.png", attempt, cwd=tmp_path)
    assert done.returncode == 1 and attempt in done.stderr and "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1 and done.stderr.startswith("reward.py: ")


def run_audit(*arguments):
    command = [sys.executable, "-m", "report", "audit", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_audit_tells_errors_from_hacks(tmp_path):
    """The report card of a few programs: files written, same is 1, blank is 0, larger errors cost more."""
    rows = []
    for i in range(3):
        shapes = "".join(f'<circle cx="{12 + 9 * k + 3 * i}" cy="{40 - 8 * k}" r="8" fill="{c}"/>' for k, c in
                         enumerate(("red", "blue", "green")))  # fmt: skip
        (tmp_path / f"{i}.svg").write_text(
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 64 64">{shapes}</svg>'
        )
        rows.append({"id": f"s{i}", "domain": "svg", "language": "svg", "path": f"{i}.svg"})
    (tmp_path / "MANIFEST.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    ended = run_audit(tmp_path, "--out", tmp_path / "audit")
    assert ended.returncode == 0, ended.stderr[-2000:]
    cards = json.loads((tmp_path / "audit/audit.json").read_text())
    assert cards["vincicoder, pyramid"]["svg"]["blank_most"] > 0.3  # what the calibrated mode is there for
    card = cards["calibrated, pyramid"]["svg"]
    assert card["targets"] == 3 and card["same_least"] >= 0.999 and card["blank_most"] <= 0.02
    assert card["hacks_below_mildest"] == card["ordered"] == 1
    for kind in ("shift", "scale", "missing", "extra", "data"):
        medians = card["graded"][kind]["median_by_size"]
        assert len(medians) == 5 and medians[0] > medians[-1], kind
    assert "hack: mirrored" in ended.stdout and (tmp_path / "audit/audit.png").stat().st_size > 5000
    assert run_audit(tmp_path / "nowhere").returncode == 1


def test_programs_with_growing_errors():
    """Each size of an error holds the smaller ones; nothing where there is nothing to get wrong."""
    from report import errors

    codes = {
        "python": "import matplotlib.pyplot as plt\nxs = 1, 2\nplt.title('One two six ten all')\nplt.bar(xs, xs)\n",
        "svg": '<svg viewBox="0 0 99 99"><text x="10.5" y="20.5" font-size="9">one two six ten all</text></svg>',
        "html": "<html><head></head><body><p style='margin: 200px'>one two six ten all</p></body></html>",
        "latex": r"\documentclass{standalone}\usepackage{tikz}\begin{document}\begin{tikzpicture}"
        r"\draw (10.5,20.5) -- (30.5,1.5); \node at (1,2) {one two six ten and all};\end{tikzpicture}\end{document}",
    }
    for language, code in codes.items():
        for kind in errors.KINDS if language == "python" else errors.KINDS.keys() - {"numbers"}:
            programs = errors.programs(kind, code, language)
            assert programs and len(set(programs)) == errors.LEVELS, (language, kind)
            if kind == "text":
                wrong = [sum(a != b for a, b in zip(code, program, strict=True)) for program in programs]
                assert wrong == sorted(wrong) and 1 <= wrong[0] < wrong[-1]
    assert errors.programs("text", "<svg/>", "svg") is None


def test_rank_correlation_equals_scipys():
    for losses in ([0.1, 0.2, 0.3, 0.2, 0.5], [0.5, 0.4, 0.1], [0.1, 0.1, 0.2, 0.2]):
        assert audit.rank_correlation(losses) == pytest.approx(spearmanr(range(len(losses)), losses).statistic)
    assert audit.rank_correlation([0.3, 0.3]) == 0
