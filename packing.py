"""Prompts and their places: M-RoPE positions, and training rows without padding.

A row is packed, `[prompt | response 1 | .. | response G]`: the prompt and its picture are paid for once per group, and
so is what its responses begin with in common; rows hold no padding and attention leaks nothing from one sequence to
another (`packed_attention`). Positions are always passed explicitly: Hugging Face's defaults keep state between calls.

Axes: T tokens of a row, P of a prompt, R of a response, G responses; H query heads, C key/value heads, D head size.
"""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, groupby, pairwise

import numpy as np
import torch
import torch.nn.functional as F

torch.backends.cuda.enable_cudnn_sdp(False)  # plans anew, for a second, for every new shape: rows have ever new ones
TILE = 128  # queries that a plain attention kernel takes at a time

# ----------------------------------------------------------------------------------------------- prompts and positions


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
    pieces, start, grids = [], 0, iter(grids)
    for is_image, run in groupby(i == image_id for i in ids):
        length = len(list(run))
        sizes = (length,)
        if is_image:
            frames, height, width = next(grids)
            sizes = frames, height // merge, width // merge
        axes = torch.meshgrid(*map(torch.arange, sizes), indexing="ij")  # of text one, that all three follow
        pieces.append(torch.stack([axis.flatten() for axis in axes]).expand(3, -1) + start)
        start += max(sizes[-2:])
        if math.prod(sizes) != length:
            raise ValueError(f"{length} tokens of a picture of {math.prod(sizes)}: some were cut off.")
    return torch.cat(pieces, 1), start


# --------------------------------------------------------------------------------------------------------- packed rows


@dataclass
class Spans:
    """Which positions of a packed row see which. What goes on from a position lies behind it without gaps: position i
    is seen by i .. until[i] - 1. starts: the positions that do not go on from the one before."""

    until: torch.Tensor  # (T,) int64
    starts: list[int]
    device: torch.device | str = "cpu"

    def keys(self, starts: Sequence[int]) -> tuple[torch.Tensor, list[int]]:
        """Cut the row at `starts` -> which positions each part sees, one part after the other, and how many each."""
        parts = [
            torch.cat([(self.until[:start] > start).nonzero()[:, 0], torch.arange(start, end)])
            for start, end in pairwise([*starts, len(self.until)])
        ]
        return torch.cat(parts), list(map(len, parts))

    @cached_property
    def flash(self) -> tuple:
        """What flash attention wants: where queries and keys of a sequence end (S + 1,) int32, the longest of each, and
        which positions are keys, sequence after sequence."""
        keys, counts = self.keys(self.starts)
        ends = torch.tensor([*self.starts, len(self.until)]), torch.tensor([0, *accumulate(counts)])
        on_device = (x.to(self.device) for x in (*map(torch.Tensor.int, ends), keys))
        return *on_device, int(ends[0].diff().max()), max(counts)

    @cached_property
    def tiles(self) -> tuple[list[int], torch.Tensor, list[int], list[torch.Tensor | None]]:
        """What a plain kernel wants, which takes up to TILE queries of a group at a time: how many, their keys, tile
        after tile, how many each has, and what is added to its products (queries, keys), None if just causal."""
        groups = [start for start in self.starts if not (self.until[:start] > start).any()]
        cuts = [cut for group in pairwise([*groups, len(self.until)]) for cut in range(*group, TILE)]
        keys, counts = self.keys(cuts)
        masks, asking = [], torch.arange(len(self.until)).tensor_split(cuts[1:])
        for queries, seen in zip(asking, keys.split(counts), strict=True):
            hidden = (queries[:, None] < seen) | (self.until[seen] <= queries[:, None])
            causal = hidden.equal(torch.ones_like(hidden).triu(1))
            masks.append(None if causal else torch.zeros(hidden.shape).masked_fill(hidden, -torch.inf).to(self.device))
        return list(map(len, asking)), keys.to(self.device), counts, masks


@dataclass
class PackedRow:
    """Groups `[prompt | r1 | .. | rG]` one after the other, without padding.

    source[i] is the position in the row whose hidden state predicts targets[i]: the prompt's last token for the first
    token of every response, the token before otherwise. A token that several responses share is predicted once:
    responses[j] says which i the j-th token of all responses is, as they were given one after the other, and owner[j]
    the number of its response.
    """

    ids: torch.Tensor  # (T,) int64
    positions: torch.Tensor  # (3, T) int64
    patches: torch.Tensor
    grid: torch.Tensor
    spans: Spans
    source: torch.Tensor  # (predicted tokens,) int64
    targets: torch.Tensor  # (predicted tokens,) int64
    responses: torch.Tensor  # (sum of R,) int64
    owner: torch.Tensor  # (sum of R,) int64

    def to(self, device) -> "PackedRow":
        tensors = {name: value.to(device) for name, value in vars(self).items() if torch.is_tensor(value)}
        return PackedRow(spans=Spans(self.spans.until, self.spans.starts, device), **tensors)


