"""Names that newer versions of the libraries lost, given back: a program that was right when it was written is right.

The data sets of the field were made with matplotlib 3.4 to 3.10, numpy 1 and 2, pandas 1 and 2; the environment of
programs (requirements-render.txt) has one version of each. What another version only warned about, and what can be told
from the call alone, is put back as it was; nothing that means something else today is touched.
"""

from __future__ import annotations

import datetime
import functools
import math
import sys

from languages.imports import when_imported
from languages.repeatable import set_in_type


def give_back() -> None:
    """Now for what is imported, later for what will be. Called once, in the fork server."""
    changes = {
        "numpy": numpy, "matplotlib": matplotlib, "matplotlib.pyplot": pyplot, "mpl_toolkits.mplot3d.axes3d": axes3d,
        "matplotlib.mlab": mlab, "pandas": pandas, "scipy": scipy, "scipy.integrate": integrate, "scipy.misc": misc,
        "scipy.signal": signal, "scipy.interpolate": interpolate, "scipy.stats": stats, "networkx": networkx,
        "seaborn": seaborn, "PIL.ImageDraw": pillow, "sklearn.manifold": manifold, "sklearn.metrics": sklearn_metrics,
        "sklearn.cluster": cluster, "sklearn.preprocessing": preprocessing,
    }  # fmt: skip
    for name, change in changes.items():
        when_imported(name, change)


def set_missing(owner, **values) -> None:
    """Set attributes that are not there."""
    for name, value in values.items():
        if name not in vars(owner):
            setattr(owner, name, value)


def without(function, *names: str):
    """`function`, for which keyword arguments of these names are dropped."""

    @functools.wraps(function)
    def call(*arguments, **options):
        return function(*arguments, **{name: value for name, value in options.items() if name not in names})

    return call


def renamed(function, **names: str):
    """`function`, whose keyword arguments had other names: old=new."""

    @functools.wraps(function)
    def call(*arguments, **options):
        return function(*arguments, **{names.get(name, name): value for name, value in options.items()})

    return call


# ---- numpy -----------------------------------------------------------------------------------------------------------


def numpy(np) -> None:
    set_missing(
        np, Inf=np.inf, Infinity=np.inf, infty=np.inf, PINF=np.inf, NINF=-np.inf, NaN=np.nan, NAN=np.nan, PZERO=0.0,
        NZERO=-0.0, float_=np.float64, complex_=np.complex128, cfloat=np.complex128, longfloat=np.longdouble,
        singlecomplex=np.complex64, string_=np.bytes_, unicode_=np.str_, int=int, float=float, complex=complex,
        object=object, str=str, product=np.prod, cumproduct=np.cumprod, sometrue=np.any, alltrue=np.all,
        round_=np.round, mat=np.asmatrix, math=math, msort=lambda a: np.sort(a, axis=0),
        trapz=getattr(np, "trapezoid", None), in1d=np.isin, row_stack=np.vstack,
        VisibleDeprecationWarning=np.exceptions.VisibleDeprecationWarning, RankWarning=np.exceptions.RankWarning,
        ComplexWarning=np.exceptions.ComplexWarning, AxisError=np.exceptions.AxisError, bool8=np.bool_,
        asfarray=lambda a, dtype=float: np.asarray(a, dtype),
    )  # fmt: skip
    array = np.array

    @functools.wraps(array)
    def as_array(*arguments, **options):
        if options.get("copy") is False:  # it meant "only if needed"
            options["copy"] = None
        return array(*arguments, **options)

    np.array = as_array
    set_in_type(np.ndarray, "ptp", lambda self, axis=None, out=None, **options: np.ptp(self, axis, out, **options))
    set_in_type(np.ndarray, "itemset", lambda self, *at: self.__setitem__(at[:-1] or (0,) * self.ndim, at[-1]))


# ---- matplotlib ------------------------------------------------------------------------------------------------------

OLD_SETTINGS = ("text.latex.unicode", "text.latex.preview", "savefig.frameon", "savefig.jpeg_quality", "verbose.level")
OLD_SAVING = ("papertype", "frameon", "quality", "optimize", "progressive")


