"""All measurements that need a GPU, within eight minutes, into results/gpu.json.

    python benchmarks/gpu.py

Every kernel against its torch twin, timed inside a CUDA graph (attention also against the bandwidth of a copy, and
against itself with the prompt once per sample); the sampler's log-probs against the trainer's; what it takes to bring
new weights to the sampler; then benchmarks/rollout.py and benchmarks/train.py at the sizes below, each in a process of
its own. A part that fails or runs out of time leaves its error in the file; the others go on.
"""

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import tyro

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
import environment  # noqa: E402, F401

import torch  # noqa: E402
from shapes import machine, make_policy, make_prompts, measured  # noqa: E402

import kernels  # noqa: E402
import rollout  # noqa: E402
from kernels import KeyTable  # noqa: E402
from packing import pack  # noqa: E402

ROLLOUT = "rollout.py --device cuda --repeats 1 --prompt 2048"
PARTS = {  # name: (script and arguments, seconds it may take); the most telling first
    "rollout 8b": (f"{ROLLOUT} --shape 8b --prompts 1 8 32 --new 1024 --lengths equal --no-baselines", 120),
    "rollout 8b against generate": (f"{ROLLOUT} --shape 8b --prompts 1 8 --new 256 --lengths equal", 100),
    "train 2b": (
        "train.py --device cuda --shape 2b --prompt 2048 --response 1024 --groups 1 --repeats 1 "
        "--logprob-tokens 32768 --logprob-width 4096 --logprob-vocabulary 151936 --chunk 1024",
        80,
    ),
    "rollout 2b": (f"{ROLLOUT} --shape 2b --prompts 1 8 32 --new 1024 --lengths equal --no-baselines", 70),
    "rollout 2b against generate": (f"{ROLLOUT} --shape 2b --prompts 1 8 --new 256 --lengths equal", 80),
    "rollout 2b against generate, lognormal": (f"{ROLLOUT} --shape 2b --new 128 --lengths lognormal", 70),
    "rollout 0.1b against generate": (f"{ROLLOUT} --shape 0.1b --prompts 1 8 --new 256 --lengths equal", 60),
}


