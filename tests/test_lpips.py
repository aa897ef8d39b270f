"""metrics/lpips.py against a computation in numpy alone, with random weights in the file formats that people have."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from metrics import lpips
from metrics.scoring import Job, Scorer
from metrics.weights import Weights
from render import Rendering
from report import statistics

CHANNELS = {"AlexNet": (64, 192, 384, 256, 256), "VGG16": (64, 128, 256, 512, 512)}


def weights(name: str, seed=0) -> tuple[dict, dict]:
    """(features of torchvision's file, heads of the package's file), random, as their state_dicts name them."""
    rng, channels = np.random.default_rng(seed), 3
    tensor = lambda *shape, size=1.0: torch.tensor(rng.normal(0, size, shape), dtype=torch.float32)  # noqa: E731
    body = {}
    for number, out, kernel, *_ in (c for layer in lpips.BACKBONES[name] for c in layer):
        body[f"features.{number}.weight"] = tensor(out, channels, kernel, kernel, size=1.5 / (channels**0.5 * kernel))
        body[f"features.{number}.bias"] = tensor(out, size=0.1)
        channels = out
    heads = {f"lin{k}.model.1.weight": tensor(1, c, 1, 1).abs() for k, c in enumerate(CHANNELS[name])}
    return body, heads


def as_package(body: dict, heads: dict, name: str) -> dict:
    """As lpips.LPIPS(net=...).state_dict() names them: slices, and every head twice."""
    last = {"AlexNet": (0, 3, 6, 8, 10), "VGG16": (2, 7, 14, 21, 28)}[name]
    whole = {"scaling_layer.shift": torch.zeros(1, 3, 1, 1), "scaling_layer.scale": torch.ones(1, 3, 1, 1)}
    for key, value in body.items():
        _, number, kind = key.split(".")
        whole[f"net.slice{1 + sum(int(number) > end for end in last)}.{number}.{kind}"] = value
    return whole | heads | {key.replace("lin", "lins.", 1): value for key, value in heads.items()}


def windows(x: np.ndarray, side: int, stride: int) -> np.ndarray:
    """(C, H, W) -> (C, rows, columns, side, side)."""
    return np.lib.stride_tricks.sliding_window_view(x, (side, side), axis=(1, 2))[:, ::stride, ::stride]


def convolve(x: np.ndarray, w: np.ndarray, b: np.ndarray, stride: int, pad: int) -> np.ndarray:
    patches = windows(np.pad(x, ((0, 0), (pad, pad), (pad, pad))), w.shape[-1], stride)
    return np.maximum(0, np.einsum("cijkl,ockl->oij", patches, w, optimize=True) + b[:, None, None])


def by_hand(a: np.ndarray, b: np.ndarray, body: dict, heads: dict, name: str) -> float:
    """a, b (3, H, W) in [0, 1]. ImageNet's normalisation in the usual form: the scaling layer is the same thing."""
    body = {key: value.double().numpy() for key, value in body.items()}
    # (number, stride, padding) of the convolutions; "pool"; "tap" after each of the five layers
    vgg = [(0, 1, 1), (2, 1, 1), "tap", "pool", (5, 1, 1), (7, 1, 1), "tap", "pool", (10, 1, 1), (12, 1, 1), (14, 1, 1)]
    vgg += ["tap", "pool", (17, 1, 1), (19, 1, 1), (21, 1, 1), "tap", "pool", (24, 1, 1), (26, 1, 1), (28, 1, 1), "tap"]
    alex = [(0, 4, 2), "tap", "pool", (3, 1, 2), "tap", "pool", (6, 1, 1), "tap", (8, 1, 1), "tap", (10, 1, 1), "tap"]
    taps = []
    for picture in (a, b):
        mean, deviation = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[:, :, None, None]
        x, mine = (picture - mean) / deviation, []
        for what in vgg if name == "VGG16" else alex:
            if what == "tap":
                mine.append(x / (np.linalg.norm(x, axis=0) + 1e-10))
            elif what == "pool":
                x = windows(x, 2 if name == "VGG16" else 3, 2).max((3, 4))
            else:
                number, stride, pad = what
                x = convolve(x, body[f"features.{number}.weight"], body[f"features.{number}.bias"], stride, pad)
        taps.append(mine)
    total = 0.0
    for x, y, head in zip(*taps, heads.values(), strict=True):
        total += ((x - y) ** 2 * head.double().numpy()[0]).sum(0).mean()
    return total


def noise(seed: int, side: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (side, side, 3), dtype=np.uint8))


@pytest.mark.parametrize("name, side", [("AlexNet", 47), ("VGG16", 16)])
def test_against_numpy(name, side, tmp_path):
    body, heads = weights(name)
    torch.save(as_package(body, heads, name), tmp_path / "lpips.pth")
    metric = lpips.load(tmp_path / "lpips.pth")[name]
    a, b = noise(1, side), noise(2, side)
    arrays = [np.asarray(picture).transpose(2, 0, 1) / 255 for picture in (a, b)]
    wanted = by_hand(*arrays, body, heads, name)
    assert wanted > 0.01 and metric.distance(a, b, side) == pytest.approx(wanted, rel=1e-3)
    assert metric.distance(a, a, side) == 0 and metric.distance(b, a, side) == pytest.approx(
        metric.distance(a, b, side)
    )
    assert metric.distance(a, b, side, imagenet=True) != pytest.approx(wanted, rel=1e-3)


