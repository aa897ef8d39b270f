"""TRL's side of benchmarks/peers.py: its trainers on our folder, data and reward, and whether its loss is ours.

    python benchmarks/peers_trl.py virl --model DIR --data POOL --out steps.json     # GRPOTrainer, timed step by step
    python benchmarks/peers_trl.py sft --model DIR --data PAIRS --out steps.json     # SFTTrainer
    python benchmarks/peers_trl.py agree --model DIR --pool POOL --pairs PAIRS --out agree.json

TRL lies in .venv-peers (`make benchmark-peers`), in front of the packages of .venv.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
PEERS, TORCHVISION = ROOT / ".venv-peers", Path(sys.prefix) / "share" / "torchvision"
sys.path[:0] = [str(PEERS), str(ROOT), str(ROOT / "teach"), str(TORCHVISION)]
import environment  # noqa: E402, F401

import json  # noqa: E402
import os  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402
from collections import Counter, defaultdict  # noqa: E402
from dataclasses import replace  # noqa: E402

os.environ |= {"HF_HUB_OFFLINE": "1", "TRL_EXPERIMENTAL_SILENCE": "1"}
import numpy as np  # noqa: E402
import torch  # noqa: E402
import tyro  # noqa: E402

if not hasattr(torch.ops.torchvision, "nms"):  # a torchvision of another build has no kernels here, and needs none
    for name in ("nms", "qnms"):
        torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
from datasets import Dataset  # noqa: E402
from transformers import AutoProcessor, TrainerCallback  # noqa: E402
from trl import GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer  # noqa: E402
from trl_reward import PictureReward  # noqa: E402

import data  # noqa: E402
import train_sft  # noqa: E402
import train_virl  # noqa: E402
from model import Policy, hugging_face  # noqa: E402
from rollout import generate  # noqa: E402

# ---------------------------------------------------------------------------------------------------------------------
# the same model, data and settings


def processor_of(folder: str, **options):
    """AutoProcessor with the image processor that we use, so that both see the same pixels."""
    processor = AutoProcessor.from_pretrained(folder, **options)
    processor.image_processor = hugging_face()[1].from_pretrained(folder)
    return processor


def prompts_of(samples) -> Dataset:
    """What GRPOTrainer takes; the last two columns reach the reward."""
    user = lambda sample: [{"role": "user", "content": sample.prompt}]  # noqa: E731
    return Dataset.from_list([{"prompt": user(s), "image": s.image, "language": s.language} for s in samples])


def pairs_of(samples) -> Dataset:
    """What SFTTrainer takes."""
    turn = lambda role, text: [{"role": role, "content": text}]  # noqa: E731
    rows = [(turn("user", s.prompt), turn("assistant", data.answer_text(s)), [s.image]) for s in samples]
    return Dataset.from_list([dict(zip(("prompt", "completion", "images"), row, strict=True)) for row in rows])


def common(out: str) -> dict:
    """Settings of both trainers that are those of train_sft.py and train_virl.py."""
    shared = dict(output_dir=out, learning_rate=1e-4, lr_scheduler_type="constant", weight_decay=0.01, seed=0)
    shared |= dict(max_grad_norm=1.0, bf16=False, gradient_checkpointing=False, use_cpu=True, report_to="none")
    return shared | dict(save_strategy="no", logging_steps=1, disable_tqdm=True, dataloader_pin_memory=False)


def grpo(model, samples, reward, out, prompts, group, new_tokens, batch, **more) -> GRPOTrainer:
    """loss_type dapo is the mean over the tokens of the whole step, delta the bound of --dual-clip."""
    settings = dict(per_device_train_batch_size=batch, gradient_accumulation_steps=prompts * group // batch)
    settings |= dict(num_generations=group, max_completion_length=new_tokens, temperature=1.0, beta=0.0)
    settings |= dict(loss_type="dapo", epsilon=0.2, epsilon_high=0.3, delta=3.0, scale_rewards="group")
    args = GRPOConfig(**common(out) | settings | more)
    processor = processor_of(model, padding_side="left")  # as TRL's own; else pictures of short prompts are misplaced
    return GRPOTrainer(model, reward, args, train_dataset=prompts_of(samples), processing_class=processor)


# ---------------------------------------------------------------------------------------------------------------------
# what a step takes


class Clock(TrainerCallback):
    """A row of seconds for every step, from the end of one to the end of the next; `watch` adds those of a method."""

    def __init__(self):
        self.rows, self.parts = [], Counter()

    def watch(self, trainer, method: str, name: str):
        call = getattr(trainer, method)

        def with_a_clock(*arguments, **named):
            start = time.perf_counter()
            result = call(*arguments, **named)
            self.parts[name] += time.perf_counter() - start
            return result

        setattr(trainer, method, with_a_clock)

    def on_train_begin(self, *_, **__):
        self.start, self.cpu = time.perf_counter(), time.process_time()

    def on_step_end(self, *_, **__):
        now, cpu = time.perf_counter(), time.process_time()
        self.rows.append({"step": now - self.start, "cpu": cpu - self.cpu, **self.parts})
        self.start, self.cpu = now, cpu
        self.parts.clear()


def virl(
    model: str, data: str, out: str, steps: int = 6, prompts: int = 8, group: int = 8, new_tokens: int = 160,
    batch: int = 64, seed: int = 0,
) -> None:  # fmt: skip
    """Steps of GRPOTrainer with our renderer and reward (teach/trl_reward.py).

    Args:
        batch: answers that are trained at a time.
    """
    reward, clock = PictureReward(), Clock()
    with tempfile.TemporaryDirectory() as folder:
        more = dict(max_steps=steps, seed=seed)
        trainer = grpo(model, load(data), reward, folder, prompts, group, new_tokens, batch, **more)
        trainer.add_callback(clock)
        clock.watch(trainer, "_generate_single_turn", "generate")
        clock.watch(trainer, "_calculate_rewards", "judge")
        clock.watch(trainer, "_generate_and_score_completions", "before_training")
        trainer.train()
    reward.renderer.close()
    for row, log in zip(clock.rows, trainer.state.log_history, strict=False):
        row["update"] = row["step"] - row.pop("before_training")
        row["tokens"] = log["completions/mean_length"] * prompts * group
        row |= {"reward": log["reward"], "cut": log["completions/clipped_ratio"]}
    Path(out).write_text(json.dumps(clock.rows))


def sft(model: str, data: str, out: str, steps: int = 11, batch: int = 24, workers: int = 0) -> None:
    """Steps of SFTTrainer.

    Args:
        workers: processes that encode pairs ahead.
    """
    clock, tokens = Clock(), []
    with tempfile.TemporaryDirectory() as folder:
        settings = dict(per_device_train_batch_size=batch, max_steps=steps, max_length=None)
        args = SFTConfig(**common(folder) | settings | dict(dataloader_num_workers=workers))
        pairs, processor = pairs_of(load(data)), processor_of(model)
        trainer = SFTTrainer(model, args, train_dataset=pairs, processing_class=processor, callbacks=[clock])
        train = trainer.training_step

        def counted(model, inputs, *more):
            tokens.append(int((inputs["labels"] != -100).sum()))
            return train(model, inputs, *more)

        trainer.training_step = counted
        trainer.train()
    for row, count, log in zip(clock.rows, tokens, trainer.state.log_history, strict=False):
        row |= {"tokens": count, "loss": log["loss"]}
    Path(out).write_text(json.dumps(clock.rows))


def load(path: str) -> list:
    return [sample for _, sample, _ in data.check(data.load(path)) if sample]


# ---------------------------------------------------------------------------------------------------------------------
# the same numbers


def compared(loss: float, model, other_loss: float, other) -> dict:
    """How far TRL's loss and gradient (`other`) are from ours, relative to ours."""
    mine = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    theirs = {name: p.grad for name, p in other.named_parameters() if p.grad is not None}
    assert mine.keys() == theirs.keys(), mine.keys() ^ theirs.keys()
    norm = lambda tensors: sum(tensor.double().square().sum() for tensor in tensors).sqrt().item()  # noqa: E731
    gradient = norm(mine[name] - theirs[name] for name in mine) / norm(mine.values())
    apart = {"loss_apart": abs(loss - other_loss) / abs(loss), "gradient_apart": gradient}
    return {"loss": loss, "trl_loss": other_loss} | {name: float(f"{value:.1e}") for name, value in apart.items()}