def matplotlib(mpl) -> None:
    import matplotlib.cbook
    import matplotlib.style
    from matplotlib import axis, cm, colorbar, contour, legend
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure, FigureBase

    library = matplotlib.style.library
    for name in [name for name in library if name.startswith("seaborn-v0_8")]:
        library.setdefault(name.replace("-v0_8", ""), library[name])
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
    Axes.annotate = renamed(Axes.annotate, s="text")
    Axes.stem = without(Axes.stem, "use_line_collection")
    Axes.hist = renamed(Axes.hist, normed="density")
    Figure.savefig = without(Figure.savefig, *OLD_SAVING)
    FigureBase.gca = current_axes(FigureBase.gca)
    FigureBase.colorbar = colorbar_of_free_mappable(FigureBase.colorbar)
    set_setting = mpl.RcParams.__setitem__
    mpl.RcParams.__setitem__ = lambda self, key, value: key in OLD_SETTINGS or set_setting(self, key, value)


def pyplot(plt) -> None:
    """Its functions were made from the methods' signatures; those that changed here are made anew."""
    from matplotlib import cm

    set_missing(plt, register_cmap=cm.register_cmap, hold=lambda on=None: None, ishold=lambda: True)
    plt.stem = without(plt.stem, "use_line_collection")
    plt.gca = lambda **options: plt.gcf().gca(**options)
    plt.grid = renamed(plt.grid, b="visible")
    plt.hist = renamed(plt.hist, normed="density")


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
    """Contours were a collection for each level; they become so when asked for."""
    from matplotlib.collections import PathCollection

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
            collection = PathCollection([path], transform=contours.get_transform(), alpha=contours.get_alpha(), **look)
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


def mlab(module) -> None:
    import numpy as np

    def normpdf(x, mu=0.0, sigma=1.0):
        return np.exp(-0.5 * ((x - mu) / sigma) ** 2) / (sigma * np.sqrt(2 * np.pi))

    def bivariate_normal(X, Y, sigmax=1.0, sigmay=1.0, mux=0.0, muy=0.0, sigmaxy=0.0):
        x, y, rho = (X - mux) / sigmax, (Y - muy) / sigmay, sigmaxy / (sigmax * sigmay)
        z = (x**2 + y**2 - 2 * rho * x * y) / (1 - rho**2)
        return np.exp(-z / 2) / (2 * np.pi * sigmax * sigmay * np.sqrt(1 - rho**2))

    set_missing(module, normpdf=normpdf, bivariate_normal=bivariate_normal)


# ---- pandas ----------------------------------------------------------------------------------------------------------

STATISTICS = ("corr", "cov", "mean", "median", "std", "var", "sem", "skew", "kurt", "quantile")


def pandas(pd) -> None:
    from pandas.core.groupby import DataFrameGroupBy

    def append(self, other, ignore_index=False, verify_integrity=False, sort=False):
        if isinstance(other, dict):
            other = pd.Series(other)
        if isinstance(other, pd.Series) and isinstance(self, pd.DataFrame):
            other = other.to_frame().T.infer_objects()
        others = other if isinstance(other, (list, tuple)) else [other]
        others = [pd.DataFrame([o]) if isinstance(o, dict) else o for o in others]
        return pd.concat([self, *others], ignore_index=ignore_index, verify_integrity=verify_integrity, sort=sort)

    for owner in (pd.Series, pd.DataFrame):
        set_missing(owner, iteritems=lambda self: self.items(), append=append)
        set_missing(owner, mad=lambda self, axis=0: (self - self.mean(axis)).abs().mean(axis))
    set_missing(pd, datetime=datetime.datetime, np=sys.modules["numpy"])
    pd.DataFrame.drop = with_axis(pd.DataFrame.drop)
    pd.DataFrame.pivot = with_names(pd.DataFrame.pivot, "index", "columns", "values")
    for owner in (pd.DataFrame, pd.Series):
        owner.describe = without(owner.describe, "datetime_is_numeric")
        owner.to_csv = renamed(owner.to_csv, line_terminator="lineterminator")
    rising = property(lambda self: self.is_monotonic_increasing)
    set_missing(pd.Series, is_monotonic=rising)
    set_missing(pd.Index, is_monotonic=rising)
    set_missing(pd, Int64Index=pd.Index, UInt64Index=pd.Index, Float64Index=pd.Index)
    pd.date_range = renamed(pd.date_range, closed="inclusive")
    for owner in (pd.DataFrame, DataFrameGroupBy):
        for name in STATISTICS:
            if method := getattr(owner, name, None):
                setattr(owner, name, of_numbers(method))
    for owner in (pd.DataFrame, pd.Series):
        for name in LEVEL_STATISTICS:
            setattr(owner, name, of_levels(getattr(owner, name)))
    set_missing(pd.DataFrame, as_matrix=lambda self: self.to_numpy(), lookup=lookup)
    set_missing(pd.Series, as_matrix=lambda self: self.to_numpy())
    set_missing(pd, scatter_matrix=pd.plotting.scatter_matrix, TimeGrouper=lambda freq: pd.Grouper(freq=freq))
    week = property(lambda self: self.isocalendar().week)
    for owner in (pd.core.indexes.accessors.DatetimeProperties, pd.DatetimeIndex):
        set_missing(owner, week=week, weekofyear=week)
    pd.read_csv = squeezed(without(pd.read_csv, "error_bad_lines", "warn_bad_lines", "prefix"))


