"""answer.py: a picture in, a program and its picture out, on the command line and on the page, in a real browser."""

import base64
import http.client
import io
import json
import os
import signal
import subprocess
import sys
import threading
import urllib.request
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
from conftest import ROOT
from PIL import Image, ImageDraw
from test_eval import browser, wait_until  # noqa: F401
from test_render import need

import answer
import model
from answers import live
from render import Renderer
from reward import Rewards

CIRCLE = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 64 64"><circle cx="32" cy="32" r="20" fill="{}"/></svg>'
GOOD, POOR = CIRCLE.format("red"), CIRCLE.format("#fcc")
BROKEN = "<svg><g"
HOSTILE = '</textarea></script><script>alert(1)</script><img src=x onerror="alert(2)"> <svg onload=alert(3)>'
PATIENCE = 300_000  # ms: nothing here is about time


def says(*codes, language="svg"):
    """What stands for a trained policy: the real tiny one writes its tokens, and this turns them into words. The K-th
    answer that ends holds codes[K]; one that is being written, its beginning."""
    texts = [f"Here it is:\n```{language}\n{code}\n```" if code else "I cannot." for code in codes]
    whole = 16  # tokens of an answer
    ended = []

    def decode(self, ids) -> str:
        if len(ids) < whole and ids[-1] not in self.eos_ids:
            return texts[len(ended) % len(texts)][: 4 * len(ids)]
        ended.append(ids)
        return texts[(len(ended) - 1) % len(texts)]

    return decode, whole


@pytest.fixture
def target(tmp_path):
    path = tmp_path / "in" / "my picture.png"
    path.parent.mkdir()
    image = Image.new("RGB", (96, 96), "white")
    ImageDraw.Draw(image).ellipse((18, 18, 78, 78), fill="red")
    image.save(path)
    return path


@pytest.fixture
def command(script, qwen3_folder, monkeypatch):
    """answer.py with a policy that says these programs -> its exit status and what it printed."""

    def run(*arguments, codes=(GOOD,)):
        need("svg")
        decode, whole = says(*codes)
        monkeypatch.setattr(model.Policy, "decode", decode)
        return script("answer.py", *arguments, "--model", qwen3_folder, "--max-new-tokens", whole)

    return run


# -------------------------------------------------------------------------------------------------------- command line
def test_a_picture_is_answered(command, target):
    status, printed = command(target)
    assert status == 0, printed
    assert (target.parent / "my picture.answer.svg").read_text() == GOOD + "\n"
    with Image.open(target.parent / "my picture.answer.png") as compared:
        assert compared.width > 1200, "target, rendering and tiles are side by side"
    score = dict(line.split() for line in printed.splitlines() if line.startswith(("visual", "total")))
    assert float(score["visual"]) > 0.9 and float(score["total"]) > 0.9


def test_the_best_of_several_is_kept(command, target, tmp_path):
    out = tmp_path / "out"
    status, printed = command(target, "--best-of", 4, "--out", out, codes=(POOR, None, GOOD, BROKEN))
    assert status == 0 and "2 of 4 draw" in printed
    assert (out / "my picture.answer.svg").read_text() == GOOD + "\n"
    assert sorted(path.name for path in target.parent.iterdir()) == [target.name], "all of it is in --out"


@pytest.mark.parametrize("codes", [(POOR, GOOD, BROKEN), (GOOD, POOR, POOR)], ids=["better", "worse"])
def test_corrections_count_only_where_they_are_better(command, target, codes):
    status, printed = command(target, "--refine", 2, codes=codes)
    assert status == 0 and printed.count("correction 1: ") == printed.count("correction 2: ") == 1
    assert (target.parent / "my picture.answer.svg").read_text() == GOOD + "\n"


def test_what_is_best(target):
    image, score = Image.open(target), lambda total: SimpleNamespace(total=total)
    drawn = lambda code, shown, total: SimpleNamespace(  # noqa: E731
        code=code, rendering=SimpleNamespace(image=shown), score=score(total)
    )
    nothing, broken = drawn(None, None, 0.0), drawn(BROKEN, None, 0.0)
    poor, good, same = drawn(POOR, image, -1.0), drawn(GOOD, image, 0.5), drawn(GOOD, image, 0.5)
    assert answer.best_of([nothing, broken]) is broken and answer.best_of([broken, nothing, poor]) is poor
    assert answer.best_of([poor, good, same, broken]) is good


