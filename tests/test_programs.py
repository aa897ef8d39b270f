"""Python programs as people and models write them, each kind with the picture that is right for it."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import render
import sandbox
from languages import browser, fonts, python
from pictures import is_blank

pytestmark = pytest.mark.skipif(not sandbox.probe().safe, reason="no sandbox works on this machine")
LACKING = python.packages_of(render.interpreter())[1]
LIMIT = 60.0  # s that no program here comes near
RED, GREEN, BLUE = (255, 0, 0), (0, 128, 0), (0, 0, 255)
HEAD = "import numpy as np\nimport matplotlib.pyplot as plt\n"


@pytest.fixture(scope="module")
def renderer():
    with render.Renderer(workers=1, timeout=LIMIT, cache_mb=0) as shared:
        yield shared


def need(*packages):
    if lacking := [name for name in packages if name in LACKING]:
        pytest.skip(f"the renderer's environment lacks {', '.join(lacking)}")


def draws(renderer, code) -> Image.Image:
    result = renderer.render(code, "python")
    assert result.error is None, result.error
    assert not is_blank(result.image)
    return result.image


def share(image, colour) -> float:
    """Of the pixels, how many have this colour."""
    return float((np.asarray(image) == colour).all(2).mean())


def same(one, other) -> bool:
    return one.size == other.size and not np.any(np.asarray(one) != np.asarray(other))


# ---- the environment -------------------------------------------------------------------------------------------------

LIBRARIES = {  # of the data sets: package -> import
    "matplotlib": "matplotlib", "numpy": "numpy", "pandas": "pandas", "seaborn": "seaborn", "scipy": "scipy",
    "scikit-learn": "sklearn.cluster", "squarify": "squarify", "matplotlib-venn": "matplotlib_venn",
    "networkx": "networkx", "altair": "altair", "plotly": "plotly.express", "mplfinance": "mplfinance",
    "basemap": "mpl_toolkits.basemap", "wordcloud": "wordcloud", "statsmodels": "statsmodels.api",
    "opencv-python-headless": "cv2", "kaleido": "kaleido",
}  # fmt: skip


WORK = {  # what starts more than an import does
    "scikit-learn": "x = sklearn.cluster.KMeans(2, n_init=1).fit(np.random.rand(9, 2)).cluster_centers_",
    "statsmodels": "x = statsmodels.api.OLS([1, 2, 4], [1, 2, 3]).fit().params",
    "wordcloud": "x = np.asarray(wordcloud.WordCloud().generate('many words'))[0]",
    "opencv-python-headless": "x = cv2.GaussianBlur(np.eye(9), (3, 3), 0)[0]",
    "scipy": "import scipy.optimize as o; x = o.minimize(lambda v: (v**2).sum(), [1, 2]).x",
}


@pytest.mark.parametrize("package", LIBRARIES)
def test_a_library_of_the_data_sets_is_there(renderer, package):
    need(package)
    work = WORK.get(package, "x = [1, 2]")
    draws(renderer, f"import {LIBRARIES[package]}\n{HEAD}{work}\nplt.plot(x)\nplt.show()")


def test_requirements_name_every_library_of_the_data_sets():
    wanted = {name.lower() for name in python.REQUIREMENTS.read_text().replace("==", " ").split()}
    assert set(LIBRARIES) <= wanted


def test_doctor_names_what_is_lacking(renderer, monkeypatch, capsys, tmp_path):
    (tmp_path / "wanted.txt").write_text("# a comment\nnumpy==1\nno-such-package-here==2\n")
    monkeypatch.setattr(python, "REQUIREMENTS", tmp_path / "wanted.txt")
    render.doctor(renderer)
    shown = capsys.readouterr().out
    assert "NOT HERE: no-such-package-here" in shown and "packages  numpy" in shown
    assert "Arial" in shown and "Chinese" in shown


def test_a_missing_package_is_named(renderer):
    error = renderer.render("import nothing_like_this\n", "python").error
    assert "No module named 'nothing_like_this'" in error and "pip package nothing_like_this" in error
    error = renderer.render("import Bio.Seq\n", "python").error
    assert "pip package biopython" in error
    error = renderer.render("import matplotlib.finance\n", "python").error
    assert "pip package matplotlib is here, but has no such part" in error
    error = renderer.render("import subprocess\nsubprocess.run(['true'])\n", "python").error
    assert "programs start no other programs" in error


def test_programs_do_not_have_the_trainers_torch(renderer):
    if render.interpreter() == render.sys.executable:
        pytest.skip("programs run in the trainer's own environment here")
    assert "No module named 'torch'" in renderer.render("import torch\n", "python").error


def test_an_interpreter_may_be_named_by_a_relative_path(monkeypatch):
    monkeypatch.chdir(Path(render.interpreter()).parent)
    with render.Renderer(workers=1, timeout=LIMIT, python=f"./{Path(render.interpreter()).name}") as other:
        draws(other, "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()")


def test_an_interpreter_that_cannot_draw_is_refused(tmp_path):
    with pytest.raises(RuntimeError, match="does not start"):
        render.Renderer(python=str(tmp_path / "python"))
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    with pytest.raises(RuntimeError, match=r"lacks Pillow: .*requirements-render\.txt"):
        render.Renderer(python=str(broken))


@pytest.mark.parametrize(
    "code, kind",
    [
        ("import matplotlib.pyplot as plt\nplt.plot([1], color='indigo')", "python"),
        ("import pandas as pd\npd.Series([1]).plot(color='indigo')", "tables"),
        ("import matplotlib.pyplot as plt, seaborn as sns", "tables"),
        ("x = 1; import networkx", "tables"),
        ("from scipy.stats import norm", "tables"),
        ("from rdkit import Chem\nimport io, os.path\nfrom PIL import Image", "molecule"),
        ("from indigo import Indigo", "molecule"),
        ("from rdkit import Chem\nimport matplotlib.pyplot as plt", "tables"),
        ("# rdkit\nprint('import rdkit')", "python"),
        ("def f():\n    from rdkit.Chem import Draw", "molecule"),
    ],
)
def test_the_kind_of_a_program_is_read_from_its_imports(code, kind):
    assert render.kind_of(code, "python") == kind
    assert render.kind_of(code, "svg") == "svg"


# ---- old names -------------------------------------------------------------------------------------------------------

OLD = {
    "numpy": "plt.plot([np.Inf, 1, np.NaN, np.product([2, 2]), np.float_(3), np.alltrue([1])])",
    "copy": "plt.plot(np.array([1, 2], copy=False, dtype=np.float)); plt.title(str(np.arange(4).ptp()))",
    "cmap": "plt.scatter([1, 2], [1, 2], c=plt.cm.get_cmap('jet', 3)([0, 1])); plt.register_cmap('mine', plt.cm.jet)",
    "style": "plt.style.use('seaborn-whitegrid'); plt.plot([1, 2])",
    "stem": "plt.stem([1, 2], [1, 2], use_line_collection=True); plt.grid(b=True)",
    "current": "a = plt.gca(projection='polar'); assert plt.gcf().gca(projection='polar') is a; a.plot([1, 2])",
    "canvas": "plt.plot([1]); c = plt.gcf().canvas; c.draw(); assert len(c.tostring_rgb()) == 640 * 480 * 3",
    "axes": "ax = plt.gcf().gca(projection='3d'); ax.plot([1, 2], [1, 2], [1, 2]); "
            "ax.w_zaxis.set_pane_color((1, 0, 0))",
    "legend": "plt.plot([1, 2], label='a'); plt.legend().legendHandles[0].set_color('r')",
    "tick": "plt.plot([1, 2]); [t.label.set_fontsize(8) for t in plt.gca().yaxis.get_major_ticks()]",
    "colorbar": "plt.plot([1]); plt.gcf().colorbar(plt.cm.ScalarMappable()).draw_all()",
    "shared": "_, (a, b) = plt.subplots(2); a.get_shared_x_axes().join(a, b); a.plot([1, 2])",
    "hist": "plt.hist([1, 2, 2], normed=True)",
    "frames": "import pandas as pd\nd = pd.DataFrame({'a': [1, 2]}).append({'a': 5}, ignore_index=True)\n"
    "assert list(d.a) == [1, 2, 5]\n[plt.bar(i, v) for i, v in d.a.iteritems()]",
    "nuisance": "import pandas as pd\nd = pd.DataFrame({'a': [1, 2], 'b': [2, 1], 'n': ['x', 'y']})\n"
    "assert d.corr().shape == (2, 2)\nd.groupby('n').mean().plot(ax=plt.gca())",
    "periods": "import pandas as pd\npd.Series([1, 2, 3], pd.date_range('2020', periods=3, freq='M')).plot()",
    "scipy": "from scipy.integrate import simps, cumtrapz\nfrom scipy.signal import gaussian\n"
             "from scipy.misc import derivative\n"
    "assert abs(derivative(lambda x: x**3, 2.0, dx=1e-3) - 12) < 1e-3\nplt.plot(gaussian(9, 2)); simps([1, 2])",
    "graphs": "import networkx as nx\ng = nx.from_numpy_matrix(np.eye(2)); nx.draw(g); plt.title(nx.info(g))\n"
    "h = nx.Graph(); h.add_path([1, 2, 3])\n"
    "assert list(h.nodes_iter()) == [1, 2, 3] and len(list(h.edges_iter())) == 2",
    "seaborn": "import seaborn as sns\nsns.barplot(['a', 'b'], [1, 2])",
    "rows": "import pandas as pd, seaborn as sns\nd = pd.DataFrame({'x': [1, 2], 'y': [1, 2], 'h': ['a', 'b']})\n"
    "assert list(d.drop('x', 1)) == ['y', 'h']\nsns.lmplot('x', 'y', d, hue='h', size=3)",
    "levels": "import pandas as pd\nlevels = pd.MultiIndex.from_tuples([(0, 'x'), (0, 'y'), (1, 'x')])\n"
    "d = pd.DataFrame({'a': [1, 2, 3]}, levels)\n"
    "assert list(d.sum(level=0).a) == [3, 3] and d.a.max(level=1)['x'] == 3 and d.sum().a == 6\n"
    "plt.plot(d.as_matrix())",
    "weeks": "import pandas as pd, io\nd = pd.Series(pd.date_range('2020-01-06', periods=2, freq='7D'))\n"
    "assert list(d.dt.week) == list(pd.DatetimeIndex(d).weekofyear) == [2, 3]\n"
    "f = pd.DataFrame({'a': [1, 2], 'b': [3, 4]}); assert list(f.lookup([0, 1], ['b', 'a'])) == [3, 2]\n"
    "plt.plot(pd.read_csv(io.StringIO('a\\n1\\n2'), squeeze=True).tolist())",
    "splines": "from scipy.interpolate import interp2d, spline\n"
    "f = interp2d([0, 1, 2], [0, 1], [[0, 1, 2], [3, 4, 5]])\n"
    "assert np.allclose(f([0.5, 1.5], 0.5), [[2, 3]])\nplt.plot(spline([0, 1, 2, 3], [0, 1, 4, 9], [0.5, 2.5]))",
    "learning": "from sklearn.manifold import TSNE\nfrom sklearn.preprocessing import OneHotEncoder\n"
    "from sklearn.cluster import AgglomerativeClustering\nfrom sklearn.metrics import plot_confusion_matrix\n"
    "from sklearn.tree import DecisionTreeClassifier\nx = np.arange(12.0).reshape(6, 2)\n"
    "AgglomerativeClustering(affinity='euclidean').fit(x)\nTSNE(n_iter=250, perplexity=2).fit(x)\n"
    "assert OneHotEncoder(sparse=False).fit_transform([['a'], ['b']]).shape == (2, 2)\n"
    "y = [0, 1] * 3; plot_confusion_matrix(DecisionTreeClassifier().fit(x, y), x, y)",
    "places": "from matplotlib import patches as p\nax = plt.gca()\n"
    "kinds = [p.Polygon([[0, 0], [1, 0], [1, 1]], True), p.Ellipse((0, 0), 2, 1, 30), p.Rectangle((0, 0), 1, 1, 45),\n"
    "p.RegularPolygon((1, 1), 6, .1), p.Arc((0, 0), 1, 1, 0, 0, 90), p.Wedge((0, 0), 1, 0, 90, .2),\n"
    "p.FancyArrow(0, 0, 1, 1, .02)]\nfor kind in kinds: ax.add_patch(kind)\n"
    "ax.add_patch(p.Shadow(kinds[0], .1, .1, {'color': 'r'})); assert kinds[1].angle == 30 and kinds[3].radius == .1\n"
    "_, axes = plt.subplots(2, 2, True, True); plt.tight_layout(0.5); assert not axes[0, 1].is_first_col()\n"
    "plt.boxplot([[1, 2, 9]], 0, 'rs', 0, 0.75); l = axes[0, 0].legend(*[[], []], 'upper right')",
    "scales": "plt.loglog([1, 2], [1, 4], basex=2, basey=2, nonposx='clip')\n"
    "plt.gca().set_xscale('log', nonposx='mask')\n"
    "plt.yscale('symlog', linthreshy=.1); plt.semilogx([1, 2], [1, 2], basex=3)\n"
    "assert plt.gca().xaxis.get_transform().base == 3",
    "lists": "ax = plt.gca(); a, = ax.plot([1, 2]); ax.plot([2, 1]); ax.plot([2, 2])\n"
    "ax.lines.remove(a); ax.lines.pop(0)\n"
    "assert len(ax.lines) == 1; ax.artists.append(plt.Circle((1, 1), 1)); ax.text(1, 1, 'x'); ax.texts = []\n"
    "del ax.lines[0]; assert not ax.lines and not ax.texts and len(ax.patches) == 1; ax.patches.clear()\n"
    "assert not ax.patches",
    "odds": "from matplotlib.font_manager import _rebuild, fontManager\nimport matplotlib as mpl\n"
    "from matplotlib.ticker import IndexFormatter\nfrom matplotlib.colors import DivergingNorm\n"
    "from mpl_toolkits.axes_grid.anchored_artists import AnchoredText\n"
    "from mpl_toolkits.axes_grid.inset_locator import inset_axes\nfrom matplotlib.axes._subplots import AxesSubplot\n"
    "fontManager.addfont('/usr/share/fonts/truetype/SimHei.ttf'); mpl.rcParams['mathtext.fallback_to_cm'] = True\n"
    "mpl.rcParams['text.latex.preamble'] = [r'\\usepackage{amsmath}']; plt.annotate(s='x', xy=(0, 0))\n"
    "line, = plt.plot([], []); line.set_data(1, 2); plt.hist2d([1, 2], [1, 2], normed=True)\n"
    "assert isinstance(plt.gca(), AxesSubplot)\n"
    "plt.imshow([[1, 2]], norm=DivergingNorm(1.5)); plt.colorbar().set_clim(0, 3)",
    "arrows": "from mpl_toolkits.mplot3d import proj3d\nfrom matplotlib.patches import FancyArrowPatch\n"
    "class Arrow3D(FancyArrowPatch):\n"
    "    def draw(self, renderer):\n"
    "        x, y, z = proj3d.proj_transform([0, 1], [0, 1], [0, 1], renderer.M)\n"
    "        self.set_positions((x[0], y[0]), (x[1], y[1])); super().draw(renderer)\n"
    "plt.gcf().add_subplot(projection='3d').add_artist(Arrow3D((0, 0), (0, 0), mutation_scale=20, color='r'))",
    "ragged": "a = np.array([[1, 2, 3], [2, 3]]); assert a.dtype == object and a.shape == (2,); plt.boxplot(a)\n"
    "n, _ = np.histogram([1, 2], normed=True); assert np.asscalar(np.array([2])) == 2 and np.int0 is np.intp",
    "options": "import pandas as pd\nfrom pandas.io.json import json_normalize\npd.set_option('precision', 2)\n"
    "d = pd.DataFrame({'a': [1, 2], 'b': [2, 1]}); d.set_axis(['x', 'y'], axis=1, inplace=True)\n"
    "assert list(d) == ['x', 'y'] and list(d.set_axis(['p', 'q'])['x']) == [1, 2]\n"
    "d.plot(sort_columns=True, ax=plt.gca())",
    "grids": "import seaborn as sns, pandas as pd\n"
    "d = pd.DataFrame({'x': list('aabb'), 'y': [1, 2, 3, 4], 'h': list('mfmf')})\n"
    "assert len(sns.factorplot('x', 'y', data=d, size=2).ax.lines) > 0\n"
    "sns.stripplot(x='x', y='y', hue='h', data=d, split=True)\n"
    "sns.FacetGrid(d, col='x', size=2).map(plt.hist, 'y'); "
    "sns.jointplot(x='y', y='y', data=d, stat_func=None).annotate(max)",
    "models": "from sklearn.metrics import mean_squared_error\n"
    "from sklearn.feature_extraction.text import CountVectorizer\n"
    "from sklearn.linear_model import LinearRegression, SGDClassifier\n"
    "from sklearn.datasets.samples_generator import make_blobs\n"
    "from sklearn.ensemble import RandomForestRegressor, AdaBoostClassifier, GradientBoostingRegressor\n"
    "from sklearn.tree import DecisionTreeRegressor\nfrom sklearn.externals import joblib\n"
    "assert mean_squared_error([0, 0], [3, 3], squared=False) == 3\n"
    "v = CountVectorizer(); v.fit(['bb aa']); assert 'bb' in v.get_feature_names()\n"
    "x, y = make_blobs(40, random_state=0)\n"
    "for m in (LinearRegression(normalize=True), SGDClassifier(loss='log'), DecisionTreeRegressor(criterion='mse'),\n"
    "          RandomForestRegressor(9, max_features='auto', criterion='mse', n_jobs=2), "
    "GradientBoostingRegressor(loss='ls'),\n"
    "          AdaBoostClassifier(base_estimator=None, algorithm='SAMME.R')): m.fit(x, y)\n"
    "plt.scatter(*x.T, c=m.predict(x))",
    "waves": "from scipy import signal\nc = signal.cwt(np.sin(np.arange(99)), signal.ricker, np.arange(1, 9))\n"
    "assert c.shape == (8, 99); plt.imshow(c)",
    "processes": "import multiprocessing as mp\nfrom concurrent.futures import ProcessPoolExecutor\n"
    "import joblib, locale\n"
    "def square(x): return x * x\nq = mp.Queue(); p = mp.Process(target=q.put, args=(4,)); p.start(); p.join()\n"
    "with mp.Pool(2) as pool: assert pool.map(square, [1, 2]) == [1, 4] and q.get() == 4\n"
    "with ProcessPoolExecutor(2) as e: assert list(e.map(square, [3])) == [9]\n"
    "with mp.get_context('spawn').Pool(2) as pool: pool.map(square, [1])\n"
    "locale.setlocale(locale.LC_ALL, 'de_DE.UTF-8')\n"
    "plt.plot(joblib.Parallel(2)(joblib.delayed(square)(i) for i in range(3)))",
    "pillow": "from PIL import Image, ImageDraw\ni = Image.new('RGB', (9, 9)).resize((8, 8), Image.ANTIALIAS)\n"
    "assert ImageDraw.Draw(i).textsize('abc')[0] > 5\nplt.imshow(i)",
}  # fmt: skip
PACKAGE_OF = {
    "frames": "pandas",
    "nuisance": "pandas",
    "periods": "pandas",
    "rows": "seaborn",
    "scipy": "scipy",
    "graphs": "networkx",
    "levels": "pandas",
    "weeks": "pandas",
    "splines": "scipy",
    "learning": "scikit-learn",
    "options": "pandas",
    "grids": "seaborn",
    "models": "scikit-learn",
    "waves": "scipy",
    "processes": "scikit-learn",
}


@pytest.mark.parametrize("kind", OLD)
def test_names_that_newer_versions_lost(renderer, kind):
    need(PACKAGE_OF.get(kind, kind))
    draws(renderer, HEAD + OLD[kind] + "\nplt.show()")


def test_contours_are_collections_again_and_keep_their_looks(renderer):
    code = HEAD + "c = plt.contourf(np.arange(16).reshape(4, 4), levels=[0, 5, 10, 15], colors=['r', 'w', 'b'])\n"
    code += "plt.axis('off')\n"
    assert same(draws(renderer, code), draws(renderer, code + "assert len(c.collections) == 3"))
    recoloured = draws(renderer, code + "c.collections[0].set_facecolor('#008000')")
    assert share(recoloured, RED) < 0.001 and share(recoloured, GREEN) > 0.05


def test_lines_of_contours_are_collections_of_lines(renderer):
    code = HEAD + "c = plt.contour(np.arange(16).reshape(4, 4), 3, colors='b'); plt.axis('off')\n"
    assert same(draws(renderer, code), draws(renderer, code + "assert len(c.collections) >= 3"))
    red = draws(renderer, code + "for k in c.collections: k.set_color('r')")
    assert 0.001 < share(red, RED) < 0.05 and share(red, (0, 0, 255)) < 0.001


TEX = {  # what a person writes for TeX -> what shows the same without it
    r"$\displaystyle\sum_{i}x_i$": r"$\sum_{i}x_i$",
    r"\LaTeX\ and \TeX{}": "LaTeX and TeX",
    r"{\Large big} 5\%": "{big} 5%",
    r"\begin{equation*}a=b\end{equation*}": "$a=b$",
    r"\begin{eqnarray*}a&=&b\\c&=&d\end{eqnarray*}": "$a=b$\n$c=d$",
    r"\textbf{b $x$}": "b $x$",
}


@pytest.mark.parametrize("text", TEX)
def test_texts_for_tex_are_drawn_without_it(renderer, text):
    code = HEAD + "plt.rcParams['text.usetex'] = True; plt.axis('off')\nplt.title({!r})\nplt.show()"
    assert same(draws(renderer, code.format(text)), draws(renderer, code.format(TEX[text])))
    draws(renderer, code.format(r"$\unheardof{x}$"))


def test_axes3d_alone_is_part_of_its_figure_and_only_once(renderer):
    code = HEAD + "from mpl_toolkits.mplot3d import Axes3D\nf = plt.figure(); a = Axes3D(f); "
    code += "a.plot([0, 1], [0, 1], [0, 1], 'r')\n"
    alone = draws(renderer, code + "assert f.axes == [a]")
    assert share(alone, RED) > 0.0005
    assert same(alone, draws(renderer, code + "f.add_axes(a)"))
    assert share(draws(renderer, code.replace("Axes3D(f)", "Axes3D(f, elev=20, azim=30)")), RED) > 0.0001


# ---- how figures are finished ----------------------------------------------------------------------------------------

ANOTHER = "plt.close('all'); plt.figure(figsize=(1, 1)); plt.plot([1, 2]); plt.savefig('x.png')"
FIGURE = HEAD + "f = plt.figure(figsize=(3, 2), dpi=100); plt.axes([0, 0, 1, 1]).set_facecolor('r')\nimport io\n"


@pytest.mark.parametrize(
    "format, check",
    [
        ("png", "from PIL import Image; assert Image.open(b).size == (300, 200)"),
        ("jpg", "from PIL import Image; assert Image.open(b).format == 'JPEG'"),
        ("svg", "assert b'<svg' in b.getvalue()"),
        ("pdf", "assert b.getvalue().startswith(b'%PDF')"),
        ("raw", "assert np.frombuffer(b.getvalue(), np.uint8).reshape(200, 300, 4)[9, 9].tolist() == [255, 0, 0, 255]"),
        ("rgba", "assert len(b.getvalue()) == 200 * 300 * 4"),
    ],
)
def test_a_buffer_has_the_format_that_was_asked_for(renderer, format, check):
    finish = f"b = io.BytesIO(); f.savefig(b, format='{format}'); b.seek(0)\n{check}\nopen('passed.txt', 'w')\n"
    assert draws(renderer, FIGURE + finish + ANOTHER).size == (100, 100)  # the check did not end the program


def test_what_was_finished_last_counts(renderer):
    small = "from PIL import Image\nImage.new('RGB', (20, 20), 'blue').save('logo.png')\n"
    assert draws(renderer, small + FIGURE + "plt.show()").size == (300, 200)
    assert draws(renderer, FIGURE + "plt.imsave('x.png', np.ones((9, 9))); f.savefig('y.png')").size == (300, 200)
    cut = "f.savefig('a.png'); from PIL import Image; Image.open('a.png').crop((0, 0, 50, 40)).save('b.png')"
    assert draws(renderer, FIGURE + cut).size == (50, 40)
    assert draws(renderer, FIGURE + "f.savefig('a.png', dpi=200); plt.show()").size == (600, 400)
    assert draws(renderer, FIGURE + "plt.show(); f.savefig('a.png', dpi=200)").size == (600, 400)
    assert draws(
        renderer, FIGURE + "import atexit; atexit.register(lambda: f.savefig('a.png')); plt.close(f)"
    ).size == (300, 200)


@pytest.mark.parametrize("finish", ["plt.savefig('a.xyz')", "plt.savefig(io.BytesIO(), format='bmp')"])
def test_a_format_that_matplotlib_does_not_have_is_an_error(renderer, finish):
    result = renderer.render(FIGURE + finish, "python")
    assert result.image is None and "is not supported" in result.error


def test_threads_are_waited_for(renderer):
    code = FIGURE + "import threading, time\ndef draw():\n    time.sleep(0.3)\n    plt.savefig('a.png', dpi=50)\n"
    assert draws(renderer, code + "threading.Thread(target=draw).start()").size == (150, 100)


@pytest.mark.parametrize("name", ["a.svg", "a.pdf", "/home/someone/figures/a.jpg", "a"])
def test_a_saved_file_can_be_read_again(renderer, name):
    saved = name if "." in name else f"{name}.png"
    assert share(draws(renderer, FIGURE + f"plt.savefig({name!r})"), RED) > 0.95
    code = FIGURE + f"plt.savefig({name!r})\nassert len(open({saved!r}, 'rb').read()) > 100, 'empty'\n"
    assert draws(renderer, code + ANOTHER).size == (100, 100)  # the check did not end the program


@pytest.mark.parametrize("options", ["", ", transparent=True", ", facecolor=(1, 0, 0, 0.5), dpi=77"])
def test_a_saved_png_has_the_pixels_that_were_drawn(renderer, options):
    code = FIGURE + f"f.savefig('a.png'{options})\nfrom PIL import Image\na = np.asarray(Image.open('a.png'))\n"
    assert draws(renderer, code + f"assert np.array_equal(a, f.canvas.buffer_rgba())\n{ANOTHER}").size == (100, 100)


def test_a_shown_figure_has_its_own_size_whatever_files_would_have(renderer):
    settings = "plt.rcParams.update({'savefig.dpi': 50, 'savefig.bbox': 'tight', 'figure.dpi': 200})\n"
    settings += "plt.figure(figsize=(3, 2)); plt.plot([1, 2]); plt.show()"
    assert draws(renderer, HEAD + settings).size == (600, 400)


@pytest.mark.parametrize("writer", ["FFMpegWriter()", "PillowWriter(fps=5)", "writers['ffmpeg'](fps=5)"])
def test_an_animation_by_its_writer_is_its_last_frame(renderer, writer):
    code = (
        FIGURE
        + "from matplotlib.animation import FFMpegWriter, PillowWriter, writers\nplt.xlim(0, 10); plt.ylim(0, 1)\n"
    )
    code += f"b, = plt.bar([0], [1], width=0, align='edge', color='b')\nw = {writer}\n"
    code += "with w.saving(f, 'a.mp4', 100):\n    for i in range(11):\n        b.set_width(i)\n        w.grab_frame()\n"
    assert share(draws(renderer, code), BLUE) > 0.9


@pytest.mark.parametrize("suffix", ["gif", "mp4"])
@pytest.mark.parametrize("kind", ["FuncAnimation(f, b.set_width, frames=11)", "ArtistAnimation(f, frames)"])
def test_a_saved_animation_is_its_last_frame(renderer, suffix, kind):
    code = FIGURE + "from matplotlib.animation import ArtistAnimation, FuncAnimation\nplt.xlim(0, 10); plt.ylim(0, 1)\n"
    code += "b, = plt.bar([0], [1], width=0, align='edge', color='b')\n" if kind.startswith("Func") else ""
    if kind.startswith("Artist"):
        code += "frames = [list(plt.bar([0], [1], width=i, align='edge', color='b')) for i in (1, 10)]\n"
    image = draws(renderer, code + f"{kind}.save('a.{suffix}', fps=5)")
    assert share(image, BLUE) > 0.9


def test_a_gif_of_pillow_is_its_last_frame(renderer):
    code = "from PIL import Image\nframes = [Image.new('RGB', (9, 9), c) for c in ('red', 'lime', 'blue')]\n"
    code += "for f in frames: f.putpixel((0, 0), (9, 9, 9))\n"
    assert share(draws(renderer, code + "frames[0].save('a.gif', save_all=True, append_images=frames[1:])"), BLUE) > 0.9


@pytest.mark.parametrize(
    "line",
    [
        "import os; os.makedirs('/home/someone/out/deep', exist_ok=True); plt.savefig('/home/someone/out/deep/x.png')",
        "import os; os.mkdir('/figures'); assert os.path.isdir('/figures') and os.listdir('/figures') == []; "
        "plt.show()",
        "from pathlib import Path; p = Path('/content/out'); p.mkdir(parents=True); assert p.exists(); "
        "plt.savefig(p / 'x.png')",
        "import os; os.makedirs('/srv/x'); os.chdir('/srv/x'); open('y', 'w'); os.rename('/srv/x/y', '/srv/z'); "
        "assert os.listdir('/srv/x') == [] and len(os.listdir('/srv')) == 2; plt.savefig('x.png')",
        "plt.savefig('/mnt/data/x.png', dpi=100)",
    ],
)
def test_absolute_folders_can_be_made_where_files_can_be_saved(renderer, line):
    image = draws(renderer, FIGURE + line)
    assert image.size == (300, 200) and share(image, RED) > 0.95


@pytest.mark.parametrize(
    "line",
    [
        "os.makedirs('../results', exist_ok=True); plt.savefig('../results/a.png')",
        "plt.savefig('../a.jpg')",
        "os.chdir('..'); os.chdir('..'); plt.savefig('a.png')",
        "os.chdir(os.path.dirname(__file__)); plt.savefig('a.png')",
        "p = Path(__file__).resolve().parents[1] / 'figures'; p.mkdir(); plt.savefig(p / 'a.png')",
        "assert 'makedirs' not in open(__file__).read().splitlines()[0]; plt.savefig('a.png')",
        "np.savetxt('/data/y.csv', [1, 2]); assert list(np.loadtxt('/data/y.csv')) == [1, 2]; plt.savefig('a.png')",
        "open('/data/z.csv', 'w').write('1,2'); assert list(np.genfromtxt('/data/z.csv', delimiter=',')) == [1, 2]",
        "import sqlite3; sqlite3.connect('/data/my.db').execute('create table t (a)'); plt.savefig('a.png')",
        "import getpass; assert getpass.getuser(); plt.savefig('a.png')",
    ],
)
def test_a_program_is_at_home_above_its_folder_and_in_absolute_ones(renderer, line):
    code = FIGURE + f"import os\nfrom pathlib import Path\n{line}"
    assert draws(renderer, code).size == (300, 200)


def test_a_picture_left_above_the_programs_folder_is_found(renderer):
    code = "import shutil, os\nfrom PIL import Image\nImage.Image.save = lambda *_: None\n"
    bitmap = "b'P6 40 30 255 ' + bytes(40 * 30 * 3)"
    code += f"open('../a.bmp', 'wb').write({bitmap})"
    assert renderer.render(code, "python").image.size == (40, 30)


def test_what_an_absolute_path_holds_is_not_the_machines(renderer):
    error = renderer.render("open('/home/someone/data.csv')", "python").error
    assert "No such file or directory: '/home/someone/data.csv'" in error
    for path in ("/etc/motd", "/usr/x"):  # what exists stays where it is, and forbidden
        attempt = f"import os\nos.makedirs({path!r} + '/y')\nopen('/usr/bin/env', 'w')"
        assert renderer.render(attempt, "python").image is None


def test_home_and_temporary_files_lie_in_the_jobs_folder(renderer):
    code = FIGURE + "import os, tempfile, pathlib\nhere = os.getcwd()\n"
    code += "for place in (tempfile.gettempdir(), os.environ['TMPDIR'], "
    code += "os.path.expanduser('~'), str(pathlib.Path.home()), os.environ['MPLCONFIGDIR']):\n"
    code += "    assert place != '/' and here.startswith(place + '/'), place\n"
    code += "with tempfile.NamedTemporaryFile() as t: t.write(b'x')\n"
    code += "open(os.path.expanduser('~/notes.txt'), 'w').write('x')\nplt.show()"
    draws(renderer, code)


@pytest.mark.parametrize("name", ["TkAgg", "Qt5Agg", "QtAgg", "GTK3Agg", "macosx", "WebAgg", "agg", "pdf"])
def test_any_backend_draws(renderer, name):
    head = f"import matplotlib\nmatplotlib.use('{name}')\nimport matplotlib.pyplot as plt\n"
    head += f"plt.switch_backend('{name}')\n"
    code = "m = plt.get_current_fig_manager(); m.window.state('zoomed'); m.resize(*m.window.maxsize()); "
    code += "plt.plot([1, 2]); plt.show()"
    assert draws(renderer, head + code).size == (640, 480)


def test_texts_meant_for_tex_are_drawn_as_formulas(renderer):
    code = HEAD + "plt.figure(figsize=(3, 1)); plt.axis('off'); plt.text(0, 0.4, {}, fontsize=20)\nplt.show()"
    settings = "plt.rcParams['text.usetex'] = True\n"
    tex = draws(renderer, code.replace("plt.figure", settings + "plt.figure").format(r"r'$\alpha^2$ at 5\%'"))
    plain = "r'$\\alpha^2$ at 5%', family='serif', math_fontfamily='cm'"
    assert same(tex, draws(renderer, code.format(plain)))


@pytest.mark.parametrize(
    "code",
    [
        "%matplotlib inline\nimport matplotlib.pyplot as plt\n!pip install x\nplt.plot([1, 2])\nplt.show()",
        "Here is the code:\n```python\nimport matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()\n```\n"
        "It draws a line.",
        "import matplotlib.pyplot as plt\nplt.plot(range(int(input('n? ') or 3)))\nplt.show()",
        "import os, matplotlib.pyplot as plt\nplt.plot([1, 2]); plt.savefig('a.png'); os._exit(0)",
        "# -*- coding: latin-1 -*-\nimport matplotlib.pyplot as plt\nplt.title('é'); plt.show()",
    ],
    ids=["notebook", "fence", "input", "exit", "encoding"],
)
def test_what_surrounds_a_program(renderer, code):
    assert draws(renderer, code).size == (640, 480)


def test_a_syntax_error_is_the_programs_own(renderer):
    error = renderer.render("import os\nx = (1,\n%matplotlib inline\ny = = 2\n", "python").error
    assert "SyntaxError" in error and "line" in error


def test_molecules_that_are_not_shown(renderer):
    need("rdkit")
    head = "from rdkit import Chem\nfrom rdkit.Chem import Draw\nfrom rdkit.Chem.Draw import rdMolDraw2D\n"
    head += "m = Chem.MolFromSmiles('CCO')\n"
    assert draws(renderer, head + "Draw.MolToImage(m, size=(120, 90))").size == (120, 90)
    svg = "d = rdMolDraw2D.MolDraw2DSVG(120, 90); d.DrawMolecule(m); d.FinishDrawing(); print(d.GetDrawingText())"
    assert draws(renderer, head + svg).size == (120, 90)
    written = "d = rdMolDraw2D.MolDraw2DCairo(120, 90); d.DrawMolecule(m); d.FinishDrawing()\n"
    assert draws(renderer, head + written + "open('/home/me/a.png', 'wb').write(d.GetDrawingText())").size == (120, 90)


def test_cv2_pictures(renderer):
    need("opencv-python-headless")
    code = "import cv2, numpy as np\na = np.zeros((20, 30, 3), np.uint8); a[:] = (255, 0, 0)\na[0, 0] = 7\n"
    for finish in ("imwrite('/data/out/x.png', a)", "imwrite('x.jpg', a)", "imshow('w', a); cv2.waitKey(0)"):
        image = draws(renderer, code + "cv2." + finish)
        assert image.size == (30, 20) and share(image, BLUE) > 0.9


# ---- plotly, altair --------------------------------------------------------------------------------------------------

PLOTLY = "import plotly.graph_objects as go, plotly.io as pio\npio.kaleido.scope.mathjax = None\n"
PLOTLY += "f = go.Figure(go.Bar(x=['a', 'b'], y=[2, 3], marker_color='teal'))\n"
TEAL = (0, 128, 128)


def drawn_by_browser(renderer, code):
    if browser.chromium_path() is None:
        pytest.skip("chromium is not installed")
    return draws(renderer, code)


@pytest.mark.parametrize(
    "finish, size",
    [
        ("f.update_layout(width=300, height=200); f.show()", (300, 200)),
        ("f.write_image('a.png', width=320, height=240)", (320, 240)),
        ("pio.write_image(f, 'a.png', width=320, height=240, scale=2)", (640, 480)),
        ("assert f.to_image('png', width=320, height=240)[:4] == b'\\x89PNG'; f.show()", (700, 500)),
        ("f.to_image('png', width=320, height=240)", (320, 240)),
        ("pio.kaleido.scope.default_width = 400; f.write_image('a.png')", (400, 500)),
        ("import matplotlib.pyplot as plt; plt.plot([1]); plt.savefig('b.png'); f.write_image('a.png')", (700, 500)),
        ("helper = go.Figure(); fig = f; other = go.Figure()", (700, 500)),
        ("f.write_image('a.svg', engine='kaleido')", (700, 500)),
        ("from kaleido.scopes.plotly import PlotlyScope\nPlotlyScope().transform(f, 'png', width=300)", (300, 500)),
        ("f.update_layout(width=1500, height=900).show()", (1500, 900)),
        ("import plotly.offline as o; o.plot(f, filename='x.html', auto_open=False)", (700, 500)),
        ("", (700, 500)),
    ],
)
def test_plotly(renderer, finish, size):
    need("plotly", "kaleido")
    image = drawn_by_browser(renderer, PLOTLY + finish)
    assert image.size == size and share(image, TEAL) > 0.02


def test_plotly_has_its_data_in_space(renderer):
    need("plotly")
    code = "import plotly.graph_objects as go\nm = dict(size=30, color='teal')\n"
    code += "go.Figure(go.Scatter3d(x=[1, 2], y=[1, 2], z=[1, 2], mode='markers', marker=m)).show()"
    image = drawn_by_browser(renderer, code)
    near = np.abs(np.asarray(image).astype(int) - TEAL).max(2) < 25
    assert near.mean() > 0.001


def test_a_map_that_wants_the_network_says_so(renderer):
    need("plotly")
    code = "import plotly.express as px\npx.choropleth(locations=['FRA'], color=[1]).show()"
    result = renderer.render(code, "python")
    if browser.chromium_path() is None:
        pytest.skip("chromium is not installed")
    assert result.image is None and "network" in result.error and not result.error.startswith("timeout")


@pytest.mark.parametrize(
    "finish",
    ["c.save('a.png')", "c.show()", "c", "(c + c.mark_text()).save('/x/a.html')", "c | c", "unfinished = alt.Chart(d)"],
)
def test_altair(renderer, finish):
    need("altair", "vl-convert-python")
    code = "import altair as alt, pandas as pd\nd = pd.DataFrame({'a': ['x', 'y'], 'b': [1, 2]})\n"
    code += "c = alt.Chart(d).mark_bar(color='teal').encode(x='a', y='b').properties(width=200, height=150)\n"
    image = drawn_by_browser(renderer, code + finish)
    assert share(image, TEAL) > 0.02 and 160 < image.height < 260 and 60 < image.width < 700


def test_an_altair_chart_without_its_data_says_so(renderer):
    need("altair", "vl-convert-python")
    if browser.chromium_path() is None:
        pytest.skip("chromium is not installed")
    code = "import altair as alt\nalt.Chart('https://else.test/cars.json').mark_point().encode(x='a:Q', y='b:Q').show()"
    error = renderer.render(code, "python").error
    assert "https://else.test/cars.json" in error and "no network" in error


# ---- fonts -----------------------------------------------------------------------------------------------------------

TEXT = HEAD + "plt.figure(figsize=(4, 1)); plt.axis('off')\nplt.text(0, 0.4, {text!r}, fontsize=20{more})\nplt.show()"


def text(renderer, words, more=""):
    return draws(renderer, TEXT.format(text=words, more=f", {more}" if more else ""))


@pytest.mark.parametrize(
    "name, means",
    [("Arial", fonts.SANS), ("Helvetica", fonts.SANS), ("Times New Roman", fonts.SERIF), ("Courier New", fonts.MONO)],
)
def test_well_known_fonts_are_the_metric_equal_ones(renderer, name, means):
    if fonts.file_for("arial.ttf") is None:
        pytest.skip("the Liberation fonts are not installed")
    named = text(renderer, "Quarterly", f"family={name!r}")
    assert same(named, text(renderer, "Quarterly", f"family={means!r}"))
    assert not same(named, text(renderer, "Quarterly"))


@pytest.mark.parametrize("words", [("中文", "標題"), ("日本", "かな"), ("한국", "어글")])
@pytest.mark.parametrize("family", ["", "family='Arial'", "family='SimHei'", "family='serif'"])
def test_eastern_letters_are_drawn_in_any_font(renderer, words, family):
    if fonts.file_for("simhei.ttf") is None:
        pytest.skip("fonts-wqy-microhei is not installed")
    one, other = (text(renderer, word, family) for word in words)
    assert not same(one, other)  # as boxes they would be the same


def test_a_font_is_made_before_the_fork_and_knows_its_file(renderer):
    code = HEAD + "from matplotlib import font_manager as m\nassert m._get_font.cache_info().currsize\n"
    code += "path = m.findfont('DejaVu Sans')\n"
    draws(renderer, code + "assert m.get_font(path).fname == path\nplt.plot([1, 2]); plt.show()")
    empty = "open('a.ttf', 'w')\nplt.title('x', fontproperties=m.FontProperties(fname='a.ttf')); plt.show()"
    assert "RuntimeError" in renderer.render(code + empty, "python").error  # FreeType's, not mmap's


def test_font_files_of_other_machines(renderer):
    if fonts.file_for("simhei.ttf") is None or fonts.file_for("arial.ttf") is None:
        pytest.skip("fonts-wqy-microhei or the Liberation fonts are not installed")
    assert fonts.file_for("C:\\Windows\\Fonts\\arialbd.ttf").endswith("LiberationSans-Bold.ttf")
    assert fonts.file_for("/Library/Fonts/Times New Roman Italic.ttf").endswith("LiberationSerif-Italic.ttf")
    assert fonts.file_for("comic.ttf") is None
    head = "from matplotlib.font_manager import FontProperties\nmine = FontProperties(fname='/fonts/simhei.ttf')\n"
    draws(renderer, head + TEXT.format(text="标题", more=", fontproperties=mine"))
    code = "from PIL import Image, ImageDraw, ImageFont\ni = Image.new('RGB', (99, 40)); d = ImageDraw.Draw(i)\n"
    code += "d.text((2, 2), 'Hello', font=ImageFont.truetype('arial.ttf', 20)); i.save('x.png')"
    draws(renderer, code)


# ---- the same picture twice ------------------------------------------------------------------------------------------

UNSEEDED = {
    "numpy": "x = np.random.default_rng().normal(size=20)",
    "state": "x = np.random.RandomState().rand(20)",
    "none": "np.random.seed(None); x = np.random.rand(20)",
    "random": "import random; r = random.Random(); random.seed(None); "
    "x = [r.random() + random.random() for _ in range(20)]",
    "system": "import os, uuid, secrets; x = list(os.urandom(9)) + list(uuid.uuid4().bytes) + [secrets.randbelow(99)]\n"
    "x += list(uuid.uuid1().bytes); import time; x.append(time.clock_gettime(time.CLOCK_REALTIME) % 60)",
    "scipy": "import scipy.stats as s; x = s.norm.rvs(size=20)",
    "pandas": "import pandas as pd; x = pd.Series(range(50)).sample(20)",
    "clock": "import datetime, time; n = datetime.datetime.now(); "
    "x = [n.minute, n.microsecond / 1e6, time.time() % 60]\n"
    "plt.title(f'{n} {datetime.date.today()} {time.ctime()} {time.strftime(\"%H:%M:%S\")} {time.perf_counter()}', "
    "size=6)",
}


@pytest.mark.parametrize("kind", UNSEEDED)
def test_a_program_draws_the_same_twice(renderer, kind):
    need(kind)
    code = HEAD + UNSEEDED[kind] + "\nplt.plot(x)\nplt.show()"
    first = draws(renderer, code)
    assert same(first, draws(renderer, code))
    with render.Renderer(workers=1, timeout=LIMIT, cache_mb=0) as other:  # a server that started at another time
        assert same(first, draws(other, code))


def test_two_generators_without_a_seed_differ_and_seeds_hold(renderer):
    code = HEAD + "import random, time, datetime\n"
    code += "assert np.random.default_rng().random() != np.random.default_rng().random()\n"
    code += "assert random.Random().random() != random.Random().random()\n"
    code += "assert random.Random(3).random() == 0.23796462709189137\n"
    code += "assert np.random.RandomState(3).rand() == 0.5507979025745755\n"
    code += "start = time.time()\nwhile time.time() - start < 5: pass\n"  # ends, however long it takes
    code += "a = datetime.datetime.now(); time.sleep(0.2); "
    code += "assert 0.2 <= (datetime.datetime.now() - a).total_seconds() < 0.3\n"
    draws(renderer, code + "assert datetime.date.today().year == 2025\nplt.plot([1, 2]); plt.show()")


# ---- the command line ------------------------------------------------------------------------------------------------


def written(path, content: bytes):
    path.write_bytes(content)
    return path


def test_one_unreadable_file_stops_no_other(renderer, tmp_path, capsys):
    good = "import matplotlib.pyplot as plt\nplt.plot([1, 2])\n"
    (tmp_path / "good.py").write_text(good)
    (tmp_path / "declared.py").write_bytes(("# coding: latin-1\n" + good + "plt.title('é')").encode("latin-1"))
    (tmp_path / "binary.py").write_bytes(b"\x00\xff\x81")
    (tmp_path / "wide.py").write_text(good, "utf-16")
    (tmp_path / "notes.doc").write_text("x")
    names = ("missing.py", "binary.py", "good.py", "notes.doc", "declared.py", "wide.py")
    tex = r"\documentclass[12pt]{standalone}\usepackage[latin1]{inputenc}\begin{document}café\end{document}"
    assert render.read_program(written(tmp_path / "a.tex", tex.encode("latin-1"))) == tex
    files = tuple(tmp_path / name for name in names)
    assert not render.draw_files(renderer, files, None)
    assert all((tmp_path / f"{name}.png").is_file() for name in ("good", "declared", "wide"))
    errors = capsys.readouterr().err
    assert all(f"{name}: " in errors for name in ("missing.py", "binary.py", "notes.doc")) and "good.py" not in errors
    assert "No such file" in errors and "not text in UTF-8" in errors and "suffix" in errors


def test_programs_with_one_stem_do_not_overwrite_each_other(renderer, tmp_path):
    svg = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"><rect width="9" height="5" fill="{}"/></svg>'
    for folder, colour in (("a", "red"), ("b", "blue")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.svg").write_text(svg.format(colour))
    (tmp_path / "a/x.py").write_text("import matplotlib.pyplot as plt\nplt.plot([1, 2])\n")
    files = (tmp_path / "a/x.svg", tmp_path / "b/x.svg", tmp_path / "a/x.py")
    assert render.draw_files(renderer, files, tmp_path / "out")
    drawn = {path.name: Image.open(path) for path in (tmp_path / "out").iterdir()}
    assert set(drawn) == {"x.svg.png", "x.svg-2.png", "x.py.png"}
    assert share(drawn["x.svg.png"], RED) > 0.4 and share(drawn["x.svg-2.png"], BLUE) > 0.4
    assert render.targets(files[:2], None) == [tmp_path / "a/x.png", tmp_path / "b/x.png"]
