"""Names that newer versions of the libraries lost, given back: a program that was right when it was written is right.

The data sets of the field were made with matplotlib 3.4 to 3.10, numpy 1 and 2, pandas 1 and 2; the environment of
programs (requirements-render.txt) has one version of each. What another version only warned about, and what can be told
from the call alone, is put back as it was; nothing that means something else today is touched.
"""

from __future__ import annotations

import datetime
import functools
import math
import pickle
import queue
import sys
import threading

from languages import imports, old_matplotlib
from languages.imports import when_imported
from languages.repeatable import set_in_type
from languages.signatures import renamed, revalued, set_missing, with_names, with_positions, without


def give_back() -> None:
    """Now for what is imported, later for what will be. Called once, in the fork server."""
    changes = {
        "numpy": numpy, "pandas": pandas, "scipy": scipy, "scipy.integrate": integrate, "scipy.misc": misc,
        "scipy.signal": signal, "scipy.interpolate": interpolate, "scipy.stats": stats, "networkx": networkx,
        "seaborn": seaborn, "PIL.ImageDraw": pillow, "sklearn.manifold": manifold, "sklearn.metrics": sklearn_metrics,
        "sklearn.cluster": cluster, "sklearn.preprocessing": preprocessing, "sklearn.inspection": inspection,
        "sklearn.feature_extraction.text": feature_extraction, "sklearn.linear_model": linear_model,
        "sklearn.ensemble": ensemble, "sklearn.tree": tree, "locale": locale,
        "statsmodels.tsa.seasonal": seasonal, "multiprocessing": processes, "concurrent.futures": executors,
        "rdkit.Chem.Draw": rdkit_draw,
    }  # fmt: skip
    old_matplotlib.give_back()
    imports.keep_names(MOVED)
    for name, change in changes.items():
        when_imported(name, change)


MOVED = {  # modules that have another name today
    "sklearn.datasets.samples_generator": ("sklearn.datasets",),
    "sklearn.externals.joblib": ("joblib",),
    "sklearn.cross_validation": ("sklearn.model_selection",),
    "sklearn.grid_search": ("sklearn.model_selection",),
    "indigo_renderer": ("indigo.renderer",),
    "plotly.plotly": ("plotly.offline",),
}
PROGRAM = "program.py"  # the file name that the code of a program has


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
        asfarray=lambda a, dtype=float: np.asarray(a, dtype), unicode=str, long=int, int0=np.intp, uint0=np.uintp,
        asscalar=lambda a: a.item(), find_common_type=lambda arrays, scalars: np.result_type(*arrays, *scalars),
    )  # fmt: skip
    np.histogram = renamed(np.histogram, normed="density")
    array = np.array

    @functools.wraps(array)
    def as_array(*arguments, **options):
        if options.get("copy") is False:  # it meant "only if needed"
            options["copy"] = None
        try:
            return array(*arguments, **options)
        except ValueError as error:  # rows of unequal lengths were an array of lists, if a program itself makes it
            of_a_program = sys._getframe(1).f_code.co_filename == PROGRAM
            if not of_a_program or "inhomogeneous" not in str(error) or len(arguments) > 1 or "dtype" in options:
                raise
            return array(*arguments, dtype=object, **options)

    np.array = as_array
    set_in_type(np.ndarray, "ptp", lambda self, axis=None, out=None, **options: np.ptp(self, axis, out, **options))
    set_in_type(np.ndarray, "itemset", lambda self, *at: self.__setitem__(at[:-1] or (0,) * self.ndim, at[-1]))


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
    set_missing(pd.io.json, json_normalize=pd.json_normalize)
    pd.set_option = of_full_names(pd.set_option)
    for owner in (pd.DataFrame, pd.Series):
        owner.set_axis = in_place(owner.set_axis)
    pd.plotting.PlotAccessor.__call__ = without(pd.plotting.PlotAccessor.__call__, "sort_columns")


def in_place(set_axis):
    """`frame.set_axis(labels, axis=1, inplace=True)`"""

    @functools.wraps(set_axis)
    def call(self, labels, *, axis=0, inplace=False, **options):
        if not inplace:
            return set_axis(self, labels, axis=axis, **options)
        setattr(self, "columns" if axis in (1, "columns") else "index", labels)

    return call


