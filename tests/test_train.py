"""Both stages: the loss against a plain reference, exact token counts, and the real scripts run tiny and resumed."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import several_processes
import torch
from conftest import assert_same_gradient, sharpened
from forks import Forked
from torch.utils._pytree import tree_leaves

import data
import train_sft
import train_virl
import training
from checkpoint import load_trainer_state, save_checkpoint
from model import Policy
from packing import pack
from rollout import Completion, half_the_threads
from train_virl import group_advantages, kl_penalty, policy_loss

ROOT = Path(__file__).parent.parent


def plain_grpo(logps, old, advantages, low, high, dual):
    """GRPO token by token, as the papers write it."""
    losses = []
    for logp, old_logp, advantage in zip(logps, old, advantages, strict=True):
        ratio = torch.exp(logp - old_logp)
        objective = min(ratio * advantage, min(max(ratio, 1 - low), 1 + high) * advantage)
        if dual and advantage < 0:
            objective = max(objective, dual * advantage)
        losses.append(-torch.as_tensor(objective, dtype=logps.dtype))  # a clipped ratio is a plain number
    return torch.stack(losses)


def made_tokens():
    """(log-probs with gradient, the sampler's, advantages, owners) of 200 tokens of five answers; ratios 0.05 to 20."""
    generator = torch.Generator().manual_seed(0)
    draw = lambda n: torch.randn(n, generator=generator, dtype=torch.float64)  # noqa: E731
    logps = draw(200).requires_grad_()
    owner = torch.arange(5).repeat_interleave(torch.tensor([1, 19, 60, 80, 40]))
    return logps, logps.detach() + draw(200), draw(5)[owner], owner


@pytest.mark.quick
@pytest.mark.parametrize("dual", [0.0, 3.0])
def test_loss_and_gradient_equal_the_plain_reference(dual):
    logps, sampled, advantages, owner = made_tokens()
    ours, held = policy_loss(logps, sampled, advantages, owner, train_virl.Config(minibatches=2, dual_clip=dual))
    theirs = plain_grpo(logps, sampled, advantages, 0.2, 0.3, dual)
    assert torch.allclose(ours, theirs)
    mine, other = (torch.autograd.grad(loss.sum(), logps, retain_graph=True)[0] for loss in (ours, theirs))
    assert torch.allclose(mine, other)
    assert torch.equal(held, other == 0) and 0 < held.sum() < 200


@pytest.mark.quick
def test_one_step_per_rollout_is_the_plain_policy_gradient():
    """The ratio is 1 whatever the sampler says, so nothing is clipped; importance_cap weighs by what it says."""
    logps, sampled, advantages, owner = made_tokens()
    for loss in ("clipped", "cispo"):
        ours, held = policy_loss(logps, sampled, advantages, owner, train_virl.Config(loss=loss))
        (gradient,) = torch.autograd.grad(ours.sum(), logps)
        assert torch.allclose(gradient, -advantages) and not held.any()
    ours, _ = policy_loss(logps, sampled, advantages, owner, train_virl.Config(importance_cap=2.0))
    (gradient,) = torch.autograd.grad(ours.sum(), logps)
    assert torch.allclose(gradient, -advantages * (logps - sampled).exp().clamp(max=2))


@pytest.mark.quick
def test_gspo_clips_whole_answers():
    logps, sampled, advantages, owner = made_tokens()
    sampled = logps.detach() + (sampled - logps.detach()) / 50
    bounds = dict(clip_low=3e-4, clip_high=4e-4, dual_clip=0.0)
    ours, held = policy_loss(logps, sampled, advantages, owner, train_virl.Config(loss="gspo", minibatches=2, **bounds))
    for answer in range(5):
        own = owner == answer
        log_ratio = (logps - sampled)[own].mean()[None]
        theirs = plain_grpo(log_ratio, torch.zeros(1), advantages[own][:1], 3e-4, 4e-4, 0)
        assert torch.allclose(ours[own], theirs.expand(own.sum()))
        mine = torch.autograd.grad(ours[own].mean(), logps, retain_graph=True)[0]
        assert torch.allclose(mine, torch.autograd.grad(theirs.sum() + 0 * logps.sum(), logps, retain_graph=True)[0])
        assert len(held[own].unique()) == 1
    assert 0 < held.sum() < 200


@pytest.mark.quick
def test_cispo_trains_every_token_with_a_bounded_weight():
    logps, sampled, advantages, owner = made_tokens()
    ours, _ = policy_loss(logps, sampled, advantages, owner, train_virl.Config(loss="cispo", minibatches=2))
    (gradient,) = torch.autograd.grad(ours.sum(), logps)
    assert torch.allclose(gradient, -advantages * (logps - sampled).exp().clamp(0.8, 1.3))


@pytest.mark.quick
def test_averages(qwen3_folder, samples):
    """Each way to average, against its formula over whole answers; DAPO's filter leaves cut answers out of it."""
    policy = sharpened(qwen3_folder)
    groups = several_processes.made_groups(policy, samples)
    groups[0].completions[1].finish = "length"
    answers = [(a, c) for group in groups for a, c in zip(group.advantages, group.completions, strict=True)]
    for skip in (False, True):
        kept = [(a, len(c.ids)) for a, c in answers if not (skip and c.finish == "length")]
        wanted = {
            "token": -sum(a * n for a, n in kept) / sum(n for _, n in kept),
            "answer": -sum(a for a, _ in kept) / len(kept),
            "constant": -sum(a * n for a, n in kept) / (len(kept) * 64),
        }
        for average, loss in wanted.items():  # with a ratio of 1 a token's loss is minus its advantage
            config = train_virl.Config(average=average, skip_cut=skip, max_new_tokens=64, row_tokens=90)
            assert several_processes.update(policy, groups, config)["loss"] == pytest.approx(loss, abs=1e-5)


@pytest.mark.quick
def test_group_advantages():
    rewards = np.array([[0.0, 1.0, 0.5, 0.5], [0.3, 0.3, 0.3, 0.3]])
    advantages = group_advantages(rewards)
    assert np.allclose(advantages[0], (rewards[0] - 0.5) / (np.std(rewards[0], ddof=1) + 1e-6))
    assert np.all(advantages[1] == 0)
    assert np.allclose(group_advantages(rewards, normalize_std=False)[0], [-0.5, 0.5, 0, 0])
    assert group_advantages(np.array([[0.7]])) == 0
    ranks = group_advantages(np.array([[0.1, 0.9, 0.91, 0.1], [0.5, 0.5 + 1e-12, 0.5, 0.5]]), False, by_rank=True)
    assert np.allclose(ranks, [[-0.5, 0.25, 0.75, -0.5], [0, 0, 0, 0]])  # however closely; equal ones share a rank


@pytest.mark.quick
def test_kl_penalty_is_zero_at_the_reference_and_positive_elsewhere():
    logps = torch.tensor([-1.0, -2.0, -0.5])
    assert torch.all(kl_penalty(logps, logps) == 0)
    assert torch.all(kl_penalty(logps, logps + torch.tensor([0.5, -0.5, 1.0])) > 0)


def made_vocabulary(distance: float):
    """Logits of a policy over 50 words, with gradient, and the log-probs (50,) of a reference and of a sampler."""
    generator = torch.Generator().manual_seed(3)
    draw = lambda: torch.randn(50, generator=generator, dtype=torch.float64)  # noqa: E731
    logits = draw().requires_grad_()
    others = [(logits.detach() + scale * draw()).log_softmax(-1) for scale in (distance, 0.5)]
    return logits, *others


@pytest.mark.parametrize("distance", [0.1, 1.0, 3.0])
@pytest.mark.parametrize("several", [False, True])
def test_the_penaltys_expected_value_and_gradient_are_those_of_the_kl(distance, several):
    """Every word by its probability under what samples: the policy itself, or with several optimizer steps per rollout
    the policy of some steps ago. KL(policy || reference), not the other way round, which is off by 3, 44 and 88 %."""
    logits, reference, sampler = made_vocabulary(distance)
    logps = logits.log_softmax(-1)
    wanted = (logps.exp() * (logps - reference)).sum()
    if several:
        expected = (sampler.exp() * kl_penalty(logps, reference, sampler)).sum()
    else:
        expected = (logps.detach().exp() * kl_penalty(logps, reference)).sum()
    ours, theirs = (torch.autograd.grad(value, logits, retain_graph=True)[0] for value in (expected, wanted))
    assert expected.item() == pytest.approx(wanted.item(), rel=1e-12)
    assert (ours - theirs).norm() <= 1e-12 * theirs.norm()
    reverse = torch.autograd.grad((reference.exp() * (reference - logps)).sum(), logits)[0]
    assert (ours - reverse).norm() > 0.02 * reverse.norm()


@pytest.mark.parametrize("loss", ["clipped", "cispo"])
@pytest.mark.parametrize("minibatches", [1, 2])
def test_the_losses_expected_gradient_is_that_of_the_reward(loss, minibatches):
    """As above, without bounds: minus the gradient of the expected advantage; CISPO's is the same."""
    logits, _, sampler = made_vocabulary(1.0)
    logps, owner = logits.log_softmax(-1), torch.arange(50)
    advantages = torch.linspace(-1, 2, 50, dtype=torch.float64)
    bounds = dict(clip_low=1.0, clip_high=1e9, dual_clip=0.0)
    config = train_virl.Config(loss=loss, minibatches=minibatches, **bounds)
    losses, _ = policy_loss(logps, sampler, advantages, owner, config)
    drawn = sampler if minibatches > 1 else logps.detach()
    (ours,) = torch.autograd.grad((drawn.exp() * losses).sum(), logits, retain_graph=True)
    (theirs,) = torch.autograd.grad(-(logps.exp() * advantages).sum(), logits)
    assert (ours - theirs).norm() <= 1e-12 * theirs.norm()


@pytest.mark.parametrize(("loss", "minibatches"), [("clipped", 1), ("gspo", 2), ("cispo", 2)])
def test_the_penalty_of_a_step_goes_by_tokens(qwen3_folder, samples, loss, minibatches):
    """What --kl adds to the gradient of a step: each token's own ratio weighs its penalty, whatever the loss does."""
    gradients = []
    for kl in (0.0, 0.5):
        policy, reference = sharpened(qwen3_folder).double(), Policy.load(qwen3_folder).double()
        groups = several_processes.made_groups(policy, samples)
        config = train_virl.Config(loss=loss, minibatches=minibatches, kl=kl, row_tokens=150)
        several_processes.update(policy, groups, config, reference)
        gradients.append([p.grad.clone() for p in policy.parameters()])
    policy.zero_grad()
    total = sum(len(c.ids) for group in groups for c in group.completions)
    for group in groups:
        for completion in group.completions:
            row = pack([(group.prompt, [completion.ids])])
            logps, difference = policy(row), reference(row).detach() - policy(row)
            old = logps.detach() if minibatches == 1 else torch.tensor(completion.logps)
            (0.5 * (logps - old).exp() * (difference.exp() - difference - 1) / total).sum().backward()
    for (name, p), without, with_kl in zip(policy.named_parameters(), *gradients, strict=True):
        assert_same_gradient(with_kl - without, p.grad, name)


@pytest.mark.quick
def test_sft_gradient_does_not_depend_on_rows(qwen3_folder, samples):
    """One packed row, or one row per pair: the mean over answer tokens is the same, so is its gradient."""
    gradients, losses = [], []
    for row_tokens in (10**6, 1):
        policy = sharpened(qwen3_folder).double()
        answers = [policy.response_ids(f"```svg\n<circle cx='{'1' * (5 + 9 * i)}'/>\n```") for i in range(3)]
        pairs = [(policy.encode(sample), [answer]) for sample, answer in zip(samples, answers, strict=True)]
        losses.append(train_sft.train_step(policy, pairs, row_tokens))
        gradients.append([p.grad.clone() for p in policy.parameters()])
    assert losses[0][1] == losses[1][1] == sum(len(answer) for answer in answers)
    assert losses[0][0] == pytest.approx(losses[1][0], abs=1e-5)
    for (name, _), a, b in zip(policy.named_parameters(), *gradients, strict=True):
        assert_same_gradient(a, b, name)


def plain_update(policy, groups, config):
    """The step's gradient, one forward pass per answer, every group included."""
    total = sum(len(c.ids) for group in groups for c in group.completions)
    for group in groups:
        for completion, advantage in zip(group.completions, group.advantages, strict=True):
            logps = policy(pack([(group.prompt, [completion.ids])]))
            old = logps.detach() if config.minibatches == 1 else torch.tensor(completion.logps)
            loss = plain_grpo(logps, old, [float(advantage)] * len(logps), 0.2, 0.3, 3.0).sum() / total
            (loss + 0 * logps.sum()).backward()  # every token of an answer may be clipped


@pytest.mark.quick
@pytest.mark.parametrize(("row_tokens", "minibatches"), [(10**6, 1), (1, 1), (150, 2)])
def test_virl_gradient_equals_one_forward_per_answer(qwen3_folder, samples, row_tokens, minibatches):
    """However groups are packed, and with a group left out that has no advantage, the gradient is the plain one."""
    config = train_virl.Config(row_tokens=row_tokens, minibatches=minibatches)
    ours, theirs = sharpened(qwen3_folder).double(), sharpened(qwen3_folder).double()
    sums = several_processes.update(ours, several_processes.made_groups(ours, samples, flat_last=True), config)
    groups = several_processes.made_groups(theirs, samples, flat_last=True)
    plain_update(theirs, groups, config)
    for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert_same_gradient(a.grad, b.grad, name)
    assert sums["trained_tokens"] == sum(len(c.ids) for group in groups[:-1] for c in group.completions)


@pytest.mark.parametrize(("count", "minibatches"), [(32, 1), (3, 1), (10, 2), (1, 4), (9, 4)])
def test_waves_hold_every_group_once(count, minibatches):
    config = train_virl.Config(minibatches=minibatches)
    steps = train_virl.waves(list(range(count)), config, step=3)
    assert len(steps) == min(count, minibatches) and all(1 <= len(parts) <= train_virl.WAVES for parts in steps)
    assert all(part for parts in steps for part in parts)
    order = [group for parts in steps for part in parts for group in part]
    assert sorted(order) == list(range(count)) and (minibatches > 1 or order == list(range(count)))


def test_kl_keeps_groups_without_advantage(qwen3_folder, samples):
    policy, reference = sharpened(qwen3_folder), sharpened(qwen3_folder)
    groups = several_processes.made_groups(policy, samples, flat_last=True)
    sums = several_processes.update(policy, groups, train_virl.Config(kl=0.1), reference)
    assert sums["kl"] == pytest.approx(0, abs=1e-3)
    assert sums["trained_tokens"] == sum(len(c.ids) for group in groups for c in group.completions)


@pytest.mark.quick
def test_split_rows_keeps_every_group_and_the_budget(qwen3_folder, samples):
    policy = sharpened(qwen3_folder)
    pairs = [(policy.encode(sample), [[1] * (5 * i + 1)]) for i, sample in enumerate(samples * 4)]
    rows = [row for row, factor in training.split_rows(pairs, 120) if factor == 1]
    assert sorted(len(r) for row in rows for _, [r] in row) == sorted(len(r) for _, [r] in pairs)
    tokens = [sum(len(prompt.ids) + len(r) for prompt, [r] in row) for row in rows]
    assert all(total <= 120 or len(row) == 1 for total, row in zip(tokens, rows, strict=True))


def test_a_frozen_vision_tower_is_left_alone(qwen3_folder, samples):
    policy = sharpened(qwen3_folder)
    before = [p.clone() for p in policy.hf.model.visual.parameters()]
    optimizers = training.make_optimizers(policy, train_sft.Config(freeze="vision", optimizer="muon"))
    policy(pack([(policy.encode(samples[0]), [[7, 8, 9]])])).sum().backward()
    training.optimizer_step(policy, optimizers, lr=0.1, grad_clip=1.0)
    assert all(torch.equal(a, b) for a, b in zip(before, policy.hf.model.visual.parameters(), strict=True))


def test_muon_iterates_in_float32_on_a_cpu(qwen3_folder):
    """Against Newton-Schulz in float64; bfloat16, which torch's own iterates in, is off by a hundredth."""
    policy = sharpened(qwen3_folder)
    optimizers = training.make_optimizers(policy, train_sft.Config(optimizer="muon", weight_decay=0.0))
    generator = torch.Generator().manual_seed(2)
    for p in policy.parameters():
        p.grad = torch.randn(p.shape, generator=generator)
    matrices = optimizers[1].param_groups[0]["params"]
    before = [(p.detach().double(), p.grad.double()) for p in matrices]
    training.optimizer_step(policy, optimizers, lr=1e-3, grad_clip=1e9)
    for p, (weights, gradient) in zip(matrices, before, strict=True):
        x = gradient / gradient.norm()
        for _ in range(5):
            gram = x @ x.T
            x = 3.4445 * x + (-4.775 * gram + 2.0315 * gram @ gram) @ x
        wanted = -1e-3 * 0.2 * max(p.shape) ** 0.5 * x
        assert (p.detach() - weights - wanted).abs().max() <= 1e-3 * wanted.abs().max()


@pytest.mark.quick
def test_groups_longer_than_a_row_are_cut_between_answers(qwen3_folder, samples):
    prompt = sharpened(qwen3_folder).encode(samples[0])
    P = len(prompt.ids)
    rows = training.split_rows([(prompt, [[i] * 40 for i in range(5)]), (prompt, [[9] * 40])], P + 100)
    assert [len(row) for row, _ in rows] == [1, 1, 1, 1] and all(part[0] is prompt for row, _ in rows for part in row)
    answers = [answer[0] for row, _ in rows for _, part in row for answer in part]
    assert sorted(answers) == [0, 1, 2, 3, 4, 9]


@pytest.mark.quick
def test_learning_rate():
    config = train_sft.Config(lr=1.0, warmup=10, steps=110)
    assert training.learning_rate(0, config) == pytest.approx(0.1)
    assert training.learning_rate(10, config) == pytest.approx(1.0)
    assert training.learning_rate(110, config) == pytest.approx(0.1)


def started(script, *arguments, machines=1, processes=1, new=False) -> list[subprocess.Popen | Forked]:
    """The script, or one process of it for each of some simulated machines' GPUs, which meet on the loopback device.
    new: by interpreters that have loaded nothing and hash texts their own way, torchrun's where there are several."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = list(map(str, [ROOT / script, *arguments]))
    count = machines * processes
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | ({"OMP_NUM_THREADS": "1"} if count > 1 else {})
    if not new:
        sizes = {"WORLD_SIZE": count, "LOCAL_WORLD_SIZE": processes, "GROUP_WORLD_SIZE": machines}
        meeting = sizes | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        ranks = [{"RANK": i, "LOCAL_RANK": i % processes, "GROUP_RANK": i // processes} for i in range(count)]
        own = [meeting | rank for rank in ranks] if count > 1 else [{}]
        return [Forked(command, environment | {k: str(v) for k, v in rank.items()}, ROOT) for rank in own]
    meeting = ["--nnodes", machines, "--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{port}"]
    launcher = ["-m", "torch.distributed.run", *map(str, [*meeting, "--nproc-per-node", processes])]
    command = [sys.executable, *(launcher if count > 1 else []), *command]
    options = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=environment)
    return [subprocess.Popen(command, **options) for _ in range(machines)]


def run(script, *arguments, **launch) -> subprocess.CompletedProcess:
    """Run it to its end -> its exit status and what it printed; of several processes, those of one that failed."""
    processes = started(script, *arguments, **launch)
    printed = [process.communicate(timeout=1800) for process in processes]
    worst = max(range(len(processes)), key=lambda i: abs(processes[i].returncode))
    return subprocess.CompletedProcess(script, processes[worst].returncode, *printed[worst])


def succeed(script, *arguments, **launch) -> None:
    done = run(script, *arguments, **launch)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """A dozen svg pairs as a parquet file in the published schema."""
    path = tmp_path_factory.mktemp("corpus") / "train.parquet"
    made = run("synth.py", "--out", path, "--count", 12, "--domains", "svg", "--difficulty", 0.1, "--svg-side", 64)
    assert made.returncode == 0, made.stderr[-2000:]
    return path


def metrics(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


VIRL = "tests/virl_made_rewards.py"
STAGE_ARGUMENTS = {
    "train_sft.py": ["--batch-size", 3, "--refine", 0.5, "--max-tokens", 400],  # some are too long
    VIRL: ["--prompts", 3, "--group", 4, "--max-new-tokens", 24, "--minibatches", 2],
}


@pytest.mark.parametrize("script", STAGE_ARGUMENTS)
def test_a_run_killed_and_resumed_equals_an_unbroken_one_bit_for_bit(script, qwen3_folder, corpus, tmp_path):
    arguments = ["tiny", "--model", qwen3_folder, "--data", corpus, "--steps", 6, "--save-every", 2]
    out = assert_resumed_is_unbroken(script, [*arguments, *STAGE_ARGUMENTS[script]], 2, 6, tmp_path)
    assert len(metrics(out)) == 6


def same_runs(one: Path, other: Path, last: str) -> None:
    """Metrics, weights and all of the trainer's state of two runs are equal, bit for bit."""
    timed = lambda name: name.startswith(("time/", "judge/", "tokens_per_second", "held_up"))  # noqa: E731
    rows = [[{k: v for k, v in row.items() if not timed(k)} for row in metrics(out)] for out in (one, other)]
    assert rows[0] == rows[1] and any(row["grad_norm"] > 0 for row in rows[0])
    folders = [out / "checkpoints" / last for out in (one, other)]
    weights = [next(folder.glob("*model.safetensors")).read_bytes() for folder in folders]  # or an adapter's
    assert weights[0] == weights[1]
    states = [tree_leaves(torch.load(folder / "trainer.pt")) for folder in folders]
    assert all(torch.equal(a, b) if torch.is_tensor(a) else a == b for a, b in zip(*states, strict=True))


def assert_resumed_is_unbroken(script, arguments, first: int, last: int, tmp_path) -> Path:
    """kill -9 after the checkpoint of step `first`, wherever the run is then, resumed until `last` -> its folder."""
    straight = tmp_path / "straight"
    succeed(script, *arguments, "--out", straight)
    for number in range(9):  # on a busy machine we may be too late
        broken = tmp_path / f"broken-{number}"
        (process,) = started(script, *arguments, "--out", broken)
        while process.poll() is None and not (broken / f"checkpoints/step-{first:06d}").exists():
            time.sleep(0.002)
        process.kill()
        process.communicate()
        if process.returncode == -signal.SIGKILL and not (broken / f"checkpoints/step-{last:06d}").exists():
            break
    else:
        raise AssertionError(f"it ends with {process.returncode} before it can be killed")
    succeed(script, "tiny", "--out", broken, "--resume", new=True)
    same_runs(straight, broken, f"step-{last:06d}")
    for name in ("config.json", "curves.png"):
        assert (broken / name).stat().st_size > 300, name
    return broken


def test_a_last_step_without_work_is_no_reason_not_to_save(qwen3_folder, corpus, tmp_path):
    """Pairs come one at a time, most are too long: a run that ends with one of those still has its checkpoint."""
    policy, samples = Policy.load(qwen3_folder), data.load(corpus)
    lengths = [len(policy.encode(s).ids) + len(policy.response_ids(data.answer_text(s))) for s in samples]
    config = train_sft.Config(batch_size=1, max_tokens=sorted(lengths)[4], refine=0.0)
    idle = [not train_sft.encode_batch(policy, samples, config, step)[0] for step in range(12)]
    steps = next(step for step in range(1, 12) if idle[step] and not all(idle[:step])) + 1
    arguments = ["--batch-size", 1, "--max-tokens", config.max_tokens, "--refine", 0, "--steps", steps]
    succeed("train_sft.py", "tiny", "--model", qwen3_folder, "--data", corpus, "--out", tmp_path, *arguments)
    assert [row["step"] for row in metrics(tmp_path)] == [step for step in range(steps) if not idle[step]]
    state = torch.load(tmp_path / f"checkpoints/step-{steps:06d}/trainer.pt")
    assert state["too_long"] == sum(idle[:steps])


def test_who_shares_the_cores_takes_half_of_the_threads():
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(6)
        with pytest.raises(KeyError), half_the_threads():
            assert torch.get_num_threads() == 3
            raise KeyError
        with ThreadPoolExecutor(1, initializer=train_virl.start_scoring, initargs=[torch.device("cpu")]) as scorers:
            assert scorers.submit(torch.get_num_threads).result() == 3
        assert torch.get_num_threads() == 6
    finally:
        torch.set_num_threads(before)


def test_a_wave_is_judged_while_the_one_before_trains(qwen3_folder, corpus, tmp_path, monkeypatch):
    """The second wave is not judged before the first one trains; what goes wrong in the third is said."""
    judged, training = [], threading.Event()
    score_groups, update = train_virl.score_groups, train_virl.update

    def judge_late(groups, *rest):
        judged.append(groups)
        assert len(judged) == 1 or training.wait(900), "nothing trains meanwhile"
        if len(judged) == 3:
            raise ValueError("the third wave")
        score_groups(groups, *rest)

    monkeypatch.setattr(train_virl, "score_groups", judge_late)
    monkeypatch.setattr(train_virl, "update", lambda *arguments: (training.set(), update(*arguments)))
    arguments = ["--prompts", 3, "--group", 2, "--max-new-tokens", 8, "--steps", 1, "--out", tmp_path]
    with pytest.raises(ValueError, match="the third wave"):
        train_virl.main(list(map(str, ["tiny", "--model", qwen3_folder, "--data", corpus, *arguments])))
    assert len(judged) == 3


def test_virl_runs_end_to_end_and_resumes(qwen3_folder, corpus, tmp_path):
    out = tmp_path / "virl"
    arguments = ["--prompts", 3, "--group", 4, "--max-new-tokens", 12, "--steps", 2, "--save-every", 1]
    (tmp_path / "own.py").write_text(
        "def shorter(samples, texts, renderings): return [1 / (9 + len(t)) for t in texts]"
    )
    arguments += ["--reward", "visual=0.9", "alignment=0.1", f"{tmp_path}/own.py:shorter=0.5"]
    done = run(VIRL, "tiny", "--model", qwen3_folder, "--data", corpus, "--out", out, *arguments)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = metrics(out)
    assert [row["step"] for row in rows] == [0, 1]
    assert all(row["mismatch"] < 1e-3 and row["grad_norm"] > 0 for row in rows)
    for row in rows:  # whose numbers are rounded
        assert row["held_up"] == pytest.approx(row["time/held_up"] / row["time/rollout"], rel=0.05, abs=1e-3)
        assert row["judge/reward"] > 0 and row["judge/render_wait"] >= 0
        total = 0.9 * row["reward/visual"] + 0.1 * row["reward/alignment"] + 0.5 * row["reward/shorter"]
        assert row["reward/mean"] == pytest.approx(total, rel=1e-4) and 0 < row["reward/shorter"] < 1 / 9
    for name in ("curves.png", "samples.html", "config.json"):
        assert (out / name).stat().st_size > 500, name
    saved = json.loads((out / "config.json").read_text())
    (out / "config.json").write_text(json.dumps(saved | {"steps": 3}))
    resumed = run(VIRL, "tiny", "--out", out, "--resume")
    assert resumed.returncode == 0, resumed.stderr[-2000:]
    assert [row["step"] for row in metrics(out)] == [0, 1, 2] and metrics(out)[2]["reward/shorter"] > 0


@pytest.mark.parametrize(("machines", "processes"), [(1, 2), (1, 4), (2, 2)])
def test_several_processes_have_the_gradient_of_one(qwen3_folder, samples, tmp_path, machines, processes):
    """SFT's and ViRL's, sharded over the processes of a machine, held by each of two machines; and the weights arrive
    whole where they are sampled from. The last process has no live group, the others have unequal numbers of rows."""
    succeed("tests/several_processes.py", qwen3_folder, tmp_path, machines=machines, processes=processes)
    several = torch.load(tmp_path / "results.pt")
    assert several["machines"] == machines and several["gathered"]
    for stage, gradient in several_processes.STAGES.items():
        policy, theirs = sharpened(qwen3_folder), several[stage]
        loss, norm = gradient(policy, samples)
        assert theirs["loss"] == pytest.approx(loss, rel=1e-5, abs=1e-6)
        assert theirs["norm"] == pytest.approx(norm, rel=1e-5)
        for name, p in policy.named_parameters():
            assert (theirs["gradients"][name] - p.grad).abs().max() <= 1e-5 * p.grad.abs().max() + 1e-7, (stage, name)
        share = sum(p.numel() for p in policy.parameters()) / processes
        assert theirs["numbers_per_process"] == pytest.approx(share, rel=0.01)


@pytest.fixture(scope="module")
def take_steps(qwen3_folder, corpus):
    """Takes two steps of SFT and one of ViRL into a folder."""
    sft = ["--batch-size", 4, "--save-every", 1, "--steps", 2]
    virl = ["--prompts", 4, "--group", 2, "--max-new-tokens", 8, "--steps", 1]

    def take(folder, **launch):
        for name, script, arguments in (("sft", "train_sft.py", sft), ("virl", VIRL, virl)):
            inputs = ["--model", qwen3_folder, "--data", corpus, "--out", folder / name]
            succeed(script, "tiny", *inputs, *arguments, **launch)

    return take


@pytest.fixture(scope="module")
def steps_of_one_process(take_steps, tmp_path_factory):
    folder = tmp_path_factory.mktemp("one")
    take_steps(folder)
    return folder


@pytest.mark.parametrize("launch", [{"processes": 2}, {"machines": 2}], ids=str)
def test_several_processes_take_the_same_steps_and_resume(steps_of_one_process, take_steps, tmp_path, launch):
    """Losses, gradient norms and samples of both scripts are those of one process; torchrun resumes."""
    take_steps(tmp_path, **launch)
    config = tmp_path / "sft/config.json"
    config.write_text(config.read_text().replace('"steps": 2', '"steps": 3'))
    succeed("train_sft.py", "tiny", "--out", tmp_path / "sft", "--resume", **launch, new=True)
    assert [row["step"] for row in metrics(tmp_path / "sft")] == [0, 1, 2]
    for stage in ("sft", "virl"):
        for a, b in zip(metrics(steps_of_one_process / stage), metrics(tmp_path / stage), strict=False):
            close = pytest.approx((b["loss"], b["grad_norm"], b["tokens"]), rel=1e-4, abs=1e-5)
            assert (a["loss"], a["grad_norm"], a["tokens"]) == close and a["grad_norm"] > 0
    (one,), (several,) = metrics(steps_of_one_process / "virl"), metrics(tmp_path / "virl")
    assert set(one) == set(several)
    assert one["entropy"] == pytest.approx(several["entropy"], 1e-4) and several["mismatch"] < 1e-3


@pytest.mark.parametrize("name", ["train_sft.py", "train_virl.py"])
def test_mistakes_get_one_sentence(name, script, tmp_path, qwen3_folder, corpus):
    for arguments, expected in (
        (["tiny"], "--model is missing"),
        (["tiny", "--model", qwen3_folder, "--data", "no.parquet", "--out", tmp_path / "a"], "does not exist"),
        (["tiny", "--model", tmp_path / "no", "--data", corpus, "--out", tmp_path / "b"], "no such folder"),
        (["tiny", "--resume", "--out", tmp_path / "c"], "no run to resume"),
    ):
        status, printed = script(name, *arguments)
        assert status == 1 and printed.startswith(f"{name}: ") and expected in printed, printed[-500:]
        assert "Traceback" not in printed
    assert script(name, "tiny", "--no-such-flag", 1)[0] == 2


def test_a_run_is_never_overwritten(qwen3_folder, tmp_path):
    policy = sharpened(qwen3_folder)
    optimizers = [torch.optim.AdamW(policy.parameters())]
    load_trainer_state(save_checkpoint(tmp_path, 1, policy, optimizers, {}), policy, optimizers)
    with pytest.raises(ValueError, match="already holds a run"):
        train_sft.parse_config(train_sft.PRESETS, ["tiny", "--out", str(tmp_path), "--model", "m", "--data", "d"])


@pytest.mark.quick
def test_refinement_tasks_are_mixed_in(samples):
    code = '<svg viewBox="0 0 9 9"><rect width="4" height="3" fill="red"/></svg>'
    samples = [data.replace(sample, code=code) for sample in samples]
    tasks = [train_sft.task(samples[i % 3], np.random.default_rng(i), 0.5) for i in range(60)]
    drafts = [task for task in tasks if task.draft]
    assert 15 < len(drafts) < 45
    assert all(task.draft in task.prompt and task.draft != task.code for task in drafts)


def test_virl_corrects_drafts_of_the_policys_own(qwen3_folder, samples, monkeypatch):
    """A share of the pictures, always the same ones of a step, however they are spread over processes."""
    policy, config = Policy.load(qwen3_folder), train_virl.Config(refine=0.5, max_prompt_tokens=400)
    batch = {n: (sample, policy.encode(sample)) for n, sample in enumerate(samples * 20)}
    says = lambda n: "no code" if n % 5 == 0 else f"```svg\n<svg id='{n}'>{'-' * (n % 7 == 0) * 999}</svg>\n```"  # noqa: E731

    def generate(policy, prompts, G, max_new_tokens, temperature, seed, slots, numbers):
        assert G == 1 and seed < 0, "noise that no answer of a group has"
        for n in numbers:
            yield Completion("", 0, np.zeros(1, np.int32), np.zeros(1, np.float32), says(n), "eos", n)

    monkeypatch.setattr(train_virl, "generate", generate)
    corrected = train_virl.own_drafts(policy, batch, config, step=3)
    assert list(corrected) == list(batch)
    changed = {n for n, (sample, _) in corrected.items() if sample.draft is not None}
    assert 10 < len(changed) < 35 and not any(n % 5 == 0 or n % 7 == 0 for n in changed), "no code, or too long"
    for n in changed:
        sample, prompt = corrected[n]
        assert sample.draft == f"<svg id='{n}'></svg>" and sample.draft in sample.prompt
        assert prompt.ids.tolist() == policy.encode(sample).ids.tolist() and sample.image is batch[n][0].image
    assert all(corrected[n] is batch[n] for n in set(batch) - changed)
    halves = [
        train_virl.own_drafts(policy, {n: batch[n] for n in part}, config, step=3)
        for part in (range(30), range(30, 60))
    ]
    assert {n for half in halves for n, (sample, _) in half.items() if sample.draft is not None} == changed
    assert train_virl.own_drafts(policy, batch, train_virl.Config(), step=3) == batch
