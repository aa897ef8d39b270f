"""data.py and prompts.py: every format there and back, hostile rows, fences, languages, flaws, shuffling, the CLI."""

import ast
import dataclasses
import io
import json
import os
import pickle
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace

import datasets
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

import data
import loading
from corpus.drawn import check
from corpus.inspection import load_usable, usable
from data import Sample
from flaws import mutate
from prompts import extract_code, language_of
from synth import write_parquet

ROOT = Path(__file__).parent.parent
REAL = ROOT.parent / "shared" / "data" / "real"
SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="64" height="64"><circle cx="20" cy="30" r="9" fill="red"/></svg>'
CHART = """import matplotlib.pyplot as plt

fig, ax = plt.subplots()
ax.bar(["north", "south"], [3, 5.5], color="teal")
ax.set_title("Sales per region")
plt.show()
"""
PROGRAMS = {
    "svg": SVG,
    "python": CHART,
    "html": "<html><body style='margin: 8px'><h1>Welcome back</h1><p>Some words here</p></body></html>",
    "latex": "\\begin{tikzpicture}\n\\draw[red] (0,0) -- (3,2);\n\\node at (1,4) {Hello};\n\\end{tikzpicture}\n",
    "mermaid": "graph TD\nA[Start here] --> B[Stop here]\nB --> C[Rest 12]\n",
}


def picture(seed=0, size=(20, 12)) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def png(image=None) -> bytes:
    file = io.BytesIO()
    (image or picture()).save(file, "PNG")
    return file.getvalue()


def fence(code, tag="svg") -> str:
    return f"Here it is.\n\n```{tag}\n{code}\n```\n"


def write(path, rows) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def sft_row(**change) -> dict:
    return {"user_content": "<image>\nWrite SVG code.", "assistant_content": fence(SVG), "image": png()} | change


def swift_row(**change) -> dict:
    messages = [{"role": "user", "content": "<image>Write SVG code."}, {"role": "assistant", "content": fence(SVG)}]
    return {"messages": messages, "images": ["a/b.png"]} | change


def same(a: Image.Image, b: Image.Image) -> bool:
    return a.size == b.size and a.mode == b.mode == "RGB" and a.tobytes() == b.tobytes()


class FakeRenderer:
    """Draws a grey picture of what contains "ok", fails on the rest."""

    def submit(self, code, language, canvas=None):
        future = Future()
        good = "ok" in code
        image = Image.new("RGB", (8, 8), "gray") if good else None
        future.set_result(SimpleNamespace(image=image, error=None if good else "line 1: no", seconds=0.1))
        return future


# formats ---------------------------------------------------------------------------------------------------------


@pytest.mark.quick
def test_write_parquet_and_load_give_the_samples_back(tmp_path):
    rng = np.random.default_rng(0)
    samples = [
        Sample(f"x{i}", data.domain_of(language, code), language, picture(i), prompt, code)
        for i, (language, code) in enumerate(PROGRAMS.items())
        for prompt in [data.direct_prompt(language, data.domain_of(language, code), rng)]
    ]
    samples += [data.as_refinement(sample, mutate(sample.code, sample.language, rng), rng) for sample in samples]
    samples.append(Sample("t", "chart", "python", picture(9), "Write Python code.", 'doc = """\n```\nx\n```\n"""'))
    path = tmp_path / "new" / "set.parquet"
    assert write_parquet(iter(samples), path) == 11
    assert os.listdir(path.parent) == ["set.parquet"]
    assert pyarrow.parquet.read_schema(path).names == ["user_content", "assistant_content", "image"]
    loaded = data.load(path)
    assert len(loaded) == 11
    for before, after in zip(samples, loaded, strict=True):
        assert same(before.image, after.image)
        for field in ("domain", "language", "prompt", "code", "draft"):
            assert (getattr(before, field) or "").strip() == (getattr(after, field) or "").strip(), field
    assert loaded[0].id == "set-0" and loaded[0].prompt == samples[0].prompt
    assert [s.id for s in loaded[2:9:3]] == ["set-2", "set-5", "set-8"] and loaded[-1].id == "set-10"


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "set.parquet"
    good = Sample("a", "svg", "svg", picture(), "Write SVG code.", SVG)
    write_parquet([good], path)
    with pytest.raises(ValueError, match="b: has no picture"):
        write_parquet([good] * 300 + [dataclasses.replace(good, id="b", image=None)], path)
    with pytest.raises(ValueError, match="c: has no code"):
        write_parquet([dataclasses.replace(good, id="c", code=None)], path)
    assert os.listdir(tmp_path) == ["set.parquet"] and len(data.load(path)) == 1


