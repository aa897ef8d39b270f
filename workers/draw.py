"""Code -> picture inside a worker: what runs on the other side of the sandbox. `render.py` starts and commands it.

    python workers/draw.py --worker LANGUAGE SETTINGS     # never typed by hand

A worker gets ready once (imports, fonts, browser), then answers one program after the other. Request on stdin: 8 bytes
of length, then the program. Answer on stdout: `HEADER`, then raw RGB pixels or the text of an error. When
the worker is ready for a request, the first one too, it says so by a `HEADER` of zeros.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import gzip
import importlib
import io
import json
import os
import random
import re
import resource
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import traceback
import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

sys.path.insert(0, str(Path(__file__).parent.parent))  # a worker is started as this file, in its own folder
import sandbox  # noqa: E402
from workers.browser import FAILURES, PAGE_WIDTH, Browser, BrowserError, BrowserLost, browsers_folder, chromium_path  # noqa: E402

LANGUAGES = ("python", "svg", "html", "latex", "mermaid")
INSPECTIONS = ("figure facts", "page facts")  # not a picture of a program, but what it draws, as JSON
RANDOM_DEVICES = ("/dev/urandom", "/dev/random", "/dev/zero")
MAX_ERROR, MAX_PAGE, MAX_FACTS = 2000, 8 << 20, 1 << 20  # characters of an error text, bytes of a page, of facts
# width, height, bytes that follow: RGB pixels, or if width is 0 an error text, or what height says: a page, or facts
HEADER, PAGE, FACTS = struct.Struct("<III"), 2, 3

SAMPLES = {  # the smallest programs that show a language working
    "python": "import matplotlib.pyplot as plt\nplt.figure(figsize=(2, 1.5))\nplt.bar([1, 2], [2, 3])\nplt.show()\n",
    "svg": '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 8 6"><circle cx="4" cy="3" r="2" fill="red"/></svg>\n',
    "html": "<!DOCTYPE html><body style='margin:40px'><h1 style='color:teal'>A heading</h1><p>Some text.</p></body>\n",
    "latex": "\\begin{tikzpicture}\\draw[fill=red] (0,0) circle (1);\\node at (3,0) {$e^{i\\pi}$};\\end{tikzpicture}\n",
    "mermaid": "flowchart LR\n    A[Code] --> B{Right?}\n    B -->|yes| C[Picture]\n",
}


def kind_of(code: str, language: str) -> str:
    """The kind of worker for a program: its language, or "molecule"."""
    draws_molecules = language == "python" and re.search("rdkit|indigo", code)
    return "molecule" if draws_molecules and not re.search("matplotlib|pyplot|pylab|seaborn|plotly", code) else language


class ProgramError(Exception):
    """The program is at fault; the text goes back to the caller."""


class ProgramTimeout(ProgramError):
    """It ran too long."""


class BrowserPage(Exception):
    """Not a picture yet: an html page, whose part of `width` x `height` px behind the margin a browser has to draw."""

    MARGIN = 8  # px, what a browser gives a page's body

    def __init__(self, width: int, height: int, html: bytes):
        self.width, self.height, self.html = width, height, html

    def answer(self) -> bytes:
        payload = struct.pack("<II", self.width, self.height) + self.html
        return HEADER.pack(0, PAGE, len(payload)) + payload

    def crop(self, drawn):
        """The page's Rendering, cut to the part that is meant."""
        if image := drawn.image:
            right, bottom = min(image.width, self.MARGIN + self.width), min(image.height, self.MARGIN + self.height)
            drawn.image = image.crop((self.MARGIN, self.MARGIN, max(right, 9), max(bottom, 9)))
        return drawn

    @staticmethod
    def of(payload: bytes) -> BrowserPage:
        return BrowserPage(*struct.unpack_from("<II", payload.ljust(8, b"\0")), payload[8:])


class ToolMissing(Exception):
    """Something is not installed; the text says what."""


# ---- pictures --------------------------------------------------------------------------------------------------------


def to_rgb(image: Image.Image, max_pixels: int) -> Image.Image:
    """Alpha composited on white, scaled down to `max_pixels`."""
    if image.width * image.height > max_pixels:
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
        scale = (max_pixels / (image.width * image.height)) ** 0.5
        image = image.resize(
            (max(1, int(image.width * scale)), max(1, int(image.height * scale))), Image.Resampling.BOX
        )
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGB", image.size, "white")
        white.paste(image, mask=image)
        return white
    return image if image.mode == "RGB" else image.convert("RGB")


