"""Python programs that draw, with matplotlib and what else there is: a fork of a warm server each."""

from __future__ import annotations

import ast
import atexit
import builtins
import contextlib
import errno
import functools
import gc
import importlib
import io
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
import types
import urllib.error
from collections.abc import Callable, Iterator
from pathlib import Path

from PIL import Image

import sandbox
from languages import REQUIREMENTS, WORD, Language, figures, fonts, imports, old_names, paths, repeatable
from languages.answers import RANDOM_DEVICES, answer_of, facts_answer
from languages.old_names import PROGRAM
from languages.pixels import rasterize_pdf, rasterize_svg, to_rgb
from languages.protocol import HEADER, MAX_WORDS, BrowserPage, Kind, Options, ProgramError, is_sound, read_bytes

END = os._exit  # which programs do not get
READS_ITSELF = re.compile(r"__file__|argv|inspect|program\.py")
PICTURE_FILES = (".png", ".jpg", ".jpeg", ".gif", ".webp", ".bmp", ".tif", ".tiff", ".svg", ".pdf")
MOLECULE_MODULES = ("rdkit.Chem.Draw.rdMolDraw2D", "rdkit.Chem.AllChem", "indigo.renderer")  # 3 ms in each fork
PACKAGES = {  # what is imported -> the package that it comes from, where that has another name
    "cv2": "pip package opencv-python-headless", "sklearn": "pip package scikit-learn", "PIL": "pip package pillow",
    "skimage": "pip package scikit-image", "bs4": "pip package beautifulsoup4", "yaml": "pip package pyyaml",
    "mpl_toolkits.basemap": "pip package basemap", "Bio": "pip package biopython",
    "tkinter": "Debian package python3-tk",
    "ternary": "pip package python-ternary", "igraph": "pip package python-igraph",
    "dateutil": "pip package python-dateutil",
    "labellines": "pip package matplotlib-label-lines",
}  # fmt: skip


def last_picture_file(options: Options) -> Image.Image | None:
    """The newest picture that the program left anywhere in its job's folder."""
    pictures = [
        path for path in Path(paths.FOLDER[0]).rglob("*") if path.suffix.lower() in PICTURE_FILES and path.is_file()
    ]
    if not pictures:
        return None
    newest = max(pictures, key=lambda path: (path.stat().st_mtime_ns, path.name))
    if newest.suffix.lower() == ".svg":
        return rasterize_svg(newest.read_bytes())
    if newest.suffix.lower() == ".pdf":
        return rasterize_pdf(newest.read_bytes(), options.max_pixels)
    picture = Image.open(newest)
    picture.seek(getattr(picture, "n_frames", 1) - 1)  # of an animation the last
    picture.load()
    return picture


def compiled(code: str):
    """The program as code. Where it is none, without what notebooks and chats add. Raises SyntaxError."""
    try:
        return compile(code, PROGRAM, "exec", dont_inherit=True)
    except SyntaxError as error:
        if fenced := re.search(r"^```[\w+-]*\n(.*?)^```", code, re.DOTALL | re.MULTILINE):
            code = fenced[1]
        plain = re.sub(r"^(\s*)[%!].*$", r"\1pass", code, flags=re.MULTILINE)
        try:
            return compile(plain, PROGRAM, "exec", dont_inherit=True)
        except SyntaxError:
            raise error from None


def error_text(error: BaseException, code: str) -> str:
    """The program's own lines of a traceback, the error, and what can be done about it."""
    lines = code.splitlines()
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == PROGRAM]
    own = [f"line {f.lineno}: {lines[f.lineno - 1].strip()}" for f in frames[-3:] if f.lineno <= len(lines)]
    text = "".join(traceback.format_exception_only(error)).strip()
    if isinstance(error, ModuleNotFoundError) and error.name:
        top = error.name.partition(".")[0]
        package = PACKAGES.get(error.name) or PACKAGES.get(top, f"pip package {top}")
        if top in sys.modules and error.name not in PACKAGES:
            text += f" (the {package} is here, but has no such part in this version)"
        else:
            text += f" (the renderer's environment lacks the {package}; {sys.executable} is its Python)"
    elif isinstance(error, (ConnectionError, socket.gaierror, urllib.error.URLError)):
        text += " (programs have no network)"
    elif isinstance(error, PermissionError) and error.errno == errno.EPERM and error.filename is None:
        text += " (programs start no other programs)"
    return "\n".join([*own, text])