def test_parquet_is_streamed_in_row_groups(tmp_path):
    good = Sample("a", "svg", "svg", picture(), "Write SVG code.", SVG)
    write_parquet((good for _ in range(300)), tmp_path / "set.parquet")
    assert pyarrow.parquet.ParquetFile(tmp_path / "set.parquet").num_row_groups == 2


def test_a_rewritten_parquet_is_read_anew(tmp_path):
    path = tmp_path / "odd [1] name.parquet"
    for words in ("Write SVG code.", "Give me SVG code, please."):
        write(path, [sft_row(user_content="<image>" + words)])
        assert data.load(path)[0].prompt == words


def test_sft_refinement_row_of_the_published_form(tmp_path):
    user = "<image>\nThis svg icon's HTML code is wrong, fix it:\n```html\n<p>one</p>\n```\n"
    row = sft_row(user_content=user, assistant_content=fence("<p>two</p>", "html"))
    sample = data.load(write(tmp_path / "web2html_refine.parquet", [row]))[0]
    assert (sample.language, sample.domain) == ("html", "html")
    assert (sample.draft, sample.code) == ("<p>one</p>", "<p>two</p>")
    assert sample.prompt == user.replace("<image>", "").strip()


def test_folder_of_parquets_names_the_file_of_a_row(tmp_path):
    write(tmp_path / "set" / "a.parquet", [sft_row()] * 2)
    write(tmp_path / "set" / "b.parquet", [sft_row(), sft_row(image=b"\x89PNG")])
    loaded = data.load(tmp_path / "set")
    assert [loaded[i].id for i in (0, 1, 2)] == ["a-0", "a-1", "b-0"]
    with pytest.raises(ValueError, match="^b.parquet row 1: the picture cannot be decoded"):
        loaded[3]
    write(tmp_path / "set" / "c.parquet", [{"problem": "SVG code", "answer": SVG, "images": [png()]}])
    with pytest.raises(ValueError, match="c.parquet has other columns than a.parquet"):
        data.load(tmp_path / "set")


@pytest.mark.quick
@pytest.mark.parametrize("form", ["struct", "bytes", "path"])
def test_easyr1(tmp_path, form):
    picture().save(tmp_path / "p.png")
    images = {"struct": [{"bytes": png(), "path": None}], "bytes": [png()], "path": ["p.png"]}[form]
    rows = [{"problem": "<image>Python code that draws this molecule", "answer": "import rdkit", "images": images}]
    rows += [{"problem": "<image>Write svg", "answer": answer, "images": images} for answer in (fence(SVG), "", None)]
    loaded = list(data.load(write(tmp_path / "rl.parquet", rows)))
    assert [s.code for s in loaded] == ["import rdkit", SVG, None, None]  # ViRL needs no code
    assert (loaded[0].language, loaded[0].domain) == ("python", "molecule")
    assert all(same(s.image, picture()) for s in loaded)


def test_huggingface_image_columns_are_not_decoded_on_the_way(tmp_path):
    features = datasets.Features({"problem": datasets.Value("string"), "images": [datasets.Image()]})
    rows = {"problem": ["Write svg"], "images": [[{"bytes": png(), "path": None}]]}
    datasets.Dataset.from_dict(rows, features).to_parquet(tmp_path / "rl.parquet")
    assert same(data.load(tmp_path / "rl.parquet")[0].image, picture())


