"""What matplotlib 3.10 lost of 3.3 to 3.9, given back: names, ways to give arguments, lists that could be changed."""

from __future__ import annotations

import functools
import importlib
import inspect

from languages import imports
from languages.imports import when_imported
from languages.signatures import by_place, renamed, set_missing, without

OLD_SETTINGS = (
    "text.latex.unicode", "text.latex.preview", "savefig.frameon", "savefig.jpeg_quality", "verbose.level",
    "mathtext.fallback_to_cm", "keymap.all_axes", "animation.avconv_path", "animation.avconv_args", "datapath",
)  # fmt: skip
OLD_SAVING = ("papertype", "frameon", "quality", "optimize", "progressive")


def give_back() -> None:
    """Now for what is imported, later for what will be."""
    changes = {
        "matplotlib": matplotlib, "matplotlib.pyplot": pyplot, "mpl_toolkits.mplot3d.axes3d": axes3d,
        "matplotlib.mlab": mlab, "matplotlib.patches": patches, "matplotlib.scale": scale, "matplotlib.ticker": ticker,
        "matplotlib.dates": dates, "matplotlib.offsetbox": offsetbox, "matplotlib.widgets": widgets,
        "matplotlib.cbook": cbook, "mpl_toolkits.axes_grid1.axes_grid": axes_grid, "matplotlib.lines": lines,
        "matplotlib.font_manager": font_manager,
    }  # fmt: skip
    for name, change in changes.items():
        when_imported(name, change)
    imports.keep_names(MOVED)


MOVED = {  # modules that have another name today
    "matplotlib.axes._subplots": ("matplotlib.axes",),
    "matplotlib.tri.triangulation": ("matplotlib.tri",),
    "mpl_toolkits.axes_grid": ("mpl_toolkits.axes_grid1",),
    "mpl_toolkits.axes_grid.inset_locator": ("mpl_toolkits.axes_grid1.inset_locator",),
    "mpl_toolkits.axes_grid.axes_divider": ("mpl_toolkits.axes_grid1.axes_divider",),
    "mpl_toolkits.axes_grid.anchored_artists": ("mpl_toolkits.axes_grid1.anchored_artists", "matplotlib.offsetbox"),
}


