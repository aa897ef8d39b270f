"""Every way in which a Python program finishes a picture, caught: the program's source is never rewritten.

The functions change matplotlib, Pillow, plotly, altair, cv2, rdkit and indigo once, in the fork server; the fork of a
job runs the program, and `captured` says what it drew: "picture", the last that was finished, an image or a page for a
browser, and "how"; "left", a function that draws what was made but never shown, given the program's names.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import math
import os
import re
import struct
import sys
import types
import zlib
from pathlib import Path

from PIL import Image

from languages.imports import when_imported
from languages.pixels import rasterize_svg
from languages.protocol import BrowserPage, ProgramError
from languages.words import of_canvas, watch_matplotlib, with_words

PILLOW_SAVE = Image.Image.save  # as it is before `capture_pictures`
# How a page says that it is not drawn yet, that it is, or that it cannot be
DRAWING = """<html data-drawing><script>
for (const kind of ["error", "unhandledrejection"]) addEventListener(kind, event =>
    document.documentElement.setAttribute("data-drawing-failed", event.message ?? String(event.reason)));
</script>"""
DONE = "document.documentElement.removeAttribute('data-drawing')"
KALEIDO = types.SimpleNamespace(  # its settings: who changes them means plotly's pictures, though kaleido draws none
    default_width=None, default_height=None, default_scale=None, default_format="png", mathjax=None, topojson=None,
    plotlyjs=None, mapbox_access_token=None, chromium_args=(),
)  # fmt: skip
NOWHERE = io.BytesIO()  # given to savefig for a picture that no program reads: no file is made of it
NOT_OF_THE_PICTURE = ("format", "backend", "metadata", "pil_kwargs")  # what savefig takes for the file alone


def finish(captured: dict, how: str, picture: Image.Image | BrowserPage) -> None:
    """The last counts, but a figure that was saved stays so when it is shown as well: "saved", "shown", "other"."""
    if how != "shown" or captured.get("how") != "saved":
        captured.update(how=how, picture=picture)


def capture_pictures(captured: dict) -> None:
    """Pillow's, and what else has no figures. Molecules are sent to the job's own folder under any path."""

    def save(self, fp, format=None, **options) -> None:
        frames = list(options.get("append_images", ())) if options.get("save_all") else []
        finish(captured, "other", (frames[-1] if frames else self).copy())  # of an animation the last
        PILLOW_SAVE(self, fp, format, **options)

    Image.Image.save = save
    Image.Image.show = lambda self, *_, **__: finish(captured, "other", self.copy())
    when_imported("rdkit.Chem.Draw", lambda module: capture_rdkit(module, captured))
    when_imported("indigo.renderer", capture_indigo)
    when_imported("cv2", lambda module: capture_cv2(module, captured))
    when_imported("plotly.basedatatypes", lambda module: capture_plotly(captured))
    for name in ("plotly.io._kaleido", "plotly.io.kaleido"):
        when_imported(name, lambda module: setattr(module, "scope", KALEIDO))
    when_imported("kaleido", lambda module: importlib.import_module("plotly.io"))  # which brings its older names along
    when_imported("altair", lambda module: capture_altair(module, captured))


# ---- matplotlib ------------------------------------------------------------------------------------------------------


def capture_figures(captured: dict, max_pixels: int) -> None:
    """Figures, whose pixels are taken as Agg draws them, at no more than `max_pixels`."""
    import matplotlib
    import numpy as np
    from matplotlib import pyplot as plt
    from matplotlib import rcParams
    from matplotlib.backend_bases import FigureManagerBase
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    original_savefig = Figure.savefig

    def print_png(self, filename_or_obj, **_) -> None:
        FigureCanvasAgg.draw(self)
        pixels = np.asarray(self.buffer_rgba())
        finish(captured, captured.get("figures are", "saved"), with_words(image_of(pixels), of_canvas(self)))
        if filename_or_obj is not NOWHERE:
            write_png(filename_or_obj, pixels)

    def savefig(self, fname, *_, dpi=None, **options) -> None:
        width, height = self.get_size_inches()
        dpi = rcParams["savefig.dpi"] if dpi is None else dpi
        dpi = min(self.dpi if dpi == "figure" else dpi, (max_pixels / max(width * height, 1e-9)) ** 0.5)
        named = isinstance(fname, (str, os.PathLike))
        suffix = Path(fname).suffix[1:] if named else ""
        wanted = (options.get("format") or suffix or rcParams["savefig.format"]).lower()
        if named and not suffix and not options.get("format"):
            fname = f"{os.fspath(fname)}.{wanted}"
        if wanted not in self.canvas.get_supported_filetypes():
            original_savefig(self, fname, **options)  # which says so
        look = {name: value for name, value in options.items() if name not in NOT_OF_THE_PICTURE}
        original_savefig(self, fname if wanted == "png" else NOWHERE, format="png", dpi=dpi, **look)
        if wanted != "png":  # the program may read what it wrote
            original_savefig(self, fname, dpi=dpi, **options)

    def show(self) -> None:
        """As a window shows it: in the figure's own size, whatever is said of files."""
        captured["figures are"] = "shown"
        with matplotlib.rc_context({"savefig.dpi": "figure", "savefig.bbox": None, "savefig.format": "png"}):
            savefig(self, NOWHERE)
        captured["figures are"] = "saved"

    FigureCanvasAgg.print_png, Figure.savefig = print_png, savefig
    Figure.show = lambda self, *_, **__: show(self)
    plt.show = lambda *_, **__: show(plt.gcf()) if plt.get_fignums() else None
    # a screen: any backend's name is right, and its window does nothing
    matplotlib.use = plt.switch_backend = lambda *_, **__: None
    FigureManagerBase.window = FigureManagerBase.frame = Anything()
    FigureManagerBase.resize = lambda *_: None
    capture_animations(savefig)
    draw_tex_as_formulas()
    watch_matplotlib()


