"""The scores of charts: ChartMimic's and Plot2Code's formulas by hand, and against the originals' numbers."""

import json
from concurrent.futures import Future
from pathlib import Path

import pytest
from PIL import Image

from data import Sample
from languages import chart_facts
from metrics import chartmimic, text
from metrics.scoring import Job, Scorer
from render import Rendering

CASES = Path(__file__).parents[2] / "shared/cases/metrics"
NAMES = ("text_f1", "layout_f1", "type_f1", "colour_f1", "text_match")


def figure(**parts) -> dict:
    whole = {
        "texts": ["a", "b"],
        "layout": [[1, 1, 0, 0, 0, 0]],
        "types": {"plot": 2},
        "colours": [["plot", "#FF0000", True]],
        "readable": True,
    }
    return whole | {"positions": [], "inches": [6, 4]} | parts


def all_scores(reference: dict, answer: dict, as_published: bool = False, graph: bool = False) -> dict[str, float]:
    match = text.plot_text_match(reference, answer, as_published)
    return chartmimic.scores(reference, answer, as_published, graph) | {"text_match": match}


# ------------------------------------------------------------------------------------------------------------- by hand
def test_chartmimic_by_hand():
    same = chartmimic.scores(figure(), figure())
    assert set(same.values()) == {1.0}
    part = chartmimic.scores(figure(), figure(texts=["b", "b", "c"], types={"plot": 1, "bar": 1}))
    assert part["text_f1"] == pytest.approx(2 / 5), "one match of 3 and 2"
    assert part["type_f1"] == pytest.approx(1 / 2)
    two = figure(layout=[[1, 2, 0, 0, 0, 0], [1, 2, 0, 0, 1, 1]])
    assert chartmimic.scores(two, figure())["layout_f1"] == 0
    free = figure(layout=[None, [1, 1, 0, 0, 0, 0]])
    assert chartmimic.scores(free, figure())["layout_f1"] == 1, "axes in no grid do not count"
    assert chartmimic.scores(free, figure(), graph=True)["layout_f1"] == pytest.approx(2 / 3), "but in networks"
    nothing = figure(texts=[], layout=[], types={}, colours=[])
    assert set(chartmimic.scores(figure(), nothing).values()) == {0.0}
    assert chartmimic.scores(nothing, nothing)["low_level"] == 1
    assert chartmimic.scores(nothing, nothing, as_published=True)["low_level"] == 0


def test_chartmimic_colours_by_hand():
    black, white = ["plot", "#000000"], ["plot", "#FFFFFF"]
    assert chartmimic.colour_f1([black], [white]) == pytest.approx(0, abs=1e-3), "CIEDE2000 of black and white is 100"
    assert chartmimic.colour_f1([black, white], [white, black]) == pytest.approx(1), "assigned one to one"
    assert chartmimic.colour_f1([["bar", "#000000"]], [black]) == 0, "another function"
    assert chartmimic.colour_f1([["imshow", "viridis"]], [["imshow", "#000000"]]) == 0, "a map is no colour"
    # P = 1/2, R = 1
    assert chartmimic.colour_f1([black], [black, ["bar", "#000000"]]) == pytest.approx(2 / 3)
    shades = [["plot", f"#{k:02X}{k:02X}{k:02X}"] for k in range(0, 250, 10)]
    assert len(chartmimic.thinned(shades)) < 10 <= len(shades)


def test_colours_that_the_original_loses():
    half = figure(colours=[["bar", "#FF0000", False], ["bar", "#0000FF", True]])
    assert chartmimic.scores(half, half)["colour_f1"] == 1
    assert chartmimic.scores(half, figure(colours=[["bar", "#0000FF", True]]), True)["colour_f1"] == 1
    assert chartmimic.scores(half, half | {"readable": False}, True)["colour_f1"] == 0