LEVEL_STATISTICS = ("sum", "mean", "median", "min", "max", "prod", "count", "std", "var")


def of_levels(method):
    """`frame.sum(level=0)` was a group of each value of that level."""

    @functools.wraps(method)
    def call(self, *arguments, level=None, **options):
        if level is None:
            return method(self, *arguments, **options)
        return getattr(self.groupby(level=level, sort=False), method.__name__)(**options)

    return call


def lookup(frame, rows, columns):
    """One value for each pair of a row's and a column's label."""
    return frame.to_numpy()[frame.index.get_indexer(rows), frame.columns.get_indexer(columns)]


def squeezed(read):
    """`read_csv(.., squeeze=True)` made a series of a single column."""

    @functools.wraps(read)
    def call(*arguments, squeeze=False, **options):
        frame = read(*arguments, **options)
        return frame.squeeze("columns") if squeeze else frame

    return call


def with_axis(drop):
    """`drop(labels, 1)`"""

    @functools.wraps(drop)
    def call(self, labels=None, *place, **options):
        return drop(self, labels, **dict(zip(("axis",), place, strict=False)), **options)

    return call


def with_names(method, *names: str):
    """A method that is told by name today what it was told by place."""

    @functools.wraps(method)
    def call(self, *arguments, **options):
        return method(self, **dict(zip(names, arguments, strict=False)), **options)

    return call


def of_numbers(method):
    """Columns without numbers were left out where they make a statistic impossible."""

    @functools.wraps(method)
    def call(*arguments, **options):
        try:
            return method(*arguments, **options)
        except (TypeError, ValueError):
            if "numeric_only" in options:
                raise
            return method(*arguments, numeric_only=True, **options)

    return call


# ---- scipy, scikit-learn, networkx, seaborn, Pillow ------------------------------------------------------------------


def scipy(module) -> None:
    import numpy as np

    same = "pi sqrt exp log log10 sin cos tan linspace arange array zeros ones polyfit polyval interp mean std"
    set_missing(module, **{name: getattr(np, name) for name in same.split()})


def integrate(module) -> None:
    set_missing(module, simps=module.simpson, trapz=module.trapezoid, cumtrapz=module.cumulative_trapezoid)


def misc(module) -> None:
    import numpy as np
    from scipy import special

    def derivative(func, x0, dx=1.0, n=1, args=(), order=3):
        """Central differences of `order` points."""
        half = order // 2
        points = np.arange(-half, half + 1)
        weights = np.linalg.solve(np.vander(points, increasing=True).T, math.factorial(n) * np.eye(order)[n])
        return sum(w * func(x0 + k * dx, *args) for w, k in zip(weights, points, strict=True)) / dx**n

    set_missing(
        module, derivative=derivative, comb=special.comb, factorial=special.factorial, logsumexp=special.logsumexp
    )


def signal(module) -> None:
    names = "boxcar triang parzen bohman blackman nuttall blackmanharris flattop bartlett hann hamming kaiser gaussian"
    set_missing(module, **{name: getattr(module.windows, name) for name in names.split()})
    set_missing(module, hanning=module.windows.hann)


def interpolate(module) -> None:
    """What says today only that it was removed is a name that is lost, too."""
    import numpy as np

    def interp2d(x, y, z, kind="linear", **_):
        """A function of a grid's x and y, which gives (len(y), len(x)) values; of scattered points through the nearest
        grid."""
        x, y, z = np.asarray(x, float), np.asarray(y, float), np.asarray(z, float)
        degree = {"linear": 1, "cubic": 3, "quintic": 5}[kind]
        if z.size == x.size == y.size:
            grid_x, grid_y = np.unique(x), np.unique(y)
            mesh = np.meshgrid(grid_x, grid_y)
            method = "linear" if degree == 1 else "cubic"
            z = module.griddata((x.ravel(), y.ravel()), z.ravel(), tuple(mesh), method)
            x, y = grid_x, grid_y
        spline = module.RectBivariateSpline(y, x, z.reshape(len(y), len(x)), kx=degree, ky=degree)
        return lambda new_x, new_y: spline(np.sort(np.atleast_1d(new_y)), np.sort(np.atleast_1d(new_x)))

    module.interp2d = interp2d
    set_missing(module, spline=lambda xk, yk, xnew, order=3, **_: module.make_interp_spline(xk, yk, order)(xnew))


