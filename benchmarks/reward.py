"""Reward throughput against the method of the paper's release: same pictures, same encoder, same cores, same run.

    python benchmarks/reward.py --out results/reward.json

The release (VinciCoder dbe1e94, `examples/reward_function/vincicoder.py`) encodes the target again for every rollout:
2 G pictures for a group of G. Here a target is encoded once and equal renderings once: 1 + u pictures, u of the G being
distinct. The encoder has the shape of DINOv2-small with random weights, which cost what trained ones cost. Both sides
give the same rewards (`largest_difference`). They take turns; a time is the median of the rounds.
"""

import json
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import tyro
from PIL import Image, ImageChops

sys.path.insert(0, str(Path(__file__).parent.parent))
import environment  # noqa: E402, F401

import torch  # noqa: E402

import synth  # noqa: E402
from features import cut_frames  # noqa: E402
from render import Renderer, Rendering  # noqa: E402
from reward import visual_of  # noqa: E402
from rewards.vincicoder import vincicoder_grid  # noqa: E402


def small_dino(folder: str) -> str:
    """A folder with a DINOv2 of the small one's shape (22 M parameters) and random weights."""
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    shape = Dinov2Config(hidden_size=384, num_hidden_layers=12, num_attention_heads=6, image_size=518, patch_size=14)
    Dinov2Model(shape).save_pretrained(folder)
    return folder


@torch.inference_mode()
def release_rewards(encoder, target: Image.Image, renderings: list[Image.Image]) -> list[float]:
    """The released way: every pair anew, both pictures encoded, all hidden states kept; mean of (cosine + 1) / 2."""

    def encode(image: Image.Image) -> torch.Tensor:
        cols, rows = vincicoder_grid(*image.size)
        frames = cut_frames(image.resize((448 * cols, 448 * rows)), image.resize((448, 448)))
        pixels = ((frames.float() / 255 - encoder.mean) / encoder.std).bfloat16().float()
        return encoder.model(pixels, output_hidden_states=True).hidden_states[-1][:, 0]

    rewards = []
    for rendering in renderings:
        wanted, got = encode(target), encode(rendering.resize(target.size))
        rewards.append((torch.cosine_similarity(wanted, got).mean().item() + 1) / 2)
    return rewards


@dataclass
class Config:
    """Compare, print and write the figures."""

    group: int = 8
    """G, renderings of one target."""
    distinct: tuple[int, ...] = (8, 5, 2)
    """How many of them differ from each other."""
    rounds: int = 3
    """Times each side scores the group."""
    threads: int = 2
    """CPU threads of torch."""
    out: Path = Path("results/reward.json")
    """Where the figures go."""


def main(config: Config) -> None:
    torch.set_num_threads(config.threads)
    with Renderer(1, timeout=30) as renderer:
        drawn = renderer.render(synth.make("chart", 0, seed=7, difficulty=0.6).code, "python")
    if drawn.image is None:
        sys.exit(f"benchmarks/reward.py: no chart can be drawn here: {drawn.error}")
    target = drawn.image.resize((600, 400))
    shifted = [ImageChops.offset(target, 3 * i + 3, 2 * i) for i in range(config.group)]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        visual = visual_of("vincicoder", small_dino(folder))
        for distinct in config.distinct:
            pictures = [shifted[i % distinct] for i in range(config.group)]
            seconds, encoded = {"release": [], "nanovinci": []}, 0
            for _ in range(config.rounds):
                start = time.perf_counter()
                theirs = release_rewards(visual.encoder, target, pictures)
                seconds["release"].append(time.perf_counter() - start)
                visual.cache.clear()  # a target that has not been seen before
                before, start = visual.frames_encoded, time.perf_counter()
                renderings = [Rendering(picture.copy(), None, 0.0) for picture in pictures]
                ours = visual.compare([target] * config.group, renderings)
                seconds["nanovinci"].append(time.perf_counter() - start)
                encoded = visual.frames_encoded - before
            frames = len(ours[0].fine) + 1
            medians = {name: round(statistics.median(times), 2) for name, times in seconds.items()}
            row = {"group": config.group, "distinct": distinct, "frames_a_picture": frames, "seconds": medians}
            row |= {"pictures_encoded": {"release": 2 * config.group, "nanovinci": encoded / frames}}
            row["times_faster"] = round(medians["release"] / medians["nanovinci"], 2)
            row["largest_difference"] = max(abs(a - b.visual) for a, b in zip(theirs, ours, strict=True))
            rows.append(row)
            print(json.dumps(row))
    config.out.parent.mkdir(parents=True, exist_ok=True)
    result = {"date": time.strftime("%Y-%m-%d"), "encoder": "DINOv2-small's shape, fp32, CPU", "groups": rows}
    config.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