@pytest.mark.quick
def test_swift_jsonl(tmp_path):
    (tmp_path / "a").mkdir()
    picture().save(tmp_path / "a" / "b.png")
    system = {"role": "system", "content": "Be brief."}
    rows = [swift_row(), swift_row(messages=[system, *swift_row()["messages"][:1]])]
    path = write(tmp_path / "train.jsonl", rows)
    path.write_text("\n" + path.read_text() + "\n" + '{"messages": [{"role": "us')
    loaded = data.load(path)
    assert len(loaded) == 3
    assert (loaded[0].prompt, loaded[0].code, loaded[0].id) == ("Write SVG code.", SVG, "train-0")
    assert same(loaded[0].image, picture())
    assert (loaded[1].system, loaded[1].prompt, loaded[1].code) == ("Be brief.", "Write SVG code.", None)
    with pytest.raises(ValueError, match="^train.jsonl line 5: "):  # the blank lines are counted
        loaded[2]
    view, dropped = usable(loaded, need_code=True)
    assert [s.id for s in view] == ["train-0"] and sum(dropped.values()) == 2 and dropped["no code"] == 1
    assert pickle.loads(pickle.dumps(view))[0].code == SVG  # for loader processes


def manifest(folder) -> Path:
    rows = [
        {"id": "one", "domain": "svg_ref", "language": "svg", "path": "a.svg"},
        {"id": "two", "domain": "latex", "language": "tikz", "path": "b.tex", "prompt": "Draw it in TikZ."},
        {"id": "three", "domain": "svg", "language": "svg", "path": "a.svg", "image": "p.png", "draft": "d.svg"},
        {"id": "four", "domain": "html", "language": "html", "image": "p.png"},
    ]
    write(folder / "MANIFEST.jsonl", rows)
    for name, text in (("a.svg", SVG + "<!-- ok -->"), ("b.tex", PROGRAMS["latex"]), ("d.svg", "<svg/>")):
        (folder / name).write_text(text)
    picture().save(folder / "p.png")
    return folder


@pytest.mark.quick
def test_manifest_folder(tmp_path):
    one, two, three, four = data.load(manifest(tmp_path / "set"))
    assert (one.id, one.domain, one.image) == ("one", "svg", None) and "SVG" in one.prompt
    assert (two.language, two.prompt) == ("latex", "Draw it in TikZ.")
    assert three.draft == "<svg/>" and "```svg\n<svg/>\n```" in three.prompt and same(three.image, picture())
    assert four.code is None and "HTML" in four.prompt
    assert data.load(tmp_path / "set")[0].prompt == one.prompt
    assert len(data.load(tmp_path / "set", limit=2)) == 2


def test_targets_are_rendered_and_failures_counted(tmp_path, capsys):
    samples = data.load(manifest(tmp_path / "set"))
    (_, one, _), (_, two, problem), (_, three, _), _ = check(samples, FakeRenderer())
    assert one.image.size == (8, 8) and same(three.image, picture())
    assert two is None and problem.startswith("MANIFEST.jsonl line 2: its target does not render (line 1: no); mend")
    view, dropped = usable(samples, FakeRenderer())
    assert [s.id for s in view] == ["one", "three", "four"] and dropped == {"its target does not render": 1}
    assert [s.id for s in view[1:]] == ["three", "four"]
    view, dropped = load_usable(tmp_path / "set", FakeRenderer())
    assert len(view) == 3 and dropped.total() == 1
    assert "4 rows, 3 used, 1 dropped: 1 x its target does not render" in capsys.readouterr().err


