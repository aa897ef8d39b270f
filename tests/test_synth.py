"""synth.py: pure, distinct, short where it is easy, rich where it is hard, and drawable everywhere."""

import subprocess
import sys
from collections import Counter
from pathlib import Path
from statistics import mean

import numpy as np
import pytest
from PIL import Image

import data
import programs
import synth
from prompts import language_of
from render import Renderer

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def renderer():
    with Renderer(workers=2, timeout=30, svg_side=128) as renderer:
        yield renderer


def codes(domain, count, difficulty):
    return [synth.make(domain, index, 0, difficulty).code for index in range(count)]


def draw(renderer, sample):
    """The sample's picture as an array; skips where a tool is missing, fails where the program is at fault."""
    rendering = renderer.render(sample.code, sample.language)
    if rendering.image is None and "install" in rendering.error.lower():
        pytest.skip(f"{sample.language} cannot be drawn here: {rendering.error}")
    assert rendering.image is not None, f"{rendering.error}\n{sample.code}"
    return np.asarray(rendering.image)


def command(*arguments, folder):
    return subprocess.run(
        [sys.executable, ROOT / "synth.py", *map(str, arguments)], cwd=folder, capture_output=True, text=True
    )


@pytest.mark.parametrize("domain", synth.DOMAINS)
def test_make_is_a_pure_function_of_its_arguments(domain):
    first = [synth.make(domain, index, 3, 0.6) for index in range(8)]
    again = [synth.make(domain, index, 3, 0.6) for index in reversed(range(8))][::-1]
    assert first == again
    assert [sample.code for sample in first] != [synth.make(domain, index, 4, 0.6).code for index in range(8)]


def test_make_is_the_same_in_another_process():
    program = "import synth; print([synth.make(d, 5, 1, 0.8).code for d in synth.DOMAINS])"
    printed = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert printed.stdout.strip() == str([synth.make(domain, 5, 1, 0.8).code for domain in synth.DOMAINS])


@pytest.mark.parametrize("domain", ["svg", "chart"])
@pytest.mark.parametrize("difficulty", [0.15, 0.25, 0.6])
def test_programs_are_distinct(domain, difficulty):
    assert len(set(codes(domain, 1000, difficulty))) > 950


def test_held_out_indices_and_seeds_share_little_with_training():
    train = set(codes("svg", 1000, 0.2))
    for held_out in ([(i, 1) for i in range(300)], [(1_000_000 + i, 0) for i in range(300)]):
        assert sum(synth.make("svg", index, seed, 0.2).code in train for index, seed in held_out) < 15


@pytest.mark.parametrize("domain", synth.DOMAINS)
def test_code_grows_with_difficulty(domain):
    short, middle, long = (mean(map(len, codes(domain, 40, difficulty))) for difficulty in (0, 0.5, 1))
    assert short < middle < long


def test_easy_programs_are_short():
    for difficulty in (0, 0.1, 0.25):
        assert max(map(len, codes("svg", 300, difficulty))) <= 260
        assert max(map(len, codes("chart", 300, difficulty))) <= 220


def test_easy_shapes_keep_one_order_and_lie_apart():
    for index in range(300):
        boxes = programs.place(programs.Dice(np.random.default_rng(index), 0.2), 3, 64, 4, [16, 24, 32])
        assert boxes == sorted(boxes) and 1 <= len(boxes) <= 3
        canvas = np.zeros((64, 64), int)
        for x, y, w, h in boxes:
            canvas[y : y + h, x : x + w] += 1
        assert canvas.max() == 1 and canvas.sum() == sum(w * h for _, _, w, h in boxes)


@pytest.mark.parametrize("domain", synth.DOMAINS)
def test_prompts_name_the_language_and_vary(domain):
    samples = [synth.make(domain, index) for index in range(60)]
    assert {language_of(sample.prompt) for sample in samples} == {synth.LANGUAGE_OF[domain]}
    assert len({sample.prompt for sample in samples}) > 2


@pytest.mark.parametrize("domain", synth.DOMAINS)
def test_data_knows_the_domain_from_the_code(domain):
    for difficulty in (0, 0.5, 1):
        sample = synth.make(domain, 7, 0, difficulty)
        assert data.domain_of(sample.language, sample.code) == domain


