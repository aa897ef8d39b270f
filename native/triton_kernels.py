"""Triton kernels of a decoding step, each with the name and the arguments of its torch twin in kernels.py, which says
what is right. Without Triton, or without a GPU, `triton` is None and nothing here is called.

Attention works on tiles of one page by all rows that ask (at least the 16 of a tensor core's tile); four warps and two
stages suit Ampere's 100 KB of shared memory as well as Hopper's 228 KB at head sizes up to 128 and pages of 64.
"""

from __future__ import annotations

import os

import torch

triton = None
if torch.cuda.is_available() or os.environ.get("TRITON_INTERPRET") == "1":
    try:
        import triton
        import triton.language as tl
    except ImportError:
        pass
jit = triton.jit if triton else lambda function: function
MOST_ROWS = 128  # of a tile of queries: more do not fit a multiprocessor's registers
NOTHING = -1e30  # the score of a key that may not be seen: finite, so that no 0 * inf arises


@jit
def _paged_attention_kernel(
    q, stride, kv, out, lse, scale, shared, prompt_rows, prompt_lengths, prompt_block_table, prompt_columns,
    own_rows, own_lengths, own_block_table, own_columns,
    H: tl.constexpr, C: tl.constexpr, D: tl.constexpr, PAGE: tl.constexpr, J: tl.constexpr, M: tl.constexpr,
    TILES: tl.constexpr, SPLITS: tl.constexpr, OWN_SPLITS: tl.constexpr, NOTHING: tl.constexpr,
):  # fmt: skip
    """The first `shared` programs work on prompts, the others on what samples said: one launch, so that neither waits
    for the other. The grid does not depend on lengths, so a CUDA graph can hold it."""
    PARTS: tl.constexpr = SPLITS + OWN_SPLITS
    program = tl.program_id(0)
    if program < shared:
        _attend_pages(
            q, stride, kv, out, lse, scale, prompt_rows, prompt_lengths, prompt_block_table, prompt_columns,
            program // TILES, program % TILES, H, C, D, PAGE, J, M, SPLITS, 0, PARTS, NOTHING,
        )  # fmt: skip
    else:
        _attend_pages(
            q, stride, kv, out, lse, scale, own_rows, own_lengths, own_block_table, own_columns,
            program - shared, 0, H, C, D, PAGE, 1, 16, OWN_SPLITS, SPLITS, PARTS, NOTHING,
        )  # fmt: skip


@jit
def _attend_pages(
    q, stride, kv, out, lse, scale, rows, lengths, block_table, columns, number, tile,
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
        page = tl.load(block_table + item * columns + column).to(tl.int64)  # a pool may have more than 2^31 numbers
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


def decode_attention(q, kv, prompts, own, scale: float) -> torch.Tensor:
    (B, H, D), (_, _, C, PAGE, _), J = q.shape, kv.shape, prompts.rows.shape[1]
    # enough programs for 132 multiprocessors twice over, where few items ask
    splits = [max(1, min(16, 264 // (len(table.lengths) * C))) for table in (prompts, own)]
    out = q.new_empty(B, H, sum(splits), D, dtype=torch.float32)
    lse = q.new_full((B, H, sum(splits)), NOTHING, dtype=torch.float32)
    M = min(MOST_ROWS, max(16, triton.next_power_of_2(J * (H // C))))
    tiles = triton.cdiv(J * (H // C), M)
    shared = len(prompts.lengths) * tiles * splits[0]
    tables = [x for t in (prompts, own) for x in (t.rows, t.lengths, t.block_table, t.block_table.stride(0))]
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


def rms_norm(x, weight, eps: float) -> torch.Tensor:
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


def silu_mul(gate_up) -> torch.Tensor:
    T, width = len(gate_up), gate_up.shape[1] // 2
    out = gate_up.new_empty(T, width)
    _silu_mul_kernel[T, triton.cdiv(width, 1024)](gate_up.contiguous(), out, width, 1024)
    return out


@jit
def _norm_rope_append_kernel(
    qkv, gains, cos, sin, kv, slot_mapping, eps,
    H: tl.constexpr, C: tl.constexpr, D: tl.constexpr, NORMALISE: tl.constexpr,
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
        tl.store(kv + tl.load(slot_mapping + token * 2 * C + head - H) * D + d, x)


def norm_rope_append(qkv, gains, cos, sin, kv, slot_mapping, eps: float):
    (T, heads, D), C = qkv.shape, kv.shape[2]
    H, some = heads - 2 * C, qkv if gains is None else gains
    _norm_rope_append_kernel[T, heads](
        qkv, some, cos, sin, kv, slot_mapping, eps, H, C, D, gains is not None, num_warps=1
    )
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


def sample_tokens(logits, keys, temperature: float, banned=None):
    """keys (B,) int32: the hash of each row's seed and step."""
    logits = logits.contiguous()
    B, V = logits.shape
    splits = max(1, min(16, 264 // B, V // 4096))
    top, total, best = torch.full((3, B, splits), float("-inf"), device=logits.device)
    token = torch.zeros(B, splits, dtype=torch.int32, device=logits.device)
    _sample_kernel[B, splits](
        logits, keys, logits if banned is None else banned.view(torch.uint8), top, total, best, token,
        temperature or 1.0, V, splits, min(4096, triton.next_power_of_2(V)), temperature == 0, banned is not None,
        num_warps=8,
    )  # fmt: skip
    winner = best.argmax(-1, keepdim=True)
    tokens = token.gather(-1, winner).long()  # (B, 1)
    lse = (top + total.log()).logsumexp(-1)
    return tokens[:, 0], logits.gather(-1, tokens)[:, 0].float() / (temperature or 1.0) - lse
