"""Every language draws; broken, endless, greedy and hostile programs fail in time and leave the worker usable."""

import base64
import contextlib
import json
import os
import shutil
import struct
import subprocess
import sys
import threading
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import render
import sandbox
from languages import LANGUAGES, browser, mermaid, protocol, python
from pictures import is_blank

TIMEOUT = 3.0
LACKING = python.packages_of(render.interpreter())[1]
HANG = 900  # seconds: what has not come by then never comes, however busy the machine is
MISSING = {
    "svg": "pyvips is not installed" if "pyvips" in LACKING else None,
    "python": "matplotlib is not installed" if "matplotlib" in LACKING else None,
    "latex": None if shutil.which("pdflatex") else "pdflatex is not installed",
    "html": None if browser.chromium_path() else "chromium is not installed",
}
MISSING["mermaid"] = MISSING["html"] or (
    None if mermaid.mermaid_script() else "mermaid.min.js is absent: run `make setup`"
)

pytestmark = pytest.mark.skipif(not sandbox.probe().safe, reason="no sandbox works on this machine")
every_language = pytest.mark.parametrize("language", LANGUAGES)


def need(language):
    if MISSING.get(language):
        pytest.skip(MISSING[language])


@pytest.fixture(scope="module")
def renderer():
    with render.Renderer(workers=1, timeout=TIMEOUT, memory_mb=1024, cache_mb=0) as shared:
        yield shared


def wait_until(done):
    deadline = time.monotonic() + HANG
    while not done():
        assert time.monotonic() < deadline, "it never comes"
        time.sleep(0.02)


def draws(renderer, code, language):
    """The picture of a good program."""
    result = renderer.submit(code, language).result(HANG)
    assert result.error is None, result.error
    assert result.image.mode == "RGB" and not is_blank(result.image)
    return result.image


def fails(renderer, code, language, *words):
    """A program fails with one of `words` in its error, and the next program of that language works."""
    result = renderer.submit(code, language).result(HANG)
    assert result.image is None and result.error
    assert not words or any(word in result.error for word in words), result.error
    draws(renderer, LANGUAGES[language].sample, language)
    return result.error


# ---- every language --------------------------------------------------------------------------------------------------


@pytest.mark.quick
@every_language
def test_sample_is_drawn_the_same_each_time(renderer, language):
    need(language)
    first = draws(renderer, LANGUAGES[language].sample, language)
    assert first.tobytes() == draws(renderer, LANGUAGES[language].sample, language).tobytes()


BROKEN = {
    "python": ("x = 1\nplot(x)", "line 2"),
    "svg": ("<svg xmlns='http://www.w3.org/2000/svg'><rect", "svg"),
    "latex": ("\\begin{tikzpicture}\\undefinedthing\\end{tikzpicture}", "Undefined control sequence"),
    "mermaid": ("flowchart LR\n A --> --> B", "Parse error"),
}


@pytest.mark.quick
@pytest.mark.parametrize("language", BROKEN)
def test_broken_program(renderer, language):
    need(language)
    code, words = BROKEN[language]
    fails(renderer, code, language, words)


SVG = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9">{}</svg>'
RECT = '<rect id="g0" width="9" height="9" fill="teal"/>'
USE_BOMB = RECT + "".join(f'<g id="g{i + 1}">' + f'<use href="#g{i}"/>' * 10 + "</g>" for i in range(9))


def png_bomb(side=15000):
    """An svg that holds a PNG of `side` x `side` px, all black."""
    compress, row = zlib.compressobj(9), bytes(1 + 3 * side)
    pixels = b"".join(compress.compress(row) for _ in range(side)) + compress.flush()
    chunks = (b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)), (b"IDAT", pixels), (b"IEND", b"")
    png = b"\x89PNG\r\n\x1a\n"
    png += b"".join(struct.pack(">I", len(d)) + t + d + struct.pack(">I", zlib.crc32(t + d)) for t, d in chunks)
    return f'<image width="9" height="9" href="data:image/png;base64,{base64.b64encode(png).decode()}"/>'


ENDLESS = {
    "python": "while True: pass",
    "svg": SVG.format(USE_BOMB),
    "html": "<h1>x</h1><script>while (true) {}</script>",
    "latex": "\\loop\\iftrue\\repeat",
}


@pytest.mark.parametrize("language", ENDLESS)
def test_endless_program_is_stopped(renderer, language):
    need(language)
    fails(renderer, ENDLESS[language], language, "timeout")