def rasterize_svg(svg: bytes, side: int | None = None) -> Image.Image:
    """librsvg through libvips, RGBA: the longer side becomes `side` px (None: natural size). ProgramError if broken."""
    import pyvips

    try:
        natural = pyvips.Image.svgload_buffer(svg)
        scale = (side / max(natural.width, natural.height)) if side else 1
        picture = pyvips.Image.svgload_buffer(svg, scale=scale)
        image = Image.frombuffer("RGBA", (picture.width, picture.height), picture.write_to_memory())
    except pyvips.Error as error:
        raise ProgramError("svg: " + " ".join(str(error).split())) from None
    size = (max(1, round(natural.width * scale)), max(1, round(natural.height * scale)))
    return image if image.size == size else image.resize(size)


def rasterize_pdf(pdf: bytes, max_pixels: int, dpi: int = 150) -> Image.Image:
    """First page through pdfium. A page of absurd size is an error, as its picture would be of no use."""
    import pypdfium2

    try:
        page = pypdfium2.PdfDocument(pdf)[0]
    except (pypdfium2.PdfiumError, IndexError) as error:
        raise ProgramError(f"the PDF has no page that can be drawn: {error}") from None
    width, height = page.get_size()  # points, 1/72 inch
    if not (1 <= width <= 7200 and 1 <= height <= 7200):
        raise ProgramError(f"the page measures {width / 72:.2f} x {height / 72:.2f} inches; 0.02 to 100 are allowed")
    scale = min(dpi / 72, (max_pixels / (width * height)) ** 0.5)
    return page.render(scale=scale).to_pil().convert("RGB")


def crop_margins(image: Image.Image, border: int = 8) -> Image.Image:
    """Cut white margins, keep `border` px. An all-white page is an error: there is nothing on it."""
    box = Image.eval(image.convert("L"), lambda value: 255 * (value < 250)).getbbox()
    if box is None:
        raise ProgramError("the page is empty")
    left, top = max(0, box[0] - border), max(0, box[1] - border)
    return image.crop((left, top, min(image.width, box[2] + border), min(image.height, box[3] + border)))


# ---- python ----------------------------------------------------------------------------------------------------------


@dataclass
class Options:
    """What a worker must know, sent as JSON on its command line. timeout in seconds, memory in MiB."""

    timeout: float
    memory_mb: int
    svg_side: int
    max_pixels: int
    layers: sandbox.Layers


PILLOW_SAVE = Image.Image.save  # as it is before `capture_pictures`


def capture_pictures() -> dict[str, Image.Image]:
    """Patch every way to finish a picture, whatever file name or buffer it goes to; the source is not rewritten.

    Returns a dict that fills as the program runs, "saved" and "shown": the last picture of each. Molecule files are
    sent to the job's own folder, where `last_picture_file` finds them.
    """
    captured: dict[str, Image.Image] = {}

    def save(self, fp, *args, **kwargs) -> None:
        captured["saved"] = self.copy()
        if is_ours(fp):
            PILLOW_SAVE(self, fp, *args, **kwargs)

    Image.Image.save = save
    Image.Image.show = lambda self, *_, **__: captured.update(shown=self.copy())
    redirect_molecules()
    return captured


def is_ours(target: object) -> bool:
    """A buffer, or a file in the job's folder: the program may want to read it."""
    return not isinstance(target, (str, os.PathLike)) or not os.path.isabs(target)


def capture_figures(captured: dict[str, Image.Image], max_pixels: int) -> None:
    """The same for matplotlib's figures, whose pixels are taken as they are drawn."""
    from matplotlib import pyplot as plt
    from matplotlib import rcParams
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    original_savefig = Figure.savefig

    def print_png(self, filename_or_obj, **_) -> None:
        FigureCanvasAgg.draw(self)
        captured["saved"] = image = Image.frombytes("RGBA", self.get_width_height(), bytes(self.buffer_rgba()))
        if is_ours(filename_or_obj):
            PILLOW_SAVE(image, filename_or_obj, format="PNG", compress_level=0)

    def savefig(self, fname, *_, dpi=None, **kwargs) -> None:
        width, height = self.get_size_inches()
        dpi = rcParams["savefig.dpi"] if dpi is None else dpi
        dpi = min(self.dpi if dpi == "figure" else dpi, (max_pixels / max(width * height, 1e-9)) ** 0.5)
        kwargs = {name: value for name, value in kwargs.items() if name not in ("format", "backend")}
        original_savefig(self, fname, format="png", dpi=dpi, **kwargs)

    def show(self) -> None:
        saved = captured.pop("saved", None)
        savefig(self, io.BytesIO())
        captured["shown"] = captured.pop("saved")
        if saved is not None:
            captured["saved"] = saved

    FigureCanvasAgg.print_png, Figure.savefig = print_png, savefig
    Figure.show = lambda self, *_, **__: show(self)
    plt.show = lambda *_, **__: show(plt.gcf()) if plt.get_fignums() else None


