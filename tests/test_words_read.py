"""Words that are read off pictures: rapidocr for targets, and the watch on what programs say they wrote."""

import importlib.util
import json
import shutil
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from corpus.words import by_rapidocr, reader, sure_ones
from data import Sample
from languages.protocol import Word
from records import Record, RecordWriter
from render import Rendering
from report.answers import Page
from report.curves import plot_curves
from report.words_read import ANSWERS, watch
from reward import Rewards

PAGE = "<body style='font: 24px Arial'><h1>Quarterly results</h1><p>Nothing changed in January 2024.</p>"
WRONG = (
    PAGE.replace("Quarterly", "ylretrauQ").replace("Nothing changed", "gnihtoN degnahc").replace("January", "yraunaJ")
)
needs_tesseract = pytest.mark.skipif(
    shutil.which("tesseract") is None, reason="tesseract is not here (apt install tesseract-ocr)"
)


# ---- rapidocr --------------------------------------------------------------------------------------------------------


def box(left: int, top: int, right: int, bottom: int) -> list[list[int]]:
    return [[left, top], [right, top], [right, bottom], [left, bottom]]


def test_what_rapidocr_says_is_understood():
    """An answer in the shape of its version 3.10, of a picture that was read in twice its size."""
    lines = (
        ("Sales of fruit", 0.99882, box(400, 34, 580, 75), (
            ("Sales", 0.99977, box(404, 34, 476, 74)),
            ("of", 0.2, box(491, 34, 510, 75)),  # which is a letter's number
            ("fruit", 0.99999, box(525, 35, 577, 75)),
        )),
        ("-2.5", 0.9997, box(49, 116, 109, 155), (("-2.5", 0.99885, box(49, 116, 109, 155)),)),
        ("\u6807\u9898 2020", 0.97316, box(400, 198, 520, 238), tuple(
            (one, 0.99, box(400 + 20 * k, 198, 418 + 20 * k, 238)) for k, one in enumerate("\u6807\u98982020")
        )),
        ("doubtful", 0.61, box(0, 300, 99, 340), (("doubtful", 0.99, box(0, 300, 99, 340)),)),
        ("kilograms weekly", 0.97819, box(156, 400, 196, 600), (
            ("kilograms", 0.99991, box(156, 400, 196, 500)),
            ("weekly", 0.99996, box(156, 540, 196, 600)),
        )),
    )  # fmt: skip
    txts, scores, boxes, word_results = zip(*lines, strict=True)
    found = SimpleNamespace(
        txts=txts, scores=scores, boxes=np.array(boxes, dtype=np.float32), word_results=word_results
    )
    seen = []

    def engine(pixels, return_word_box):
        seen.append((pixels.shape, pixels[0, 0].tolist(), return_word_box))
        return found

    def direction(label):
        return lambda pixels: seen.append(pixels.shape) or SimpleNamespace(cls_res=[(label, 0.99)])

    picture = Image.new("RGB", (640, 480), (255, 0, 9))
    words = by_rapidocr(engine, direction("0"), picture)
    # OpenCV's order of colours; the line that runs up or down, laid on its side
    assert seen == [((960, 1280, 3), [9, 0, 255], True), (40, 200, 3)]
    assert [word.text for word in words] == ["Sales", "fruit", "-2.5", "kilograms", "weekly"]
    assert [tuple(word[1:5]) for word in words[2:]] == [(24, 58, 54, 77), (78, 200, 98, 250), (78, 270, 98, 300)]
    words = by_rapidocr(engine, direction("180"), picture)
    assert [tuple(word[1:5]) for word in words[2:]] == [(24, 58, 54, 77), (78, 250, 98, 300), (78, 200, 98, 230)]
    nothing = SimpleNamespace(txts=None, scores=None, boxes=None, word_results=(("", 1.0, None),))
    assert by_rapidocr(lambda pixels, return_word_box: nothing, direction("0"), picture) == []


def test_words_that_could_be_misread_are_left_out():
    """Parts of formulas, single letters, what the engine doubts; and all of a picture that has little else."""
    sizes = [
        (Word(text, 0, 0, 9, 9), 95.0)
        for text in ("Energy", "don\u2019t", "e-mail", "12,5", "-3", "(Largest)", "\u00dcber")
    ]
    formulas = [(Word(text, 0, 0, 9, 9), 99.0) for text in ("x", "of", "re(po", "x1", "sin2x", "a=b", "$3.50", "3rd")]
    doubted = [(Word("Energy", 0, 0, 9, 9), 69.0), (Word("12", 0, 0, 9, 9), 92.0)]
    assert sure_ones(sizes + formulas + doubted) == [word for word, _ in sizes]
    assert sure_ones(sizes[:4] + formulas) == [] != sure_ones(sizes[:5] + formulas)


def test_a_rapidocr_that_is_not_here_or_too_old_is_named(monkeypatch):
    old = SimpleNamespace(RapidOCR=object, OCRVersion=SimpleNamespace(PPOCRV4="PP-OCRv4", PPOCRV5="PP-OCRv5"))
    for module in (None, SimpleNamespace(RapidOCR=object), old):
        monkeypatch.setitem(sys.modules, "rapidocr", module)
        with pytest.raises(RuntimeError, match="pip install 'rapidocr>=3.9' onnxruntime"):
            reader("rapidocr")


