"""Pictures: vector graphics and PDF pages to pixels, alpha on white, margins cut."""

from __future__ import annotations

from PIL import Image

from languages import ProgramError

TEXT_SIZE = ":root:not([font-size]) { font-size: 16px }"  # as in a browser; librsvg has 12


def to_rgb(image: Image.Image, max_pixels: int) -> Image.Image:
    """Alpha composited on white, scaled down to `max_pixels`."""
    if image.width * image.height > max_pixels:
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
        scale = (max_pixels / (image.width * image.height)) ** 0.5
        image = image.resize(
            (max(1, int(image.width * scale)), max(1, int(image.height * scale))), Image.Resampling.BOX
        )
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGB", image.size, "white")
        white.paste(image, mask=image)
        return white
    return image if image.mode == "RGB" else image.convert("RGB")


def rasterize_svg(svg: bytes, side: int | None = None, size: tuple[float, float] | None = None) -> Image.Image:
    """librsvg through libvips, RGBA: the longer side becomes `side` px (None: natural size). ProgramError if broken.

    size: the document's own, in px, where the caller knows it better than to a whole number.
    """
    import pyvips

    try:  # of libvips' scale, dpi / 72 is a part
        if size is None:
            natural = pyvips.Image.svgload_buffer(svg, scale=0.75, dpi=96)
            size = natural.width, natural.height
        scale = side / max(size) if side else 1
        picture = pyvips.Image.svgload_buffer(svg, scale=scale * 0.75, dpi=96, stylesheet=TEXT_SIZE)
        image = Image.frombuffer("RGBA", (picture.width, picture.height), picture.write_to_memory())
    except pyvips.Error as error:
        raise ProgramError("svg: " + " ".join(str(error).split())) from None
    wanted = (max(1, round(size[0] * scale)), max(1, round(size[1] * scale)))
    return image if image.size == wanted else image.resize(wanted)


def rasterize_pdf(pdf: bytes, max_pixels: int, dpi: int = 150) -> Image.Image:
    """First page through pdfium. A page of absurd size is an error, as its picture would be of no use."""
    import pypdfium2

    try:
        page = pypdfium2.PdfDocument(pdf)[0]
    except (pypdfium2.PdfiumError, IndexError) as error:
        raise ProgramError(f"the PDF has no page that can be drawn: {error}") from None
    width, height = page.get_size()  # points, 1/72 inch
    if not (1 <= width <= 7200 and 1 <= height <= 7200):
        raise ProgramError(f"the page measures {width / 72:.2f} x {height / 72:.2f} inches; 0.02 to 100 are allowed")
    scale = min(dpi / 72, (max_pixels / (width * height)) ** 0.5)
    return page.render(scale=scale).to_pil().convert("RGB")


def crop_margins(image: Image.Image, border: int = 8) -> Image.Image:
    """Cut white margins, keep `border` px. An all-white page is an error: there is nothing on it."""
    box = Image.eval(image.convert("L"), lambda value: 255 * (value < 250)).getbbox()
    if box is None:
        raise ProgramError("the page is empty")
    left, top = max(0, box[0] - border), max(0, box[1] - border)
    return image.crop((left, top, min(image.width, box[2] + border), min(image.height, box[3] + border)))