def run_program(code: str, captured: dict, options: Options) -> Image.Image:
    """Run untrusted python in this (forked, confined) process; return what it drew, or raise ProgramError."""
    repeatable.begin()  # not before the fork, after which `random` seeds itself anew
    main = types.ModuleType("__main__")
    main.__file__ = os.path.abspath(PROGRAM)
    sys.modules["__main__"], sys.argv = main, [PROGRAM]
    if READS_ITSELF.search(code):
        Path(PROGRAM).write_text(code, encoding="utf-8", errors="replace")
    builtins.input = lambda *_: ""  # nobody is there; somebody would press Enter
    os._exit = sys.exit  # an end at once would be one without the picture
    failure = None
    try:
        exec(compiled(code), main.__dict__)
        for thread in threading.enumerate():  # which Python waits for at its end
            if thread is not threading.main_thread() and not thread.daemon:
                thread.join()
        atexit._run_exitfuncs()
    except SystemExit as ended:
        failure = None if ended.code in (None, 0) else f"sys.exit({ended.code!r})"
    except BaseException as error:
        failure = error_text(error, code)
    plt = sys.modules.get("matplotlib.pyplot")
    if "picture" not in captured and failure is None and plt and plt.get_fignums():
        plt.show()
    picture = captured.get("picture")  # what was finished stays finished, whatever came later
    try:
        picture = picture or last_picture_file(options)
    except Exception as error:  # whatever a decoder makes of it
        raise ProgramError(f"the picture file it left cannot be read: {error}") from None
    if picture is None and failure is None and "left" in captured:
        picture = captured["left"](main.__dict__)
    if isinstance(picture, BrowserPage):
        raise picture
    if picture is None:
        raise ProgramError(failure or "the program ended without drawing a figure")
    return picture


def enter_job(options: Options, readable: list[str], folder: str, pipe: int) -> None:
    """Confine the forked child: no folder to write to but `folder`, no descriptor but 3, where its answer goes."""
    os.dup2(pipe, 3)
    os.closerange(4, 4096)
    sandbox.die_with_parent()
    paths.move_into(folder)
    # CPU time of all threads together: the clock (sandbox.py) lets up to so many run at once
    sandbox.set_limits(options.memory_mb << 20, sandbox.Clock.WIDE * int(options.timeout + 2))
    sandbox.confine(options.layers, [*readable, "/proc/self/maps"], [folder, "/dev/null"])  # scikit-learn reads that


def warm_up_figures(tables: bool = False) -> None:
    """Import what most charts need, `tables` too what those with pandas do (1 s, and 20 ms in each fork)."""
    for name in ("pyplot", "dates", "gridspec", "animation"):
        importlib.import_module(f"matplotlib.{name}")
    for name in ("mplot3d", "axes_grid1"):
        importlib.import_module(f"mpl_toolkits.{name}")
    for name in ("pandas", "pandas.plotting", "scipy.stats", "seaborn") if tables else ():
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    import matplotlib.pyplot as plt

    fonts.for_matplotlib()
    plt.figure().suptitle("$x$")  # loads the fonts and the parser of formulas
    plt.plot([1]), plt.savefig(io.BytesIO()), plt.close("all")


def warm_up_molecules() -> None:
    """Both libraries load fonts and tables when they first draw: 8 ms in each fork."""
    smiles = "C[C@H](N)c1ccccc1C(=O)OCl"
    with contextlib.suppress(ImportError):
        from rdkit.Chem import AllChem, MolFromSmiles
        from rdkit.Chem.Draw import rdMolDraw2D

        molecule, drawer = MolFromSmiles(smiles), rdMolDraw2D.MolDraw2DCairo(100, 100)
        AllChem.Compute2DCoords(molecule)
        rdMolDraw2D.PrepareAndDrawMolecule(drawer, molecule, legend="x")
        drawer.FinishDrawing()
        to_rgb(Image.open(io.BytesIO(drawer.GetDrawingText())), 10_000)
    with contextlib.suppress(ImportError):
        from indigo import Indigo
        from indigo.renderer import IndigoRenderer

        indigo = Indigo()
        renderer, molecule = IndigoRenderer(indigo), indigo.loadMolecule(smiles)
        molecule.layout()
        indigo.setOption("render-output-format", "png")
        renderer.renderToBuffer(molecule)


