"""Programs that mean harm: each is answered in time by an error or a harmless picture, and leaves nothing behind.

Some are here, the others lie in `hostile/`; all run in the whole sandbox, those in `hostile/` also without bubblewrap.
One of each kind (KINDS) runs with the other tests; all run where NANOVINCI_HOSTILE=all is set (`make test-hostile`).
"""

import contextlib
import json
import multiprocessing
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
from PIL import Image
from test_render import HANG, SVG, need, png_bomb, processes_of_ours, wait_until

import render
import sandbox
from languages import LANGUAGES, protocol

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
    "processes through multiprocessing": "from multiprocessing.context import ForkProcess\n"
    "ForkProcess(target=print).start()",
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
    "write to the system": "import os\nos.open('/usr/lib/mark', os.O_CREAT | os.O_WRONLY)",
    "write to /tmp": "import os\nos.open('/tmp/MARKNAME', os.O_CREAT | os.O_WRONLY)",
    "make a file beneath /tmp": "open('/tmp/MARKNAME', 'w')",
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
HARMLESS = {"read other command lines", "huge figure", "make a file beneath /tmp", "wait for input"}
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
KINDS = {  # language -> kind of attack -> the programs that stand for it, of those above and of those in `hostile/`
    "python": {
        "processes": ["fork bomb", "outlives its parent"],
        "threads": ["thread bomb"],
        "memory": ["memory bit by bit", "memory files of all the memory"],
        "time": ["loop that ignores signals", "error whose str loops"],
        "output": ["endless output", "endless error"],
        "disk": ["huge file", "closed folders fill the disk"],
        "reading": ["read the tests' target", "target through libvips"],
        "other processes' memory": ["read the parent's memory", "ptraces a sibling"],
        "writing": ["write to the packages", "times of a library"],
        "the server that forks": ["poison the renderer", "server's pipes"],
        "forged answers": ["forged nonsense sizes", "forged page that loops"],
        "text for a terminal": ["error with escapes"],
        "pictures left behind": ["fifo as picture", "huge image", "png bomb file"],
        "network": ["tcp", "reconnected pair"],
        "signals": ["kill everybody", "signals by pidfd"],
        "privileges": ["new namespaces", "user namespace"],
        "system calls": ["io_uring", "far call into 32 bit"],
        "crashes": ["crash", "illegal instruction"],
        "ends": ["leave at once", "stops itself"],
        "libraries": ["molecule bomb", "plotly figure with scripts"],
    },
    "svg": {
        "bombs": ["use bomb", "entity bomb", "picture bomb", "patterns of patterns"],
        "reading": ["reads a picture", "xinclude"],
        "network": ["fetches a picture", "style with addresses"],
        "sizes": ["extreme shape", "huge size"],
        "scripts": ["script", "foreign object"],
        "no svg": ["not xml", "wrong encoding"],
    },
    "html": {
        "time": ["loop later", "history walks for ever"],
        "memory": ["memory bomb", "wasm memory"],
        "processes": ["workers", "service worker"],
        "windows": ["pop-ups", "pop-up that lives on"],
        "reading": ["reads files", "to a file"],
        "network": ["network", "peer to peer, datagrams"],
        "what stays": ["storage", "storage as it leaves"],
        "sizes": ["very high page", "height infinite"],
        "the page's own objects": ["bad getters", "setters on all objects"],
    },
    "latex": {
        "time": ["loop", "input of itself"],
        "memory": ["memory"],
        "programs": ["shell", "lua", "quoted pipe"],
        "reading": ["reads the target", "opens the target"],
        "writing": ["writes above", "writes over the format"],
        "disk": ["fills the disk"],
        "sizes": ["huge page", "page a hair wide"],
        "text for a terminal": ["errors with escapes"],
        "what stays": ["redefines all", "font of its own"],
        "the pdf": ["launch", "forms in themselves"],
    },
    "mermaid": {
        "scripts": ["script", "label of html"],
        "network": ["directive", "style imports"],
        "time": ["gantt of a million days"],
        "what stays": ["prototype by directive"],
        "no diagram": ["no diagram", "empty diagram"],
    },
}
WHOLE = os.environ.get("NANOVINCI_HOSTILE") == "all"


