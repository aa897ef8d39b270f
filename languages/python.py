"""Python programs that draw with matplotlib, plotly, rdkit, indigo: a fork of a warm server each."""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib
import io
import os
import random
import signal
import sys
import tempfile
import traceback
import types
from collections.abc import Callable
from pathlib import Path

from PIL import Image

import sandbox
from languages import ProgramError
from languages.pixels import rasterize_pdf, rasterize_svg, to_rgb
from languages.protocol import (
    HEADER,
    RANDOM_DEVICES,
    BrowserPage,
    Options,
    answer_of,
    facts_answer,
    is_sound,
    read_bytes,
    remove_folder,
)

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
    # CPU time of all threads together: the clock (sandbox.py) lets up to so many run at once
    sandbox.set_limits(options.memory_mb << 20, sandbox.Clock.WIDE * int(options.timeout + 2))
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
        from languages import chart_facts

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
            answer = read_bytes(read_end, HEADER.size + 3 * options.max_pixels)
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


figure_renderer = python_renderer
molecule_renderer = functools.partial(python_renderer, figures=False)
figure_facts = functools.partial(python_renderer, facts=True)