def python_renderer(options: Options, imported: str = "figures", facts: bool = False) -> Callable[[str], bytes]:
    """A fork server: everything heavy is imported once, each program runs in its own fork, alone. The less is mapped,
    the faster is a fork, so there is one for programs that draw "molecules", one for plain "figures", one for
    those that have "tables" (pandas, scipy, seaborn) or molecules too. With `facts` the answer is what is in the figure
    (chart_facts.py) in place of its picture."""
    importlib.import_module("numpy.random")  # numpy loads its parts when first used: 7 ms in each fork
    for name in (*(MOLECULE_MODULES if imported != "figures" else ()), "pyvips", "pypdfium2"):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    captured: dict = {}
    imports.install()
    old_names.give_back()
    fonts.for_pillow()
    warm_up_molecules() if imported == "molecules" else warm_up_figures(imported == "tables")
    figures.capture_pictures(captured)
    if imported != "molecules":
        figures.capture_figures(captured, options.max_pixels)
    if facts:
        from languages import chart_facts

        chart_facts.watch()
    readable = [*sandbox.system_paths(), *RANDOM_DEVICES]
    sys.path.pop(0)  # the project's own folder is nothing for programs
    repeatable.install()
    paths.install()
    sandbox.hide_memory()
    atexit._clear()  # of the libraries' handlers: a program's own are run at its end
    gc.collect()
    gc.freeze()
    scratch = os.path.realpath(tempfile.gettempdir())
    folders: list[str] = []  # of jobs that are over

    def render(code: str) -> bytes:
        folders.append(tempfile.mkdtemp(dir=scratch))
        paths.set_home(folders[-1])  # here, not in the fork, which has to copy each page that it changes
        read_end, write_end = os.pipe()
        sandbox.widen_pipe(read_end)
        pid = os.fork()
        if pid == 0:
            try:
                enter_job(options, readable, folders[-1], write_end)
                with open(3, "wb") as out:
                    draw = functools.partial(run_program, code, captured, options)
                    out.write(facts_answer(draw, chart_facts.facts) if facts else answer_of(draw, options))
            finally:
                END(0)
        os.close(write_end)
        try:
            answer = read_bytes(read_end, HEADER.size + 3 * options.max_pixels + MAX_WORDS)
        finally:
            os.close(read_end)
            os.kill(pid, signal.SIGKILL)
            status = os.waitpid(pid, 0)[1]
        header = HEADER.unpack_from(answer.ljust(HEADER.size, b"\0"))
        if len(answer) >= HEADER.size and not is_sound(*header, options.max_pixels):
            raise ProgramError("the program answered nonsense in place of a picture")
        if len(answer) != HEADER.size + header[2]:
            died = f" ({signal.strsignal(os.WTERMSIG(status))})" if os.WIFSIGNALED(status) else ""
            raise ProgramError(f"the program's process ended before a picture was finished{died}")
        return answer

    def tidy() -> None:
        while folders:
            sandbox.remove_folder(folders.pop())

    render.tidy = tidy
    return render


# ---- what the language is --------------------------------------------------------------------------------------------

TABLES = {"pandas", "seaborn", "scipy", "statsmodels", "sklearn", "networkx", "mplfinance"}
MOLECULES = {"rdkit", "indigo", "indigo_renderer"}
SMALL = MOLECULES | {"numpy", "PIL"} | sys.stdlib_module_names  # what a drawing of a molecule may need besides
VERSIONS = """
import importlib.metadata, sys
for name in sys.argv[1:]:
    try:
        print(importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        print("-")
"""  # run by the programs' interpreter