def chosen(language: str, programs: dict[str, str]) -> dict[str, str]:
    """Of some hostile programs those that are to run here: all, or those that stand for a kind."""
    kept = {name for names in KINDS[language].values() for name in names}
    return {name: code for name, code in programs.items() if WHOLE or name in kept}


FOLDER = Path(__file__).parent / "hostile"


def from_file(language: str) -> tuple[str | None, dict[str, str], set[str], set[str]]:
    """(a program that shows the state it finds, hostile programs, those that draw all the same, those without a tail).

    The file holds "=== name | marks", then the program as it is, with «python expressions» for what repeats.
    """
    programs, harmless, without_tail = {}, set(), set()
    for part in re.split(r"^=== ", (FOLDER / f"{language}.txt").read_text(), flags=re.MULTILINE)[1:]:
        head, _, code = part.partition("\n")
        name, _, marks = head.partition(" | ")
        programs[name] = re.sub("«(.+?)»", lambda m: eval(m[1]), code, flags=re.DOTALL).removesuffix("\n")
        harmless |= {name} if "harmless" in marks else set()
        without_tail |= {name} if "no tail" in marks else set()
    return programs.pop("STATE", None), programs, harmless, without_tail


def test_there_are_enough_of_them():
    assert sum(map(len, PROGRAMS.values())) + sum(len(from_file(language)[1]) for language in PROGRAMS) >= 500


@pytest.mark.parametrize("language", PROGRAMS)
def test_every_kind_of_attack_has_a_program(language):
    there = PROGRAMS[language].keys() | from_file(language)[1].keys()
    assert not {name for names in KINDS[language].values() for name in names} - there


class Trap:
    """Listening sockets of every kind, a file to be read, a folder to be written to; nothing may reach any of them."""

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="nanovinci-trap-"))
        self.target, self.mark = self.folder / "target.png", self.folder / "mark"
        Image.new("RGB", (8, 8), "red").save(self.target)
        self.visits = 0
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port, self.name = self.server.getsockname()[1], self.folder.name
        self.sockets = [self.server, socket.socket(socket.AF_INET, socket.SOCK_DGRAM)]
        self.sockets += [socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(2)]
        self.sockets[1].bind(("127.0.0.1", self.port))
        self.sockets[2].bind(str(self.folder / "datagrams"))
        self.sockets[3].bind("\0" + self.name)
        self.before = self.state()
        for server in self.sockets:
            threading.Thread(target=self.listen, args=(server,), daemon=True).start()

    def listen(self, server):
        while True:
            try:
                server.accept() if server is self.server else server.recv(1)
            except OSError:
                return
            self.visits += 1

    def set(self, code: str) -> str:
        names = {"MARKNAME": self.mark.name, "MARK": str(self.mark), "TARGET": str(self.target)}
        names |= {"TRAPFOLDER": str(self.folder), "TRAPNAME": self.name, "PORT": str(self.port)}
        for name, value in {**names, "PROJECT": str(Path(render.__file__).parent)}.items():
            code = code.replace(name, value)
        return code

    def state(self) -> list:
        about = self.target.stat()
        return [sorted(path.name for path in self.folder.iterdir()), about.st_mtime_ns, about.st_mode, about.st_nlink]

    def sprung(self) -> bool:
        return self.visits > 0 or self.state() != self.before

    def close(self):
        for server in self.sockets:
            with contextlib.suppress(OSError):  # wakes the thread that listens
                server.shutdown(socket.SHUT_RDWR)
            server.close()
        shutil.rmtree(self.folder)


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture
def scratch(monkeypatch):
    """A folder for the temporary files of this process; what is left in it in the end was forgotten."""
    folder = tempfile.mkdtemp(prefix="nanovinci-test-")
    monkeypatch.setattr(tempfile, "tempdir", folder)
    yield Path(folder)
    left = os.listdir(folder) + [name for name in os.listdir("/dev/shm") if name.startswith((".org.chromium", "mark"))]
    shutil.rmtree(folder)
    assert not left, "a file is left"