def matplotlib(mpl) -> None:
    import matplotlib.cbook
    import matplotlib.style
    from matplotlib import axis, cm, colorbar, colors, contour, legend
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure, FigureBase

    library = matplotlib.style.library
    for name in [name for name in library if name.startswith("seaborn-v0_8")]:
        library.setdefault(name.replace("-v0_8", ""), library[name])
    mpl.style.use = mpl.style.core.use = of_science(mpl.style.core.use)
    set_missing(cm, get_cmap=lambda name=None, lut=None: mpl.pyplot.get_cmap(name, lut), register_cmap=register_cmap)
    set_missing(axis.Tick, label=property(lambda self: self.label1))
    set_missing(legend.Legend, legendHandles=property(lambda self: self.legend_handles))
    set_missing(colorbar.Colorbar, draw_all=lambda self: self._draw_all())
    set_missing(contour.ContourSet, collections=property(collections_of_levels))
    set_missing(matplotlib.cbook.GrouperView, join=lambda self, *axes: self._grouper.join(*axes))
    set_missing(Axes, hold=lambda self, on=None: None, ishold=lambda self: True)
    set_missing(Axes, set_color_cycle=lambda self, colours: self.set_prop_cycle(color=colours))
    for owner in (axis.Axis, Axes):
        owner.grid = renamed(owner.grid, b="visible")
    set_missing(FigureCanvasAgg, tostring_rgb=lambda self: array_of(self)[..., :3].tobytes())
    set_missing(FigureCanvasAgg, set_window_title=lambda self, title: None)
    set_missing(cm, cmap_d=mpl.colormaps)
    for owner in (Axes, FigureBase, Figure):
        for name, method in list(vars(owner).items()):
            if inspect.isfunction(method) and not name.startswith("_"):
                setattr(owner, name, by_place(method))
    legend.Legend.__init__ = by_place(legend.Legend.__init__)
    set_missing(importlib.import_module("matplotlib.axes"), AxesSubplot=Axes)
    Axes.annotate = renamed(Axes.annotate, s="text")
    Axes.stem = without(Axes.stem, "use_line_collection")
    Axes.hist, Axes.hist2d = (renamed(method, normed="density") for method in (Axes.hist, Axes.hist2d))
    Axes.bar = of_left(Axes.bar)
    Axes.legend, FigureBase.legend = with_place(Axes.legend), with_place(FigureBase.legend)
    FigureBase.add_subplot = renamed(FigureBase.add_subplot, axisbg="facecolor", axis_bgcolor="facecolor")
    FigureBase.add_axes = renamed(FigureBase.add_axes, axisbg="facecolor", axis_bgcolor="facecolor")
    for name in ("is_first_row", "is_last_row", "is_first_col", "is_last_col"):
        set_missing(Axes, **{name: lambda self, name=name: getattr(self.get_subplotspec(), name)()})
    set_missing(
        Axes,
        get_geometry=lambda self: get_place(self.get_subplotspec()),
        change_geometry=lambda self, *place: self.set_subplotspec(self.figure.add_gridspec(*place[:2])[place[2] - 1]),
        set_axis_bgcolor=Axes.set_facecolor, get_axis_bgcolor=Axes.get_facecolor,
    )  # fmt: skip
    set_missing(colors, DivergingNorm=colors.TwoSlopeNorm)
    set_missing(colorbar.Colorbar, set_clim=lambda self, *limits: self.mappable.set_clim(*limits))
    set_missing(Artist, do_3d_projection=lambda self, renderer=None: 0)
    change_lists_of_artists(Axes)
    Figure.savefig = without(Figure.savefig, *OLD_SAVING)
    FigureBase.gca = current_axes(FigureBase.gca)
    FigureBase.colorbar = colorbar_of_free_mappable(FigureBase.colorbar)
    set_setting = mpl.RcParams.__setitem__

    def set_known(self, key, value) -> None:
        if key == "text.latex.preamble" and isinstance(value, (list, tuple)):
            value = "\n".join(value)
        if key not in OLD_SETTINGS:
            set_setting(self, key, value)

    mpl.RcParams.__setitem__ = set_known


def pyplot(plt) -> None:
    """Its functions were made from the methods' signatures; those that changed here are made anew."""
    from matplotlib import cm

    set_missing(plt, register_cmap=cm.register_cmap, hold=lambda on=None: None, ishold=lambda: True)
    plt.stem = without(plt.stem, "use_line_collection")
    plt.gca = lambda **options: plt.gcf().gca(**options)
    plt.grid = renamed(plt.grid, b="visible")
    plt.annotate = renamed(plt.annotate, s="text")
    for name, function in list(vars(plt).items()):
        if inspect.isfunction(function) and not name.startswith("_") and function.__module__ == plt.__name__:
            setattr(plt, name, by_place(function))
    plt.hist, plt.hist2d = (renamed(function, normed="density") for function in (plt.hist, plt.hist2d))
    plt.bar = of_left(plt.bar)
    plt.subplot = renamed(plt.subplot, axisbg="facecolor", axis_bgcolor="facecolor")
    plt.axes = renamed(plt.axes, axisbg="facecolor", axis_bgcolor="facecolor")


def get_place(spec) -> tuple[int, int, int]:
    """Rows, columns, and the number of the place, from 1."""
    return *spec.get_gridspec().get_geometry(), spec.num1 + 1


def array_of(canvas):
    import numpy as np

    return np.asarray(canvas.buffer_rgba())


def register_cmap(name=None, cmap=None, *, override_builtin=False) -> None:
    import matplotlib

    name = name or cmap.name
    if name not in matplotlib.colormaps._builtin_cmaps:  # which stay as they are
        matplotlib.colormaps.register(cmap, name=name, force=True)


def current_axes(gca):
    """`figure.gca(projection="3d")` made such axes, where the current ones were others."""

    def call(self, **options):
        if self.axes and gca(self).name == options.get("projection", gca(self).name):
            return gca(self)
        return self.add_subplot(**options) if options else gca(self)

    return call


def colorbar_of_free_mappable(colorbar):
    """A mappable that lies in no axes took its room from the current ones."""

    @functools.wraps(colorbar)
    def call(self, mappable, cax=None, ax=None, **options):
        if cax is None and ax is None and getattr(mappable, "axes", None) is None:
            ax = self.gca()
        return colorbar(self, mappable, cax=cax, ax=ax, **options)

    return call


