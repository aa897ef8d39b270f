"""LPIPS, how different two pictures look to a network that was taught what people say (Zhang et al. 2018, v0.1).

    d(a, b) = sum over five layers of the mean over places of  w . (A / |A| - B / |B|)^2

A and B are the features of AlexNet or VGG16 after a layer's last ReLU, normalised over the channels of a place, and w
the layer's learned weights. The networks are torchvision's, the weights w those of the `lpips` package; nobody has to
install either. `load` reads what people have: one file saved from `lpips.LPIPS(...).state_dict()`, or a folder with a
backbone of torchvision (alexnet-owt-7be5be79.pth, vgg16-397923af.pth) and its heads from the package
(lpips/weights/v0.1/alex.pth, vgg.pth). Files are .pth, .pt or .safetensors.
"""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

# Each layer: its convolutions as (torchvision's number, channels out, kernel, stride, padding); a max-pooling between.
ALEXNET = [[(0, 64, 11, 4, 2)], [(3, 192, 5, 1, 2)], [(6, 384, 3, 1, 1)], [(8, 256, 3, 1, 1)], [(10, 256, 3, 1, 1)]]
VGG = ((64, (0, 2)), (128, (5, 7)), (256, (10, 12, 14)), (512, (17, 19, 21)), (512, (24, 26, 28)))
VGG16 = [[(number, channels, 3, 1, 1) for number in numbers] for channels, numbers in VGG]
BACKBONES = {"AlexNet": ALEXNET, "VGG16": VGG16}
POOLED = {"AlexNet": (3, (1, 2)), "VGG16": (2, (1, 2, 3, 4))}  # window of stride 2, and before which layers
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # ImageNet's mean and deviation, for pixels in [-1, 1]


class LPIPS(nn.Module):
    """name: AlexNet or VGG16, with random weights until some are loaded."""

    def __init__(self, name: str):
        super().__init__()
        self.pool, self.pooled = POOLED[name]
        self.convolutions, channels = nn.ModuleDict(), 3
        self.layers = [[str(number) for number, *_ in layer] for layer in BACKBONES[name]]
        for number, out, *shape in (convolution for layer in BACKBONES[name] for convolution in layer):
            self.convolutions[str(number)] = nn.Conv2d(channels, out, *shape)
            channels = out
        heads = [torch.rand(layer[-1][1]) for layer in BACKBONES[name]]
        self.heads = nn.ParameterList(nn.Parameter(head) for head in heads)

    def features(self, pixels: torch.Tensor) -> list[torch.Tensor]:
        """(B, 3, H, W) in [-1, 1] -> five layers (B, C, h, w), each place of length 1."""
        shift, scale = (torch.tensor(value).view(1, 3, 1, 1) for value in (SHIFT, SCALE))
        hidden, found = (pixels - shift) / scale, []
        for k, layer in enumerate(self.layers):
            if k in self.pooled:
                hidden = nn.functional.max_pool2d(hidden, self.pool, 2)
            for number in layer:
                hidden = self.convolutions[number](hidden).relu()
            found.append(hidden / (hidden.square().sum(1, keepdim=True).sqrt() + 1e-10))
        return found

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """Two batches (B, 3, H, W) in [-1, 1] -> (B,); 0: equal."""
        pairs = zip(self.features(a), self.features(b), self.heads, strict=True)
        return sum(torch.einsum("bchw,c->bhw", (x - y).square(), w).mean((1, 2)) for x, y, w in pairs)

    @torch.inference_mode()
    def distance(self, a: Image.Image, b: Image.Image, side: int, imagenet: bool = False) -> float:
        """Of two pictures at side x side px. imagenet: normalised once more before, as SVG-Bench's code does it."""
        pixels = []
        for picture in (a, b):
            small = picture.convert("RGB").resize((side, side), Image.Resampling.LANCZOS)
            pixels.append(
                torch.from_numpy(np.array(small)).permute(2, 0, 1)[None] / 255
            )  # (1, 3, side, side) in [0, 1]
        x = torch.cat(pixels)
        mean, deviation = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
        x = (x - mean) / deviation if imagenet else 2 * x - 1
        return float(self(x[:1], x[1:])[0])


def load(path: str | Path) -> dict[str, LPIPS]:
    """{"AlexNet" and/or "VGG16": the metric with these weights}. ValueError, FileNotFoundError in one sentence."""
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"--lpips {path} does not exist; metrics/lpips.py says which files it takes.")
    files = (
        [path] if path.is_file() else sorted(f for f in path.iterdir() if f.suffix in (".pth", ".pt", ".safetensors"))
    )
    bodies, heads = {}, {}
    for file in files:
        body, head = _parts(file)
        if body:  # AlexNet's first kernels are 11 x 11, its second head has 192 channels
            bodies["AlexNet" if "0.weight" in body and body["0.weight"].shape[-1] == 11 else "VGG16"] = body
        if head:
            heads["AlexNet" if "1" in head and head["1"].numel() == 192 else "VGG16"] = head
    names = [name for name in BACKBONES if name in bodies and name in heads]
    if not names:
        half = [f"{name}'s features without heads" for name in bodies]
        half += [f"{name}'s heads without features" for name in heads]
        found = " and ".join(half) or "no weights of LPIPS"
        raise ValueError(f"--lpips {path} holds {found}; give the files that metrics/lpips.py names.")
    return {name: _filled(name, bodies[name], heads[name], path) for name in names}


def _parts(file: Path) -> tuple[dict, dict]:
    """({"0.weight": ..} of the convolutions by torchvision's number, {"0": ..} of the heads) in one file."""
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            tensors = load_file(file)
        else:
            tensors = torch.load(file, map_location="cpu", weights_only=True)
        items = [(name, tensor) for name, tensor in tensors.items() if isinstance(tensor, torch.Tensor)]
    except (OSError, EOFError, ValueError, RuntimeError, AttributeError, KeyError, pickle.UnpicklingError) as error:
        why = str(error).strip().splitlines()[0][:120] if str(error).strip() else type(error).__name__
        raise ValueError(f"--lpips {file} is no file of tensors ({why}); save a state_dict with torch.save.") from None
    body, head = {}, {}
    for name, tensor in items:
        if match := re.fullmatch(r"(?:net\.slice\d|features)\.(\d+\.(?:weight|bias))", name):
            body[match[1]] = tensor.float()
        elif match := re.fullmatch(r"lins?\.?(\d)\.model\.\d\.weight", name):
            head[match[1]] = tensor.float()
    return body, head


def _filled(name: str, body: dict, head: dict, path: Path) -> LPIPS:
    metric = LPIPS(name).eval().requires_grad_(False)
    given = {f"convolutions.{key}": tensor for key, tensor in body.items()}
    given |= {f"heads.{key}": tensor.flatten() for key, tensor in head.items()}
    wanted = metric.state_dict()
    wrong = [key for key in wanted if key not in given or given[key].shape != wanted[key].shape]
    wrong += [key for key in given if key not in wanted]
    if wrong:
        raise ValueError(f"--lpips {path} does not fit {name}: {wrong[0]} is missing, of another shape, or too many.")
    metric.load_state_dict(given)
    return metric
