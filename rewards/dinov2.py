"""DINOv2 as the encoder of the visual reward, as in the paper: `--encoder facebook/dinov2-large`, or a folder."""

import os
import re

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from features import Features

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class DinoV2(nn.Module):
    """DINOv2 of transformers. Feature: CLS token of the last layer, before the final layer norm, as the released code.

    `name` is a folder, or a hub name such as facebook/dinov2-large (downloaded by transformers if it is not cached).
    Raises FileNotFoundError for a folder that is not there, RuntimeError for one that holds no DINOv2.
    """

    tile_size = 448

    def __init__(self, name: str):
        super().__init__()
        from transformers import Dinov2Model

        is_folder = os.path.isdir(name)
        if not is_folder and (os.path.isabs(name) or not re.fullmatch(r"[\w-]+/[\w.-]+", name)):
            raise FileNotFoundError(f"no encoder at {name!r}: give 'pyramid', a DINOv2 folder or a hub name (org/name)")
        try:
            self.model = Dinov2Model.from_pretrained(name, local_files_only=is_folder, dtype=torch.float32).eval()
        except (OSError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise RuntimeError(f"cannot load a DINOv2 encoder from {name!r}: {reason}") from error
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(3, 1, 1))
        self.blanks: dict[tuple, Tensor] = {}  # background colour -> unit feature (D,) of an empty frame; few

    def frame_side(self, tile_width: float, tile_height: float) -> int:
        return self.tile_size

    def __call__(self, frames: Tensor, backgrounds: Tensor | None) -> Features:
        if backgrounds is None:
            return Features(self.cls(frames))
        if len(self.blanks) > 4096:  # photographs: each has a background of its own
            self.blanks.clear()
        for colour in {tuple(colour) for colour in backgrounds.tolist()} - self.blanks.keys():
            blank = torch.tensor(colour, device=frames.device).view(1, 3, 1, 1).expand(1, 3, *frames.shape[2:])
            self.blanks[colour] = F.normalize(self.cls(blank), dim=1)[0]
        blanks = torch.stack([self.blanks[tuple(colour)] for colour in backgrounds.tolist()])
        return Features(F.normalize(self.cls(frames), dim=1) - blanks)

    def cls(self, frames: Tensor) -> Tensor:
        """(F, 3, S, S) uint8 -> (F, D). Pixels pass through bfloat16, as in the released code."""
        at_once = 2 if frames.device.type == "cpu" else len(frames)  # on a CPU, more would not stay in its caches

        def encode(part: Tensor) -> Tensor:
            pixels = ((part.float() / 255 - self.mean) / self.std).bfloat16().float()
            return self.model.encoder(self.model.embeddings(pixels)).last_hidden_state[:, 0]

        return torch.cat([encode(part) for part in frames.split(at_once)])
