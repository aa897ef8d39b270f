"""metrics/judge.py: a stub of a judge that is late, broken, out of range, gone; none asked twice, nothing is 0."""

import json
import threading
import time

import pytest
from PIL import Image
from test_answers import Stub, lines, patience, run
from test_eval import HOSTILE, record, sample, save_records

from answers.server import Answers
from metrics.judge import RUBRICS, Judge, Judgements, judged_line
from metrics.judge import judged_records as read_records
from report import statistics
from report.answers import write_report

MOST = {name: {c: high for c, _, high, _ in rubric.criteria} for name, rubric in RUBRICS.items()}


def reply(rubric: str, share: float = 1.0, form="{}: {}") -> str:
    return "The colours differ.\n" + "\n".join(form.format(c, share * high) for c, high in MOST[rubric].items())


def rubric_of(question: dict) -> str:
    text = question["messages"][0]["content"][0]["text"]
    return next(name for name, rubric in RUBRICS.items() if text == rubric.question())


def chart(i: int, **more):
    return record(sample(i, "chart", language="python"), code=f"x = {i}", **more)


# -------------------------------------------------------------------------------------------------------------- rubrics
def test_points_are_the_published_ones():
    points = {name: sum(most.values()) for name, most in MOST.items()}
    assert points == {"chartmimic": 100, "plot2code": 10, "web2code": 100}
    assert list(MOST["chartmimic"].values()) == [20, 10, 20, 20, 20, 10] and len(MOST["web2code"]) == 10
    for name, rubric in RUBRICS.items():
        assert all(f"{c} ({low} to {high} points)" in rubric.question() for c, low, high, _ in rubric.criteria)
        assert all(0 < value <= (10 if name == "plot2code" else 1) for value in rubric.scores(reply(name)).values())
        assert f"{rubric.criteria[-1][0]}: POINTS" in rubric.question()


def test_scores_by_hand():
    text = "Chart types: 20\nLayout: 10\nText content: 5\nData: 10.5\nStyle: 0\nClarity: 4\n"
    assert RUBRICS["chartmimic"].scores(text) == {"chartmimic.high_level": pytest.approx(0.495)}
    assert RUBRICS["plot2code"].scores("Rating: 7") == {"plot2code.rating": 7}
    words = list(MOST["web2code"])
    ten = "\n".join(f"{name}: {points}" for name, points in zip(words, (8, 6, 7, 9, 10, 5, 1, 2, 3, 4), strict=True))
    assert RUBRICS["web2code"].scores(ten) == {
        "web2code.visual_structure": pytest.approx(0.75),
        "web2code.colour": pytest.approx(0.75),
        "web2code.text": pytest.approx(0.2),
        "web2code.interface": pytest.approx(0.4),
    }


@pytest.mark.parametrize("form", ["{}: {}", "- **{}**: {}", "**{}:** {}", "{} (of all): **{}**", "2. {} = {} points"])
def test_points_are_found_in_the_ways_that_models_write(form):
    assert RUBRICS["web2code"].scores(reply("web2code", 0.5, form)) == dict.fromkeys(
        [metric for metric, *_ in RUBRICS["web2code"].metrics], pytest.approx(0.5)
    )


def test_the_last_line_of_a_criterion_counts_and_denominators_have_to_fit():
    assert RUBRICS["plot2code"].scores("Rating: 3\nno, wait\n\nRating: 8/10") == {"plot2code.rating": 8}
    for text, problem in [
        ("", "no points for Rating"),
        ("I cannot judge this.", "no points"),
        ("Rating: 11", "11 points for Rating, of 10"),
        ("Rating: 0", "0 points"),
        ("Rating: -3", "-3 points"),
        ("Rating: 4/5", "4/5 points for Rating, of 10"),
        ("Rating: good", "no points"),
    ]:
        with pytest.raises(ValueError, match=problem):
            RUBRICS["plot2code"].scores(text)


# --------------------------------------------------------------------------------------------------------------- asking
def judge(stub, folder, **options):
    options = {"rubrics": ("plot2code",), "timeout": 900, "pause": 0.01} | options
    return Judge(stub.url, "wise", folder, **options)


@pytest.mark.parametrize("trouble", ["hang", 429, "broken", "empty", "cut"])
def test_a_judge_that_fails_now_and_then_is_asked_again(trouble, tmp_path):
    save_records([chart(i) for i in range(4)], tmp_path)
    with Stub(lambda n, q: trouble if n % 3 == 0 else None, "Rating: 6") as stub:
        options = {"timeout": patience(trouble)}
        assert judge(stub, tmp_path, **options).judge(read_records(tmp_path)) == {"judged": 4}
        asked = stub.count
        assert asked > 4
        assert judge(stub, tmp_path).judge(read_records(tmp_path)) == {"judged": 4} and stub.count == asked
    records = list(read_records(tmp_path))
    assert [r.metrics["plot2code.rating"] for r in records] == [6] * 4
    pictures = stub.questions[0]["messages"][0]["content"]
    assert [part["type"] for part in pictures] == ["text", "image_url", "image_url"]
    assert judged_line("run", records) == "run, judged by wise: 4 of 4 questions about renderings answered"