def test_plot_text_match_by_hand():
    a = {"positions": [["speed", 0.5, 1.0, True], ["time", 0.5, 0.0, True]], "inches": [6, 4]}
    assert text.plot_text_match(a, a) == 1
    b = {"positions": [["speed", 0.5, 1.0, True], ["hours", 0.5, 0.0, True]], "inches": [6, 4]}
    assert text.plot_text_match(a, b) == text.plot_text_match(b, a) == pytest.approx(1 / 3)
    near = {"positions": [["speed", 0.5, 1.0, True]], "inches": [6, 4]}
    assert text.plot_text_match(near, {"positions": [["speed", 40.0, 1.0, True]], "inches": [6, 4]}) == 0
    half = {"positions": [["speed", 20.0, 1.0, True]], "inches": [3, 4]}
    far = {"positions": [["speed", 40.0, 1.0, True]], "inches": [6, 4]}
    assert text.plot_text_match(far, half) == 1, "scaled by size"
    empty = {"positions": [], "inches": [6, 4]}
    assert text.plot_text_match(empty, empty) == 1 and text.plot_text_match(a, empty) == 0
    dated = {"positions": [["speed", 0.5, 1.0, False], ["time", 0.5, 0.0, True]], "inches": [6, 4]}
    assert text.plot_text_match(dated, dated) == 1
    assert text.plot_text_match(dated, dated, as_published=True) == pytest.approx(1 / 3), "a date is never matched"
    nowhere = {"positions": [["speed", float("nan"), 1.0, False]], "inches": [6, 4]}
    assert text.plot_text_match(nowhere, nowhere) == 0


@pytest.mark.parametrize(
    "forged",
    [
        {"texts": [1]},
        {"layout": [[1, 1]]},
        {"types": {"plot": 0.5}},
        {"types": {"plot": -1}},
        {"colours": [["plot", "#FF0000"]]},
        {"readable": "yes"},
        {"positions": [["a", 10**400, 0, True]]},
        {"inches": [6]},
    ],
    ids=lambda forged: next(iter(forged)),
)
def test_facts_of_a_wrong_shape_are_refused(forged):
    with pytest.raises(ValueError, match="expected types|incomplete"):
        chartmimic.scores(figure(), figure(**forged))
    with pytest.raises(ValueError, match="incomplete"):
        chartmimic.scores(figure(), {"texts": []})


def test_forged_counts_cost_neither_memory_nor_gain_anything():
    assert chartmimic.scores(figure(), figure(types={"plot": 10**18}))["type_f1"] < 1e-9


# ------------------------------------------------------------------------------------------------------------ programs
HEAD = "from datetime import datetime\nimport matplotlib.pyplot as plt\n"


def facts_of(renderer, programs) -> list[dict]:
    results = [future.result() for future in [renderer.submit(code, "figure facts") for code in programs]]
    assert all(result.facts for result in results), [result.error for result in results]
    return [json.loads(result.facts) for result in results]


