"""Pictures of data sets: from bytes or a file, as PNG, on white, blank or not, the same or not."""

import hashlib
import io
from pathlib import Path

from PIL import Image


def to_rgb(image: Image.Image) -> Image.Image:
    """RGB copy with transparency composited on white, whatever the mode."""
    if image.mode == "RGB":
        return image
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def is_blank(image: Image.Image) -> bool:
    """Whether it has a single colour."""
    return all(low == high for low, high in image.convert("RGB").getextrema())


def read_picture(value, folder: Path) -> Image.Image:
    """RGB on white, from what data sets hold: bytes, a path relative to `folder`, or {"bytes": .., "path": ..}."""
    value = (value.get("bytes") or value.get("path")) if isinstance(value, dict) else value
    if not value or not isinstance(value, bytes | str):
        raise ValueError("has no picture; give PNG or JPEG bytes, or the path of a file")
    if isinstance(value, str) and not (folder / value).is_file():
        raise ValueError(f"the picture {folder / value} does not exist; paths are relative to the data file")
    try:
        with Image.open(io.BytesIO(value) if isinstance(value, bytes) else folder / value) as image:
            return to_rgb(image).copy()
    except Exception as error:  # Pillow raises a dozen types on hostile bytes
        raise ValueError(
            f"the picture cannot be decoded ({error}); remove the row or write the picture again"
        ) from None


def digest(image: Image.Image) -> bytes:
    """Of everything that its pixels depend on."""
    about = (image.mode, image.size, image.getpalette() if image.mode == "P" else None, image.info.get("transparency"))
    return hashlib.sha256(repr(about).encode() + image.tobytes()).digest()  # processors have instructions for it


def png_bytes(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def open_picture(path: Path) -> Image.Image:
    """Raises FileNotFoundError or ValueError, in one sentence, for a file that is missing or no whole picture."""
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    try:
        image = Image.open(path)
        image.load()
        return image
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # Pillow raises all of these
        raise ValueError(f"{path} is not a picture that can be read: {error}") from error
