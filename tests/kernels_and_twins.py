"""The Triton kernels, or the functions in C, against their torch twins. test_native.py calls `compare` for C;
test_kernels.py runs this file as a script for Triton: on a GPU where there is one, otherwise (with TRITON_INTERPRET=1)
interpreted."""

from types import SimpleNamespace
from unittest import mock

import torch
from made_tables import made_tables

import kernels
from native import triton_kernels

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def there(*tensors: torch.Tensor | None) -> list[torch.Tensor | None]:
    """Copies on the device that the kernels run on."""
    return [x if x is None else x.clone().to(DEVICE) for x in tensors]


def table_there(table: kernels.KeyTable) -> kernels.KeyTable:
    return kernels.KeyTable(*there(table.rows, table.lengths, table.block_table), table.page_size)


def check(what: str, ours: torch.Tensor, theirs: torch.Tensor, tolerance: float = 2e-6) -> None:
    """Every number within `tolerance` of itself, or of 1 where it is smaller."""
    worst = ((ours.cpu().float() - theirs.float()).abs() / theirs.float().abs().clamp(min=1)).max().item()
    print(f"{what}: {worst:.1e}")
    assert worst <= tolerance, what


def attention(of, H: int, C: int, **tables) -> None:
    q, kv, prompts, own = made_tables(H, C, **tables)
    twin = kernels.decode_attention(q, kv, prompts, own, 0.3)
    wider = torch.cat([q, q], 1).to(DEVICE)[:, :H]  # as a part of q, k and v
    ours = of.decode_attention(wider, *there(kv), table_there(prompts), table_there(own), 0.3)
    check(f"attention {H}/{C} {tables}", ours, twin, 1e-5)  # how sums are rounded depends on the processor


def norm_rope_append(of, T: int = 5) -> None:
    torch.manual_seed(0)
    H, C, D, size = 6, 2, 32, 16
    angles = torch.rand(T, D)
    cos, sin = angles.cos(), kernels.signed(angles.sin())
    page, offset = torch.randperm(T), torch.arange(T) % size
    for gains in (torch.rand(H + C, D), None):
        qkv, kv = torch.randn(T, H + 2 * C, D), torch.zeros(T, 2, C, size, D)
        slot_mapping = kernels.slot_mapping(kv, page, offset)
        moved = there(qkv, gains, cos, sin, kv, slot_mapping)
        theirs = kernels.norm_rope_append(qkv, gains, cos, sin, kv, slot_mapping, 1e-6)
        ours = of.norm_rope_append(*moved, 1e-6)
        for name, mine, twin in zip(("q", "k", "v", "pages"), (*ours, moved[4]), (*theirs, kv), strict=True):
            check(f"norm, rope, append: {name}", mine, twin)


def norm_and_mlp(of, T: int = 5) -> None:
    torch.manual_seed(0)
    x, weight, gate_up = torch.randn(T, 160), torch.rand(160), torch.randn(T, 2 * 1500)
    gate_up[0, :64] = torch.linspace(-200, 200, 64)  # whose exponentials are infinite
    check("rms_norm", of.rms_norm(*there(x, weight), 1e-6), kernels.rms_norm(x, weight, 1e-6))
    check("silu_mul", of.silu_mul(*there(gate_up)), kernels.silu_mul(gate_up))


def sampling(of) -> None:
    logits = torch.randn(40, 5000, generator=torch.Generator().manual_seed(0)) * 3
    seeds, steps = torch.arange(40) * 99_991 - 7, torch.arange(40) % 7
    banned = torch.zeros(5000, dtype=torch.bool)
    banned[::3] = True
    for temperature, ban in ((1.0, None), (0.7, banned), (0.0, banned)):
        theirs = kernels.sample_tokens(logits, seeds, steps, temperature, ban)
        moved, ban = there(logits, seeds, steps), ban if ban is None else ban.to(DEVICE)
        ours = of.sample_tokens(*moved, temperature, ban)
        assert torch.equal(ours[0].cpu(), theirs[0])
        check(f"sampling at {temperature}", ours[1], theirs[1], 2e-5)


def compare(of) -> None:
    """Every function of `of` with its twin, which runs on the CPU in plain torch."""
    for H, C in ((8, 2), (7, 1), (4, 4)):
        attention(of, H, C)
    with mock.patch.object(triton_kernels, "MOST_ROWS", 16):
        attention(of, 16, 1)  # three tiles
    norm_rope_append(of)
    norm_and_mlp(of)
    sampling(of)


def sample_tokens(logits, seeds, steps, temperature: float, banned):
    return triton_kernels.sample_tokens(logits, kernels._keys(seeds, steps), temperature, banned)


NAMES = "rms_norm", "silu_mul", "norm_rope_append", "decode_attention"

if __name__ == "__main__":
    assert kernels.triton, "Triton cannot be imported"
    compare(SimpleNamespace(sample_tokens=sample_tokens, **{name: getattr(triton_kernels, name) for name in NAMES}))