def pack(groups: Sequence[tuple[Prompt, Sequence[Sequence[int]]]], share: bool = True) -> PackedRow:
    """Lay groups of one prompt and its responses (token ids, each at least one) into one row, on the CPU.

    share: what responses begin with in common is there once (their tree, depth first, in the order of token ids);
    otherwise each is laid down whole, as they come.
    """
    ids, positions, source, targets, places, owner, starts = [], [], [], [], [], [], []
    until = np.empty(sum(len(prompt.ids) + sum(map(len, responses)) for prompt, responses in groups), int)
    end = prompts = 0
    for prompt, responses in groups:
        said, first = [list(map(int, response)) for response in responses], len(owner)
        starts.append(end)
        ids.append(prompt.ids)
        positions.append(prompt.positions)
        asked = np.arange(end, end := end + len(prompt.ids))
        prompts += len(asked)
        before, path = [], asked[:0]  # the response before, and where its tokens lie
        for number in sorted(range(len(said)), key=said.__getitem__) if share else range(len(said)):
            tokens = said[number]
            shared = len(os.path.commonprefix([before, tokens])) if share else 0
            new = torch.tensor(tokens[shared:], dtype=torch.int64)
            if before and len(new):
                starts.append(end)
            path = np.concatenate([path[:shared], np.arange(end, end := end + len(new))])
            until[path] = end
            ids.append(new)
            positions.append((torch.arange(shared, len(tokens)) + prompt.next_position).expand(3, -1))
            source.append(np.concatenate([asked[-1:], path[:-1]])[shared:])
            targets.append(new)
            places.append(path - prompts)
            owner.append(np.full(len(tokens), first + number))
            before = tokens
        until[asked] = end
    joined = lambda parts: torch.from_numpy(np.concatenate([np.arange(0), *parts]))  # noqa: E731
    as_given = np.argsort(joined(owner), kind="stable")
    return PackedRow(
        ids=torch.cat(ids),
        positions=torch.cat(positions, 1),
        patches=torch.cat([prompt.patches for prompt, _ in groups]),
        grid=torch.cat([prompt.grid for prompt, _ in groups]),
        spans=Spans(torch.from_numpy(until[:end]), starts),
        source=joined(source),
        targets=joined(targets),
        responses=joined(places)[as_given],
        owner=joined(owner)[as_given],
    )


# ---------------------------------------------------------------------------------------------- attention inside a row


def packed_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, spans: Spans, scale: float) -> torch.Tensor:
    """Attention inside a packed row: every sequence sees what it goes on from and itself, nothing else.

    q (T, H, D), k and v (T, C, D) -> (T, H, D). The gradient is exact: keys of a shared beginning collect from all
    that goes on from it, which all read the same ones.
    """
    if q.is_cuda and v.dtype in (torch.bfloat16, torch.float16):
        return _flash_attention(q.to(v.dtype), k.to(v.dtype), v, spans, scale)
    sizes, keys, counts, masks = spans.tiles
    if len(keys) > len(q):
        k, v = k.index_select(0, keys), v.index_select(0, keys)
    outs = []
    for *qkv, mask in zip(q.split(sizes), k.split(counts), v.split(counts), masks, strict=True):
        asked, *known = (x.transpose(0, 1)[None] for x in qkv)  # (1, heads, L, D)
        options = {"attn_mask": mask if mask is None else mask.to(q.dtype), "is_causal": mask is None, "scale": scale}
        outs.append(F.scaled_dot_product_attention(asked, *known, **options, enable_gqa=q.shape[1] != k.shape[1])[0])
    return torch.cat(outs, 1).transpose(0, 1)


def _flash_attention(q, k, v, spans: Spans, scale: float) -> torch.Tensor:
    """torch's own build of FlashAttention-2 (arXiv 2307.08691) for sequences of any lengths. Where a sequence has more
    keys than queries the last query sees all of them: what comes before is what it goes on from."""
    query_ends, key_ends, keys, *longest = spans.flash
    if len(keys) > len(q):
        k, v = k.index_select(0, keys), v.index_select(0, keys)
    options = *longest, 0.0, True, False
    return torch.ops.aten._flash_attention_forward(q, k, v, query_ends, key_ends, *options, scale=scale)[0]