def folder(path, *names, kind="pth"):
    from safetensors.torch import save_file

    path.mkdir()
    for name in names:
        body, heads = weights(name)
        body |= {"classifier.1.weight": torch.zeros(3, 3)}  # torchvision's file has the whole network
        for part, tensors in (("backbone", body), ("heads", heads)):
            save = save_file if kind == "safetensors" else torch.save
            save(tensors, path / f"{name}-{part}.{kind}")
    return path


def test_files_that_people_have(tmp_path):
    body, heads = weights("AlexNet")
    torch.save(as_package(body, heads, "AlexNet"), tmp_path / "one.pth")
    expected = lpips.load(tmp_path / "one.pth")["AlexNet"].distance(noise(1, 64), noise(2, 64), 64)
    both = lpips.load(folder(tmp_path / "both", "AlexNet", "VGG16"))
    assert set(both) == {"AlexNet", "VGG16"}
    assert both["AlexNet"].distance(noise(1, 64), noise(2, 64), 64) == expected
    assert set(lpips.load(folder(tmp_path / "safe", "AlexNet", kind="safetensors"))) == {"AlexNet"}


def test_files_that_do_not_fit_are_refused_in_one_sentence(tmp_path):
    body, heads = weights("AlexNet")
    cases = {
        "features.pth": (body, "AlexNet's features without heads; give the files"),
        "heads.pth": (heads, "AlexNet's heads without features"),
        "other.pth": ({"x": torch.zeros(3)}, "no weights of LPIPS"),
        "part.pth": (
            {k: v for k, v in body.items() if k != "features.8.bias"} | heads,
            "does not fit AlexNet: conv.*8.b",
        ),
        "shape.pth": (body | heads | {"lin2.model.1.weight": torch.zeros(1, 9, 1, 1)}, "does not fit AlexNet: heads.2"),
        "model.pth": (torch.nn.Linear(2, 2), "is no file of tensors"),
        "list.pth": ([1, 2], "is no file of tensors"),
    }
    for name, (content, complaint) in cases.items():
        torch.save(content, tmp_path / name)
        with pytest.raises(ValueError, match=complaint) as caught:
            lpips.load(tmp_path / name)
        assert "\n" not in str(caught.value) and str(tmp_path / name) in str(caught.value)
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(ValueError, match="is no file of tensors"):
        lpips.load(tmp_path / "text.pth")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        lpips.load(tmp_path / "nowhere")


def tiny_clip(path):
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision = small | {"image_size": 32, "patch_size": 16, "projection_dim": 8}
    CLIPModel(
        CLIPConfig(text_config=small | {"vocab_size": 64}, vision_config=vision, projection_dim=8)
    ).save_pretrained(path)
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(path)
    return path


def test_the_combined_score_of_unisvg(tmp_path):
    from test_eval import record, sample

    flags = {"clip": None, "dino": None, "lpips": str(folder(tmp_path / "a", "AlexNet")), "as_published": False}
    given = Weights.of(SimpleNamespace(**flags | {"clip": str(tiny_clip(tmp_path / "clip"))}))
    one, other = sample(0), sample(1)
    job, shown = Job(one, "<svg/>", None, None), Rendering(other.image, None, 0.1)
    values = Scorer(None, weights=given).measure(job, shown)
    parts = [values[f"unisvg.{name}"] for name in ("ssim", "lpips", "clip")]
    assert parts[1] > 0
    assert values["unisvg.score"] == pytest.approx(0.2 * parts[0] + 0.2 * (1 - parts[1]) + 0.6 * parts[2])
    perfect = Scorer(None, weights=given).measure(job, Rendering(one.image, None, 0.1))
    assert perfect["unisvg.score"] == pytest.approx(1) and perfect["unisvg.lpips"] == 0
    failed = Scorer(None, weights=given).measure(job, Rendering(None, "x", 0.0))
    assert (failed["unisvg.lpips"], failed["unisvg.score"]) == (1, 0)
    alone = Scorer(None, weights=Weights.of(SimpleNamespace(**flags))).measure(job, shown)
    assert "unisvg.lpips" in alone and "unisvg.score" not in alone, "no score without CLIP"
    line = statistics.metric_table([record(one, metrics=alone)])
    assert "missing: unisvg.score (needs --clip and --lpips with AlexNet)" in line
    assert Weights.of(SimpleNamespace(**flags | {"lpips": None})) is None


def test_vgg_is_for_starvector(tmp_path):
    from test_eval import sample

    flags, path = {"clip": None, "dino": None}, str(folder(tmp_path / "v", "VGG16"))
    values = [
        Weights.of(SimpleNamespace(**flags, lpips=path, as_published=published)).starvector(
            sample(0).image, sample(1).image, 0.5
        )
        for published in (False, True)
    ]
    assert [set(value) for value in values] == [{"lpips"}] * 2
    assert 0 < values[0]["lpips"] != values[1]["lpips"]