def of_full_names(set_option):
    """`set_option("precision", 2)` was one option's name; it is a part of two today."""

    def call(*names_and_values):
        full = [f"display.{part}" if part == "precision" else part for part in names_and_values]
        return set_option(*full)

    return call


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
    set_missing(module, hanning=module.windows.hann, ricker=ricker, cwt=cwt)


def ricker(points: int, a: float):
    """The Mexican hat of width `a`, at so many points."""
    import numpy as np

    x = (np.arange(points) - (points - 1) / 2) / a
    return 2 / (np.sqrt(3 * a) * np.pi**0.25) * (1 - x**2) * np.exp(-(x**2) / 2)


def cwt(data, wavelet, widths, dtype=None, **options):
    """A continuous wavelet transform: a row of values for each width."""
    import numpy as np

    waves = [np.conj(wavelet(min(10 * width, len(data)), width, **options)[::-1]) for width in widths]
    return np.array([np.convolve(data, wave, "same") for wave in waves], dtype)


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
    module.mean_squared_error = with_root(module.mean_squared_error)
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


def with_root(mean_squared_error):
    """`mean_squared_error(.., squared=False)`"""

    @functools.wraps(mean_squared_error)
    def call(*arguments, squared=True, **options):
        error = mean_squared_error(*arguments, **options)
        return error if squared else error**0.5

    return call


def feature_extraction(module) -> None:
    for kind in (module.CountVectorizer, module.TfidfVectorizer):
        set_missing(kind, get_feature_names=lambda self: self.get_feature_names_out().tolist())


def inspection(module) -> None:
    set_missing(module, plot_partial_dependence=module.PartialDependenceDisplay.from_estimator)


def linear_model(module) -> None:
    for name in ("LinearRegression", "Ridge", "Lasso", "ElasticNet", "RidgeCV", "LassoCV", "ElasticNetCV"):
        kind = getattr(module, name)
        kind.__init__ = without(kind.__init__, "normalize")
    logistic = {"log": "log_loss", "squared_loss": "squared_error"}
    for kind in (module.SGDClassifier, module.SGDRegressor):
        kind.__init__ = revalued(kind.__init__, loss=logistic)


CRITERIA = {"mse": "squared_error", "mae": "absolute_error"}
LOSSES = {"ls": "squared_error", "lad": "absolute_error", "deviance": "log_loss"}


def tree(module) -> None:
    most = {module.DecisionTreeClassifier: "sqrt", module.DecisionTreeRegressor: None}
    for kind, features in most.items():
        kind.__init__ = revalued(kind.__init__, criterion=CRITERIA, max_features={"auto": features})


def ensemble(module) -> None:
    most = {
        "RandomForestClassifier": "sqrt", "ExtraTreesClassifier": "sqrt", "GradientBoostingClassifier": "sqrt",
        "RandomForestRegressor": None, "ExtraTreesRegressor": None, "GradientBoostingRegressor": None,
    }  # fmt: skip
    for name, features in most.items():
        kind = getattr(module, name)
        features = 1.0 if features is None else features
        kind.__init__ = revalued(kind.__init__, criterion=CRITERIA, loss=LOSSES, max_features={"auto": features})
    for name in ("AdaBoostClassifier", "AdaBoostRegressor", "BaggingClassifier", "BaggingRegressor"):
        kind = getattr(module, name)
        kind.__init__ = revalued(renamed(kind.__init__, base_estimator="estimator"), algorithm={"SAMME.R": None})


def seasonal(module) -> None:
    module.seasonal_decompose = renamed(module.seasonal_decompose, freq="period")


def networkx(nx) -> None:
    kind = lambda G: "DiGraph" if G.is_directed() else "Graph"  # noqa: E731
    set_missing(
        nx, info=lambda G, n=None: f"{kind(G)} with {len(G)} nodes and {G.number_of_edges()} edges",
        from_numpy_matrix=nx.from_numpy_array, to_numpy_matrix=nx.to_numpy_array, OrderedGraph=nx.Graph,
        OrderedDiGraph=nx.DiGraph, from_scipy_sparse_matrix=nx.from_scipy_sparse_array,
        to_scipy_sparse_matrix=nx.to_scipy_sparse_array, from_pandas_dataframe=nx.from_pandas_edgelist,
        random_tree=lambda n, seed=None, **_: nx.random_labeled_tree(n, seed=seed),
        write_gpickle=write_pickle, read_gpickle=read_pickle,
        connected_component_subgraphs=lambda G: (G.subgraph(c).copy() for c in nx.connected_components(G)),
    )  # fmt: skip
    set_missing(
        nx.Graph, node=property(lambda self: self.nodes), add_path=nx.add_path, add_cycle=nx.add_cycle,
        add_star=nx.add_star, nodes_iter=lambda self, data=False: iter(self.nodes(data=data)),
        edges_iter=lambda self, *nodes, **options: iter(self.edges(*nodes, **options)),
    )  # fmt: skip