def redirect_molecules() -> None:
    """Molecule drawings saved under any path land in the job's own folder."""
    with contextlib.suppress(ImportError):
        from rdkit.Chem import Draw
        from rdkit.Chem.Draw import rdMolDraw2D

        write = rdMolDraw2D.MolDraw2DCairo.WriteDrawingText
        rdMolDraw2D.MolDraw2DCairo.WriteDrawingText = lambda self, path: write(self, Path(path).name)
        mol_to_file = Draw.MolToFile
        Draw.MolToFile = lambda mol, filename, *args, **kwargs: mol_to_file(mol, Path(filename).name, *args, **kwargs)
    with contextlib.suppress(ImportError):
        from indigo.renderer import IndigoRenderer

        render_to_file = IndigoRenderer.renderToFile
        IndigoRenderer.renderToFile = lambda self, item, path: render_to_file(self, item, Path(path).name)


def capture_plotly(captured: dict) -> None:
    """A plotly figure that is shown or written becomes a page with plotly.js in it: its Python half cannot draw."""
    import plotly.io
    from plotly.basedatatypes import BaseFigure

    def keep(figure, *_, **__) -> None:
        figure = figure if isinstance(figure, BaseFigure) else BaseFigure(figure)
        width, height = figure.layout.width or 700, figure.layout.height or 500  # px, plotly's own defaults for files
        size = {"default_width": f"{width}px", "default_height": f"{height}px"}
        done = "document.documentElement.removeAttribute('data-drawing')"  # plotly draws in steps
        html = figure.to_html(config={"staticPlot": True}, post_script=done, **size)
        html = html.replace("<html>", "<html data-drawing>", 1).encode(errors="replace")
        captured["page"] = BrowserPage(int(width), int(height), html)

    for name in ("show", "write_image", "write_html"):
        setattr(BaseFigure, name, keep)
        setattr(plotly.io, name, keep)


def last_picture_file(options: Options) -> Image.Image | None:
    """The newest picture that the program left in its folder."""
    endings = (".png", ".jpg", ".jpeg", ".gif", ".webp", ".svg", ".pdf")
    pictures = [path for path in Path().rglob("*") if path.suffix.lower() in endings and path.is_file()]
    if not pictures:
        return None
    newest = max(pictures, key=lambda path: (path.stat().st_mtime_ns, path.name))
    if newest.suffix.lower() == ".svg":
        return rasterize_svg(newest.read_bytes())
    if newest.suffix.lower() == ".pdf":
        return rasterize_pdf(newest.read_bytes(), options.max_pixels)
    picture = Image.open(newest)
    picture.load()
    return picture


def own_traceback(error: BaseException, code: str) -> str:
    """The program's own lines of a traceback, and the error."""
    lines = code.splitlines()
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == "program.py"]
    own = [f"line {f.lineno}: {lines[f.lineno - 1].strip()}" for f in frames[-3:] if f.lineno <= len(lines)]
    return "\n".join([*own, "".join(traceback.format_exception_only(error)).strip()])


