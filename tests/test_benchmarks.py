"""corpus/benchmarks.py and answers/folder.py: the published layouts with their published names, and answers to them."""

import base64
import io
import json
from contextlib import nullcontext
from pathlib import Path

import pyarrow
import pytest
from PIL import Image, ImageDraw
from pyarrow.parquet import write_table

import data
import eval as evaluation
from answers.folder import Folder, file_name, names_of
from answers.recorded import read_records
from corpus import benchmarks
from data import Sample
from metrics.catalogue import HERE, METRICS
from metrics.scoring import Scorer, family_of
from render import Renderer
from report import statistics

CIRCLE = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 8 6"><circle cx="4" cy="3" r="2" fill="red"/></svg>'


def png(folder: Path, name: str) -> bytes:
    Image.new("RGB", (20, 10), "teal").save(folder / name)
    return (folder / name).read_bytes()


def load(*names, root="nowhere", limit=None) -> list[Sample]:
    return list(benchmarks.load(names, root, limit)[0])


def parquet(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_table(pyarrow.Table.from_pylist(rows), path)


# ---------------------------------------------------------------------------------------------------- published layouts
def bars(title: str, *heights: int) -> str:
    return (
        "import matplotlib.pyplot as plt\n"
        f"fig, ax = plt.subplots(figsize=(3, 2))\nax.bar({list(range(len(heights)))}, {list(heights)}, color='teal')\n"
        f"ax.set_title('{title}')\nplt.savefig('figure.pdf')\n"
    )


def flag(width: int, height: int) -> str:
    """Two rectangles whose edges lie on pixels wherever it is drawn on 336 x 336 px, its ratio kept."""
    rects = f'<rect width="{width}" height="1" fill="#0000ff"/><rect width="1" height="{height}" fill="#ff0000"/>'
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}">{rects}</svg>'


def flag_on_a_square(width: int, height: int, side: int = 336) -> Image.Image:
    """What UniSVG's pictures are: the svg as large as it fits, in the middle of a white square."""
    unit, image = side // max(width, height), Image.new("RGB", (side, side), "white")
    x, y = (side - width * unit) // 2, (side - height * unit) // 2
    draw = ImageDraw.Draw(image)
    draw.rectangle((x, y, x + width * unit - 1, y + unit - 1), fill="#0000ff")
    draw.rectangle((x, y, x + unit - 1, y + height * unit - 1), fill="#ff0000")
    return image


def page(text: str, picture: str = "") -> str:
    shown = f'<img src="{picture}" width="80" height="60">' if picture else ""
    style = "margin:20px; font:20px sans-serif"
    return f"<!DOCTYPE html><html><body style='{style}'><h1>{text}</h1>{shown}<p>Below {text}</p></body></html>"


def molecule(smiles: str) -> str:
    return benchmarks.DRAWN.format(smiles=smiles)


PLOTLY = "import plotly.graph_objects as go\ngo.Figure(go.Bar(x=[1, 2], y=[2, 3])).show()\n"
TEX = "\\begin{tikzpicture}\\draw[fill=red] (0,0) circle (1);\\node at (2,0) {ab};\\end{tikzpicture}"
RICK = Image.new("RGB", (40, 30), (200, 30, 30))


@pytest.fixture(scope="module")
def renderer():
    try:
        renderer = Renderer(workers=2, timeout=30)
    except RuntimeError as error:
        pytest.skip(str(error))
    with renderer:
        yield renderer