@pytest.mark.parametrize("difficulty", [0, 0.3, 0.6, 1])
def test_molecules_are_valid_canonical_and_grow(difficulty):
    Chem = pytest.importorskip("rdkit.Chem", reason="rdkit is not installed")
    sizes, tools = [], Counter()
    for code in codes("molecule", 150, difficulty):
        smiles = code.split('MolFromSmiles("' if "rdkit" in code else 'loadMolecule("')[1].split('"')[0]
        mol = Chem.MolFromSmiles(smiles)
        assert mol is not None and "*" not in smiles and "." not in smiles, smiles
        assert Chem.SanitizeMol(mol) == Chem.SANITIZE_NONE and Chem.MolToSmiles(mol) == smiles
        sizes.append(mol.GetNumAtoms())
        tools["indigo" if "indigo" in code else "rdkit"] += 1
    assert 4 <= mean(sizes) <= (12 if difficulty == 0 else 40)
    assert (len(tools) == 2) == (difficulty > 0.2)
    if difficulty == 1:
        assert mean(sizes) > 20 and any("@" in code for code in codes("molecule", 50, 1))


@pytest.mark.parametrize("domain", synth.DOMAINS)
@pytest.mark.parametrize("difficulty", [0, 0.5, 1])
def test_every_domain_draws(renderer, domain, difficulty):
    for index in range(2):
        pixels = draw(renderer, synth.make(domain, index, 11, difficulty))
        assert pixels.std() > 1, "the picture is blank"


def test_easy_bars_can_be_read_off_the_pixels(renderer):
    """One unit of value is 8 of 64 pixels: the height of each bar gives back the number in the program."""
    seen = 0
    for index in range(40):
        sample = synth.make("chart", index, 0, 0.1)
        if "plt.bar(" not in sample.code:
            continue
        ink = (draw(renderer, sample).min(axis=2) < 128).sum(axis=0)  # (64,) pixels drawn in each column
        starts = [x for x in range(1, 64) if ink[x] and not ink[x - 1]]
        values = sample.code.split("[")[1].split("]")[0]
        assert [round(ink[x + 3] / 8) for x in starts] == [int(value) for value in values.split(",")]
        seen += 1
    assert seen > 3


def test_bad_arguments_say_what_to_do():
    with pytest.raises(ValueError, match="choose one of svg, chart"):
        synth.make("music", 0)
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        synth.make("svg", 0, 0, 1.5)


def test_failures_and_blank_pictures_are_counted_and_the_order_kept(renderer):
    good = [synth.make("svg", index) for index in range(4)]
    blank = data.Sample("svg-blank", "svg", "svg", None, "", '<svg xmlns="http://www.w3.org/2000/svg" width="9"/>')
    broken = data.Sample("svg-broken", "svg", "svg", None, "", "<svg")
    kept, lost = Counter(), Counter()
    samples = [*good[:2], blank, broken, *good[2:]]
    drawn = list(synth.draw(samples, renderer, kept, lost))
    assert [sample.id for sample in drawn] == [sample.id for sample in good]
    assert kept == {"svg": 4} and lost.total() == 2


def test_command_writes_pairs_that_read_back(tmp_path):
    arguments = "--count", 12, "--domains", "svg", "chart", "--difficulty", 0.2, "--svg-side", 64, "--start", 40
    done = command("--out", tmp_path / "pairs.parquet", *arguments, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "12 of 12 pairs (6 svg, 6 chart)" in done.stdout
    pairs = list(data.load(tmp_path / "pairs.parquet"))
    expected = [synth.make(("svg", "chart")[k % 2], 40 + k // 2, 0, 0.2) for k in range(12)]
    assert [pair.code for pair in pairs] == [sample.code for sample in expected]
    assert [pair.prompt for pair in pairs] == [sample.prompt for sample in expected]
    assert all(pair.image.size == (64, 64) for pair in pairs)


def test_command_draws_a_contact_sheet(tmp_path):
    done = command("--show", 4, "--domains", "svg", "chart", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "runs" / "synth.png") as sheet:
        assert sheet.width >= 400 and sheet.height >= 400 and len(sheet.getcolors(1 << 20)) > 5


@pytest.mark.parametrize("arguments", [(), ("--out", "x.parquet", "--domains", "music"), ("--show", -1)])
def test_command_refuses_in_one_sentence(tmp_path, arguments):
    done = command(*arguments, folder=tmp_path)
    assert done.returncode != 0 and "Traceback" not in done.stderr and "synth.py: " in done.stderr
