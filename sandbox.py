"""A process that can hurt nobody: Landlock, seccomp, rlimits, bubblewrap, and the whole process tree killed.

Linux only, standard library only (ctypes), imports in a few milliseconds. Three layers, each tried out before it is
trusted (`probe`):

    bwrap     the worker lives in its own namespaces: no network, an empty /tmp, only `system_paths` to read
    landlock  the process itself gives up all files but a list, TCP, and signals to anybody outside
    seccomp   the process itself gives up sockets, new programs, ptrace, mounts, and every other way to its neighbours

    python sandbox.py        # prints which layers hold on this machine
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import functools
import os
import platform
import resource
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Container, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

LIBC = ctypes.CDLL(None, use_errno=True)
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 4, 36, 38  # linux/prctl.h

# System call numbers on (x86_64, aarch64), from the kernel's asm/unistd.h; None where there is no such call.
MACHINES = {"x86_64": (0, 0xC000003E, 317, 126), "aarch64": (1, 0xC00000B7, 277, 91)}  # column, arch, seccomp, capset
NEVER = {  # kernel objects, other processes' memory, priorities and files: no renderer needs any of these
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272),
    "process_madvise": (440, 440), "pidfd_getfd": (438, 438), "move_pages": (279, 239), "migrate_pages": (256, 238),
    "unshare": (272, 97), "setns": (308, 268), "chroot": (161, 51), "pivot_root": (155, 41), "mount": (165, 40),
    "umount2": (166, 39), "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430),
    "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433), "mount_setattr": (442, 442),
    "open_by_handle_at": (304, 265), "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282),
    "init_module": (175, 105), "finit_module": (313, 273), "kexec_load": (246, 104), "kexec_file_load": (320, 294),
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427), "add_key": (248, 217),
    "request_key": (249, 218), "keyctl": (250, 219), "syslog": (103, 116), "statmount": (457, 457),
    "listmount": (458, 458), "modify_ldt": (154, None), "fanotify_init": (300, 262),
}  # fmt: skip
ALONE = {  # needed only by a process that has children or shares files and memory with others; memory no limit counts
    "fork": (57, None), "vfork": (58, None), "execve": (59, 221), "execveat": (322, 281), "tkill": (200, 130),
    "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240), "pidfd_open": (434, 434),
    "pidfd_send_signal": (424, 424), "setpriority": (141, 140), "ioprio_set": (251, 30),
    "sched_setaffinity": (203, 122), "sched_setscheduler": (144, 119), "sched_setparam": (142, 118),
    "sched_setattr": (314, 274), "shmget": (29, 194), "shmat": (30, 196), "shmctl": (31, 195), "semget": (64, 190),
    "semop": (65, 193), "semctl": (66, 191), "semtimedop": (220, 192), "msgget": (68, 186), "msgsnd": (69, 189),
    "msgrcv": (70, 188), "msgctl": (71, 187), "mq_open": (240, 180), "mq_unlink": (241, 181), "chmod": (90, None),
    "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452), "chown": (92, None), "lchown": (94, None),
    "fchown": (93, 55), "fchownat": (260, 54), "setxattr": (188, 5), "lsetxattr": (189, 6), "fsetxattr": (190, 7),
    "removexattr": (197, 14), "lremovexattr": (198, 15), "fremovexattr": (199, 16), "setxattrat": (463, 463),
    "removexattrat": (466, 466), "file_setattr": (469, 469), "utime": (132, None), "utimes": (235, None),
    "futimesat": (261, None), "utimensat": (280, 88), "inotify_init": (253, None), "inotify_init1": (294, 26),
    "memfd_create": (319, 279), "memfd_secret": (447, 447),
}  # fmt: skip
SOCKET, CLONE, CLONE3, KILL, TGKILL, PRLIMIT = (41, 198), (56, 220), (435, 435), (62, 129), (234, 131), (302, 261)
SOCKETPAIR, PRCTL = (53, 199), (157, 167)
EPERM, ENOSYS, CLONE_THREAD = 1, 38, 0x10000


@dataclass
class Layers:
    """What holds on this machine. `landlock` is the kernel's ABI version, 0 if it does not work."""

    bwrap: bool
    landlock: int
    seccomp: bool

    @property
    def safe(self) -> bool:
        """Untrusted programs may run: system calls are filtered and other people's files are out of reach."""
        return self.seccomp and (self.bwrap or self.landlock > 0)


