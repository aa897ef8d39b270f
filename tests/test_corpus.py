"""corpus/: sources and their hostile rows, checks, duplicates, drafts, a build from end to end, killed and resumed."""

import ast
import hashlib
import io
import itertools
import json
import os
import random
import re
import struct
import subprocess
import sys
import time
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image, ImageDraw
from test_data import picture, png
from test_render import MISSING

import data
import loading
import synth
from corpus import checks, drafts, duplicates
from corpus.build import Build
from corpus.choose import Choose
from corpus.drawn import check as check_drawn
from corpus.publish import quotas
from corpus.readers import open_source
from flaws import _other_molecules
from prompts import language_of
from render import Renderer, Rendering
from reward import Visual

ROOT = Path(__file__).parent.parent
REAL = ROOT.parent / "shared" / "data" / "real"
SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="64" height="64"><circle cx="20" cy="30" r="9" fill="red"/></svg>'
PAGE = "<html><body><h1>Welcome back</h1><p>Some words here</p></body></html>"
TIKZ = "\\begin{tikzpicture}\n\\draw[red] (0,0) -- (3,2);\n\\node at (1,4) {Hello};\n\\end{tikzpicture}"
CHART = "import matplotlib.pyplot as plt\n\nplt.bar(['a', 'b'], [3, 5])\nplt.show()"


def drawing() -> Image.Image:
    """What SVG draws, by hand."""
    image = Image.new("RGB", (448, 448), "white")
    ImageDraw.Draw(image).ellipse((77, 147, 203, 273), fill="red")
    return image


