"""What a program draws with matplotlib, as facts: the texts, the layout, the chart types, the colours, text positions.

Runs inside the sandboxed python worker. `watch` wraps what ChartMimic wraps, once, in the fork server; the forked job
calls `facts` after the program. For ChartMimic (arXiv 2406.09961, `chart_type_evaluator_prefix.py`,
`color_evaluator_prefix.py`, `layout_evaluator.py`, `text_evaluator.py`) and Plot2Code (`text_match_score.py`). The
program shares this process: one that sets out to could forge its facts.

The facts hold what the originals see and what they lose, so that a score can be had either way; a fact that cannot be
read is missing, and no other. Texts are read off the Agg renderer, not the PDF's: the strings are the same.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
from collections import Counter
from collections.abc import Callable

from languages.imports import when_imported

MOST = 5000  # entries of each kind; no figure worth comparing has more
MOST_ARTISTS = 50_000

TYPES = {  # class or module -> its functions whose outermost calls are counted
    "matplotlib.axes:Axes": "bar barh plot axhline axvline axvspan axhspan hlines vlines errorbar boxplot violinplot "
    "violin hist fill_between fill_betweenx scatter quiver pie fill imshow pcolor contour contourf broken_barh "
    "tripcolor",
    "mpl_toolkits.mplot3d:Axes3D": "scatter plot plot_surface bar3d bar add_collection3d",
    "matplotlib.image:NonUniformImage": "__init__",
    "matplotlib.patches:Ellipse": "__init__",
    "matplotlib.patches:Circle": "__init__",
    "networkx.drawing.nx_pylab:": "draw_networkx_nodes draw_networkx_edges draw_networkx_labels",
    "squarify:": "plot",
    "matplotlib_venn._common:VennDiagram": "__init__",
}
# The original tells functions apart by name and file, which for these is the same
SAME = {"Circle.__init__": "Ellipse.__init__"}
SAME_TYPE = SAME | {"Axes3D.bar": "Axes.bar"}


# ---- artists and their colours ---------------------------------------------------------------------------------------
# Artists of what a function returns (a constructor: of what it made), and the colours of one of these artists.


def one(result) -> list:
    return [result]


def bars(result) -> list:
    """Of a histogram, of one data set or of several."""
    return [patch for group in result[2] for patch in (group if hasattr(group, "__iter__") else [group])]


def boxes(result) -> list:
    return [box for box in result["boxes"] if hasattr(box, "get_facecolor")]  # which lines have not


def itself(patch) -> list:
    return [patch] if type(patch).__name__ in ("Circle", "Ellipse") else []  # not what is derived from them


def rectangles(axes) -> list:
    return [patch for container in axes.containers for patch in container]


def line(artist) -> list:
    return [artist.get_color()]


def face(patch) -> list:
    return [patch.get_facecolor()]


def faces(artist) -> list:
    """Of a collection, or of several patches."""
    if hasattr(artist, "get_facecolor"):
        return artist.get_facecolor()
    return [patch.get_facecolor() for patch in artist if patch is not None]


def first_face(collection) -> list:
    return collection.get_facecolor()[:1]


def edges(collection) -> list:
    return collection.get_edgecolor()


def arrows(result) -> list:
    """Edges of a network are a list of arrows, or a collection of lines."""
    return faces(result) if isinstance(result, list) else edges(result)


def colour_map(artist) -> list:
    return [artist.get_cmap().name]


def name(of_colour_map: str) -> list:
    return [of_colour_map]


COLOURED: dict[str, dict[str, tuple[Callable, Callable]]] = {
    "matplotlib.axes:Axes": {
        "axhline axvline": (one, line),
        "axvspan axhspan": (one, face),
        "bar fill": (list, face),
        "pie": (lambda result: result[0], face),
        "boxplot": (boxes, face),
        "hist": (bars, face),
        "scatter _fill_between_x_or_y": (one, first_face),
        "violinplot": (lambda result: result["bodies"], first_face),
        "quiver broken_barh": (one, faces),
        "hlines vlines": (one, edges),
        "imshow pcolor contour contourf tripcolor": (one, colour_map),
    },
    "matplotlib.axes._base:_process_plot_var_args": {"_make_line _makeline": (lambda result: [result[0]], line)},
    "matplotlib.projections.polar:PolarAxes": {"plot": (list, line)},
    "mpl_toolkits.mplot3d:Axes3D": {
        "plot": (list, line),
        "bar": (list, face),
        "plot_surface bar3d": (one, first_face),
        "scatter add_collection3d": (one, faces),
    },
    "matplotlib.image:NonUniformImage": {"__init__": (one, colour_map)},
    "matplotlib.patches:Ellipse": {"__init__": (itself, face)},
    "matplotlib.patches:Circle": {"__init__": (itself, face)},
    "networkx.drawing.nx_pylab:": {
        "draw_networkx_nodes": (one, faces),
        "draw_networkx_edges": (one, arrows),
        "draw_networkx_labels": (lambda result: result.values(), line),
    },
    "squarify:": {"plot": (rectangles, face)},
    "matplotlib_venn._common:VennDiagram": {"__init__": (lambda venn: [venn.patches], faces)},
}


def hex_colours(artist, read: Callable) -> list[str]:
    """Distinct "#RRGGBB" of an artist, in order, or the name of its colour map; nothing where none can be read."""
    from matplotlib.colors import to_hex

    def as_hex(colour) -> str:
        if isinstance(colour, str) and len(colour) == 9 and colour.startswith("#"):
            return colour.upper()  # with its alpha, as the original has it
        return to_hex(colour).upper()

    try:
        colours = read(artist)
        if read in (name, colour_map):
            return [str(colour) for colour in colours]
        return [as_hex(c) for c in dict.fromkeys(c if isinstance(c, str) else tuple(c) for c in colours)]
    except Exception:  # whatever a program made of its artists
        return []


# ---- watching --------------------------------------------------------------------------------------------------------


class Log:
    """Calls and artists of one program."""

    def __init__(self):
        self.types: Counter[str] = Counter()
        self.artists: list[tuple[str, str, object, Callable]] = []  # function, colour when made, artist, how to read it
        self.readable = True  # for the original, which a collection without colours stops
        self.texts: list[str] = []
        self.figure = None  # the last one drawn
        self.inside = {"type": False, "colour": False}


LOG = Log()


def outermost(kind: str, note: Callable):
    """A decorator: `note(function, arguments, options, result)` after calls that no other of this kind is inside of."""

    def decorate(function):
        @functools.wraps(function)
        def wrapper(*arguments, **options):
            if LOG.inside[kind]:
                return function(*arguments, **options)
            LOG.inside[kind] = True
            try:
                result = function(*arguments, **options)
            finally:
                LOG.inside[kind] = False
            with contextlib.suppress(Exception):  # never at the program's cost
                note(function, arguments, options, arguments[0] if result is None else result)
            return result

        return wrapper

    return decorate


def key_of(function, arguments, same: dict[str, str], polar: str) -> str:
    """polar: the function that is another one on polar axes."""
    key = same.get(function.__qualname__, function.__qualname__)
    on_polar_axes = [type(argument).__name__ for argument in arguments[:1]] == ["PolarAxes"]
    return key + "_polar" * (function.__name__ == polar and on_polar_axes)


def count_type(function, arguments, options, result) -> None:
    LOG.types[key_of(function, arguments, SAME_TYPE, "plot")] += 1


def note_colours(artists_of: Callable, read: Callable):
    """The artists of a call are kept: what counts are their colours at the end."""

    def note(function, arguments, options, result) -> None:
        artists, how = artists_of(result), read
        if function.__name__ in ("scatter", "plot_surface") and (mapped := options.get("cmap")) is not None:
            artists, how = [mapped if isinstance(mapped, str) else mapped.name], name
        key = key_of(function, arguments, SAME, "scatter")
        for artist in artists:
            colours = hex_colours(artist, how)
            LOG.readable &= bool(colours) or key.startswith("Axes.scatter")
            if len(LOG.artists) < MOST_ARTISTS:
                LOG.artists.append((key, colours[-1] if colours else "", artist, how))

    return note


def wrap(place: str, names: str, decorate: Callable) -> None:
    """Decorate functions of a class, "module:Class", or of a module, "module:", once that is imported."""
    module, _, owner = place.partition(":")
    if module.startswith(("matplotlib.", "mpl_toolkits.")):
        importlib.import_module(module)

    def change(module) -> None:
        holder = getattr(module, owner) if owner else module
        for function in names.split():
            if hasattr(holder, function):
                setattr(holder, function, decorate(getattr(holder, function)))

    when_imported(module, change)


def watch() -> None:
    """Wrap the functions, types first: PolarAxes.plot, whose colours are noted, is Axes.plot, which is counted."""
    for place, names in TYPES.items():
        wrap(place, names, outermost("type", count_type))
    for place, functions in COLOURED.items():
        for names, how in functions.items():
            wrap(place, names, outermost("colour", note_colours(*how)))
    from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg

    draw_text, draw = RendererAgg.draw_text, FigureCanvasAgg.draw

    def noted(self, gc, x, y, s, *arguments, **options):
        LOG.texts.append(s)
        return draw_text(self, gc, x, y, s, *arguments, **options)

    def drawn(self, *arguments, **options):
        LOG.figure = self.figure
        return draw(self, *arguments, **options)

    RendererAgg.draw_text, FigureCanvasAgg.draw = noted, drawn
    forget()


def forget() -> None:
    LOG.__init__()


# ---- the facts -------------------------------------------------------------------------------------------------------


def facts() -> dict:
    """The facts of pyplot's current figure, or where all are closed of the one drawn last, as JSON can hold them. Draws
    it once more, without ticks. Fields: metrics/chartmimic.py."""
    from matplotlib import pyplot as plt
    from matplotlib.text import Text

    types = dict(LOG.types)
    figure = plt.gcf() if plt.get_fignums() or LOG.figure is None else LOG.figure
    if LOG.figure is not figure or any(artist.stale for artist in figure.get_children()):
        attempt(figure.canvas.draw)  # what was changed since
    places = [attempt(place_of, text) for text in attempt(figure.findobj, Text, otherwise=[])]
    layout = [attempt(cells_of, axes) for axes in figure.axes]
    texts = attempt(texts_without_ticks, figure, otherwise=[])
    colours, readable = colours_at_the_end()
    return {
        "texts": texts[:MOST],
        "layout": layout[:MOST],
        "types": types,
        "colours": colours[:MOST],
        "readable": readable,
        "positions": [place for place in places if place][:MOST],
        "inches": list(map(float, figure.get_size_inches())),
    }


def attempt(read: Callable, *arguments, otherwise=None):
    """What `read` returns, or `otherwise` where it fails: programs may put anything into a figure."""
    try:
        return read(*arguments)
    except Exception:
        return otherwise


def place_of(text) -> tuple[str, float, float, bool] | None:
    """(string, x, y, whether these were numbers); categories and dates are converted. None if it shows nothing."""
    import numpy as np

    string, position = text.get_text().strip().lower(), text.get_position()
    if not string or not text.get_visible():
        return None
    x, y = text.convert_xunits(position[0]), text.convert_yunits(position[1])
    return string, float(x), float(y), np.array(position).dtype.kind in "biuf"


def cells_of(axes) -> list[int] | None:
    """Rows, columns, first and last row, first and last column of its grid; None where it is in none."""
    spec = axes.get_subplotspec()
    if spec is None:
        return None
    rows, columns = spec.rowspan, spec.colspan
    geometry = spec.get_gridspec().get_geometry()
    return list(map(int, (*geometry, rows.start, rows.stop - 1, columns.start, columns.stop - 1)))


def texts_without_ticks(figure) -> list[str]:
    for axes in figure.axes:
        attempt(axes.set_xticks, [])
        attempt(axes.set_yticks, [])
    LOG.texts.clear()
    figure.canvas.draw()
    return list(LOG.texts)


def colours_at_the_end() -> tuple[list[tuple[str, str, bool]], bool]:
    """((function, colour, known), ..), and whether the original can read its artists.

    It knows one artist of each function and colour, the last that had this colour when it was made.
    """
    known = {(key, first): index for index, (key, first, *_) in enumerate(LOG.artists) if first}
    found: dict[tuple[str, str], bool] = {}
    readable = LOG.readable
    for index, (key, first, artist, read) in enumerate(LOG.artists):
        is_known = known.get((key, first)) == index
        colours = hex_colours(artist, read)
        if is_known:  # a bar's face it takes for numbers, whoever named its colour
            named = key == "Axes.bar" and isinstance(getattr(artist, "_original_facecolor", None), str)
            readable &= not named and (bool(colours) or key.startswith("Axes.scatter"))
        for colour in colours:
            found[key, colour] = found.get((key, colour), False) or is_known
    return sorted((*entry, is_known) for entry, is_known in found.items()), readable
