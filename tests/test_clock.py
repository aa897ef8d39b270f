"""The time that a program has had: what counts on an idle machine and on a busy one, and what cannot stop the clock."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from test_render import ENDLESS, HANG, MISSING, need, processes_of_ours, wait_until

import render
import sandbox
from languages import LANGUAGES

LOOP = [sys.executable, "-c", "while True: pass"]


def read_off(monkeypatch, *looks, limit=10.0):
    """What a clock shows that sees (seconds on the wall, CPU seconds, {thread: seconds waited}) one after the other."""
    seen = []
    with monkeypatch.context() as patch:
        patch.setattr(sandbox.time, "monotonic", lambda: 0.0)
        clock = sandbox.Clock(1, limit)
        for now, cpu, waited in looks:
            patch.setattr(sandbox.time, "monotonic", lambda now=now: now)
            patch.setattr(sandbox, "activity", lambda pid, cpu=cpu, waited=waited: (cpu, waited))
            seen.append(clock.look())
    return seen


def test_what_counts(monkeypatch):
    monkeypatch.setattr(sandbox.Clock, "WIDE", 4)
    show = lambda *looks: pytest.approx(read_off(monkeypatch, *looks))  # noqa: E731
    assert show((0.2, 7, {1: 5}), (1.2, 8, {1: 5})) == [0.2, 1.2], "it runs: what was before does not count"
    assert show((0.2, 7, {1: 5}), (1.2, 7, {1: 5})) == [0.2, 1.2], "it sleeps"
    assert show((0.2, 0, {1: 0}), (1.2, 0.1, {1: 0.9})) == [0.2, 0.3], "it waits for a core"
    assert show((0.2, 0, {1: 0}), (1.2, 0.1, {1: 0.5})) == [0.2, 0.7], "and sleeps for the rest"
    assert show((0.2, 0, {}), (1.2, 2, {})) == [0.2, 1.2], "two threads at once on two cores"
    assert show((0.2, 0, {}), (1.2, 0.2, {1: 0.9, 2: 0.9})) == [0.2, 0.1], "and on a busy machine"
    assert show((0.2, 0, {}), (1.2, 0.2, {1: 0.4, 2: 0.4})) == [0.2, 0.4], "two that run one after the other"
    assert show((0.2, 0, {1: 1}), (1.2, 0.1, {1: -1.0})) == [0.2, 0.3], "it seems to wait, and nothing is counted"
    late = (0.2, 0, {1: 0}), (0.4, 0, {1: 0}), (0.6, 0.04, {1: 0.36})
    assert show(*late) == [0.2, 0.4, 0.24], "a wait is told when it is over"


def test_no_wait_stops_the_clock(monkeypatch):
    monkeypatch.setattr(sandbox.Clock, "WIDE", 2)
    seen = read_off(monkeypatch, (0.2, 0, {1: 0}), (300, 0, {1: 300}))
    assert seen[1] == pytest.approx(10), "what only waits ends some time"
    crowd = {thread: 0.02 for thread in range(100)}  # all wake at once, and wait for one another
    seen = read_off(monkeypatch, (0.2, 0, dict.fromkeys(crowd, 0)), (1.2, 0.04, crowd))
    assert seen[1] > 1.1


@pytest.mark.parametrize("counted", [True, False], ids=["counted", "guessed"])
def test_children_count_also_when_they_have_ended(monkeypatch, counted):
    """Also where the kernel tells neither waits nor children."""
    if not counted:
        read = sandbox._read
        monkeypatch.setattr(sandbox, "_read", lambda path: b"" if path.endswith("schedstat") else read(path))
        exists = os.path.exists
        monkeypatch.setattr(os.path, "exists", lambda path: "children" not in str(path) and exists(path))
    burn = "import time\nwhile time.process_time() < 0.3: pass\n"
    code = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {burn!r}])\nprint('x', flush=True)\ninput()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        wait_until(lambda: sandbox.activity(parent.pid)[0] >= 0.25)
        assert parent.stdout.read(1) == b"x"
        cpu, waited = sandbox.activity(parent.pid)
        assert cpu >= 0.28 and parent.pid in waited
        parent.stdin.close()
    with subprocess.Popen(LOOP) as loop:
        if not counted:
            wait_until(lambda: sandbox.activity(loop.pid)[1][loop.pid] == -1)
        clock = sandbox.Clock(loop.pid, 0.5)
        with pytest.raises(TimeoutError):
            clock.wait(os.pipe()[0])
        loop.kill()
    assert sandbox.activity(loop.pid) == (0, {})


@contextlib.contextmanager
def one_busy_core(processes: set[int], loops: int):
    """These processes share one core with so many loops, each in a session, among which the kernel shares first."""
    core, running = {min(os.sched_getaffinity(0))}, []
    try:
        for _ in range(loops):
            running.append(subprocess.Popen(LOOP, start_new_session=True, preexec_fn=sandbox.die_with_parent))
        for process in processes | {loop.pid for loop in running}:
            for thread in os.listdir(f"/proc/{process}/task"):
                with contextlib.suppress(OSError):  # ended meanwhile
                    os.sched_setaffinity(int(thread), core)
        yield
    finally:
        for loop in running:
            loop.kill()
            loop.wait()


WORK = {  # 0.2 to 0.7 s of CPU time
    "python": "x = 0\nfor i in range(3_000_000): x = (x * 31 + i) % 1000\n" + LANGUAGES["python"].sample,
    "html": "<h1>x</h1><script>let x = 0; for (let i = 0; i < 5e7; i++) x = (x * 31 + i) % 1000</script>",
    "latex": r"\newcount\i\loop\advance\i by 1 \ifnum\i<1000000 \repeat x" + LANGUAGES["latex"].sample,
    "svg": '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 40 30"><filter id="f"><feTurbulence '
    'baseFrequency="0.1" numOctaves="3"/></filter>' + '<rect width="40" height="30" filter="url(#f)"/>' * 12 + "</svg>",
}


@pytest.mark.skipif(not sandbox.probe().safe, reason="no sandbox works on this machine")
def test_a_busy_machine_changes_no_verdict():
    """Beside six loops on the same core a program takes seven times as long, which the limit would not bear."""
    need("python")
    jobs = [(WORK[language], language) for language in WORK if not MISSING[language]]
    before = set(processes_of_ours())
    with render.Renderer(1, timeout=2.0, cache_mb=0) as renderer:
        alone = [renderer.submit(*job).result(HANG) for job in jobs]
        with one_busy_core(set(processes_of_ours()) - before, 6):
            beside = [renderer.submit(*job).result(HANG) for job in jobs]
            endless = renderer.submit(ENDLESS["python"], "python").result(HANG)
    assert [result.error for result in alone + beside] == [None] * 2 * len(jobs)
    assert [a.image.tobytes() for a in alone] == [b.image.tobytes() for b in beside]
    assert endless.error == "timeout: the program ran longer than 2 s"


TRICKS = {  # which would stop a clock that counts CPU time alone, or the states of processes
    "sleeps": "import time\ntime.sleep(9999)",
    "sleeps shortly": "import time\nwhile True: time.sleep(0.0005)",
    "stops itself": "import os\nos.kill(os.getpid(), 19)",
    "its first thread is a zombie": "import ctypes, threading, time\n"
    "threading.Thread(target=time.sleep, args=(9999,)).start()\nctypes.CDLL(None).syscall(SYS_EXIT, 0)",
    "yields": "import os\nwhile True: os.sched_yield()",
    # A thread made as by vfork: its maker is in an uninterruptible sleep.
    "seems to wait for the disk": """import ctypes, mmap