def test_transparency_becomes_white(tmp_path):
    clear = Image.new("RGBA", (4, 4), (200, 0, 0, 0))
    palette = Image.new("P", (4, 4), 0)
    palette.info["transparency"] = 0
    images = [clear, palette, Image.new("LA", (4, 4)), Image.new("L", (4, 4))]
    for colour in ((0, 200, 0), (0, 201, 0)):  # of which a PNG's tRNS chunk makes the first one clear
        images.append(Image.new("RGB", (4, 4), colour))
        images[-1].info["transparency"] = (0, 200, 0)
    rows = [sft_row(image=png(image)) for image in images]
    loaded = list(data.load(write(tmp_path / "x.parquet", rows)))
    assert [s.image.getpixel((0, 0)) for s in loaded] == [(255,) * 3] * 3 + [(0, 0, 0), (255,) * 3, (0, 201, 0)]
    assert {s.image.mode for s in loaded} == {"RGB"}


# hostile input ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"image": png()[:200]}, "cannot be decoded"),
        ({"image": b"no picture"}, "cannot be decoded"),
        ({"image": None}, "has no picture"),
        ({"assistant_content": ""}, "column assistant_content is empty"),
        ({"assistant_content": None}, "column assistant_content is empty"),
        ({"user_content": " \n"}, "column user_content is empty"),
        ({"assistant_content": SVG}, "no closed ```svg block"),
        ({"assistant_content": f"```svg\n{SVG}\n"}, "no closed ```svg block"),
        ({"assistant_content": "```svg\n\n```"}, "no closed ```svg block"),
        ({"assistant_content": fence(CHART, "python")}, "no closed ```svg block"),
        ({"user_content": "<image>Draw it.", "assistant_content": SVG}, "names no language"),
    ],
)
def test_a_bad_row_is_named_counted_and_ends_nothing(tmp_path, change, reason):
    loaded = data.load(write(tmp_path / "x.parquet", [sft_row(), sft_row() | change, sft_row()]))
    with pytest.raises(ValueError, match=f"^x.parquet row 1: .*{reason}"):
        loaded[1]
    view, dropped = usable(loaded)
    assert [s.id for s in view] == ["x-0", "x-2"] and sum(dropped.values()) == 1 and reason in next(iter(dropped))


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"text": 1}, 'has no "messages"'),
        (swift_row(images=[]), "0 pictures"),
        (swift_row(images=["a.png", "b.png"]), "2 pictures"),
        (swift_row(images=["gone.png"]), "the picture does not exist .*gone.png"),
        (swift_row(messages=swift_row()["messages"] * 2), "2 user messages"),
        (swift_row(messages=[{"role": "user", "content": None}], images=["a.png"]), "content is empty"),
        ([1, 2], "no JSON object"),
    ],
)
def test_bad_swift_rows(tmp_path, row, reason):
    picture().save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=f"^x.jsonl line 1: .*{reason}"):
        data.load(write(tmp_path / "x.jsonl", [row]))[0]


@pytest.mark.quick
@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"id": "a", "path": "a.svg"}, "language is None; use one of python"),
        ({"id": "a", "language": "cobol", "path": "a.svg"}, "language is cobol"),
        ({"id": "a", "language": "svg"}, "neither a program nor a picture"),
        ({"id": "a", "language": "svg", "path": "empty.svg"}, "neither a program nor a picture"),
        ({"id": "a", "language": "svg", "path": "gone.svg"}, "a program cannot be read .*gone.svg"),
        ({"id": "a", "language": "svg", "path": "binary.svg"}, "a program is not UTF-8 .*binary.svg"),
    ],
)
def test_bad_manifest_rows(tmp_path, row, reason):
    (tmp_path / "empty.svg").write_text("")
    (tmp_path / "binary.svg").write_bytes(b"\xff\xfe\x00")
    write(tmp_path / "MANIFEST.jsonl", [row])
    with pytest.raises(ValueError, match=f"^MANIFEST.jsonl line 1: .*{reason}"):
        data.load(tmp_path)[0]