def image_of(pixels) -> Image.Image:
    """A copy of (height, width, 4) uint8, RGBA; as RGB if it is opaque, as most figures are."""
    height, width, _ = pixels.shape
    if (pixels[..., 3] == 255).all():
        return Image.frombytes("RGB", (width, height), pixels, "raw", "RGBX")
    return Image.frombytes("RGBA", (width, height), pixels)


def write_png(target, pixels) -> None:
    """(height, width, 4) uint8, RGBA, to a path or an open file, uncompressed. Pillow tries five filters on each row
    for it, which takes ten times as long."""
    import numpy as np

    height, width, _ = pixels.shape
    target = sys.stdout.buffer if target is sys.stdout else target
    with open(target, "wb") if isinstance(target, (str, os.PathLike)) else contextlib.nullcontext(target) as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        write_chunk(file, b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0))  # 8 bits each of RGBA
        packer = zlib.compressobj(level=0)
        for start in range(0, height, 32):  # rows
            some = pixels[start : start + 32].reshape(-1, 4 * width)
            filtered = np.zeros((len(some), 1 + 4 * width), np.uint8)  # by filter 0: the row as it is
            filtered[:, 1:] = some
            write_chunk(file, b"IDAT", packer.compress(filtered))
        write_chunk(file, b"IDAT", packer.flush())
        write_chunk(file, b"IEND", b"")


def write_chunk(file, kind: bytes, content: bytes) -> None:
    """Of a PNG file: length, kind, content, checksum."""
    file.write(struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content)))


