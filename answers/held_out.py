"""Held-out targets while a model trains: `--eval-data PATH --eval-every 100`, in both stages.

Every target is answered greedily, by ViRL's decoder and renderer, before the first step, after every so many, and at
the end; metrics.jsonl, and so the curves, say of the model that has taken that many steps

    held_out/visual      mean visual score, calibrated and with the pyramid, whatever the run optimises; in [0, 1]
    held_out/executes    share of answers that draw anything; the others score 0
    held_out/cut         share that ended at --eval-tokens
    held_out/DOMAIN      the visual score of a domain's targets, where there are several domains

The weights that score best are kept as RUN/checkpoints/best, a folder for eval.py, answer.py and ViRL; its
held_out.json says after which step, and with what score. Nothing here changes what a run learns.
"""

import json
import os
import shutil
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import nullcontext

import numpy as np
import torch
from safetensors import SafetensorError
from tqdm import tqdm

import data
import loading
from checkpoint import latest_checkpoint
from model import Policy
from processes import all_gather, rank_and_size
from prompts import extract_code
from records import NO_CODE
from render import Renderer, Rendering
from reward import Rewards, Score
from rollout import generate, half_the_threads
from train_virl import copy_weights
from training import autocast, load_policy


class HeldOut:
    """`HeldOut(config, run)(policy, step)`: whether it is time for an evaluation is its own business.

    sampler, renderer: ViRL's, where it has them. Of several processes each answers its share of the targets; all have
    to call. Raises ValueError where the targets are those of the training, or none can be used.
    """

    def __init__(self, config, run, sampler: Policy | None = None, renderer: Renderer | None = None):
        self.config, self.run, self.sampler, self.renderer = config, run, sampler, renderer
        if os.path.abspath(config.eval_data) == os.path.abspath(config.data):
            raise ValueError(
                f"--eval-data {config.eval_data} is what the run learns from; give targets that it is not."
            )
        samples = data.load(config.eval_data)
        if data.needs_drawing(samples):
            samples = loading.drawn_by_a_process(config.eval_data, run.folder / "held_out_targets")
        self.samples = samples
        self.mine = range(len(samples))[rank_and_size()[0] :: rank_and_size()[1]]
        self.rewards = Rewards(("visual",))
        self.best, self.highest, self.of_step = run.folder / "checkpoints" / "best", -1.0, 0
        if config.resume and (said := self.best / "held_out.json").exists():
            self.of_step, self.highest = json.loads(said.read_text()).values()
        self.named = False  # targets that cannot be used

    def __call__(self, policy: Policy, step: int) -> None:
        """Evaluate the policy after `step` steps, if it is time for that."""
        ended = step == self.config.steps
        if step % self.config.eval_every and not ended:
            return
        began = time.perf_counter()
        answers = [answer for share in all_gather(self.answers(policy)) for answer in share]
        if not answers:
            path = self.config.eval_data
            raise ValueError(f"--eval-data {path} holds no usable target; `python -m corpus inspect {path}` says why.")
        metrics = summary(answers)
        self.run.log({"step": step} | metrics)
        visual, executes = metrics["held_out/visual"], metrics["held_out/executes"]
        is_best = visual > self.highest
        if is_best and (step == 0 or self.keep(policy, step, visual)):  # what a run starts from is there already
            self.highest, self.of_step = visual, step
        what, best = f"{len(answers)} held-out targets", ", the best so far" if is_best else ""
        seconds = time.perf_counter() - began
        self.say(f"After step {step}: {what}, visual {visual:.4f}, {executes:.0%} drawn ({seconds:.0f} s){best}")
        if ended:
            where = f"after step {self.of_step}, in {self.best}" if self.of_step else "that of the model at the start"
            self.say(f"The best held-out visual score is {self.highest:.4f}, {where}.")

    def answers(self, policy: Policy) -> list[tuple[str, Score, bool]]:
        """(domain, score, whether it was cut) of this process' targets."""
        good, bad = loading.encoded(self.samples, self.mine, lambda _, sample: (sample, policy.encode(sample)))
        bad = [problem for share in all_gather(bad) for _, problem in share]
        if bad and not self.named:
            self.say(f"--eval-data: {len(bad)} of {len(self.samples)} targets are left out, the first: {bad[0]}")
        self.named = True
        sampler, config, answers = self.whole(policy), self.config, []
        renderers = nullcontext(self.renderer) if self.renderer else Renderer()
        with renderers as renderer, half_the_threads(), autocast(policy.device.type):
            prompts, slots = [prompt for _, prompt in good], getattr(config, "slots", 64)
            for one in generate(sampler, prompts, 1, config.eval_tokens, 0.0, 0, slots):
                sample, _ = good[one.number]
                code = extract_code(one.text, sample.language)
                drawing = renderer.submit(code, sample.language, sample.image.size) if code else None
                answers.append((sample, one, drawing))
            nothing = Rendering(None, NO_CODE, 0.0)
            renderings = [drawing.result() if drawing else nothing for _, _, drawing in answers]
        sampler.engine.release_memory()
        samples, texts = [sample for sample, _, _ in answers], [one.text for _, one, _ in answers]
        scores = self.rewards.score(samples, texts, renderings)
        cut = [one.finish == "length" for _, one, _ in answers]
        return list(zip([sample.domain for sample in samples], scores, cut, strict=True))

    def whole(self, policy: Policy) -> Policy:
        """The policy with all of its weights: of several processes each has a shard."""
        if rank_and_size()[1] == 1:
            return policy
        sampler = self.sampler
        if sampler is None:  # SFT has none; the memory is free again after the evaluation
            dtype = torch.bfloat16 if policy.device.type == "cuda" else torch.float32
            sampler = load_policy(latest_checkpoint(self.run.folder) or self.config.model, self.config, dtype)
        copy_weights(sampler, policy)
        return sampler

    def keep(self, policy: Policy, step: int, visual: float) -> bool:
        """Write the weights as `best` -> whether that went well. Where it did not this is said, and the run goes on."""
        weights = policy.whole_weights()  # for which every process has to ask
        written, place = True, self.best.with_name(".best.tmp")
        if self.run.writes:
            try:
                shutil.rmtree(place, ignore_errors=True)
                place.mkdir(parents=True)
                policy.save(place, weights)
                (place / "held_out.json").write_text(json.dumps({"step": step, "visual": visual}) + "\n")
                shutil.rmtree(self.best, ignore_errors=True)
                os.replace(place, self.best)
            except (OSError, RuntimeError, SafetensorError) as error:
                shutil.rmtree(place, ignore_errors=True)
                self.say(f"The best model so far, of step {step}, could not be written ({error}); the run goes on.")
                written = False
        return all(all_gather(written))

    def say(self, text: str) -> None:
        if self.run.writes:
            tqdm.write(text, file=sys.stderr)


def summary(answers: Sequence[tuple[str, Score, bool]]) -> dict[str, float]:
    """Metrics of what `HeldOut.answers` gives, of all targets."""
    by_domain = defaultdict(list)
    for domain, score, _ in answers:
        by_domain[domain.replace("/", "_")].append(score.visual)
    metrics = {
        "held_out/visual": float(np.mean([score.visual for _, score, _ in answers])),
        "held_out/executes": float(np.mean([score.executed for _, score, _ in answers])),
        "held_out/cut": float(np.mean([cut for *_, cut in answers])),
    }
    several = sorted(by_domain) if len(by_domain) > 1 else ()
    return metrics | {f"held_out/{domain}": float(np.mean(by_domain[domain])) for domain in several}