def png_header(width: int, height: int) -> bytes:
    """A PNG that says it is large, and holds nothing."""

    def part(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", header) + part(b"IDAT", zlib.compress(b"")) + part(b"IEND", b"")


def fence(code: str, tag: str = "svg") -> str:
    return f"```{tag}\n{code}\n```"


def write(path: Path, rows: list[dict]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    else:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def read(path: Path, start: int = 0) -> list:
    """The samples of a source, and what is wrong with the rows that are none."""
    source, found = open_source(path), []
    for row in source.rows(start):
        try:
            found.append(source.sample(row))
        except ValueError as error:
            found.append(str(error))
    return found


# sources ---------------------------------------------------------------------------------------------------------

# schema -> (file, a good row, what its picture, its code and an empty answer look like, the code that comes out)
SOURCES = {
    "SFT": ("x.parquet", {"user_content": "<image>\nWrite SVG code.", "assistant_content": fence(SVG), "image": png()}),
    "EasyR1": ("x.parquet", {"problem": "<image>Write SVG code.", "answer": fence(SVG), "images": [png()]}),
    "WebCode2M": ("x.parquet", {"image": {"bytes": png(), "path": None}, "bbox": "[]", "text": PAGE, "lang": "en"}),
    "UniSVG": ("x.json", {"q_text": "Draw it", "a_text": SVG, "image_path": "a.png", "type": "ISVGEN"}),
    "svg-stack": ("x.parquet", {"Filename": "a.svg", "Svg": SVG, "caption_blip2": "a circle"}),
    "DaTikZ": ("x.parquet", {"caption": "a line", "code": TIKZ, "image": {"bytes": png(), "path": None}, "uri": "u"}),
    "CoSyn": ("x.parquet", {"id": "c1", "image": {"bytes": png(), "path": None}, "code": CHART, "data": "a,b"}),
    "Chart2Code or MCD": (
        "x.json",
        {
            "id": "m",
            "image": "a.png",
            "conversations": [{"from": "human", "value": "<image>\nDraw it."}, {"from": "gpt", "value": CHART}],
        },
    ),
    "ms-swift": (
        "x.jsonl",
        {
            "messages": [{"role": "user", "content": "<image>SVG code"}, {"role": "assistant", "content": fence(SVG)}],
            "images": ["a.png"],
        },
    ),
}
CODES = {"WebCode2M": PAGE, "DaTikZ": TIKZ, "CoSyn": CHART, "Chart2Code or MCD": CHART}
TEXTS = {"SFT": "assistant_content", "EasyR1": "answer", "WebCode2M": "text", "UniSVG": "a_text", "svg-stack": "Svg"}
TEXTS |= {"DaTikZ": "code", "CoSyn": "code"}


@pytest.mark.parametrize("schema", list(SOURCES))
def test_every_source_is_read(tmp_path, schema):
    picture().save(tmp_path / "a.png")
    name, row = SOURCES[schema]
    path = write(tmp_path / name, [row] * 5)
    assert open_source(path).schema == schema
    samples = read(path)
    assert [sample.code for sample in samples] == [CODES.get(schema, SVG)] * 5
    for sample in samples:
        assert schema == "svg-stack" or sample.image.tobytes() == picture().tobytes()
        assert language_of(sample.prompt) == sample.language
    assert [s.code for s in read(path, start=3)] == [CODES.get(schema, SVG)] * 2  # from the middle


@pytest.mark.parametrize("schema", list(SOURCES))
@pytest.mark.parametrize("hostile", ["truncated", "huge", "no picture", "empty answer", "missing", "wrong type"])
def test_hostile_rows_are_named_and_end_nothing(tmp_path, schema, hostile):
    picture().save(tmp_path / "a.png")
    name, row = SOURCES[schema]
    bad = json.loads(json.dumps(row, default=lambda value: None)) | {k: v for k, v in row.items() if k in ("image",)}
    key = next((k for k in ("image", "images", "image_path") if k in row), None)
    if hostile in ("truncated", "huge", "no picture"):
        if key is None:
            pytest.skip("this source has no pictures")
        content = {"truncated": png()[:60], "huge": png_header(40_000, 40_000), "no picture": None}[hostile]
        if name.endswith("parquet"):
            shape = row[key]
            wrapped = {"bytes": content, "path": None} if isinstance(shape, dict) else content
            bad[key] = [wrapped] if isinstance(shape, list) else wrapped
        else:
            (tmp_path / "bad.png").write_bytes(content or b"")
            bad[key] = ["bad.png"] if key == "images" else "bad.png"
    else:
        text = TEXTS.get(schema)
        value = {"empty answer": "", "missing": None, "wrong type": None}[hostile]
        if schema == "ms-swift":
            bad["messages"] = [row["messages"][0], {"role": "assistant", "content": value}]
        elif schema == "Chart2Code or MCD":
            bad["conversations"] = [row["conversations"][0], {"from": "gpt", "value": value}]
        else:
            bad[text] = value
        if key and name.endswith("parquet"):
            bad[key] = row[key]
        if hostile == "missing" and not name.endswith("parquet"):  # parquet has all columns or none
            del bad[text or ("messages" if schema == "ms-swift" else "conversations")]
    found = read(write(tmp_path / name, [row, bad, row]))
    assert len(found) == 3 and found[0].code and found[2].code
    if schema == "EasyR1" and hostile in ("empty answer", "missing", "wrong type"):
        assert found[1].code is None  # RL needs no code; a build names it
    else:
        assert isinstance(found[1], str) and len(found[1]) < 400 and "\n" not in found[1].strip()


def test_text_that_is_not_utf8_spoils_one_row(tmp_path):
    good, bad = SVG.encode(), b"<svg>\xff\xfe</svg>"
    offsets = np.cumsum([0, len(good), len(bad), len(good)]).astype(np.int32)
    text = pyarrow.Array.from_buffers(
        pyarrow.string(), 3, [None, pyarrow.py_buffer(offsets), pyarrow.py_buffer(good + bad + good)]
    )
    names = pyarrow.array(["a.svg", "b.svg", "c.svg"])
    pyarrow.parquet.write_table(pyarrow.table({"Filename": names, "Svg": text}), tmp_path / "x.parquet")
    found = read(tmp_path / "x.parquet")
    assert found[0].code == found[2].code == SVG and "not UTF-8" in found[1]
    lines = write(tmp_path / "x.jsonl", [SOURCES["ms-swift"][1]] * 2)
    picture().save(tmp_path / "a.png")
    lines.write_bytes(lines.read_bytes() + b'{"messages": "\xff"}\n{"messages": \n')
    found = read(lines)
    assert [isinstance(item, str) for item in found] == [False, False, True, True]


def test_a_source_that_nobody_knows(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        open_source(tmp_path / "gone.parquet")
    with pytest.raises(ValueError, match="columns a, which is no known schema"):
        open_source(write(tmp_path / "x.parquet", [{"a": 1}]))
    with pytest.raises(ValueError, match="columns a, which is no known schema"):
        open_source(write(tmp_path / "x.jsonl", [{"a": 1}]))
    (tmp_path / "x.json").write_text("[{")
    with pytest.raises(ValueError, match="x.json is no JSON array"):
        open_source(tmp_path / "x.json")
    with pytest.raises(ValueError, match="holds no data set"):
        (tmp_path / "empty").mkdir()
        open_source(tmp_path / "empty")


def test_cosyn_leaves_out_languages_that_are_not_ours(tmp_path):
    image = {"bytes": png(), "path": None}
    rows = [{"id": str(i), "image": image, "code": code} for i, code in enumerate(("CCO", PAGE, "graph TD\nA-->B"))]
    found = read(write(tmp_path / "x.parquet", rows))
    assert "in no language of ours" in found[0] and [s.language for s in found[1:]] == ["html", "mermaid"]


# checks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "language", "normal"),
    [
        ("\ufeff<svg/>\r\n\r\n", "svg", "<svg/>"),
        ("```svg\n<svg></svg>\n```", "svg", "<svg></svg>"),
        ("<svg></svg>\nThis draws nothing.", "svg", "<svg></svg>"),
        ("x = 1  \n\n\n", "python", "x = 1"),
        ("x = 1<|im_end|>\n<|im_start|>user", "python", "x = 1"),
        ("<p>a\u200bb</p>\x00", "html", "<p>ab</p>"),
        ("\\begin{document}\na\n\\end{document}\njunk", "latex", "\\begin{document}\na\n\\end{document}"),
    ],
)
def test_normalise(code, language, normal):
    assert checks.normalise(code, language) == normal
    assert checks.normalise(normal, language) == normal


@pytest.mark.parametrize(
    ("code", "language", "problem"),
    [
        (" ", "svg", "is empty"),
        ("x" * 5_000_000, "html", "longer than 200000 characters"),
        ("x = 1\n" * 10_000, "python", "longer than 16384 words"),
        ("print(", "python", "does not parse"),
        ("plt.plot([1])", "python", "ruff F821"),
        ("import requests", "python", "reaches outside: import requests"),
        ("from urllib import request", "python", "reaches outside"),
        ("import numpy as np\nnp.load('a')", "python", "reaches outside: load()"),
        ("import matplotlib.pyplot as plt\nplt.imread('a.png')", "python", "reaches outside: imread()"),
        ("import pandas as pd\npd.read_csv('a')", "python", "reaches outside: read_csv()"),
        ("open('x')", "python", "reaches outside: open()"),
        ("<svg", "svg", "is not well-formed"),
        ("<p/>", "svg", "root element is not svg"),
        ('<svg xmlns="http://www.w3.org/2000/svg"><image href="http://x/y.png"/></svg>', "svg", "reaches outside"),
        ("<div><b>cut off", "html", "ends inside <b>"),
        ("words", "html", "has no element"),
        ('<img src="https://x/y.png">', "html", "reaches outside"),
        ('<link rel="stylesheet" href="//x/y.css"><p>a', "html", "reaches outside"),
        ("\\begin{document}\\begin{tikzpicture}\\draw", "latex", "is never ended"),
        ("\\includegraphics{photo.png}", "latex", "reaches outside"),
        ("a \ufffd b", "mermaid", "could not be decoded"),
    ],
)
def test_problems(code, language, problem):
    assert problem in checks.problems([(SVG, "svg"), (code, language)])[1]


@pytest.mark.parametrize(
    ("code", "language"),
    [
        (CHART, "python"),
        ("import os, json\nd = {}\nitems = [1]\nitems.remove(1)\njson.loads('1')", "python"),
        ('<svg xmlns="http://www.w3.org/2000/svg"><image href="data:image/png;base64,"/><use href="#a"/></svg>', "svg"),
        ('<p>one<p>two<br><img src="data:image/png;base64,"><a href="https://x.org">link</a>', "html"),
        (TIKZ, "latex"),
        ("graph TD\nA-->B", "mermaid"),
    ],
)
def test_good_programs_have_no_problem(code, language):
    assert checks.problems([(code, language)]) == [""]


# duplicates ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("a", "b", "language", "same"),
    [
        ("x = 1 # one", "x=1", "python", True),
        ("x = 1", "x = 2", "python", False),
        ("<svg>\n <g  a='1'>\n</g></svg>", '<svg><g a="1"></g></svg><!-- x -->', "svg", True),
        ("<svg><g a='1'/></svg>", "<svg><g a='2'/></svg>", "svg", False),
        ("\\draw (0,0); % a\n", "\\draw   (0,0);", "latex", True),
        ("\\draw (0,0);", "\\draw (0,1);", "latex", False),
        ("graph TD\nA-->B  \n", "graph TD\nA-->B %% c", "mermaid", True),
    ],
)
def test_code_key(a, b, language, same):
    assert (duplicates.code_key(a, language) == duplicates.code_key(b, language)) == same


def test_phash_is_the_usual_one():
    """Against the definition, written out: cosine sums instead of a library's transform."""
    image = picture(3, (32, 32)).convert("L")
    pixels = np.asarray(image, dtype=np.float64)
    n = np.arange(32)
    basis = np.cos(np.pi * (2 * n[None] + 1) * n[:8, None] / 64)  # (8, 32)
    low = basis @ pixels @ basis.T
    bits = (low > np.median(low)).ravel()
    assert duplicates.phash(image) == int("".join("1" if bit else "0" for bit in bits), 2)
    assert bin(duplicates.phash(image.resize((64, 64))) ^ duplicates.phash(image)).count("1") <= 4


def test_the_index_finds_every_hash_in_reach():
    rng = random.Random(0)
    index = duplicates.Index(io.BytesIO())
    small = bytes(range(256)) * 3
    for _ in range(2000):
        index.add(duplicates.Fingerprint(b"", rng.getrandbits(64), 0.0, small))
    target = rng.getrandbits(64)
    number = index.add(duplicates.Fingerprint(b"", target, 0.0, small))
    for bits in range(12):
        query = target
        for bit in rng.sample(range(64), bits):
            query ^= 1 << bit
        assert index.find(duplicates.Fingerprint(b"", query, 0.02, small)) == (number, "same picture")
        assert index.find(duplicates.Fingerprint(b"", query, 0.5, small)) is None  # another aspect ratio
    assert index.find(duplicates.Fingerprint(b"", target, 0.0, bytes(768))) is None  # another picture


def reformatted(code: str, language: str) -> str:
    if language == "python":
        return "# again\n" + ast.unparse(ast.parse(code))
    if language in ("svg", "html"):
        return re.sub(r">\s*<", ">\n  <", code)
    return code.replace("\n", "  % same\n")


def recoded(image: Image.Image, way: int) -> Image.Image:
    """The same picture as other tools would have stored it: JPEG, smaller, larger."""
    if way == 0:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=80)
        return Image.open(file).convert("RGB")
    scale, filter = ((0.5, Image.LANCZOS), (0.7, Image.BILINEAR), (1.5, Image.BICUBIC))[way - 1]
    return image.resize([max(1, round(side * scale)) for side in image.size], filter)