def kind_of(code: str) -> str:
    """The kind of worker for a program by what it imports: "molecule", "tables", or plain "python"."""
    found = re.findall(r"(?:^|;)[ \t]*(?:from[ \t]+([\w.]+)[ \t]+import|import[ \t]+([\w., \t]+))", code, re.MULTILINE)
    names = [name.split() for one, several in found for name in (one or several).split(",")]  # `a.b as c`: a.b, as, c
    imported = {words[0].split(".")[0] for words in names if words}
    if imported & MOLECULES and imported <= SMALL:
        return "molecule"
    return "tables" if imported & (TABLES | MOLECULES) else "python"


def domain_of(code: str) -> str:
    """A chart, unless it imports a chemistry toolkit."""
    return "molecule" if re.search(r"(?m)^\s*(?:from|import)\s+(?:rdkit|indigo)", code) else "chart"


def packages_of(python: str) -> tuple[list[str], list[str]]:
    """What of requirements-render.txt an interpreter has, each with its version, and what it lacks."""
    wanted = re.findall(r"^[\w.-]+", REQUIREMENTS.read_text(), re.MULTILINE)
    ask = [python, "-c", VERSIONS, *wanted]
    answer = subprocess.run(ask, capture_output=True, text=True, env=sandbox.clean_environment("/tmp"))
    versions = dict(zip(wanted, answer.stdout.split(), strict=False))
    have = [f"{name} {version}" for name, version in versions.items() if version != "-"]
    return have, [name for name in wanted if versions.get(name, "-") == "-"]


def tools(python: str) -> Iterator[tuple[str, str]]:
    have, lacking = packages_of(python)
    yield "packages", f"{', '.join(have[:4])} and {len(have[4:])} more"
    if lacking:
        yield "", f"NOT HERE: {', '.join(lacking)}: {python} -m pip install -r {REQUIREMENTS}"
    for name, file, package in (("Arial", "arial.ttf", "liberation"), ("Chinese", "simhei.ttf", "wqy-microhei")):
        yield "font", f"{name}: {fonts.file_for(file) or f'NOT HERE: apt install fonts-{package}'}"


LANGUAGE = Language(
    name="python",
    suffixes=(".py",),
    words=r"python3?|py|matplotlib|seaborn|plotly|pyplot|rdkit",
    tags=("py", "python3"),
    code="Python code",
    codes={"chart": "Python matplotlib code"},
    domains={"chart": "chart", "molecule": "molecule drawing"},
    domain_of=domain_of,
    sample="import matplotlib.pyplot as plt\nplt.figure(figsize=(2, 1.5))\nplt.bar([1, 2], [2, 3])\nplt.show()\n",
    kinds={
        "python": Kind(python_renderer, alone=True),
        "tables": Kind(functools.partial(python_renderer, imported="tables"), alone=True),
        "molecule": Kind(functools.partial(python_renderer, imported="molecules"), alone=True),
    },
    kind_of=kind_of,
    for_metrics={"figure facts": Kind(functools.partial(python_renderer, facts=True), alone=True, facts=True)},
    tools=tools,
    unseen=r"(?m)\A(?:#.*\n|\s)*(?s:(\"\"\"|''').*?\1)|#(?![\da-fA-F]{3,6}\b).*$"
    r"|(?:subplots?|reshape|range|GridSpec|seed|default_rng)\([^)]*\)",
    flaws={
        "number": ("", r"(?<=[\s(,=\[*/+-])\d+(?:\.\d+)?(?=[\s),\]*/+-])"),
        "drop": ("", r"(?m)^[ \t]*\w+\.(?!show|save|close|use|add_|Write|Finish|Draw)\w+\(.*\)[ \t]*\n"),
        "label": (r"(?:title|label|text|annotate|legend)\w*\s*[(=][^)\n]*?[\"']([^\"'\n]+)", WORD),
        "smiles": (r"(?i)(?:FromSmiles\(|loadMolecule\(|smi\w*\s*=)\s*r?[\"']([^\"'\n]+)", r".+"),
    },
    parse=ast.parse,
)