def _check(result: int, what: str) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")
    return result


# ---- seccomp ---------------------------------------------------------------------------------------------------------


def _filter(children: bool, sockets: tuple[int, ...], forks: bool = True) -> bytes:
    """The classic BPF program: an array of (u16 code, u8 jump if true, u8 jump if false, u32 operand)."""
    column, arch, _, _ = MACHINES[platform.machine()]
    load, jump_eq, jump_ge, jump_set, ret = 0x20, 0x15, 0x35, 0x45, 0x06
    allow, kill, errno = 0x7FFF0000, 0x80000000, 0x00050000
    deny = (ret, 0, 0, errno | EPERM)
    program = [(load, 0, 0, 4), (jump_eq, 1, 0, arch), (ret, 0, 0, kill), (load, 0, 0, 0)]
    program += [(jump_ge, 0, 1, 0x40000000), deny]  # the x32 twins of all calls

    def rule(call: tuple[int | None, int], *then: tuple[int, int, int, int]) -> None:
        if call[column] is not None:
            program.extend([(jump_eq, 0, len(then), call[column]), *then])

    def only_if_first_argument_is(call: tuple[int, int], values: tuple[int, ...]) -> None:
        tests = [(jump_eq, len(values) - i, 0, value) for i, value in enumerate(values)]
        rule(call, (load, 0, 0, 16), *tests, deny, (ret, 0, 0, allow))

    for call in NEVER.values():
        rule(call, deny)
    only_if_first_argument_is(SOCKET, sockets)
    only_if_first_argument_is(PRLIMIT, (0, os.getpid()) if not children else (0,))
    if not sockets:  # a datagram socket of a pair could still be sent to, or bound under, any name
        rule(SOCKETPAIR, (load, 0, 0, 24), (0x54, 0, 0, 0xF), (jump_eq, 1, 0, 1), deny, (ret, 0, 0, allow))  # 1: stream
    if not children:
        rule(PRCTL, (load, 0, 0, 16), (jump_eq, 0, 1, PR_SET_PDEATHSIG), deny, (ret, 0, 0, allow))
        for call in ALONE.values():
            rule(call, deny)
        only_if_first_argument_is(KILL, (os.getpid(),))
        only_if_first_argument_is(TGKILL, (os.getpid(),))
    if not children or not forks:
        rule(ALONE["fork"], deny)
        rule(ALONE["vfork"], deny)
        rule(CLONE, (load, 0, 0, 16), (jump_set, 1, 0, CLONE_THREAD), deny, (ret, 0, 0, allow))
        rule(CLONE3, (ret, 0, 0, errno | ENOSYS))  # its flags lie in memory, out of our sight: libc falls back to clone
    program.append((ret, 0, 0, allow))
    return b"".join(struct.pack("<HBBI", *step) for step in program)


