"""corpus real, on packages made here: what is read from them, held out, left out; the same bytes twice."""

import io
import json
import os
import re
import shutil
import tarfile
from collections import Counter
from pathlib import Path

import pyarrow.parquet
import pytest

import data
import synth
from corpus import packages, real
from corpus.checks import problems
from corpus.contents import CONTENTS, drawing_alone, used_rules, without_prose
from corpus.packages import Package, fetch, members, sha256_of

MIT, NC = {"spdx": "MIT", "title": "MIT"}, {"spdx": "CC-BY-NC-4.0", "title": "CC BY-NC"}
CHART = "import matplotlib.pyplot as plt\n\nplt.plot([1, 3, 2])\nplt.show()"


def packed(path: Path, files: dict[str, str], top: str = "package/") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        for name, text in files.items():
            entry = tarfile.TarInfo(top + name)
            entry.size = len(text.encode())
            archive.addfile(entry, io.BytesIO(text.encode()))
    return path


def icon_set(prefix: str, author: str, bodies: list[str], license: dict = MIT) -> dict[str, str]:
    info = {"license": license, "author": {"name": author}}
    drawn = {f"icon-{i}": {"body": body} for i, body in enumerate(bodies)}
    text = json.dumps({"prefix": prefix, "info": info, "width": 64, "height": 64, "icons": drawn})
    return {f"json/{prefix}.json": text}


def body(seed: int, index: int) -> str:
    return re.search(r"(?s)<svg[^>]*>(.*)</svg>", synth.make("svg", index, seed, 0.1).code)[1]


def read(name: str, path: Path) -> tuple[list, Counter]:
    left_out = Counter()
    return list(CONTENTS[name](path, left_out)), left_out


def test_icons_are_chosen_by_licence_colour_and_length(tmp_path):
    bodies = [body(0, 0), '<path fill="currentColor" d="M0 0h9v9z"/>', "<g>" + body(0, 1) * 90 + "</g>"]
    files = icon_set("mine", "Me", bodies) | icon_set("not-for-sale", "You", [body(0, 2)], NC)
    found, left_out = read("@iconify/json", packed(tmp_path / "p.tgz", files))
    assert [(p.id, p.license, p.group, p.source) for p in found] == [
        ("mine/icon-0", "MIT", "Me", "json/mine.json, by Me")
    ]
    assert found[0].code.startswith('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 64 64">')
    assert sorted(left_out.values()) == [0, 1, 1, 1]


def test_clip_art_loses_what_nobody_sees():
    text = """<?xml version="1.0"?><!-- made by hand --><svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"
    xmlns:sodipodi="http://sodipodi" xmlns:xlink="http://www.w3.org/1999/xlink"><metadata>A box</metadata>
    <sodipodi:view zoom="2"/><g id="layer"><rect id="box" sodipodi:type="arc" width="5" height="4"/></g>
    <text>two <tspan>words</tspan> here</text><use xlink:href="#box" x="3"/></svg>"""
    code = drawing_alone(text.encode())
    assert (
        not re.search("sodipodi|metadata|layer|hand", code) and 'id="box"' in code and problems([(code, "svg")]) == [""]
    )
    assert "<text>two <tspan>words</tspan> here</text>" in code


def test_examples_lose_their_prose_and_those_with_a_screen_are_left_out(tmp_path):
    prose = f'"""\n=====\nTitle\n=====\n"""\n# kept\n{CHART}\n\n{"#" * 60}\n#\n# .. admonition:: References\n'
    assert without_prose(prose) == f"# kept\n{CHART}"
    files = {"examples/ticks/a.py": prose, "examples/widgets/b.py": "from matplotlib.widgets import Slider\n"}
    found, left_out = read("matplotlib", packed(tmp_path / "m.tar.gz", files, "matplotlib-3.7.5/"))
    assert [(p.id, p.group) for p in found] == [("matplotlib/ticks/a", "ticks")] and left_out.total() == 1


def test_molecules_come_once_with_their_scaffold(tmp_path):
    pytest.importorskip("rdkit")
    if not shutil.which("dpkg-deb"):
        pytest.skip("there is no dpkg-deb here")
    folder = tmp_path / "d"
    (folder / "DEBIAN").mkdir(parents=True)
    (folder / "DEBIAN" / "control").write_text(
        "Package: d\nVersion: 1\nArchitecture: all\nMaintainer: m\nDescription: d\n"
    )
    (folder / "usr/share/RDKit/Data").mkdir(parents=True)
    lines = ["SMILES Name", "OCCc1ccccc1 first", "second\tc1ccc(CCO)cc1", "CCO\t3", "C" * 61]
    (folder / "usr/share/RDKit/Data/a.smi").write_text("\n".join(lines))
    assert os.system(f"dpkg-deb -b {folder} {tmp_path}/d.deb > /dev/null") == 0
    found, left_out = read("rdkit-data", tmp_path / "d.deb")
    assert [p.group for p in found] == ["c1ccccc1", "no ring"] and sorted(left_out.values()) == [1, 1, 1]
    assert problems([(p.code, p.language) for p in found]) == ["", ""]


