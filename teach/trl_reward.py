"""Our sandbox and reward for TRL: GRPOTrainer(MODEL, reward_funcs=PictureReward(), train_dataset=ROWS, ...).

ROWS has the columns `prompt`, which names the language, `image`, the target's picture, and `language`: TRL hands the
last two to the reward. Start it from the project's folder, or with that in PYTHONPATH. If you give the trainer a
processor, it has to pad on the left: otherwise the pictures of shorter prompts are misplaced, and nothing says so.
"""

import environment  # noqa: F401, isort: skip

from data import Sample
from prompts import extract_code
from render import Renderer, Rendering
from reward import Rewards


class PictureReward:
    __name__ = "picture_reward"  # TRL logs it under its name

    def __init__(self, choices=(), workers=None):
        """choices: as `--reward` takes them; workers: programs that are drawn at a time, one for each core."""
        self.renderer, self.rewards = Renderer(workers), Rewards(choices)

    def __call__(self, completions, image, language, **columns) -> list[float]:
        texts = [one if isinstance(one, str) else one[-1]["content"] for one in completions]
        samples, drawings = [], []
        for text, picture, tag in zip(texts, image, language, strict=True):
            samples.append(Sample("", tag, tag, picture.convert("RGB"), ""))
            code = extract_code(text, tag)
            drawings.append(self.renderer.submit(code, tag, picture.size) if code else None)
        renderings = [one.result() if one else Rendering(None, "no program", 0.0) for one in drawings]
        return [score.total for score in self.rewards.score(samples, texts, renderings)]