def filter_system_calls(children: bool = False, sockets: tuple[int, ...] = (), forks: bool = True) -> None:
    """Give up dangerous system calls, for all threads and for good.

    children: the process may start programs and signal them (a TeX or browser launcher); otherwise it stays alone.
    forks: with children, only those that are there already: it may still become another program, not start one beside.
    sockets: address families that `socket()` may still open; without any, even socketpair() gives only streams.
    """
    code = _filter(children, sockets, forks)
    buffer = ctypes.create_string_buffer(code, len(code))
    program = struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(buffer))
    _check(LIBC.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    set_mode_filter, all_threads = 1, 1
    _check(LIBC.syscall(MACHINES[platform.machine()][2], set_mode_filter, all_threads, program), "seccomp")


# ---- Landlock --------------------------------------------------------------------------------------------------------


def landlock_abi() -> int:
    """The kernel's Landlock version; 0 without Landlock."""
    return max(0, LIBC.syscall(444, None, 0, 1))


def restrict_files(read: Iterable[str], write: Iterable[str]) -> None:
    """Give up all files but those beneath `read` (and execute) and `write`, all TCP, and signals to outsiders.

    Numbers from linux/landlock.h. Applies to this thread and what it starts: call it before there are other threads.
    """
    abi = landlock_abi()
    execute_and_read, on_files = 0b1101, 0b1101 | 1 << 1 | 1 << 14 | 1 << 15
    handled = (1 << {0: 13, 1: 13, 2: 14, 3: 15, 4: 15}.get(abi, 16)) - 1  # rights that this kernel knows
    fields = [handled] + ([0b11] if abi >= 4 else []) + ([0b11] if abi >= 6 else [])  # files, TCP, sockets and signals
    ruleset = _check(LIBC.syscall(444, struct.pack(f"{len(fields)}Q", *fields), 8 * len(fields), 0), "landlock")
    everything_but_devices = handled & ~(1 << 6 | 1 << 11)
    for paths, rights in ((read, execute_and_read), (write, everything_but_devices)):
        for path in filter(os.path.exists, paths):
            fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
            allowed = handled & (rights if os.path.isdir(path) else rights & on_files & ~0b1000)
            _check(LIBC.syscall(445, ruleset, 1, struct.pack("=Qi", allowed, fd), 0), f"landlock {path}")
            os.close(fd)
    _check(LIBC.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    _check(LIBC.syscall(446, ruleset, 0), "landlock")
    os.close(ruleset)


# ---- limits, lifetime ------------------------------------------------------------------------------------------------


def set_limits(
    memory: int, cpu_seconds: int, file_bytes: int = 64 << 20, files: int = 512, browser: bool = False
) -> None:
    """Hard rlimits for this process. memory: bytes beyond what is mapped now; a browser reserves terabytes of addresses
    that it never touches, so there only writable memory is counted, of which it has half a GiB for itself."""
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limit = memory + ((512 << 20) if browser else mapped)
    for what, value in (
        (resource.RLIMIT_DATA if browser else resource.RLIMIT_AS, limit),
        (resource.RLIMIT_CPU, cpu_seconds),
        (resource.RLIMIT_FSIZE, file_bytes),
        (resource.RLIMIT_NOFILE, files),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(what)
        if hard != resource.RLIM_INFINITY:
            value = min(value, hard)
        resource.setrlimit(what, (value, value))


def drop_capabilities() -> None:
    """Root without root's powers: no device, no chown, no raised limits. Not regained on exec under no_new_privs."""
    header = struct.pack("Ii", 0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this thread
    _check(LIBC.syscall(MACHINES[platform.machine()][3], header, bytes(24)), "capset")


def confine(
    layers: Layers, read: Iterable[str], write: Iterable[str], children: bool = False, sockets: tuple[int, ...] = ()
) -> None:
    """Apply to this process every layer that holds here; see `restrict_files` and `filter_system_calls`."""
    if layers.landlock:
        restrict_files(read, write)
    if layers.seccomp:
        drop_capabilities()
        filter_system_calls(children, sockets)


def die_with_parent() -> None:
    """SIGKILL when the starting thread ends; adopt orphaned grandchildren, so that `kill_tree` finds them."""
    parent = os.getppid()
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(1)


def widen_pipe(fd: int) -> None:
    """Room for a picture: writer and reader need not take turns. As wide as the kernel lets us."""
    with contextlib.suppress(OSError):
        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, 1 << 20)


def hide_memory() -> None:
    """No /proc/PID/mem of this process for its own children, nor a core dump."""
    LIBC.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)


def descendants(pid: int) -> list[int]:
    """Pids below `pid`, from /proc."""
    children: dict[int, list[int]] = {}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            stat = Path("/proc", entry, "stat").read_text(errors="replace")
        except OSError:  # ended meanwhile
            continue
        children.setdefault(int(stat.rpartition(")")[2].split()[1]), []).append(int(entry))
    found = [pid]
    for parent in found:
        found.extend(children.get(parent, ()))
    return found[1:]


def kill_below(pid: int, spared: Container[int] = ()) -> bool:
    """SIGKILL everything below `pid` but `spared`; returns whether there was anything."""
    below = [child for child in descendants(pid) if child not in spared]
    for child in below:
        with contextlib.suppress(OSError):  # ended meanwhile
            os.kill(child, signal.SIGKILL)
    return bool(below)


def kill_tree(process: subprocess.Popen) -> None:
    """SIGKILL a worker and everything below it, children first until none is left (they reparent to the worker).

    Under bwrap, killing the outer process ends the pid namespace and with it all that the first pass missed.
    """
    for _ in range(20):
        if process.poll() is not None or not kill_below(process.pid):
            break
        time.sleep(0.005)
    process.kill()
    process.wait()


# ---- time ------------------------------------------------------------------------------------------------------------


MOST_THREADS = 2000  # of a process tree, that are looked at


def _read(path: str) -> bytes:
    """A small file of /proc; empty where there is none."""
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read()
    except OSError:  # ended meanwhile
        return b""


def activity(pid: int) -> tuple[float, dict[int, float]]:
    """CPU seconds so far of a process and all below it, with children that have ended; and for each thread the seconds
    that it has waited for a core so far, -1 if it seems to wait now where the kernel does not count (proc(5)).
    """
    ticks, waited, quick = 0, {}, os.path.exists(f"/proc/self/task/{os.getpid()}/children")
    pids = [pid] if quick else [pid, *descendants(pid)]  # some kernels do not tell a thread's children
    for process in pids:
        stat = _read(f"/proc/{process}/stat").rpartition(b")")[2].split()
        ticks += sum(map(int, stat[11:15]))  # its own and of its ended children, in user and in kernel mode
        threads = []
        with contextlib.suppress(OSError):  # ended meanwhile
            threads = os.listdir(f"/proc/{process}/task")
        for thread in threads[: MOST_THREADS - len(waited)]:
            folder = f"/proc/{process}/task/{thread}"
            if counts := _read(f"{folder}/schedstat").split():
                waited[int(thread)] = int(counts[1]) / 1e9
            else:
                waited[int(thread)] = -float(_read(f"{folder}/stat").rpartition(b")")[2][1:2] == b"R")
            pids.extend(map(int, _read(f"{folder}/children").split()) if quick else ())
    return ticks / os.sysconf("SC_CLK_TCK"), waited


class Clock:
    """The seconds that a process and all below it have had since the clock was made: CPU time, and what they waited for
    anything but a core. `wait` raises TimeoutError when they have had `limit` seconds.

    What ran at once on several cores counts once. The clock is looked at every quarter of a second or more often: a job
    that ends before costs nothing, and the time until the first look counts whole.
    """

    AT_LEAST = 1 / 30  # of the time on the wall, whatever the threads seem to do
    WIDE = min(4, os.cpu_count() or 1)  # threads that may run or wait at once

    def __init__(self, pid: int, limit: float):
        self.pid, self.limit = pid, limit
        self.pause = min(0.25, max(0.02, limit / 20))  # seconds from look to look
        self.begun = self.looked = time.monotonic()
        self.before: tuple[float, dict[int, float]] | None = None
        self.busy = self.slept = self.most_slept = 0.0  # seconds

    def look(self) -> float:
        """The seconds had until now."""
        cpu, waited = activity(self.pid)
        now = time.monotonic()
        passed, self.looked = now - self.looked, now
        if self.before is None:
            self.slept = passed
        else:
            used = min(max(0.0, cpu - self.before[0]), self.WIDE * passed)
            waits = [max(0.0, t - self.before[1].get(thread, 0.0)) for thread, t in waited.items()]
            waits += [max(0.0, passed - used)] * sum(t < 0 for t in waited.values())
            # How many ran or wanted to, on average: were the machine theirs, they would have run side by side.
            used /= min(max(1.0, (used + sum(waits)) / passed), self.WIDE)
            self.busy += used
            # Of many threads that are made to wait for one another only some count. A wait is told when it is over, so
            # what seemed sleep a moment ago may be taken back.
            self.slept += passed - used - sum(sorted(waits)[-self.WIDE :])
            self.slept = max(self.slept, self.most_slept - self.pause, 0.0)
        self.most_slept = max(self.most_slept, self.slept)
        self.before = cpu, waited
        return max(self.busy + self.slept, (now - self.begun) * self.AT_LEAST)

    def wait(self, fd: int) -> None:
        """Until there is something to read. Raises TimeoutError."""
        poll = select.poll()
        poll.register(fd, select.POLLIN | select.POLLHUP)
        ready = False
        while not ready:
            ready = poll.poll(1000 * max(0.0, self.looked + self.pause - time.monotonic()))
            if time.monotonic() < self.looked + self.pause:
                continue
            if self.look() >= (2 if ready else 1) * self.limit:  # what is there is taken, if it does not come in crumbs
                raise TimeoutError


# ---- the worker's surroundings ---------------------------------------------------------------------------------------


def system_paths(python: tuple[str, ...] = ()) -> list[str]:
    """What a renderer needs to read: programs, libraries, fonts, TeX, a Python; no home, no project, no data.

    python: the interpreter's folders, where it is not this one.
    """
    system = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/opt/google", "/etc/fonts", "/etc/alternatives"]
    system += ["/etc/ld.so.cache", "/etc/localtime", "/etc/texmf", "/var/lib/texmf", "/var/cache/fontconfig"]
    system += ["/etc/chromium.d", "/etc/chromium"]
    this = [sys.prefix, sys.base_prefix, *(path for path in sys.path if "-packages" in path)]
    return [path for path in dict.fromkeys(system + list(python or this)) if os.path.exists(path)]


def clean_environment(scratch: str) -> dict[str, str]:
    """The whole environment of a worker. Nothing of the caller's passes; everything that could vary is fixed."""
    threads = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")}
    fixed = {"LANG": "C.UTF-8", "TZ": "UTC", "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}
    fixed["MPLBACKEND"] = "Agg"
    return {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": scratch, "TMPDIR": scratch, **fixed, **threads}


def remove_folder(path: str) -> None:
    """Delete a folder, however deep, and whatever a program forbade in it: what is below moves up beside it first."""
    count, pending = 0, [path]
    while pending:
        folder = pending.pop()
        with contextlib.suppress(OSError):
            os.chmod(folder, 0o700)
            for entry in list(os.scandir(folder)):
                if not entry.is_dir(follow_symlinks=False):
                    os.unlink(entry.path)
                    continue
                count += 1
                os.chmod(entry.path, 0o700)
                os.rename(entry.path, f"{path}-{count}")
                pending.append(f"{path}-{count}")
            os.rmdir(folder)


def bwrap_command(read: Iterable[str], tmp_bytes: int = 512 << 20) -> list[str]:
    """Prefix that runs a command in namespaces of its own: no network, no pids of others, a bounded empty /tmp."""
    command = ["bwrap", "--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL", "--proc", "/proc"]
    command += ["--dev", "/dev", "--size", str(tmp_bytes), "--tmpfs", "/tmp", "--chdir", "/tmp"]
    for path in read:
        command += ["--ro-bind-try", path, path]
    return [*command, "--"]


# ---- probing ---------------------------------------------------------------------------------------------------------


def _try_layer(layer: str) -> None:
    """In a child: take on one layer, then try what it must prevent. Exit status 0: prevented."""
    if layer == "landlock":
        restrict_files(system_paths(), [])
    if layer == "seccomp":
        filter_system_calls()
        drop_capabilities()
        try:
            socket.socket()
            sys.exit("a socket opened")
        except PermissionError:
            sys.exit(0)
    try:
        open("/etc/passwd").close()
    except OSError:
        sys.exit(0)
    sys.exit("/etc/passwd was readable")


@functools.cache
def probe() -> Layers:
    """Which layers hold here, found out by really trying to break them in children (about 0.1 s, once)."""

    def holds(layer: str, prefix: list[str]) -> bool:
        command = [*prefix, sys.executable, "-I", __file__, "--try", layer]
        try:
            ended = subprocess.run(command, capture_output=True, timeout=120, env=clean_environment("/tmp"))
        except (OSError, subprocess.TimeoutExpired):
            return False
        return ended.returncode == 0

    if sys.platform != "linux" or platform.machine() not in MACHINES:
        return Layers(bwrap=False, landlock=0, seccomp=False)
    bwrap = shutil.which("bwrap") is not None and holds("bwrap", bwrap_command([*system_paths(), __file__]))
    landlock = landlock_abi() if holds("landlock", []) else 0
    return Layers(bwrap=bwrap, landlock=landlock, seccomp=holds("seccomp", []))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--try"]:
        _try_layer(sys.argv[2])
    print(asdict(probe()))
