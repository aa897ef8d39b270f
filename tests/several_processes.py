"""Run by test_train.py under torchrun: gradients of both stages, sharded over processes, and weights gathered for
sampling, written whole to a file."""

import os
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from conftest import make_samples, sharpened

import train_sft
import train_virl
from processes import all_gather, full_tensor, init_distributed, rank_and_size
from rollout import Completion, generate
from train_virl import Group


def made_groups(policy, samples, flat_last=False):
    rng = np.random.default_rng(0)
    groups = []
    for sample in samples:
        ids = [rng.integers(10, 200, rng.integers(3, 12)).astype(np.int32) for _ in range(4)]
        completions = [
            Completion(sample.id, i, row, rng.normal(-5.8, 0.5, len(row)).astype(np.float32), "", "eos")
            for i, row in enumerate(ids)
        ]
        groups.append(Group(sample, policy.encode(sample), completions, [], [], advantages=rng.normal(size=4)))
    if flat_last:
        groups[-1].advantages[:] = 0
    return groups


def update(policy, groups, config, reference=None):
    """The gradient of `groups` as one wave -> what train_virl.update logs."""
    sums = defaultdict(float)
    train_virl.update(policy, groups, train_virl.loss_total(groups, config), config, reference, sums)
    return sums


def sft_gradient(policy, samples) -> tuple[float, float]:
    """The gradient of five pairs -> loss, norm of the gradient. With several processes the first has more rows."""
    number, processes = rank_and_size()
    answers = [policy.response_ids(f"```svg\n<circle cx='{'1' * (5 + 9 * i)}'/>\n```") for i in range(5)]
    pairs = [(policy.encode(samples[i % 3]), [answer]) for i, answer in enumerate(answers)]
    loss, _ = train_sft.train_step(policy, pairs[number::processes], row_tokens=1)
    return loss, full_tensor(torch.nn.utils.get_total_norm([p.grad for p in policy.parameters()])).item()


def virl_gradient(policy, samples) -> tuple[float, float]:
    """The gradient of five groups of which the last has no advantage: the last process has nothing else."""
    number, processes = rank_and_size()
    groups = made_groups(policy, [*samples, *samples[:2]], flat_last=True)
    share = groups[number : number + 1] if number < processes - 1 else groups[4:]
    share += groups[processes - 1 : 4] if number == 0 else []
    sums = update(policy, share if processes > 1 else groups, train_virl.Config(row_tokens=90))
    norm = full_tensor(torch.nn.utils.get_total_norm([p.grad for p in policy.parameters()])).item()
    return train_virl.training_metrics(sums, [norm])["loss"], norm


STAGES = {"sft": sft_gradient, "virl": virl_gradient}


def gathered_weights_are_the_trained_ones(folder, policy) -> bool:
    """After an optimizer step each process takes over all weights, in place: the engine's buffer keeps its address."""
    sampler = sharpened(folder)
    prompt = sampler.encode(make_samples()[0])
    list(generate(sampler, [prompt], G=1, max_new_tokens=2))
    address = sampler.engine.weights.buffer.data_ptr()
    torch.optim.AdamW(policy.parameters(), lr=1e-2).step()
    train_virl.copy_weights(sampler, policy)
    pairs = zip(sampler.parameters(), policy.parameters(), strict=True)
    list(generate(sampler, [prompt], G=1, max_new_tokens=2))
    in_buffer = sampler.hf.lm_head.weight.untyped_storage().data_ptr() == address
    return in_buffer and all([torch.equal(mine, full_tensor(theirs)) for mine, theirs in pairs])


def main(folder: str, out: str) -> None:
    init_distributed("cpu")
    results = {"machines": int(os.environ["GROUP_WORLD_SIZE"])}
    for stage, gradient in STAGES.items():
        policy = sharpened(folder).shard()
        loss, norm = gradient(policy, make_samples())
        gradients = {name: full_tensor(p.grad) for name, p in policy.named_parameters()}
        local = sum(p.to_local().numel() for p in policy.parameters())
        results[stage] = {"loss": loss, "norm": norm, "gradients": gradients, "numbers_per_process": local}
    results["gathered"] = all(all_gather(gathered_weights_are_the_trained_ones(folder, policy)))
    if rank_and_size()[0] == 0:
        torch.save(results, Path(out) / "results.pt")


if __name__ == "__main__":
    main(*sys.argv[1:])