GREEDY = {
    "python": "x = bytearray(20 << 30)",
    "html": "<script>const hoard = []; while (true) hoard.push(new Array(1e6).fill(Math.random()))</script>",
    "latex": "\\def\\a{x}\\loop\\edef\\a{\\a\\a}\\iftrue\\repeat",
}


@pytest.mark.parametrize("language", GREEDY)
def test_greedy_program_is_stopped(renderer, language):
    need(language)
    fails(renderer, GREEDY[language], language)


def test_greedy_svg_is_stopped():
    """librsvg may draw nothing where the picture does not fit; it must not take the memory."""
    need("svg")
    with render.Renderer(workers=1, timeout=TIMEOUT, memory_mb=512, cache_mb=0) as small:
        result = small.render(SVG.format(png_bomb()), "svg")
        assert result.image is None or is_blank(result.image)
        draws(small, LANGUAGES["svg"].sample, "svg")


@every_language
def test_empty_program(renderer, language):
    assert renderer.render(" \n", language).error == "the program is empty"


def test_unknown_language_and_too_long(renderer):
    assert "unknown language 'cobol'" in renderer.render("x", "cobol").error
    assert "Unicode" in renderer.render("<p>\ud800</p>", "html").error
    assert "longer" in renderer.render("#" * (render.MAX_CODE + 1), "python").error


# ---- python: how pictures are found ----------------------------------------------------------------------------------

START = "import io, os\nimport matplotlib.pyplot as plt\nfig, ax = plt.subplots(figsize=(2, 1))\nax.plot([1, 3, 2])\n"
FINISHES = {
    "left open": "",
    "show": "plt.show()",
    "savefig": "plt.savefig('a.png')",
    "savefig elsewhere": "plt.savefig('/nowhere/a.pdf', bbox_inches='tight')",
    "savefig to a computed name": "fig.savefig(fname=os.path.join('.', f'{1}.svg'))",
    "savefig to a buffer": "fig.savefig(io.BytesIO(), format='jpg')",
    "closed after saving": "fig.savefig('a.png'); plt.close('all')",
    "error after saving": "fig.savefig('a.png'); 1 / 0",
    "exit after saving": "fig.savefig('a.png'); raise SystemExit(3)",
    "canvas": "fig.canvas.print_png(io.BytesIO())",
    "reads its own file": "from PIL import Image; fig.savefig('a.png'); Image.open('a.png').rotate(9).save('b.png')",
    "a word in a comment": "# rdkit, indigo, fig.savefig('x')",
}


@pytest.mark.parametrize("finish", FINISHES.values(), ids=FINISHES.keys())
def test_python_pictures_are_captured(renderer, finish):
    need("python")
    draws(renderer, START + finish, "python")


def test_python_svg_and_pillow_files(renderer):
    need("python")
    draws(renderer, f"open('a.svg', 'w').write('''{LANGUAGES['svg'].sample}''')", "python")
    code = "from PIL import Image\nim = Image.new('RGBA', (4, 4))\nim.putpixel((0, 0), (0, 0, 255, 255))\n"
    code += "im.save('/x/y.png')"
    image = draws(renderer, code, "python")
    assert image.getpixel((0, 0)) == (0, 0, 255) and image.getpixel((3, 3)) == (255, 255, 255)


MOLECULE = "from rdkit import Chem\nfrom rdkit.Chem import Draw\nfrom rdkit.Chem.Draw import rdMolDraw2D\n"
MOLECULE += "mol = Chem.MolFromSmiles('CCO')\n"
DRAWER = "d = rdMolDraw2D.MolDraw2D{}(99, 99); d.DrawMolecule(mol); d.FinishDrawing()\n"


@pytest.mark.skipif("rdkit" in LACKING, reason="rdkit is not installed")
@pytest.mark.parametrize(
    "finish",
    [
        DRAWER.format("Cairo") + "d.WriteDrawingText('/tmp/x/a.png')",
        DRAWER.format("SVG") + "open('a.svg', 'w').write(d.GetDrawingText())",
        "Draw.MolToFile(mol, '/nowhere/a.png')",
        "Draw.MolToImage(mol).save('a.png')",
        "Draw.MolsToGridImage([mol, mol]).show()",
    ],
)
def test_molecules(renderer, finish):
    draws(renderer, MOLECULE + finish, "python")