def run_program(code: str, captured: dict[str, Image.Image], options: Options) -> Image.Image:
    """Run untrusted python in this (forked, confined) process; return what it drew, or raise ProgramError."""
    import numpy as np

    random.seed(0)  # unseeded, `random` differs in each fork and numpy's state with the server
    np.random.seed(0)
    main = types.ModuleType("__main__")
    main.__file__ = "program.py"
    sys.modules["__main__"], sys.argv = main, ["program.py"]
    failure = None
    try:
        if "plotly" in code:
            with contextlib.suppress(ImportError):  # then the program fails by itself
                capture_plotly(captured)
        exec(compile(code, "program.py", "exec", dont_inherit=True), main.__dict__)
    except SystemExit as ended:
        failure = None if ended.code in (None, 0) else f"sys.exit({ended.code!r})"
    except BaseException as error:
        failure = own_traceback(error, code)
    for how in ("saved", "shown"):  # a picture that was finished stays finished, whatever came later
        if how in captured:
            return captured[how]
    if "page" in captured:
        raise captured["page"]
    plt = sys.modules.get("matplotlib.pyplot")
    if failure is None and plt and plt.get_fignums():
        plt.show()
        return captured["shown"]
    try:
        image = last_picture_file(options)
    except Exception as error:  # whatever a decoder makes of it
        raise ProgramError(f"the picture file it left cannot be read: {error}") from None
    if image is None:
        raise ProgramError(failure or "the program ended without drawing a figure")
    return image


def enter_job(options: Options, readable: list[str], folder: str, pipe: int) -> None:
    """Confine the forked child: no folder to write to but `folder`, no descriptor but 3, where its answer goes."""
    os.dup2(pipe, 3)
    os.closerange(4, 4096)
    sandbox.die_with_parent()
    os.chdir(folder)
    sandbox.set_limits(options.memory_mb << 20, int(options.timeout) + 2)
    sandbox.confine(options.layers, readable, [folder, "/dev/null"])


def warm_up_figures() -> None:
    for name in ("pyplot", "dates", "gridspec"):
        importlib.import_module(f"matplotlib.{name}")
    for name in ("mplot3d", "axes_grid1"):
        importlib.import_module(f"mpl_toolkits.{name}")
    import matplotlib.pyplot as plt

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


def python_renderer(options: Options, figures: bool = True, facts: bool = False) -> Callable[[str], bytes]:
    """A fork server: everything heavy is imported once, each program runs in its own fork, alone. The less is mapped,
    the faster is a fork: programs that only draw a molecule get a server without matplotlib's `figures`. With `facts`
    the answer is what is in the figure (chart_facts.py) in place of its picture."""
    importlib.import_module("numpy.random")  # numpy loads its parts when first used: 7 ms in each fork
    for name in ("rdkit.Chem.Draw.rdMolDraw2D", "rdkit.Chem.AllChem", "indigo.renderer", "pyvips", "pypdfium2"):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    (warm_up_figures if figures else warm_up_molecules)()
    captured = capture_pictures()
    if figures:
        capture_figures(captured, options.max_pixels)
    if facts:
        from workers import chart_facts

        chart_facts.watch()
    readable = [*sandbox.system_paths(), *RANDOM_DEVICES]
    sys.path.pop(0)  # the project's own folder is nothing for programs
    sandbox.hide_memory()
    gc.collect()
    gc.freeze()
    folders: list[str] = []  # of jobs that are over

    def render(code: str) -> bytes:
        folders.append(tempfile.mkdtemp())
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
                os._exit(0)
        os.close(write_end)
        try:
            answer = read_bytes(read_end, HEADER.size + 3 * options.max_pixels, time.monotonic() + options.timeout)
        except TimeoutError:
            raise ProgramError(f"timeout: the program ran longer than {options.timeout:g} s") from None
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
            remove_folder(folders.pop())

    render.tidy = tidy
    return render


def is_sound(width: int, height: int, size: int, max_pixels: int) -> bool:
    """Whether a HEADER may be true: of a picture, neither empty nor too large, of an error's text, or of a page."""
    if not width:
        return 0 < size <= {PAGE: MAX_PAGE, FACTS: MAX_FACTS}.get(height, 8 * MAX_ERROR)
    return 0 < width * height <= max_pixels and size == 3 * width * height


def remove_folder(path: str) -> None:
    """Delete a folder, however deep, and whatever a program forbade in it: what is below moves up beside it first."""
    count, pending = 0, [path]
    while pending:
        folder = pending.pop()
        with contextlib.suppress(OSError):
            os.chmod(folder, 0o700)
            for entry in list(os.scandir(folder)):
                if not entry.is_dir(follow_symlinks=False):
                    os.unlink(entry.path)
                    continue
                count += 1
                os.chmod(entry.path, 0o700)
                os.rename(entry.path, f"{path}-{count}")
                pending.append(f"{path}-{count}")
            os.rmdir(folder)


