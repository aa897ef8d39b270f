"""The few operations that decide speed, each as a plain torch function with one meaning.

Today this file holds the torch twins: they run on CPU and GPU alike and define what is right. A Triton kernel added
here takes the same arguments as its twin and is tested against it.

    packed_attention    training: many sequences in one row, no padding in the row, no leaking between sequences
    decode_attention    sampling: one new token per sample, the prompt's keys and values stored once per group
    token_logprobs      log-probabilities of given tokens without ever holding [T, V]
    sample_tokens       seeded sampling that does not depend on the order or number of rows

Axes: T tokens of a packed row, H query heads, C key/value heads, D head size, N prompts, B samples, P prompt tokens,
R response tokens, V vocabulary.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

# ---------------------------------------------------------------------------------------------------------------------
# attention


@dataclass
class AttentionBlock:
    """S sequences of a packed row that are attended in one padded call. Padding repeats position 0 and is never read.

    queries  (S, Lq) int64   positions of the row that ask
    keys     (S, Lk) int64   positions of the row that may be looked at
    mask     (S, 1, Lq, Lk) bool, or None when queries and keys are the same sequence and attention is causal
    real     (n,) int64      which of the S * Lq queries are no padding
    rows     (n,) int64      the positions of the row they stand for
    """

    queries: torch.Tensor
    keys: torch.Tensor
    mask: torch.Tensor | None
    real: torch.Tensor
    rows: torch.Tensor

    def to(self, device) -> "AttentionBlock":
        mask = None if self.mask is None else self.mask.to(device)
        return AttentionBlock(
            self.queries.to(device), self.keys.to(device), mask, self.real.to(device), self.rows.to(device)
        )


def packed_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, blocks: list[AttentionBlock], scale: float):
    """Attention inside a packed row: every sequence sees itself (and its group's prompt), nothing else.

    q (T, H, D), k and v (T, C, D) -> (T, H, D). The gradient is exact: keys of a shared prompt collect from all its
    responses because they are gathered, not copied.
    """

    def take(x, positions):  # (T, heads, D) -> (S, heads, L, D); index_select has the faster backward pass
        return x.index_select(0, positions.flatten()).unflatten(0, positions.shape).transpose(1, 2)

    parts = []
    for block in blocks:
        out = F.scaled_dot_product_attention(
            take(q, block.queries),
            take(k, block.keys),
            take(v, block.keys),
            attn_mask=block.mask,
            is_causal=block.mask is None,
            scale=scale,
            enable_gqa=q.shape[1] != k.shape[1],
        )
        parts.append(out.transpose(1, 2).flatten(0, 1).index_select(0, block.real))  # (n, H, D)
    back = torch.cat([block.rows for block in blocks]).argsort()
    return torch.cat(parts).index_select(0, back)


def decode_attention(q, prompt_k, prompt_v, prompt_length, k, v, length: int, scale: float):
    """One decoding step of n groups with G samples each. A group's prompt is read once, not once per sample.

    q (n, G, H, D); prompt_k, prompt_v (n, C, P, D) padded, prompt_length (n,); k, v (n, G, C, R, D) the responses so
    far, of which the first `length` are valid for every sample -> (n, G, H, D).
    """
    n, G, H, D = q.shape
    C, P = prompt_k.shape[1:3]
    share = H // C  # query heads that share one key/value head
    q = (q * scale).view(n, G, C, share, D)
    ask_prompt = q.transpose(1, 2).reshape(n, C, G * share, D)
    to_prompt = ask_prompt @ prompt_k.transpose(-1, -2)  # (n, C, G * share, P)
    padding = torch.arange(P, device=q.device) >= prompt_length[:, None]  # (n, P)
    to_prompt = to_prompt.masked_fill(padding[:, None, None], float("-inf")).view(n, C, G, share, P).transpose(1, 2)
    to_self = q @ k[..., :length, :].transpose(-1, -2)  # (n, G, C, share, length)
    weights = torch.cat([to_prompt, to_self], -1).float().softmax(-1).to(q.dtype)
    from_prompt = weights[..., :P].transpose(1, 2).reshape(n, C, G * share, P) @ prompt_v  # (n, C, G * share, D)
    out = from_prompt.view(n, C, G, share, D).transpose(1, 2) + weights[..., P:] @ v[..., :length, :]
    return out.reshape(n, G, H, D)


def apply_rope(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary positions (Su et al. 2021), halves rotated as in the Qwen models. x (..., heads, D); cos, sin (..., D)."""
    first, second = x.chunk(2, -1)
    return x * cos[..., None, :] + torch.cat([-second, first], -1) * sin[..., None, :]


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """RMSNorm (Zhang and Sennrich 2019), normalised in fp32 as the Hugging Face modules do. x (..., D)."""
    normal = x.float() * torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + eps)
    return weight * normal.to(x.dtype)


