"""The decoding step in C and each of its functions equal torch's; who has no compiler does without."""

import shutil
from types import SimpleNamespace

import c_functions
import kernels_and_twins
import pytest
import torch
import torch.nn.functional as F
from conftest import needs_a_compiler, sharpened

import kernels
import native
from rollout import Engine, Slots, generate


@pytest.fixture
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@needs_a_compiler
def test_functions_in_c_equal_their_twins(three_threads):
    kernels_and_twins.compare(c_functions)
    for D, size in ((32, 16), (64, 7), (128, 16), (80, 100)):  # pages of less than a tile, of more, of no whole one
        kernels_and_twins.attention(c_functions, 6, 2, D=D, size=size, count=60)
    kernels_and_twins.norm_rope_append(c_functions, T=600)  # enough for several threads
    kernels_and_twins.norm_and_mlp(c_functions, T=600)


@needs_a_compiler
@pytest.mark.parametrize("T", [1, 2, 3, 64])
@pytest.mark.parametrize("sizes", [(8, 8), (24, 40), (168, 256)])
def test_linear_equals_torchs(three_threads, T, sizes):
    torch.manual_seed(0)
    N, K = sizes
    x, weight, bias, before = torch.randn(T, K), torch.randn(N, K), torch.randn(N), torch.randn(T, N)
    wide = [v.double() for v in (x, weight, bias, before)]
    plain = F.linear(*wide[:2])
    for ours, theirs in (
        (c_functions.linear(x, weight), plain),
        (c_functions.linear(x, weight, bias), plain + wide[2]),
        (c_functions.add_linear(x, weight, before.clone()), plain + wide[3]),
        *((c_functions.linear(x, weight[:n].clone()), plain[:, :n]) for n in range(4, N)),  # no whole number of blocks
    ):
        kernels_and_twins.check("linear", ours, theirs, 1e-5)


