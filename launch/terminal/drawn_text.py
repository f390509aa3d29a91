"""Text of a user's own in a picture: no formula, no missing sign, whatever a name is made of."""

import contextlib
from collections.abc import Callable, Iterable, Iterator

# A font that has a box for every sign is none that can be read.
_NOT = ("Last Resort", "LastResort")


@contextlib.contextmanager
def drawn(texts: Iterable[str]) -> Iterator[Callable[[str], str]]:
    """Has matplotlib draw within the context with a font that has the signs of these texts.

    Where no installed font has them all, those that the usual one lacks are escaped.

    Args:
      texts: what is to be drawn.

    Yields:
      What makes of a text the one to give to matplotlib.
    """
    import matplotlib
    from matplotlib import font_manager

    usual = font_manager.FontProperties(family=["DejaVu Sans"])
    known = _signs(font_manager.findfont(usual))
    missing = {ord(sign) for text in texts for sign in printable(text)} - known
    families = ["DejaVu Sans"]
    for font in font_manager.fontManager.ttflist if missing else ():
        if not font.name.startswith(_NOT) and missing <= _signs(font.fname):
            families.append(font.name)
            missing = set()
            break

    def text(given: str) -> str:
        signs = printable(given)
        if missing:
            signs = "".join(_escaped(s) if ord(s) not in known else s for s in signs)
        # Between two of these matplotlib reads a formula.
        return signs.replace("$", r"\$")

    with matplotlib.rc_context({"font.family": families}):
        yield text


def printable(text: str) -> str:
    """The text with everything escaped that has no sign of its own, and what is no UTF-8."""
    whole = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(sign if sign.isprintable() else _escaped(sign) for sign in whole)


def _escaped(sign: str) -> str:
    return sign.encode("unicode_escape").decode("ascii")


def _signs(path: str) -> set[int]:
    """The signs that a font file has; none where it cannot be read."""
    from matplotlib import font_manager

    try:
        return set(font_manager.get_font(path).get_charmap())
    except Exception:  # a damaged font is none to draw with, and no user's mistake
        return set()
