"""The functions of native/kernels.c with the arguments and results of their torch twins in kernels.py, for tests."""

from ctypes import c_float, c_int64, c_void_p
from functools import cache

import torch

import native
from native import pointer

P, N, F = c_void_p, c_int64, c_float  # pointer, whole number, number
ARGUMENTS = {
    "linear": (P, P, P, N, P, N, N, N),
    "rms_norm": (P, P, P, F, N, N),
    "silu_mul": (P, P, N, N),
    "norm_rope_append": (P, P, P, P, P, P, F, N, N, N, N),
    "decode_attention": (P, N, P, P, N, N, N, N, F, P, N, N, P, P, N, P, P, N),
    "sample_tokens": (P, P, P, P, P, P, F, N, N),
}


@cache
def function(name: str):
    found = getattr(native.library(), name)
    found.argtypes, found.restype = ARGUMENTS[name], None
    return found


def linear(x: torch.Tensor, weight: torch.Tensor, bias=None) -> torch.Tensor:
    out = x.new_empty(len(x), len(weight))
    function("linear")(*map(pointer, (x, weight, bias)), 0, pointer(out), len(x), *weight.shape)
    return out


def add_linear(x: torch.Tensor, weight: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    """out, changed in place."""
    function("linear")(*map(pointer, (x, weight, out)), len(weight), pointer(out), len(x), *weight.shape)
    return out


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    out = torch.empty_like(x)
    function("rms_norm")(*map(pointer, (x, weight, out)), eps, *x.shape)
    return out


def silu_mul(gate_up: torch.Tensor) -> torch.Tensor:
    T, width = len(gate_up), gate_up.shape[1] // 2
    out = gate_up.new_empty(T, width)
    function("silu_mul")(pointer(gate_up), pointer(out), T, width)
    return out


def norm_rope_append(qkv, gains, cos, sin, kv, slot_mapping, eps: float):
    (T, heads, D), C = qkv.shape, kv.shape[2]
    H = heads - 2 * C
    function("norm_rope_append")(*map(pointer, (qkv, gains, cos, sin, kv, slot_mapping)), eps, T, H, C, D)
    return qkv.split([H, C, C], 1)


def decode_attention(q, kv, prompts, own, scale: float) -> torch.Tensor:
    (B, H, D), (_, _, C, page_size, _), rows = q.shape, kv.shape, prompts.rows
    out = q.new_empty(B, H, D)
    tables = [x for t in (prompts, own) for x in (pointer(t.lengths), pointer(t.block_table), t.block_table.shape[1])]
    function("decode_attention")(
        q.data_ptr(), q.stride(0), pointer(kv), pointer(out), page_size, H, C, D, scale,
        pointer(rows), *rows.shape, *tables,
    )  # fmt: skip
    return out


def sample_tokens(logits, seeds, steps, temperature: float, banned=None):
    (B, V), logits, seeds, steps = logits.shape, logits.contiguous(), seeds.int(), steps.int()
    tokens, logps = logits.new_empty(B, dtype=torch.int32), logits.new_empty(B)
    function("sample_tokens")(*map(pointer, (logits, seeds, steps, banned, tokens, logps)), temperature, B, V)
    return tokens.long(), logps