@pytest.mark.skipif(
    importlib.util.find_spec("rapidocr") is None,
    reason="rapidocr is not here (pip install 'rapidocr>=3.9' onnxruntime)",
)
def test_rapidocr_reads_a_chart(renderer):
    """Words, words that stand upright, numbers with a minus sign, each where the program says it is."""
    code = (
        "import matplotlib.pyplot as plt\nfig, ax = plt.subplots(figsize=(5, 4))\nax.plot([-2, 2], [-30, 30])\n"
        "ax.set_title('Fruit by weight')\nax.set_ylabel('kilograms a day')\n"
        "fig.text(0.93, 0.3, 'going downwards', rotation=270)\n"
    )
    drawn = renderer.render(code, "python")
    words = {word.text: word for word in reader("rapidocr")(drawn.image)}
    assert {"Fruit", "by", "weight", "kilograms", "day", "20", "-1.5"} <= set(words)
    for word in drawn.words:
        if word.text in ("Fruit", "weight", "kilograms", "day", "going", "downwards"):
            for side in range(1, 5):
                assert abs(word[side] - words[word.text][side]) < 10


# ---- the watch -------------------------------------------------------------------------------------------------------


def a_run(folder, renderer, answers: list[tuple[Image.Image, tuple]]) -> None:
    """RUN/samples of step 7: answers to one target, by their pictures and the words that their programs said."""
    target = renderer.render(PAGE, "html")
    sample = Sample("page/1", "html", "html", target.image, "Draw it.", PAGE)
    rewards = Rewards()
    rewards.prepare([sample], renderer)
    drawings = [Rendering(image, None, 0.1, words=words) for image, words in answers]
    scores = rewards.score([sample] * len(answers), ["```html\n<p>\n```"] * len(answers), drawings)
    with RecordWriter(folder / "samples") as writer:
        for index, (drawing, score) in enumerate(zip(drawings, scores, strict=True)):
            writer.append(Record(replace(sample, drawing=None), index, "", "<p>", drawing, score))
    (folder / "samples" / "step").write_text("7\n")


@needs_tesseract
def test_words_that_nobody_sees_are_found_out(renderer, tmp_path):
    """A right answer, a wrong one, and a wrong one whose program says what the right one does."""
    right, wrong = renderer.render(PAGE, "html"), renderer.render(WRONG, "html")
    a_run(tmp_path, renderer, [(right.image, right.words), (wrong.image, wrong.words), (wrong.image, right.words)])
    (tmp_path / "metrics.jsonl").write_text('{"step": 7, "loss": 1.0}\n')
    Page(tmp_path)()
    rows = {row["answer"]: row for row in map(json.loads, (tmp_path / "words_read.jsonl").read_text().splitlines())}
    honest, mistaken, lying = rows[0], rows[1], rows[2]
    assert honest == {"step": 7, "target": "page/1", "answer": 0, "text": 1.0, "read": 1.0, "distance": 0.0}
    assert mistaken["text"] < 0.5 and mistaken["distance"] < 0.2
    assert (
        lying["text"] > 0.8
        and lying["distance"] == pytest.approx(lying["text"] - lying["read"])
        and lying["distance"] > 0.5
    )
    page = (tmp_path / "samples.html").read_text()
    assert "Words of 3 answers: text" in page and "of answer 2 to page/1" in page
    plot_curves(tmp_path / "metrics.jsonl", tmp_path / "curves.png")
    before = Image.open(tmp_path / "curves.png").size
    (tmp_path / "words_read.jsonl").unlink()
    plot_curves(tmp_path / "metrics.jsonl", tmp_path / "curves.png")
    assert before[0] > Image.open(tmp_path / "curves.png").size[0]  # a panel less


@needs_tesseract
def test_the_watch_reads_a_few(renderer, tmp_path):
    right = renderer.render(PAGE, "html")
    a_run(tmp_path, renderer, [(right.image, right.words)] * (ANSWERS + 3))
    said = [watch(tmp_path), watch(tmp_path)]
    rows = [json.loads(line)["answer"] for line in (tmp_path / "words_read.jsonl").read_text().splitlines()]
    assert said[0] == said[1] and f"Words of {ANSWERS} answers" in said[0]
    assert len(set(rows)) == ANSWERS and rows[:ANSWERS] == rows[ANSWERS:]  # the same step, the same answers


def test_a_page_without_a_reader(renderer, tmp_path, monkeypatch):
    """No tesseract, an unknown `text`, a run of before, a broken step: the page is there, and nothing is logged."""
    right = renderer.render(PAGE, "html")
    a_run(tmp_path, renderer, [(right.image, right.words)])
    with monkeypatch.context() as patch:
        patch.setattr("shutil.which", lambda name: None)
        Page(tmp_path)()
    assert "tesseract is not here" in (tmp_path / "samples.html").read_text()
    (tmp_path / "samples" / "step").write_text("")
    Page(tmp_path)()
    assert "Words: no answer was read off its picture" in (tmp_path / "samples.html").read_text()
    (tmp_path / "samples" / "step").unlink()
    assert watch(tmp_path) == ""
    (tmp_path / "samples" / "step").write_text("7\n")
    records = tmp_path / "samples" / "records.jsonl"
    records.write_text(records.read_text().replace('"text": 1.0', '"text": null'))
    assert watch(tmp_path) == "" and not (tmp_path / "words_read.jsonl").exists()
