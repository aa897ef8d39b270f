"""eval.py and report/: statistics against known cases, records kept, and a report in which nothing can run."""

import json
import os
import re
import time
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image, ImageDraw

import data
import eval as evaluation
from answers import rounds
from answers.recorded import read_records
from data import Sample
from eval import Record
from metrics.pixels import ssim
from records import FAILURES, RecordWriter
from render import Rendering
from report import before_after, curves, effort, statistics
from report import page as html_page
from reward import Rewards, Score

HOSTILE = [
    '</script><script>alert("script")</script><!--<script>',
    "<img src=x onerror=\"alert('img')\"> <svg onload=alert(1)><a href='javascript:alert(2)'>link</a></svg>",
    "]]></style></pre><iframe srcdoc='<script>alert(3)</script>'></iframe>{{data}}${alert(4)}\\u003cscript>\u2028",
]


def picture(seed: int, size=(96, 72)) -> Image.Image:
    """A small scene of rectangles and ellipses."""
    rng = np.random.default_rng(seed)
    image = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(image)
    for shape in (draw.rectangle, draw.ellipse, draw.rectangle):
        x, y = rng.integers(0, size[0] // 2), rng.integers(0, size[1] // 2)
        box = (x, y, x + rng.integers(12, size[0] // 2), y + rng.integers(12, size[1] // 2))
        shape([int(v) for v in box], fill=tuple(int(c) for c in rng.integers(0, 255, 3)))
    return image


def sample(number: int, domain="svg", **more) -> Sample:
    return Sample(
        f"{domain}/{number:03d}", domain, more.pop("language", "svg"), picture(number), "Write the svg.", **more
    )


def record(target: Sample, index=0, visual=0.5, image="same", code="<svg/>", error=None, **more) -> Record:
    image = target.image if image == "same" else image
    executed = image is not None
    fine = [visual] * 4 if executed else [0.0] * 4
    score = Score(visual, visual, fine, (2, 2), total=0.9 * visual, alignment=1.0, executed=executed, error=error)
    text = f"```svg\n{code}\n```" if code else "I cannot."
    return Record(target, index, text, code, Rendering(image, error, 0.01), score, ssim(target.image, image), **more)


def save_records(records, folder) -> None:
    with RecordWriter(folder) as writer:
        for one in records:
            writer.append(one)


def load_records(folder) -> list[Record]:
    return list(read_records(folder))


def evaluate(*arguments, **options) -> list[Record]:
    return list(evaluation.evaluate(*arguments, **options))


# --------------------------------------------------------------------------------------------------------- statistics
def test_bootstrap_of_constants_has_no_width():
    assert statistics.bootstrap([0.25] * 40) == (0.25, 0.25, 0.25)
    assert statistics.bootstrap([0.7]) == (0.7, 0.7, 0.7)


def test_bootstrap_matches_the_normal_interval():
    values = np.random.default_rng(1).normal(0.4, 0.2, 400)
    mean, low, high = statistics.bootstrap(values)
    half = 1.96 * values.std() / np.sqrt(len(values))
    assert mean == pytest.approx(values.mean())
    assert (low, high) == pytest.approx((mean - half, mean + half), abs=0.1 * half)
    assert (mean, low, high) == statistics.bootstrap(values), "seeded: the same numbers again"
    with pytest.raises(ValueError, match="nothing to average"):
        statistics.bootstrap([])


def test_paired_bootstrap_sees_a_shift_that_unpaired_intervals_hide():
    rng = np.random.default_rng(0)
    hardness = rng.uniform(0, 1, 200)
    a, b = hardness + rng.normal(0.03, 0.05, 200), hardness + rng.normal(0, 0.05, 200)
    mean, low, high = statistics.paired_bootstrap(a, b)
    assert 0 < low < mean < high
    assert statistics.bootstrap(a)[1] < statistics.bootstrap(b)[2], "unpaired, the intervals overlap"
    mean, low, high = statistics.paired_bootstrap(b, hardness)
    assert low < 0 < high
    with pytest.raises(ValueError, match="same targets"):
        statistics.paired_bootstrap(a, b[:-1])


def test_interval_covers_the_truth_about_95_times_in_100():
    rng = np.random.default_rng(3)
    covered = 0
    for trial in range(200):
        _, low, high = statistics.bootstrap(rng.uniform(0, 1, 60), resamples=1000, seed=trial)
        covered += low <= 0.5 <= high
    assert 180 <= covered <= 199


def test_samples_of_a_target_are_averaged_first_and_failures_count_zero():
    easy, hard = sample(0), sample(1)
    records = [record(easy, i, visual=1.0) for i in range(4)]
    records += [record(hard, 0, visual=0.8), record(hard, 1, visual=0.0, image=None, error="NameError: x")]
    assert statistics.per_target(records, "visual") == {"svg/000": 1.0, "svg/001": 0.4}
    assert statistics.per_target(records, "ssim")["svg/001"] == pytest.approx(0.5)
    overall = statistics.summarize(records)["overall"]
    assert overall["targets"] == 2 and overall["samples"] == 6
    assert overall["visual"][0] == pytest.approx(0.7)
    assert overall["execute"][0] == pytest.approx(0.75)
    assert overall["failures"] == {"runtime error": 1}


def test_summary_has_every_domain():
    records = [record(sample(0), visual=1.0), record(sample(0, "chart"), visual=0.5)]
    summary = statistics.summarize(records)
    assert list(summary) == ["overall", "chart", "svg"]
    assert summary["chart"]["visual"] == (0.5, 0.5, 0.5)
    with pytest.raises(ValueError, match="no records"):
        statistics.summarize([])


def test_table_is_aligned_and_comparison_says_what_is_not_significant():
    targets = [sample(i) for i in range(40)]
    noise = np.random.default_rng(0).normal(0, 0.02, 40)
    sft = [record(t, visual=0.5 + e) for t, e in zip(targets, noise, strict=True)]
    virl = [record(t, visual=0.6 - e) for t, e in zip(targets, noise, strict=True)]
    runs = {
        "SFT": sft,
        "ViRL": virl,
        "SFT again": [record(t, visual=0.5 - e) for t, e in zip(targets, noise, strict=True)],
    }
    lines = statistics.table(runs).splitlines()
    assert len(lines) == 2 + 3
    start = lines[0].index("visual score")
    assert all(re.match(r"0\.\d{3} \[0\.\d{3}, 0\.\d{3}\]", line[start:]) for line in lines[2:])
    assert re.fullmatch(
        r"ViRL - SFT: \+0\.\d+ \[\+0\.\d+, \+0\.\d+\] \(95 % paired bootstrap over 40 targets\)",
        statistics.compare("ViRL", virl, "SFT", sft),
    )
    assert "no significant change" in statistics.compare("SFT again", runs["SFT again"], "SFT", sft)
    assert "no targets in common" in statistics.compare("a", [record(sample(99))], "b", sft)
    sampled = [record(t, decoding="sampled T=1") for t in targets]
    assert len(statistics.comparisons(runs)) == 3
    assert statistics.comparisons({"greedy": sft, "sampled": sampled}) == [], "different decoding is not compared"


# ------------------------------------------------------------------------------------------------------------- metrics
@pytest.mark.parametrize("size", [(96, 72), (7, 7), (3, 40), (1, 1)])
def test_ssim(size):
    image = picture(4, size) if min(size) > 10 else Image.new("RGB", size, "navy")
    assert ssim(image, image.copy()) == pytest.approx(1.0)
    assert ssim(image, None) == 0.0
    assert ssim(image, Image.new("RGB", (300, 20), "orange")) < 0.9


def test_failure_categories():
    target = sample(0)
    blank = Image.new("RGB", (20, 20), "white")
    kinds = [
        record(target),
        record(target, code=None, image=None, finish="length"),
        record(target, image=None, error="NameError: name 'x' is not defined\n  line 2"),
        record(target, image=None, error="timed out after 10 s"),
        record(target, image=blank),
    ]
    assert [r.failure for r in kinds] == [None, "no code block", "runtime error", "time-out", "blank"]
    assert kinds[1].detail == "the answer was cut at the token limit"
    assert kinds[2].detail == "NameError: name 'x' is not defined"
    target.image = blank
    assert record(target).failure is None, "a blank target asks for a blank picture"


# ---------------------------------------------------------------------------------------------------------- evaluation
class FakePolicy:
    """Its prompts are the samples themselves."""

    def encode(self, sample):
        return sample


class FakeRenderer:
    """`colour w h` is a program; everything else fails."""

    missing: dict = {}

    def submit(self, code, language, canvas=None):
        future = Future()
        try:
            colour, width, height = code.split()
            image = Image.new("RGB", (int(width), int(height)), "white")
            image.paste(colour, (4, 4, int(width) // 2, int(height) // 2))
            future.set_result(Rendering(image, None, 0.001))
        except ValueError as error:
            future.set_result(Rendering(None, f"ValueError: {error}", 0.001))
        return future


def fake_generate(answers, calls):
    """A stand-in of rollout.generate: `answers(sample, g)` is the text; completions end out of order."""

    def generate(policy, prompts, G, max_new_tokens, temperature, seed):
        calls.append(SimpleNamespace(prompts=list(prompts), G=G, temperature=temperature, seed=seed))
        for prompt in reversed(prompts):
            for g in reversed(range(G)):
                text = answers(prompt, g)
                yield SimpleNamespace(sample_id=prompt.id, index=g, ids=np.arange(5), text=text, finish="eos")

    return generate


@pytest.fixture(scope="module")
def reward():
    return Rewards()


def test_evaluate_orders_records_and_scores_failures_zero(monkeypatch, reward):
    calls = []
    texts = ["```svg\nred 96 72\n```", "no code here", "```svg\nbroken\n```"]
    monkeypatch.setattr(rounds.rollout, "generate", fake_generate(lambda s, g: texts[g], calls))
    targets = [sample(i) for i in range(5)]
    options = {"G": 3, "temperature": 0.7, "chunk": 2}
    records = evaluate(FakePolicy(), targets, FakeRenderer(), reward, **options)
    assert [(r.sample.id, r.index) for r in records] == [(t.id, g) for t in targets for g in range(3)]
    assert [len(call.prompts) for call in calls] == [2, 2, 1]
    assert len({call.seed for call in calls}) == 3, "chunks draw different noise"
    assert [r.failure for r in records[:3]] == [None, "no code block", "runtime error"]
    assert records[0].score.visual > 0 and records[0].ssim > 0 and records[0].score.alignment == 1
    assert records[1].score.visual == records[1].ssim == records[1].score.alignment == 0
    assert records[2].score.visual == 0 and records[2].score.alignment == 1
    assert {r.decoding for r in records} == {"sampled T=0.7"}


def test_refinement_shows_the_last_code_and_keeps_all_rounds(monkeypatch, reward):
    calls, seen = [], []

    def answers(prompt, g):
        seen.append(prompt.draft)
        if prompt.draft is None:
            return ["```svg\nred 30 20\n```", "nothing"][g]
        return "```svg\nred 96 72\n```"

    monkeypatch.setattr(rounds.rollout, "generate", fake_generate(answers, calls))
    records = evaluate(FakePolicy(), [sample(0), sample(1)], FakeRenderer(), reward, G=2, refine=2)
    assert [len(r.attempts) for r in records] == [2] * 4
    assert [call.G for call in calls] == [2, 1, 1]
    assert {draft for draft in seen if draft} == {"red 30 20", "red 96 72"}
    first, nothing = records[:2]
    assert first.sample.draft is None, "records point to the target, not to the refinement prompt"
    assert [a.code for a in [*first.attempts, first]] == ["red 30 20", "red 96 72", "red 96 72"]
    assert nothing.code is None and [a.code for a in nothing.attempts] == [None, None], "no code: the attempt is kept"
    curve = statistics.summarize(records)["overall"]["rounds"]
    assert len(curve) == 3 and curve[1][0] > curve[0][0]
    assert statistics.refinement_lines({"run": records})[0].count("->") == 2


def test_a_chunk_is_asked_before_the_last_one_is_scored(monkeypatch, reward):
    events, calls = [], []
    answers = fake_generate(lambda s, g: "```svg\nred 96 72\n```", calls)
    monkeypatch.setattr(rounds.rollout, "generate", lambda *a, **k: events.append("asked") or answers(*a, **k))
    score = reward.score
    monkeypatch.setattr(reward, "score", lambda *a: events.append("scored") or score(*a))
    evaluate(FakePolicy(), [sample(i) for i in range(3)], FakeRenderer(), reward, chunk=1)
    assert events == ["asked", "asked", "scored", "asked", "scored", "scored"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_what_was_answered_before_an_error_is_scored(monkeypatch, reward, error):
    answers = fake_generate(lambda s, g: "```svg\nred 96 72\n```", [])

    def generate(policy, prompts, *a, **k):
        if prompts[0].id == sample(2).id:
            raise error("the third one")
        return answers(policy, prompts, *a, **k)

    monkeypatch.setattr(rounds.rollout, "generate", generate)
    options = {"chunk": 1}
    running = evaluation.evaluate(FakePolicy(), [sample(i) for i in range(4)], FakeRenderer(), reward, **options)
    assert [next(running).sample.id, next(running).sample.id] == [sample(0).id, sample(1).id]
    with pytest.raises(error, match="the third one"):
        next(running)


def test_bad_input_is_refused(monkeypatch, reward):
    monkeypatch.setattr(rounds.rollout, "generate", fake_generate(lambda s, g: "", []))
    options = (FakeRenderer(), reward)
    with pytest.raises(ValueError, match="two|Two"):
        evaluate(FakePolicy(), [sample(0), sample(0)], *options, chunk=1)
    with pytest.raises(ValueError, match="no target picture"):
        evaluate(FakePolicy(), [Sample("a", "svg", "svg", None, "p")], *options)
    with pytest.raises(ValueError, match="at least 1"):
        evaluate(FakePolicy(), [sample(0)], *options, G=0)


# ------------------------------------------------------------------------------------------------------------- storage
def test_records_round_trip(tmp_path):
    target = Sample("odd/../id \u00fc?*", "chart", "python", picture(0), "Plot it.", code="x = 1", draft=None)
    first = record(target, visual=0.2, code=HOSTILE[0])
    last = record(target, visual=0.9, code="print('\u00fc')", attempts=[first], tokens=12, decoding="sampled T=1")
    failed = record(target, 1, visual=0.0, image=None, error="SyntaxError: bad\nline 3")
    save_records([last, failed], tmp_path / "run")
    loaded = load_records(tmp_path / "run")
    for before, after in [(last, loaded[0]), (first, loaded[0].attempts[0]), (failed, loaded[1])]:
        for name in ("index", "text", "code", "ssim", "score", "tokens", "finish", "decoding", "failure", "detail"):
            assert getattr(before, name) == getattr(after, name), name
        assert before.rendering.error == after.rendering.error
        assert (before.rendering.image is None) == (after.rendering.image is None)
        assert before.sample.image.tobytes() == after.sample.image.tobytes()
        assert vars(before.sample) | {"image": 0} == vars(after.sample) | {"image": 0}
    assert loaded[0].rendering.image.tobytes() == last.rendering.image.tobytes()
    assert {path.parent.name for path in (tmp_path / "run").rglob("*.png")} == {"targets", "renders"}
    with pytest.raises(ValueError, match="already holds records"):
        save_records([last], tmp_path / "run")


def test_a_killed_run_keeps_what_was_done(tmp_path, capsys):
    save_records([record(sample(i)) for i in range(3)], tmp_path)
    path = tmp_path / "records.jsonl"
    text = path.read_text()
    path.write_text(text[:-50])
    assert [r.sample.id for r in load_records(tmp_path)] == ["svg/000", "svg/001"]
    assert "unfinished last record" in capsys.readouterr().err
    path.write_text("{broken\n" + text)
    with pytest.raises(ValueError, match="line 1 is not JSON"):
        load_records(tmp_path)
    with pytest.raises(FileNotFoundError, match="holds no records"):
        load_records(tmp_path / "nowhere")


# -------------------------------------------------------------------------------------------------------------- curves
def test_curves_draw_whatever_there_is(tmp_path):
    rng = np.random.default_rng(0)
    rows = [
        {"step": i, "loss": 3 / (1 + i), "reward/mean": 0.5 + i / 300, "reward/visual": 0.4 + i / 300, "render_ok": 0.9}
        | {
            "time/rollout": 2 + rng.random(),
            "time/update": 1.0,
            "entropy": 1.2,
            "response_length": 80,
            "odd metric": i % 7,
        }
        | ({"eval/visual": i / 100, "note": "text", "bad": float("nan")} if i % 20 == 0 else {})
        for i in range(100)
    ]
    path = tmp_path / "metrics.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)) + '\n{"step": 100, "lo')
    curves.plot_curves(path, tmp_path / "curves.png")
    image = Image.open(tmp_path / "curves.png")
    assert image.width > 1000 and len(image.convert("RGB").getcolors(2**24)) > 100
    series = curves._read_metrics(path)
    assert "note" not in series and "bad" not in series and len(series["eval/visual"][0]) == 5
    titles = [title for title, _ in curves._panels(series)]
    assert "odd metric" in titles and titles.index("Loss") < titles.index("Reward")
    path.write_text('{"step": 1}\n')
    with pytest.raises(ValueError, match="no numbers"):
        curves.plot_curves(path, tmp_path / "none.png")


def test_curves_of_a_run_are_a_command(script, tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 0, "loss": 2.5}\n{"step": 1, "loss": 2.0}\n')
    status, said = script("report/__main__.py", "curves", tmp_path)
    assert status == 0 and said.strip().endswith(f"wrote {tmp_path / 'curves.png'}")
    assert Image.open(tmp_path / "curves.png").width > 300 and (tmp_path / "curves.svg").exists()
    status, said = script("report/__main__.py", "curves", tmp_path / "gone")
    assert status == 1 and said.startswith("report curves: ") and "give the folder of a run" in said


def test_the_page_of_a_run_is_a_command(script, tmp_path):
    """Out of the records in RUN/samples, as RecordWriter leaves them there."""
    records = [record(sample(number), index) for number in (1, 2) for index in range(2)]
    save_records(records, tmp_path / "run" / "samples")
    status, said = script("report/__main__.py", "page", tmp_path / "run")
    assert status == 0 and said.strip().endswith(f"wrote {tmp_path / 'run' / 'samples.html'}")
    page = (tmp_path / "run" / "samples.html").read_text()
    assert "<title>run: samples</title>" in page and "svg/001" in page and "svg/002" in page and "newest step" in page
    status, said = script("report/__main__.py", "page", tmp_path)
    assert status == 1 and said.startswith("report page: ") and "holds no records.jsonl" in said


def svg_texts(path) -> int:
    """How many glyphs' groups an SVG has; a broken file raises."""
    from xml.etree import ElementTree

    return sum(element.tag.endswith("use") for element in ElementTree.parse(path).iter())


def virl_rows(steps: int) -> list[dict]:
    """What ViRL logs of rewards and failures, made: rewards rise, syntax errors fall."""
    rows = []
    for step in range(steps):
        row, rise = {"step": step, "reward/mean": 0.5}, 0.3 * step / max(1, steps)
        for domain in ("chart", "svg"):
            row |= {f"rewards/{domain}/{q}": 0.1 + rise + k / 8 for k, q in enumerate(curves.QUANTILES)}
        row |= {f"failure/{kind}": 0.0 for kind in FAILURES} | {"failure/syntax error": 0.2 - rise / 2}
        rows.append(row)
    return rows


def test_rewards_by_domain_and_failures_over_time(tmp_path, monkeypatch):
    """A band for each domain, a stack of the kinds that happened; all of it as PNG and as SVG."""
    path = tmp_path / "metrics.jsonl"
    path.write_text("\n".join(map(json.dumps, virl_rows(20))))
    drawn = []
    for name in ("_draw_bands", "_draw_stack"):
        draw = getattr(curves, name)
        monkeypatch.setattr(curves, name, lambda ax, s, keys, draw=draw: (drawn.append((ax, keys)), draw(ax, s, keys)))
    curves.plot_curves(path, tmp_path / "curves.png")
    assert [ax.get_title("left") for ax, _ in drawn] == ["Rewards, chart", "Rewards, svg", curves.STACKED[0]]
    assert [text.get_text() for text in drawn[0][0].get_legend().get_texts()] == ["5 to 95 %", "25 to 75 %", "median"]
    assert drawn[2][1] == ["failure/syntax error"], "kinds that never happened are left out"
    assert svg_texts(tmp_path / "curves.svg") > 50
    path.write_text(json.dumps(virl_rows(1)[0]))
    curves.plot_curves(path, tmp_path / "one.png")


def test_a_step_says_how_rewards_are_spread_and_what_failed(reward):
    """step.py: quantiles of each domain's rewards, shares of the kinds of failure."""
    from step import rollout_metrics

    answers = [
        record(sample(0), visual=1.0),
        record(sample(0), 1, visual=0.5),
        record(sample(1, "chart"), image=None, visual=0.0, error="line 1\nSyntaxError: bad"),
        record(sample(1, "chart"), 1, code=None, image=None, visual=0.0),
    ]
    groups = []
    for pair in (answers[:2], answers[2:]):
        completions = [SimpleNamespace(ids=[1, 2], finish="eos", logps=np.zeros(2), text=r.text) for r in pair]
        groups.append(SimpleNamespace(sample=pair[0].sample, completions=completions, records=pair))
    metrics = rollout_metrics(groups)
    assert {k: v for k, v in metrics.items() if k.startswith("failure/") and v} == {
        "failure/syntax error": 0.25,
        "failure/no code block": 0.25,
    }
    assert sum(key.startswith("failure/") for key in metrics) == len(FAILURES)
    assert metrics["rewards/svg/p50"] == pytest.approx(np.mean([answers[0].score.total, answers[1].score.total]))
    assert metrics["rewards/svg/p95"] > metrics["rewards/svg/p05"] and metrics["rewards/chart/p95"] == 0.0


# ---------------------------------------------------------------------------------------------------- score and effort
def test_effort_curves_are_those_of_the_lines(tmp_path):
    """Two targets, three answers each, one round of refinement: the numbers by hand, and the files beside the page."""
    runs = {"a_$x": [], "_b": []}
    for name, gain in (("a_$x", 0.1), ("_b", 0.2)):
        for i, g in np.ndindex(2, 3):
            answer = record(sample(int(i)), int(g), visual=0.3 + 0.1 * g + gain)
            answer.attempts = [record(sample(int(i)), int(g), visual=0.3)]
            runs[name].append(answer)
    found = effort.effort_curves(runs)
    assert [round(m, 6) for m, *_ in found["refine"]["a_$x"]] == [0.3, 0.5]
    assert [round(m, 6) for m, *_ in found["best"]["_b"]] == pytest.approx([0.6, 2 / 3, 0.7])
    evaluation.write_report(tmp_path / "page.html", {k: iter(v) for k, v in runs.items()})
    assert {p.name for p in tmp_path.iterdir()} == {"page.html", "page_effort.png", "page_effort.svg"}
    assert svg_texts(tmp_path / "page_effort.svg") > 30
    figure = effort.draw_effort(found, list(runs))
    assert [t.get_text() for t in figure.axes[0].get_legend().get_texts()] == [r"a_\$x", " _b"]
    one = [record(sample(0))]
    assert effort.effort_curves({"r": one}) == {} and effort.write_effort({"r": one}, tmp_path / "none") == []
    evaluation.write_report(tmp_path / "one" / "page.html", {"r": iter(one)})
    assert [p.name for p in (tmp_path / "one").iterdir()] == ["page.html"]


def test_before_and_after_shows_the_first_poor_ones_of_each_domain(tmp_path, capsys):
    targets = [sample(i, "chart" if i % 2 else "svg") for i in range(8)]
    before = [record(t, visual=0.9 if i < 2 else 0.5) for i, t in enumerate(targets)]
    after = [record(t, visual=0.0, image=None, error="SyntaxError") if t is targets[3] else record(t) for t in targets]
    folders = [f"before={tmp_path / 'a'}", f"after={tmp_path / 'b'}"]
    save_records([*before, record(targets[0], index=1, visual=0.1)], tmp_path / "a")
    save_records(after, tmp_path / "b")
    judged = before_after.first_answers(tmp_path / "a")
    assert before_after.choose(judged, below=0.8, each=2) == [targets[i].id for i in (2, 4, 3, 5)]
    before_after.BeforeAfter(tuple(folders), "before", each=2, out=tmp_path / "picture.png")()
    with Image.open(tmp_path / "picture.png") as picture:
        assert picture.size == (570, 366)  # four targets; they and two runs
    before_after.BeforeAfter(tuple(folders), "before", below=0.0, out=tmp_path / "none.png")()
    assert "nothing to draw" in capsys.readouterr().out and not (tmp_path / "none.png").exists()
    save_records(after[:3], tmp_path / "c")
    with pytest.raises(ValueError, match="c has no answer to some"):
        before_after.BeforeAfter((folders[0], f"c={tmp_path / 'c'}"), "before")()
    with pytest.raises(ValueError, match="name=folder"):
        before_after.BeforeAfter(tuple(folders), "nobody")()


def test_a_single_step_and_a_repeated_step(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 2.0, "time/data": 1}\n{"step": 1, "loss": 1.5, "time/data": 2}\n')
    assert curves._read_metrics(path)["loss"][1].tolist() == [1.5]
    curves.plot_curves(path, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 1000


def test_smoothing_keeps_constants_and_lines():
    line = np.arange(200.0)
    assert np.allclose(curves._smooth(line)[10:-10], line[10:-10])
    assert np.allclose(curves._smooth(np.full(50, 3.0)), 3.0) and curves._smooth(np.array([2.0])) == [2.0]
    noisy = np.random.default_rng(0).normal(size=200)
    assert curves._smooth(noisy)[20:-20].std() < 0.6 * noisy.std()


# -------------------------------------------------------------------------------------------------------------- report
def many_records(count=60, G=2) -> dict[str, list[Record]]:
    """Three runs of rising quality with failures of every kind and hostile code."""
    rng = np.random.default_rng(7)
    programs = {
        "svg": '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 96 72">\n  <!-- sky -->\n'
        + "".join(f'  <rect x="{4 * i}" y="{3 * i}" width="24" height="16" fill="#3a7ca5"/>\n' for i in range(9))
        + "</svg>",
        "python": "import matplotlib.pyplot as plt\n\n# monthly sales\nvalues = [3, 5.5, 8, 13]\nfig, ax = "
        'plt.subplots(figsize=(4, 3))\nax.bar(range(4), values, color="#3a7ca5")\nax.set_title("Sales")\n'
        "for i in range(4):\n    ax.text(i, values[i], str(values[i]))\nplt.show()",
    }
    runs = {"Untrained": [], "SFT": [], "ViRL": []}
    for i in range(count):
        domain, language = (("svg", "svg"), ("chart", "python"))[i % 2]
        code = programs[language]
        target = Sample(
            f"{domain}/{i:03d}", domain, language, picture(i, (320, 240) if i % 2 else (96, 72)), "Draw it.", code
        )
        for level, name in enumerate(runs):
            for g in range(G):
                visual = float(np.clip(rng.normal(0.35 + 0.2 * level, 0.12), 0, 1))
                shown = picture(i if rng.random() < visual else 500 + i, target.image.size)
                answer = record(target, g, visual, shown, code, tokens=120)
                answer.score.fine = [float(np.clip(visual + e, 0, 1)) for e in rng.normal(0, 0.2, 4)]
                if rng.random() < 0.25 / (1 + level):
                    answer = failed_record(target, g, rng)
                if i < len(HOSTILE):
                    answer.code = answer.text = answer.detail = HOSTILE[i]
                    answer.rendering.error = HOSTILE[i]
                if domain == "svg":
                    answer.metrics = {"unisvg.ssim": round(answer.score.visual / 2, 3)}
                runs[name].append(answer)
    return runs


def failed_record(target, g, rng) -> Record:
    blank = Image.new("RGB", target.image.size, "white")
    return [
        lambda: record(target, g, 0.0, None, None, finish="length"),
        lambda: record(target, g, 0.0, None, "print(x", error="SyntaxError: '(' was never closed (line 1)\n  print(x"),
        lambda: record(target, g, 0.0, None, "while True: pass", error="timed out after 10 s"),
        lambda: record(target, g, 0.0, blank),
    ][rng.integers(4)]()


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    rows = [{"step": i, "loss": 3 / (1 + i), "reward/visual": 0.4 + i / 300} for i in range(100)]
    (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)))
    curves.plot_curves(folder / "metrics.jsonl", folder / "curves.png")
    runs = many_records()
    for answer in runs["ViRL"]:
        answer.attempts = [record(answer.sample, answer.index, 0.3, code="<svg><!-- first try --></svg>")]
    title = "<b>Held-out</b> & tiny policy"
    evaluation.write_report(
        folder / "report.html", {k: iter(v) for k, v in runs.items()}, [folder / "curves.png"], title
    )
    return folder / "report.html"


def test_report_is_one_offline_file(report):
    text = report.read_text()
    assert "&lt;b&gt;Held-out&lt;/b&gt; &amp; tiny policy" in text
    assert "default-src 'none'" in text and "unsafe-inline" not in text
    assert not re.search(r"""(src|href)\s*=\s*["']?(https?:)?//""", text)
    # one executable script, and no text of a model ends a data block
    assert len(re.findall(r"<script>", text)) == 1
    assert text.count("</script>") == 1 + 1 + 60
    blocks = re.findall(r'<script type="application/json" id="(\w+)">(.*?)</script>', text, re.DOTALL)
    parsed = {id: json.loads(block) for id, block in blocks}
    assert [parsed[f"t{i}"]["runs"][0][0][-1]["code"] for i in range(3)] == HOSTILE


def test_thumbnails_are_small():
    image = Image.effect_noise((900, 500), 80).convert("RGB")
    width, height, uri = html_page.thumbnail(image)
    assert (width, height) == (256, 142) and uri.startswith("data:image/jpeg")
    assert html_page.thumbnail(picture(0))[2].startswith("data:image/png"), "flat pictures stay exact"


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api")
    paths = [p for p in ("/usr/bin/chromium", "/usr/bin/chromium-headless-shell") if os.path.exists(p)]
    if not paths:
        pytest.skip("no Chromium in /usr/bin: apt-get install chromium")
    flags = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=paths[0], args=flags)
        yield chromium
        chromium.close()


@contextmanager
def watched(browser, path: Path, **screen):
    """A page in the browser; any dialog, console error or request ends in an AssertionError."""
    context = browser.new_context(**screen or {"viewport": {"width": 1440, "height": 900}})
    context.set_default_timeout(300_000)
    tab = context.new_page()
    tab.trouble = trouble = []
    tab.on("dialog", lambda dialog: (trouble.append(f"dialog {dialog.message}"), dialog.dismiss()))
    tab.on("console", lambda message: trouble.append(message.text) if message.type in ("error", "warning") else None)
    tab.on("pageerror", lambda error: trouble.append(str(error)))
    foreign = lambda r: not r.url.startswith(("file:", "data:"))  # noqa: E731
    tab.on("request", lambda r: trouble.append(f"request {r.url}") if foreign(r) else None)
    tab.goto(path.as_uri())
    tab.wait_for_selector(".card")
    yield tab
    context.close()
    assert not trouble, trouble


@pytest.fixture
def opened(browser, report, request):
    with watched(browser, report, **getattr(request, "param", {})) as tab:
        yield tab


def wait_until(tab, expression: str, seconds: float = 300):
    """Until it is true; Playwright's own wait_for_function is stopped by the page's policy, which forbids eval."""
    deadline = time.monotonic() + seconds
    while not tab.evaluate(expression):
        assert time.monotonic() < deadline, expression
        time.sleep(0.02)


def ids(tab) -> list[str]:
    return tab.locator(".card h3").all_text_contents()


def test_hostile_text_is_shown_and_runs_nothing(opened):
    for i, text in enumerate(HOSTILE):
        card = opened.locator(".card").nth(i)
        assert card.locator("pre").text_content() == text
        assert card.locator("pre script, pre img, pre iframe, .error *").count() == 0
    assert opened.locator("script:not([type])").count() == 1
    assert opened.title() == "<b>Held-out</b> & tiny policy"


def test_the_policy_stops_even_markup_that_gets_in_some_other_way(opened):
    blocked = opened.evaluate(
        """async () => {
        const events = [];
        document.addEventListener("securitypolicyviolation", (event) => events.push(event.effectiveDirective));
        const node = document.createElement("script");
        node.textContent = "window.owned = 1";
        document.body.append(node);
        await new Promise((done) => setTimeout(done, 100));
        return [window.owned, events.length > 0];
    }"""
    )
    assert blocked == [None, True]
    assert opened.evaluate("fetch('http://127.0.0.1:9/').then(() => 'sent', () => 'stopped')") == "stopped"
    assert opened.trouble and all("Content Security Policy" in text for text in opened.trouble)
    opened.trouble.clear()


def test_sorting(opened):
    def scores():
        index = json.loads(opened.locator("#index").text_content())
        mean = {t["id"]: np.mean([s["visual"] for s in t["runs"][2]]) for t in index["targets"]}
        return [mean[id] for id in ids(opened)]

    opened.select_option("#pick-run", label="ViRL")
    opened.select_option("#pick-sort", "low")
    assert len(scores()) >= 20 and scores() == sorted(scores())
    opened.select_option("#pick-sort", "high")
    assert scores() == sorted(scores(), reverse=True)
    opened.select_option("#pick-run", "all")
    opened.select_option("#pick-sort", "gain")
    gaps = [float(t.split(": ")[1].replace("\u2212", "-")) for t in opened.locator(".delta").all_text_contents()]
    assert gaps == sorted(gaps, reverse=True) and gaps[0] > 0


def test_filters(opened):
    opened.select_option("#pick-domain", "chart")
    assert all(id.startswith("chart/") for id in ids(opened)) and opened.text_content("#count") == "30 of 60 targets"
    opened.select_option("#pick-failure", "time-out")
    assert 0 < len(ids(opened)) < 30
    opened.select_option("#pick-domain", "all")
    opened.select_option("#pick-failure", "all")
    opened.fill("#search", "svg/01")
    assert ids(opened) == [f"svg/{i:03d}" for i in range(10, 20, 2)]
    opened.fill("#search", "no such thing")
    assert "No target passes" in opened.text_content("#gallery")
    opened.fill("#search", "")
    opened.select_option("#pick-run", label="SFT")
    assert opened.locator(".card").first.locator("figure.run").count() == 1


def test_best_and_worst_sample(opened):
    card = opened.locator(".card").nth(5)
    best = float(card.locator("figure.run figcaption b").nth(1).text_content())
    opened.click("#pick-worst")
    worst = float(opened.locator(".card").nth(5).locator("figure.run figcaption b").nth(1).text_content())
    assert worst < best


def test_keyboard(opened):
    opened.keyboard.press("j")
    opened.keyboard.press("j")
    focused = lambda: opened.evaluate("document.activeElement.closest('.card')?.getAttribute('aria-label')")  # noqa: E731
    assert focused() == "chart/001"
    opened.keyboard.press("k")
    assert focused() == "svg/000"
    for _ in range(30):  # past the first batch: more cards come
        opened.keyboard.press("j")
    assert focused() == "svg/030"
    pressed = lambda: opened.evaluate(  # noqa: E731
        "document.activeElement.closest('.card').querySelector('figure.run .frame[aria-pressed=true]').dataset.key"
    )
    assert pressed() == "run2"
    opened.keyboard.press("ArrowLeft")
    assert pressed() == "run1"
    opened.keyboard.press("ArrowRight")
    opened.keyboard.press(",")
    assert "first try" in opened.locator(".card:focus pre").text_content()
    opened.keyboard.press("/")
    opened.keyboard.type("chart/0")
    assert opened.input_value("#search") == "chart/0" and len(ids(opened)) >= 24
    opened.keyboard.press("Escape")
    opened.keyboard.press("j")
    opened.keyboard.press("c")
    assert "open" in opened.locator(".card:focus").get_attribute("class")


def test_difference_and_diff_against_the_reference(opened):
    card = opened.locator(".card").nth(4)
    card.focus()
    opened.keyboard.press("d")
    assert card.locator(".map .blend img").count() == 2 and "Difference" in card.locator(".map").text_content()
    blend = card.locator(".map .blend img").nth(1).evaluate("node => getComputedStyle(node).mixBlendMode")
    assert blend == "difference"
    opened.keyboard.press("r")
    kinds = card.locator("pre span").evaluate_all("nodes => nodes.map(n => n.className)")
    assert kinds and set(kinds) <= {"same", "add", "del"}


def test_sorting_by_a_benchmark_metric(opened):
    opened.select_option("#pick-run", label="ViRL")
    opened.select_option("#pick-metric", "unisvg.ssim")
    opened.select_option("#pick-sort", "low")
    index = json.loads(opened.locator("#index").text_content())
    score = lambda target: np.mean([s["metrics"]["unisvg.ssim"] for s in target["runs"][2]])  # noqa: E731
    worth = {t["id"]: score(t) for t in index["targets"] if t["domain"] == "svg"}
    shown = ids(opened)
    assert shown and [worth[id] for id in shown] == sorted(worth[id] for id in shown)
    assert all(text in opened.text_content("#summary") for text in ("Benchmark metrics", "for want of --clip"))


@pytest.fixture(scope="module")
def big_report(tmp_path_factory) -> tuple[Path, list[float]]:
    """5,000 targets of eight tiny pictures, every hundredth with hostile code, every tenth timed out."""
    pictures = [picture(seed).resize((12, 9)) for seed in range(8)]
    scores = np.random.default_rng(3).permutation(5000) / 5000

    def records():
        for i, visual in enumerate(scores):
            target = Sample(f"svg/{i:05d}", "svg", "svg", pictures[i % 8], "Draw it.", "<svg/>\n" * 20)
            code = HOSTILE[i // 100 % 3] if i % 100 == 99 else f"<svg><!-- {i} --></svg>\n" * 20
            shown, error = (None, f"timed out after 10 s: {HOSTILE[1]}") if i % 10 == 3 else (pictures[i % 8], None)
            rest = {"total": 0.5, "alignment": 1.0, "executed": not error, "error": error}
            score = Score(float(visual) if shown else 0.0, 0.5, [0.5] * 4, (2, 2), **rest)
            yield Record(target, 0, code, code, Rendering(shown, error, 0.01), score, 0.5)

    path = tmp_path_factory.mktemp("big") / "report.html"
    evaluation.write_report(path, {"run": records()})
    return path, [0.0 if i % 10 == 3 else visual for i, visual in enumerate(scores)]


def test_a_page_of_5000_targets(browser, big_report):
    """Cards, filters, search, sorting, keyboard and scrolling at full size; nothing runs, nothing is requested."""
    path, scores = big_report
    name = lambda i: f"svg/{i:05d}"  # noqa: E731
    with watched(browser, path) as tab:
        assert tab.text_content("#count") == "5,000 targets" and ids(tab)[:24] == [name(i) for i in range(24)]
        cards = tab.locator(".card").count()
        assert cards < 200, "cards are drawn as they come into view"
        wait_until(tab, "performance.getEntriesByName('first-contentful-paint').length == 1")

        tab.select_option("#pick-failure", "time-out")
        assert tab.text_content("#count") == "500 of 5,000 targets" and ids(tab)[:2] == [name(3), name(13)]
        assert HOSTILE[1] in tab.locator(".card .error").first.text_content()
        tab.select_option("#pick-failure", "all")
        tab.select_option("#pick-sort", "high")
        order = sorted(range(5000), key=lambda i: -scores[i])
        assert ids(tab)[:24] == [name(i) for i in order[:24]]
        tab.select_option("#pick-sort", "order")

        tab.keyboard.press("/")
        tab.keyboard.type("99")
        assert tab.text_content("#count") == f"{sum('99' in name(i) for i in range(5000))} of 5,000 targets"
        hostile = [card for card in tab.locator(".card").all()[:24] if card.locator("h3").text_content().endswith("99")]
        assert len(hostile) > 3
        for card in hostile:
            number = int(card.locator("h3").text_content()[-5:])
            assert card.locator("pre").text_content() == HOSTILE[number // 100 % 3]
            assert card.locator("pre script, pre img, pre iframe, pre svg, .error *").count() == 0

        tab.fill("#search", "")
        tab.keyboard.press("Escape")
        for _ in range(100):  # past several batches
            tab.keyboard.press("j")
        focused = "document.activeElement.closest('.card')?.getAttribute('aria-label')"
        assert tab.evaluate(focused) == name(99) and tab.locator(".card").count() >= 100
        assert tab.locator(".card:focus pre").text_content() == HOSTILE[0]
        tab.keyboard.press("r")
        assert "del" in tab.locator(".card:focus pre span").first.get_attribute("class")
        before = tab.locator(".card").count()
        tab.evaluate("scrollTo(0, document.body.scrollHeight)")
        wait_until(tab, f"document.querySelectorAll('.card').length > {before}")
        assert tab.locator("script:not([type])").count() == 1


SCREENS = {
    "wide-light": {"viewport": {"width": 1440, "height": 1500}, "color_scheme": "light"},
    "wide-dark": {"viewport": {"width": 1440, "height": 1500}, "color_scheme": "dark"},
    "narrow-light": {"viewport": {"width": 390, "height": 1400}, "color_scheme": "light"},
    "narrow-dark": {"viewport": {"width": 390, "height": 1400}, "color_scheme": "dark"},
}


@pytest.mark.parametrize("opened", SCREENS.values(), ids=SCREENS, indirect=True)
def test_looks(opened, request, tmp_path):
    """Set SCREENSHOTS=folder to keep the pictures."""
    folder = Path(os.environ.get("SCREENSHOTS", tmp_path))
    path = folder / f"{request.node.callspec.id}.png"
    opened.screenshot(path=path)
    pixels = np.asarray(Image.open(path).convert("L"))
    assert pixels.std() > 10
    assert (pixels.mean() < 110) == ("dark" in path.name)
    assert opened.evaluate("document.documentElement.scrollWidth <= innerWidth"), "the page does not scroll sideways"


def test_print(opened, tmp_path):
    opened.emulate_media(media="print")
    assert not opened.locator(".bar").is_visible()
    file = opened.pdf(
        path=Path(os.environ.get("SCREENSHOTS", tmp_path)) / "print.pdf", format="A4", print_background=True
    )
    assert file.startswith(b"%PDF")


# ---------------------------------------------------------------------------------------------------------- end to end
def test_command_line_refuses_in_one_sentence(tmp_path, monkeypatch):
    for arguments in (["report", "--runs", "nameless"], ["report", "--runs", f"a={tmp_path}"]):
        monkeypatch.setattr("sys.argv", ["eval.py", *arguments])
        with pytest.raises(SystemExit, match=r"^eval\.py: .*\.?$"):
            evaluation.main()


def test_report_command(tmp_path, monkeypatch, capsys):
    for name, answers in many_records(6, 1).items():
        save_records(answers, tmp_path / name)
    runs = [f"{name}={tmp_path / name}" for name in ("SFT", "ViRL")]
    monkeypatch.setattr("sys.argv", ["eval.py", "report", "--out", str(tmp_path / "report.html"), "--runs", *runs])
    evaluation.main()
    printed = capsys.readouterr().out
    assert "ViRL - SFT: " in printed and "paired bootstrap over 6 targets" in printed
    assert (tmp_path / "report.html").stat().st_size > 20_000


def test_run_with_a_real_tiny_policy(tmp_path, monkeypatch, capsys):
    from tiny import create_tiny  # torch and transformers, for this test alone

    programs = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 64 64"><circle cx="30" cy="30" r="20"/></svg>',
        "<svg",
    ]
    rows = [{"id": f"s{i}", "domain": "svg", "language": "svg", "path": f"{i}.svg"} for i, _ in enumerate(programs)]
    folder = tmp_path / "data"
    folder.mkdir()
    for i, program in enumerate(programs):
        (folder / f"{i}.svg").write_text(program)
    (folder / "MANIFEST.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    create_tiny(tmp_path / "tiny", texts=[*programs, data.direct_prompt("svg", "svg", np.random.default_rng(0))] * 20)
    out = tmp_path / "eval"
    options = ["--G", "2", "--temperature", "1", "--refine", "1", "--max-new-tokens", "12", "--svg-side", "64"]
    where = ["--model", str(tmp_path / "tiny"), "--data", str(folder), "--out", str(out)]
    monkeypatch.setattr("sys.argv", ["eval.py", "run", *where, *options])
    evaluation.main()
    records = load_records(out)
    assert [(r.sample.id, r.index, len(r.attempts)) for r in records] == [("s0", 0, 1), ("s0", 1, 1)]
    summary = json.loads((out / "summary.json").read_text())
    assert sum(summary["dropped"].values()) == 1 and summary["summary"]["overall"]["samples"] == 2
    captured = capsys.readouterr()
    assert "1 dropped: 1 x its target does not render" in captured.err and "targets dropped: 1" in captured.out
    assert (out / "report.html").exists()