@pytest.mark.skipif("epam.indigo" in LACKING, reason="epam.indigo is not installed")
def test_indigo(renderer):
    code = "from indigo import Indigo\nfrom indigo.renderer import IndigoRenderer\ni = Indigo()\n"
    draws(renderer, code + "IndigoRenderer(i).renderToFile(i.loadMolecule('CCO'), '/nowhere/a.png')", "python")


@pytest.mark.parametrize("code", ["# nothing", "print('hello')", "import os; os._exit(0)", "exit()"])
def test_no_figure_is_an_error(renderer, code):
    need("python")
    fails(renderer, code, "python", "without drawing a figure", "before a picture")


def test_error_text_is_the_programs_own(renderer):
    need("python")
    error = fails(renderer, "def f():\n    return undefined\n\nf()", "python")
    assert error == "line 4: f()\nline 2: return undefined\nNameError: name 'undefined' is not defined"


def test_unseeded_randomness_is_seeded(renderer):
    need("python")
    code = "import random, numpy, matplotlib.pyplot as plt\nplt.plot(numpy.random.rand(9) * random.random())"
    assert draws(renderer, code, "python").tobytes() == draws(renderer, code, "python").tobytes()


def test_resolution_is_kept_but_capped(renderer):
    need("python")
    assert draws(renderer, START + "fig.savefig('a.png', dpi=150)", "python").size == (300, 150)
    width, height = draws(renderer, START + "fig.savefig('a.png', dpi=5000)", "python").size
    assert width * height <= 4_000_000 and abs(width / height - 2) < 0.01


# ---- python: attacks -------------------------------------------------------------------------------------------------

ATTACKS = {
    "read a file": "open('/etc/passwd').read()",
    "list the project": f"import os; os.listdir({str(Path(render.__file__).parent / 'tests')!r})",
    "internet": "import socket; socket.create_connection(('127.0.0.1', 80))",
    "udp": "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM)",
    "unix socket": "import socket; socket.socket(socket.AF_UNIX)",
    "shell": "import os; assert os.system('true') == 0",
    "fork": "import os; os.fork()",
    "exec": "import os; os.execv('/bin/true', ['true'])",
    "subprocess": "import subprocess; subprocess.run(['true'])",
    "write outside": "import os; os.open('/tmp/outside', os.O_CREAT | os.O_WRONLY)",  # open() would go elsewhere
    "write up": "open('../../../../outside', 'w')",  # three folders up is the job's own
    "parent's environment": "import os; open(f'/proc/{os.getppid()}/environ').read()",
    "kill the parent": "import os; os.kill(os.getppid(), 9)",
    "kill all": "import os; os.kill(-1, 9)",
    "renice the parent": "import os; os.setpriority(os.PRIO_PROCESS, os.getppid(), 19)",
    "limit the parent": "import os, resource; resource.prlimit(os.getppid(), resource.RLIMIT_CPU, (0, 0))",
    "change modes": "import os; os.chmod('/tmp', 0)",
    "a huge file": "f = open('x', 'wb')\nfor _ in range(1000): f.write(bytes(1 << 20))",
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS.keys())
def test_python_attack_is_refused(renderer, attack):
    need("python")
    fails(renderer, attack, "python", "Error", "refused")


def test_environment_holds_nothing_of_ours(renderer, monkeypatch):
    need("python")
    code = (
        "import os\nassert not [k for k in os.environ if 'PYTEST' in k or 'SECRET' in k]\n" + LANGUAGES["python"].sample
    )
    draws(renderer, code, "python")


def test_job_inherits_no_descriptors(renderer):
    need("python")
    code = """
import os
open_ones = []
for fd in range(3, 1000):
    try:
        os.fstat(fd)
        open_ones.append(fd)
    except OSError:
        pass
assert open_ones == [3], open_ones  # 3 is the pipe for its own picture
"""
    draws(renderer, code + LANGUAGES["python"].sample, "python")


def test_answer_cannot_be_forged(renderer):
    """A job may lie about its own picture, but must not leave an answer in the pipe for the next job."""
    need("python")
    forged = "import os, struct\nanswer = struct.pack('<III', 1, 1, 3) + bytes(3)\n"
    fails(renderer, forged + "os.write(3, answer * 2)\nos.kill(os.getpid(), 9)", "python", "before a picture")
    fails(
        renderer,
        forged + "os.write(3, struct.pack('<III', 9, 9, 3) + bytes(3))\nos.kill(os.getpid(), 9)",
        "python",
        "nonsense",
    )