# Programs of our own, and what the originals' code gave for them (NAMES): ChartMimic c9e149c with matplotlib 3.10.8,
# where `_makeline` is now `_make_line`, and Plot2Code 12bd95a. Both gave the same with what they pin (matplotlib 3.8.4,
# networkx 3.2.1, matplotlib-venn 0.11.10), but for the text match of 3-D and 2-D bars, whose ticks are others: 5/17.
PAIRS = {
    "bars": (
        "plt.bar(['a', 'b', 'c'], [1, 2, 3], color='teal'); plt.title('Fruit'); plt.ylabel('kg')",
        "plt.bar(['a', 'b', 'd'], [1, 2, 3], color='navy'); plt.title('Fruit'); plt.ylabel('tonnes')",
        (0.5, 1, 1, 0.555618, 0.733333),
    ),
    "texts at categories": (
        "for name, n in zip('abc', (1, 2, 3)): plt.bar(name, n, color='teal'); plt.text(name, n, f'{n} kg')",
        "for name, n in zip('abc', (1, 2, 4)): plt.bar(name, n, color='teal'); plt.text(name, n, f'{n} kg')",
        (0.666667, 1, 1, 1, 0.578947),
    ),
    "texts at dates": (
        "days = [datetime(2024, 3, d) for d in (1, 2, 3)]\n"
        "plt.plot(days, [1, 3, 2], 'r'); plt.annotate('top', (days[1], 3))",
        "days = [datetime(2024, 3, d) for d in (1, 2, 3)]\n"
        "plt.plot(days, [1, 3, 2], 'b'); plt.annotate('top', (days[2], 3))",
        (1, 1, 1, 0.471199, 0.909091),
    ),
    "polar": (
        "ax = plt.subplot(projection='polar'); ax.plot([0, 1, 2], [1, 2, 3], 'g'); ax.scatter([1], [2], color='r')",
        "ax = plt.subplot(projection='polar'); ax.plot([0, 1, 2], [1, 2, 3], 'c'); ax.fill([0, 1, 2], [1, 2, 3], 'r')",
        (0, 1, 0.5, 0.32028, 1),
    ),
    "bars in 3-D and 2-D": (
        "plt.subplot(projection='3d').bar([1, 2], [3, 4], color=['r', 'g']); plt.title('Bars')",
        "plt.subplot().bar([1, 2], [3, 4], color=['r', 'g']); plt.title('Bars')",
        (0.285714, 1, 1, 0, 0.277778),
    ),
    "spans": (
        "plt.axvspan(0, 1, color='red'); plt.axhspan(2, 3, color='gold'); plt.axhline(1, color='k')",
        "plt.axvspan(0, 1, color='blue'); plt.axhspan(2, 3, color='gold'); plt.axvline(1, color='k')",
        (0, 1, 0.666667, 0.4904, 0.296296),
    ),
    "one bar coloured afterwards": (
        "bars = plt.bar(range(3), [1, 2, 3], color='#336699'); bars[1].set_color((1, 0, 0, 1)); plt.title('High')",
        "plt.bar(range(3), [1, 2, 3], color=['#336699', 'red', '#336699']); plt.title('High')",
        (1, 1, 1, 0.666667, 1),
    ),
    "the last bar coloured by name": (
        "plt.bar(range(3), [1, 2, 3], color='#336699')",
        "plt.bar(range(3), [1, 2, 3], color='#336699')[2].set_color('red')",
        (0, 1, 1, 0, 1),
    ),
    "a circle and an ellipse": (
        "plt.gca().add_patch(plt.Circle((0.5, 0.5), 0.2, color='purple')); plt.xlabel('x')",
        "from matplotlib.patches import Ellipse\nplt.gca().add_patch(Ellipse((0.5, 0.5), 0.4, 0.4, color='violet'))",
        (0, 1, 1, 0.600882, 0.923077),
    ),
    "treemaps": (
        "import squarify\nsquarify.plot([4, 3, 2], color=['r', 'g', 'b'], label=['A', 'B', 'C'])",
        "import squarify\nsquarify.plot([4, 3], color=['r', 'y'], label=['A', 'B'])",
        (0.8, 1, 1, 0.67312, 0.705882),
    ),
    "Venn diagrams": (
        "from matplotlib_venn import venn2\nvenn2((3, 2, 1), ('dogs', 'cats'), set_colors=('r', 'g'))",
        "from matplotlib_venn import venn2\nvenn2((3, 2, 2), ('dogs', 'mice'), set_colors=('r', 'b'))",
        (0.6, 1, 1, 0.624525, 0.428571),
    ),
    "graph_1": (
        "import networkx as nx\n"
        "plt.figure().add_axes((0, 0, 1, 1)); G = nx.path_graph(3)\n"
        "nx.draw(G, nx.circular_layout(G), node_color='orange', with_labels=True)",
        "import networkx as nx\n"
        "figure, both = plt.subplots(1, 2); G = nx.path_graph(3)\n"
        "nx.draw(G, nx.circular_layout(G), node_color='brown', with_labels=True)",
        (1, 0.666667, 1, 0.847149, 0.2),
    ),
    "statistics": (
        "plt.hist([[1, 2, 2], [2, 3, 3]], color=['tan', 'lime']); plt.boxplot([[1, 2, 9]], patch_artist=True)",
        "plt.hist([1, 2, 2], color='olive'); plt.violinplot([[1, 2, 9]]); plt.boxplot([[1, 2, 9]])",
        (0, 1, 0.8, 0.298221, 1),
    ),
    "grids": (
        "for k in (1, 2, 3): plt.subplot(2, 2, k).plot([k, 1], label=str(k)); plt.legend()",
        "for k in (1, 2, 3): plt.subplot(2, 2, k + k // 3).plot([k, 1], label=str(k)); plt.legend()",
        (1, 0.666667, 1, 1, 1),
    ),
    "colour maps": (
        "plt.imshow([[0, 1]], cmap='magma'); plt.colorbar(label='depth'); plt.scatter([0], [0], c=[1], cmap='bone')",
        "plt.imshow([[0, 1]], cmap='magma'); plt.colorbar(); plt.scatter([0], [0], c=[1], cmap='hot')",
        (0, 1, 1, 0.5, 0.956522),
    ),
    "sizes": (
        "plt.figure(figsize=(6, 4)); plt.plot([1, 2]); plt.text(40, 1, 'far'); plt.figtext(0.1, 0.9, 'note')",
        "plt.figure(figsize=(3, 4)); plt.plot([1, 2]); plt.text(20, 1, 'far'); plt.figtext(0.1, 0.9, 'note')",
        (1, 1, 1, 1, 0.4),
    ),
    "nothing written": (
        "plt.plot([1, 2], 'k'); plt.axis('off')",
        "plt.plot([2, 1], 'k'); plt.axis('off')",
        (0, 1, 1, 1, 1),
    ),
}