def made_engine(family: str, H: int, C: int, D: int, width: int, inner: int, V: int, page: int) -> Engine:
    """An engine with two layers of random weights and pages, in whose slots three groups have 2, 1 and 3 of 6 rows."""
    generator = torch.Generator().manual_seed(0)
    qwen3 = family == "qwen3_vl"

    def random(*shape, scale=None):
        return torch.randn(*shape, generator=generator) * (scale or 0.5 / shape[-1] ** 0.5)

    engine = Engine.__new__(Engine)
    engine.page, engine.steps, engine.head_size = page, 3, D
    engine.policy = SimpleNamespace(device=torch.device("cpu"))
    engine.config = SimpleNamespace(
        rms_norm_eps=1e-6, intermediate_size=inner, num_attention_heads=H, num_key_value_heads=C
    )
    layers = [
        SimpleNamespace(
            attention_norm=random(width, scale=1), qkv=random((H + 2 * C) * D, width), o=random(width, H * D),
            qkv_bias=None if qwen3 else random((H + 2 * C) * D), gains=random(H + C, D, scale=1) if qwen3 else None,
            mlp_norm=random(width, scale=1), gate_up=random(2 * inner, width), down=random(width, inner),
        )
        for _ in range(2)
    ]  # fmt: skip
    embed, lm_head = random(V, width, scale=1), random(V, width, scale=1)
    engine.weights = SimpleNamespace(
        layers=layers, embed=embed, norm=random(width, scale=1), lm_head=lm_head, buffer=embed
    )
    angles = random(200, D, scale=3)
    engine.cos_sin_cache = torch.stack([angles.cos(), kernels.signed(angles.sin())])
    engine.banned = torch.arange(V) % 3 == 1

    prompts, said = [1, page, 70], [0, page - 1, 5, page, 40, 1]
    columns, prompt_columns = (-(-n // page) + 1 for n in (40 + engine.steps, 70))
    engine.slots = slots = Slots(8, 5, columns, prompt_columns, engine.steps, "cpu")
    free, host = iter(range(1, 1000)), slots.host
    host.members[:] = -1
    for item, (members, length) in enumerate(zip(([4, 0], [3], [1, 5, 2]), prompts, strict=True)):
        host.members[item, : len(members)], host.prompt_length[item] = members, length
        used = -(-length // page)
        host.prompt_block_table[item, :used] = [next(free) for _ in range(used)]
    for row, length in enumerate(said):
        host.token[row], host.seed[row] = row * 7 % V, row * 99_991 - 7
        host.length[row], host.start[row] = length, 90 + row
        used = -(-(length + engine.steps) // page)
        host.block_table[row, :used] = [next(free) for _ in range(used)]
    engine.pool = SimpleNamespace(kv=[random(next(free), 2, C, page, D, scale=1) for _ in layers])
    return engine


@needs_a_compiler
@pytest.mark.parametrize("temperature", [0.0, 0.7])
@pytest.mark.parametrize("family", ["qwen3_vl", "qwen2_5_vl"])
@pytest.mark.parametrize(
    "sizes",
    [
        dict(H=6, C=2, D=40, width=24, inner=200, V=331, page=7),
        dict(H=4, C=4, D=64, width=320, inner=8, V=1000, page=64),
        dict(H=5, C=1, D=16, width=8, inner=8, V=10, page=16),
    ],
)
def test_a_block_of_steps_in_c_equals_torchs(three_threads, family, sizes, temperature):
    """Tokens, log-probs, keys and values, and that other slots are left alone; nothing fits by chance."""
    ours, theirs = made_engine(family, **sizes), made_engine(family, **sizes)
    assert native.ready(ours)
    native.decode_steps(ours, 6, 3, temperature)
    for _ in range(theirs.steps):
        theirs.decode_step(6, 3, temperature)
    for name in (
        "token",
        "length",
        "drawn",
        "block_table",
        "members",
        "start",
        "seed",
        "prompt_length",
        "prompt_block_table",
    ):
        assert torch.equal(getattr(ours.slots.device, name), getattr(theirs.slots.device, name)), name
    kernels_and_twins.check("log-probs", ours.slots.device.logps, theirs.slots.device.logps, 1e-4)
    for mine, kv in zip(ours.pool.kv, theirs.pool.kv, strict=True):
        kernels_and_twins.check("pages", mine[1:], kv[1:], 1e-5)


@needs_a_compiler
def test_the_library_leaves_tiny_numbers_alone():
    """Fast mathematics in a library may set the processor to round denormal numbers to 0, for the whole process."""
    assert native.library() and torch.tensor(1e-40) * 1 > 0 and float(torch.tensor([1e-40]).numpy()[0] / 2) > 0


@needs_a_compiler
def test_the_library_is_made_once(monkeypatch, tmp_path):
    monkeypatch.setattr(native, "SOURCE", shutil.copy(native.SOURCE, tmp_path / "kernels.c"))
    made = native.compiled()
    before = made.stat().st_mtime_ns
    assert native.compiled() == made and made.stat().st_mtime_ns == before
    assert [path.name for path in made.parent.iterdir()] == [made.name]
    native.SOURCE.write_text(native.SOURCE.read_text() + "/* changed */")
    assert native.compiled() != made


@pytest.mark.parametrize("compiler", ["none", "broken", "dumb"])
def test_without_a_compiler_torch_does_it(monkeypatch, tmp_path, capsys, qwen3_folder, samples, compiler):
    policy = sharpened(qwen3_folder)
    draw = lambda: list(generate(policy, [policy.encode(samples[0])], G=2, max_new_tokens=9))  # noqa: E731
    expected = draw()
    cc = tmp_path / "cc"
    if compiler != "none":
        cc.write_text("#!/bin/sh\n" + "echo In a file: >&2; echo error: out of order >&2\n" * (compiler == "broken"))
        cc.open("a").write("exit 7\n")
        cc.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(native, "SOURCE", shutil.copy(native.SOURCE, tmp_path / "kernels.c"))
    native.library.cache_clear()
    capsys.readouterr()
    try:
        drawn = draw()
        assert not native.ready(policy.engine)
    finally:
        native.library.cache_clear()
    assert [completion.text for completion in drawn] == [completion.text for completion in expected]
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and "two to five times as long" in said[0]
    assert {"none": "install gcc", "broken": "error: out of order", "dumb": "status 7"}[compiler] in said[0]