def test_programs_do_not_see_each_other(renderer):
    need("python")
    leak = "import math\nmath.leak = 1\nopen('leak.txt', 'w').write('x')\nopen('../leak.txt', 'w').write('x')\n"
    draws(renderer, leak + LANGUAGES["python"].sample, "python")
    check = "import os, math\nassert not hasattr(math, 'leak') and os.listdir('..') == ['work']\n"
    check += "assert not os.listdir() and os.listdir('../../..') == ['home']\n"
    draws(renderer, check + LANGUAGES["python"].sample, "python")


# ---- hostile documents -----------------------------------------------------------------------------------------------


def test_svg_reads_no_files(renderer, tmp_path):
    need("svg")
    Image.new("RGB", (8, 8), "red").save(tmp_path / "red.png")
    for address in (f"{tmp_path}/red.png", f"file://{tmp_path}/red.png", "/etc/passwd"):
        result = renderer.render(SVG.format(f'<image href="{address}" width="9" height="9"/>'), "svg")
        assert result.image is None or is_blank(result.image) and result.image.getpixel((0, 0)) == (255, 255, 255)


def test_svg_side_and_transparency(renderer):
    need("svg")
    image = draws(renderer, LANGUAGES["svg"].sample, "svg")
    assert image.size == (448, 336) and image.getpixel((0, 0)) == (255, 255, 255)


def test_html_reaches_neither_files_nor_network(renderer, tmp_path):
    need("html")
    import http.server

    hits = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            hits.append(self.path)

    (tmp_path / "a.html").write_text("<body style='background: red'></body>")
    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"127.0.0.1:{server.server_port}"
        page = f"""<body style="margin:0"><iframe src="file://{tmp_path}/a.html"></iframe><img src="http://{address}/i">
        <script>fetch("http://{address}/f").catch(() => {{}}); new WebSocket("ws://{address}/w");
        window.open("http://{address}/p"); alert("hello")</script></body>"""
        image = draws(renderer, page + LANGUAGES["html"].sample, "html")
        server.shutdown()
    assert not hits
    assert not (np.asarray(image) == (255, 0, 0)).all(-1).any()


def test_html_pages_share_nothing(renderer):
    need("html")
    page = "<body><script>document.body.innerHTML = '<h1>' + (localStorage.x || document.cookie || name || 'new');"
    page += "localStorage.x = document.cookie = name = 'old'; setTimeout(() => { while (true) {} }, 3000)</script>"
    assert draws(renderer, page, "html").tobytes() == draws(renderer, page, "html").tobytes()


@pytest.mark.parametrize("leave", ["location = 'http://else.test/'", "location.reload()", "forms[0].submit()", "later"])
def test_html_that_leaves_its_page(renderer, leave):
    need("html")
    leave = "setTimeout(() => { location = 'http://else.test/' }, 1)" if leave == "later" else leave
    page = f"<form action='http://else.test'></form><h1>here</h1><script>with (document) {{ {leave} }}</script>"
    stays = draws(renderer, page.replace(leave, ""), "html")
    assert draws(renderer, page, "html").tobytes() == stays.tobytes()


def test_html_height_is_capped(renderer):
    need("html")
    image = draws(renderer, "<div style='height:500000px;background:linear-gradient(90deg,red,blue)'></div>", "html")
    assert image.width * image.height <= 4_000_000 and image.height > 2 * image.width


def test_facts_that_nobody_asked_for_are_nonsense(renderer):
    need("python")
    forged = f"import os, struct\nos.write(3, struct.pack('<III', 0, {protocol.FACTS}, 2) + b'{{}}')\n"
    forged += "os.kill(os.getpid(), 9)\n"
    result = renderer.render(forged, "python")
    assert result.image is None and result.facts is None and "nonsense" in result.error
    draws(renderer, LANGUAGES["python"].sample, "python")


def test_latex_formula_page_and_size(renderer):
    need("latex")
    for formula in (
        "$$x^2$$",
        "\\[x^2\\]",
        "\\begin{align*} x &= y \\\\ a &= b \\end{align*}",
        "\\usepackage{bm}$\\bm{x}$",
    ):
        image = draws(renderer, formula, "latex")
        assert image.width < 200 and image.height < 120
        corners = {image.getpixel((x, y)) for x in (0, image.width - 1) for y in (0, image.height - 1)}
        assert corners == {(255, 255, 255)}
    page = draws(renderer, "\\documentclass{article}\\begin{document}Hello.\\end{document}", "latex")
    assert page.width < 300 and page.height < 100  # cropped, and without its page number
    document = "\\documentclass{article}\\begin{document}\\mbox{}\\end{document}"
    fails(renderer, document, "latex", "page is empty")
    huge = "\\documentclass{standalone}\\begin{document}\\rule{500cm}{500cm}\\end{document}"
    fails(renderer, huge, "latex", "inches", "Dimension too large")