@pytest.fixture(scope="module")
def facts_of_pairs(renderer):
    facts = iter(facts_of(renderer, [HEAD + code for pair in PAIRS.values() for code in pair[:2]]))
    return dict(zip(PAIRS, zip(facts, facts, strict=True), strict=True))


@pytest.mark.parametrize("pair", PAIRS)
def test_as_published_is_what_the_originals_gave(facts_of_pairs, pair):
    scores = all_scores(*facts_of_pairs[pair], as_published=True, graph=pair.startswith("graph"))
    assert [scores[name] for name in NAMES] == pytest.approx(PAIRS[pair][2], abs=1e-4)


OTHERWISE = {  # and why, in README
    ("texts at categories", "text_match"): 13 / 17,
    ("texts at dates", "text_match"): 1,
    ("one bar coloured afterwards", "colour_f1"): 1,
    ("the last bar coloured by name", "colour_f1"): 2 / 3,
}


def test_the_default_differs_only_where_something_was_lost(facts_of_pairs):
    for pair, facts in facts_of_pairs.items():
        scores = all_scores(*facts, graph=pair.startswith("graph"))
        for name, published in zip(NAMES, PAIRS[pair][2], strict=True):
            expected = OTHERWISE.get((pair, name), published)
            nothing = name == "text_f1" and not facts[0]["texts"] and not facts[1]["texts"]
            assert scores[name] == pytest.approx(1 if nothing else expected, abs=1e-4), (pair, name)
        for side in facts:
            assert set(all_scores(side, side).values()) == {1}, (pair, "the same figure twice is perfect")


# Matplotlib 3.11, with which the numbers were made, puts other ticks on these axes than 3.10.8; with that the original
# gives what stands here.
OTHER_TICKS = {
    ("real22_moretext", "text_match"): 20 / 21,
    ("real24_layout", "text_match"): 11 / 14,
    ("real36_moretext", "text_match"): 26 / 27,
}
# More than ten colours are thinned in the order of a set of strings, another one in each process of the original.
BY_CHANCE = {("s_manycolours", "colour_f1")}


def test_the_shared_pairs_are_scored_as_published(renderer):
    if not CASES.is_dir():
        pytest.skip("../shared/cases/metrics is not here: pairs of programs, with what the originals gave for them")
    expected = {
        key.partition("/")[2]: scores["chartmimic"] | {"text_match": scores.get("plot2code.text", {}).get("m")}
        for key, scores in json.loads((CASES / "originals.json").read_text()).items()
        if key.startswith("chart/")
    }
    paths = [CASES / f"pairs/chart/{pair}.{side}.py" for pair in expected for side in ("gold", "pred")]
    facts = iter(facts_of(renderer, [path.read_text() for path in paths]))
    compared = 0
    for pair, numbers in expected.items():
        scores = all_scores(next(facts), next(facts), as_published=True)
        for name, number in numbers.items():
            number = OTHER_TICKS.get((pair, name), number)
            if number is not None and (pair, name) not in BY_CHANCE:
                assert scores[name] == pytest.approx(number, abs=1e-3), (pair, name)
                compared += 1
    assert compared > 180


