"""What a program draws with matplotlib, as facts: the texts, the layout, the chart types, the colours, text positions.

Runs inside the sandboxed python worker. `watch` wraps matplotlib's functions once, in the fork server; the
forked job calls `facts` after the program. For ChartMimic (arXiv 2406.09961, `chart_type_evaluator_prefix.py`,
`color_evaluator_prefix.py`, `layout_evaluator.py`, `text_evaluator.py`) and Plot2Code (`text_match_score.py`). The
program shares this process: one that sets out to could forge its facts.

Departures: texts are read off the Agg renderer, not the PDF's (the strings are the same); colours of all artists are
read again at the end, where the original forgets all but the last artist of a colour.
"""

from __future__ import annotations

import contextlib
import functools
import importlib

MOST = 5000  # entries of each kind; no figure worth comparing has more

TYPES = {
    "matplotlib.axes": {
        "Axes": "bar barh plot axhline axvline axvspan axhspan hlines vlines errorbar boxplot violinplot violin hist "
        "fill_between fill_betweenx scatter quiver pie fill imshow pcolor contour contourf broken_barh tripcolor"
    },
    "mpl_toolkits.mplot3d": {"Axes3D": "scatter plot plot_surface bar3d bar add_collection3d"},
    "matplotlib.image": {"NonUniformImage": "__init__"},
    "matplotlib.patches": {"Ellipse": "__init__", "Circle": "__init__"},
}
NETWORKS = ("draw_networkx_nodes", "draw_networkx_edges", "draw_networkx_labels")


class Log:
    """Calls and artists of one program."""

    def __init__(self):
        self.types: dict[str, int] = {}
        self.artists: list[tuple[str, object, str]] = []  # (function, artist or colour, how to read it)
        self.texts: list[str] = []
        self.figure = None  # the last one drawn
        self.inside = {"type": False, "colour": False}


LOG = Log()


def outermost(kind: str, note):
    """A decorator: `note(function, arguments, result)` after calls that no other call of this kind is inside of."""

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
            if len(LOG.artists) < MOST:
                with contextlib.suppress(Exception):  # never at the program's cost
                    note(function, arguments, options, result)
            return result

        return wrapper

    return decorate


def name_of(function, arguments) -> str:
    name = f"{function.__module__}-{function.__qualname__}"
    polar = arguments and type(arguments[0]).__name__ == "PolarAxes" and function.__name__ in ("plot", "scatter")
    return name + ("_polar" if polar else "")


def count_type(function, arguments, options, result) -> None:
    name = name_of(function, arguments)
    LOG.types[name] = LOG.types.get(name, 0) + 1


def note_colours(function, arguments, options, result) -> None:
    """Remember the artists of a call and how to read their colours at the end."""
    name, short = name_of(function, arguments), function.__name__
    add = lambda artists, how: LOG.artists.extend((name, artist, how) for artist in artists)  # noqa: E731
    mapped = options.get("cmap")
    if short == "_make_line" or short == "_makeline":
        add([result[0]], "line")
    elif short in ("axhline", "axvline"):
        add([result], "line")
    elif short == "plot" and isinstance(result, list):
        add(result, "line")
    elif short in ("scatter", "plot_surface") and mapped is not None:
        add([mapped if isinstance(mapped, str) else mapped.name], "name")
    elif short == "scatter":
        add([result], "faces" if "3d" in function.__module__ else "first face")
    elif short in ("plot_surface", "bar3d", "_fill_between_x_or_y"):
        add([result], "first face")
    elif short in ("quiver", "broken_barh", "add_collection3d"):
        add([result if result is not None else arguments[1]], "faces")
    elif short in ("hlines", "vlines"):
        add([result], "edges")
    elif short in ("imshow", "pcolor", "contour", "contourf", "tripcolor"):
        add([result], "map")
    elif short == "pie":
        add(getattr(result, "wedges", None) or result[0], "patch")
    elif short in ("bar", "fill"):
        add(result, "patch")
    elif short == "boxplot":
        add([box for box in result["boxes"] if hasattr(box, "get_facecolor")], "patch")
    elif short == "violinplot":
        add(result["bodies"], "first face")
    elif short == "hist":
        groups = result[2]
        add([p for group in groups for p in (group if hasattr(group, "__iter__") else [group])], "patch")
    elif short == "__init__":
        add([arguments[0]], "map" if type(arguments[0]).__name__ == "NonUniformImage" else "patch")
    elif short == "draw_networkx_nodes":
        add([result], "faces")
    elif short == "draw_networkx_edges":
        add(result if isinstance(result, list) else [result], "patch" if isinstance(result, list) else "edges")
    elif short == "draw_networkx_labels":
        add(result.values(), "line")