def stats(module) -> None:
    set_missing(module, binom_test=lambda x, n=None, p=0.5, **options: module.binomtest(x, n, p, **options).pvalue)
    deviation = lambda x, axis=0: module.median_abs_deviation(x, axis, scale="normal")  # noqa: E731
    set_missing(module, median_absolute_deviation=deviation)


def manifold(module) -> None:
    module.TSNE.__init__ = renamed(module.TSNE.__init__, n_iter="max_iter")


def sklearn_metrics(module) -> None:
    shown = {"plot_confusion_matrix": module.ConfusionMatrixDisplay, "plot_roc_curve": module.RocCurveDisplay}
    shown["plot_precision_recall_curve"] = module.PrecisionRecallDisplay
    set_missing(module, **{name: display.from_estimator for name, display in shown.items()})


def cluster(module) -> None:
    module.AgglomerativeClustering.__init__ = renamed(module.AgglomerativeClustering.__init__, affinity="metric")
    module.KMeans.__init__ = without(module.KMeans.__init__, "n_jobs", "precompute_distances")


def preprocessing(module) -> None:
    encoder = module.OneHotEncoder
    encoder.__init__ = renamed(encoder.__init__, sparse="sparse_output")
    for owner in (encoder, module.PolynomialFeatures):
        set_missing(owner, get_feature_names=lambda self, names=None: self.get_feature_names_out(names))


def networkx(nx) -> None:
    kind = lambda G: "DiGraph" if G.is_directed() else "Graph"  # noqa: E731
    set_missing(
        nx, info=lambda G, n=None: f"{kind(G)} with {len(G)} nodes and {G.number_of_edges()} edges",
        from_numpy_matrix=nx.from_numpy_array, to_numpy_matrix=nx.to_numpy_array, OrderedGraph=nx.Graph,
        OrderedDiGraph=nx.DiGraph, from_scipy_sparse_matrix=nx.from_scipy_sparse_array,
        to_scipy_sparse_matrix=nx.to_scipy_sparse_array, from_pandas_dataframe=nx.from_pandas_edgelist,
        random_tree=lambda n, seed=None, **_: nx.random_labeled_tree(n, seed=seed),
        connected_component_subgraphs=lambda G: (G.subgraph(c).copy() for c in nx.connected_components(G)),
    )  # fmt: skip
    set_missing(
        nx.Graph, node=property(lambda self: self.nodes), add_path=nx.add_path, add_cycle=nx.add_cycle,
        add_star=nx.add_star, nodes_iter=lambda self, data=False: iter(self.nodes(data=data)),
        edges_iter=lambda self, *nodes, **options: iter(self.edges(*nodes, **options)),
    )  # fmt: skip


def seaborn(sns) -> None:
    plots = "barplot boxplot violinplot stripplot swarmplot pointplot boxenplot countplot scatterplot lineplot kdeplot"
    for name in [*plots.split(), "residplot", "catplot", "relplot"]:
        setattr(sns, name, with_positions(getattr(sns, name), "x", "y", "hue", "data"))
    for name in ("regplot", "lmplot", "jointplot"):
        setattr(sns, name, with_positions(getattr(sns, name), "x", "y", "data", "hue"))
    for name in ("lmplot", "pairplot", "jointplot", "catplot"):
        setattr(sns, name, renamed(getattr(sns, name), size="height"))
    set_missing(sns, factorplot=sns.catplot)


def with_positions(function, *names: str):
    """What used to be given by place, in this order."""

    @functools.wraps(function)
    def call(*arguments, **options):
        if len(arguments) > 1 or (arguments and "data" in options):
            options = dict(zip(names, arguments, strict=False)) | options
            arguments = ()
        return function(*arguments, **options)

    return call


def pillow(module) -> None:
    from PIL import Image, ImageFont

    def textsize(self, text, font=None, *arguments, **options):
        left, top, right, bottom = self.textbbox((0, 0), text, font, *arguments, **options)
        return right, bottom

    set_missing(module.ImageDraw, textsize=textsize)
    set_missing(ImageFont.FreeTypeFont, getsize=lambda self, text, *_, **__: self.getbbox(text)[2:])
    set_missing(Image, ANTIALIAS=Image.Resampling.LANCZOS, LINEAR=Image.Resampling.BILINEAR)