def test_bad_paths(tmp_path):
    for path, error in ((tmp_path / "gone.parquet", FileNotFoundError), (tmp_path, ValueError)):
        with pytest.raises(error, match="give a .parquet, .jsonl or .json, or a folder with such files or a MANIFEST"):
            data.load(path)
    (tmp_path / "e.jsonl").write_text("\n\n")
    (tmp_path / "e.parquet").write_bytes(b"")
    (tmp_path / "t.parquet").write_bytes(write(tmp_path / "good.parquet", [sft_row()]).read_bytes()[:-20])
    write(tmp_path / "columns.parquet", [{"user_content": "a", "picture": b"1"}])
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([sft_row()])[:0], tmp_path / "zero.parquet")
    reasons = {"e.jsonl": "is empty", "e.parquet": "no readable parquet", "t.parquet": "no readable parquet"}
    reasons |= {"columns.parquet": "has the columns picture, user_content; rename", "zero.parquet": "has no rows"}
    for name, reason in reasons.items():
        with pytest.raises(ValueError, match=f"{name} {reason}|{name} is {reason}"):
            data.load(tmp_path / name)
    for name in ("0.parquet", "1.parquet"):
        (tmp_path / "set").mkdir(exist_ok=True)
        (tmp_path / "set" / name).write_bytes((tmp_path / "zero.parquet").read_bytes())
    with pytest.raises(ValueError, match="each of 2 files, .*set/0.parquet first, has no rows"):
        data.load(tmp_path / "set")


def test_a_column_that_is_there_twice_is_said_before_a_row_is_read(tmp_path):
    table = pyarrow.Table.from_pylist([sft_row(id="a", other=1)])
    for name in ("id", "other"):
        twice = table.append_column(name, table[name])
        pyarrow.parquet.write_table(twice, tmp_path / f"{name}.parquet")
    with pytest.raises(ValueError, match="id.parquet has 2 columns id; keep one of them"):
        data.load(tmp_path / "id.parquet")
    assert data.load(tmp_path / "other.parquet")[0].code == SVG  # nobody reads that one


# fences and languages --------------------------------------------------------------------------------------------


@pytest.mark.quick
@pytest.mark.parametrize(
    ("text", "language", "code"),
    [
        (fence("a"), "svg", "a"),
        (fence("a") + "Or rather\n" + fence("b"), "svg", "b"),
        (fence("a") + fence("b", "html"), "svg", "a"),
        (fence("a", "SVG"), "svg", "a"),
        (fence("a", "python3"), "python", "a"),
        (fence("a", "py"), "python", "a"),
        (fence("a", "tikz"), "latex", "a"),
        (fence("a", "TeX"), "latex", "a"),
        (fence("a", "mmd"), "mermaid", "a"),
        (fence("a", "htm").replace("\n", "\r\n"), "html", "a"),
        (fence("a\n\n  b\n"), "svg", "a\n\n  b\n"),
        ("The code: ```svg\na\n```", "svg", "a"),
        ("```svg title=x\na\n```", "svg", "a"),
        ("````svg\na\n```\nb\n````", "svg", "a\n```\nb"),
        (fence('s = """\n```js\nx\n```\n"""', "python"), "python", 's = """\n```js\nx\n```\n"""'),
        (fence("s = '```'\nt = 1", "python"), "python", "s = '```'\nt = 1"),
        ("```svg\nnever closed\n\n```svg\nb\n```", "svg", "b"),
        (fence("a") + "```svg\nnever closed", "svg", "a"),
        ("```svg\na", "svg", None),
        ("```\na\n```", "svg", None),
        (fence("a", "svgx"), "svg", None),
        (fence(" "), "svg", None),
        (fence("a") + fence(""), "svg", "a"),
        ("", "svg", None),
    ],
)
def test_extract_code(text, language, code):
    assert extract_code(text, language) == code


