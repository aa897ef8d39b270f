"""What the packages hold, as programs: icons and clip art, a gallery's charts, molecules, diagrams, web pages.

What nobody would see in the picture is left out of a program: prose, an editor's notes, rules of a style sheet for
other pages. What is no program for us is counted by its reason.
"""

import ast
import json
import re
import xml.etree.ElementTree as ElementTree
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from corpus.packages import members


@dataclass(frozen=True)
class Program:
    """source: where it is in its package, and by whom. group: what is held out as a whole, such as a designer."""

    id: str
    domain: str
    language: str
    code: str
    license: str  # "" where it is the package's
    source: str
    group: str


PERMISSIVE = {"MIT", "Apache-2.0", "ISC", "BSD-3-Clause", "CC0-1.0", "CC-BY-3.0", "CC-BY-4.0", "OFL-1.1", "Unlicense"}
SVG, XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
LONGEST_ICON = 4000  # characters
MOST_ICONS = 1500  # of a set, the shortest: the largest has 7,203
MOST_ATOMS = 60
SHORT = 500  # characters, less than: what a tiny model can write


def icons(path: Path, left_out: Counter) -> Iterator[Program]:
    """Of every permissive set the shortest coloured icons. A designer may have several sets."""
    for name, text in members(path, (".json",), "json/"):
        one = json.loads(text)
        license, author = (one["info"][key] for key in ("license", "author"))
        if license.get("spdx") not in PERMISSIVE:
            left_out["of a set under another licence"] += len(one["icons"])
            continue
        codes = {}
        for icon, parts in sorted(one["icons"].items()):
            code = icon_svg(one | parts)
            if parts.get("hidden"):
                left_out["hidden in its set"] += 1
            elif "currentColor" in code:
                left_out["has no colour of its own"] += 1
            elif len(code) > LONGEST_ICON:
                left_out[f"longer than {LONGEST_ICON:,} characters"] += 1
            else:
                codes[icon] = code
        shortest = sorted(codes, key=lambda icon: (len(codes[icon]), icon))
        left_out[f"past the {MOST_ICONS:,} shortest of its set"] += len(shortest[MOST_ICONS:])
        for icon in shortest[:MOST_ICONS]:
            id, by = f"{one['prefix']}/{icon}", f"{name}, by {author['name']}"
            yield Program(id, "svg", "svg", codes[icon], license["spdx"], by, author["name"])


def icon_svg(icon: dict) -> str:
    box = (icon.get("left", 0), icon.get("top", 0), icon.get("width", 16), icon.get("height", 16))
    return f'<svg xmlns="{SVG}" viewBox="{" ".join(map(str, box))}">{icon["body"]}</svg>'


def bootstrap(path: Path, left_out: Counter) -> Iterator[Program]:
    """One colour, black: each icon is a file."""
    for name, text in members(path, (".svg",), "icons/"):
        code = re.sub(r' class="[^"]*"', "", text.decode()).replace("currentColor", "black")
        yield Program(f"bootstrap/{Path(name).stem}", "svg", "svg", code, "", name, "Bootstrap")


def clip_art(path: Path, left_out: Counter) -> Iterator[Program]:
    for name, text in members(path, (".svg",), "openclipart/svg/"):
        name = name.removeprefix("openclipart/svg/")
        try:
            code = drawing_alone(text)
        except ElementTree.ParseError:
            left_out["is not well-formed"] += 1
            continue
        yield Program(f"openclipart/{name[:-4]}", "svg", "svg", code, "", name, name.partition("/")[0])


def drawing_alone(text: bytes) -> str:
    """The svg without metadata, what its editor noted for itself, and names to which nothing refers."""
    ElementTree.register_namespace("", SVG)
    ElementTree.register_namespace("xlink", XLINK)
    ours = (f"{{{SVG}}}", f"{{{XLINK}}}", "{http://www.w3.org/XML/")
    root = ElementTree.fromstring(text)
    if not root.tag.startswith("{"):  # of the years before namespaces
        for element in root.iter():
            element.tag = f"{{{SVG}}}{element.tag}" if isinstance(element.tag, str) else element.tag
    named = set(re.findall(r"#([\w.:-]+)", text.decode("utf-8", "replace")))
    for element in list(root.iter()):
        for child in list(element):
            if not child.tag.startswith(ours) or child.tag == f"{{{SVG}}}metadata":
                element.remove(child)
                continue
            if not (child.tail or "").strip():
                child.tail = "\n" if element.tag.endswith(("}svg", "}g", "}defs")) else child.tail
        if element.tag.endswith(("}svg", "}g", "}defs", "Gradient")) and not (element.text or "").strip():
            element.text = None
        for key in [key for key in element.attrib if key.startswith("{") and not key.startswith(ours)]:
            del element.attrib[key]
        if element.get("id") and element.get("id") not in named:
            del element.attrib["id"]
    return ElementTree.tostring(root, "unicode")


SCREEN = r"matplotlib\.(?:widgets|animation|backends)|mpl_connect|ginput|waitforbuttonpress|\.pause\(|FuncAnimation"
PROSE = re.compile(r"(?m)^(?:#{20,}|# ?%%.*)\n(?:#.*\n)*")  # of sphinx-gallery


def gallery(path: Path, left_out: Counter) -> Iterator[Program]:
    for name, text in members(path, (".py",), "examples/"):
        code = without_prose(text.decode())
        if re.search(SCREEN, code):
            left_out["needs a screen, or moves"] += 1
        else:
            yield Program(f"matplotlib/{name[9:-3]}", "chart", "python", code, "", name, name.split("/")[1])