def agree_virl(policy: Policy, model: str, samples: list, folder: str) -> dict:
    """The same answers with the same advantages: sampled just now, and from a policy that was another, so that ratios
    are clipped on both sides."""
    N, G, new_tokens, rng = len(samples), 8, 96, np.random.default_rng(0)
    prompts = [policy.encode(sample) for sample in samples]
    answers = defaultdict(dict)
    for completion in generate(policy, prompts, G, new_tokens, numbers=list(range(N))):
        answers[completion.number][completion.index] = completion
    answers = [[answers[n][g] for g in range(G)] for n in range(N)]
    policy.engine.release_memory()
    rewards = rng.random((N, G))
    trainer = grpo(model, samples, lambda completions, **_: rewards.flatten().tolist(), folder, N, G, new_tokens, N * G)
    trainer._generate_single_turn = lambda *_: ([c.ids.tolist() for row in answers for c in row], None)
    trainer.current_gradient_accumulation_steps = 1
    trainer.model.train()
    inputs = trainer._generate_and_score_completions([row for row in trainer.train_dataset for _ in range(G)])
    ids = inputs["prompt_ids"][::G], inputs["prompt_mask"][::G].bool()
    assert all(torch.equal(a[m], p.ids) for a, m, p in zip(*ids, prompts, strict=True)), "prompts differ"
    advantages = train_virl.group_advantages(rewards)
    apart = np.abs(advantages - inputs["advantages"].numpy().reshape(N, G)).max()
    result = {"answers": N * G, "advantages_apart": float(f"{apart:.1e}")}
    inputs["advantages"] = torch.tensor(advantages.flatten(), dtype=torch.float32)
    for name, noise, minibatches in (("sampled just now", 0.0, 1), ("sampled by another", 0.3, 2)):
        config = train_virl.Config(group=G, max_new_tokens=new_tokens, minibatches=minibatches)
        old = [[c.logps + rng.normal(0, noise, len(c.ids)).astype(np.float32) for c in row] for row in answers]
        groups = []
        for sample, prompt, row, logps, own in zip(samples, prompts, answers, old, advantages, strict=True):
            row = [replace(c, logps=before) for c, before in zip(row, logps, strict=True)]
            groups.append(train_virl.Group(sample, prompt, row, [None] * G, [None] * G, advantages=own))
        policy.zero_grad()
        sums = defaultdict(float)
        train_virl.update(policy, groups, train_virl.loss_total(groups, config), config, None, sums)
        inputs["old_per_token_logps"] = None
        if minibatches > 1:
            flat = [torch.from_numpy(before) for row in old for before in row]
            inputs["old_per_token_logps"] = torch.nn.utils.rnn.pad_sequence(flat, batch_first=True)
        trainer.model.zero_grad()
        loss = trainer._compute_loss(trainer.model, inputs)
        loss.backward()
        result[name] = compared(sums["loss"], policy.hf, loss.item(), trainer.model)
        result[name]["clipped"] = round(sums["clipped"] / sums["trained_tokens"], 3)
    return result