def write_pickle(G, path, protocol=pickle.HIGHEST_PROTOCOL) -> None:
    with open(path, "wb") as file:
        pickle.dump(G, file, protocol)


def read_pickle(path):
    with open(path, "rb") as file:
        return pickle.load(file)


def seaborn(sns) -> None:
    plots = "barplot boxplot violinplot stripplot swarmplot pointplot boxenplot countplot scatterplot lineplot kdeplot"
    for name in [*plots.split(), "residplot", "catplot", "relplot"]:
        setattr(sns, name, with_positions(getattr(sns, name), "x", "y", "hue", "data"))
    for name in ("regplot", "lmplot", "jointplot"):
        setattr(sns, name, with_positions(getattr(sns, name), "x", "y", "data", "hue"))
    for name in ("lmplot", "pairplot", "jointplot", "catplot"):
        setattr(sns, name, renamed(getattr(sns, name), size="height"))
    for kind in (sns.FacetGrid, sns.PairGrid, sns.JointGrid):
        kind.__init__ = renamed(kind.__init__, size="height")
    for name in ("stripplot", "swarmplot"):
        setattr(sns, name, renamed(getattr(sns, name), split="dodge"))
    sns.jointplot = without(sns.jointplot, "stat_func")
    set_missing(sns.JointGrid, annotate=lambda self, *_, **__: self)
    points = functools.partial(sns.catplot, kind="point")
    set_missing(sns, factorplot=points)


def pillow(module) -> None:
    from PIL import Image, ImageFont

    def textsize(self, text, font=None, *arguments, **options):
        left, top, right, bottom = self.textbbox((0, 0), text, font, *arguments, **options)
        return right, bottom

    set_missing(module.ImageDraw, textsize=textsize)
    set_missing(ImageFont.FreeTypeFont, getsize=lambda self, text, *_, **__: self.getbbox(text)[2:])
    set_missing(Image, ANTIALIAS=Image.Resampling.LANCZOS, LINEAR=Image.Resampling.BILINEAR)


# ---- processes -------------------------------------------------------------------------------------------------------


def processes(module) -> None:
    """No program starts processes here; threads do the same work for a picture."""
    from multiprocessing import context, pool

    base = context.BaseContext
    base.Lock, base.RLock = lambda self: threading.Lock(), lambda self: threading.RLock()
    base.Queue, base.JoinableQueue = lambda self, *size: queue.Queue(*size), lambda self, *size: queue.Queue(*size)
    base.Event, base.Pool = lambda self: threading.Event(), lambda self, *some, **more: pool.ThreadPool(*some, **more)
    for name in ("Lock", "RLock", "Queue", "JoinableQueue", "Event", "Pool"):
        setattr(module, name, functools.partial(getattr(base, name), context._default_context))
    for kind in (module, context.DefaultContext, context.ForkContext, context.SpawnContext, context.ForkServerContext):
        kind.Process = RunAtOnce


class RunAtOnce(threading.Thread):
    """A process that is a thread, and over when `start` is: what it draws is drawn in order."""

    exitcode, pid = 0, 1

    def start(self) -> None:
        super().start()
        self.join()

    def terminate(self) -> None:
        """It is over."""


def executors(module) -> None:
    module.ProcessPoolExecutor = without(module.ThreadPoolExecutor, "mp_context", "max_tasks_per_child")


# ---- locales, rdkit --------------------------------------------------------------------------------------------------


def locale(module) -> None:
    """Of another country's names and numbers, which this machine need not have, the plain ones are left."""
    setlocale = module.setlocale

    @functools.wraps(setlocale)
    def call(category, locale=None):
        try:
            return setlocale(category, locale)
        except module.Error:
            return setlocale(category)

    module.setlocale = call


def rdkit_draw(module) -> None:
    from rdkit.Chem.Draw.MolDrawing import DrawingOptions

    set_missing(module, DrawingOptions=DrawingOptions, MolToImageFile=module.MolToFile)