@pytest.mark.parametrize("command", ["\\input{/etc/passwd}", "\\input{|id}", "\\openout5=/tmp/outside.tex"])
def test_latex_attack_is_refused(renderer, command):
    need("latex")
    result = renderer.render(f"\\newwrite\\f x {command} \\immediate\\write18{{touch /tmp/outside}}", "latex")
    assert result.image is None or command.startswith("\\openout")
    assert not Path("/tmp/outside").exists() and not Path("/tmp/outside.tex").exists()


# ---- the pool --------------------------------------------------------------------------------------------------------


def processes_of_ours():
    return [pid for pid in sandbox.descendants(os.getpid()) if Path(f"/proc/{pid}").exists()]


def test_slow_job_holds_nobody_up_and_nothing_survives():
    need("python")
    before = set(processes_of_ours())
    with render.Renderer(workers=2, timeout=HANG, cache_mb=0) as pool:
        for job in [pool.submit(LANGUAGES["python"].sample, "python") for _ in range(4)]:
            assert job.result().error is None
        slow = pool.submit(ENDLESS["python"], "python")
        fast = [pool.submit(LANGUAGES["python"].sample, "python") for _ in range(5)]
        assert all(job.result().error is None for job in fast)
        assert not slow.done()
        while not slow.done():  # killed from outside, it gets a second worker
            sandbox.kill_below(os.getpid(), before)
            time.sleep(0.05)
        assert "process ended" in slow.result().error
    assert set(processes_of_ours()) <= before


def test_children_of_an_endless_job_are_gone():
    need("html")
    before = set(processes_of_ours())
    with render.Renderer(workers=1, timeout=2, cache_mb=0) as pool:
        draws(pool, LANGUAGES["html"].sample, "html")
        assert len(set(processes_of_ours()) - before) > 2
        assert "timeout" in pool.render(ENDLESS["html"], "html").error
        wait_until(lambda: not set(processes_of_ours()) - before)


def test_workers_die_with_their_caller():
    need("svg")
    code = "import render, os, sandbox\nfrom languages import LANGUAGES\n"
    code += "r = render.Renderer(workers=1)\nr.render(LANGUAGES['svg'].sample, 'svg')\n"
    code += "print(*sandbox.descendants(os.getpid()), flush=True)\nos.kill(os.getpid(), 9)"
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(render.__file__).parent
    )
    pids = ended.stdout.split()
    assert pids
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))


# In place of bwrap: it ends at once, and what it started lives on without ever hearing of that.
GONE = """
import os, sys
launcher = os.getpid()
if os.fork():
    os._exit(0)
while os.getppid() == launcher:
    pass
open(sys.argv[1], "w").write(str(os.getpid()))
os.execv(sys.argv[2], sys.argv[2:])
"""


def test_a_worker_whose_launcher_ended_gets_no_job_and_ends(monkeypatch, tmp_path):
    need("python")
    if not sandbox.probe().bwrap:
        pytest.skip("no bubblewrap here")
    pid = tmp_path / "pid"
    monkeypatch.setattr(sandbox, "bwrap_command", lambda _: [sys.executable, "-c", GONE, str(pid)])
    with render.Renderer(workers=1, timeout=HANG, cache_mb=0) as pool:
        assert "process ended" in pool.submit(ENDLESS["python"], "python").result(HANG).error
        wait_until(lambda: not Path(f"/proc/{pid.read_text()}").exists())


def test_closed_renderer_and_cancelled_jobs():
    need("svg")
    pool = render.Renderer(workers=1, cache_mb=0)
    jobs = [pool.submit(LANGUAGES["svg"].sample, "svg") for _ in range(20)]
    pool.close()
    assert all(job.done() for job in jobs)
    with pytest.raises(RuntimeError, match="closed"):
        pool.submit(LANGUAGES["svg"].sample, "svg")


