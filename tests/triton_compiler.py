"""Run by test_kernels.py where Triton is installed: every kernel is compiled for Ampere and Hopper, without a GPU."""

import torch

torch.cuda.is_available = lambda: True  # otherwise triton_kernels.py leaves Triton alone

from triton import compile  # noqa: E402
from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402

from native import triton_kernels as kernels  # noqa: E402

SHARED = 99 * 1024  # bytes of shared memory that a program may have on the smallest Ampere; Hopper has more
HEADS = {"H": 32, "C": 8, "D": 128}


def build(kernel, constants: dict, warps: int, **types: str) -> None:
    """types: of the arguments that are no constants; all pointers are multiples of 16 bytes, as in the engine."""
    names = kernel.arg_names
    aligned = {(i,): [["tt.divisibility", 16]] for i, name in enumerate(names) if types.get(name, "")[:1] == "*"}
    signature = {name: types.get(name, "constexpr") for name in names}
    source = ASTSource(kernel, signature, {(names.index(name),): value for name, value in constants.items()}, aligned)
    for capability in (80, 90):
        options = {"num_warps": warps, "num_stages": 2}
        compiled = compile(source, target=GPUTarget("cuda", capability, 32), options=options)
        assert compiled.asm["cubin"] and compiled.metadata.shared <= SHARED, (kernel.fn.__name__, constants)
        print(f"sm_{capability} {kernel.fn.__name__} {constants}: {compiled.metadata.shared} bytes shared")


if __name__ == "__main__":
    bf16, fp32, ints = "*bf16", "*fp32", "*i32"
    for J, M, warps in ((8, 32, 4), (32, 128, 8)):
        build(
            kernels._paged_attention_kernel,
            HEADS | {"PAGE": 64, "J": J, "M": M, "TILES": 1, "SPLITS": 4, "OWN_SPLITS": 1, "NOTHING": kernels.NOTHING},
            warps,
            **dict.fromkeys(("q", "kv"), bf16) | dict.fromkeys(("out", "lse"), fp32) | {"scale": "fp32"},
            **dict.fromkeys(("stride", "shared", "prompt_columns", "own_columns"), "i32"),
            **{f"{kind}_{name}": ints for kind in ("prompt", "own") for name in ("rows", "lengths", "block_table")},
        )
    merge = {"D": 128, "PARTS": 5, "PARTS2": 8, "NOTHING": kernels.NOTHING}
    build(kernels._merge_kernel, merge, 1, out=fp32, lse=fp32, merged=bf16)
    build(kernels._rms_norm_kernel, {"WIDTH": 4096, "BLOCK": 4096}, 8, x=bf16, weight=bf16, out=bf16, eps="fp32")
    build(kernels._silu_mul_kernel, {"WIDTH": 12288, "BLOCK": 1024}, 4, gate_up=bf16, out=bf16)
    rope = dict.fromkeys(("qkv", "gains", "cos", "sin", "kv"), bf16) | {"slot_mapping": "*i64", "eps": "fp32"}
    build(kernels._norm_rope_append_kernel, HEADS | {"NORMALISE": True}, 1, **rope)
    sizes = {"V": "i32", "temperature": "fp32"} | dict.fromkeys(("top", "total", "best"), fp32)
    for greedy in (False, True):
        options = {"SPLITS": 4, "BLOCK": 4096, "GREEDY": greedy, "BAN": True}
        build(kernels._sample_kernel, options, 8, logits=bf16, keys=ints, banned="*u8", token=ints, **sizes)
