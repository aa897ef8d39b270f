"""answers/ and corpus/benchmarks.py: a stub server that misbehaves, folders of answers, benchmarks as published."""

import json
import os
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from forks import Forked
from PIL import Image

import data
import eval as evaluation
from answers.folder import Folder
from answers.recorded import read_records
from answers.server import Answers, Server
from corpus import benchmarks
from data import Sample
from metrics import catalogue
from records import find_failure
from render import Renderer
from report import statistics
from reward import Rewards

ROOT = Path(__file__).parent.parent
CIRCLE = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 8 6"><circle cx="4" cy="3" r="2" fill="red"/></svg>'


class Stub:
    """An OpenAI-compatible server. `behave(n, question)`: what it does with its n-th request, from 0; None: answers.
    text: what it answers, or a function of the question."""

    def __init__(self, behave=lambda n, question: None, text=f"```svg\n{CIRCLE}\n```"):
        stub, self.count, self.lock, self.questions, self.over = self, 0, threading.Lock(), [], threading.Event()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with stub.lock:
                    n, stub.count = stub.count, stub.count + 1
                    stub.questions.append(question)
                what = behave(n, question)
                if what == "hang":
                    stub.over.wait()
                if what == "cut":
                    return self.connection.close()
                status, body = {429: (429, b"slow down"), 400: (400, b"bad model")}.get(what, (200, None))
                content = text(question) if callable(text) else text
                message = {"message": {"content": content}, "finish_reason": "stop"}
                body = body or json.dumps({"choices": [message], "usage": {"completion_tokens": 7}}).encode()
                body = b'{"choices": [{' if what == "broken" else b"{}" if what == "empty" else body
                try:
                    self.send_response(status)
                    if what == 429:
                        self.send_header("Retry-After", "0.05")
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)
                except OSError:
                    pass

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.over.set()
        self.server.shutdown()
        self.server.server_close()


def patience(trouble: str) -> float:
    """Seconds: the fewer, the sooner a question that hangs is asked again; but a busy machine must answer in time."""
    return 3 if trouble == "hang" else 900


def lines(file: Path) -> int:
    return file.read_text().count("\n") if file.exists() else 0


def targets(count: int) -> list[Sample]:
    pictures = [Image.new("RGB", (8, 8), (i, 0, 0)) for i in range(count)]
    return [Sample(f"s{i}", "svg", "svg", picture, "Draw it.", CIRCLE) for i, picture in enumerate(pictures)]


OPTIONS = {"G": 2, "max_new_tokens": 10, "temperature": 1.0, "seed": 3}


@pytest.mark.parametrize("trouble", ["hang", 429, "broken", "empty", "cut"])
def test_a_server_that_fails_now_and_then_is_asked_again(trouble, tmp_path):
    with Stub(lambda n, q: trouble if n % 3 == 0 else None) as stub:
        server = Server(stub.url, "m", tmp_path / "answers.jsonl", timeout=patience(trouble), pause=0.01)
        answers = list(server.answer(targets(3), **OPTIONS))
    assert sorted((a.sample_id, a.index) for a in answers) == [(f"s{i}", g) for i in range(3) for g in range(2)]
    assert {a.text for a in answers} == {f"```svg\n{CIRCLE}\n```"} and len(answers[0].ids) == 7
    assert stub.count > 6
    question = stub.questions[0]
    assert question["messages"][0]["content"][0]["image_url"]["url"].startswith("data:image/png;base64,")
    assert question["max_tokens"] == 10 and question["temperature"] == 1.0


def test_a_refused_question_stops_the_run_in_one_sentence_and_keeps_the_rest(tmp_path):
    with Stub(lambda n, q: 400 if n == 2 else None) as stub:
        server = Server(stub.url, "m", tmp_path / "a.jsonl", concurrency=1, pause=0.01)
        answers = server.answer(targets(3), **OPTIONS)
        kept = []
        with pytest.raises(RuntimeError, match="HTTP 400 bad model.*run the same command again"):
            for answer in answers:
                kept.append(answer)
        assert len(kept) == 5 and stub.count == 6
        again = Server(stub.url, "m", tmp_path / "a.jsonl", concurrency=1)
        assert len(list(again.answer(targets(3), **OPTIONS))) == 6 and stub.count == 7, "only what was missing"
        list(again.answer(targets(3), **OPTIONS | {"seed": 4}))
        assert stub.count == 13, "another question is asked"


def test_kept_answers_survive_a_line_cut_short(tmp_path):
    path = tmp_path / "a.jsonl"
    answers = Answers(path)
    answers.keep("k", {"text": "a", "finish": "eos", "tokens": 1})
    with open(path, "a") as file:
        file.write('{"key": "l", "te')
    assert list(Answers(path).known) == ["k"] and path.read_text().endswith("\n")
    path.write_text("[]\n")
    with pytest.raises(ValueError, match="line 1 is no answer"):
        Answers(path)
    with pytest.raises(ValueError, match="no server's address"):
        Server("localhost", "m")


def run(*arguments) -> Forked:
    return Forked([str(ROOT / "eval.py"), *map(str, arguments)], dict(os.environ), Path.cwd())