def test_near_duplicates_precision_and_recall(real_corpus):
    """Labelled: the real programs are distinct; each comes back reformatted, re-coded and re-scaled in four ways."""
    items = list(data.load(next((real_corpus / "sft").glob("direct-*"))))
    index = duplicates.Index(io.BytesIO())
    wrong = right = missed = 0
    for sample in items:
        print = duplicates.fingerprint(sample.image, sample.code, sample.language)
        wrong += index.find(print) is not None
        index.add(print)
    for number, sample in enumerate(items):
        other = reformatted(sample.code, sample.language)
        found = index.find(duplicates.fingerprint(picture(number), other, sample.language))
        right, missed = right + (found == (number, "same code")), missed + (found is None)
        for way in range(4):
            found = index.find(duplicates.fingerprint(recoded(sample.image, way), None, ""))
            right += found == (number, "same picture")
            wrong += found is not None and found[0] != number
            missed += found is None
    precision, recall = right / (right + wrong), right / (right + missed + wrong)
    assert precision >= 0.98 and recall >= 0.95, (precision, recall)


# drafts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "language"),
    [
        (CHART.replace("plt.show", "plt.title('Sales per region', color='red')\nplt.show"), "python"),
        (SVG.replace("<circle", '<rect width="9" height="9"/><rect x="30" width="9" height="5"/><circle'), "svg"),
        (PAGE, "html"),
        (TIKZ, "latex"),
        ("graph TD\nA[One two] --> B\nB --> C", "mermaid"),
    ],
)
def test_flaws_are_seeded_and_of_several_kinds(code, language):
    kinds = set()
    for seed in range(60):
        text, kind = drafts.flawed(code, language, np.random.default_rng(seed))
        assert text != code and (text, kind) == drafts.flawed(code, language, np.random.default_rng(seed))
        kinds.add(kind)
        if language == "python":
            ast.parse(text)
    assert kinds <= set(drafts.KINDS) and len(kinds) >= 3