class Anything:
    """An object of a user interface: whatever is asked of it, nothing happens."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __call__(self, *_, **__):
        return self

    def __iter__(self):
        return iter(())


def capture_animations(savefig) -> None:
    """A saved animation is its last frame. No film is written."""
    from matplotlib import animation
    from matplotlib.animation import AbstractMovieWriter, Animation

    def save(self, filename=None, *_, dpi=None, savefig_kwargs=None, **__) -> None:
        self._init_draw()
        for frame in self.new_saved_frame_seq():
            self._pre_draw(frame, False)
            self._draw_frame(frame)
        savefig(self._fig, NOWHERE, dpi=None if dpi == "figure" else dpi, format="png", **(savefig_kwargs or {}))

    Animation.save = save
    Animation.to_jshtml = Animation.to_html5_video = lambda self, *_, **__: save(self) or ""

    @contextlib.contextmanager
    def saving(self, fig, outfile, dpi=None, *_, **__):
        yield self
        savefig(fig, NOWHERE, dpi=dpi, format="png")

    AbstractMovieWriter.saving = saving
    for kind in (animation.MovieWriter, animation.FileMovieWriter, animation.PillowWriter, animation.HTMLWriter):
        kind.grab_frame, kind.isAvailable = lambda self, **_: None, classmethod(lambda cls: True)


def draw_tex_as_formulas() -> None:
    """`text.usetex` would start TeX, which no program may: its texts are drawn by matplotlib's own formulas, in TeX's
    fonts."""
    from matplotlib import rcParams
    from matplotlib.mathtext import MathTextParser
    from matplotlib.text import Text

    preprocess = Text._preprocess_math

    def set_usetex(self, usetex) -> None:
        self._usetex, self.by_tex = False, rcParams["text.usetex"] if usetex is None else bool(usetex)
        if self.by_tex:
            self.set_fontfamily("serif")
            self.set_math_fontfamily("cm")

    def preprocess_math(self, s):
        if not getattr(self, "by_tex", False):
            return preprocess(self, s)
        try:
            parser.parse(s)
        except ValueError:  # what only TeX knows is shown as it was written
            return s, False
        return preprocess(self, s)

    def text_in_lines(self) -> str:
        text = wrapped(self)
        return as_formulas(text) if getattr(self, "by_tex", False) else text

    parser, wrapped = MathTextParser("path"), Text._get_wrapped_text
    Text.set_usetex, Text._preprocess_math, Text._get_wrapped_text = set_usetex, preprocess_math, text_in_lines


def as_formulas(s: str) -> str:
    """A text for TeX in the words of matplotlib's formulas."""
    for rows in re.findall(r"\\begin\{(?:equation|eqnarray|align|gather)\*?\}(.*?)\\end\{\w+\*?\}", s, re.DOTALL):
        lines = [re.sub(r"&|\\(?:nonumber|notag|label\{[^}]*\})", "", row).strip() for row in rows.split(r"\\")]
        s = s.replace(rows, "\n".join(f"${line}$" for line in lines if line))
    s = re.sub(r"\\(?:begin|end)\{(?:equation|eqnarray|align|gather|center)\*?\}", "", s)
    s = re.sub(r"\\textbf\{([^{}$]*)\}", r"$\\mathbf{\1}$", s)
    s = re.sub(r"\\(?:text(?:bf|it|rm|sf|tt|sc)|emph)\{([^{}]*)\}", r"\1", s)
    parts = s.split("$")  # words and formulas in turn
    words = (
        r"\\(?:tiny|scriptsize|footnotesize|small|normalsize|[lL]arge|LARGE|huge|Huge|bfseries|itshape|noindent)\b\s*"
    )
    parts[::2] = [re.sub(words, "", re.sub(r"\\((?:La)?TeX)\b(?:\{\})?", r"\1", part)) for part in parts[::2]]
    parts[::2] = [re.sub(r"\\([%&#_ ])", r"\1", part) for part in parts[::2]]
    parts[1::2] = [re.sub(r"\\(?:display|text|script)style\b", "", part) for part in parts[1::2]]
    parts[1::2] = [re.sub(r"\\(?:mbox|hbox|textrm|textnormal)\{", r"\\text{", part) for part in parts[1::2]]
    return "$".join(parts)


# ---- molecules -------------------------------------------------------------------------------------------------------


def capture_rdkit(module, captured: dict) -> None:
    from rdkit.Chem.Draw import rdMolDraw2D

    def kept(function, picture):
        def call(*arguments, **options):
            result = function(*arguments, **options)
            captured["left"] = lambda _: picture(result)
            return result

        return call

    def written(text):
        return Image.open(io.BytesIO(text))

    cairo, svg = rdMolDraw2D.MolDraw2DCairo, rdMolDraw2D.MolDraw2DSVG
    write = cairo.WriteDrawingText
    cairo.WriteDrawingText = lambda self, path: write(self, Path(path).name)
    cairo.GetDrawingText = kept(cairo.GetDrawingText, written)
    svg.GetDrawingText = kept(svg.GetDrawingText, lambda text: rasterize_svg(text.encode()))
    mol_to_file = module.MolToFile
    module.MolToFile = lambda mol, filename, *args, **kwargs: mol_to_file(mol, Path(filename).name, *args, **kwargs)
    for name in ("MolToImage", "MolsToGridImage", "MolsMatrixToGridImage", "ReactionToImage"):
        as_picture = lambda result: result if isinstance(result, Image.Image) else None  # noqa: E731
        setattr(module, name, kept(getattr(module, name), as_picture))


def capture_indigo(module) -> None:
    render_to_file = module.IndigoRenderer.renderToFile
    module.IndigoRenderer.renderToFile = lambda self, item, path: render_to_file(self, item, Path(path).name)


# ---- other libraries -------------------------------------------------------------------------------------------------


def capture_cv2(module, captured: dict) -> None:
    def picture(array) -> Image.Image:
        done, png = module.imencode(".png", array)
        return Image.open(io.BytesIO(png.tobytes()))

    def imwrite(filename, img, *_) -> bool:
        finish(captured, "other", picture(img))
        with open(filename, "wb") as file:  # which knows where absolute paths lie
            done, content = module.imencode(Path(filename).suffix or ".png", img)
            file.write(content.tobytes())
        return True

    module.imwrite = imwrite
    module.imshow = lambda winname, mat: finish(captured, "other", picture(mat))
    for name in ("waitKey", "destroyAllWindows", "namedWindow", "destroyWindow", "resizeWindow", "moveWindow"):
        setattr(module, name, lambda *_: -1)