# ---------------------------------------------------------------------------------------------------------------------
# log-probabilities


class _TokenLogprobs(torch.autograd.Function):
    """Recomputes the logits of one chunk at a time in the backward pass instead of keeping them."""

    @staticmethod
    def forward(ctx, hidden, weight, targets, temperature, chunk):
        logps = []
        for rows, wanted in zip(hidden.split(chunk), targets.split(chunk), strict=True):
            logits = (rows @ weight.T).float() / temperature
            logps.append(logits.gather(-1, wanted[:, None])[:, 0] - logits.logsumexp(-1))
        ctx.save_for_backward(hidden, weight, targets)
        ctx.temperature, ctx.chunk = temperature, chunk
        return torch.cat(logps)

    @staticmethod
    def backward(ctx, grad):
        hidden, weight, targets = ctx.saved_tensors
        grad_hidden = torch.empty_like(hidden)
        grad_weight = torch.zeros_like(weight, dtype=torch.float32)  # bf16 sums over chunks would bias training
        for start in range(0, len(hidden), ctx.chunk):
            part = slice(start, start + ctx.chunk)
            logits = (hidden[part] @ weight.T).float() / ctx.temperature
            grad_logits = -logits.softmax(-1)  # d logp / d logits = onehot - softmax
            grad_logits.scatter_add_(-1, targets[part, None], grad_logits.new_ones(len(logits), 1))
            grad_logits *= grad[part, None] / ctx.temperature
            grad_hidden[part] = grad_logits.to(weight.dtype) @ weight
            grad_weight += grad_logits.T @ hidden[part].float()
        return grad_hidden, grad_weight.to(weight.dtype), None, None, None


def token_logprobs(hidden, weight, targets, temperature: float = 1.0, chunk: int = 4096) -> torch.Tensor:
    """log softmax(hidden @ weight.T / temperature)[targets], in chunks of tokens: [T, V] never exists.

    hidden (T, width), weight (V, width), targets (T,) int64 -> (T,) float32, differentiable in hidden and weight.
    """
    return _TokenLogprobs.apply(hidden, weight, targets, temperature, chunk)


# ---------------------------------------------------------------------------------------------------------------------
# sampling


def _hash32(x: torch.Tensor) -> torch.Tensor:
    """A 32-bit integer hash with low bias ("lowbias32", Chris Wellons), in int64 so that every device agrees."""
    mask = 0xFFFFFFFF
    x = x & mask
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & mask
    x = ((x ^ (x >> 15)) * 0x846CA68B) & mask
    return x ^ (x >> 16)


def sample_tokens(logits, seeds, steps, temperature: float, banned: torch.Tensor | None = None):
    """Draw one token per row by the Gumbel-max trick with counter-based noise hash(seed, step, token).

    A row's draw depends on its own logits, seed and step alone: not on its neighbours, its slot or a generator.
    logits (B, V), seeds and steps (B,) int64, banned (n,) ids that are never drawn -> tokens (B,), logps (B,) float32
    of the drawn tokens under softmax(logits / temperature). Banned ids stay in that softmax, so that the trainer,
    which knows nothing of the ban, normalises over the same support. temperature 0 means greedy (logps at 1).
    """
    logps = (logits.float() / (temperature or 1.0)).log_softmax(-1)
    scores = logps
    if temperature > 0:
        key = _hash32(_hash32(seeds) ^ ((steps * 0x9E3779B1) & 0xFFFFFFFF))
        vocabulary = torch.arange(logits.shape[-1], device=logits.device)
        uniform = (_hash32(_hash32(vocabulary)[None] ^ key[:, None]).double() + 0.5) / 2**32
        scores = logps - torch.log(-torch.log1p(-uniform)).float()
    if banned is not None and len(banned):
        scores = scores.index_fill(-1, banned, float("-inf"))
    tokens = scores.argmax(-1)
    return tokens, logps.gather(-1, tokens[:, None])[:, 0]