@pytest.fixture(scope="module")
def published(renderer, tmp_path_factory) -> Path:
    """The eight benchmarks as their downloads lie on the disk, a few rows of our own making each."""
    if missing := renderer.missing:
        pytest.skip(f"not everything is installed: {', '.join(missing)}")
    root = tmp_path_factory.mktemp("published")

    def drawn(code: str, language: str) -> bytes:
        rendering = renderer.submit(code, language).result()
        assert rendering.image, rendering.error
        content = io.BytesIO()
        rendering.image.save(content, "PNG")
        return content.getvalue()

    def put(path: str, content: str | bytes) -> None:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content.encode() if isinstance(content, str) else content)

    for folder, title in (("direct_600", "one"), ("direct_1800", "two"), ("customized_600", "three")):
        code = bars(title, 2, 3)
        put(f"chartmimic/{folder}/bar_{len(title)}_{title}.py", code)
        put(f"chartmimic/{folder}/bar_{len(title)}_{title}.png", drawn(code, "python"))

    for part, code in (("python_matplotlib", bars("four", 1, 4)), ("python_plotly", PLOTLY), ("r_plotly", "plot_ly()")):
        row = {"file_name": "ground_truth_image_0.png", "code": code, "url": "https://matplotlib.org"}
        put(f"plot2code/data/{part}/test/metadata.jsonl", json.dumps(row) + "\n")
        picture = drawn(code if part[0] == "p" else PLOTLY, "python")
        put(f"plot2code/data/{part}/test/ground_truth_image_0.png", picture)

    rows = [
        {"q_text": "Draw it.", "a_text": flag(4, 4), "image_path": "icon_0.png", "type": "ISVGEN", "keywords": {}},
        {"q_text": "A flag.", "a_text": flag(4, 4), "image_path": "icon_0.png", "type": "TSVGEN", "keywords": {}},
        {"q_text": "Which colours?", "a_text": "Blue.", "image_path": "icon_0.png", "type": "ISVGUN_color"},
        {"q_text": "Draw it again.", "a_text": flag(4, 4), "image_path": "icon_0.png", "type": "ISVGEN"},
        {"q_text": "Draw it.", "a_text": flag(4, 3), "image_path": "icon_1.png", "type": "ISVGEN", "keywords": {}},
    ]
    put("unisvg/test.json", json.dumps(rows))
    put("unisvg/train.json", json.dumps(rows[:1]))
    (root / "unisvg/png").mkdir()
    for number, height in enumerate((4, 3)):
        flag_on_a_square(4, height).save(root / f"unisvg/png/icon_{number}.png")

    for subset, name, split in (
        ("svg-stack", "a.svg", "test"),
        ("svg-stack", "b.svg", "train"),
        ("svg-emoji", "c.svg", "test"),
        ("svg-emoji", "d.svg", "val"),
    ):
        rows = [{"Filename": name, "Svg": flag(4, 3)}]
        parquet(root / f"svg-bench/{subset}/data/{split}-00000-of-00001.parquet", rows)

    shown = io.BytesIO()
    RICK.save(shown, "JPEG")
    put("design2code/rick.jpg", shown.getvalue())
    address = "data:image/jpeg;base64," + base64.b64encode(shown.getvalue()).decode()
    for number, picture in ((2, ""), (10, "rick.jpg")):
        put(f"design2code/{number}.html", page(f"page {number}", picture))
        put(f"design2code/{number}.png", drawn(page(f"page {number}", picture and address), "html"))

    for length in ("short", "mid", "long"):
        code = page(length)
        parquet(root / f"webcode2m/{length}.parquet", [{"image": {"bytes": drawn(code, "html")}, "text": code}])

    picture = {"bytes": drawn(TEX, "latex"), "path": None}
    for subset in ("plot", "equation"):
        row = {"structure": TEX, "text": TEX, "image": picture, "category": f'"{subset}"', "uuid": f'"u-{subset}"'}
        parquet(root / f"image2latex/{subset}/validation-00000-of-00001.parquet", [row])

    rows = [
        {"id": f"m{i}", "image": f"m{i}.png", "code": molecule(smiles)} for i, smiles in enumerate(("CCO", "c1ccccc1"))
    ]
    put("chemdraw/test.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    for row in rows:
        put(f"chemdraw/{row['image']}", drawn(row["code"], "python"))
    return root


PERFECT = {  # file of an answer: the target that it is for
    "bar_3_one.py": "chartmimic/direct_600/bar_3_one",
    "bar_3_two.py": "chartmimic/direct_1800/bar_3_two",
    "python_matplotlib/ground_truth_image_0.py": "plot2code/python_matplotlib/ground_truth_image_0.png",
    "python_plotly/ground_truth_image_0.py": "plot2code/python_plotly/ground_truth_image_0.png",
    "icon_0.svg": "unisvg/icon_0.png",
    "icon_1.svg": "unisvg/icon_1.png",
    "a.svg": "svg-bench/svg-stack/a.svg",
    "2.html": "design2code/2",
    "10.html": "design2code/10",
    "short_0.html": "webcode2m/short/0",
    "mid/0.html": "webcode2m/mid/0",
    "webcode2m_long_0.html": "webcode2m/long/0",
    "u-plot.tex": "image2latex/plot/u-plot",
    "m0.py": "chemdraw/m0",
    "chemdraw_m1.py": "chemdraw/m1",
}


@pytest.fixture(scope="module")
def scored(published, renderer, tmp_path_factory):
    """One run over all eight from their root folders, every answer perfect and under a name that is natural for it ->
    (summary.json, what was printed)."""
    folder = tmp_path_factory.mktemp("scored")
    targets = {sample.id: sample for sample in load(*benchmarks.BENCHMARKS, root=published)}
    for name, id in PERFECT.items():
        (folder / "answers" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "answers" / name).write_text(targets[id].code)
    out = folder / "out"
    with pytest.MonkeyPatch.context() as patch, io.StringIO() as printed:
        patch.setattr(evaluation, "Renderer", lambda *_, files, **__: Renderer(workers=2, timeout=30, files=files))
        patch.setattr("sys.stdout", printed)
        names = ["--bench", *benchmarks.BENCHMARKS, "--bench-root", str(published)]
        patch.setattr("sys.argv", ["eval.py", "run", "--answers", str(folder / "answers"), *names, "--out", str(out)])
        evaluation.main()
        said = printed.getvalue()
    return json.loads((out / "summary.json").read_text()), said, out


@pytest.mark.parametrize("name", benchmarks.BENCHMARKS)
def test_a_perfect_answer_is_perfect_from_the_root_folder(scored, name):
    summary = scored[0]["summary"][name]
    assert summary["targets"] == {"unisvg": 3, "webcode2m": 3, "svg-bench": 1, "image2latex": 1}.get(name, 2)
    family = benchmarks.BENCHMARKS[name].family
    measured = {metric for metric, m in METRICS.items() if m.family in ("any", family) and m.needs in HERE}
    assert measured == set(summary["n"])
    for metric in measured:
        best = 100 if metric == "unisvg.psnr" else 0 if METRICS[metric].lower_is_better else 1
        assert summary[metric][0] == pytest.approx(best, abs=1e-6), metric
        facts = name == "plot2code" and METRICS[metric].needs == "reference"
        assert summary["n"][metric] == summary["targets"] - facts, metric


def test_a_run_says_which_part_it_is_and_which_references_do_not_count(scored):
    summary, said, out = scored
    lines = said.splitlines()
    for line in (
        "chartmimic: direct (direct_600, direct_1800), 2 targets; not read: customized_600 "
        "(chartmimic/customized_600=FOLDER)",
        "unisvg: split test, 3 targets; not read: the split train, 1 rows of type TSVGEN, 1 rows of type ISVGUN_color",
        "image2latex: plot, split validation, 1 targets; not read: equation (image2latex/equation=FOLDER)",
        "webcode2m: all (long, mid, short), 3 targets",
    ):
        assert line in lines and line in summary["targets"]
    assert "python (python_matplotlib, python_plotly), split test" in said and "r_plotly/test/metadata.jsonl" in said
    assert summary["answers"] == []
    (id,) = summary["summary"]["plot2code"]["references"]
    assert id == "plot2code/python_plotly/ground_truth_image_0.png"
    sentence = (
        f"1 targets are in no mean that needs their program, which cannot be inspected: {id} (the figure is drawn by"
    )
    assert said.count(sentence) == 1 and sentence in (out / "report.html").read_text()
    assert any(line.split()[:2] == ["plot2code", "plot2code.text_match"] and line.endswith("n 1") for line in lines)


def test_subsets_by_name(published):
    place = published / "chartmimic"
    (sample,) = load(f"chartmimic/customized={place}")
    assert (sample.id, sample.domain) == ("chartmimic/customized_600/bar_5_three", "chartmimic/customized")
    assert family_of(sample) == "chart"
    assert [s.id for s in load("chartmimic/direct_1800", root=published)] == ["chartmimic/direct_1800/bar_3_two"]
    assert [s.id for s in load(f"chartmimic={place / 'direct_600'}")] == ["chartmimic/bar_3_one"]
    assert [s.id for s in load("svg-bench/svg-emoji,webcode2m/mid", root=published)] == [
        "svg-bench/svg-emoji/c.svg",
        "webcode2m/mid/0",
    ]
    for name, complaint in (
        ("chartmimic/direct_500", "holds no chartmimic/direct_500; it holds customized_600, direct_600, direct_1800;"),
        ("image2latex/music", "it holds equation, plot;"),
        ("unisvg/small", "it holds no subsets;"),
        ("plot2code/r_plotly", "it holds python_matplotlib, python_plotly;"),
    ):
        with pytest.raises(ValueError, match=complaint):
            load(name, root=published)


def test_benchmarks_of_pairs(tmp_path):
    for number in (2, 10):
        (tmp_path / f"{number}.html").write_text(f"<p>{number}</p>")
        png(tmp_path, f"{number}.png")
    samples = load(f"design2code={tmp_path}")
    assert [s.id for s in samples] == ["design2code/2", "design2code/10"] and samples[0].image.size == (20, 10)
    assert samples[0].domain == "design2code" and family_of(samples[0]) == "html" and "```html" in samples[0].prompt
    chart = tmp_path / "root" / "chartmimic" / "direct_600"
    chart.mkdir(parents=True)
    (chart / "bar_1.py").write_text("import matplotlib")
    (sample,) = load("chartmimic", root=tmp_path / "root")
    assert sample.image is None and sample.id == "chartmimic/direct_600/bar_1" and family_of(sample) == "chart"
    assert len(load(f"design2code={tmp_path},synthetic-5", limit=1)) == 2


def test_benchmarks_of_tables(tmp_path):
    picture = png(tmp_path, "a.png")
    parquet(tmp_path / "latex.parquet", [{"image": {"bytes": picture}, "text": "\\draw (0,0);", "uuid": '"u1"'}])
    (sample,) = load(f"image2latex={tmp_path / 'latex.parquet'}")
    assert (sample.id, sample.language, sample.code) == ("image2latex/u1", "latex", "\\draw (0,0);")
    uni = tmp_path / "uni"
    uni.mkdir()
    png(uni, "1.png")
    (uni / "test.json").write_text(json.dumps([{"a_text": f"Here: {CIRCLE}", "image_path": "1.png"}]))
    (uni / "dataset_infos.json").write_text('{"default": {"description": ""}}')
    (sample,) = load(f"unisvg={uni}")
    assert sample.code == CIRCLE and sample.image.size == (20, 10)
    (uni / "1.png").unlink()
    with pytest.raises(ValueError, match=r"^unisvg/1\.png: the picture does not exist"):
        load(f"unisvg={uni}")
    (uni / "test.json").write_text(json.dumps([{"a_text": "Red.", "image_path": "1.png", "type": "ISVGUN_color"}]))
    with pytest.raises(ValueError, match="has no rows of type ISVGEN"):
        load(f"unisvg={uni}")
    (tmp_path / "mol.jsonl").write_text('{"smiles": "CCO", "image": "a.png", "id": 7}\n')
    (sample,) = load(f"chemdraw={tmp_path / 'mol.jsonl'}")
    assert family_of(sample) == "molecule" and "MolFromSmiles('CCO')" in sample.code and sample.id == "chemdraw/7"
    (tmp_path / "mol.jsonl").write_text('{"other": 1}\n')
    with pytest.raises(ValueError, match="has the columns other, but none of"):
        load(f"chemdraw={tmp_path / 'mol.jsonl'}")


def test_benchmarks_refuse_in_one_sentence(tmp_path):
    for name, complaint in (("nothing", "There is no benchmark"), ("unisvg", "does not exist; put unisvg there")):
        with pytest.raises((ValueError, FileNotFoundError), match=complaint):
            benchmarks.load([name], tmp_path)
    with pytest.raises(ValueError, match="holds neither"):
        benchmarks.load([f"unisvg={tmp_path}"], ".")


def test_ids_are_known_before_anything_is_built():
    part = benchmarks.synthetic(10)
    assert list(part.ids) == [sample.id for sample in part]


# --------------------------------------------------------------------------------------------------- folders of answers
def targets(*ids: str) -> list[Sample]:
    return [Sample(id, "svg", "svg", Image.new("RGB", (8, 8)), "Draw it.", CIRCLE) for id in ids]


def test_answers_made_elsewhere(tmp_path):
    ids = ["s0", "s1", "s2", "s3"]
    (tmp_path / "s0.svg").write_text(CIRCLE)
    (tmp_path / "s1.0.txt").write_text("I cannot.")
    (tmp_path / "s1.1.md").write_text(f"```svg\n{CIRCLE}\n```")
    folder = Folder(tmp_path, ids, G=2)
    texts = {(a.sample_id, a.index): a.text for a in folder.answer(targets(*ids), 2)}
    assert data.extract_code(texts["s0", 0], "svg") == CIRCLE and texts["s1", 0] == "I cannot."
    assert "circle" in texts["s1", 1] and texts["s2", 0] == texts["s0", 1] == ""
    missing = "5 of 8 answers are missing and count as failures: s0, answer 1, s2, answer 0, s2, answer 1 .."
    assert folder.notes == [missing]
    assert file_name("chartmimic/bar 1") == "chartmimic_bar_1"
    (tmp_path / "answers.jsonl").write_text('{"id": "s3", "code": "<svg/>"}\n{"id": "s0", "text": "x", "index": 1}\n')
    texts = {(a.sample_id, a.index): a.text for a in Folder(tmp_path, ids, G=2).answer(targets(*ids), 2)}
    assert texts["s3", 0] == "```svg\n<svg/>\n```" and texts["s0", 1] == "x"
    assert "not the 3 files beside it: s0.svg, s1.0.txt, s1.1.md" in Folder(tmp_path, ids).notes[0]
    for broken in ("nonsense", '{"id": "s0"}', '{"id": "s0", "code": 3}', '{"id": "s0", "code": "", "index": null}'):
        (tmp_path / "answers.jsonl").write_text(broken + "\n")
        with pytest.raises(ValueError, match="line 1 is no row"):
            Folder(tmp_path, ids)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        Folder(tmp_path / "nowhere", ids)


@pytest.mark.parametrize("row", [False, True], ids=["files", "rows"])
@pytest.mark.parametrize(
    "name, id",
    [
        ("icon_0.svg", "unisvg/icon_0.png"),
        ("icon_0.png.svg", "unisvg/icon_0.png"),
        ("unisvg_icon_0.png.svg", "unisvg/icon_0.png"),
        ("ground_truth_image_0.py", "plot2code/ground_truth_image_0.png"),
        ("python_plotly_ground_truth_image_0.py", "plot2code/python_plotly/ground_truth_image_0.png"),
        ("2.html", "design2code/2"),
        ("run/bar_1.py", "chartmimic/direct_600/bar_1"),
        ("abc/abc.svg", "svg-bench/svg-stack/abc.svg"),  # as StarVector's validator writes them
        ("a b.svg", "svg-bench/a b.svg"),
        ("icon_1.SVG", "unisvg/icon_1.png"),
        ("v1.2.py", "charts/v1.2"),
    ],
)
def test_natural_names(tmp_path, name, id, row):
    if row:
        (tmp_path / "answers.jsonl").write_text(json.dumps({"id": name, "code": CIRCLE}) + "\n")
    else:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(CIRCLE)
    folder = Folder(tmp_path, [id, "other/target"])
    (answer,) = folder.answer(targets(id), 1)
    assert CIRCLE in answer.text and folder.notes == ["1 of 2 answers are missing and count as failures: other/target"]


def test_answers_to_nobody_stop_the_run_or_are_named(tmp_path):
    ids = ["chartmimic/direct_600/bar_1", "chartmimic/direct_600/bar_2", "chartmimic/direct_600/bar_3"]
    for name in ("one.py", "two.py", "three.py", "notes.pdf"):
        (tmp_path / name).write_text("x = 1")
    says = r"^None of the 3 answers in \S+ is for a target: they are called one.py, three.py .., and should be called "
    with pytest.raises(ValueError, match=says + r"bar_1.py, bar_2.py .. \(answers/folder.py"):
        Folder(tmp_path, ids)
    (tmp_path / "bar_2.py").write_text("x = 2")
    says = (
        r"^3 of the 4 answers in \S+ are for no target: they are called one.py, three.py .., and should be called bar_1"
    )
    with pytest.raises(ValueError, match=says + ".*--skip-unmatched goes on"):
        Folder(tmp_path, ids)
    assert Folder(tmp_path, ids[:2], ids[2:], skip_unmatched=True).notes == [
        "3 of 4 answers are for no target: one.py, three.py, two.py",
        "1 of 2 answers are missing and count as failures: chartmimic/direct_600/bar_1",
    ]
    (tmp_path / "bar_2.1.py").write_text("x = 2")
    beyond = "1 answers are beyond --G 1 and not read: bar_2.1.py"
    assert beyond in Folder(tmp_path, ids, skip_unmatched=True).notes
    (tmp_path / "answers.jsonl").write_text('{"id": "bar_9", "code": "x"}\n{"id": 8, "code": "x"}\n')
    with pytest.raises(
        ValueError, match=r"None of the 2 answers in .* called bar_9, 8, and should be called bar_1, bar_2"
    ):
        Folder(tmp_path, ids)


def test_answers_that_may_be_for_several_targets_are_refused(tmp_path):
    ids = ["chartmimic/direct_600/bar_1", "chartmimic/direct_1800/bar_1"]
    (tmp_path / "bar_1.py").write_text("x = 1")
    says = (
        "bar_1.py may be for chartmimic/direct_600/bar_1 or chartmimic/direct_1800/bar_1; call it chartmimic_direct_600"
    )
    with pytest.raises(ValueError, match=says):
        Folder(tmp_path, ids)
    (tmp_path / "direct_1800").mkdir()
    (tmp_path / "bar_1.py").rename(tmp_path / "direct_1800/bar_1.py")
    assert list(Folder(tmp_path, ids).given) == [(ids[1], 0)]
    (tmp_path / "direct_1800_bar_1.py").write_text("x = 2")
    with pytest.raises(
        ValueError, match="direct_1800/bar_1.py and direct_1800_bar_1.py are both answers to .*; keep one"
    ):
        Folder(tmp_path, ids)
    (tmp_path / "direct_1800_bar_1.py").unlink()
    (tmp_path / "customized_600").mkdir()
    (tmp_path / "customized_600/bar_1.py").write_text("x = 3")
    notes = Folder(tmp_path, ids[1:], skip_unmatched=True).notes
    assert notes == ["1 of 2 answers are for no target: customized_600/bar_1.py"], "the folder of the other says more"
    assert names_of("a/b.png") == ["a_b.png", "a_b", "b.png", "b"]


def test_several_targets_about_one_picture_have_one_answer(tmp_path):
    (tmp_path / "icon_0.svg").write_text(CIRCLE)
    ids = benchmarks.distinct(["unisvg/icon_0.png", "unisvg/icon_0.png"])
    assert ids[1] == "unisvg/icon_0.png#2" and {id for id, _ in Folder(tmp_path, ids).given} == set(ids)


# --------------------------------------------------------------------------------------------------- what is counted
def test_targets_that_cannot_be_drawn_or_inspected_are_named(renderer, tmp_path, monkeypatch, capsys):
    """A reference that fails is in no mean whatever was answered to it, and is named once."""
    rows = [
        {"id": "good", "domain": "svg", "language": "svg", "path": "good.svg", "image": "p.png"},
        {"id": "undrawn", "domain": "svg", "language": "svg", "path": "bad.svg"},
        {"id": "mol", "domain": "molecule", "language": "python", "path": "bad.py", "image": "p.png"},
    ]
    png(tmp_path, "p.png")
    (tmp_path / "good.svg").write_text(CIRCLE)
    (tmp_path / "bad.svg").write_text("<svg")
    (tmp_path / "bad.py").write_text("print('no molecule')")
    (tmp_path / "MANIFEST.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    answers = tmp_path / "answers"
    answers.mkdir()
    for name in ("good.svg", "undrawn.svg", "mol.txt"):
        (answers / name).write_text(CIRCLE)
    monkeypatch.setattr(evaluation, "Renderer", lambda *a, **k: nullcontext(renderer))
    options = ["--answers", str(answers), "--data", str(tmp_path), "--out", str(tmp_path / "out")]
    monkeypatch.setattr("sys.argv", ["eval.py", "run", *options])
    evaluation.main()
    said, summary = capsys.readouterr().out, json.loads((tmp_path / "out/summary.json").read_text())
    assert (
        list(summary["left_out"]) == ["undrawn"] and "targets dropped: 1: undrawn (its target does not render" in said
    )
    molecules = summary["summary"]["molecule"]
    assert molecules["references"] == {"mol": "rdkit reads no molecule from it"}
    assert molecules["n"] == {"execute": 1, "visual": 1, "ssim": 1, "chemdraw.validity": 1}
    assert said.count("mol (rdkit reads no molecule from it)") == 1 and summary["answers"] == []
    assert [r.reference_problem for r in read_records(tmp_path / "out")][0] == ""


def test_a_reference_counts_or_not_whatever_was_answered(renderer):
    target = Sample("c", "chart", "python", Image.new("RGB", (8, 8)), "Plot it.", "1 / 0")
    scorer = Scorer(renderer)
    for code in (None, "1 / 0", bars("x", 1)):
        job = scorer.submit(target, code)
        shown = job.rendering.result() if job.rendering else evaluation.rounds.Rendering(None, "", 0.0)
        assert scorer.measure(job, shown) == {} and "ZeroDivisionError" in scorer.reference_problem(job)


def test_a_long_list_of_references_is_cut():
    text = statistics.named({f"t{i}": "why" for i in range(7)})
    assert text == "t0 (why); t1 (why); t2 (why); t3 (why); t4 (why); and 2 more, in summary.json"