def read_bytes(fd: int, size: int, deadline: float) -> bytes:
    """Up to `size` bytes, fewer at the end of the stream. Raises TimeoutError at `deadline` (time.monotonic)."""
    parts, poll = [], select.poll()
    poll.register(fd, select.POLLIN | select.POLLHUP)
    while size > 0:
        if not poll.poll(max(0, 1000 * (deadline - time.monotonic()))):
            raise TimeoutError
        part = os.read(fd, min(size, 1 << 20))
        if not part:
            break
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def has_ended(process: subprocess.Popen, deadline: float) -> bool:
    """Wait for a child's end until `deadline` (time.monotonic), at once where the kernel can tell: Popen.wait looks
    only every 50 ms."""
    seconds = max(0.0, deadline - time.monotonic())
    try:
        ended = os.pidfd_open(process.pid)
    except OSError:  # an old kernel, a container that forbids it
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
        return process.poll() is not None
    try:
        return bool(select.select([ended], [], [], seconds)[0])
    finally:
        os.close(ended)


# ---- svg, latex ------------------------------------------------------------------------------------------------------


def confine_worker(options: Options, children: bool, sockets: tuple[int, ...] = ()) -> None:
    """Limits and sandbox for a worker that treats its input as data."""
    browser = bool(sockets)
    sandbox.set_limits(options.memory_mb << 20, resource.RLIM_INFINITY, files=4096, browser=browser)
    readable = [*sandbox.system_paths(), *RANDOM_DEVICES, *([browsers_folder(), "/proc", "/sys"] if browser else [])]
    writable = [tempfile.gettempdir(), "/dev/null", *(["/dev/shm"] if browser else [])]
    sandbox.confine(options.layers, readable, writable, children, sockets)


def svg_renderer(options: Options) -> Callable[[str], bytes]:
    """librsvg inside the worker process: SVG is data, so one process may draw one document after the other."""
    confine_worker(options, children=False)
    rasterize_svg(SAMPLES["svg"].encode(), 16)
    return lambda code: answer_of(lambda: rasterize_svg(code.encode(), options.svg_side), options)


SNIPPET = r"""\documentclass[border=2pt,varwidth=WIDTH]{standalone}
\usepackage{amsmath,amssymb,graphicx,xcolor,tikz,pgfplots,booktabs,array,multirow}
\pgfplotsset{compat=1.17}
\usetikzlibrary{arrows.meta,calc,positioning,shapes,patterns,decorations.pathreplacing,decorations.markings}
"""
# No page number, unless the document itself asks for a header.
PLAIN_PAGE = r"\makeatletter\ifdefined\AddToHook\AddToHook{class/after}{\pagestyle{empty}\let\ps@plain\ps@empty}\fi"
PLAIN_PAGE += r"\makeatother"


def latex_document(code: str) -> str:
    """A document stays as it is; a snippet (a picture, a formula, some text) gets a preamble."""
    if "\\documentclass" in code or "\\documentstyle" in code:
        return code
    preamble = SNIPPET.replace("WIDTH", r"\maxdimen" if "tikzpicture" in code else "14cm")
    if "\\begin{document}" in code:
        return preamble + code
    usepackage = r"\\usepackage\s*(?:\[[^\]]*\])?\s*\{[^}]*\}"
    packages, body = "\n".join(re.findall(usepackage, code)), re.sub(usepackage, "", code)
    return f"{preamble}{packages}\n\\begin{{document}}\n{body.strip()}\n\\end{{document}}\n"


# Packages loaded into a TeX format once instead of once per document: those that the document loads anyway, as amsmath,
# for one, changes how formulas look.
PACKAGES = {"snippet": SNIPPET.partition("\n")[2], "pgfplots": r"\usepackage{pgfplots}", "tikz": r"\usepackage{tikz}"}
ABOUT_COLOURS = r"\\documentclass\s*\[[^\]]*(?:names|table|cmyk|gray|monochrome|draft|final)|\\PassOptionsToPackage"


def preloaded_packages(code: str) -> str:
    """Which of PACKAGES suits a document, or "" if none does."""
    if "\\documentclass" not in code:
        return "" if "\\documentstyle" in code else "snippet"
    if re.search(ABOUT_COLOURS, code):  # options that xcolor and graphicx would have to see when they are loaded
        return ""
    preamble = code.partition("\\begin{document}")[0]
    return next((name for name in ("pgfplots", "tikz") if name in preamble), "")