@pytest.mark.parametrize("score", [lambda flaws: 1 - 0.06 * flaws, lambda flaws: 0.99 - 0.02 * flaws])
def test_drafts_are_steered_into_the_band(score):
    """With a picture that gets worse with every flaw, any band between them is reached, and never missed twice."""
    for seed, band in itertools.product(range(20), [(0.3, 0.95), (0.8, 0.9), (0.88, 0.92)]):
        code = synth.make("svg", seed, 0, 0.5).code
        draft, counts = drafts.Draft(code, "svg", np.random.default_rng(seed)), Counter()
        while draft.state == "open":
            assert draft.propose() == draft.text != code
            visual = score(len(draft.kinds))
            draft.judge(Rendering(drawing(), None, 0.1), visual, band, counts)
        assert draft.state == "kept" and band[0] <= draft.visual == score(len(draft.kinds)) <= band[1]
        assert counts.total() == draft.tries <= 5


def test_a_draft_that_breaks_goes_back_to_fewer_flaws():
    code = synth.make("svg", 3, 0, 0.5).code
    draft, counts, broken = drafts.Draft(code, "svg", np.random.default_rng(0)), Counter(), Rendering(None, "no", 0.1)
    draft.propose()
    draft.judge(Rendering(drawing(), None, 0.1), 0.99, drafts.BAND, counts)
    flaws = len(draft.kinds)
    draft.propose()
    assert len(draft.kinds) > flaws
    while draft.state == "open":
        draft.judge(broken, 0.0, drafts.BAND, counts)
        if draft.state == "open":
            draft.propose()
            assert len(draft.kinds) > flaws  # what was seen to render is kept
    assert draft.state == "no draft in the band" and counts["svg", "later", "failed"] == drafts.TRIES - 1


def test_nine_of_ten_proposals_are_drafts():
    """Of programs that the flaws were not made with: they render, and their score is in the band."""
    domains = [domain for domain in synth.DOMAINS if not MISSING[synth.LANGUAGE_OF[domain]]]
    judge, counts = Visual(), Counter()
    with Renderer(workers=2) as renderer:
        for number, domain in itertools.product(range(6), domains):
            sample = synth.make(domain, number, 11, 0.5)
            target = renderer.render(sample.code, sample.language).image
            draft = drafts.Draft(sample.code, sample.language, np.random.default_rng(number))
            while draft.state == "open":
                rendering = renderer.render(draft.propose(), sample.language)
                visual = judge.compare([target], [rendering])[0].visual
                draft.judge(rendering, visual, drafts.BAND, counts)
            assert draft.state == "kept"
    said = Counter(outcome for _, _, outcome in counts.elements())
    assert said["in the band"] >= 0.9 * said.total() and said["failed"] <= 0.1 * said.total(), counts


