"""A command line's list of names, such as `--arms=fit,jax`."""

import argparse
from collections.abc import Callable, Collection


def names_of(known: Collection[str], always: tuple[str, ...] = ()) -> Callable[[str], tuple]:
    """What reads `a,b`, each of which has to be known; those of `always` come first in any case."""

    def read(text: str) -> tuple[str, ...]:
        names = tuple(dict.fromkeys([*always, *text.split(",")]))
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name!r} is not one of {', '.join(known)}")
        return names

    return read
