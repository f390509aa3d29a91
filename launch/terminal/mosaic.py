"""Pictures drawn in milliseconds, while a run trains: examples in rows, a confusion matrix.

By Pillow alone: matplotlib, which draws for the commands, takes seconds to load.
"""

import functools
import importlib.util
import io
import pathlib
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from launch.terminal.drawn_text import printable

# TensorBoard shows a picture 350 pixels wide: it is drawn for about that.
_SIDE, _GAP, _LINE = 72, 5, 14  # pixels: of a picture's longer side, between two, of a line
_INK, _GREY = "#222222", "#777777"
_DARK = np.array([8, 48, 107])
# More classes have no names beside the matrix; with fewer, its cells have numbers.
_NAMED, _NUMBERED = 40, 15
_MATRIX, _NAME = 400, 90  # pixels


def mosaic(
    pictures: Sequence[np.ndarray], captions: Sequence[str], heading: str, columns: int
) -> bytes:
    """Pictures in rows, each below its caption, as a PNG file.

    Args:
      pictures: uint8 [height, width, channels] each; what is transparent is on white.
      captions: of one or more lines, as many for each.
    """
    images = [_fitted(picture) for picture in pictures]
    lines = max((caption.count("\n") for caption in captions), default=0) + 1
    width = max((image.width for image in images), default=0) + _GAP
    width = max(width, _SIDE + _GAP)
    height = max((image.height for image in images), default=0) + lines * _LINE + _GAP
    rows = -(-len(images) // columns)
    sheet = Image.new("RGB", (columns * width + _GAP, rows * height + _LINE + 2 * _GAP), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((_GAP, _GAP), printable(heading), font=_font(11), fill=_GREY)
    for number, (image, caption) in enumerate(zip(images, captions, strict=True)):
        x = _GAP + number % columns * width
        y = _LINE + 2 * _GAP + number // columns * height
        for line in caption.split("\n"):
            draw.text((x, y), _cut(printable(line), width - _GAP), font=_font(10), fill=_INK)
            y += _LINE
        sheet.paste(image, (x, y))
    return _png(sheet)


def confusion(matrix: np.ndarray, names: Sequence[str], heading: str) -> bytes:
    """A confusion matrix, of each class the shares of the answers, as a PNG file.

    Args:
      matrix: float64 [classes, classes], examples of the class of a row by answer.
      names: of the classes.
    """
    classes = len(names)
    cell = max(1, min(32, _MATRIX // classes))
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1e-9)
    colours = np.rint(255 - shares[..., None] * (255 - _DARK)).astype(np.uint8)
    size = (classes * cell, classes * cell)
    longest = max(_font(11).getlength(printable(name)) for name in names)
    margin = int(min(longest, _NAME)) + 3 * _GAP if classes <= _NAMED else _GAP
    sheet = Image.new(
        "RGB", (margin + size[0] + _GAP, 2 * _LINE + margin + size[1] + _GAP), "white"
    )
    left, top = margin, 2 * _LINE + margin
    sheet.paste(Image.fromarray(colours).resize(size, Image.Resampling.NEAREST), (left, top))
    draw = ImageDraw.Draw(sheet)
    draw.text((_GAP, _GAP), printable(heading), font=_font(11), fill=_GREY)
    draw.rectangle((left, top, left + size[0], top + size[1]), outline=_GREY)
    if classes <= _NAMED:
        _name_cells(sheet, names, cell, left, top)
    for (row, column), count in np.ndenumerate(matrix) if classes <= _NUMBERED else ():
        if count:
            at = (left + (column + 0.5) * cell, top + (row + 0.5) * cell)
            ink = "white" if shares[row, column] > 0.5 else _INK
            draw.text(at, f"{count:.3g}", font=_font(11), fill=ink, anchor="mm")
    return _png(sheet)


def _name_cells(sheet: Image.Image, names: Sequence[str], cell: int, left: int, top: int) -> None:
    """Writes the classes beside the rows, and the answers above the columns."""
    draw, font = ImageDraw.Draw(sheet), _font(11 if cell > 11 else 9)
    for number, name in enumerate(names):
        text, middle = _cut(printable(name), left - 2 * _GAP), (number + 0.5) * cell
        draw.text((left - _GAP, top + middle), text, font=font, fill=_INK, anchor="rm")
        across = Image.new("RGB", (left - _GAP, _LINE), "white")
        ImageDraw.Draw(across).text((0, _LINE / 2), text, font=font, fill=_INK, anchor="lm")
        upright = across.rotate(90, expand=True)
        # Names of small cells overlap by what is white.
        box = (int(left + middle - _LINE / 2), top - _GAP - upright.height + _GAP // 2)
        sheet.paste(upright, box, Image.eval(upright.convert("L"), lambda grey: 255 - grey))


def _fitted(picture: np.ndarray) -> Image.Image:
    """A picture as large as it is drawn; single pixels of a small one stay to be seen."""
    height, width, channels = picture.shape
    image = Image.fromarray(picture[..., 0] if channels in (1, 2) else picture[..., :4])
    if channels == 4:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    scale = _SIDE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    how = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BILINEAR
    return image.convert("RGB").resize(size, how)


def _cut(text: str, width: float) -> str:
    """The text, no longer than fits."""
    if _font(11).getlength(text) <= width:
        return text
    while text and _font(11).getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The font that matplotlib brings with it, which has more signs than Pillow's own."""
    found = importlib.util.find_spec("matplotlib")
    if found and found.origin:
        path = pathlib.Path(found.origin).parent / "mpl-data/fonts/ttf/DejaVuSans.ttf"
        if path.exists():
            return ImageFont.truetype(path, size)
    return ImageFont.load_default(size)


def _png(image: Image.Image) -> bytes:
    content = io.BytesIO()
    image.save(content, "PNG")
    return content.getvalue()