@functools.cache
def tex_format(name: str, folder: str) -> str:
    """A TeX format in `folder` with one of PACKAGES preloaded (0.5 s, once), or for "" LaTeX as it is. Stored
    uncompressed: unpacking the stock format takes longer than all else in pdflatex's start."""
    if name:
        packages = PACKAGES[name].replace("\\usepackage", "\\RequirePackage") + "\\dump\n"
        Path(folder, f"{name}.tex").write_text(packages)
        command = ["pdflatex", "-ini", "-interaction=batchmode", f"&{tex_format('', folder)}", f"{name}.tex"]
        subprocess.run(command, cwd=folder, timeout=60, check=True)
        packed = Path(folder, f"{name}.fmt")
    else:
        find = ["kpsewhich", "-engine=pdftex", "pdflatex.fmt"]
        packed = Path(subprocess.run(find, capture_output=True, text=True).stdout.strip() or "missing")
    if not packed.is_file():
        return "pdflatex"
    content = packed.read_bytes()
    unpacked = Path(folder, f"{name or 'stock'}.fmt")
    unpacked.write_bytes(gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content)
    return str(unpacked.with_suffix(""))


def font_makers() -> str:
    """A folder of the programs by which TeX makes missing fonts, once per worker. Without the setting they would make
    them from files that a document wrote beside itself, for all documents that follow."""
    folder, nothing = tempfile.mkdtemp(), tempfile.mkdtemp()
    for name in ("mktexpk", "mktextfm", "mktexmf"):
        if program := shutil.which(name):
            Path(folder, name).write_text(f'#!/bin/sh\nKPSE_DOT={nothing} exec {program} "$@"\n')
            Path(folder, name).chmod(0o755)
    return folder


def latex_renderer(options: Options) -> Callable[[str], bytes]:
    """pdflatex in a fresh folder per document, its first page through pdfium.

    A document that fails with preloaded packages (it may want one of them with options) is tried without.
    """
    if shutil.which("pdflatex") is None:
        raise ToolMissing("latex needs pdflatex: apt install texlive-latex-extra texlive-pictures texlive-science")
    formats = tempfile.mkdtemp()
    confine_worker(options, children=True)
    tex_format("tikz", formats)
    import pypdfium2  # noqa: F401  (warm)

    arguments = ["-no-shell-escape", "-halt-on-error", "-interaction=batchmode", "-jobname=program"]
    arguments.append(PLAIN_PAGE + r"\pdfsetrandomseed 0 \input{program.tex}")
    environment = os.environ | {"openin_any": "p", "openout_any": "p", "max_print_line": "1000"}
    environment |= {"SOURCE_DATE_EPOCH": "0", "FORCE_SOURCE_DATE": "1"}
    environment["PATH"] = f"{font_makers()}:{environment['PATH']}"

    def typeset(code: str, format: str, deadline: float) -> bytes:
        """The PDF file. Raises ProgramError."""
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            source, log, pdf = (Path(folder, f"program.{suffix}") for suffix in ("tex", "log", "pdf"))
            source.write_text(latex_document(code))
            command = ["pdflatex", f"-fmt={format}", *arguments]
            process = subprocess.Popen(  # its standard streams are null
                command, cwd=folder, env=environment, start_new_session=True, preexec_fn=sandbox.die_with_parent
            )
            in_time = has_ended(process, deadline)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            status = process.wait()
            if not in_time:
                raise ProgramTimeout(f"timeout: LaTeX ran longer than {options.timeout:g} s")
            if status != 0 or not pdf.exists():
                raise ProgramError(latex_errors(log.read_text(errors="replace") if log.exists() else "", status))
            return pdf.read_bytes()

    def draw(code: str) -> Image.Image:
        packages = preloaded_packages(code)
        format = tex_format(packages, formats)
        deadline = time.monotonic() + options.timeout
        try:
            pdf = typeset(code, format, deadline)
        except ProgramTimeout:
            raise
        except ProgramError:
            if not packages:
                raise
            pdf = typeset(code, tex_format("", formats), deadline)
        image = rasterize_pdf(pdf, options.max_pixels)
        sets_its_page = "tikzpicture" in code or "\\documentclass" in code
        sets_its_page &= re.search(r"\{standalone\}|\{preview\}", latex_document(code)) is not None
        return image if sets_its_page else crop_margins(image)

    return lambda code: answer_of(lambda: draw(code), options)