def test_both_rubrics_of_a_chart_and_the_overall_score(tmp_path):
    records = [chart(0), chart(1, image=None, error="NameError: x"), record(sample(2))]
    records[0].metrics, records[1].metrics = {"chartmimic.low_level": 0.5}, {"chartmimic.low_level": 0.0}
    save_records(records, tmp_path)
    with Stub(text=lambda question: reply(rubric_of(question), 0.8)) as stub:
        assert judge(stub, tmp_path, rubrics=tuple(RUBRICS)).judge(read_records(tmp_path)) == {"judged": 2}
        assert stub.count == 2, "nothing is asked about what drew nothing, or has no rubric"
    good, failed, svg = read_records(tmp_path)
    assert good.metrics["chartmimic.high_level"] == pytest.approx(0.8)
    assert good.metrics["chartmimic.overall"] == pytest.approx(0.65)
    assert good.metrics["plot2code.rating"] == pytest.approx(8)
    assert {failed.metrics[m] for m in ("chartmimic.high_level", "chartmimic.overall", "plot2code.rating")} == {0.0}
    assert svg.metrics == {} and svg.judgement is None and "The colours differ." in good.judgement.replies["chartmimic"]
    text = statistics.metric_table([good, failed, svg])
    assert "chartmimic.overall" in text and "--judge-url" not in text
    (tmp_path / "config.json").write_text('{"as_published": true}')
    assert list(read_records(tmp_path))[1].metrics["plot2code.rating"] is None, "its code leaves failures out"


def test_what_cannot_be_read_is_asked_again_then_missing_and_counted(tmp_path, capsys):
    save_records([chart(i) for i in range(3)], tmp_path)

    def answer(question):  # the first target's judge never gives points, the second's out of range at first
        i = [r.sample.image for r in records].index(picture_of(question))
        return {0: "Very nice.", 1: "Rating: 12" if question["seed"] == 0 else "Rating: 9", 2: "Rating: 5"}[i]

    records = list(read_records(tmp_path))
    with Stub(text=answer) as stub:
        assert judge(stub, tmp_path).judge(records) == {"judged": 2, "unreadable": 1}
        assert stub.count == 3 + 2 + 1
        assert judge(stub, tmp_path).judge(records)["unreadable"] == 1 and stub.count == 6, "nothing is asked twice"
    assert "1 of 3 questions to the judge got no points (no points for Rating)" in capsys.readouterr().err
    read = list(read_records(tmp_path))
    assert [r.metrics["plot2code.rating"] for r in read] == [None, 9, 5]
    assert read[0].judgement.problems == {"plot2code": "no points for Rating"}
    assert statistics.summarize(read)["overall"]["plot2code.rating"][0] == 7, "a mean over what was judged"
    assert judged_line("r", read).endswith("2 of 3 questions about renderings answered; not in the means: unreadable 1")


def picture_of(question: dict) -> Image.Image:
    import base64
    import io

    uri = question["messages"][0]["content"][1]["image_url"]["url"]
    return Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))).convert("RGB")


def test_a_judge_that_is_gone_is_not_asked_for_ever_and_a_rerun_asks_only_the_missing(tmp_path, capsys):
    save_records([chart(i) for i in range(12)], tmp_path)
    with Stub(lambda n, q: None if n < 4 else 400, "Rating: 5") as stub:
        options = {"concurrency": 1, "patience": 3}
        counts = judge(stub, tmp_path, **options).judge(read_records(tmp_path))
        assert counts == {"judged": 4, "no reply": 8} and stub.count == 4 + 3
    assert "8 of 12 questions to the judge got no points" in capsys.readouterr().err
    read = list(read_records(tmp_path))
    assert [r.metrics["plot2code.rating"] for r in read] == [5] * 4 + [None] * 8
    assert "no reply 8" in judged_line("r", read)
    with Stub(text="Rating: 5") as stub:
        assert judge(stub, tmp_path).judge(read_records(tmp_path)) == {"judged": 12} and stub.count == 8