def collections_of_levels(contours) -> list:
    """Contours were a collection for each level, of lines or of areas; they become so when asked for."""
    from matplotlib.collections import LineCollection, PathCollection

    if not hasattr(contours, "levels_apart"):
        contours.set_visible(False)
        looks = {
            "facecolors": contours.get_facecolor(),
            "edgecolors": contours.get_edgecolor(),
            "linewidths": contours.get_linewidth(),
            "linestyles": contours.get_linestyle(),
            "antialiaseds": contours.get_antialiased(),
        }
        contours.levels_apart = []
        for level, path in enumerate(contours.get_paths()):
            look = {name: [values[level % len(values)]] if len(values) else "none" for name, values in looks.items()}
            look |= {"transform": contours.get_transform(), "alpha": contours.get_alpha()}
            if contours.filled:
                collection = PathCollection([path], **look)
            else:
                look["colors"] = look.pop("edgecolors")
                del look["facecolors"]
                collection = LineCollection(contours.allsegs[level], **look)
            collection.set(zorder=contours.get_zorder(), label="_nolegend_")
            contours.levels_apart.append(contours.axes.add_collection(collection))
    return contours.levels_apart


def axes3d(module) -> None:
    owner = module.Axes3D
    set_missing(owner, **{f"w_{x}axis": property(lambda self, x=x: getattr(self, f"{x}axis")) for x in "xyz"})
    initialise = owner.__init__

    @functools.wraps(initialise)
    def init(self, figure, *place, auto_add_to_figure=True, **options):
        initialise(self, figure, *place, **options)
        if not place and auto_add_to_figure and self not in figure.axes:  # `Axes3D(figure)` alone put them there
            figure.add_axes(self)

    owner.__init__ = init
    draw = owner.draw

    def draw_with_matrix(self, renderer) -> None:
        renderer.M = self.get_proj()  # arrows in three dimensions, which everybody writes alike, look there
        draw(self, renderer)

    owner.draw = draw_with_matrix


def mlab(module) -> None:
    import numpy as np

    def normpdf(x, mu=0.0, sigma=1.0):
        return np.exp(-0.5 * ((x - mu) / sigma) ** 2) / (sigma * np.sqrt(2 * np.pi))

    def bivariate_normal(X, Y, sigmax=1.0, sigmay=1.0, mux=0.0, muy=0.0, sigmaxy=0.0):
        x, y, rho = (X - mux) / sigmax, (Y - muy) / sigmay, sigmaxy / (sigmax * sigmay)
        z = (x**2 + y**2 - 2 * rho * x * y) / (1 - rho**2)
        return np.exp(-z / 2) / (2 * np.pi * sigmax * sigmay * np.sqrt(1 - rho**2))

    set_missing(module, normpdf=normpdf, bivariate_normal=bivariate_normal)


def of_science(use):
    """SciencePlots' styles were there without an import of it."""

    @functools.wraps(use)
    def call(style):
        try:
            use(style)
        except OSError:
            if "science" not in str(style):
                raise
            importlib.import_module("scienceplots")
            use(style)

    return call


def of_left(bar):
    """`bar(left=.., height=..)`: bars were placed by their left ends, whose default was the middle from 2.0 on."""

    @functools.wraps(bar)
    def call(*arguments, **options):
        if "left" in options and "x" not in options:
            options["x"] = options.pop("left")
        return bar(*arguments, **options)

    return call


def with_place(legend):
    """`legend(handles, labels, "upper right")`"""

    @functools.wraps(legend)
    def call(self, *arguments, **options):
        if len(arguments) == 3:
            options.setdefault("loc", arguments[2])
        return legend(self, *arguments[:2], **options)

    return call