def latex_errors(log: str, status: int) -> str:
    """The "! ..." lines of a TeX log, with the source lines they point at."""
    lines = re.findall(r"^(?:! .*|l\.\d+ .*)$", log, re.MULTILINE)
    return "\n".join(lines[:8]) or f"pdflatex made no page (status {status}); the document is empty or too large"


# ---- html, mermaid ---------------------------------------------------------------------------------------------------

MERMAID_OPTIONS = dict(startOnLoad=False, securityLevel="strict", deterministicIds=True, suppressErrorRendering=True)
DRAW_MERMAID = """async code => {
    beginAnew();
    const { svg } = await mermaid.render("diagram", code);
    document.body.innerHTML = svg;
    const drawing = document.querySelector("svg"), box = drawing.viewBox.baseVal;
    drawing.style.maxWidth = "none";
    const [width, height] = [Math.ceil(box.width), Math.ceil(box.height)];
    drawing.setAttribute("width", width);
    drawing.setAttribute("height", height);
    return [width, height];
}"""


def mermaid_script() -> Path | None:
    """mermaid.min.js: $NANOVINCI_MERMAID, else where `make setup` puts it, else .cache/ beside this file."""
    named = os.environ.get("NANOVINCI_MERMAID")
    places = [Path(sys.prefix, "share/mermaid.min.js"), Path(__file__).parent.parent / ".cache/mermaid.min.js"]
    return next((path for path in ([Path(named)] if named else []) + places if path.is_file()), None)


def start_browser(options: Options) -> Browser:
    confine_worker(options, children=True, sockets=(socket.AF_UNIX, socket.AF_NETLINK))
    if (program := chromium_path()) is None:
        hint = "apt install chromium-headless-shell, or: playwright install --only-shell chromium"
        raise ToolMissing(f"html and mermaid need Chromium: {hint}")
    try:
        return Browser(program, options.memory_mb << 18)
    except FAILURES as error:
        raise OSError(f"Chromium does not start: {error}") from None


def browser_renderer(browser: Browser, answer: Callable[[str], bytes], leaves: bool) -> Callable[[str], bytes]:
    """`answer`, or in its place the browser's error as one. leaves: whether the page is left after each program."""
    state = types.SimpleNamespace(used=False, lost=False)

    def render(code: str) -> bytes:
        try:
            return answer(code)
        except BrowserError as error:
            return error_answer(f"browser: {error}")
        except BrowserLost as error:
            if state.used:  # this may be the doing of the page before
                browser.end()
            state.lost = True
            return error_answer(f"browser: {error}")
        finally:
            state.used = True

    def tidy() -> None:
        if state.lost or browser.is_bloated():
            browser.end()
        if leaves:
            browser.leave()

    render.tidy = tidy
    return render


def html_renderer(options: Options) -> Callable[[str], bytes]:
    """Web pages, 1280 px wide and as high as they are."""
    browser = start_browser(options)

    def draw(code: str) -> Image.Image:
        browser.open(code)
        return browser.screenshot(PAGE_WIDTH, browser.height())

    return browser_renderer(browser, lambda code: answer_of(lambda: draw(code), options, FAILURES), leaves=True)


def page_facts_renderer(options: Options) -> Callable[[str], bytes]:
    """The text blocks of a web page (page_blocks.py), in place of its picture."""
    from workers import page_blocks

    browser = start_browser(options)

    def answer(code: str) -> bytes:
        def open_page() -> None:
            browser.open(code)
            browser.seen = browser.height()

        def blocks() -> list[dict]:
            return page_blocks.blocks(lambda: browser.screenshot(PAGE_WIDTH, browser.seen), browser.evaluate)

        return facts_answer(open_page, blocks, FAILURES)

    return browser_renderer(browser, answer, leaves=True)


def mermaid_renderer(options: Options) -> Callable[[str], bytes]:
    """Diagrams, drawn by mermaid.js in their natural size, all in one page."""
    if mermaid_script() is None:
        raise ToolMissing("mermaid needs mermaid.min.js: run `make setup`, or name the file in NANOVINCI_MERMAID")
    script = mermaid_script().read_text()
    browser = start_browser(options)
    browser.open("<!DOCTYPE html><style>body { margin: 0 }</style><body></body>")
    browser.run(script + ";0")
    browser.run(f"mermaid.initialize({json.dumps(MERMAID_OPTIONS)})")

    def draw(code: str) -> Image.Image:
        return browser.screenshot(*browser.run(f"({DRAW_MERMAID})({json.dumps(code)})"))

    return browser_renderer(browser, lambda code: answer_of(lambda: draw(code), options, FAILURES), leaves=False)