libc = ctypes.CDLL(None)
libc.clone.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p]
stack = mmap.mmap(-1, 1 << 20)
top = ctypes.addressof(ctypes.c_char.from_buffer(stack)) + (1 << 20)
libc.clone(ctypes.cast(libc.sleep, ctypes.c_void_p), top, 0x100 | 0x200 | 0x400 | 0x800 | 0x4000 | 0x10000, 9999)""",
    "threads that wait for each other": """import threading
locks = [threading.Lock() for _ in range(50)]
for lock in locks[1:]: lock.acquire()
def turn(i):
    while True:
        locks[i].acquire(); locks[(i + 1) % 50].release()
for i in range(1, 50): threading.Thread(target=turn, args=(i,)).start()
turn(0)""",
    "many threads that sleep": """import threading, time
threading.stack_size(32768)
try:
    while True: threading.Thread(target=time.sleep, args=(9999,)).start()
except RuntimeError: time.sleep(9999)""",
    "threads that run outside of Python": """import ctypes, threading
def spin():
    block = ctypes.create_string_buffer(1 << 22)
    while True: ctypes.memset(block, 1, 1 << 22)
for _ in range(8): threading.Thread(target=spin).start()
spin()""",
    "answers in crumbs": """import os, struct, time
os.write(3, struct.pack('<III', 0, 0, 15999))
while True:
    os.write(3, b'x'); time.sleep(0.01)""",
}


@pytest.mark.skipif(not sandbox.probe().safe, reason="no sandbox works on this machine")
def test_nothing_stops_the_clock(monkeypatch, subtests):
    """Without its last resort, the time on the wall: what stopped it would hang here. The worker lives through all."""
    need("python")
    monkeypatch.setattr(sandbox.Clock, "AT_LEAST", 1e-9)
    exit_of_a_thread = {"x86_64": "60", "aarch64": "93"}[os.uname().machine]
    with render.Renderer(1, timeout=2.0, cache_mb=0) as renderer:
        good = renderer.submit(LANGUAGES["python"].sample, "python").result(HANG).image.tobytes()
        workers = set(sandbox.descendants(os.getpid()))
        for name, code in TRICKS.items():
            with subtests.test(name):
                result = renderer.submit(code.replace("SYS_EXIT", exit_of_a_thread), "python").result(HANG)
                assert result.error == "timeout: the program ran longer than 2 s"
                assert renderer.submit(LANGUAGES["python"].sample, "python").result(HANG).image.tobytes() == good
                assert workers <= set(sandbox.descendants(os.getpid())), "the worker was lost"


@pytest.mark.skipif(not sandbox.probe().safe, reason="no sandbox works on this machine")
@pytest.mark.parametrize("limit", [0.3, 1.7])
def test_a_loop_ends_by_the_clock_and_not_by_an_rlimit(limit):
    need("python")
    with render.Renderer(1, timeout=limit, cache_mb=0) as renderer:
        for code in ("while True: pass", TRICKS["threads that run outside of Python"]):
            error = renderer.submit(code, "python").result(HANG).error
            assert error == f"timeout: the program ran longer than {limit} s"


@pytest.mark.skipif(not sandbox.probe().safe, reason="no sandbox works on this machine")
def test_what_is_loaded_for_all_is_nobodys_time():
    """A document's TeX format takes longer to make than this limit, when it is asked for first."""
    need("latex")
    with render.Renderer(1, timeout=1.0, cache_mb=0) as renderer:
        result = renderer.submit(
            r"\documentclass{standalone}\usepackage{pgfplots}\begin{document}x\end{document}", "latex"
        )
        assert result.result(HANG).error is None


def test_the_benchmark_of_load_ends_its_processes_and_passes_the_status_on(tmp_path):
    script = Path(__file__).parent.parent / "benchmarks/load.py"
    note = f'{sys.executable} -c "import os; print(os.getppid(), flush=True); os._exit(3)"'
    ended = subprocess.run([sys.executable, script, "--busy", "2", "--beside", note], capture_output=True, text=True)
    assert ended.returncode == 3, ended.stderr
    pid = int(ended.stdout.split()[0])
    assert not Path(f"/proc/{pid}").exists() and not sandbox.descendants(pid)
    waits = f'{sys.executable} -c "print(1, flush=True); import time; time.sleep(999)"'
    command = [sys.executable, script, "--busy", "2", "--beside", waits]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as running:
        assert running.stdout.read(1) == b"1"
        loops = sandbox.descendants(running.pid)
        assert len(loops) == 3
        os.killpg(running.pid, signal.SIGKILL)
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in loops))