def change_lists_of_artists(owner) -> None:
    """`ax.lines` and its like were lists: `ax.lines.pop(0)`, `ax.patches = []`."""

    def pop(self, at=-1):
        artist = self[at]
        artist.remove()
        return artist

    def clear(self) -> None:
        for artist in self:
            artist.remove()

    def extend(self, artists) -> None:
        for artist in artists:
            self._axes.add_artist(artist)

    def delete(self, at) -> None:
        for artist in self[at] if isinstance(at, slice) else [self[at]]:
            artist.remove()

    set_missing(
        owner.ArtistList, append=lambda self, artist: self._axes.add_artist(artist), pop=pop, clear=clear,
        extend=extend, remove=lambda self, artist: artist.remove(), __delitem__=delete,
        insert=lambda self, at, artist: self._axes.add_artist(artist),
    )  # fmt: skip

    def made_anew(self, artists, name: str) -> None:
        kept = list(artists)
        for artist in getattr(self, name):
            if artist not in kept:
                artist.remove()
        for artist in kept:
            if artist not in self._children:
                self.add_artist(artist)

    for base in owner.__mro__:
        for name in ("artists", "collections", "images", "lines", "patches", "tables", "texts"):
            if isinstance(have := vars(base).get(name), property):
                change = functools.partial(made_anew, name=name)
                setattr(base, name, have.setter(lambda self, artists, change=change: change(self, artists)))


def patches(module) -> None:
    for kind in list(vars(module).values()):
        if inspect.isclass(kind) and issubclass(kind, module.Patch) and "__init__" in vars(kind):
            kind.__init__ = by_place(kind.__init__)
    shadow = module.Shadow.__init__

    def init(self, patch, ox, oy, *looks, **options):
        """Its fourth was a dictionary of properties."""
        shadow(self, patch, ox, oy, **(looks[0] or {} if looks else {}), **options.pop("props", {}), **options)

    module.Shadow.__init__ = functools.wraps(shadow)(init)


def scale(module) -> None:
    """`set_xscale("log", basex=2)`"""
    old = {"base": "base", "nonpos": "nonpositive", "subs": "subs", "linthresh": "linthresh", "linscale": "linscale"}
    names = {f"{name}{x}": new for name, new in old.items() for x in "xy"}
    for kind in (module.LogScale, module.SymmetricalLogScale):
        kind.__init__ = renamed(kind.__init__, **names)


def ticker(module) -> None:
    class IndexFormatter(module.Formatter):
        """Labels of the places 0, 1 .."""

        def __init__(self, labels):
            self.labels = labels

        def __call__(self, x, pos=None):
            at = int(x + 0.5)
            return self.labels[at] if 0 <= at < len(self.labels) else ""

    set_missing(module, IndexFormatter=IndexFormatter)


def dates(module) -> None:
    import numpy as np

    days = (np.datetime64("1970-01-01") - np.datetime64(module.get_epoch())) / np.timedelta64(1, "D")
    set_missing(module, epoch2num=lambda seconds: np.asarray(seconds) / 86400 + days)
    set_missing(module, num2epoch=lambda number: (np.asarray(number) - days) * 86400)


def offsetbox(module) -> None:
    module.TextArea.__init__ = without(module.TextArea.__init__, "minimumdescent")


def widgets(module) -> None:
    for kind in (module.SpanSelector, module.RectangleSelector, module.EllipseSelector):
        kind.__init__ = without(renamed(kind.__init__, rectprops="props", lineprops="props"), "drawtype", "maxdist")
    set_missing(module.RadioButtons, circles=[])
    set_missing(module.CheckButtons, rectangles=[], lines=[])


def cbook(module) -> None:
    """`get_sample_data("goog.npz", np_load=True)` is what it does anyway."""
    module.get_sample_data = without(module.get_sample_data, "np_load")


def axes_grid(module) -> None:
    module.Grid.__init__ = without(module.Grid.__init__, "add_all")
    module.ImageGrid.__init__ = without(module.ImageGrid.__init__, "add_all")
    toggle = lambda self, shown: self.axis[self.orientation].toggle(ticklabels=shown, label=shown)  # noqa: E731
    set_missing(module.CbarAxesBase, toggle_label=toggle)


def lines(module) -> None:
    """One point could be set without a list: `line.set_data(x, y)`, as animations do."""
    for name in ("set_xdata", "set_ydata"):
        setattr(module.Line2D, name, of_one_point(getattr(module.Line2D, name)))


def of_one_point(method):
    @functools.wraps(method)
    def call(self, values):
        return method(self, values if hasattr(values, "__len__") or hasattr(values, "__iter__") else [values])

    return call


def font_manager(module) -> None:
    set_missing(module, _rebuild=lambda: None)
