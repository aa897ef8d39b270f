"""Programs that mean harm: each is answered in time by an error or a harmless picture, and leaves nothing behind."""

import os
import shutil
import socket
import tempfile
import threading
import time
from pathlib import Path

import pytest
from test_render import MISSING, SVG, png_bomb

import render
import sandbox
from workers import draw

TIMEOUT = 1.5
pytestmark = pytest.mark.skipif(not sandbox.probe().safe, reason="no sandbox works on this machine")

PLOT = "import matplotlib.pyplot as plt\nplt.plot([1, 2])\n"
IGNORE = "import signal\nfor s in range(1, 65):\n    try: signal.signal(s, 1)\n    except (OSError, ValueError): pass\n"
# Where a program would leave its mark if it could: PORT and MARK are filled in by the tests.
PYTHON = {
    "fork bomb": "import os\nwhile True: os.fork()",
    "fork bomb that ignores errors": "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass",
    "thread bomb": "import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(99,)).start()",
    "thread bomb that ignores errors": "import threading as t, time\nwhile True:\n    try: t.Thread(target=time.sleep, "
    "args=(99,)).start()\n    except RuntimeError: pass",
    "processes through multiprocessing": "import multiprocessing as m\nm.Process(target=print).start()",
    "spawned interpreter": "import subprocess, sys\nsubprocess.Popen([sys.executable, '-c', 'while 1: pass'])",
    "daemon": "import os\nif os.fork() == 0:\n    os.setsid()\n    while True: open('MARK', 'w')",
    "memory at once": "x = bytearray(1 << 40)",
    "memory bit by bit": "x = []\nwhile True: x.append(bytearray(1 << 20))",
    "memory through numpy": "import numpy as np\nx = [np.ones((8000, 8000)) for _ in range(1000)]",
    "shared memory": "from multiprocessing import shared_memory as s\nx = s.SharedMemory(None, True, 1 << 34)",
    "memory file": "import os\nf = os.memfd_create('x')\nwhile True: os.write(f, bytes(1 << 20))",
    "mapped memory": "import mmap\nx = [mmap.mmap(-1, 1 << 30) for _ in range(99)]\nx[0].write(bytes(1 << 30))",
    "big integers": "print(len(str(9 ** (9 ** 9))))",
    "deep recursion": "import sys\nsys.setrecursionlimit(10**9)\ndef f(): f()\nf()",
    "deep recursion in C": "import sys\nsys.setrecursionlimit(10**9)\nx = []\nfor _ in range(10**7): x = [x]\nrepr(x)",
    "loop": "while True: pass",
    "loop in C": "list(range(10**5)) * 0; sum(range(10**15))",
    "loop that ignores signals": IGNORE + "while True: pass",
    "loop that swallows all": "while True:\n    try:\n        while True: pass\n    except BaseException: pass",
    "catastrophic regular expression": "import re\nre.match(r'(a+)+$', 'a' * 60 + 'b')",
    "sleep": "import time\ntime.sleep(999)",
    "wait for input": "input()",
    "endless output": "while True: print('x' * 10**6)",
    "output everywhere": "import os\nfor f in range(99):\n    try: os.write(f, bytes(9**7))\n    except OSError: 0",
    "huge file": "f = open('x', 'wb')\nwhile True: f.write(bytes(1 << 20))",
    "many files": "i = 0\nwhile True:\n    open(f'x{i}', 'w').write('x' * 4096); i += 1",
    "deep folders": "import os\nwhile True: os.mkdir('d'); os.chdir('d')",
    "many descriptors": "x = []\nwhile True: x.append(open('/dev/null'))",
    "read secrets": "print(open('/etc/shadow').read())",
    "read the home": "import os\nprint(os.listdir(os.path.expanduser('~root')))",
    "read the project": "open('PROJECT/render.py').read()",
    "read the tests' target": "open('TARGET').read()",
    "read the parent's memory": "import os\nopen(f'/proc/{os.getppid()}/mem', 'rb').read(1)",
    "read the parent's environment": "import os\nprint(open(f'/proc/{os.getppid()}/environ').read())",
    "read other command lines": "import glob\nassert not [open(p).read() for p in glob.glob('/proc/[0-9]*/maps')], 1",
    "write to the system": "open('/usr/lib/mark', 'w')",
    "write to /tmp": "open('/tmp/MARKNAME', 'w')",
    "write to the packages": "import matplotlib\nopen(matplotlib.__file__, 'a').write('#')",
    "remove the packages": "import matplotlib, shutil\nshutil.rmtree(matplotlib.__path__[0])\nassert 0, 'removed'",
    "poison a library": "import matplotlib.pyplot as p\np.plot = None\np.savefig = None\nraise SystemExit('poisoned')",
    "poison the renderer": "import sys\nsys.modules['sandbox'] = sys.modules['__main__'] = None\nraise SystemExit(3)",
    "symbolic link out": "import os\nos.symlink('/etc/passwd', 'a.png')",
    "hard link out": "import os\nos.link('/etc/passwd', 'a.png')",
    "fifo as picture": "import os\nos.mkfifo('a.png')",
    "device as picture": "import os\nos.mknod('a.png', 0o60666, os.makedev(8, 0))",
    "socket as picture": "import socket\nsocket.socket(socket.AF_UNIX).bind('a.png')",
    "text as picture": "open('a.png', 'w').write('no picture')",
    "truncated picture": "from PIL import Image\nimport io\nb = io.BytesIO()\nImage.new('RGB', (99, 99)).tobytes()\n"
    "open('a.png', 'wb').write(b'\\x89PNG\\r\\n\\x1a\\n' + bytes(20))",
    "huge figure": PLOT + "plt.gcf().set_size_inches(9999, 9999)\nplt.savefig('a.png')",
    "huge image": "from PIL import Image\nImage.new('RGB', (60000, 60000)).save('a.png')",
    "tcp": "import socket\nsocket.create_connection(('127.0.0.1', PORT))",
    "http": "import urllib.request\nurllib.request.urlopen('http://127.0.0.1:PORT/')",
    "dns": "import socket\nsocket.getaddrinfo('example.com', 80)\nraise OSError('resolved')",
    "listen": "import socket\nsocket.socket().bind(('127.0.0.1', 0))",
    "raw socket": "import socket\nsocket.socket(socket.AF_PACKET, socket.SOCK_RAW)",
    "netlink": "import socket\nsocket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
    "vsock": "import socket\nsocket.socket(socket.AF_VSOCK)",
    "kill the parent": "import os\nos.kill(os.getppid(), 9)",
    "stop the parent": "import os, signal\nos.kill(os.getppid(), signal.SIGSTOP)",
    "kill everybody": "import os\nos.kill(-1, 9)",
    "kill the group": "import os\nos.killpg(0, 9)\nimport time; time.sleep(9)",
    "trace the parent": "import ctypes, os\nassert ctypes.CDLL(None).ptrace(16, os.getppid(), 0, 0) == 0, 'refused'",
    "new namespaces": "import ctypes\nassert ctypes.CDLL(None).unshare(0x10000000) == 0, 'refused'",
    "mount": "import ctypes\nassert ctypes.CDLL(None).mount(b'x', b'/tmp', b'tmpfs', 0, 0) == 0, 'refused'",
    "become root": "import os\nos.setuid(0); os.chown('/etc/passwd', 0, 0)",
    "load code": "import ctypes\nopen('x.so', 'wb').write(b'\\x7fELF'); ctypes.CDLL('./x.so')",
    "crash": "import ctypes\nctypes.string_at(0)",
    "abort": "import os\nos.abort()",
    "close all": "import os\nos.closerange(0, 9999)",
    "leave at once": "import os\nos._exit(0)",
    "at exit": "import atexit, time\natexit.register(time.sleep, 99)\nraise SystemExit(1)",
    "finaliser": "class A:\n    def __del__(self):\n        while True: pass\na = A()\ndel a",
}
# What follows an attack would be drawn if it were let through. These leave a file instead, or are let draw.
NO_TAIL = {"symbolic link out", "hard link out", "fifo as picture", "device as picture", "socket as picture"}
NO_TAIL |= {"text as picture", "truncated picture"}
HARMLESS = {"read other command lines", "huge figure"}
ENTITIES = "".join(f'<!ENTITY e{i + 1} "{f"&e{i};" * 10}">' for i in range(12))
DOCUMENT = f'<?xml version="1.0"?><!DOCTYPE svg [<!ENTITY e0 "x">{ENTITIES}]>'
SVGS = {
    "use bomb": SVG.format(
        '<rect id="g0" width="9" height="9"/>'
        + "".join(f'<g id="g{i + 1}">' + f'<use href="#g{i}"/>' * 10 + "</g>" for i in range(12))
    ),
    "entity bomb": DOCUMENT + SVG.format("<text>&e12;</text>"),
    "outside entity": '<!DOCTYPE svg [<!ENTITY x SYSTEM "file:///etc/passwd">]>' + SVG.format("<text y='5'>&x;</text>"),
    "reads a picture": SVG.format('<image href="file:///TARGET" width="9" height="9"/>'),
    "fetches a picture": SVG.format('<image href="http://127.0.0.1:PORT/a.png" width="9" height="9"/>'),
    "deep nesting": SVG.format("<g>" * 60000 + "</g>" * 60000),
    "huge blur": SVG.format('<filter id="f"><feGaussianBlur stdDeviation="1e9"/></filter>' + '<rect width="9" '
    'height="9" filter="url(#f)"/>' * 500),
    "endless noise": SVG.format('<filter id="f" width="9e4" height="9e4"><feTurbulence numOctaves="99999"/></filter>'
    + '<rect width="9" height="9" filter="url(#f)"/>' * 99),
    "picture bomb": SVG.format(png_bomb(12000)),
    "extreme shape": SVG.format('<rect width="9" height="9"/>').replace("viewBox", 'height="99999999" viewBox'),
    "no size": '<svg xmlns="http://www.w3.org/2000/svg" width="0" height="0"/>',
    "script": SVG.format('<script>while (true) {}</script><rect width="9" height="9"/>'),
    "long path": SVG.format(f'<path d="M0 0{"L9 9L0 1" * 300000}" stroke="red" stroke-width="1"/>'),
    "not xml": "\x00\x01\x02 <svg>",
}  # fmt: skip
HTML = {
    "loop": "<script>while (true) {}</script>",
    "loop later": "<h1>x</h1><script>setTimeout(() => { while (true) {} }, 1)</script>",
    "endless alerts": "<h1>x</h1><script>while (true) alert(1)</script>",
    "prompt and print": "<h1>x</h1><script>prompt('x'); confirm('y'); print()</script>",
    "element bomb": "<script>while (true) document.body.append(document.createElement('div'))</script>",
    "memory bomb": "<script>const x = []; while (true) x.push(new Float64Array(1e6).fill(1))</script>",
    "workers": "<h1>x</h1><script>const u = URL.createObjectURL(new Blob(['while (true) {}']));"
    "for (let i = 0; i < 20; i++) new Worker(u)</script>",
    "pop-ups": "<h1>x</h1><script>for (let i = 0; i < 50; i++) open('about:blank')</script>",
    "frames": "<h1>x</h1><script>for (let i of Array(300)) document.write('<iframe></iframe>')</script>",
    "frames in frames": "<h1>x</h1><script>if (top == self || parent == top) {"
    "const f = document.createElement('iframe');"
    "f.srcdoc = document.documentElement.outerHTML; document.body.append(f) }</script>",
    "storage": "<h1>x</h1><script>while (true) localStorage[Math.random()] = 'x'.repeat(1e5)</script>",
    "reads files": "<iframe src='file:///etc/passwd'></iframe><img src='file:///TARGET'><h1>x</h1>",
    "reads files by script": "<h1>x</h1><script>fetch('file:///etc/passwd').then(r => r.text()).then(t => "
    "document.body.innerText = t)</script>",
    "network": "<h1>x</h1><img src='http://127.0.0.1:PORT/i'><script>fetch('http://127.0.0.1:PORT/f'); "
    "new WebSocket('ws://127.0.0.1:PORT/w'); navigator.sendBeacon('http://127.0.0.1:PORT/b')</script>",
    "peer connection": "<h1>x</h1><script>const p = new RTCPeerConnection({iceServers: "
    "[{urls: 'stun:127.0.0.1:PORT'}]});"
    "p.createDataChannel('x'); p.createOffer().then(o => p.setLocalDescription(o))</script>",
    "endless loading": "<h1>x</h1><link rel=stylesheet href='http://127.0.0.1:PORT/s'><script>document.open()</script>",
    "goes elsewhere": "<h1>x</h1><meta http-equiv=refresh content='0; url=http://127.0.0.1:PORT/'>",
    "reloads for ever": "<h1>x</h1><script>location.reload()</script>",
    "browser's pages": "<h1>x</h1><script>location = 'chrome://crash'; open('chrome://kill')</script>",
    "downloads": "<h1>x</h1><a id=a download=x href='data:,x'></a><script>for (let i of Array(99)) a.click()</script>",
    "very high page": "<div style='height: 33554400px; background: red'>x</div>",
    "very wide page": "<div style='width: 33554400px; background: red'>x</div>",
    "huge canvas": "<canvas id=c width=32767 height=32767></canvas><script>c.getContext('2d').fill()</script>",
    "heavy style": "<style>body * { filter: blur(99px) drop-shadow(0 0 99px red) }</style>" + "<div>" * 400,
    "never loaded": "<h1>x</h1><script>Object.defineProperty(document, 'readyState', {get: () => 'loading'})</script>",
    "bad getters": "x<script>Object.defineProperty(document, 'documentElement', {get() { for (;;); }})</script>",
    "megabytes": "<h1>x</h1>" + "<p>text</p>" * 200000,
}
LATEX = {
    "endless expansion": r"\def\a{\a\a}\a",
    "loop": r"\loop\iftrue\repeat",
    "memory": r"\def\a{x}\loop\edef\a{\a\a}\iftrue\repeat",
    "thousands of pages": r"\documentclass{article}\begin{document}\newcount\n\loop x\newpage\advance\n1 \ifnum\n<99999"
    r"\repeat\end{document}",
    "shell": r"x\immediate\write18{touch MARK}",
    "pipe": r"\input{|touch MARK}",
    "reads a file": r"\input{/etc/passwd}",
    "reads the target": r"\includegraphics{TARGET}",
    "opens a file": r"x\newread\f\openin\f=/etc/passwd \ifeof\f\else\undefined\fi",
    "dumps a file": r"x\pdffiledump length 9 {/etc/passwd}",
    "writes a file": r"x\newwrite\f\immediate\openout\f=MARK \immediate\write\f{x}",
    "writes above": r"x\newwrite\f\immediate\openout\f=../MARKNAME \immediate\write\f{x}",
    "fills the disk": r"x\newwrite\f\immediate\openout\f=x \loop\immediate\write\f{xxxxxxxxxxxxxx}\iftrue\repeat",
    "asks": r"x\read16 to\x",
    "waits for input": r"\begin{tikzpicture}",
    "lua": r"\directlua{os.execute('touch MARK')}",
    "huge page": r"\documentclass{standalone}\begin{document}\rule{500cm}{500cm}\end{document}",
    "tiny page": r"\documentclass{standalone}\begin{document}\rule{1sp}{1sp}\end{document}",
    "many lines": r"\begin{tikzpicture}\foreach \x in {1,...,999999} \draw (0,0) -- (\x,\x);\end{tikzpicture}",
    "redefines all": r"\def\relax{}\def\par{\par}x \par",
}
MERMAID = {
    "script": 'flowchart LR\n A["<script>while(true){}</script><img src=x onerror=alert(1)>"] --> B',
    "link": 'flowchart LR\n A --> B\n click A "javascript:while(1){}"',
    "directive": '%%{init: {"securityLevel": "loose", "themeCSS": "*{background:url(http://127.0.0.1:PORT/)}"}}%%\n'
    "flowchart LR\n A --> B",
    "thousands of nodes": "flowchart LR\n" + "\n".join(f" A{i} --> A{i * 7 % 3000}" for i in range(3000)),
    "no diagram": "x" * 100000,
}
PROGRAMS = {"python": PYTHON, "svg": SVGS, "html": HTML, "latex": LATEX, "mermaid": MERMAID}


