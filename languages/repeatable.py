"""The same program gives the same picture twice: no entropy, and clocks that count their readings.

`install` changes the standard library and numpy in the fork server, `begin` is for each job. What a program seeds it
draws as anywhere; what asks the machine for a seed gets the next of a fixed series, so that two unseeded generators
still differ. scipy, pandas, scikit-learn and networkx take theirs from these. Not reached: `numpy.datetime64("now")`,
which asks the system.
"""

from __future__ import annotations

import ctypes
import datetime
import gc
import os
import random
import time
import uuid

START = 1735732800  # 2025-01-01 12:00 UTC, as for web pages; seconds
TICK = 1_000_000  # ns that pass between two readings
SERIES = random.Random()  # what takes the place of the machine's entropy
PASSED = [0]  # ns, on every clock


def install() -> None:
    """Give this process these clocks and this entropy. Called once; it cannot be undone."""
    from numpy.random import bit_generator

    set_entropy()
    set_clocks()
    bit_generator.randbits = SERIES.getrandbits  # where each of numpy's generators without a seed gets one


def begin() -> None:
    """All of it from the start, whatever was taken meanwhile."""
    import numpy as np

    SERIES.seed(0)
    PASSED[0] = 0
    random.seed(0)
    np.random.seed(0)


def set_entropy() -> None:
    original = random.Random.seed

    def seed(self, a=None, version=2) -> None:
        original(self, SERIES.getrandbits(128) if a is None else a, version)

    def urandom(size: int) -> bytes:
        return SERIES.getrandbits(8 * size).to_bytes(size, "little") if size else b""

    random.Random.seed = seed
    random.seed = random._inst.seed
    os.urandom = random._urandom = urandom
    uuid._generate_time_safe, uuid._node = None, 1  # so that uuid1 takes time and chance from here


def set_clocks() -> None:
    """A reading is a millisecond after the one before, and `sleep` passes what it says: loops that wait end."""
    sleep = time.sleep

    def nanoseconds(start: int = 0) -> int:
        PASSED[0] += TICK
        return start * 10**9 + PASSED[0]

    def slept(seconds: float) -> None:
        sleep(seconds)
        PASSED[0] += int(seconds * 1e9)

    def at_present(function):
        return lambda t=None: function(now() if t is None else t)

    now = lambda: nanoseconds(START) / 1e9  # noqa: E731
    time.sleep, time.time, time.time_ns = slept, now, lambda: nanoseconds(START)
    real = time.clock_gettime
    time.clock_gettime = lambda clock: now() if clock == time.CLOCK_REALTIME else real(clock)
    for name in ("monotonic", "perf_counter", "process_time", "thread_time"):
        setattr(time, name, lambda: nanoseconds() / 1e9)
        setattr(time, name + "_ns", nanoseconds)
    for name in ("localtime", "gmtime", "ctime"):
        setattr(time, name, at_present(getattr(time, name)))
    strftime, asctime = time.strftime, time.asctime
    time.strftime = lambda format, t=None: strftime(format, time.localtime() if t is None else t)
    time.asctime = lambda t=None: asctime(time.localtime() if t is None else t)
    moment = datetime.datetime
    set_in_type(moment, "now", classmethod(lambda cls, tz=None: cls.fromtimestamp(now(), tz)))
    set_in_type(moment, "utcnow", classmethod(lambda cls: cls.fromtimestamp(now(), datetime.UTC).replace(tzinfo=None)))


def set_in_type(owner: type, name: str, value: object) -> None:
    """Set an attribute of a type that is written in C, which `setattr` refuses."""
    gc.get_referents(owner.__dict__)[0][name] = value
    ctypes.pythonapi.PyType_Modified(ctypes.py_object(owner))