def test_what_the_whole_picture_hangs_on_is_found():
    for code, language, expected in (
        (CHART, "python", "plt.rcParams.update({"),
        (CHART.replace("plt.bar", "fig, ax = plt.subplots(figsize=(4, 3))\nax.bar"), "python", "figsize=("),
        ("MolToFile(MolFromSmiles('CC#CCC'), 'a.png', size=(300, 300))", "python", "size=("),
        (SVG.replace("<svg", '<svg viewBox="0 0 64 64"'), "svg", "viewBox"),
        (SVG, "svg", 'height="64"><circle cx="20" cy="30" r="9" fill="red"/></svg>'),
        (PAGE, "html", "<style>html { padding: "),
        ("<p>a page without a head</p>", "html", "px }</style>\n<p>a page"),
        (f"<html><head><title>a</title></head>{PAGE[6:]}", "html", "px }</style>\n</head>"),
        (TIKZ, "latex", "begin{tikzpicture}["),
        (TIKZ.replace("}\n", "}[thick]\n", 1), "latex", ", thick]"),
        ("\\begin{document}\nsome words\n\\end{document}", "latex", "\\Large"),
        ("graph TD\nA-->B", "mermaid", '%%{init: {"theme": '),
    ):
        text, kind = drafts.flawed(code, language, np.random.default_rng(0), kinds=["style"])
        assert kind == "style" and text != code and expected in text, text
    assert "colour" not in drafts._places("mol = MolFromSmiles('CC#CCC')", "python")  # a bond, not a grey


@pytest.mark.parametrize("smiles", ["OC(CC(c1ccccc1)Cl)=O", "N#Cc1ccccc1Br", "Cc1c[nH]c2ccccc12", "C=O", "[Na+].[Cl-]"])
def test_other_molecules_exist(smiles):
    chemistry = pytest.importorskip("rdkit.Chem")
    for other in _other_molecules(smiles):
        assert other != smiles and chemistry.MolFromSmiles(other), other


# a build ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real_corpus(tmp_path_factory):
    if not REAL.is_dir():
        pytest.skip(f"{REAL} is absent: the real programs are not part of this repository")
    out = tmp_path_factory.mktemp("corpus") / "real"
    Build((str(REAL),), str(out), refine=0.3, processes=2)()
    return out


def test_real_programs_come_out(real_corpus):
    rows = data.load(next((real_corpus / "sft").glob("direct-*")))
    assert len(rows) >= 0.95 * 214
    assert "| rows read | | 214 |" in (real_corpus / "card.md").read_text()
    assert sorted(os.listdir(real_corpus)) == ["card.md", "config.json", "contact_sheet.png", "rejects.jsonl", "sft"]


def test_drafts_of_real_programs_render_and_differ_visibly(real_corpus):
    card = (real_corpus / "card.md").read_text()
    section = card[card.index("## Refinement drafts") : card.index("| rows with")]
    table = re.findall(r"(?m)^\| (\w+) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|", section)
    tried, kept, proposals, rendered = (sum(int(row[k]) for row in table) for k in (1, 2, 3, 4))
    drafts_read = data.load(next((real_corpus / "sft").glob("refine-*")))
    assert {row[0] for row in table} == {"html", "latex", "python", "svg"} and len(drafts_read) == kept
    assert kept >= 0.9 * tried and rendered >= 0.9 * proposals and kept >= 0.9 * proposals


def programs(folder: Path, count: int, seed: int = 0, extra=(), others=()) -> Path:
    """A manifest of svg scenes, with what a collection has besides: `extra` svg, and `others` as (language, code)."""
    rows = []
    folder.mkdir(parents=True)
    codes = [("svg", synth.make("svg", index, seed, 0.5).code) for index in range(count)]
    codes += [*(("svg", code) for code in extra), *others]
    for number, (language, code) in enumerate(codes):
        (folder / f"{number}.txt").write_text(code)
        rows.append({"id": f"p{number}", "language": language, "path": f"{number}.txt"})
    write(folder / "MANIFEST.jsonl", rows)
    return folder