def attack(
    language: str, programs: dict[str, str], subtests, harmless=frozenset(), without_tail=frozenset(), state=None
):
    """Each program is answered; nothing is read, written, reached or left; and a good program, `state`
    (which shows whatever it finds) or the smallest, then gives the very same picture."""
    before, descriptors = set(processes_of_ours()), open_descriptors()
    trap = Trap()
    # Seconds; a good one has a third at most, as a core that others share is slower even while one has it.
    limit = TIMEOUT if language != "python" else 2.0 if state else TIMEOUT / 2
    with render.Renderer(workers=1, timeout=limit, memory_mb=768, cache_mb=0) as renderer:
        good = state or LANGUAGES[language].sample
        picture = renderer.submit(good, language).result(HANG).image.tobytes()
        for name, code in programs.items():
            with subtests.test(language=language, program=name):
                tail = "\n" + PLOT if language == "python" and name not in without_tail else ""
                result = renderer.submit(trap.set(code + tail), language).result(HANG)
                assert (result.image is None) != (result.error is None)
                if result.image is None:
                    assert result.error.strip() and len(result.error) <= protocol.MAX_ERROR + 7
                    assert all(letter.isprintable() or letter == "\n" for letter in result.error), "steers a terminal"
                else:
                    assert 0 < result.image.width * result.image.height <= 4_000_000
                    assert language != "python" or name in harmless, "it was let through"
                after = renderer.submit(good, language).result(HANG)
                assert after.image is not None and after.image.tobytes() == picture, after.error or "it changed"
                assert not trap.sprung(), "it reached what it must not"
    trap.close()
    wait_until(lambda: not set(processes_of_ours()) - before)
    assert open_descriptors() <= descriptors, "a file is left open"


NEVER = "FILE FOLDER/notes.png ../rick.jpg /rick.jpg //page.localhost/rick.jpg ./x/../../rick.jpg x/rick.jpg rick.jpg/ "
NEVER += "..%2ffolder/rick.jpg %2e%2e/rick.jpg notes.png rick.jpg%00.png RICK.jpg ftp://page.localhost/folder/rick.jpg "
NEVER += "https://page.localhost/folder/rick.jpg http://page.localhost:81/folder/rick.jpg "
NEVER += "http://else.test/folder/rick.jpg "
NEVER += "view-source:rick.jpg blob:rick.jpg filesystem:rick.jpg chrome://theme/rick.jpg FOLDER FOLDER/ . .. /"
READ = """<body><img src=rick.jpg><script>
const red = () => document.body.style.background = "red", names = NAMES;
for (const name of names) {
    const image = new Image();
    image.onload = red, image.src = name;
    for (const [tag, from] of [["embed", "src"], ["iframe", "src"], ["object", "data"], ["script", "src"]]) {
        const element = document.createElement(tag);
        element.style = "display: none", element[from] = name;
        if (tag != "iframe" && tag != "embed") element.onload = red;
        document.body.append(element);
    }
}
for (const name of ["rick.jpg", ...names]) {
    fetch(name).then(red, () => 0);
    const request = new XMLHttpRequest();
    request.onload = red;
    try { request.open("GET", name), request.send(); } catch {}
}
</script></body>"""


@pytest.mark.parametrize("whole", [True, False], ids=["bubblewrap", "without"])
def test_a_page_reads_no_file_but_its_own_pictures(whole, monkeypatch, scratch):
    need("html")
    if not whole:
        alone(monkeypatch)
    for name in ("rick.jpg", "notes.png"):
        Image.new("RGB", (40, 30), "blue").save(scratch / name)
    names = NEVER.replace("FILE", f"file://{scratch}/rick.jpg").replace("FOLDER", f"file://{scratch}").split()
    with render.Renderer(workers=1, timeout=60, cache_mb=0, files={"rick.jpg": str(scratch / "rick.jpg")}) as renderer:
        for kind in ("html", "page facts"):
            assert renderer.render(READ.replace("NAMES", json.dumps(names)), kind).error is None
        image = renderer.render(READ.replace("NAMES", json.dumps(names)), "html").image
        plain = renderer.render("<body><img src=rick.jpg>", "html").image
    assert image.tobytes() == plain.tobytes(), "something else was read"
    assert plain.getpixel((20, 20))[2] > 250 > plain.getpixel((20, 20))[0]
    for name in ("rick.jpg", "notes.png"):
        (scratch / name).unlink()


def alone(monkeypatch):
    """From here on without bubblewrap: Landlock and seccomp confine."""
    if not sandbox.probe().landlock:
        pytest.skip("no Landlock here")
    layers = sandbox.Layers(bwrap=False, landlock=sandbox.probe().landlock, seccomp=True)
    monkeypatch.setattr(sandbox, "probe", lambda: layers)


