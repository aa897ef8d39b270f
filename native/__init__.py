"""A block of decoding steps in C for CPUs (`kernels.c`), float32: what a CUDA graph is to a GPU.

A step of a small model is some hundred small operations, and torch's way to one of them costs more than its work. In C
all steps of a block are one call. `Engine.decode_step` in `rollout.py` defines what is right, and does it where there
is no C compiler. The library is compiled at first use, in half a second, for the processor at hand, and kept in
`native/build`. Nothing here imports torch, for C sees addresses alone: metrics/matching.py uses `compiled` too.
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

SOURCE = Path(__file__).with_name("kernels.c")
ADDRESS = ctypes.c_void_p
LAYER = ("attention_norm", "qkv", "qkv_bias", "gains", "o", "mlp_norm", "gate_up", "down")
SLOTS = ("token", "length", "start", "seed", "block_table", "members")
SLOTS += ("prompt_length", "prompt_block_table", "drawn", "logps")


def fields(kind, *names: str) -> list:
    return [(name, kind) for name in names]


class Layer(ctypes.Structure):
    _fields_ = fields(ADDRESS, *LAYER, "kv")


class Steps(ctypes.Structure):
    _fields_ = (
        fields(ctypes.c_int64, "B", "prompts", "steps", "layers", "width", "inner", "H", "C", "D", "V", "page_size")
        + fields(ctypes.c_int64, "G", "columns", "prompt_columns")
        + fields(ctypes.c_float, "eps", "temperature")
        + fields(ctypes.POINTER(Layer), "layer")
        + fields(ADDRESS, "embed", "norm", "lm_head", "cosines", "sines", "banned", *SLOTS)
        + fields(ADDRESS, "x", "narrow", "wide", "cosine", "sine", "logp", "slot_mapping")
    )


def ready(engine) -> bool:
    """Whether the engine's steps can be done here: its weights are float32 on a CPU, and their rows fill registers."""
    buffer = engine.weights.buffer
    is_float32 = buffer.is_floating_point() and buffer.element_size() == 4
    sizes = engine.weights.lm_head.shape[1], engine.config.intermediate_size, engine.head_size
    return buffer.is_cpu and is_float32 and not any(n % 8 for n in sizes) and library() is not None


def decode_steps(engine, rows: int, groups: int, temperature: float) -> None:
    """engine.steps times engine.decode_step(rows, groups, temperature)."""
    weights, config, slots = engine.weights, engine.config, engine.slots
    (V, width), inner, D = weights.lm_head.shape, config.intermediate_size, engine.head_size
    H, C = config.num_attention_heads, config.num_key_value_heads
    layers = [
        Layer(*(pointer(getattr(w, name)) for name in LAYER), pointer(kv))
        for w, kv in zip(weights.layers, engine.pool.kv, strict=True)
    ]
    columns = width, max(width, H * D, inner), max((H + 2 * C) * D, 2 * inner, V), D, D, 1
    tensors = [weights.embed, weights.norm, weights.lm_head, *engine.cos_sin_cache, engine.banned]
    tensors += [getattr(slots.device, name) for name in SLOTS]
    empty = weights.buffer.new_empty  # a tensor's memory is aligned to cache lines, numpy's is not
    scratch = [empty(rows, n) for n in (*columns, 4 * C)]  # the last holds 2 C int64
    values = (
        rows, groups, engine.steps, len(layers), width, inner, H, C, D, V, engine.page, *slots.shape[1:],
        config.rms_norm_eps, temperature, (Layer * len(layers))(*layers), *map(pointer, tensors),
        *map(pointer, scratch),
    )  # fmt: skip
    assert len(values) == len(Steps._fields_)
    library().decode_steps(ctypes.byref(Steps(*values)))


def pointer(x) -> int | None:
    """The address of a tensor's numbers; None for None."""
    assert x is None or x.is_contiguous()
    return None if x is None else x.data_ptr()


# ---------------------------------------------------------------------------------------------------------------------
# the library


@functools.cache
def library() -> ctypes.CDLL | None:
    """`decode_steps`, or None, with a line that says why, where it cannot be compiled."""
    try:
        loaded = ctypes.CDLL(str(compiled()))
    except OSError as error:
        print(f"Sampling on this CPU will take two to five times as long as it could: {error}.", file=sys.stderr)
        return None
    loaded.decode_steps.argtypes, loaded.decode_steps.restype = [ctypes.POINTER(Steps)], None
    return loaded


def find_compiler() -> str | None:
    return next(filter(None, map(shutil.which, ("gcc", "cc", "clang"))), None)


def compiled(source: Path | None = None) -> Path:
    """SOURCE, or another, as a shared library, made unless it is there. Raises OSError, with what the compiler says."""
    if not (compiler := find_compiler()):
        raise OSError("no C compiler was found (install gcc)")
    source = source or SOURCE
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text().splitlines() if cpu.exists() else []
    features = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    recipe = source.read_bytes() + Path(__file__).read_bytes() + f"{compiler} {features}".encode()
    path = source.with_name("build") / f"{source.stem}-{hashlib.sha256(recipe).hexdigest()[:16]}.so"
    if path.exists():
        return path
    path.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        for parallel in (["-fopenmp"], []):  # Apple's compiler has no OpenMP
            # the linker must not hear of fast-math: the whole process would round denormal numbers to 0
            compiling = [compiler, "-O3", "-march=native", "-ffast-math", "-fPIC", "-c", source, "-o", f"{scratch}/o"]
            linking = [compiler, "-shared", f"{scratch}/o", "-o", f"{scratch}/so", "-lm"]
            for command in (compiling, linking):
                run = subprocess.run([*command, *parallel], capture_output=True, text=True, errors="replace")
                if run.returncode:
                    break
            else:
                os.replace(f"{scratch}/so", path)  # other processes see all of it or nothing
                return path
    said = [*filter(None, run.stderr.splitlines()), f"status {run.returncode}"]
    raise OSError(f"{compiler} failed: {next((line for line in said if 'error' in line), said[0])}")