def test_a_run_stands_for_its_newest_checkpoint(tmp_path):
    for step in ("step-000090", "step-000100", "step-best"):
        (tmp_path / "run" / "checkpoints" / step).mkdir(parents=True)
    assert answer.folder_of(str(tmp_path / "run")).endswith("checkpoints/step-000100")
    assert answer.folder_of("Qwen/Qwen3-VL-2B-Instruct") == "Qwen/Qwen3-VL-2B-Instruct"
    (tmp_path / "new" / "checkpoints").mkdir(parents=True)
    with pytest.raises(ValueError, match="no checkpoint yet"):
        answer.folder_of(str(tmp_path / "new"))


@pytest.mark.parametrize(
    "kind, asked",
    [
        ("svg", ("svg", "svg")),
        ("tikz", ("latex", "latex")),
        ("python", ("python", "chart")),
        ("molecule", ("python", "molecule")),
    ],
)
def test_what_can_be_asked_for(kind, asked):
    sample = answer.sample_of(Image.new("RGBA", (8, 8)), kind)
    assert (sample.language, sample.domain) == asked and sample.image.getpixel((0, 0)) == (255, 255, 255)
    assert answer.prompts.language_of(sample.prompt) == asked[0]


BAD = {
    "no model": (["PICTURE"], "Give --model"),
    "no picture": (["--model", "m"], "Give a picture"),
    "a picture and a page": (["PICTURE", "--serve", "--model", "m"], "or --serve without one"),
    "a missing picture": (["/no/such.png", "--model", "m"], "/no/such.png is not a picture"),
    "a broken picture": (["BROKEN", "--model", "m"], "is not a picture that can be read"),
    "an unknown language": (["PICTURE", "--language", "klingon", "--model", "m"], "language is klingon; use one of"),
    "no answers": (["PICTURE", "--best-of", "0", "--model", "m"], "at least 1"),
    "no such folder": (["PICTURE", "--model", "./nowhere"], "./nowhere: no such folder"),
    "an unknown hub name": (["PICTURE", "--model", "nobody/nothing"], "nobody/nothing is no folder here, and the"),
    "an unknown reward": (["PICTURE", "--model", "m", "--reward", "beauty"], "there is no such reward"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_input_is_refused_in_one_sentence(what, script, target):
    broken = target.with_name("broken.png")
    broken.write_bytes(target.read_bytes()[:60])
    arguments, expected = BAD[what]
    status, printed = script("answer.py", *({"PICTURE": target, "BROKEN": broken}.get(a, a) for a in arguments))
    assert status == 1 and expected in printed and printed.startswith("answer.py: ") and "\n" not in printed.strip()


def test_an_answer_without_a_program_is_said(command, target):
    status, printed = command(target, codes=(None,))
    assert status == 1 and "The model wrote no program in svg (the answer was cut at the token limit)" in printed
    assert not list(target.parent.glob("*.answer.*"))


def test_a_program_that_draws_nothing_is_kept(command, target):
    status, printed = command(target, codes=(BROKEN,))
    assert status == 1 and "draws nothing (svg: " in printed
    assert (target.parent / "my picture.answer.svg").read_text() == BROKEN + "\n"
    assert not (target.parent / "my picture.answer.png").exists()


# ------------------------------------------------------------------------------------------------------------ the page
@contextmanager
def served(folder, *codes, **settings):
    """The page's server, with a policy that says these programs."""
    need("svg")
    policy = model.Policy.load(folder)
    decode, whole = says(*codes)
    policy.decode = decode.__get__(policy)
    about = {"model": "a <b>tiny</b> one", "language": "svg", "best_of": 1, "refine": 0, "seed": 0} | settings
    with Renderer(workers=1, timeout=300) as renderer:
        answerer = answer.Answerer(policy, renderer, Rewards(), whole)
        with live.Server(live.Live(answerer, answer.sample_of, SimpleNamespace(**about))) as server:
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            try:
                yield server
            finally:
                server.shutdown()
                thread.join()


def send(server, path: str, body: dict | bytes | None = None, **headers) -> tuple[int, dict, str]:
    """A request -> status, headers, text."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=300)
    given = {"Content-Type": "application/json"} | {name.replace("_", "-"): value for name, value in headers.items()}
    content = json.dumps(body).encode() if isinstance(body, dict) else body
    connection.request("GET" if body is None else "POST", path, content, given)
    response = connection.getresponse()
    return response.status, dict(response.getheaders()), response.read().decode()


def events(server, path: str, body: dict) -> list[dict]:
    status, _, text = send(server, path, body)
    assert status == 200, text
    return [json.loads(line) for line in text.splitlines()]


def request_of(target, **more) -> dict:
    return {"picture": base64.b64encode(target.read_bytes()).decode(), "kind": "svg"} | more


@pytest.fixture
def server(qwen3_folder):
    with served(qwen3_folder, GOOD) as one:
        yield one


def test_only_this_machine_and_this_page_are_served(server, target):
    ours = f"127.0.0.1:{server.server_port}"
    assert server.server_address[0] == "127.0.0.1"
    for host in (ours, f"localhost:{server.server_port}"):
        assert send(server, "/", Host=host)[0] == 200
    for host in ("evil.test", f"evil.test:{server.server_port}", "127.0.0.1", ""):
        assert send(server, "/", Host=host)[0] == 403, host
        assert send(server, "/draw", request_of(target, code=GOOD), Host=host)[0] == 403, host
    for origin in ("http://evil.test", "null", "http://127.0.0.1:1", f"https://{ours}"):
        assert send(server, "/draw", request_of(target, code=GOOD), Origin=origin)[0] == 403, origin
    assert send(server, "/draw", request_of(target, code=GOOD), Origin=f"http://{ours}")[0] == 200


def test_a_port_that_is_taken_is_said(server):
    settings = SimpleNamespace(port=server.server_port, model="", language="svg", best_of=1, refine=0, seed=0)
    with pytest.raises(OSError, match=f"Port {server.server_port} cannot be had .*; give another --port"):
        live.serve(server.live.answerer, answer.sample_of, settings)


def test_serve_says_where_and_ends_with_ctrl_c(qwen3_folder):
    need("svg")
    command = [sys.executable, str(ROOT / "answer.py"), "--serve", "--port", "0", "--model", str(qwen3_folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            _, address, *more = process.stdout.readline().split()
            assert " ".join(more) == "(Ctrl-C ends it)"
            with urllib.request.urlopen(address, timeout=300) as response:
                assert "<title>nanovinci" in response.read().decode()
            process.send_signal(signal.SIGINT)
            assert process.wait(300) == 0 and "Traceback" not in process.stderr.read()
        finally:
            process.kill()


def test_what_is_no_request_is_refused(server, target):
    whole = request_of(target, code=GOOD)
    assert send(server, "/elsewhere")[0] == send(server, "/elsewhere", whole)[0] == 404
    assert send(server, "/draw", whole, Content_Type="text/plain")[0] == 415
    assert (
        send(server, "/draw", b"{")[0]
        == send(server, "/draw", b"[]")[0]
        == send(server, "/draw", b"[" * 9999)[0]
        == 400
    )
    assert send(server, "/draw", b"", Content_Length=str(live.MOST_BYTES + 1))[0] == 413
    assert send(server, "/draw", b"", Content_Length="-1")[0] == 413


SENTENCES = {
    "no picture": ({"picture": None}, "The picture cannot be read"),
    "no base64": ({"picture": "?"}, "The picture cannot be read"),
    "no picture that is known": ({"picture": base64.b64encode(b"%!PS-Adobe").decode()}, "is not a picture"),
    "an unknown language": ({"kind": "klingon"}, "language is klingon"),
    "no program": ({"code": " "}, "There is no program"),
    "half a number": ({"again": 0.5}, "again has to be a whole number"),
    "too many": ({"best_of": 65}, "best_of has to be a whole number from 1 to 64"),
}


@pytest.mark.parametrize("what", SENTENCES)
def test_what_cannot_be_done_is_said(server, target, what):
    change, expected = SENTENCES[what]
    *_, error, done = events(server, "/draw", request_of(target, code=GOOD) | change)
    assert expected in error["error"] and done == {"done": True}


def test_a_picture_of_too_many_pixels_is_not_decoded(monkeypatch):
    monkeypatch.setattr(live, "MOST_PIXELS", 99)
    file = io.BytesIO()
    Image.new("RGB", (10, 10)).save(file, "png")
    with pytest.raises(ValueError, match="10 x 10 pixels"):
        live.decoded(base64.b64encode(file.getvalue()))


def test_what_happens_is_told_in_order(qwen3_folder, target):
    with served(qwen3_folder, POOR, GOOD, BROKEN, GOOD) as server:
        told = events(server, "/answer", request_of(target, best_of=2, refine=1))
    names = [next(iter(event)) for event in told]
    assert names[0] == "target" and names[-1] == "done" and names.count("answers") == 2
    first, second = (i for i, name in enumerate(names) if name == "answers")
    for since, until, number in ((1, first, 0), (first + 1, second, 1)):
        written = told[since:until]
        assert len(written) > 1 and {event["round"] for event in written} == {number}
        assert len(written[0]["writing"]) < len(written[-1]["writing"]), "it grows"
    answers = told[first]["answers"] + told[second]["answers"]
    assert [one["code"] for one in answers] == [POOR, GOOD, BROKEN, GOOD]
    assert [one["label"] for one in answers] == ["answer 1", "answer 2", "answer 1, round 1", "answer 2, round 1"]
    assert [one["image"] is not None for one in answers] == [True, True, False, True]
    assert answers[1]["visual"] > answers[0]["visual"] > answers[2]["visual"] == 0


def test_a_watched_answer_is_the_same_answer(qwen3_folder, samples):
    plain, watched = (model.Policy.load(qwen3_folder) for _ in range(2))
    watched.engine = live.WatchedEngine(watched)
    seen = []
    watched.engine.watch = lambda running: seen.append(running[0].length)
    options = {"G": 3, "max_new_tokens": 20, "seed": 5}
    both = []
    for policy in (plain, watched):
        prompts = [policy.encode(sample) for sample in samples]
        both.append({(c.sample_id, c.index): c.ids.tolist() for c in live.rollout.generate(policy, prompts, **options)})
    assert both[0] == both[1] and len(both[0]) == 9 and len(seen) > 1


def test_who_left_is_not_answered(qwen3_folder, target):
    """A page that is closed ends what was being written for it, and the next one is answered."""
    with served(qwen3_folder, GOOD) as server:
        told = []

        def leave(event):
            told.append(event)
            if "writing" in event:
                raise live.Gone

        with pytest.raises(live.Gone):
            server.live.events("/answer", request_of(target), leave)
        assert "writing" in told[-1] and not server.live.answerer.policy.engine.busy
        assert events(server, "/answer", request_of(target))[-2]["answers"][0]["code"] == GOOD


# ---------------------------------------------------------------------------------------------------- in a real browser
@contextmanager
def opened(browser, server, **screen):  # noqa: F811
    """The page in a browser; any dialog, console error or foreign request ends in an AssertionError."""
    context = browser.new_context(**screen or {"viewport": {"width": 1280, "height": 1000}})
    context.set_default_timeout(PATIENCE)
    tab = context.new_page()
    tab.trouble = trouble = []
    address = f"http://127.0.0.1:{server.server_port}/"
    tab.on("dialog", lambda dialog: (trouble.append(f"dialog {dialog.message}"), dialog.dismiss()))
    tab.on("console", lambda message: trouble.append(message.text) if message.type in ("error", "warning") else None)
    tab.on("pageerror", lambda error: trouble.append(str(error)))
    foreign = lambda request: not request.url.startswith((address, "data:"))  # noqa: E731
    tab.on("request", lambda request: trouble.append(f"request {request.url}") if foreign(request) else None)
    tab.goto(address)
    yield tab
    context.close()
    assert not trouble, trouble


def settled(tab) -> str:
    """What the page says once all is done: a picture is read, too, before it is asked about."""
    wait_until(tab, "running === null && document.getElementById('status').className !== 'busy'")
    return tab.text_content("#status")


DROP = """([base64, name]) => {
    const bytes = Uint8Array.from(atob(base64), (char) => char.charCodeAt(0)), data = new DataTransfer();
    data.items.add(new File([bytes], name, { type: "image/png" }));
    const event = new DragEvent("drop", { bubbles: true, cancelable: true, dataTransfer: data });
    document.getElementById("drop").dispatchEvent(event);
}"""
COLOUR = """(selector) => {
    const image = document.querySelector(selector), canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
    const context = canvas.getContext("2d");
    context.drawImage(image, 0, 0);
    return [...context.getImageData(canvas.width / 2, canvas.height / 2, 1, 1).data.slice(0, 3)];
}"""
# every text that was ever in the field, while an answer is being written
RECORD = """() => {
    const own = Object.getOwnPropertyDescriptor(HTMLTextAreaElement.prototype, "value"), written = window.written = [];
    Object.defineProperty(document.getElementById("code"), "value", {
        get() { return own.get.call(this); },
        set(text) { written.push(text); own.set.call(this, text); },
    });
}"""


def drop(tab, target) -> str:
    tab.evaluate(DROP, [base64.b64encode(target.read_bytes()).decode(), target.name])
    return settled(tab)


def test_a_dropped_picture_is_answered_corrected_and_drawn_again(browser, qwen3_folder, target):  # noqa: F811
    with served(qwen3_folder, POOR, GOOD) as server, opened(browser, server) as tab:
        assert tab.text_content("#model") == "a <b>tiny</b> one" and tab.input_value("#kind") == "svg"
        tab.evaluate(RECORD)
        assert drop(tab, target).startswith("answer: visual score 0.")
        written = [text for text in tab.evaluate("written") if text.startswith("Here it is:")]
        assert len(written) > 1 and len(written[0]) < len(written[-1]), "it is seen being written"
        assert tab.input_value("#code") == POOR
        assert tab.evaluate(COLOUR, "#target img") == [255, 0, 0]
        assert tab.evaluate(COLOUR, "#rendering img") == [255, 204, 204]
        tiles = tab.locator("#tiles .tiles i").all_text_contents()
        assert len(tiles) > 1 and all(0 <= float(text) <= 1 for text in tiles)
        before = float(tab.text_content("#visual"))

        tab.fill("#code", CIRCLE.format("blue"))
        tab.click("#draw")
        assert settled(tab).startswith("drawn by you: visual score")
        assert tab.evaluate(COLOUR, "#rendering img") == [0, 0, 255]
        assert tab.input_value("#code") == CIRCLE.format("blue")

        tab.click("#correct")
        assert settled(tab).startswith("corrected: ") and tab.input_value("#code") == GOOD
        assert tab.evaluate(COLOUR, "#rendering img") == [255, 0, 0]
        assert float(tab.text_content("#visual")) > before

        tab.locator("#attempts button").nth(1).click()  # what was drawn before is still there
        assert tab.input_value("#code") == CIRCLE.format("blue")
        assert tab.evaluate(COLOUR, "#rendering img") == [0, 0, 255]


def test_a_chosen_file_and_several_answers(browser, qwen3_folder, target):  # noqa: F811
    with served(qwen3_folder, BROKEN, POOR, GOOD, best_of=3) as server, opened(browser, server) as tab:
        tab.set_input_files("#file", target)
        assert settled(tab).startswith("answer 3: ") and tab.input_value("#code") == GOOD
        assert tab.locator("#attempts button").count() == 3
        tab.locator("#attempts button").nth(0).click()
        assert tab.text_content("#status").startswith("answer 1: svg: ") and tab.input_value("#code") == BROKEN
        assert tab.locator("#rendering img, #tiles img").count() == 0


def held(server) -> threading.Event:
    """No word is written until it is set."""
    policy, released = server.live.answerer.policy, threading.Event()
    decode = policy.decode
    policy.decode = lambda ids: released.wait(300) and decode(ids)
    return released


def test_stop(browser, qwen3_folder, target):  # noqa: F811
    with served(qwen3_folder, GOOD) as server, opened(browser, server) as tab:
        released = held(server)
        tab.set_input_files("#file", target)
        wait_until(tab, "document.querySelector('#target img') !== null")
        assert tab.is_disabled("#draw") and tab.evaluate("document.getElementById('code').readOnly")
        tab.click("#stop")
        assert settled(tab) == "Stopped" and tab.is_enabled("#draw") and not tab.is_visible("#stop")
        released.set()
        tab.click("#again")
        assert settled(tab).startswith("answer: visual score") and tab.input_value("#code") == GOOD


def test_one_page_waits_for_another(browser, qwen3_folder, target):  # noqa: F811
    with served(qwen3_folder, GOOD) as server, opened(browser, server) as tab, opened(browser, server) as other:
        released = held(server)
        tab.set_input_files("#file", target)
        wait_until(tab, "document.querySelector('#target img') !== null")
        while not server.live.one_at_a_time.locked():
            assert tab.evaluate("running !== null")
        other.set_input_files("#file", target)
        wait_until(other, "document.getElementById('status').textContent.startsWith('Waiting')")
        released.set()
        assert settled(tab) == settled(other) != ""


def test_what_is_hostile_is_text_and_runs_nothing(browser, qwen3_folder, target):  # noqa: F811
    with served(qwen3_folder, HOSTILE, None) as server, opened(browser, server) as tab:
        drop(tab, target)
        assert tab.input_value("#code") == HOSTILE
        scripted = CIRCLE.format("red").replace(
            "</svg>", "<script>alert(4)</script><image href='http://127.0.0.1:9/'/></svg>"
        )
        tab.fill("#code", scripted)
        tab.click("#draw")
        settled(tab)
        assert tab.input_value("#code") == scripted
        assert tab.locator("main svg, main script, main iframe, main textarea *, #status *").count() == 0
        assert tab.locator("script:not([type])").count() == 1
        sources = tab.evaluate("[...document.images].map((image) => image.src.slice(0, 15))")
        assert sources and all(
            source.startswith(("data:image/png;", "data:image/jpeg")[:1] + ("data:image/jpeg",)) for source in sources
        )


def test_the_policy_of_the_page_stops_what_gets_in_some_other_way(browser, server):  # noqa: F811
    with opened(browser, server) as tab:
        stopped = tab.evaluate(
            """async () => {
            const violated = window.violated = new Set();
            addEventListener("securitypolicyviolation", (event) => violated.add(event.effectiveDirective));
            const node = document.createElement("script");
            const refused = (what) => { try { what(); return false; } catch { return true; } };
            const texts = [() => node.textContent = "window.owned = 1", () => document.body.innerHTML = "<b>x</b>"];
            const image = new Image(), over = new Promise((done) => image.onerror = image.onload = done);
            image.src = "http://127.0.0.1:9/x.png";
            await over;
            const sent = await fetch("http://127.0.0.1:9/").then(() => true, () => false);
            return [texts.map(refused), sent, window.owned ?? null];
        }"""
        )
        assert stopped == [[True, True], False, None]
        wait_until(tab, "violated.has('img-src') && violated.has('connect-src')")
        assert tab.trouble
        tab.trouble.clear()


def test_what_is_no_picture_is_said_on_the_page(browser, server, target):  # noqa: F811
    with opened(browser, server) as tab:
        target.write_bytes(b"<svg onload=alert(1)>")
        assert drop(tab, target).startswith("This is not a picture that can be read")
        assert tab.is_visible("#drop") and not tab.is_visible("#work")


SCREENS = {
    "wide-light": {"viewport": {"width": 1280, "height": 1080}, "color_scheme": "light"},
    "wide-dark": {"viewport": {"width": 1280, "height": 1080}, "color_scheme": "dark"},
    "narrow-light": {"viewport": {"width": 390, "height": 900}, "color_scheme": "light"},
}


@pytest.mark.parametrize("name", SCREENS)
def test_looks(browser, qwen3_folder, target, tmp_path, name):  # noqa: F811
    """Set SCREENSHOTS=folder to keep the pictures."""
    with served(qwen3_folder, POOR, BROKEN, GOOD, best_of=3) as server, opened(browser, server, **SCREENS[name]) as tab:
        folder = os.environ.get("SCREENSHOTS", tmp_path)
        tab.screenshot(path=f"{folder}/answer-empty-{name}.png")
        drop(tab, target)
        tab.screenshot(path=f"{folder}/answer-{name}.png", full_page=True)
        with Image.open(f"{folder}/answer-{name}.png") as shown:
            corner = shown.convert("L").getpixel((3, 3))
        assert corner < 60 if "dark" in name else corner > 200
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth"), "the page does not scroll sideways"