def test_diagrams_are_read_out_of_javascript(tmp_path):
    script = '// src/examples/pie.ts\nvar a = { examples: [{ title: "A", code: `pie\\n  "\\`a\\`" : 3` },\n'
    script += '{ code: `pie\n "b" : 1` }]};'
    found, _ = read("@mermaid-js/examples", packed(tmp_path / "m.tgz", {"dist/mermaid-examples.core.mjs": script}))
    assert [(p.group, p.code) for p in found] == [("pie", 'pie\n  "`a`" : 3'), ("pie", 'pie\n "b" : 1')]


def test_pages_have_their_own_rules_alone(tmp_path):
    css = "a{color:red}.card{margin:0}.other{top:0}.card:hover{top:1px}@media print{a{top:0}}"
    css += "@media (min-width:1px){.card .x,a{top:2px}}"
    assert used_rules(css, {"card"}) == "a{color:red}\n.card{margin:0}\n@media (min-width:1px){\na{top:2px}\n}"
    page = '<html><head><link href="https://x/y.css"><script>go()</script></head><body class="card">Hi</body></html>'
    files = {"dist/assets/m.css": css, "dist/production/a.html": page}
    found, _ = read("gentelella", packed(tmp_path / "g.tgz", files))
    assert "<style>\na{color:red}" in found[0].code and not re.search("script|https|other", found[0].code)


def npm(folder: Path, script: str) -> str:
    """A PATH on which npm is this script."""
    folder.mkdir()
    (folder / "npm").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "npm").chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


def test_what_cannot_be_had_is_said_in_one_sentence(tmp_path, monkeypatch):
    file = packed(tmp_path / "given.tgz", {"a.txt": "a"})
    package = Package("npm", "@own/er", "1.0", sha256_of(file), "MIT")
    monkeypatch.setenv("PATH", npm(tmp_path / "broken", "echo 'npm error 404 no such package' >&2; exit 1"))
    with pytest.raises(
        ValueError, match=r"npm @own/er 1.0 cannot be had \(npm error 404 .*\); with a copy of your own, put"
    ):
        fetch(package, tmp_path / "packages")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match="there is no npm here"):
        fetch(package, tmp_path / "packages")
    monkeypatch.setenv("PATH", npm(tmp_path / "works", f"/bin/cp {file} own-er-1.0.tgz"))
    path, _ = fetch(package, tmp_path / "packages")
    assert path.name == "own-er-1.0.tgz" and list(members(path, (".txt",))) == [("a.txt", b"a")]
    assert not list(path.parent.glob(".*"))
    path.write_bytes(b"something else")
    with pytest.raises(ValueError, match="own-er-1.0.tgz is not npm @own/er 1.0 .*; remove it"):
        fetch(package, tmp_path / "packages")


def test_a_corpus_out_of_packages(tmp_path, monkeypatch, capsys):
    """A designer of the test has nothing in train, nor has train what the test has; the same bytes twice."""
    files = icon_set("one", "Designer", [body(1, i) for i in range(6)] + [body(2, 0)])
    files |= icon_set("two", "Icons8", [body(2, i) for i in range(3)])
    made = packed(tmp_path / "icons.tgz", files)
    pins = [
        Package("npm", "@iconify/json", "1", sha256_of(made), "by icon set"),
        Package("npm", "bootstrap-icons", "1", "0", "MIT"),
    ]
    monkeypatch.setattr(real, "PACKAGES", pins)
    monkeypatch.setenv("PATH", npm(tmp_path / "bin", "exit 1"))
    for folder in ("a", "b"):
        (tmp_path / folder / "real" / "packages").mkdir(parents=True)
        (tmp_path / folder / "real" / "packages" / pins[0].file).write_bytes(made.read_bytes())
        monkeypatch.chdir(tmp_path / folder)
        real.Real("real", rl=2, processes=1)()
    assert "left out: npm bootstrap-icons 1 cannot be had" in capsys.readouterr().out
    tables = {
        part: pyarrow.parquet.read_table(f"real/{part}/sft/direct-00000-of-00001.parquet") for part in ("train", "test")
    }
    assert tables["train"]["id"].to_pylist() == [
        f"one/icon-{i}" for i in sorted(range(6), key=lambda i: len(body(1, i)))
    ]
    assert tables["test"]["source"].to_pylist()[0] == "npm @iconify/json 1: json/two.json, by Icons8"
    assert set(tables["train"]["license"].to_pylist()) == {"MIT"}
    assert [s.id for s in data.load("real/short/train/sft")] and len(data.load("real/train/rl")) == 2
    assert max(data.load("real/short/test/sft")[0].image.size) == real.TINY_SIDE
    card = Path("real/card.md").read_text()
    assert "| @iconify/json | svg | train | 7 | 0 | 0 | 1 | 6 |" in card and "| two | Icons8 | MIT | test | 3 |" in card
    assert "left out: npm bootstrap-icons 1 cannot be had" in card
    first, second = (
        {p.relative_to(f): p.read_bytes() for p in f.rglob("*") if p.is_file()}
        for f in (tmp_path / "a", tmp_path / "b")
    )
    assert first == second
    real.Real("real")()
    assert "is finished" in capsys.readouterr().out


def test_pins_are_whole():
    assert {package.name for package in packages.PACKAGES} == set(CONTENTS) and set(real.HELD_OUT) <= set(CONTENTS)
    assert all(re.fullmatch("[0-9a-f]{64}", package.sha256) for package in packages.PACKAGES)
