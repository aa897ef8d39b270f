"""What surrounds the matrix products of a decoding step, in C for CPUs (`kernels.c`), float32.

A step of a small model is some hundred small operations, and torch's way to one of them costs more than its work. The
functions here have the arguments and results of the torch twins in `kernels.py`, which do the same where there is no C
compiler. The library is compiled at first use, in half a second, for the processor at hand, and kept in `native/build`.
"""

import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

SOURCE = Path(__file__).with_name("kernels.c")
P, N, F = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float  # pointer, whole number, number
ARGUMENTS = {
    "rms_norm": (P, P, P, F, N, N),
    "silu_mul": (P, P, N, N),
    "norm_rope_append": (P, P, P, P, P, P, F, N, N, N, N),
    "decode_attention": (P, N, P, P, N, N, N, N, F, P, N, N, P, P, N, P, P, N),
    "sample_tokens": (P, P, P, P, P, P, F, N, N),
}


# ---------------------------------------------------------------------------------------------------------------------
# the library


def ready(x: torch.Tensor) -> bool:
    """Whether the functions below can be called with tensors such as x."""
    return x.is_cpu and x.dtype == torch.float32 and library() is not None


@functools.cache
def library() -> ctypes.CDLL | None:
    """The functions of ARGUMENTS, or None, with a line that says why, where they cannot be compiled."""
    try:
        loaded = ctypes.CDLL(str(compiled()))
    except OSError as error:
        print(f"Sampling on this CPU will take about three times as long as it could: {error}.", file=sys.stderr)
        return None
    for name, arguments in ARGUMENTS.items():
        getattr(loaded, name).argtypes, getattr(loaded, name).restype = arguments, None
    return loaded


def compiled() -> Path:
    """SOURCE as a shared library, made unless it is there. Raises OSError, with the compiler's first words."""
    compiler = next(filter(None, map(shutil.which, ("gcc", "cc", "clang"))), None)
    if not compiler:
        raise OSError("no C compiler was found (install gcc)")
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text().splitlines() if cpu.exists() else []
    features = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    recipe = SOURCE.read_bytes() + Path(__file__).read_bytes() + f"{compiler} {features}".encode()
    path = SOURCE.with_name("build") / f"kernels-{hashlib.sha256(recipe).hexdigest()[:16]}.so"
    if path.exists():
        return path
    path.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        for parallel in (["-fopenmp"], []):  # Apple's compiler has no OpenMP
            # the linker must not hear of fast-math: the whole process would round denormal numbers to 0
            compile = [compiler, "-O3", "-march=native", "-ffast-math", "-fPIC", "-c", SOURCE, "-o", f"{scratch}/o"]
            link = [compiler, "-shared", f"{scratch}/o", "-o", f"{scratch}/so", "-lm"]
            for command in (compile, link):
                run = subprocess.run([*command, *parallel], capture_output=True, text=True, errors="replace")
                if run.returncode:
                    break
            else:
                os.replace(f"{scratch}/so", path)  # other processes see all of it or nothing
                return path
    raise OSError(f"{compiler} failed: {(run.stderr.strip() or f'status {run.returncode}').splitlines()[0]}")


# ---------------------------------------------------------------------------------------------------------------------
# its functions


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    x = x.contiguous()
    out = torch.empty_like(x)
    library().rms_norm(*map(pointer, (x, weight, out)), eps, *x.shape)
    return out


def silu_mul(gate_up: torch.Tensor) -> torch.Tensor:
    gate_up, T, width = gate_up.contiguous(), len(gate_up), gate_up.shape[1] // 2
    out = gate_up.new_empty(T, width)
    library().silu_mul(pointer(gate_up), pointer(out), T, width)
    return out


def norm_rope_append(qkv, gains, cos, sin, kv, places, eps: float):
    (T, heads, D), C = qkv.shape, kv.shape[2]
    H = heads - 2 * C
    tensors = (qkv, gains, cos.contiguous(), sin.contiguous(), kv, places)
    library().norm_rope_append(*map(pointer, tensors), eps, T, H, C, D)
    return qkv.split([H, C, C], 1)


def decode_attention(q, kv, prompts, own, scale: float) -> torch.Tensor:
    (B, H, D), (_, _, C, page_size, _), rows = q.shape, kv.shape, prompts.rows
    out = q.new_empty(B, H, D)
    tables = [x for t in (prompts, own) for x in (pointer(t.lengths), pointer(t.pages), t.pages.shape[1])]
    library().decode_attention(
        q.data_ptr(), q.stride(0), pointer(kv), pointer(out), page_size, H, C, D, scale,
        pointer(rows), *rows.shape, *tables,
    )  # fmt: skip
    return out


def sample_tokens(logits, seeds, steps, temperature: float, banned=None):
    (B, V), logits, seeds, steps = logits.shape, logits.contiguous(), seeds.int(), steps.int()
    tokens, logps = logits.new_empty(B, dtype=torch.int64), logits.new_empty(B)
    library().sample_tokens(*map(pointer, (logits, seeds, steps, banned, tokens, logps)), temperature, B, V)
    return tokens, logps


def pointer(x: torch.Tensor | None) -> int | None:
    assert x is None or x.is_contiguous()
    return None if x is None else x.data_ptr()