@pytest.mark.parametrize("language", PROGRAMS)
def test_hostile_programs(language, subtests, scratch):
    need(language)
    attack(language, chosen(language, PROGRAMS[language]), subtests, HARMLESS, NO_TAIL)


@pytest.mark.parametrize("language", PROGRAMS)
def test_more_hostile_programs(language, subtests, scratch):
    need(language)
    state, programs, harmless, without_tail = from_file(language)
    attack(language, chosen(language, programs), subtests, harmless, without_tail, state)


@pytest.mark.parametrize("language", PROGRAMS)
def test_hostile_programs_without_bubblewrap(language, subtests, monkeypatch, scratch):
    need(language)
    alone(monkeypatch)
    state, programs, harmless, without_tail = from_file(language)
    some = dict(list(programs.items())[:: 1 if language == "python" else 4]) if WHOLE else chosen(language, programs)
    attack(language, some, subtests, harmless, without_tail, state)


# ---- the pool --------------------------------------------------------------------------------------------------------


def test_a_page_that_holds_up_its_end_costs_the_next_one_nothing():
    need("html")
    slow = "<h1>x</h1><script>onpagehide = () => { const t = performance.now(); while (performance.now() < t + 1500); }"
    with render.Renderer(workers=1, timeout=1, cache_mb=0) as renderer:
        for _ in range(3):
            assert renderer.render(slow + "</script>", "html").image is not None
            after = renderer.render(LANGUAGES["html"].sample, "html")
            assert after.image is not None, after.error


@pytest.mark.parametrize("whole", [True, False], ids=["bubblewrap", "without"])
def test_folders_that_resist_removal_hold_up_nobody(whole, monkeypatch, scratch):
    need("python")
    if not whole:
        alone(monkeypatch)
    deep = "import os\nfor i in range(3000): os.mkdir('d'); os.chdir('d'); open('x', 'w')\n"
    closed = "import os\nfor i in range(9): os.mkdir(f'd{i}', 0o300); open(f'd{i}/x', 'wb').write(bytes(50 << 20))\n"
    with render.Renderer(workers=1, timeout=TIMEOUT, cache_mb=0) as renderer:
        for code in (deep, closed, closed):  # together more than the temporary file system holds
            assert "Killed" not in (renderer.submit(code, "python").result(HANG).error or "")
            room = renderer.submit("open('x', 'wb').write(bytes(60 << 20))\n" + PLOT, "python").result(HANG)
            assert room.error is None, room.error


CALLER = r"""
import os, sys, tempfile, time
import render, sandbox
from languages import LANGUAGES
if sys.argv[1] == "without":
    layers = sandbox.Layers(False, sandbox.probe().landlock, True)
    sandbox.probe = lambda: layers
loops = {"python": "import ctypes\nctypes.CDLL(None).prctl(1, 0, 0, 0, 0)\nwhile True: pass",
         "html": "<script>for (;;);</script>", "latex": r"\\loop\\iftrue\repeat"}
renderer = render.Renderer(workers=3, timeout=60, cache_mb=0)
for language in loops:
    renderer.render(LANGUAGES[language].sample, language)
for language, code in loops.items():
    renderer.submit(code, language)
time.sleep(1)
print(*sandbox.descendants(os.getpid()), flush=True)
"""
ENDS = {
    "killed": "os.kill(os.getpid(), 9)",
    "exception": "1 / 0",
    "interrupt": "os.kill(os.getpid(), 2); time.sleep(9)",
}


@pytest.mark.parametrize(
    ("layers", "how"),
    [("bubblewrap", "killed"), ("bubblewrap", "interrupt"), ("without", "killed"), ("without", "exception")],
)
def test_no_process_outlives_a_caller_that_ends(layers, how):
    """Not even programs that loop and have asked not to be killed with their parent."""
    for language in ("python", "html", "latex"):
        need(language)
    command = [sys.executable, "-c", CALLER + ENDS[how], layers]
    with tempfile.TemporaryDirectory(prefix="nanovinci-test-", ignore_cleanup_errors=True) as folder:
        surroundings = dict(cwd=Path(render.__file__).parent, env=os.environ | {"TMPDIR": folder})
        ended = subprocess.run(command, capture_output=True, text=True, timeout=HANG, **surroundings)
        pids = ended.stdout.split()
        assert len(pids) > 6, ended.stderr
        wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))


