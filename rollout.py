"""Rollout: prompts in, sampled completions out, streamed as they finish; the prompt is paid for once per group.

    for completion in generate(policy, prompts, G=8, max_new_tokens=1024, temperature=1.0, seed=step):
        ...                                          # render and score it while the others still decode

How it works. The vision tower and the prompt run once for each of n groups (`prefill`); the G samples of a group share
the prompt's keys and values and own only those of their response. All rows decode in lockstep; a sample that ends is
handed out at once, and when a quarter of the rows is idle the batch is compacted. The decoder is Hugging Face's text
model written as plain functions over its own weights: one set of weights in one process, so sampling never goes stale.
Noise is a hash of (sample seed, step, token): a completion does not depend on batch size, neighbours or compaction.

Axes: n groups, G samples per group, P prompt tokens, R response tokens, H query heads, C key/value heads, D head size.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from kernels import apply_rope, decode_attention, packed_attention, rms_norm, sample_tokens
from model import Policy, Prompt, pack_prompts, rope_tables


@dataclass
class Completion:
    """One sampled answer. `ids` holds the end-of-turn token where the model said it (finish "eos")."""

    sample_id: str
    index: int  # 0 .. G - 1, the sample's number within its group
    ids: np.ndarray  # (R,) int32
    logps: np.ndarray  # (R,) float32, under the sampling temperature
    text: str
    finish: str  # "eos" or "length"


class Decoder:
    """The text model of a Qwen-VL as functions of Hugging Face's own weights. Rows may have any leading shape."""

    def __init__(self, policy: Policy):
        self.text = policy.hf.model.language_model
        self.config = self.text.config
        self.lm_head = policy.hf.lm_head.weight
        self.head_size = self.text.layers[0].self_attn.head_dim
        self.scale = self.head_size**-0.5

    def rope(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """positions (3, ...) -> cos, sin (..., D) in the dtype of the weights."""
        cos, sin = rope_tables(positions.flatten(1), self.config)
        shape = (*positions.shape[1:], -1)
        return cos.view(shape).to(self.lm_head.dtype), sin.view(shape).to(self.lm_head.dtype)

    def layer(self, index: int, x: torch.Tensor, cos, sin, attend) -> torch.Tensor:
        """One decoder layer, x (..., width) -> the same. attend(index, q, k, v) does the attention and the cache."""
        layer, eps = self.text.layers[index], self.config.rms_norm_eps
        attention, mlp = layer.self_attn, layer.mlp
        normal = rms_norm(x, layer.input_layernorm.weight, eps)
        q, k, v = (
            F.linear(normal, proj.weight, proj.bias).unflatten(-1, (-1, self.head_size))  # (..., heads, D)
            for proj in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        if hasattr(attention, "q_norm"):  # Qwen3 normalises queries and keys, Qwen2.5 has biases instead
            q, k = rms_norm(q, attention.q_norm.weight, eps), rms_norm(k, attention.k_norm.weight, eps)
        q, k = apply_rope(q, cos, sin), apply_rope(k, cos, sin)
        x = x + F.linear(attend(index, q, k, v).flatten(-2), attention.o_proj.weight)
        normal = rms_norm(x, layer.post_attention_layernorm.weight, eps)
        gated = F.silu(F.linear(normal, mlp.gate_proj.weight)) * F.linear(normal, mlp.up_proj.weight)
        return x + F.linear(gated, mlp.down_proj.weight)

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(rms_norm(x, self.text.norm.weight, self.config.rms_norm_eps), self.lm_head)


@dataclass
class Cache:
    """Keys and values, one tensor per layer: of each group's prompt, and of each sample's response so far."""

    prompt_k: list[torch.Tensor]  # (n, C, P, D), padded
    prompt_v: list[torch.Tensor]
    prompt_length: torch.Tensor  # (n,)
    k: list[torch.Tensor]  # (n, G, C, R, D), the first `length` are valid
    v: list[torch.Tensor]
    length: int = 0

    def append(self, layer: int, k: torch.Tensor, v: torch.Tensor) -> None:
        """Write one token's k and v (n, G, C, D) at `length`; room doubles when it runs out."""
        for cache, new in ((self.k, k), (self.v, v)):
            room = cache[layer].shape[3]
            if self.length == room:
                cache[layer] = torch.cat([cache[layer], torch.zeros_like(cache[layer])], 3)
            cache[layer][..., self.length, :] = new

    def keep(self, groups: torch.Tensor, samples: torch.Tensor) -> None:
        """Keep `groups` (n',) and of each the `samples` (n', G')."""
        self.prompt_k = [k[groups] for k in self.prompt_k]
        self.prompt_v = [v[groups] for v in self.prompt_v]
        self.prompt_length = self.prompt_length[groups]
        self.k = [k[groups[:, None], samples] for k in self.k]
        self.v = [v[groups[:, None], samples] for v in self.v]


def prefill(policy: Policy, decoder: Decoder, prompts: Sequence[Prompt], G: int, room: int = 64):
    """Run the vision tower and the prompts, packed in one row, once for all G samples.

    Returns the logits after each prompt (n, V) and a Cache with empty responses.
    """
    row = pack_prompts(prompts).to(policy.device)
    lengths = torch.tensor([len(prompt.ids) for prompt in prompts], device=policy.device)
    n, P = len(prompts), int(lengths.max())
    group = torch.repeat_interleave(torch.arange(n, device=policy.device), lengths)
    within = torch.arange(len(row.ids), device=policy.device) - (lengths.cumsum(0) - lengths)[group]
    cache = Cache([], [], lengths, [], [])

    def attend(_, q, k, v):
        for stored, new in ((cache.prompt_k, k), (cache.prompt_v, v)):
            padded = new.new_zeros(n, P, *new.shape[1:])
            padded[group, within] = new
            stored.append(padded.transpose(1, 2).contiguous())  # (n, C, P, D)
        return packed_attention(q, k, v, row.blocks, decoder.scale)

    vision = policy.hf.model.get_image_features(row.patches, row.grid, return_dict=True)
    is_image = row.ids == policy.image_id
    x = decoder.text.embed_tokens(row.ids)  # (T, width)
    x[is_image] = torch.cat(list(vision.pooler_output)).to(x.dtype)
    deepstack = getattr(vision, "deepstack_features", None) or []
    cos, sin = decoder.rope(row.positions)
    for index in range(len(decoder.text.layers)):
        x = decoder.layer(index, x, cos, sin, attend)
        if index < len(deepstack):  # one tensor, or one per picture, depending on the release
            feature = deepstack[index]
            x[is_image] += (feature if torch.is_tensor(feature) else torch.cat(list(feature))).to(x.dtype)
    C, D = cache.prompt_k[0].shape[1], decoder.head_size
    empty = lambda: [x.new_zeros(n, G, C, room, D) for _ in cache.prompt_k]  # noqa: E731
    cache.k, cache.v = empty(), empty()
    return decoder.logits(x[lengths.cumsum(0) - 1]), cache


def decode_step(decoder: Decoder, cache: Cache, tokens: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Feed one token per sample, tokens and positions (n, G) -> logits (n, G, V)."""

    def attend(index, q, k, v):
        cache.append(index, k, v)
        keys, values = cache.k[index], cache.v[index]
        prompt = cache.prompt_k[index], cache.prompt_v[index], cache.prompt_length
        return decode_attention(q, *prompt, keys, values, cache.length + 1, decoder.scale)

    x = decoder.text.embed_tokens(tokens)  # (n, G, width)
    cos, sin = decoder.rope(positions.expand(3, -1, -1))
    for index in range(len(decoder.text.layers)):
        x = decoder.layer(index, x, cos, sin, attend)
    cache.length += 1
    return decoder.logits(x)


def generate(
    policy: Policy,
    prompts: Sequence[Prompt],
    G: int,
    max_new_tokens: int = 1024,
    temperature: float = 1.0,
    seed: int = 0,
    slots: int = 256,
    first: int = 0,
) -> Iterator[Completion]:
    """Sample G completions of every prompt; yield each as soon as it ends. temperature 0 is greedy.

    At most `slots` samples (but always one whole group) decode together; memory grows with them. The same arguments
    give the same completions, whatever `slots` is. `first` is the number of the first prompt: a share of a batch draws
    the noise it would have drawn as part of it.
    """
    if G < 1 or max_new_tokens < 1:
        raise ValueError(f"G is {G} and max_new_tokens {max_new_tokens}: both must be at least 1.")
    groups_at_once = max(1, slots // G)
    for start in range(0, len(prompts), groups_at_once):
        chunk = prompts[start : start + groups_at_once]
        first_seed = seed * 1_000_003 + (first + start) * G
        yield from _generate_chunk(policy, chunk, G, max_new_tokens, temperature, first_seed)


@torch.no_grad()
def _generate_chunk(policy, prompts, G, max_new_tokens, temperature, first_seed) -> Iterator[Completion]:
    device, n = policy.device, len(prompts)
    decoder = Decoder(policy)
    logits, cache = prefill(policy, decoder, prompts, G)
    logits = logits[:, None].expand(-1, G, -1)  # (n, G, V): every sample of a group starts from the same distribution
    banned = torch.tensor(policy.banned_ids, device=device)
    eos = torch.tensor(policy.eos_ids, device=device)
    # rows of the batch, compacted as samples end; `row` is a sample's number in this chunk
    row = torch.arange(n * G, device=device).view(n, G)
    position = torch.tensor([prompt.next_position for prompt in prompts], device=device)[:, None].expand(-1, G)
    alive = torch.ones(n, G, dtype=torch.bool, device=device)
    ids = torch.zeros(n * G, max_new_tokens, dtype=torch.int32, device=device)
    logps = torch.zeros(n * G, max_new_tokens, device=device)

    for step in range(max_new_tokens):
        steps = torch.full_like(row, step)
        tokens, logp = sample_tokens(
            logits.flatten(0, 1), (first_seed + row).flatten(), steps.flatten(), temperature, banned
        )
        ids[row.flatten(), step], logps[row.flatten(), step] = tokens.int(), logp
        said_eos = torch.isin(tokens, eos).view_as(row)
        ended = alive & (said_eos | (step == max_new_tokens - 1))
        for number, eos_here in zip(row[ended].tolist(), said_eos[ended].tolist(), strict=True):
            mine = ids[number, : step + 1].cpu().numpy()
            text = policy.decode(mine.tolist())
            finish = "eos" if eos_here else "length"
            sample_logps = logps[number, : step + 1].cpu().numpy()
            yield Completion(prompts[number // G].sample_id, number % G, mine, sample_logps, text, finish)
        alive = alive & ~ended
        if not alive.any():
            return
        tokens = tokens.view_as(row)
        if alive.sum() <= 0.75 * alive.numel():
            groups = alive.any(1).nonzero()[:, 0]
            width = int(alive.sum(1).max())
            samples = alive[groups].int().argsort(dim=1, descending=True, stable=True)[:, :width]
            cache.keep(groups, samples)
            row, position, alive, tokens = (x[groups[:, None], samples] for x in (row, position, alive, tokens))
        logits = decode_step(decoder, cache, tokens, position + step)
