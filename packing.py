"""Prompts and their places: M-RoPE positions, and training rows without padding.

A row is packed, `[prompt | response 1 | .. | response G]`: the prompt and its picture are paid for once per group, rows
hold no padding and attention leaks nothing from one sequence to another (`packed_attention`). Positions are
computed here and always passed explicitly: Hugging Face's defaults need an extra input that Qwen2.5-VL silently does
without, and keep state between calls.

Axes: T tokens of a packed row, P prompt tokens, R response tokens, G responses of a prompt; H query heads, C key/value
heads, D head size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import numpy as np
import torch
import torch.nn.functional as F

torch.backends.cuda.enable_cudnn_sdp(False)  # plans anew, for a second, for every new shape: rows have ever new ones

# ---------------------------------------------------------------------------------------------------------------------
# prompts and positions


@dataclass
class Prompt:
    """A prompt with its picture, ready for the model. Response token j stands at position `next_position + j`."""

    sample_id: str
    ids: torch.Tensor  # (P,) int64
    positions: torch.Tensor  # (3, P) int64: time, height, width
    next_position: int
    patches: torch.Tensor  # (number of patches, channels * 2 * patch * patch)
    grid: torch.Tensor  # (pictures, 3) int64: frames, rows and columns of patches


def mrope_positions(ids: Sequence[int], grids: Sequence[tuple[int, int, int]], image_id: int, merge: int):
    """Multimodal rotary positions (Qwen2-VL, arXiv 2409.12191) -> positions (3, P) int64, the next free position.

    Text advances all three axes together; a picture spreads over rows and columns, and the text after it goes on from
    its longer side. `grids` are in patches; `merge` patches a side make one token.
    """
    pieces, start, at = [], 0, 0
    grids = iter(grids)
    while at < len(ids):
        if ids[at] == image_id:
            frames, height, width = next(grids)
            height, width = height // merge, width // merge
            axes = torch.meshgrid(torch.arange(frames), torch.arange(height), torch.arange(width), indexing="ij")
            pieces.append(torch.stack([axis.flatten() for axis in axes]) + start)
            start += max(height, width)
            at += frames * height * width
        else:
            end = at
            while end < len(ids) and ids[end] != image_id:
                end += 1
            pieces.append((torch.arange(end - at) + start).expand(3, -1))
            start += end - at
            at = end
    positions = torch.cat(pieces, 1)
    if positions.shape[1] != len(ids):
        raise ValueError(
            f"{len(ids)} prompt tokens but {positions.shape[1]} positions: a picture's tokens were cut off."
        )
    return positions, start


# ---------------------------------------------------------------------------------------------------------------------
# packed rows


@dataclass
class Spans:
    """Which positions of a packed row see which. Every sequence is one (start, end, prefix start, prefix end): position
    start + i sees the prefix, which may be empty, and start .. start + i. In row order, without gaps."""

    spans: list[tuple[int, int, int, int]]
    device: torch.device | str = "cpu"

    @cached_property
    def flash(self) -> tuple:
        """What flash attention wants: where queries and keys of a sequence end (S + 1,) int32, the longest of each, and
        which positions are keys, sequence after sequence; None where each sees only itself."""
        queries = [end - start for start, end, _, _ in self.spans]
        keys = [end - start + prefix_end - prefix for start, end, prefix, prefix_end in self.spans]
        ends = [torch.tensor([0, *accumulate(n)], dtype=torch.int32, device=self.device) for n in (queries, keys)]
        if queries == keys:
            return *ends, max(queries), max(keys), None
        parts = [torch.arange(*part) for start, end, *prefix in self.spans for part in (prefix, (start, end))]
        return *ends, max(queries), max(keys), torch.cat(parts).to(self.device)


@dataclass
class PackedRow:
    """Groups `[prompt | r1 | .. | rG]` one after the other, without padding.

    source[i] is the position in the row whose hidden state predicts targets[i]: the prompt's last token for the first
    token of every response, the token before otherwise. owner[i] numbers the responses in the order they were given.
    """

    ids: torch.Tensor  # (T,) int64
    positions: torch.Tensor  # (3, T) int64
    patches: torch.Tensor
    grid: torch.Tensor
    spans: Spans
    source: torch.Tensor  # (sum of R,) int64
    targets: torch.Tensor  # (sum of R,) int64
    owner: torch.Tensor  # (sum of R,) int64

    def to(self, device) -> "PackedRow":
        tensors = {name: value.to(device) for name, value in vars(self).items() if torch.is_tensor(value)}
        return PackedRow(spans=Spans(self.spans.spans, device), **tensors)


def pack(groups: Sequence[tuple[Prompt, Sequence[Sequence[int]]]]) -> PackedRow:
    """Lay groups of one prompt and its responses (token ids, each at least one) into one row, on the CPU."""
    ids, positions, source, targets, owner, spans = [], [], [], [], [], []
    at = responses_seen = 0
    for prompt, responses in groups:
        P = len(prompt.ids)
        prefix = torch.arange(at, at + P)
        ids.append(prompt.ids)
        positions.append(prompt.positions)
        end = at + P
        alone = len(responses) == 1  # then prompt and response are one sequence
        if not alone:
            spans.append((at, end, at, at))
        for response in responses:
            tokens = torch.as_tensor(np.asarray(response), dtype=torch.int64)
            own = torch.arange(end, end + len(tokens))
            ids.append(tokens)
            positions.append((torch.arange(len(tokens)) + prompt.next_position).expand(3, -1))
            source.append(torch.cat([prefix[-1:], own[:-1]]))
            targets.append(tokens)
            owner.append(torch.full((len(tokens),), responses_seen))
            spans.append((at, end + len(tokens), at, at) if alone else (end, end + len(tokens), at, at + P))
            responses_seen += 1
            end += len(tokens)
        at = end
    empty = torch.empty(0, dtype=torch.int64)
    return PackedRow(
        ids=torch.cat(ids),
        positions=torch.cat(positions, 1),
        patches=torch.cat([prompt.patches for prompt, _ in groups]),
        grid=torch.cat([prompt.grid for prompt, _ in groups]),
        spans=Spans(spans),
        source=torch.cat([empty, *source]),
        targets=torch.cat([empty, *targets]),
        owner=torch.cat([empty, *owner]),
    )


# ---------------------------------------------------------------------------------------------------------------------
# attention inside a row


def packed_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, spans: Spans, scale: float) -> torch.Tensor:
    """Attention inside a packed row: every sequence sees its prefix and itself, nothing else.

    q (T, H, D), k and v (T, C, D) -> (T, H, D). The gradient is exact: keys of a shared prompt collect from all its
    responses, which all read the same ones.
    """
    if q.is_cuda and v.dtype in (torch.bfloat16, torch.float16):
        return _flash_attention(q.to(v.dtype), k.to(v.dtype), v, spans, scale)
    lengths = [end - start for start, end, _, _ in spans.spans]
    queries, keys, values = (x.split(lengths) for x in (q, k, v))  # of each sequence
    number_of = {start: number for number, (start, *_) in enumerate(spans.spans)}
    outs = []
    for number, (_, _, prefix, prefix_end) in enumerate(spans.spans):
        own, mask = (keys[number], values[number]), None
        if prefix < prefix_end:  # which is a sequence itself
            before = number_of[prefix]
            own = [torch.cat([x[before], x[number]]) for x in (keys, values)]
            mask = torch.ones(lengths[number], len(own[0]), dtype=torch.bool, device=q.device)
            mask = mask.tril(prefix_end - prefix)  # query j sees the prefix and j + 1 of its own
        asked = [x.transpose(0, 1)[None] for x in (queries[number], *own)]  # (1, heads, L, D)
        options = {"attn_mask": mask, "is_causal": mask is None, "enable_gqa": q.shape[1] != k.shape[1]}
        out = F.scaled_dot_product_attention(*asked, scale=scale, **options)
        outs.append(out[0].transpose(0, 1))
    return torch.cat(outs)


def _flash_attention(q, k, v, spans: Spans, scale: float) -> torch.Tensor:
    """torch's own build of FlashAttention-2 (arXiv 2307.08691) for sequences of any lengths. Where a sequence has more
    keys than queries the last query sees all of them: what comes before is the prefix."""
    *ends_and_longest, keys = spans.flash
    if keys is not None:
        k, v = k.index_select(0, keys), v.index_select(0, keys)
    return torch.ops.aten._flash_attention_forward(q, k, v, *ends_and_longest, 0.0, True, False, scale=scale)[0]