def capture_plotly(captured: dict) -> None:
    """A plotly figure that is shown or written becomes a page with plotly.js in it: its Python half cannot draw."""
    import plotly.io
    from plotly.basedatatypes import BaseFigure

    def size_of(figure, width, height) -> tuple[int, int]:
        layout = figure.layout
        width = width or KALEIDO.default_width or layout.width or 700  # px, plotly's own defaults for files
        height = height or KALEIDO.default_height or layout.height or 500
        return (int(width) if math.isfinite(width) else 700), (int(height) if math.isfinite(height) else 500)

    def page(figure, width=None, height=None, scale=None) -> BrowserPage:
        figure = figure if isinstance(figure, BaseFigure) else BaseFigure(figure)
        width, height = size_of(figure, width, height)
        before = {"width": figure.layout.width, "height": figure.layout.height}
        figure.layout.update(width=width, height=height)
        html = figure.to_html(config={"displayModeBar": False}, post_script=DONE)  # plotly draws in steps
        figure.layout.update(before)
        html = html.replace("<html>", DRAWING, 1).encode(errors="replace")
        return BrowserPage(width, height, html, float(scale or KALEIDO.default_scale or 1))

    def show(figure, *_, width=None, height=None, **__) -> None:
        finish(captured, "other", page(figure, width, height))

    def write_image(figure, file=None, format=None, scale=None, width=None, height=None, *_, **__) -> None:
        finish(captured, "other", page(figure, width, height, scale))

    def to_image(figure, format=None, width=None, height=None, scale=None, *_, **__) -> bytes:
        """A blank picture of the right size: what it will look like only the browser knows."""
        write_image(figure, None, format, scale, width, height)
        blank = io.BytesIO()
        PILLOW_SAVE(Image.new("RGB", size_of(figure, width, height), "white"), blank, "PNG")
        return blank.getvalue()

    def plot(figure_or_data, *_, **__) -> str:
        data = figure_or_data
        show(data if isinstance(data, (dict, BaseFigure)) else {"data": list(data)})
        return ""

    def remembered(self, *arguments, **options) -> None:
        """Of figures that were never shown, the one called `fig`, or the last that has a name and data, is meant."""
        original(self, *arguments, **options)

        def left(names: dict) -> BrowserPage:
            named = {name: one for name, one in names.items() if isinstance(one, BaseFigure) and one.data}
            return page(named.get("fig") or next(reversed(named.values()), self))

        captured["left"] = left

    class PlotlyScope:
        """Of kaleido before 1.0."""

        def transform(self, figure, format=None, width=None, height=None, scale=None) -> bytes:
            return to_image(figure, format, width, height, scale)

    scopes = types.ModuleType("kaleido.scopes"), types.ModuleType("kaleido.scopes.plotly")
    scopes[1].PlotlyScope = PlotlyScope
    sys.modules |= {module.__name__: module for module in scopes}
    original, BaseFigure.__init__ = BaseFigure.__init__, remembered
    write_html = lambda figure, *_, **__: show(figure)  # noqa: E731
    for owner in (BaseFigure, plotly.io):
        owner.show, owner.write_image, owner.to_image, owner.write_html = show, write_image, to_image, write_html
    for name in ("plotly.offline", "plotly.offline.offline"):
        when_imported(name, lambda module: vars(module).update(plot=plot, iplot=plot))


def capture_altair(module, captured: dict) -> None:
    """An altair chart becomes a page with vega in it."""
    TopLevelMixin = module.TopLevelMixin

    def page(chart, scale: float = 1.0) -> BrowserPage:
        script = Path(sys.prefix, "share/vega.js")
        if not script.is_file():
            raise ProgramError(f"altair's charts need {script}, which `make` puts there")
        draw = f"await vegaEmbed('#drawing', {chart.to_json()}, {{actions: false}}); {DONE}"
        html = f"<!DOCTYPE html>{DRAWING}<body><div id=drawing style='display: inline-block'></div>"
        html += f"<script type=module>{script.read_text()}\n{draw}</script>"
        return BrowserPage(0, 0, html.encode(errors="replace"), scale)

    def show(self, *_, scale_factor: float = 1.0, **__) -> None:
        finish(captured, "other", page(self, float(scale_factor)))

    made: list = []

    def left(_) -> BrowserPage:
        """Of charts that were never shown, the last that is whole."""
        for chart in reversed(made[-20:]):
            with contextlib.suppress(Exception):  # one without a mark, say
                return page(chart)
        return page(made[-1])

    TopLevelMixin.save = TopLevelMixin.show = TopLevelMixin.display = TopLevelMixin._repr_mimebundle_ = show
    for kind in ("Chart", "LayerChart", "HConcatChart", "VConcatChart", "ConcatChart", "FacetChart", "RepeatChart"):
        owner = getattr(module, kind)
        original = owner.__init__

        def remembered(self, *arguments, original=original, **options) -> None:
            original(self, *arguments, **options)
            made.append(self)
            captured["left"] = left

        owner.__init__ = remembered