def agree_sft(policy: Policy, model: str, samples: list, folder: str) -> dict:
    """The same pairs, as TRL trains them and without the line break that its template puts behind the end of turn."""
    pairs = [(policy.encode(s), [policy.response_ids(data.answer_text(s))]) for s in samples]
    policy.zero_grad()
    loss, tokens = train_sft.train_step(policy, pairs, 4096)
    args = SFTConfig(**common(folder) | dict(per_device_train_batch_size=len(samples), max_length=None))
    rows = pairs_of(samples)
    trainer = SFTTrainer(model, args, train_dataset=rows, processing_class=processor_of(model))
    batch, result = trainer.data_collator(list(rows)), {"pairs": len(samples)}
    ends = batch["labels"] == policy.eos_ids[0]
    behind = ends.cumsum(1).sub(ends.int()) > 0
    for name, labels in (
        ("as it comes", batch["labels"]),
        ("up to the end of turn", batch["labels"].masked_fill(behind, -100)),
    ):
        trained = int((labels != -100).sum())
        trainer.model.train().zero_grad()
        own = trainer.compute_loss(trainer.model, dict(batch) | {"labels": labels}, num_items_in_batch=trained)
        own.backward()
        result[name] = compared(loss, policy.hf, own.item(), trainer.model)
        result[name] |= {"tokens": tokens, "trl_tokens": trained}
    return result


def agree(model: str, pool: str, pairs: str, out: str) -> None:
    """Loss and gradient of both for the same answers."""
    policy = Policy.load(model).train()
    with tempfile.TemporaryDirectory() as folder:
        result = {"virl": agree_virl(policy, model, load(pool)[:8], folder)}
        result["sft"] = agree_sft(policy, model, load(pairs)[:24], folder)
    Path(out).write_text(json.dumps(result))


if __name__ == "__main__":
    tyro.extras.subcommand_cli_from_dict({"virl": virl, "sft": sft, "agree": agree}, description=__doc__)