@pytest.mark.parametrize("language", ["python", "svg", "latex", "html"])
def test_landlock_and_seccomp_alone_confine(monkeypatch, capsys, language):
    need(language)
    if not sandbox.probe().landlock:
        pytest.skip("no Landlock here")
    alone = sandbox.Layers(bwrap=False, landlock=sandbox.probe().landlock, seccomp=True)
    monkeypatch.setattr(sandbox, "probe", lambda: alone)
    before = set(processes_of_ours())
    with render.Renderer(workers=1, timeout=TIMEOUT, cache_mb=0) as pool:
        draws(pool, LANGUAGES[language].sample, language)
        fails(pool, ENDLESS[language], language, "timeout")
        if language == "python":
            for attack in ATTACKS.values():
                result = pool.render(attack, language)
                assert result.image is None and "Error" in result.error, attack
    assert "bubblewrap does not work" in capsys.readouterr().err
    assert set(processes_of_ours()) <= before


def test_no_sandbox_is_refused(monkeypatch):
    monkeypatch.setattr(sandbox, "probe", lambda: sandbox.Layers(bwrap=False, landlock=0, seccomp=False))
    with pytest.raises(RuntimeError, match="--allow-unsafe-rendering"):
        render.Renderer()


def test_real_programs_render(renderer):
    folder = Path(__file__).parents[2] / "shared/data/real"
    if not folder.is_dir():
        pytest.skip("../shared/data/real is not here")
    rows = [json.loads(line) for line in (folder / "MANIFEST.jsonl").read_text().splitlines()]
    for row in [row for row in rows if not MISSING[row["language"]]][::25]:
        draws(renderer, (folder / row["path"]).read_text(), row["language"])


# ---- command line ----------------------------------------------------------------------------------------------------


def run(*arguments):
    command = [sys.executable, render.__file__, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def test_command_line(tmp_path):
    need("svg")
    good, bad = tmp_path / "good.svg", tmp_path / "bad.svg"
    good.write_text(LANGUAGES["svg"].sample)
    bad.write_text("no svg")
    ended = run(good, "-o", tmp_path / "x.png")
    assert ended.returncode == 0 and (tmp_path / "x.png").exists(), ended.stderr
    ended = run(good, bad, "-o", tmp_path / "folder")
    assert ended.returncode == 1 and (tmp_path / "folder/good.png").exists()
    assert "bad.svg" in ended.stderr and "Traceback" not in ended.stderr
    for wrong in ([tmp_path / "absent.svg"], [tmp_path], [], [good, "--colour", "red"]):
        ended = run(*wrong)
        assert ended.returncode != 0 and ended.stderr and "Traceback" not in ended.stderr


def test_equal_programs_are_drawn_once_and_memory_is_bounded():
    need("svg")
    with render.Renderer(workers=2, cache_mb=1) as pool:
        group = [pool.submit(LANGUAGES["svg"].sample, "svg") for _ in range(8)]
        assert len({id(job.result().image) for job in group}) == 1 and pool.hits == 7
        others = [pool.submit(SVG.format(f'<rect width="{i}" height="9"/>'), "svg") for i in range(1, 9)]  # 0.6 MB each
        assert all(job.result().image for job in others)
        wait_until(lambda: pool.kept_bytes <= 1 << 20 and len(pool.known) <= 2)
        assert pool.submit(LANGUAGES["svg"].sample, "svg") is not group[0]
    with render.Renderer(workers=1, cache_mb=0) as pool:
        assert pool.submit(LANGUAGES["svg"].sample, "svg") is not pool.submit(LANGUAGES["svg"].sample, "svg")


@pytest.mark.parametrize("language", ["python", "html"])
def test_worker_killed_from_outside_costs_nothing(language):
    need(language)
    slow = {
        "python": "import time; time.sleep(1)\n",
        "html": "<script>const t = Date.now(); while (Date.now() < t + 1000);</script>",
    }
    with render.Renderer(workers=1, timeout=8, cache_mb=0) as pool:
        before = set(processes_of_ours())
        draws(pool, LANGUAGES[language].sample, language)
        job = pool.submit(slow[language] + LANGUAGES[language].sample, language)
        time.sleep(0.4)
        with contextlib.suppress(ProcessLookupError):  # it has just ended
            os.kill(max(set(processes_of_ours()) - before), 9)  # the youngest: the job itself or the browser's page
        result = job.result()
        assert result.image is not None or result.error
        draws(pool, LANGUAGES[language].sample, language)
        job = pool.submit(slow[language] + LANGUAGES[language].sample, language)
        time.sleep(0.4)
        os.kill(min(set(processes_of_ours()) - before), 9)  # the oldest: the worker
        assert job.result().error is None
