"""The few operations that decide speed: plain torch, and beside it a Triton kernel where that pays.

A torch twin defines what is right and runs everywhere. A Triton kernel with the same arguments runs on CUDA tensors
where Triton is installed, and is tested against its twin (on a CPU with TRITON_INTERPRET=1). So are the functions in
C that a decoding step on a CPU is made of (`native`).

    packed_attention    training: many sequences in one row, no padding in the row, no leaking between sequences
    decode_attention    sampling: one new token per sample; a prompt's keys are stored and read once per group
    rms_norm, silu_mul  sampling: what surrounds attention in a layer
    norm_rope_append    sampling: normalise and rotate queries and keys, write keys and values into their pages
    token_logprobs      log-probabilities of given tokens without ever holding [T, V]
    sample_tokens       seeded sampling that does not depend on the order or number of rows

Axes: T tokens of a packed row, B rows of a decoding batch, H query heads, C key/value heads, D head size, V vocabulary.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from packing import Spans

triton = None
if torch.cuda.is_available() or os.environ.get("TRITON_INTERPRET") == "1":
    try:
        import triton
        import triton.language as tl
    except ImportError:
        pass
jit = triton.jit if triton else lambda function: function
torch.backends.cuda.enable_cudnn_sdp(False)  # plans anew, for a second, for every new shape: rows have ever new ones
MOST_ROWS = 128  # of a Triton tile of queries: more do not fit a multiprocessor's registers
NOTHING = -1e30  # the score of a key that may not be seen: finite, so that no 0 * inf arises

# ---------------------------------------------------------------------------------------------------------------------
# attention in training


def packed_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, spans: Spans, scale: float) -> torch.Tensor:
    """Attention inside a packed row (packing.pack): every sequence sees its prefix and itself, nothing else.

    q (T, H, D), k and v (T, C, D) -> (T, H, D). The gradient is exact: keys of a shared prompt collect from all its
    responses because they are gathered, not copied.
    """
    if q.is_cuda and v.dtype in (torch.bfloat16, torch.float16):
        return _flash_attention(q.to(v.dtype), k.to(v.dtype), v, spans, scale)

    def take(x, positions):  # (T, heads, D) -> (S, heads, L, D); index_select has the faster backward pass
        return x.index_select(0, positions.flatten()).unflatten(0, positions.shape).transpose(1, 2)

    parts = []
    for block in spans.blocks:
        asking, keys, values = take(q, block.queries), take(k, block.keys), take(v, block.keys)
        options = dict(attn_mask=block.mask, is_causal=block.mask is None, enable_gqa=q.shape[1] != k.shape[1])
        out = F.scaled_dot_product_attention(asking, keys, values, scale=scale, **options)
        parts.append(out.transpose(1, 2).flatten(0, 1).index_select(0, block.real))  # (n, H, D)
    return torch.cat(parts).index_select(0, spans.back)


def _flash_attention(q, k, v, spans: Spans, scale: float) -> torch.Tensor:
    """torch's own build of FlashAttention-2 (arXiv 2307.08691) for sequences of any lengths. Where a sequence has more
    keys than queries the last query sees all of them: what comes before is the prefix."""
    *ends_and_longest, keys = spans.flash
    if keys is not None:
        k, v = k.index_select(0, keys), v.index_select(0, keys)
    return torch.ops.aten._flash_attention_forward(q, k, v, *ends_and_longest, 0.0, True, False, scale=scale)[0]


# ---------------------------------------------------------------------------------------------------------------------
# attention in sampling: keys and values lie in pages of a pool, kv (pages, 2, C, page size, D) per layer


@dataclass
class KeyTable:
    """Which keys may be seen, and by whom. An item is a group (the keys of its prompt, asked by the rows of its
    samples) or a single sample (the keys of its response, asked by one row).

    rows     (items, J) int32        rows of the batch that ask, -1 where an item has fewer than J
    lengths  (items,) int32          how many keys an item has
    pages    (items, columns) int32  the pages they fill, in order; further columns name a page that no item owns
    """

    rows: torch.Tensor
    lengths: torch.Tensor
    pages: torch.Tensor
    page_size: int

    @cached_property
    def longest(self) -> int:
        return max(1, int(self.lengths.max()))

    @cached_property
    def bias(self) -> torch.Tensor:
        """(items, 1, 1, longest) NOTHING for places without a key, otherwise 0."""
        hidden = torch.arange(self.longest, device=self.pages.device) >= self.lengths[:, None]
        return (hidden * NOTHING)[:, None, None]

    def read(self, kv: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Copies of the keys and values, each (items, C, longest, D)."""
        columns = -(-self.longest // self.page_size)
        pages = kv.index_select(0, self.pages[:, :columns].flatten()).unflatten(0, (-1, columns))
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
        return _triton_decode_attention(q, kv, prompts, own, scale)
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
        return _triton_rms_norm(x, weight, eps)
    return F.rms_norm(x, weight.shape, weight, eps)


def silu_mul(gate_up: torch.Tensor) -> torch.Tensor:
    """silu(gate) * up -> (T, width), the gate being the first half of gate_up (T, 2 width)."""
    if triton and gate_up.is_cuda:
        return _triton_silu_mul(gate_up)
    gate, up = gate_up.chunk(2, -1)
    return F.silu(gate).mul_(up)


def apply_rope(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, out=None) -> torch.Tensor:
    """Rotary positions (Su et al. 2021), halves rotated as in the Qwen models. x (..., heads, D); cos, sin (..., D),
    the first half of sin negated (`signed`): then a rotation by half a head is all that is left of rotating pairs."""
    return torch.addcmul(x * cos[..., None, :], x.roll(x.shape[-1] // 2, -1), sin[..., None, :], out=out)


def signed(sin: torch.Tensor) -> torch.Tensor:
    """(-first half, second half) of (..., D), as `apply_rope` wants it."""
    first, second = sin.chunk(2, -1)
    return torch.cat([-first, second], -1)


def spots(kv: torch.Tensor, page: torch.Tensor, offset: torch.Tensor) -> torch.Tensor:
    """Where tokens at (page, offset) (T,) have their keys and values among the vectors of kv -> (T, 2C) int64."""
    _, _, C, size, _ = kv.shape
    heads = torch.arange(2 * C, device=page.device)
    return (page[:, None].long() * (2 * C) + heads) * size + offset[:, None]


def norm_rope_append(qkv, gains, cos, sin, kv, places, eps: float):
    """Normalise (Qwen3 does, Qwen2.5 has no gains) and rotate q and k; write k and v to their `spots` in the pages.

    qkv (T, H + 2C, D), changed in place; gains (H + C, D) or None; cos, sin (T, D); kv (pages, 2, C, page size, D),
    changed in place; places (T, 2C) int64 -> q (T, H, D), k and v (T, C, D).
    """
    if triton and qkv.is_cuda:
        return _triton_norm_rope_append(qkv, gains, cos, sin, kv, places, eps)
    C, D = kv.shape[2], kv.shape[4]
    H = qkv.shape[1] - 2 * C
    qk = qkv[:, : H + C]
    normal = qk if gains is None else F.rms_norm(qk, (D,), eps=eps) * gains
    apply_rope(normal, cos, sin, out=qk)
    kv.view(-1, D).index_copy_(0, places.flatten(), qkv[:, H:].flatten(0, 1))
    return qkv.split([H, C, C], 1)


# ---------------------------------------------------------------------------------------------------------------------
# log-probabilities


class _TokenLogprobs(torch.autograd.Function):
    """Recomputes the logits of one chunk at a time in the backward pass instead of keeping them."""

    @staticmethod
    def forward(ctx, hidden, weight, targets, temperature, chunk):
        logps, totals = [], []
        for rows, wanted in zip(hidden.split(chunk), targets.split(chunk), strict=True):
            logits = _wide(rows @ weight.T).div_(temperature)
            totals.append(logits.logsumexp(-1))
            logps.append(logits.gather(-1, wanted[:, None])[:, 0] - totals[-1])
        empty = hidden.new_empty(0, dtype=_wide(hidden[:0]).dtype)
        ctx.save_for_backward(hidden, weight, targets, torch.cat([empty, *totals]))
        ctx.temperature, ctx.chunk = temperature, chunk
        return torch.cat([empty, *logps])

    @staticmethod
    def backward(ctx, grad):
        hidden, weight, targets, totals = ctx.saved_tensors
        grad_hidden = torch.empty_like(hidden)
        grad_weight = torch.zeros_like(weight, dtype=grad.dtype)  # bf16 sums over chunks would bias training
        for start in range(0, len(hidden), ctx.chunk):
            part = slice(start, start + ctx.chunk)
            logits = _wide(hidden[part] @ weight.T).div_(ctx.temperature)
            # d logp / d logits = onehot - softmax, in the place of the logits
            grad_logits = logits.sub_(totals[part, None]).exp_().neg_()
            grad_logits.scatter_add_(-1, targets[part, None], grad_logits.new_ones(len(logits), 1))
            grad_logits *= grad[part, None] / ctx.temperature
            narrow = grad_logits.to(weight.dtype)
            grad_hidden[part] = narrow @ weight
            if weight.is_cuda and weight.dtype == torch.bfloat16:  # bf16 factors, products summed and kept in fp32
                grad_weight += torch.mm(narrow.T, hidden[part], out_dtype=torch.float32)
            else:
                grad_weight += grad_logits.T @ _wide(hidden[part])
        return grad_hidden, grad_weight.to(weight.dtype), None, None, None


def _wide(x: torch.Tensor) -> torch.Tensor:
    """float32, or more where it is more already."""
    return x if x.dtype == torch.float64 else x.float()


def token_logprobs(hidden, weight, targets, temperature: float = 1.0, chunk: int = 1024) -> torch.Tensor:
    """log softmax(hidden @ weight.T / temperature)[targets], in chunks of tokens: [T, V] never exists.

    hidden (T, width), weight (V, width), targets (T,) int64 -> (T,) float32 (float64 of float64), differentiable in
    hidden and weight. A chunk of 1,024 tokens and 152,000 words is 0.6 GB.
    """
    if torch.is_autocast_enabled(hidden.device.type):  # here, so that the backward pass computes the same logits
        hidden, weight = (x.to(torch.get_autocast_dtype(hidden.device.type)) for x in (hidden, weight))
    return _TokenLogprobs.apply(hidden, weight, targets, temperature, chunk)


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
        return _triton_sample_tokens(logits, seeds, steps, temperature, banned)
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


# ---------------------------------------------------------------------------------------------------------------------
# Triton. Tiles of one page by all rows that ask (at least the 16 of a tensor core's tile); four warps, two stages suit
# Ampere's 100 KB of shared memory as well as Hopper's 228 KB at head sizes up to 128 and pages of 64.


@jit
def _paged_attention_kernel(
    q, stride, kv, out, lse, scale, shared, prompt_rows, prompt_lengths, prompt_pages, prompt_columns,
    own_rows, own_lengths, own_pages, own_columns,
    H: tl.constexpr, C: tl.constexpr, D: tl.constexpr, PAGE: tl.constexpr, J: tl.constexpr, M: tl.constexpr,
    TILES: tl.constexpr, SPLITS: tl.constexpr, OWN_SPLITS: tl.constexpr, NOTHING: tl.constexpr,
):  # fmt: skip
    """The first `shared` programs work on prompts, the others on what samples said: one launch, so that neither waits
    for the other. The grid does not depend on lengths, so a CUDA graph can hold it."""
    PARTS: tl.constexpr = SPLITS + OWN_SPLITS
    program = tl.program_id(0)
    if program < shared:
        _attend_pages(
            q, stride, kv, out, lse, scale, prompt_rows, prompt_lengths, prompt_pages, prompt_columns,
            program // TILES, program % TILES, H, C, D, PAGE, J, M, SPLITS, 0, PARTS, NOTHING,
        )  # fmt: skip
    else:
        _attend_pages(
            q, stride, kv, out, lse, scale, own_rows, own_lengths, own_pages, own_columns,
            program - shared, 0, H, C, D, PAGE, 1, 16, OWN_SPLITS, SPLITS, PARTS, NOTHING,
        )  # fmt: skip


@jit
def _attend_pages(
    q, stride, kv, out, lse, scale, rows, lengths, pages, columns, number, tile,
    H: tl.constexpr, C: tl.constexpr, D: tl.constexpr, PAGE: tl.constexpr, J: tl.constexpr, M: tl.constexpr,
    SPLITS: tl.constexpr, FIRST: tl.constexpr, PARTS: tl.constexpr, NOTHING: tl.constexpr,
):  # fmt: skip
    """One program: an item, a key/value head, one of SPLITS shares of the item's pages. M of the item's J * H / C query
    rows (all, if there is one tile) meet each page as it is read, once. Writes the share's normalised output and
    log-sum-exp as part FIRST + split of PARTS."""
    item, split, head = number // SPLITS, number % SPLITS, tl.program_id(1)
    length = tl.load(lengths + item)
    m, d, t = tile * M + tl.arange(0, M), tl.arange(0, D), tl.arange(0, PAGE)
    row = tl.load(rows + item * J + m // (H // C), mask=m < J * (H // C), other=-1)
    query_head = head * (H // C) + m % (H // C)
    queries = q + row[:, None] * stride + query_head[:, None] * D + d[None]
    asking = tl.load(queries, mask=(row >= 0)[:, None], other=0.0)
    used = tl.cdiv(length, PAGE)
    share = tl.cdiv(used, SPLITS)
    top = tl.full((M,), NOTHING, tl.float32)
    total = tl.zeros((M,), tl.float32)
    sums = tl.zeros((M, D), tl.float32)
    for column in range(split * share, tl.minimum((split + 1) * share, used)):
        page = tl.load(pages + item * columns + column).to(tl.int64)  # a pool may have more than 2^31 numbers
        at = kv + ((page * 2 * C + head) * PAGE + t[:, None]) * D + d[None]
        scores = tl.dot(asking, tl.trans(tl.load(at)), input_precision="ieee") * scale  # (M, PAGE)
        scores = tl.where((column * PAGE + t < length)[None], scores, NOTHING)
        new_top = tl.maximum(top, tl.max(scores, 1))
        weights = tl.exp(scores - new_top[:, None])
        keep = tl.exp(top - new_top)
        v = tl.load(at + C * PAGE * D)
        sums = sums * keep[:, None] + tl.dot(weights.to(v.dtype), v, input_precision="ieee")
        total = total * keep + tl.sum(weights, 1)
        top = new_top
    total_or_one = tl.where(total > 0, total, 1.0)
    place = (row * H + query_head) * PARTS + FIRST + split
    tl.store(out + place[:, None] * D + d[None], sums / total_or_one[:, None], mask=(row >= 0)[:, None])
    tl.store(lse + place, tl.where(total > 0, top + tl.log(total_or_one), NOTHING), mask=row >= 0)


@jit
def _merge_kernel(out, lse, merged, D: tl.constexpr, PARTS: tl.constexpr, PARTS2: tl.constexpr, NOTHING: tl.constexpr):
    """merge_attention for one query: its PARTS parts (padded to a power of two) weighted by their log-sum-exp."""
    query, part, d = tl.program_id(0), tl.arange(0, PARTS2), tl.arange(0, D)
    score = tl.load(lse + query * PARTS + part, mask=part < PARTS, other=NOTHING)
    weight = tl.where(part < PARTS, tl.exp(score - tl.max(score, 0)), 0.0)
    at = (query * PARTS + part)[:, None] * D + d[None]
    parts = tl.load(out + at, mask=(part < PARTS)[:, None], other=0.0)
    summed = tl.sum(parts * (weight / tl.sum(weight, 0))[:, None], 0)
    tl.store(merged + query * D + d, summed.to(merged.dtype.element_ty))


def _triton_decode_attention(q, kv, prompts: KeyTable, own: KeyTable, scale: float) -> torch.Tensor:
    (B, H, D), (_, _, C, PAGE, _), J = q.shape, kv.shape, prompts.rows.shape[1]
    # enough programs for 132 multiprocessors twice over, where few items ask
    splits = [max(1, min(16, 264 // (len(table.lengths) * C))) for table in (prompts, own)]
    out = q.new_empty(B, H, sum(splits), D, dtype=torch.float32)
    lse = q.new_full((B, H, sum(splits)), NOTHING, dtype=torch.float32)
    M = min(MOST_ROWS, max(16, triton.next_power_of_2(J * (H // C))))
    tiles = triton.cdiv(J * (H // C), M)
    shared = len(prompts.lengths) * tiles * splits[0]
    tables = [x for t in (prompts, own) for x in (t.rows, t.lengths, t.pages, t.pages.stride(0))]
    _paged_attention_kernel[shared + B * splits[1], C](
        q, q.stride(0), kv, out, lse, scale, shared, *tables, H, C, D, PAGE, J, M, tiles, *splits, NOTHING,
        num_warps=8 if M > 64 else 4, num_stages=2,
    )  # fmt: skip
    merged = torch.empty_like(q, memory_format=torch.contiguous_format)
    _merge_kernel[(B * H,)](out, lse, merged, D, sum(splits), triton.next_power_of_2(sum(splits)), NOTHING, num_warps=1)
    return merged


@jit
def _rms_norm_kernel(x, weight, out, eps, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    """One program: one row, read once."""
    at, d = tl.program_id(0).to(tl.int64) * WIDTH, tl.arange(0, BLOCK)
    row = tl.load(x + at + d, mask=d < WIDTH, other=0.0).to(tl.float32)
    gain = tl.load(weight + d, mask=d < WIDTH, other=0.0).to(tl.float32)
    normal = row * (1 / tl.sqrt(tl.sum(row * row, 0) / WIDTH + eps)) * gain
    tl.store(out + at + d, normal.to(out.dtype.element_ty), mask=d < WIDTH)


def _triton_rms_norm(x, weight, eps: float) -> torch.Tensor:
    x, width = x.contiguous(), x.shape[-1]
    out = torch.empty_like(x)
    _rms_norm_kernel[(len(x),)](x, weight, out, eps, width, triton.next_power_of_2(width), num_warps=8)
    return out


@jit
def _silu_mul_kernel(gate_up, out, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    """One program: BLOCK numbers of one row, rounded where the torch twin rounds."""
    row, d = tl.program_id(0).to(tl.int64), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    gate = tl.load(gate_up + row * 2 * WIDTH + d, mask=d < WIDTH, other=0.0)
    up = tl.load(gate_up + row * 2 * WIDTH + WIDTH + d, mask=d < WIDTH, other=0.0)
    wide = gate.to(tl.float32)
    tl.store(out + row * WIDTH + d, (wide / (1 + tl.exp(-wide))).to(gate.dtype) * up, mask=d < WIDTH)


def _triton_silu_mul(gate_up) -> torch.Tensor:
    T, width = len(gate_up), gate_up.shape[1] // 2
    out = gate_up.new_empty(T, width)
    _silu_mul_kernel[T, triton.cdiv(width, 1024)](gate_up.contiguous(), out, width, 1024)
    return out


@jit
def _norm_rope_append_kernel(
    qkv, gains, cos, sin, kv, places, eps, H: tl.constexpr, C: tl.constexpr, D: tl.constexpr, NORMALISE: tl.constexpr,
):  # fmt: skip
    """One program: one head of one token, rounded where the torch twin rounds. q and k change in place."""
    token, head, d = tl.program_id(0), tl.program_id(1), tl.arange(0, D)
    other = (d + D // 2) % D
    at = qkv + (token * (H + 2 * C) + head) * D
    x = tl.load(at + d)
    if head < H + C:
        turned = tl.load(at + other)
        if NORMALISE:
            scale = 1 / tl.sqrt(tl.sum(x.to(tl.float32) * x.to(tl.float32), 0) / D + eps)
            x = tl.load(gains + head * D + d) * (x.to(tl.float32) * scale).to(x.dtype)
            turned = tl.load(gains + head * D + other) * (turned.to(tl.float32) * scale).to(x.dtype)
        rotated = x * tl.load(cos + token * D + d) + turned * tl.load(sin + token * D + d)
        x = rotated.to(x.dtype)
        tl.debug_barrier()  # both halves are read before either is overwritten
        tl.store(at + d, x)
    if head >= H:  # key heads, then value heads
        tl.store(kv + tl.load(places + token * 2 * C + head - H) * D + d, x)


def _triton_norm_rope_append(qkv, gains, cos, sin, kv, places, eps: float):
    (T, heads, D), C = qkv.shape, kv.shape[2]
    H, some = heads - 2 * C, qkv if gains is None else gains
    _norm_rope_append_kernel[T, heads](qkv, some, cos, sin, kv, places, eps, H, C, D, gains is not None, num_warps=1)
    return qkv.split([H, C, C], 1)


@jit
def _hash32_kernel(x):
    x = (x ^ (x >> 16)) * 0x7FEB352D
    x = (x ^ (x >> 15)) * 0x846CA68B
    return x ^ (x >> 16)


@jit
def _sample_kernel(
    logits, keys, banned, top, total, best, token, temperature, V,
    SPLITS: tl.constexpr, BLOCK: tl.constexpr, GREEDY: tl.constexpr, BAN: tl.constexpr,
):  # fmt: skip
    """One program: a share of one row's vocabulary, read once -> its largest logit and sum of exponentials, its best
    perturbed score and whose that is."""
    row, split = tl.program_id(0), tl.program_id(1)
    key = tl.load(keys + row).to(tl.uint32, bitcast=True)
    share = tl.cdiv(tl.cdiv(V, BLOCK), SPLITS) * BLOCK
    high, sums, winner_score, winner = -float("inf"), 0.0, -float("inf"), 0
    for start in range(split * share, tl.minimum((split + 1) * share, V), BLOCK):
        v = start + tl.arange(0, BLOCK)
        logit = tl.load(logits + row.to(tl.int64) * V + v, mask=v < V, other=-float("inf")).to(tl.float32) / temperature
        new_high = tl.maximum(high, tl.max(logit, 0))
        sums = sums * tl.exp(high - new_high) + tl.sum(tl.exp(logit - new_high), 0)
        high = new_high
        score = logit
        if not GREEDY:
            noise = _hash32_kernel(_hash32_kernel(v.to(tl.uint32)) ^ key).to(tl.float32)
            u = (noise + 0.5) * 2.3283064365386963e-10  # 2^-32
            # -log(1 - u); for small u, whose draws are the large ones, by its series: there is no log1p here
            exponential = tl.where(u < 1e-3, u * (1 + u * (0.5 + u / 3)), -tl.log(tl.maximum(1 - u, 1e-30)))
            score -= tl.log(exponential)
        if BAN:
            score = tl.where(tl.load(banned + v, mask=v < V, other=1) != 0, -float("inf"), score)
        here = tl.max(score, 0)
        if here > winner_score:
            winner_score, winner = here, start + tl.argmax(score, 0)
    place = row * SPLITS + split
    tl.store(top + place, high)
    tl.store(total + place, sums)
    tl.store(best + place, winner_score)
    tl.store(token + place, winner)


def _triton_sample_tokens(logits, seeds, steps, temperature: float, banned=None):
    logits = logits.contiguous()
    B, V = logits.shape
    splits = max(1, min(16, 264 // B, V // 4096))
    top, total, best = torch.full((3, B, splits), float("-inf"), device=logits.device)
    token = torch.zeros(B, splits, dtype=torch.int32, device=logits.device)
    _sample_kernel[B, splits](
        logits, _keys(seeds, steps), logits if banned is None else banned.view(torch.uint8), top, total, best, token,
        temperature or 1.0, V, splits, min(4096, triton.next_power_of_2(V)), temperature == 0, banned is not None,
        num_warps=8,
    )  # fmt: skip
    winner = best.argmax(-1, keepdim=True)
    tokens = token.gather(-1, winner).long()  # (B, 1)
    lse = (top + total.log()).logsumexp(-1)
    return tokens[:, 0], logits.gather(-1, tokens)[:, 0].float() / (temperature or 1.0) - lse