def digest(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_a_build_from_end_to_end(tmp_path):
    first = synth.make("svg", 0, 0, 0.5).code
    blank = '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'
    extra = [first.replace("><", ">\n<"), "<svg", blank, synth.make("svg", 1, 9, 0.5).code]
    folder = programs(tmp_path / "in", 20, extra=extra)
    held_out = programs(tmp_path / "test", 2, seed=9)
    options = {"processes": 1, "refine": 0.5, "rl": 4, "draft_pictures": True, "against": (str(held_out),)}
    Build((str(folder),), str(tmp_path / "out"), **options)()
    rejects = [json.loads(line) for line in (tmp_path / "out" / "rejects.jsonl").read_text().splitlines()]
    assert [(r["id"], r["stage"]) for r in rejects] == [
        ("p21", "check"),
        ("p22", "render"),
        ("p20", "duplicate"),
        ("p23", "evaluation"),
    ]
    assert rejects[2]["reason"] == "same code as p0"
    direct, refine, rl = (sorted((tmp_path / "out").glob(f"*/{name}-*.parquet")) for name in ("direct", "refine", "rl"))
    assert [s.code for s in data.load(direct[0])] == [synth.make("svg", i, 0, 0.5).code for i in range(20)]
    drafts_read = list(data.load(refine[0]))
    assert 4 <= len(drafts_read) <= 16 and all(s.draft and s.draft != s.code for s in drafts_read)
    table = pyarrow.parquet.read_table(refine[0])
    assert all(text.startswith("<image>\n<image>\n") for text in table["user_content"].to_pylist())
    assert all(Image.open(io.BytesIO(image)).size for image in table["draft_image"].to_pylist())
    assert len(data.load(rl[0])) == 4 and {s.code for s in data.load(rl[0])} <= {s.code for s in data.load(direct[0])}
    card = (tmp_path / "out" / "card.md").read_text()
    assert "| rows read | | 24 |" in card and "Kinds of flaw: number, colour" in card


def test_pictures_that_do_not_match_their_program(tmp_path):
    shown = drawing()
    rows = [SOURCES["SFT"][1] | {"image": png(picture(1, (448, 448)))}, SOURCES["SFT"][1] | {"image": png(shown)}]
    Build((str(write(tmp_path / "x.parquet", rows)),), str(tmp_path / "out"), processes=1, max_rejects=0.9)()
    (reject,) = [json.loads(line) for line in (tmp_path / "out" / "rejects.jsonl").read_text().splitlines()]
    assert (reject["row"], reject["stage"]) == ("x.parquet row 0", "compare")


def test_too_many_rejects_stop_the_build_and_nothing_is_lost(tmp_path):
    folder = programs(tmp_path / "in", 6, extra=["<svg"] * 3)
    out = tmp_path / "out"
    with pytest.raises(ValueError, match="3 of 9 rows cannot be used, more than 20%: 3 x check: is not well-formed"):
        Build((str(folder),), str(out), processes=1)()
    assert len((out / "rejects.jsonl").read_text().splitlines()) == 3
    before = digest(out / "work")
    Build((str(folder),), str(out), processes=1, max_rejects=0.5, keep_work=True)()
    assert digest(out / "work") | before == digest(out / "work") and len(data.load(out / "sft")) >= 6
    with pytest.raises(ValueError, match="begun with another seed"):
        Build((str(folder),), str(out), seed=1)()


def test_quotas():
    assert quotas({"a": 10, "b": 2, "c": 10}, 12) == {"a": 5, "b": 2, "c": 5}
    assert quotas({"a": 1, "b": 1}, 9) == {"a": 1, "b": 1}
    assert sum(quotas({"a": 7, "b": 7, "c": 7}, 11).values()) == 11


def command(folder: Path, out: Path) -> list[str]:
    options = ["--processes", "2", "--chunk-rows", "4", "--shard-rows", "16", "--refine", "0.5", "--rl", "20"]
    return [sys.executable, "-m", "corpus", "build", str(folder), "--out", str(out), *options]


def test_killed_at_any_moment_the_corpus_is_the_same(tmp_path):
    page = PAGE.replace("<body", '<body style="margin: 9px; background: #ded"')
    folder = programs(tmp_path / "in", 62, others=[("python", CHART), ("html", page)])  # in the last chunk
    started = time.monotonic()
    done = subprocess.run(command(folder, tmp_path / "whole"), capture_output=True, text=True)
    seconds = time.monotonic() - started
    assert done.returncode == 0, done.stderr
    whole = digest(tmp_path / "whole")
    assert len(whole) > 8
    options = {"chunk_rows": 4, "shard_rows": 16, "refine": 0.5, "rl": 20}
    Build((str(folder),), str(tmp_path / "alone"), processes=1, **options)()
    assert digest(tmp_path / "alone") == whole  # however many processes
    rng, kills, builds = random.Random(time.time_ns()), 0, 0
    while kills < 5:
        out = tmp_path / f"killed-{builds}"
        started, unbroken = time.monotonic(), not out.exists()
        with subprocess.Popen(command(folder, out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            try:
                assert process.wait(rng.uniform(0.3, 1.0) * seconds) == 0
            except subprocess.TimeoutExpired:
                process.kill()
                kills += 1
                continue
        assert digest(out) == whole  # finished between two kills: the next one begins anew
        builds += 1
        if unbroken:
            seconds = min(seconds, time.monotonic() - started)  # the machine is less busy than it was
    done = subprocess.run(command(folder, out), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert digest(out) == whole


# a model's own answers -------------------------------------------------------------------------------------------


@pytest.fixture
def answers(tmp_path) -> Path:
    """A folder of eval.py: three targets with four answers each, of rewards that differ, that do not, that fail."""
    from records import Record, RecordWriter
    from reward import Score

    shown = drawing()
    target = data.Sample("a/b", "svg", "svg", shown, "Write SVG code.", SVG)
    flawed = SVG.replace('r="9"', 'r="7"')
    with RecordWriter(tmp_path / "eval") as writer:
        for name, totals in (("mixed", (0.1, 0.5, 0.9, 0.4)), ("solved", (1.0,) * 4), ("hopeless", (0.0,) * 4)):
            sample = data.Sample(name, "svg", "svg", shown, target.prompt, SVG)
            for index, total in enumerate(totals):
                score = Score(total, total, [total], total=total, alignment=1.0, executed=True, error=None)
                code = flawed if index < 2 else SVG if index == 2 else None
                writer.append(Record(sample, index, "text", code, Rendering(shown, None, 0.1), score, 0.5))
    return tmp_path / "eval"


def test_answers_of_a_model_become_drafts(answers, tmp_path):
    Build((str(answers),), str(tmp_path / "out"), processes=1)()  # answers that are no drafts are no fault
    rejects = [json.loads(line) for line in (tmp_path / "out" / "rejects.jsonl").read_text().splitlines()]
    reasons = {reject["id"]: reject["reason"] for reject in rejects}
    assert reasons["mixed#2"] == "its draft is too like it"
    assert reasons["records-3"] == "the answer has no code to refine"
    assert reasons["mixed#1"] == reasons["solved#0"] == "same draft and program as another row"
    (sample,) = data.load(tmp_path / "out" / "sft")
    assert sample.code == SVG and 'r="7"' in sample.draft


def test_prompts_are_chosen_by_sampled_reward(answers, tmp_path, capsys):
    Choose(str(answers), str(tmp_path / "rl.parquet"))()
    assert "1 of 3 targets (1 hopeless, 1 kept, 1 solved)" in capsys.readouterr().out
    (sample,) = data.load(tmp_path / "rl.parquet")
    assert sample.code == SVG and sample.image.size == (448, 448)
    with pytest.raises(ValueError, match="none of 3 targets is left"):
        Choose(str(answers), str(tmp_path / "none.parquet"), min_spread=0.9)()
    with pytest.raises(FileNotFoundError, match="holds no records.jsonl"):
        Choose(str(tmp_path))()


# programs drawn before training ----------------------------------------------------------------------------------


def undrawn(folder: Path) -> Path:
    """A manifest: programs with and without an id, a prompt, a draft, a picture; two that are equal, three that are
    broken."""
    rows = [
        {"id": 7, "domain": "svg_ref", "language": "svg", "path": "code/a.svg"},
        {"language": "svg", "path": "code/a.svg", "prompt": "Write SVG code, please."},
        {"id": "broken", "language": "svg", "path": "code/broken.svg"},
        {"id": "page", "language": "html", "path": str(folder / "code" / "page.html"), "draft": "code/draft.html"},
        {"id": "given", "language": "svg", "path": "code/a.svg", "image": "given.png"},
        {"id": "gone", "language": "svg", "path": "code/gone.svg"},
    ]
    (folder / "code").mkdir(parents=True)
    for name, code in (("a.svg", SVG), ("broken.svg", "<svg"), ("page.html", PAGE), ("draft.html", PAGE[:-20])):
        (folder / "code" / name).write_text(code)
    picture().save(folder / "given.png")
    write(folder / "MANIFEST.jsonl", rows)
    with open(folder / "MANIFEST.jsonl", "a") as file:
        file.write('\n{"language": "svg", "pa\n')
    return folder


def test_programs_are_drawn_once_and_rows_keep_their_places(tmp_path, renderer, script):
    if MISSING["html"]:
        pytest.skip("html cannot be drawn here")
    samples = data.load(undrawn(tmp_path / "in"))
    status, said = script("corpus/__main__.py", "draw", tmp_path / "in", "--out", tmp_path / "out", "--workers", 2)
    assert status == 0 and "7 rows, 3 of them without a picture: 1 x its target does not render" in said
    drawn = data.load(tmp_path / "out")
    assert data.needs_drawing(data.load(tmp_path / "in")) and not data.needs_drawing(drawn)
    assert len(os.listdir(tmp_path / "out" / "pictures")) == 2, "equal programs have one picture"
    for (_, before, wrong), (_, after, still_wrong) in zip(
        check_drawn(samples, renderer), data.check(drawn), strict=True
    ):
        assert wrong.partition(": ")[2] == still_wrong.partition(": ")[2] and bool(before) == bool(after)
        if before:
            assert before.image.tobytes() == after.image.tobytes()
            assert data.replace(before, image=None) == data.replace(after, image=None)
    problems = [problem.partition(": ")[2] for _, _, problem in data.check(drawn) if problem]
    assert problems[0].startswith("its target does not render (") and problems[0].endswith("remove the program")
    assert [problem.split(" (")[0] for problem in problems[1:]] == ["a program cannot be read", "is no JSON"]


def test_drawing_goes_on_where_it_was_stopped(tmp_path, renderer, script, monkeypatch):
    undrawn(tmp_path / "in")
    command = ["corpus/__main__.py", "draw", tmp_path / "in", "--out", tmp_path / "out", "--workers", 1]
    assert script(*command)[0] == 0
    whole = digest(tmp_path / "out")
    name = sorted(name for name in whole if name.endswith(".png"))[0]
    (tmp_path / "out" / name).unlink()
    (tmp_path / "out" / "MANIFEST.jsonl").unlink()
    asked, submit = [], Renderer.submit
    monkeypatch.setattr(Renderer, "submit", lambda self, code, *rest: asked.append(code) or submit(self, code, *rest))
    assert script(*command)[0] == 0 and digest(tmp_path / "out") == whole
    assert len(asked) <= 3 and "<svg" in asked, "one that is gone, in perhaps two rows, and what did not draw"


def test_only_a_manifest_is_drawn(tmp_path, script):
    write(tmp_path / "x.jsonl", [SOURCES["ms-swift"][1]])
    status, said = script("corpus/__main__.py", "draw", tmp_path / "x.jsonl", "--out", tmp_path / "out")
    assert status == 1 and said.startswith("corpus draw: ") and "has no MANIFEST.jsonl" in said
    status, said = script("corpus/__main__.py", "draw", undrawn(tmp_path / "in"), "--out", tmp_path / "in")
    assert status == 1 and "is the data set itself; give another folder" in said
    assert not data.needs_drawing(data.load(tmp_path / "x.jsonl"))


# loading for training --------------------------------------------------------------------------------------------


def many(folder: Path, files: int, rows: int) -> Path:
    """SFT files whose answers have different lengths and whose prompts number the rows."""
    folder.mkdir(parents=True)
    for file in range(files):
        table = []
        for row in range(rows):
            number = file * rows + row
            code = SVG + "<!-- " + "x" * (number * 7919 % 1000) + " -->"
            table.append({"user_content": f"<image>Write SVG code {number}.", "assistant_content": fence(code)})
            table[-1]["image"] = png()
        path = folder / f"{file}.parquet"
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(table), path, row_group_size=50)
    return folder


def test_every_row_comes_once_an_epoch_and_a_run_resumes_anywhere(tmp_path, monkeypatch):
    samples = data.load(many(tmp_path / "in", 3, 120))
    assert len(samples) == 360
    assert [samples[i].prompt for i in (0, 119, 120, 359)] == [f"Write SVG code {i}." for i in (0, 119, 120, 359)]
    for most_rows in (64, 1 << 16):  # windows of a part of the set, or of all of it
        monkeypatch.setattr(loading, "MOST_ROWS", most_rows)
        monkeypatch.setattr(loading, "ALIKE", 64)
        loading._window.cache_clear()
        steps = [loading.batch_indices(samples, 8, 0, step) for step in range(90)]
        for epoch in (steps[:45], steps[45:]):
            assert sorted(i for batch in epoch for i in batch) == list(range(360))
        assert steps[:45] != steps[45:] and steps[0] != loading.batch_indices(samples, 8, 1, 0)
        again = data.load(tmp_path / "in")
        assert [loading.batch_indices(again, 8, 0, step) for step in (77, 13, 44)] == [steps[77], steps[13], steps[44]]
        spread = [np.ptp([len(samples[i].code) for i in batch]) for batch in steps[:45]]
        assert np.mean(spread) < 300  # of 1,000: batches hold rows of similar length
        mixed = [loading.batch_indices(samples, 8, 0, step, alike=False) for step in range(45)]
        assert sorted(i for batch in mixed for i in batch) == list(range(360))
        assert np.mean([np.ptp([len(samples[i].code) for i in batch]) for batch in mixed]) > 500
        odd = [i for step in range(360) for i in loading.batch_indices(samples, 7, 0, step)]  # 360 = 51 * 7 + 3
        assert all(sorted(odd[at : at + 360]) == list(range(360)) for at in range(0, 7 * 360, 360))
    assert sorted(loading.batch_indices(samples, 720, 0, 3)) == sorted([*range(360)] * 2)
    with pytest.raises(ValueError, match="must be at least 1"):
        loading.batch_indices(samples, 0, 0, 0)


def test_row_groups_are_read_side_by_side(tmp_path, monkeypatch):
    """A set that was written kind by kind is not learnt kind by kind."""
    monkeypatch.setattr(loading, "MOST_ROWS", 64)
    samples = data.load(many(tmp_path / "in", 3, 120))  # nine row groups, of 50, 50, 20 ..
    for step in range(0, 40, 8):
        rows = [i for k in range(8) for i in loading.batch_indices(samples, 8, 0, step + k)]
        assert len({int(samples.rows._where(i)[0]) for i in rows}) >= 6


def test_training_reads_a_few_rows_before_it_begins(tmp_path, monkeypatch):
    folder = many(tmp_path / "in", 3, 120)
    read = []
    monkeypatch.setattr(data, "read_picture", lambda *arguments: read.append(1) or picture())
    samples = data.load(folder)
    loading.try_some_rows(samples, folder)
    assert len(samples) == 360 and len(read) <= loading.PROBED
    monkeypatch.undo()
    bad = SOURCES["SFT"][1] | {"image": png()[:50]}
    write(tmp_path / "bad.parquet", [bad] * 3)
    with pytest.raises(
        ValueError, match="holds no usable sample: 3 rows were tried, the first is bad.parquet row 0: the"
    ):
        loading.try_some_rows(data.load(tmp_path / "bad.parquet"), tmp_path / "bad.parquet")


def test_a_bad_row_is_named(tmp_path):
    good = SOURCES["SFT"][1]
    write(tmp_path / "x.parquet", [good, good | {"image": png()[:50]}, good])
    samples = data.load(tmp_path / "x.parquet")
    assert samples[0].code == samples[2].code == SVG
    with pytest.raises(ValueError, match="x.parquet row 1: the picture cannot be decoded"):
        samples[1]