# --------------------------------------------------------------------------------------------------------------- facts
EVERYTHING = """
import matplotlib.pyplot as plt, networkx as nx, numpy as np, squarify
from matplotlib.image import NonUniformImage
from matplotlib.patches import Circle, Ellipse
from matplotlib_venn import venn2
from mpl_toolkits.mplot3d.art3d import Poly3DCollection
ax = plt.figure().add_subplot()
ax.plot([1, 2], color="#000001")
ax.axhline(1, color="#000002"), ax.axvline(1, color="#000003")
ax.axhspan(1, 2, color="#000004"), ax.axvspan(1, 2, color="#000005")
ax.bar([1], [1], color="#000006"), ax.barh([1], [1], color="#000006")
ax.fill([0, 1, 1], [0, 0, 1], color="#000007")
ax.pie([1], colors=["#000008"])
ax.boxplot([[1, 2]], patch_artist=True, boxprops={"facecolor": "#000009"})
ax.hist([1, 2], color="#00000A")
ax.scatter([1], [1], color="#00000B")
ax.fill_between([0, 1], [1, 2], color="#00000C"), ax.fill_betweenx([0, 1], [1, 2], color="#00000C")
ax.violinplot([[1, 2, 3]])["bodies"][0].set_facecolor("#00000D")
ax.violin([dict(coords=[0, 1], vals=[1, 1], mean=1, median=1, min=0, max=1)])
ax.quiver([1], [1], color="#00000E"), ax.broken_barh([(1, 1)], (0, 1), color="#00000F")
ax.hlines([1], 0, 1, color="#000010"), ax.vlines([1], 0, 1, color="#000011")
square = [[0, 1], [2, 3]]
ax.imshow(square, cmap="bone"), ax.pcolor(square, cmap="pink")
ax.contour(square, cmap="hot"), ax.contourf(square, cmap="cool")
ax.tripcolor([0, 1, 0], [0, 0, 1], [1, 2, 3], cmap="gray")
ax.errorbar([1], [1], color="#000012")
ax.add_image(NonUniformImage(ax, cmap="copper"))
ax.add_patch(Circle((0, 0), 1, color="#000013")), ax.add_patch(Ellipse((0, 0), 1, 2, color="#000014"))
polar = plt.figure().add_subplot(projection="polar")
polar.plot([0, 1], [1, 2], color="#000015"), polar.scatter([0], [1], color="#000016")
solid = plt.figure().add_subplot(projection="3d")
solid.plot([0, 1], [0, 1], [0, 1], color="#000017"), solid.scatter([0], [0], [0], color="#000018", depthshade=False)
solid.bar([1], [1], color="#000019"), solid.bar3d(0, 0, 0, 1, 1, 1, color="#00001A", shade=False)
x = np.array(square)
solid.plot_surface(x, x.T, x, color="#00001B", shade=False)
solid.add_collection3d(Poly3DCollection([[(0, 0, 0), (1, 0, 0), (0, 1, 0)]], facecolors="#00001C"))
plt.figure()
graph, places = nx.path_graph(2), {0: (0, 0), 1: (1, 1)}
nx.draw_networkx_nodes(graph, places, node_color="#00001D")
nx.draw_networkx_edges(graph, places, edge_color="#00001E")
nx.draw_networkx_labels(graph, places, font_color="#00001F")
squarify.plot([1], color="#000020")
venn2((1, 1, 1), set_colors=("#000021", "#000021"))
"""


def test_every_function_of_the_originals_list_counts_and_has_a_colour(renderer):
    (facts,) = facts_of(renderer, [EVERYTHING])
    types = {
        chart_facts.SAME_TYPE.get(key, key)
        for place, names in chart_facts.TYPES.items()
        for name in names.split()
        for key in [".".join(filter(None, (place.partition(":")[2], name)))]
    }
    assert facts["types"].keys() == types | {"Axes.plot_polar"}
    found: dict[str, set] = {}
    for function, colour, _ in facts["colours"]:
        if colour != "#FF7F0E":  # the violin's own
            found.setdefault(function, set()).add(colour)
    lines, shapes = found.pop("_process_plot_var_args._make_line"), found.pop("Ellipse.__init__")
    assert lines >= {"#000001", "#000012"} and shapes >= {"#000013", "#000014"}
    assert all(len(colours) == 1 for key, colours in found.items() if key != "VennDiagram.__init__"), found
    assert "#000021" in found.pop("VennDiagram.__init__")
    maps = {"imshow": "bone", "pcolor": "pink", "contour": "hot", "contourf": "cool", "tripcolor": "gray"}
    maps = {f"Axes.{function}": {of} for function, of in maps.items()}
    maps["NonUniformImage.__init__"] = {"copper"}
    assert {key: found.pop(key) for key in maps} == maps
    given = {f"#{k:06X}" for k in range(0x02, 0x21)} - {"#000012", "#000013", "#000014"}
    assert set().union(*found.values()) == given, "the colours given, each with its function"
    assert len(found) == len(given)