@pytest.mark.quick
@pytest.mark.parametrize(
    ("prompt", "language"),
    [
        ("HTML code (inline SVG allowed)", "html"),
        ("python code that draws this svg icon", "python"),
        ("not html but svg", "svg"),
        ("Draw it with TikZ", "latex"),
        ("Answer with Latex/TikZ code.", "latex"),
        ("<image>\nDrawing from the webpage screenshot, create corresponding HTML and CSS code.", "html"),
        ("Convert this SVG picture to TikZ", "latex"),
        ("From this SVG, create matplotlib code", "python"),
        ("Given this html page, write svg", "svg"),
        ("Instead of LaTeX, use Python.", "python"),
        ("Use RDKit to draw the molecule", "python"),
        ("Give a mermaid diagram", "mermaid"),
        ("Put it in a ```html block; it may hold svg", "html"),
        ("Correct this HTML:\n```html\n<svg>python code</svg>\n```", "html"),
        ("Reproduce it as a vector graphic (svg)", "svg"),
        ("Write an SVG with an indigo circle", "svg"),
    ],
)
def test_language_of(prompt, language):
    assert language_of(prompt) == language


@pytest.mark.parametrize("prompt", ["", "Draw this picture.", "A pythonic, htmlish, svgs"])
def test_language_of_says_when_there_is_none(prompt):
    with pytest.raises(ValueError, match="names no language"):
        language_of(prompt)


def test_prompts_name_their_language_and_vary():
    for language, code in PROGRAMS.items():
        for domain in {data.domain_of(language, code), "molecule" if language == "python" else "else"}:
            prompts = {data.direct_prompt(language, domain, np.random.default_rng(i)) for i in range(40)}
            assert 4 <= len(prompts) <= 6
            assert all(language_of(prompt) == language and 5 <= len(prompt.split()) <= 20 for prompt in prompts)
        prompts = {data.refine_prompt(language, code, np.random.default_rng(i)) for i in range(40)}
        assert len(prompts) == 4 and data.refine_prompt(language, code) in prompts
        assert all(language_of(p) == language and extract_code(p, language) == code for p in prompts)


def test_answer_text_and_back():
    for language, code in PROGRAMS.items():
        assert extract_code(data.answer_text(Sample("a", "", language, None, "", code)), language) == code
    assert data.answer_text(Sample("a", "svg", "svg", None, "", "<svg/>")) == "```svg\n<svg/>\n```"


def test_domain_of():
    assert data.domain_of("python", "from rdkit import Chem") == "molecule"
    assert data.domain_of("python", "import indigo") == "molecule"
    assert data.domain_of("python", "ax.plot(x, color='indigo')  # not from rdkit") == "chart"
    assert [data.domain_of(name, "") for name in ("svg", "html", "latex", "mermaid")] == [
        "svg",
        "html",
        "latex",
        "mermaid",
    ]


# flaws -----------------------------------------------------------------------------------------------------------


def assert_flawed(code, language, seed):
    flawed = mutate(code, language, np.random.default_rng(seed))
    assert flawed != code and flawed == mutate(code, language, np.random.default_rng(seed))
    if language == "python":
        ast.parse(flawed)
    if language == "svg":
        ElementTree.fromstring(flawed)
    return flawed


@pytest.mark.parametrize("language", list(PROGRAMS))
def test_mutate(language):
    flawed = {assert_flawed(PROGRAMS[language], language, seed) for seed in range(60)}
    assert len(flawed) > 15
    assert min(len(code) for code in flawed) < len(PROGRAMS[language]) - 10  # something was left out


def test_mutate_changes_the_molecule_not_the_imports():
    code = 'from rdkit import Chem\nmol = Chem.MolFromSmiles("CCOc1ccccc1Cl")\n'
    flawed = {assert_flawed(code, "python", seed) for seed in range(20)}
    assert len(flawed) > 2 and all(
        text.startswith('from rdkit import Chem\nmol = Chem.MolFromSmiles("') for text in flawed
    )


