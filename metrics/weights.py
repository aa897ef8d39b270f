"""Metrics that need pretrained weights, which the user names: CLIP (`--clip`) and DINOv2 (`--dino`) folders.

Without a folder its metrics, and the combined scores they are part of, are not there: they are reported as missing.
LPIPS has no folder format that transformers reads, so `unisvg.lpips` and `unisvg.score` stay missing for now.
"""

from __future__ import annotations

import torch
from PIL import Image


class Weights:
    """clip: folder of a CLIPModel (ViT-B/32 for Design2Code, ViT-L/14-336 for UniSVG). dino: of a Dinov2Model."""

    def __init__(self, clip: str | None = None, dino: str | None = None):
        from transformers import AutoImageProcessor, AutoModel

        self.clip = self.dino = None
        for name, path in (("clip", clip), ("dino", dino)):
            if path:
                loaded = AutoModel.from_pretrained(path).eval(), AutoImageProcessor.from_pretrained(path)
                setattr(self, name, loaded)

    @staticmethod
    def of(clip: str | None, dino: str | None) -> Weights | None:
        """None where neither is given."""
        return Weights(clip, dino) if clip or dino else None

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

    def svg_scores(self, target: Image.Image, shown: Image.Image, ssim: float) -> dict[str, float]:
        values = {}
        if self.clip:
            values["unisvg.clip"] = self.clip_similarity(target, shown)
        if self.dino:
            values["starvector.dino"] = self.dino_similarity(target, shown)
        return values
