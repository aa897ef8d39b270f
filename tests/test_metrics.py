"""metrics/: every formula against cases worked out by hand, its identities, and perturbed real programs."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from scipy.stats import spearmanr
from skimage.metrics import structural_similarity as scikit_ssim

from metrics import chartmimic, molecules, pixels, similarity, text

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
def test_character_similarity_by_hand():
    assert text.character_similarity("kitten", "sitting") == pytest.approx(1 - 3 / 7)


# -------------------------------------------------------------------------------------------------------------- pixels
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


# ------------------------------------------------------------------------------------------- real programs, perturbed
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
    # where there is nothing, one thing more is all wrong
    facts = [row for row in facts if all(row) and any(row[0][kind])]
    rows = [[chartmimic.scores(row[0], one)[metric] for one in row] for row in facts]
    assert all(row[0] == 1 for row in rows), "the same program twice is perfect"
    measured = correlations(rows)
    assert len(measured) >= 5 and min(measured) >= 0.9, (len(measured), measured)


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