def test_a_reply_about_another_program_does_not_count(tmp_path):
    save_records([chart(0)], tmp_path)
    with Stub(text="Rating: 5") as stub:
        judge(stub, tmp_path).judge(read_records(tmp_path))
    other = chart(0)
    other.code = "x = 1"
    Judgements(tmp_path).add_to(other)
    assert other.metrics["plot2code.rating"] is None and other.judgement.problems == {"plot2code": "no reply"}


def test_refused_in_one_sentence(tmp_path):
    for options, complaint in (
        ({"model": ""}, "--judge-model"),
        ({"rubrics": ("beauty",)}, "no rubric 'beauty'; choose among chartmimic"),
        ({"url": "localhost"}, "no server's address"),
    ):
        with pytest.raises(ValueError, match=complaint):
            Judge(**{"url": "http://localhost", "model": "wise", "folder": tmp_path} | options)
    note = {"id": "a", "index": 0, "rubric": "plot2code", "judge": "wise", "code": ""}
    Answers(tmp_path / "judge.jsonl").keep("k", {"text": "Rating: 1"} | note)
    with pytest.raises(ValueError, match="was judged by wise; remove"):
        Judge("http://localhost", "other", tmp_path)


def test_the_key_comes_from_the_environment(tmp_path, monkeypatch):
    from answers.server import Server

    seen = []
    monkeypatch.setattr("urllib.request.Request", lambda url, body, headers: seen.append(headers) or url)
    monkeypatch.setenv("OPENAI_API_KEY", "mine")
    for variable, key in (("", "mine"), ("JUDGE_API_KEY", "its")):
        if variable:
            monkeypatch.setenv(variable, "its")
        server = Judge("http://localhost:9", "wise", tmp_path, retries=0).server
        with pytest.raises(RuntimeError):
            server.ask({}, variable)
        assert seen[-1]["Authorization"] == f"Bearer {key}"
    with pytest.raises(RuntimeError):
        Server("http://localhost:9", "m", retries=0).ask({}, "")
    assert seen[-1]["Authorization"] == "Bearer mine", "a policy's server is not shown the judge's key"


def test_the_page_shows_what_the_judge_said_as_text(tmp_path):
    save_records([chart(0)], tmp_path)
    with Stub(text=HOSTILE[0] + "\nRating: 5") as stub:
        judge(stub, tmp_path).judge(read_records(tmp_path))
    write_report(tmp_path / "report.html", {"r": read_records(tmp_path)})
    page = (tmp_path / "report.html").read_text()
    assert HOSTILE[0] not in page and "Plot2Code: rating (1 to 10)" in page and "judged by wise: 1 of 1" in page


# --------------------------------------------------------------------------------------------------------- command line
def test_killed_while_it_judges_the_same_command_asks_only_the_missing(tmp_path):
    """Web pages made elsewhere, drawn in Chromium, then judged; killed after a few replies."""
    folder, answers, out = tmp_path / "data", tmp_path / "answers", tmp_path / "out"
    folder.mkdir()
    answers.mkdir()
    rows = []
    for i in range(8):
        page = f"<body style='margin:0'><h1 style='color:rgb({20 * i},0,90)'>Page {i}</h1></body>"
        (folder / f"{i}.html").write_text(page)
        (answers / f"p{i}.html").write_text(page)
        rows.append({"id": f"p{i}", "domain": "html", "language": "html", "path": f"{i}.html"})
    (folder / "MANIFEST.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    killed = threading.Event()
    with Stub(lambda n, q: n == 4 and killed.wait(), reply("web2code", 0.5)) as stub:
        arguments = ["--answers", answers, "--data", folder, "--out", out, "--concurrency", 1, "--workers", 1]
        arguments += ["--judge-url", stub.url, "--judge-model", "wise"]
        first = run(*arguments)
        while stub.count < 5 or lines(out / "judge.jsonl") < 3:
            if first.poll() is not None:
                printed = "".join(first.communicate())
                if "drop" in printed or "Chromium" in printed or "sandbox" in printed:
                    pytest.skip(f"no web pages here: {printed[-300:]}")
                raise AssertionError(printed)
            time.sleep(0.05)
        first.kill()
        first.communicate()
        killed.set()
        kept = len(Answers.read(out / "judge.jsonl")[0])
        assert 3 <= kept < 8
        second = run(*arguments)
        printed = "".join(second.communicate(timeout=900))
        assert second.returncode == 0, printed
        assert stub.count <= 9, "at most the one in flight is asked twice"
        asked = stub.count
        Judge(stub.url, "wise", out).judge(read_records(out))
        assert stub.count == asked
    assert "judged by wise: 8 of 8 questions" in printed and "web2code.interface" in printed
    summary = json.loads((out / "summary.json").read_text())["summary"]["html"]
    assert summary["web2code.text"][0] == pytest.approx(0.5) and "web2code.text" not in summary["missing"]