def test_killing_at_random_loses_no_job():
    """Workers, browsers, jobs and bubblewrap itself are killed while many threads submit: each job is answered once."""
    need("python")
    answers, stop = [], threading.Event()
    with render.Renderer(workers=2, timeout=5, cache_mb=0) as renderer:

        def submit():
            for _ in range(10):
                for language in ("python", "svg"):
                    answers.append(renderer.submit(LANGUAGES[language].sample, language).result(HANG))

        threads = [threading.Thread(target=submit) for _ in range(4)]
        for thread in threads:
            thread.start()
        for number in range(8):
            stop.wait(0.3)
            below = processes_of_ours()
            if below:
                os.kill(below[number * 7 % len(below)], signal.SIGKILL)
        for thread in threads:
            thread.join()
        assert len(answers) == 80 and all((a.image is None) != (a.error is None) for a in answers)
        assert sum(a.image is not None for a in answers) >= 60
        for language in ("python", "svg"):
            assert renderer.render(LANGUAGES[language].sample, language).error is None


def test_closing_while_others_submit_leaves_no_future_open():
    need("svg")
    renderer, futures = render.Renderer(workers=1, cache_mb=0), []

    def submit():
        with pytest.raises(RuntimeError, match="closed"):
            while True:
                futures.append(renderer.submit(LANGUAGES["svg"].sample, "svg"))
                time.sleep(0.0005)

    threads = [threading.Thread(target=submit) for _ in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    renderer.close()
    for thread in threads:
        thread.join()
    assert all(future.done() for future in futures)


def test_an_unforeseen_failure_loses_neither_the_job_nor_the_slot(monkeypatch):
    need("svg")
    with render.Renderer(workers=1, cache_mb=0) as renderer:
        with monkeypatch.context() as patch:
            patch.setattr(render.Worker, "render", lambda *_: {}["unforeseen"])
            assert "unforeseen" in renderer.submit(LANGUAGES["svg"].sample, "svg").result(HANG).error
        assert renderer.submit(LANGUAGES["svg"].sample, "svg").result(HANG).error is None


def test_no_room_for_scratch_is_an_error_and_passes(monkeypatch):
    need("svg")
    alone(monkeypatch)
    with render.Renderer(workers=1, cache_mb=0) as renderer:
        with monkeypatch.context() as patch:
            patch.setattr(tempfile, "tempdir", "/proc/no/such/folder")
            assert renderer.render(LANGUAGES["svg"].sample, "svg").error
        assert renderer.render(LANGUAGES["svg"].sample, "svg").error is None


def test_a_forked_trainer_and_two_renderers_live_side_by_side():
    need("svg")
    with render.Renderer(workers=1, cache_mb=0) as one, render.Renderer(workers=1, cache_mb=0) as two:
        pictures = {renderer.render(LANGUAGES["svg"].sample, "svg").image.tobytes() for renderer in (one, two)}
        child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(0.1,))
        child.start()
        child.join(HANG)
        assert child.exitcode == 0
        pictures |= {renderer.render(LANGUAGES["svg"].sample, "svg").image.tobytes() for renderer in (one, two)}
        assert len(pictures) == 1
        one.close()
        assert two.render(LANGUAGES["svg"].sample, "svg").image.tobytes() in pictures


def test_fonts_are_not_made_from_a_documents_own_files():
    """METAFONT would make a missing bitmap font from a file that the document wrote beside itself, for all to come."""
    need("latex")
    start = r"\documentclass{article}\usepackage[T1]{fontenc}\begin{document}"
    poison = (
        r"\newwrite\f\immediate\openout\f=ecrm1000.mf \immediate\write\f{mode_setup; font_size 10pt\string#; for c=0 "
    )
    poison += (
        r"upto 255: beginchar(c,10pt\string#,10pt\string#,0); fill (0,0)--(w,0)--(w,h)--(0,h)--cycle; endchar; endfor; "
    )
    poison += r"end}\immediate\closeout\f Hello\end{document}"
    good, pictures = start + r"Hello\end{document}", []
    for before in (good, start + poison):
        with render.Renderer(workers=1, timeout=10, cache_mb=0) as renderer:
            renderer.render(before, "latex")
            pictures.append(renderer.render(good, "latex"))
    if pictures[0].image is None:
        pytest.skip("no font can be made here")
    assert pictures[0].image.tobytes() == pictures[1].image.tobytes()
