"""Run by test_train.py under torchrun: gradients of both stages, sharded over processes, written whole to a file."""

import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from conftest import make_samples, sharpened

import train_sft
import train_virl
from model import join_processes, process_number
from rollout import Completion
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
        groups.append(Group(sample, policy.encode(sample), completions, [], advantages=rng.normal(size=4)))
    if flat_last:
        groups[-1].advantages[:] = 0
    return groups


def update(policy, groups, config, reference=None):
    """The gradient of `groups` as one wave -> what train_virl.update logs."""
    sums = defaultdict(float)
    train_virl.update(policy, groups, train_virl.answer_tokens(groups), config, reference, sums)
    return sums


def sft_gradient(policy, samples) -> float:
    """The gradient of three pairs, of which a second process has one; the first has more rows."""
    number, processes = process_number()
    answers = [policy.response_ids(f"```svg\n<circle cx='{'1' * (5 + 9 * i)}'/>\n```") for i in range(3)]
    pairs = [(policy.encode(sample), [answer]) for sample, answer in zip(samples, answers, strict=True)]
    return train_sft.train_step(policy, pairs[number::processes], row_tokens=1)[0]


def virl_gradient(policy, samples) -> float:
    """The gradient of three groups; a second process has only the last, which has no advantage."""
    number, processes = process_number()
    groups = made_groups(policy, samples, flat_last=True)
    share = groups if processes == 1 else groups[:-1] if number == 0 else groups[-1:]
    sums = update(policy, share, train_virl.Config(row_tokens=1))
    return train_virl.training_metrics(sums)["loss"]


STAGES = {"sft": sft_gradient, "virl": virl_gradient}


def main(model: str, out: str) -> None:
    join_processes("cpu")
    gradients = {}
    for stage, gradient in STAGES.items():
        policy = sharpened(model).shard()
        loss = gradient(policy, make_samples())
        whole = {name: p.grad.full_tensor() for name, p in policy.named_parameters()}
        gradients[stage] = whole | {"loss": loss}
    if process_number()[0] == 0:
        torch.save(gradients, Path(out) / "gradients.pt")


if __name__ == "__main__":
    main(*sys.argv[1:])
