"""Metrics that need pretrained weights, which the user names: CLIP (`--clip`), DINOv2 (`--dino`), LPIPS (`--lpips`).

Without them their metrics, and the combined scores they are part of, are not there: they are reported as missing.
"""

from __future__ import annotations

import torch
from PIL import Image

from metrics import lpips as perceptual
from metrics.pixels import STARVECTOR_SIDE, UNISVG_SIDE


class Weights:
    """clip: folder of a CLIPModel (ViT-B/32 for Design2Code, ViT-L/14-336 for UniSVG). dino: of a Dinov2Model. lpips:
    what metrics/lpips.py loads, AlexNet for UniSVG, VGG16 for StarVector. as_published: as in Scorer."""

    def __init__(self, clip=None, dino=None, lpips=None, as_published: bool = False):
        self.clip = self.dino = None
        self.lpips, self.as_published = perceptual.load(lpips) if lpips else {}, as_published
        for name, path in (("clip", clip), ("dino", dino)):
            if path:
                from transformers import AutoImageProcessor, AutoModel

                loaded = AutoModel.from_pretrained(path).eval(), AutoImageProcessor.from_pretrained(path)
                setattr(self, name, loaded)

    @staticmethod
    def of(flags) -> Weights | None:
        """flags: of the command line, with clip, dino, lpips, as_published. None where no weights are given."""
        given = flags.clip, flags.dino, flags.lpips
        return Weights(*given, flags.as_published) if any(given) else None

    @torch.inference_mode()
    def clip_similarity(self, a: Image.Image, b: Image.Image) -> float:
        """Cosine of the image features. Design2Code paints over the texts first (cv2, TELEA); that is left out here."""
        model, processor = self.clip
        pixels = processor(images=[a.convert("RGB"), b.convert("RGB")], return_tensors="pt")["pixel_values"]
        features = model.get_image_features(pixel_values=pixels)
        features = getattr(features, "pooler_output", features)
        return float(torch.cosine_similarity(features[:1], features[1:])[0])

    @torch.inference_mode()
    def dino_similarity(self, a: Image.Image, b: Image.Image) -> float:
        """(cosine + 1) / 2 of the mean over the tokens of the last hidden state (StarVector)."""
        model, processor = self.dino
        pixels = processor(images=[a.convert("RGB"), b.convert("RGB")], return_tensors="pt")["pixel_values"]
        features = model(pixel_values=pixels).last_hidden_state.mean(1)
        return float((torch.cosine_similarity(features[:1], features[1:])[0] + 1) / 2)

    def unisvg(self, target: Image.Image, shown: Image.Image, ssim: float) -> dict[str, float]:
        """Where CLIP and LPIPS are, the score (ISVGEN): 0.2 SSIM + 0.2 (1 - LPIPS) + 0.6 CLIP."""
        values = {}
        if self.clip:
            values["clip"] = self.clip_similarity(target, shown)
        if alexnet := self.lpips.get("AlexNet"):
            values["lpips"] = alexnet.distance(target, shown, UNISVG_SIDE)
            if self.clip:
                values["score"] = 0.2 * ssim + 0.2 * (1 - values["lpips"]) + 0.6 * values["clip"]
        return values

    def starvector(self, target: Image.Image, shown: Image.Image, _: float) -> dict[str, float]:
        values = {}
        if self.dino:
            values["dino"] = self.dino_similarity(target, shown)
        if vgg := self.lpips.get("VGG16"):
            values["lpips"] = vgg.distance(target, shown, STARVECTOR_SIDE, imagenet=self.as_published)
        return values