def manifest(folder: Path, count: int) -> Path:
    rows = [{"id": f"s{i}", "domain": "svg", "language": "svg", "path": f"{i}.svg"} for i in range(count)]
    folder.mkdir()
    for i in range(count):
        (folder / f"{i}.svg").write_text(CIRCLE.replace('r="2"', f'r="{1 + i / 10}"'))
    (folder / "MANIFEST.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    return folder


def test_a_run_killed_in_the_middle_goes_on_where_it_was(tmp_path):
    source, out = manifest(tmp_path / "data", 12), tmp_path / "out"
    arguments = ["--model", "m", "--data", source, "--out", out, "--chunk", 2, "--svg-side", 32, "--concurrency", 1]
    killed = threading.Event()
    with Stub(lambda n, q: n == 6 and killed.wait()) as stub:
        first = run("--server", stub.url, *arguments)
        while stub.count < 7 or lines(out / "records.jsonl") < 2:
            assert first.poll() is None, first.communicate()
            time.sleep(0.05)
        first.kill()
        first.communicate()
        killed.set()
        asked, before = stub.count, [(r.sample.id, r.index) for r in read_records(out)]
        assert 2 <= len(before) < 12
        second = run("--server", stub.url, *arguments)
        printed = "".join(second.communicate(timeout=900))
        assert second.returncode == 0, printed
        assert stub.count <= 12 + 1, "at most the one in flight is asked twice"
        third = run("--server", stub.url, *arguments)
        assert third.communicate(timeout=900) and third.returncode == 0 and stub.count <= 13 and asked < 12
        other = run("--server", stub.url, *arguments, "--seed", 1)
        assert "made with another seed" in other.communicate(timeout=900)[1] and other.returncode == 1
    records = list(read_records(out))
    assert [r.sample.id for r in records] == [f"s{i}" for i in range(12)] and all(r.score.executed for r in records)
    assert "unisvg.ssim" in printed and "missing: unisvg.lpips (needs --lpips with AlexNet)" in printed
    assert json.loads((out / "summary.json").read_text())["summary"]["svg"]["unisvg.ssim"][0] > 0.5


def test_perfect_answers_to_synthetic_5_are_perfect():
    """Every metric of every domain, through the real renderer: the reference is its own perfect answer."""
    try:
        renderer = Renderer(workers=2, timeout=20)
    except RuntimeError as error:
        pytest.skip(str(error))
    samples = benchmarks.synthetic()[:10]
    assert [s.code for s in samples] == [s.code for s in benchmarks.synthetic()[:10]]

    class Perfect(Folder):
        def __init__(self):
            pass

        def answer(self, samples, G, **_):
            for sample in samples:
                for g in range(G):
                    text = benchmarks.perfect_answer(sample) if g == 0 else "```cobol\nMOVE A TO B\n```"
                    yield evaluation.rounds.Answer(sample.id, g, text, "eos", ())

    with renderer:
        missing = set(renderer.missing)
        records = list(evaluation.evaluate(Perfect(), samples, renderer, Rewards(), G=2, chunk=5))
    good, bad = records[::2], records[1::2]
    assert len(good) >= 10 - 2 * len(missing) - 2 * (not all(r.score.executed for r in good))
    seen = Counter(name for record in good for name in record.metrics)
    for record in good:
        for name, value in record.metrics.items():
            metric = catalogue.METRICS[name]
            best = 100 if name == "unisvg.psnr" else 0 if metric.lower_is_better else 1
            assert value == pytest.approx(best, abs=1e-6), (record.sample.id, name, value)
    for record in bad:
        assert record.failure == "wrong language"
        counted = [value for name, value in record.metrics.items() if catalogue.METRICS[name].failed == 0]
        assert counted and all(value in (0, None) for value in counted)
        for name in [name for name, value in record.metrics.items() if value is not None]:
            assert record.metrics[name] != pytest.approx(0 if catalogue.METRICS[name].lower_is_better else 1), name
    wanted = {n for n, m in catalogue.METRICS.items() if m.needs in catalogue.HERE and m.family != "any"}
    assert wanted == set(seen), "the catalogue lists what is measured"
    text = statistics.metric_table(good)
    assert "missing: design2code.clip (needs --clip)" in text and "chemdraw.tanimoto" in text
    lines = statistics.compare_all("a", good, "b", good)
    assert "10 targets in common" in lines[0] and all("+0.000 [+0.000, +0.000]" in line for line in lines[1:])


def test_best_of_is_the_mean_over_all_choices():
    from itertools import combinations

    from test_eval import record, sample

    one, values = sample(0), [0.2, 0.9, 0.4]
    records = [record(one, i, visual=v) for i, v in enumerate(values)]
    curve = [mean for mean, *_ in statistics.best_of(records)]
    by_hand = [np.mean([max(c) for c in combinations(values, n)]) for n in (1, 2, 3)]
    assert curve == pytest.approx(by_hand)
    assert "best of 1..3" in statistics.best_of_lines({"r": records})[0]
    assert statistics.best_of_lines({"r": records[:1]}) == []


@pytest.mark.parametrize(
    "text, error, kind",
    [
        ("no fence", None, "no code block"),
        ("```python\nx\n```", None, "wrong language"),
        ("```svg\nx\n```", "line 3: x =\nSyntaxError: invalid syntax", "syntax error"),
        ("```svg\nx\n```", "svg: XML parse error", "syntax error"),
        ("```svg\nx\n```", "! Undefined control sequence.\nl.3 \\foo", "syntax error"),
        ("```svg\nx\n```", "line 2: f(x)\nValueError: bad", "runtime error"),
        ("```svg\nx\n```", "timeout: the program ran longer than 10 s", "time-out"),
    ],
)
def test_failures_are_told_apart(text, error, kind):
    from test_eval import record

    one = record(targets(1)[0], image=None, error=error, code=data.extract_code(text, "svg"))
    one.text = text
    assert find_failure(one)[0] == kind