def without_prose(code: str) -> str:
    first = ast.parse(code).body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
        code = "\n".join(code.split("\n")[first.end_lineno :])
    return re.sub(r"\n{4,}", "\n\n\n", PROSE.sub("", code + "\n")).strip("\n")


def molecules(path: Path, left_out: Counter) -> Iterator[Program]:
    """A drawing script, ours, of every molecule in files of SMILES."""
    from rdkit import Chem, RDLogger
    from rdkit.Chem.Scaffolds.MurckoScaffold import MurckoScaffoldSmiles

    RDLogger.DisableLog("rdApp.*")
    known = set()
    for name, text in members(path, (".smi",), "RDKit/"):
        for line in text.decode().splitlines():
            read = (Chem.MolFromSmiles(word) for word in line.split()[:2])  # the name may come first
            molecule = next((found for found in read if found and found.GetNumAtoms()), None)
            smiles = Chem.MolToSmiles(molecule) if molecule else ""
            if not molecule:
                left_out["rdkit reads no molecule from the line"] += 1
            elif smiles in known:
                left_out["the same molecule as on another line"] += 1
            elif molecule.GetNumAtoms() > MOST_ATOMS:
                left_out[f"more than {MOST_ATOMS} atoms"] += 1
            else:
                group = MurckoScaffoldSmiles(mol=molecule) or "no ring"
                id, code = f"molecule/{len(known):05}", molecule_script(smiles)
                yield Program(id, "molecule", "python", code, "", name, group)
            known.add(smiles)


def molecule_script(smiles: str) -> str:
    """Every fifth by indigo."""
    smiles = json.dumps(smiles)
    if zlib.crc32(smiles.encode()) % 5:
        lines = ["from rdkit import Chem", "from rdkit.Chem import Draw", "", f"mol = Chem.MolFromSmiles({smiles})"]
        return "\n".join([*lines, 'Draw.MolToFile(mol, "molecule.png", size=(300, 300))'])
    lines = ["from indigo import Indigo", "from indigo.renderer import IndigoRenderer", "", "indigo = Indigo()"]
    lines += ["renderer = IndigoRenderer(indigo)", f"mol = indigo.loadMolecule({smiles})", "mol.layout()"]
    for option in ('output-format", "png"', 'image-size", 300, 300', 'background-color", 1.0, 1.0, 1.0'):
        lines.append(f'indigo.setOption("render-{option})')
    return "\n".join([*lines, 'renderer.renderToFile(mol, "molecule.png")'])


def diagrams(path: Path, left_out: Counter) -> Iterator[Program]:
    """A JavaScript module with a section for each kind of diagram, its texts between backticks."""
    for name, text in members(path, ("examples.core.mjs",)):
        for section in re.split(r"(?m)^// src/examples/", text.decode())[1:]:
            kind = section.partition(".ts")[0]
            for number, found in enumerate(re.finditer(r"\bcode: `((?:[^`\\]|\\.)*)`", section)):
                code = re.sub(r"\\([`$\\])", r"\1", found[1]).replace("\\n", "\n")
                yield Program(f"mermaid/{kind}-{number}", "mermaid", "mermaid", code, "", f"{name}, {kind}.ts", kind)


def pages(path: Path, left_out: Counter) -> Iterator[Program]:
    css = "\n".join(text.decode() for _, text in members(path, (".css",), "dist/assets/"))
    for name, text in members(path, (".html",), "dist/production/"):
        page = re.sub(r"(?is)<script\b.*?</script>|<link\b[^>]*>|<meta (?!charset)[^>]*>|<!--.*?-->", "", text.decode())
        used = set(re.findall(r"[\w-]+", " ".join(re.findall(r'(?:class|id)="([^"]*)"', page))))
        page = page.replace("</head>", f"<style>\n{used_rules(css, used)}\n</style>\n</head>", 1)
        page = re.sub(r"\n\s*\n+", "\n", page)
        yield Program(f"gentelella/{Path(name).stem}", "html", "html", page, "", name, Path(name).stem)


UNSEEN = re.compile(r":(?:hover|focus|active)|\[data-theme=\"?dark|\[dir=\"?rtl|::-webkit|::selection")


def used_rules(css: str, used: set[str]) -> str:
    """The rules that a page with these classes and ids shows on a screen at rest, one a line."""
    kept, at = [], 0
    while (brace := css.find("{", at)) >= 0:
        head, end, depth = css[at:brace].rpartition(";")[2].strip(), brace + 1, 1
        while depth and end < len(css):
            depth += {"{": 1, "}": -1}.get(css[end], 0)
            end += 1
        body, at = css[brace + 1 : end - 1], end
        if head.startswith("@"):
            wide = head.startswith(("@media", "@supports")) and not re.search(
                "print|prefers|max-width|hover|width<", head
            )
            inner = used_rules(body, used) if wide else ""
            kept += [f"{head}{{\n{inner}\n}}"] if inner else []
            continue
        seen = [one for one in re.split(r",(?![^(]*\))", head) if not UNSEEN.search(one)]
        seen = [one for one in seen if set(re.findall(r"[.#]([A-Za-z_][\w-]*)", one)) <= used]
        kept += [f"{','.join(seen)}{{{body}}}"] if seen else []
    return "\n".join(kept)


CONTENTS: dict[str, Callable[[Path, Counter], Iterator[Program]]] = {  # package -> its programs, and what is left out
    "@iconify/json": icons,
    "bootstrap-icons": bootstrap,
    "openclipart-svg": clip_art,
    "matplotlib": gallery,
    "rdkit-data": molecules,
    "@mermaid-js/examples": diagrams,
    "gentelella": pages,
}
