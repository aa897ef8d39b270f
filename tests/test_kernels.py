"""Attention, log-probs and sampling against plain references in float64; Triton kernels against their twins."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import c_functions
import pytest
import torch
from conftest import needs_a_compiler
from made_tables import MEMBERS, keys_of, made_tables
from torch.autograd import gradcheck

import kernels
import model
import packing
from packing import Spans


@pytest.mark.quick
@pytest.mark.parametrize("heads", [(8, 2), (7, 1), (4, 4)])
@pytest.mark.parametrize("count", [20, 400])  # pages
def test_decode_attention_equals_plain_attention(heads, count):
    H, C = heads
    q, kv, prompts, own = made_tables(H, C, count=count, dtype=torch.float64)
    ours = kernels.decode_attention(q, kv, prompts, own, 0.3)
    for item, rows in enumerate(MEMBERS):
        for row in (row for row in rows if row >= 0):
            keys, values = torch.cat([keys_of(kv, prompts, item), keys_of(kv, own, row)], 2).repeat_interleave(
                H // C, 1
            )
            theirs = ((q[row][:, None] @ keys.transpose(1, 2)) * 0.3).softmax(-1) @ values
            assert torch.allclose(ours[row], theirs[:, 0], atol=1e-6)  # the softmax is a float32 one


@pytest.mark.quick
def test_merged_parts_are_attention_over_all_keys():
    torch.manual_seed(0)
    scores, v = torch.randn(3, 2, 9, dtype=torch.float64), torch.randn(3, 2, 9, 4, dtype=torch.float64)
    parts = [
        ((s.softmax(-1)[..., None, :] @ x)[:, :, 0], s.logsumexp(-1))
        for s, x in zip(*(y.split((2, 7), 2) for y in (scores, v)), strict=True)
    ]
    assert torch.allclose(kernels.merge_attention(*parts), (scores.softmax(-1)[..., None, :] @ v)[:, :, 0])
    tensors = [x.requires_grad_() for part in parts for x in part]
    assert gradcheck(lambda a, b, c, d: kernels.merge_attention((a, b), (c, d)), tensors)


@pytest.mark.quick
def test_packed_attention_gradcheck():
    """The gradient of all keys is exact, of those too that several sequences go on from."""
    torch.manual_seed(0)
    q, k, v = (torch.randn(12, heads, 4, dtype=torch.float64, requires_grad=True) for heads in (2, 1, 1))
    assert gradcheck(lambda *qkv: packing.packed_attention(*qkv, ROWS[2], 0.5), (q, k, v))


ROWS = [
    Spans(torch.tensor([5] * 5 + [12] * 7), [0, 5]),  # each for itself
    Spans(torch.tensor([9] * 4 + [7] * 3 + [9] * 2 + [12] * 3), [0, 7, 9]),  # a prompt's two responses, and one alone
    Spans(torch.tensor([12] * 5 + [7] * 2 + [12, 9] + [12] * 3), [0, 7, 9]),  # of which two, and two, begin alike
]


@pytest.mark.parametrize("tile", [1, 5, 256])
@pytest.mark.parametrize("rows", ROWS)
def test_what_flash_attention_is_told_means_the_same(rows, tile, monkeypatch):
    """It needs a GPU; here its rule, the last query sees all keys, is followed sequence by sequence."""
    torch.manual_seed(0)
    monkeypatch.setattr(packing, "TILE", tile)
    spans, (q, k, v) = (
        Spans(rows.until, rows.starts),
        (torch.randn(12, heads, 4, dtype=torch.float64) for heads in (2, 1, 1)),
    )
    query_ends, key_ends, keys, most_queries, most_keys = spans.flash
    assert (most_queries, most_keys) == (query_ends.diff().max(), key_ends.diff().max())
    parts = []
    for (a, b), (c, d) in zip(query_ends.unfold(0, 2, 1).tolist(), key_ends.unfold(0, 2, 1).tolist(), strict=True):
        seen = torch.ones(b - a, d - c, dtype=torch.bool).tril(d - c - (b - a))
        scores = torch.einsum("qhd,khd->hqk", q[a:b], k[keys[c:d]].expand(-1, 2, -1)) * 0.5
        weights = scores.masked_fill(~seen, -torch.inf).softmax(-1)
        parts.append(torch.einsum("hqk,khd->qhd", weights, v[keys[c:d]].expand(-1, 2, -1)))
    assert torch.allclose(torch.cat(parts), packing.packed_attention(q, k, v, spans, 0.5))


@pytest.mark.quick
@pytest.mark.parametrize("chunk", [3, 100])
def test_token_logprobs_gradcheck(chunk):
    torch.manual_seed(0)
    hidden = torch.randn(7, 5, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(9, 5, dtype=torch.float64, requires_grad=True)
    assert gradcheck(
        lambda h, w: model.token_logprobs(
            h, w, torch.randint(9, (7,), generator=torch.Generator().manual_seed(1)), 0.7, chunk
        ),
        (hidden, weight),
    )


def test_token_logprobs_under_autocast_see_the_same_logits_forward_and_backward():
    torch.manual_seed(0)
    hidden, weight, targets = torch.randn(7, 64), torch.randn(90, 64), torch.randint(90, (7,))
    gradients = []
    for narrow in (False, True):
        h, w = ((x.bfloat16() if narrow else x).detach().clone().requires_grad_() for x in (hidden, weight))
        with torch.autocast("cpu", torch.bfloat16, enabled=not narrow):
            logps = model.token_logprobs(h, w, targets)
        logps.sum().backward()
        gradients.append([logps, h.grad.float(), w.grad.float()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


@pytest.mark.parametrize("of", [kernels, pytest.param(c_functions, marks=needs_a_compiler)], ids=["torch", "C"])
def test_noise_is_uniform_over_seeds_steps_and_tokens(of):
    """Chi-square over 1,000 tokens with banned ones left out, 200,000 draws: near its degrees of freedom."""
    logits = torch.randn(1000, generator=torch.Generator().manual_seed(0)) * 2
    banned = torch.zeros(1000, dtype=torch.bool)
    banned[logits.topk(3).indices] = True
    counts = torch.zeros(1000)
    for start in range(0, 200_000, 20_000):
        index = torch.arange(start, start + 20_000)
        tokens, _ = of.sample_tokens(logits.expand(20_000, -1), index // 4000, index % 4000, 1.0, banned)
        counts += tokens.bincount(minlength=1000)
    expected = logits.masked_fill(banned, float("-inf")).softmax(-1) * 200_000
    often = expected > 5
    chi_square = ((counts - expected) ** 2 / expected)[often].sum()
    freedom = int(often.sum()) - 1
    assert counts[banned].sum() == 0 and abs(chi_square / freedom - 1) < 4 * (2 / freedom) ** 0.5


def run_with_triton(script: str, **environment) -> str:
    if importlib.util.find_spec("triton") is None:
        pytest.skip(
            "Triton is not installed: pip install triton runs and compiles its kernels here, for two tests alone"
        )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)} | environment
    command = [sys.executable, Path(__file__).parent / script]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert ended.returncode == 0, ended.stderr[-3000:]
    return ended.stdout


def test_triton_kernels_equal_their_twins():
    """On a GPU where there is one, otherwise under Triton's interpreter."""
    environment = {} if torch.cuda.is_available() else {"TRITON_INTERPRET": "1"}
    assert "sampling" in run_with_triton("kernels_and_twins.py", **environment)


def test_triton_kernels_compile_for_ampere_and_hopper(tmp_path):
    """To machine code, which needs no GPU. The interpreter accepts more than the compiler does."""
    assert run_with_triton("triton_compiler.py", TRITON_CACHE_DIR=str(tmp_path)).count("sm_") == 16