def test_there_are_enough_of_them():
    assert sum(map(len, PROGRAMS.values())) >= 80


class Trap:
    """A listening port, a file to be read and a folder to be written to; nothing may reach any of them."""

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="nanovinci-trap-"))
        self.target, self.mark = self.folder / "target.png", self.folder / "mark"
        self.target.write_bytes(b"target")
        self.visits = 0
        self.server = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self):
        while True:
            try:
                self.server.accept()
            except OSError:
                return
            self.visits += 1

    def set(self, code: str) -> str:
        project = str(Path(render.__file__).parent)
        names = {"MARKNAME": self.mark.name, "MARK": str(self.mark), "TARGET": str(self.target), "PROJECT": project}
        for name, value in {**names, "PORT": str(self.server.getsockname()[1])}.items():
            code = code.replace(name, value)
        return code

    def sprung(self) -> bool:
        return self.visits > 0 or sorted(p.name for p in self.folder.iterdir()) != ["target.png"]


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("language", PROGRAMS)
def test_hostile_programs(language, subtests):
    """Answered in time; nothing read, written, reached or left; and a good program then gives the very same picture."""
    if MISSING[language]:
        pytest.skip(MISSING[language])
    trap, before, descriptors = Trap(), set(sandbox.descendants(os.getpid())), open_descriptors()
    with render.Renderer(workers=1, timeout=TIMEOUT, memory_mb=768, cache_mb=0) as renderer:
        good = draw.SAMPLES[language]
        picture = renderer.render(good, language).image.tobytes()
        for name, code in PROGRAMS[language].items():
            with subtests.test(language=language, program=name):
                started = time.monotonic()
                tail = "\n" + PLOT if language == "python" and name not in NO_TAIL else ""
                result = renderer.render(trap.set(code + tail), language)
                assert time.monotonic() - started < TIMEOUT + 20, "answered late"
                assert (result.image is None) != (result.error is None)
                assert result.error is None or result.error.strip()
                if result.image is not None:
                    assert result.image.width * result.image.height <= 4_000_000
                    assert language != "python" or name in HARMLESS, "it was let through"
                after = renderer.render(good, language)
                assert after.image is not None and after.image.tobytes() == picture, after.error
                assert not trap.sprung(), "it reached what it must not"
    deadline = time.monotonic() + 5
    while set(sandbox.descendants(os.getpid())) - before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not set(sandbox.descendants(os.getpid())) - before, "a process is left"
    assert open_descriptors() <= descriptors + 1, "a file is left open"  # the trap's own
    trap.server.close()
    shutil.rmtree(trap.folder)