COLOURED = {
    "matplotlib.axes": {
        "Axes": "bar scatter axhline axvline axvspan axhspan _fill_between_x_or_y pie hlines vlines boxplot violinplot "
        "hist quiver imshow pcolor contour contourf fill broken_barh tripcolor"
    },
    "matplotlib.axes._base": {"_process_plot_var_args": "_make_line _makeline"},
    "matplotlib.projections.polar": {"PolarAxes": "plot"},
    "mpl_toolkits.mplot3d": {"Axes3D": "scatter plot plot_surface bar3d bar add_collection3d"},
    "matplotlib.image": {"NonUniformImage": "__init__"},
    "matplotlib.patches": {"Ellipse": "__init__", "Circle": "__init__"},
}


def watch() -> None:
    """Wrap matplotlib's functions, and those of networkx where it is installed."""
    for table, decorate in ((COLOURED, outermost("colour", note_colours)), (TYPES, outermost("type", count_type))):
        for module, classes in table.items():
            for owner, names in classes.items():
                holder = getattr(importlib.import_module(module), owner)
                for name in names.split():
                    if hasattr(holder, name):
                        setattr(holder, name, decorate(getattr(holder, name)))
        with contextlib.suppress(ImportError):
            import networkx
            from networkx.drawing import nx_pylab

            for name in NETWORKS:
                wrapped = decorate(getattr(nx_pylab, name))
                setattr(nx_pylab, name, wrapped)
                setattr(networkx, name, wrapped)
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


def facts() -> dict:
    """The facts of the figure drawn last, as JSON can hold them. Draws it once more, without ticks."""
    from matplotlib import pyplot as plt

    types, artists = dict(LOG.types), list(LOG.artists)
    figure = LOG.figure or plt.gcf()
    texts = [
        [artist.get_text().strip().lower(), *map(float, artist.get_position())]
        for artist in figure.findobj(lambda a: hasattr(a, "get_text") and hasattr(a, "get_position"))
        if artist.get_visible() and artist.get_text().strip()
    ]
    layout = []
    for axes in figure.axes:
        if spec := axes.get_subplotspec():
            rows, columns, first, last = spec.get_geometry()
            last = first if last is None else last
            place = (rows, columns, first // columns, last // columns, first % columns, last % columns)
            layout.append(list(map(int, place)))
    for axes in figure.axes:
        with contextlib.suppress(Exception):
            axes.set_xticks([])
            axes.set_yticks([])
    LOG.texts.clear()
    figure.canvas.draw()
    return {
        "texts": LOG.texts[:MOST],
        "layout": layout[:MOST],
        "types": types,
        "colours": sorted({(name, colour) for name, artist, how in artists for colour in colours_of(artist, how)}),
        "positions": texts[:MOST],
        "inches": list(map(float, figure.get_size_inches())),
    }


def colours_of(artist, how: str) -> list[str]:
    """ "#RRGGBB" of an artist, or the name of its colour map; nothing where it has none."""
    from matplotlib.colors import to_hex

    try:
        if how in ("name", "map"):
            return [artist if how == "name" else artist.get_cmap().name]
        if how == "line":
            colours = [artist.get_color()]
        elif how == "patch":
            original = getattr(artist, "_original_facecolor", None)
            colours = [artist.get_facecolor() if original is None or isinstance(original, str) else original]
        else:
            colours = list(artist.get_edgecolor() if how == "edges" else artist.get_facecolor())
            colours = colours[:1] if how == "first face" else colours
        return [to_hex(colour).upper() for colour in colours]
    except (ValueError, TypeError, AttributeError, IndexError):
        return []
