"""The few operations that a decoding step is made of, in plain torch: what is right, everywhere.

Where Triton is installed CUDA tensors go to the kernel of the same name and arguments (native/triton_kernels.py), which
is tested against its twin here (on a CPU with TRITON_INTERPRET=1). So are the functions in C that a decoding step
on a CPU is made of (native/kernels.c).

    decode_attention    one new token per sample; a prompt's keys are stored and read once per group
    rms_norm, silu_mul  what surrounds attention in a layer
    norm_rope_append    normalise and rotate queries and keys, write keys and values into their pages
    sample_tokens       seeded sampling that does not depend on the order or number of rows

Axes: B rows of a decoding batch, T tokens, H query heads, C key/value heads, D head size, V vocabulary.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F

from native import triton_kernels
from native.triton_kernels import NOTHING, triton

# ---------------------------------------------------------------------------------------------------------------------
# attention in sampling: keys and values lie in pages of a pool, kv (pages, 2, C, page size, D) per layer


@dataclass
class KeyTable:
    """Which keys may be seen, and by whom. An item is a group (the keys of its prompt, asked by the rows of its
    samples) or a single sample (the keys of its response, asked by one row).

    rows        (items, J) int32        rows of the batch that ask, -1 where an item has fewer than J
    lengths     (items,) int32          how many keys an item has
    block_table (items, columns) int32  the pages they fill, in order; further columns name a page that no item owns
    """

    rows: torch.Tensor
    lengths: torch.Tensor
    block_table: torch.Tensor
    page_size: int

    @cached_property
    def longest(self) -> int:
        return max(1, int(self.lengths.max()))

    @cached_property
    def bias(self) -> torch.Tensor:
        """(items, 1, 1, longest) NOTHING for places without a key, otherwise 0."""
        hidden = torch.arange(self.longest, device=self.block_table.device) >= self.lengths[:, None]
        return (hidden * NOTHING)[:, None, None]

    def read(self, kv: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Copies of the keys and values, each (items, C, longest, D)."""
        columns = -(-self.longest // self.page_size)
        pages = kv.index_select(0, self.block_table[:, :columns].flatten()).unflatten(0, (-1, columns))
        return pages.permute(2, 0, 3, 1, 4, 5).flatten(3, 4)[:, :, :, : self.longest].unbind()

    @cached_property
    def asked_by(self) -> torch.Tensor:
        """(items * J,) the row of the batch in each place of `rows`, some row or other in unused ones."""
        return self.rows.clamp(min=0).flatten()

    @cached_property
    def place(self) -> torch.Tensor:
        """(B,) where in `rows`, flattened, each row of the batch is."""
        return self.rows.flatten().argsort()[(self.rows < 0).sum() :]


def decode_attention(q, kv, prompts: KeyTable, own: KeyTable, scale: float) -> torch.Tensor:
    """Every row asks its group's prompt and its own response. A prompt's keys are read once for all rows of its group
    ("bifurcated attention", arXiv 2403.08845).

    q (B, H, D), kv (pages, 2, C, page size, D); own holds one item per row, in order -> (B, H, D).
    """
    if triton and q.is_cuda:
        return triton_kernels.decode_attention(q, kv, prompts, own, scale)
    return merge_attention(*(_table_attention(q, kv, table, scale) for table in (prompts, own)))


def _table_attention(q, kv, table: KeyTable, scale: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Every row asks the keys that `table` has for it: q (B, H, D) -> outputs (B, H, D), log-sum-exp (B, H)."""
    (_, H, D), C, J = q.shape, kv.shape[2], table.rows.shape[1]
    asking = q.index_select(0, table.asked_by).view(-1, J, C, H // C, D)
    asking = asking.transpose(1, 2).flatten(2, 3)  # (items, C, J * H / C, D)
    out, lse = _attention_and_lse(asking, *table.read(kv), table.bias.to(q.dtype), scale)
    out = out.unflatten(2, (J, -1)).transpose(1, 2).reshape(-1, H, D)  # (items * J, H, D)
    lse = lse.unflatten(2, (J, -1)).transpose(1, 2).reshape(-1, H)
    return out.index_select(0, table.place), lse.index_select(0, table.place)


def _attention_and_lse(q, k, v, bias, scale: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Plain attention and its log-sum-exp. q (S, C, n, D), k and v (S, C, L, D), bias (S, 1, 1, L)."""
    if q.device.type == "cpu":
        return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, attn_mask=bias, scale=scale)
    scores = (q @ k.transpose(-1, -2)).float() * scale + bias
    return scores.softmax(-1).to(q.dtype) @ v, scores.logsumexp(-1)


def merge_attention(first, second) -> torch.Tensor:
    """Attention over two disjoint parts of the keys, each as its output (B, H, D) and log-sum-exp (B, H) -> attention
    over both: an output counts as much as its exponentials do."""
    (out, lse), (other, other_lse) = first, second
    return out.lerp(other, (other_lse - lse).sigmoid()[..., None].to(out.dtype))


# ---------------------------------------------------------------------------------------------------------------------
# what surrounds attention in a decoder layer


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """RMSNorm (Zhang and Sennrich 2019), normalised in fp32 whatever the format of x (T, width) and weight (width,)."""
    if triton and x.is_cuda:
        return triton_kernels.rms_norm(x, weight, eps)
    return F.rms_norm(x, weight.shape, weight, eps)


def silu_mul(gate_up: torch.Tensor) -> torch.Tensor:
    """silu(gate) * up -> (T, width), the gate being the first half of gate_up (T, 2 width)."""
    if triton and gate_up.is_cuda:
        return triton_kernels.silu_mul(gate_up)
    gate, up = gate_up.chunk(2, -1)
    return F.silu(gate).mul_(up)


def signed(sin: torch.Tensor) -> torch.Tensor:
    """(-first half, second half) of (..., D): rotary positions (Su et al. 2021) turn halves in the Qwen models, and
    with this sin a roll by half a head is all that is left of it."""
    first, second = sin.chunk(2, -1)
    return torch.cat([-first, second], -1)


def slot_mapping(kv: torch.Tensor, page: torch.Tensor, offset: torch.Tensor) -> torch.Tensor:
    """Where tokens at (page, offset) (T,) have their keys and values among the vectors of kv -> (T, 2C) int64."""
    _, _, C, size, _ = kv.shape
    heads = torch.arange(2 * C, device=page.device)
    return (page[:, None].long() * (2 * C) + heads) * size + offset[:, None]


def norm_rope_append(qkv, gains, cos, sin, kv, slot_mapping, eps: float):
    """Normalise (Qwen3 does, Qwen2.5 has no gains) and rotate q and k; write k and v into the pages.

    qkv (T, H + 2C, D), changed in place; gains (H + C, D) or None; cos, `signed` sin (T, D); kv (pages, 2, C, page
    size, D), changed in place; slot_mapping (T, 2C) int64 -> q (T, H, D), k and v (T, C, D).
    """
    if triton and qkv.is_cuda:
        return triton_kernels.norm_rope_append(qkv, gains, cos, sin, kv, slot_mapping, eps)
    C, D = kv.shape[2], kv.shape[4]
    H = qkv.shape[1] - 2 * C
    qk = qkv[:, : H + C]
    normal = qk if gains is None else F.rms_norm(qk, (D,), eps=eps) * gains
    torch.addcmul(normal * cos[:, None], normal.roll(D // 2, -1), sin[:, None], out=qk)
    kv.view(-1, D).index_copy_(0, slot_mapping.flatten(), qkv[:, H:].flatten(0, 1))
    return qkv.split([H, C, C], 1)


# ---------------------------------------------------------------------------------------------------------------------
# sampling


def _hash32_(x: torch.Tensor) -> torch.Tensor:
    """A 32-bit integer hash with low bias ("lowbias32", Chris Wellons), in place on int32, which wraps around as
    unsigned numbers do; the masks turn arithmetic shifts into logical ones."""
    x.bitwise_xor_((x >> 16).bitwise_and_(0xFFFF)).mul_(0x7FEB352D)
    x.bitwise_xor_((x >> 15).bitwise_and_(0x1FFFF)).mul_(0x846CA68B - 2**32)
    return x.bitwise_xor_((x >> 16).bitwise_and_(0xFFFF))


def _keys(seeds: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
    """One int32 per row from its seed (its low 32 bits) and step."""
    return _hash32_(_hash32_(seeds.int().clone()) ^ (steps.int() * (0x9E3779B1 - 2**32)))


def sample_tokens(logits, seeds, steps, temperature: float, banned: torch.Tensor | None = None):
    """Draw one token per row by the exponential race (the Gumbel-max trick with one logarithm less): the smallest of
    e / p wins, e being exponential noise made of hash(seed, step, token).

    A row's draw depends on its own logits, seed and step alone: not on its neighbours, its slot or a generator.
    logits (B, V), seeds and steps (B,) integers, banned (V,) bool, true for ids that are never drawn -> tokens (B,)
    int64, logps (B,) float32 of the drawn tokens under softmax(logits / temperature). Banned ids stay in that softmax,
    so that the trainer, which knows nothing of the ban, normalises over the same support. temperature 0 means greedy
    (logps at 1).
    """
    if triton and logits.is_cuda:
        return triton_kernels.sample_tokens(logits, _keys(seeds, steps), temperature, banned)
    scores = logits = logits.float() / (temperature or 1.0)
    probabilities = logits.softmax(-1)
    if temperature > 0:
        vocabulary = _hash32_(torch.arange(logits.shape[-1], dtype=torch.int32, device=logits.device))
        noise = _hash32_(vocabulary ^ _keys(seeds, steps)[:, None])
        # u = (noise + 1/2) / 2^32 and e = -log(1 - u): float32 is finest at small u, where the winners come from
        exponential = noise.view(torch.uint32).float().add_(0.5).mul_(-(2.0**-32)).log1p_().neg_()
        scores = exponential.reciprocal_().mul_(probabilities)
    if banned is not None:
        scores = scores.masked_fill(banned, float("-inf"))
    tokens = scores.argmax(-1)
    return tokens, probabilities.gather(-1, tokens[:, None])[:, 0].log()