# ---- the loop --------------------------------------------------------------------------------------------------------


def answer_of(draw: Callable[[], Image.Image], options: Options, passing: tuple[type, ...] = ()) -> bytes:
    """The bytes that go back for what `draw` returns or raises, but for exceptions of the types `passing`."""
    try:
        image = to_rgb(draw(), options.max_pixels)
        pixels = image.tobytes()
    except BrowserPage as page:
        return page.answer()
    except ProgramError as error:
        return error_answer(str(error))
    except MemoryError:
        return error_answer("MemoryError: the picture needs more memory than a program may have")
    except passing:
        raise
    except Exception as error:  # untrusted input meets large libraries here
        return error_answer(f"{type(error).__name__}: {error}")
    if 0 in image.size:
        return error_answer(f"the picture is empty: {image.width} x {image.height} px")
    return HEADER.pack(image.width, image.height, len(pixels)) + pixels


def facts_answer(draw: Callable, facts: Callable, passing: tuple[type, ...] = ()) -> bytes:
    """The bytes that go back for what `facts` returns after `draw`, as JSON, or for what either raises."""
    try:
        draw()
        payload = json.dumps(facts()).encode()
    except BrowserPage:
        return error_answer("the figure is drawn by plotly, which has no facts here")
    except ProgramError as error:
        return error_answer(str(error))
    except passing:
        raise
    except Exception as error:  # untrusted input meets large libraries here
        return error_answer(f"{type(error).__name__}: {error}")
    if len(payload) > MAX_FACTS:
        return error_answer(f"the facts are longer than {MAX_FACTS} bytes")
    return HEADER.pack(0, FACTS, len(payload)) + payload


def error_answer(text: str, final: bool = False) -> bytes:
    """final: the worker cannot do its kind of job at all, now or later."""
    text = text if len(text) <= MAX_ERROR else text[: MAX_ERROR // 2] + " [...] " + text[-MAX_ERROR // 2 :]
    payload = (text or "failed").encode(errors="replace")
    return HEADER.pack(0, int(final), len(payload)) + payload


def printable(text: bytes) -> str:
    """The text of an error as a caller may show it: it came from a program, and must not steer a terminal."""
    shown = text.decode(errors="replace")[: MAX_ERROR + 7]
    return "".join(c if c.isprintable() or c == "\n" else " " for c in shown).strip() or "failed"


def work(kind: str, settings: str) -> None:
    """A worker's life: get ready, then answer one request after the other until the caller is gone."""
    sandbox.die_with_parent()
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")  # short of memory, the kernel takes us, not the trainer
    options = Options(**json.loads(settings))
    options.layers = sandbox.Layers(**options.layers)
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0), os.dup2(nothing, 1)  # what libraries print must not get into the answers
    molecule_renderer = functools.partial(python_renderer, figures=False)
    figure_facts = functools.partial(python_renderer, facts=True)
    renderers = (python_renderer, svg_renderer, html_renderer, latex_renderer, mermaid_renderer, molecule_renderer)
    renderers += (figure_facts, page_facts_renderer)
    try:
        render = dict(zip([*LANGUAGES, "molecule", *INSPECTIONS], renderers, strict=True))[kind](options)
    except ImportError as error:
        ready = error_answer(f"the Python package {error.name} is missing: pip install -r requirements.txt", final=True)
    except (ToolMissing, OSError) as error:
        ready = error_answer(str(error), final=isinstance(error, ToolMissing))
    else:
        ready, tidy = HEADER.pack(0, 0, 0), getattr(render, "tidy", lambda: None)
    while True:  # "ready" is said before each request, so that nobody's time is spent on tidying up after another
        answers.write(ready)
        answers.flush()
        if not (size := requests.read(8)):
            break
        code = requests.read(struct.unpack("<Q", size)[0]).decode("utf-8-sig")
        try:
            answer = render(code)
        except ProgramError as error:
            answer = error_answer(str(error))
        answers.write(answer)
        answers.flush()
        tidy()


if __name__ == "__main__":
    if sys.argv[1:2] != ["--worker"] or len(sys.argv) != 4:
        sys.exit("draw.py: this is the worker of render.py; run `python render.py FILE` instead.")
    work(*sys.argv[2:])