@pytest.mark.parametrize(("code", "language"), [("pass", "python"), ("def (", "python"), ("<svg", "svg"), ("", "html")])
def test_mutate_says_when_it_cannot(code, language):
    with pytest.raises(ValueError, match="cannot mutate this"):
        mutate(code, language, np.random.default_rng(0))


def test_mutate_real_programs():
    if not REAL.is_dir():
        pytest.skip(f"{REAL} is absent: the real programs are not part of this repository")
    samples = data.load(REAL)
    for index, sample in enumerate(samples):
        assert_flawed(sample.code, sample.language, index)


# shuffling and the command line ----------------------------------------------------------------------------------


@pytest.mark.quick
def test_batch_indices():
    shuffled = lambda n, *batch, **of: loading.batch_indices(data.Samples([], None, range(n)), *batch, **of)  # noqa: E731
    whole = [i for step in range(21) for i in shuffled(7, 3, seed=1, step=step)]
    epochs = [whole[start : start + 7] for start in range(0, 63, 7)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)  # batches cross the borders of epochs
    assert len({tuple(epoch) for epoch in epochs}) > 5
    assert shuffled(7, 3, seed=1, step=11) == whole[33:36]  # a resumed run asks for this step only
    assert shuffled(100, 8, seed=1, step=0) != shuffled(100, 8, seed=2, step=0)
    assert shuffled(1, 4, seed=0, step=9) == [0] * 4
    big = shuffled(3, 8, seed=0, step=0)
    assert sorted(big[:3]) == sorted(big[3:6]) == [0, 1, 2] and all(type(i) is int for i in big)
    for n, batch in ((0, 1), (1, 0)):
        with pytest.raises(ValueError, match="must be at least 1"):
            shuffled(n, batch, seed=0, step=0)


def inspect(tmp_path, *arguments):
    environment = os.environ | {"HF_HOME": str(tmp_path / "hf"), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "corpus", "inspect", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=900)


def test_inspect(tmp_path):
    folder = manifest(tmp_path / "set")
    rows = [{"language": "svg", "path": name} for name in ("one.svg", "two.svg", "three.svg", "gone.svg", "bad.svg")]
    (folder / "bad.svg").write_text("<svg")
    for name in ("one.svg", "two.svg", "three.svg"):
        (folder / name).write_text(SVG)
    write(folder / "MANIFEST.jsonl", rows)
    done = inspect(tmp_path, "set", "--contact-sheet", "out/sheet.png", "--histograms", "out/sizes.png")
    assert done.returncode == 0, done.stderr
    assert "svg       svg             3" in done.stdout and "5 rows, 3 usable, 2 dropped" in done.stdout
    assert "2 repeat the exact code" in done.stdout
    assert (
        "MANIFEST.jsonl line 4:" in done.stdout and "MANIFEST.jsonl line 5: its target does not render" in done.stdout
    )
    assert Image.open(tmp_path / "out" / "sheet.png").size == (3 * 176, 192)
    assert Image.open(tmp_path / "out" / "sizes.png").size == (1100, 400)
    assert sorted(os.listdir(tmp_path)) == ["out", "set"]


def test_inspect_parquet_is_quiet_and_litters_nothing(tmp_path):
    write(tmp_path / "x.parquet", [sft_row()] * 3)
    done = inspect(tmp_path, "x.parquet", "--limit", "2")
    assert "2 rows, 2 usable" in done.stdout and done.stderr == ""
    assert sorted(os.listdir(tmp_path)) == ["x.parquet"]


def test_inspect_ends_with_one_line(tmp_path):
    done = inspect(tmp_path, "gone")
    assert done.returncode == 1
    assert done.stderr.startswith("corpus inspect: gone does not exist") and done.stderr.count("\n") == 1


def test_a_room_names_its_commands(script):
    status, said = script("corpus/__main__.py", "inspekt")
    assert status == 2 and said.startswith(
        "corpus: there is no command 'inspekt'; use one of inspect, draw, words, build"
    )