UNREADABLE = """
import matplotlib.pyplot as plt
from matplotlib.text import Text
class Odd(Text):
    def get_position(self): raise RuntimeError("nowhere")
figure, (ax, other) = plt.subplots(1, 2)
line, bars = ax.plot([1, 2], color="red")[0], other.bar([1], [2], color="blue")
ax.set_title("Title")
figure.canvas.draw()
ax.add_artist(Odd(0.5, 0.5, "odd"))
line.get_color = None
ax.set_xticks = lambda *_: 1 / 0
other.get_subplotspec = lambda: 1 / 0
"""


def test_what_cannot_be_read_costs_itself_alone(renderer):
    (facts,) = facts_of(renderer, [UNREADABLE])
    assert facts["types"] == {"Axes.plot": 1, "Axes.bar": 1}
    assert facts["layout"] == [[1, 2, 0, 0, 0, 0], None]
    assert facts["colours"] == [["Axes.bar", "#0000FF", True]] and not facts["readable"]
    assert {"Title", "odd"} <= set(facts["texts"])
    assert ["title", 0.5, 1.0, True] in facts["positions"] and "odd" not in {p[0] for p in facts["positions"]}
    assert set(all_scores(facts, facts).values()) == {1}


def test_the_figure_is_the_current_one_or_the_last_drawn(renderer):
    two = "for name in ('one', 'two'): plt.figure(); plt.plot([1, 2]); plt.title(name)\n"
    two += "plt.figure(1).savefig('x.png'); plt.figure(2)"
    closed = "plt.plot([1, 2]); plt.title('gone'); plt.savefig('x.png'); plt.close()"
    later = "plt.plot([1, 2]); plt.show(); plt.title('late'); plt.xlim(0, 9)"
    facts = facts_of(renderer, [HEAD + code for code in (two, closed, later)])
    assert [one["texts"] for one in facts] == [["two"], ["gone"], ["late"]]
    assert {"8", "late"} <= {position[0] for position in facts[2]["positions"]}, "drawn again, with its new ticks"


# ------------------------------------------------------------------------------------------------------------- scoring
def measured(facts: tuple, id: str = "x", colour: str = "red", **options) -> dict:
    def done(result) -> Future:
        future: Future = Future()
        future.set_result(result)
        return future

    def inspected(facts) -> Future:
        return done(Rendering(None, None, 0.0, facts=facts if isinstance(facts, str) else json.dumps(facts)))

    drawn = Rendering(Image.new("RGB", (4, 4), colour), None, 0.0)
    sample = Sample(id, "chartmimic", "python", drawn.image, "Draw it.", code="x")
    job = Job(sample, "x", done(drawn), (inspected(facts[1]), inspected(facts[0])))
    return Scorer(None, **options).measure(job, drawn)


def test_scoring_of_charts():
    assert set(measured((figure(), figure())).values()) == {1.0}
    free = figure(layout=[None])
    assert measured((free, figure()))["chartmimic.layout_f1"] == 0
    assert measured((free, figure()), "chartmimic/graph_3")["chartmimic.layout_f1"] == 1
    white = measured((figure(), figure()), colour="white", as_published=True)
    assert white["plot2code.text_match"] is None, "Plot2Code leaves white pictures out"
    for forged in ("{}", "[", figure(types={"plot": "many"}), figure(positions=[["a", 10**400, 0, True]])):
        assert set(measured((figure(), forged)).values()) == {0.0}
