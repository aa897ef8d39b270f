"""Run by test_kernels.py where Triton is installed: each kernel against its torch twin, which runs on the CPU. The
kernels run on a GPU where there is one, otherwise (with TRITON_INTERPRET=1) under the interpreter."""

import torch
from made_tables import made_tables

import kernels

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def there(*tensors: torch.Tensor | None) -> list[torch.Tensor | None]:
    """Copies on the device that the kernels run on."""
    return [x if x is None else x.clone().to(DEVICE) for x in tensors]


def table_there(table: kernels.KeyTable) -> kernels.KeyTable:
    return kernels.KeyTable(*there(table.rows, table.lengths, table.pages), table.page_size)


def check(what: str, ours: torch.Tensor, theirs: torch.Tensor, tolerance: float = 2e-6) -> None:
    worst = (ours.cpu().float() - theirs.float()).abs().max().item()
    print(f"{what}: {worst:.1e}")
    assert worst <= tolerance, what


def attention() -> None:
    for H, C, kernels.MOST_ROWS in ((8, 2, 128), (7, 1, 128), (4, 4, 128), (16, 1, 16)):  # the last: three tiles
        q, kv, prompts, own = made_tables(H, C)
        twin = kernels.decode_attention(q, kv, prompts, own, 0.3)
        tables = table_there(prompts), table_there(own)
        wider = torch.cat([q, q], 1).to(DEVICE)[:, :H]  # as a part of q, k and v
        check(f"attention {H}/{C}", kernels._triton_decode_attention(wider, *there(kv), *tables, 0.3), twin)


def norm_rope_append() -> None:
    torch.manual_seed(0)
    T, H, C, D, size = 5, 6, 2, 32, 16
    angles = torch.rand(T, D)
    cos, sin = angles.cos(), kernels.signed(angles.sin())
    page, offset = torch.tensor([3, 1, 1, 2, 0]), torch.tensor([0, 15, 3, 7, 9])
    for gains in (torch.rand(H + C, D), None):
        qkv, kv = torch.randn(T, H + 2 * C, D), torch.zeros(4, 2, C, size, D)
        places = kernels.spots(kv, page, offset)
        moved = there(qkv, gains, cos, sin, kv, places)
        theirs = kernels.norm_rope_append(qkv, gains, cos, sin, kv, places, 1e-6)
        ours = kernels._triton_norm_rope_append(*moved, 1e-6)
        for name, mine, twin in zip(("q", "k", "v", "pages"), (*ours, moved[4]), (*theirs, kv), strict=True):
            check(f"norm, rope, append: {name}", mine, twin)


def norm_and_mlp() -> None:
    torch.manual_seed(0)
    x, weight, gate_up = torch.randn(5, 160), torch.rand(160), torch.randn(5, 2 * 1500)
    check("rms_norm", kernels._triton_rms_norm(*there(x, weight), 1e-6), kernels.rms_norm(x, weight, 1e-6))
    check("silu_mul", kernels._triton_silu_mul(*there(gate_up)), kernels.silu_mul(gate_up))


def sampling() -> None:
    logits = torch.randn(40, 5000, generator=torch.Generator().manual_seed(0)) * 3
    seeds, steps = torch.arange(40) * 99_991 - 7, torch.arange(40) % 7
    banned = torch.zeros(5000, dtype=torch.bool)
    banned[::3] = True
    for temperature, ban in ((1.0, None), (0.7, banned), (0.0, banned)):
        theirs = kernels.sample_tokens(logits, seeds, steps, temperature, ban)
        moved, ban = there(logits, seeds, steps), ban if ban is None else ban.to(DEVICE)
        ours = kernels._triton_sample_tokens(*moved, temperature, ban)
        assert torch.equal(ours[0].cpu(), theirs[0])
        check(f"sampling at {temperature}", ours[1], theirs[1], 2e-5)


if __name__ == "__main__":
    assert kernels.triton, "Triton cannot be imported"
    attention()
    norm_rope_append()
    norm_and_mlp()
    sampling()
