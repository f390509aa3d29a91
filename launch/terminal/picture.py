"""A chart as a PNG file: what the charts share, from the empty figure to the file."""

import contextlib
import io
import pathlib
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from launch.terminal.drawn_text import drawn
from trainer.files.whole_files import write_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BLUE, RED, GREEN, GREY = "#1f6fb4", "#d1495b", "#2e8b57", "#777777"
COLORS = (BLUE, RED, GREEN, "#8e5ea2", "#e39c37", "#555555")
_WIDTH = 9  # inches, of 110 pixels


@contextlib.contextmanager
def picture(
    path: pathlib.Path, texts: Iterable[str], height: float
) -> Iterator[tuple["Figure", Callable[[str], str]]]:
    """A figure to draw in, `height` inches high; at the end of the context it becomes the file.

    Args:
      texts: a user's own, that are drawn.

    Yields:
      The figure; and what makes of each of the texts the one to give to matplotlib.

    Raises:
      OSError: the file cannot be written.
    """
    from matplotlib.figure import Figure  # without pyplot, whose import takes half a second more

    with drawn(texts) as text, io.BytesIO() as png:
        figure = Figure(figsize=(_WIDTH, height), layout="constrained")
        yield figure, text
        for axes in figure.axes:
            axes.spines[["top", "right"]].set_visible(False)
            axes.grid(alpha=0.25)
        figure.savefig(png, dpi=110)
        # A link that is there in its place is replaced and not followed.
        write_bytes(path, png.getvalue())