def tables(groups: int, G: int, P: int, R: int, page: int, device) -> tuple[KeyTable, KeyTable, int]:
    """Prompts of P and responses of R tokens, page after page -> their tables, how many pages there are."""
    int32 = {"dtype": torch.int32, "device": device}
    prompt_pages, own_pages = -(-P // page), -(-R // page)
    rows = torch.arange(groups * G, **int32)
    first = torch.arange(groups * prompt_pages, **int32).view(groups, -1) + 1
    own = torch.arange(groups * G * own_pages, **int32).view(groups * G, -1) + 1 + groups * prompt_pages
    prompts = KeyTable(rows.view(groups, G), torch.full((groups,), P, **int32), first, page)
    return prompts, KeyTable(rows[:, None], torch.full_like(rows, R), own, page), int(own.max()) + 2


def by_twin(function):
    """What the torch twin of a kernel gives."""
    triton = kernels.triton
    try:
        kernels.triton = None
        return function()
    finally:
        kernels.triton = triton


def apart(ours, theirs) -> float:
    """The largest difference of two tensors, or of two tuples of them."""
    pairs = [(ours, theirs)] if torch.is_tensor(ours) else zip(ours, theirs, strict=True)
    return max((a.float() - b.float()).abs().max().item() for a, b in pairs)


def replayed(function, device: str, times: int = 50) -> float:
    """Seconds of one call among many in one CUDA graph: without the time that launching it from Python takes."""
    function()  # compiled now, not while recording
    if device != "cuda":
        return measured(lambda: [function() for _ in range(times)], device) / times
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(times):
            function()
    return measured(graph.replay, device) / times


def attention(device: str, dtype, H: int, C: int, D: int, groups: int, G: int, P: int, R: int, page: int = 64) -> dict:
    """decode_attention of one layer against its twin, and what it reaches of a copy's bandwidth; then the same kernel
    where every sample has a prompt of its own."""

    def measure(groups: int, G: int) -> tuple[float, float]:
        prompts, own, count = tables(groups, G, P, R, page, device)
        torch.manual_seed(0)
        kv = torch.randn(count, 2, C, page, D, device=device, dtype=dtype)
        q = torch.randn(groups * G, H, D, device=device, dtype=dtype)
        attend = lambda: kernels.decode_attention(q, kv, prompts, own, D**-0.5)  # noqa: E731
        return replayed(attend, device), apart(attend(), by_twin(attend))

    seconds, from_twin = measure(groups, G)
    read = 2 * (groups * P + groups * G * R) * C * D * dtype.itemsize
    bandwidth = read / seconds / machine(device, dtype)[0]
    shape = {"H": H, "C": C, "D": D, "groups": groups, "G": G, "P": P, "R": R}
    figures = {"seconds": seconds, "share_of_bandwidth": round(bandwidth, 3), "apart_from_twin": from_twin}
    return shape | figures | {"times_prompt_per_sample": round(measure(groups * G, 1)[0] / seconds, 2)}


def other_kernels(device: str, dtype, H: int, C: int, D: int, B: int, V: int, page: int = 64) -> dict:
    """The others: seconds, and how far they are from their twins."""
    torch.manual_seed(0)
    random = lambda *shape: torch.randn(*shape, device=device, dtype=dtype)  # noqa: E731
    kv, qkv, gains, angles = random(B + 1, 2, C, page, D), random(B, H + 2 * C, D), random(H + C, D), random(B, D)
    row = torch.arange(B, device=device)
    slot_mapping = kernels.slot_mapping(kv, row + 1, row % page)

    def append():  # q, k and v, and the pages that they went to
        pages = torch.zeros_like(kv)
        arguments = gains, angles.cos(), kernels.signed(angles.sin()), pages, slot_mapping, 1e-6
        return *kernels.norm_rope_append(qkv.clone(), *arguments), pages

    logits, banned = random(B, V) * 3, torch.arange(V, device=device) % 7 == 0
    sample = lambda: kernels.sample_tokens(logits, row, row + 5, 1.0, banned)  # noqa: E731
    (tokens, logps), (twins, twin_logps) = sample(), by_twin(sample)
    same = tokens == twins  # in a near tie the two may differ: their logarithms do in the last place
    changed = qkv.clone()
    timed = lambda: kernels.norm_rope_append(changed, gains, angles, angles, kv, slot_mapping, 1e-6)  # noqa: E731
    x, gain, gate_up = random(B, H * D), random(H * D), random(B, 6 * H * D)
    norm, mlp = lambda: kernels.rms_norm(x, gain, 1e-6), lambda: kernels.silu_mul(gate_up)
    return {
        "rms_norm": {"seconds": replayed(norm, device), "apart_from_twin": apart(norm(), by_twin(norm))},
        "silu_mul": {"seconds": replayed(mlp, device), "apart_from_twin": apart(mlp(), by_twin(mlp))},
        "norm_rope_append": {"seconds": replayed(timed, device), "apart_from_twin": apart(append(), by_twin(append))},
        "sample_tokens": {
            "seconds": replayed(sample, device),
            "other_tokens": int((~same).sum()),
            "apart_from_twin": apart(logps[same], twin_logps[same]),
        },
    }


def log_probs_agree(device: str, shape: str, dtype, N: int = 4, G: int = 8, P: int = 600, R: int = 128) -> dict:
    """|log-prob in the sampler - log-prob in the trainer's forward pass| over all tokens of a rollout."""
    policy = make_policy(shape, device, dtype)
    prompts = make_prompts(policy, N, P, P // 2)
    answers = {(c.sample_id, c.index): c for c in rollout.generate(policy, prompts, G, R)}
    differences = []
    for prompt in prompts:
        ours = [answers[prompt.sample_id, index] for index in range(G)]
        with torch.no_grad():
            theirs = policy(pack([(prompt, [answer.ids for answer in ours])]).to(policy.device))
        differences.append((theirs.cpu() - torch.from_numpy(np.concatenate([a.logps for a in ours]))).abs())
    differences = torch.cat(differences)
    figures = {"mean": differences.mean().item(), "most": differences.max().item()}
    return {"shape": shape, "dtype": str(dtype), "tokens": len(differences)} | figures


def weight_sync(device: str, shape: str) -> dict:
    """What bringing fp32 weights to the sampler's bf16 buffer takes, before every rollout."""
    policy = make_policy(shape, device, torch.float32)
    with torch.autocast(device, torch.bfloat16):
        weights = rollout.Engine(policy).weights
    moved = weights.buffer.numel() * (4 + 2)
    seconds = measured(weights.refill, device)
    return {"shape": shape, "weights": weights.buffer.numel(), "seconds": seconds, "GB/s": round(moved / seconds / 1e9)}


def run(arguments: str, seconds: float) -> dict:
    """A benchmark script's figures, or why there are none."""
    script, *rest = arguments.split()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "figures.json"
        command = [sys.executable, str(ROOT / "benchmarks" / script), *rest, "--out", str(out)]
        try:
            ended = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
        except subprocess.TimeoutExpired:
            return {"error": f"not done after {seconds:.0f} s"}
        if ended.returncode or not out.exists():
            return {"error": (ended.stderr.strip() or "no figures").splitlines()[-1]}
        return json.loads(out.read_text())


@dataclass
class Config:
    """Measure everything that needs a GPU."""

    out: Path = Path("results/gpu.json")
    """Where the figures go."""
    minutes: float = 8.0
    """All of it ends by then."""


def main(config: Config) -> None:
    if not torch.cuda.is_available():
        sys.exit("benchmarks/gpu.py: torch sees no GPU here, so there is nothing to measure; nothing was written.")
    end = time.monotonic() + 60 * config.minutes
    config.out.parent.mkdir(parents=True, exist_ok=True)
    versions = {"torch": torch.__version__, "cuda": torch.version.cuda, "gpu": torch.cuda.get_device_name()}
    page = {"date": time.strftime("%Y-%m-%d"), **versions, "triton": getattr(kernels.triton, "__version__", None)}
    shape, bf16 = {"H": 32, "C": 8, "D": 128, "G": 8}, torch.bfloat16
    cases = (1, 2048, 1024), (8, 2048, 1024), (32, 2048, 1024), (8, 4096, 512)
    checks = {
        f"attention, {groups} groups, {P}/{R}": partial(attention, "cuda", bf16, groups=groups, P=P, R=R, **shape)
        for groups, P, R in cases
    }
    checks["other kernels"] = partial(other_kernels, "cuda", bf16, H=32, C=8, D=128, B=64, V=151936)
    checks["log-probs, fp32"] = partial(log_probs_agree, "cuda", "0.1b", torch.float32)
    checks["log-probs, bf16"] = partial(log_probs_agree, "cuda", "2b", bf16)
    checks["weight sync"] = partial(weight_sync, "cuda", "8b")
    for name, check in checks.items():
        try:
            page[name] = check()
        except Exception as error:  # a kernel that does not compile is a figure, too
            page[name] = {"error": f"{type(error).__name__}: {error}"[:600]}
        print(name, page[name], flush=True)
        torch.cuda.empty_cache()
    for name, (arguments, seconds) in PARTS.items():
        left = end - time.monotonic()
        page[name] = run(arguments, min(seconds, left)) if left > 10 else {"error": "no time left"}
        print(name, json.dumps(page[name])[:400], flush=True)
        config.out.write_text(json.dumps(page, indent=1) + "\n")
    print(f"wrote {config.out}")


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
