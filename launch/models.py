"""The networks and their sizes: `python -m launch.models vit_s16 keras:EfficientNetV2B0`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from absl import flags as absl_flags

from launch.flags.command import parse
from launch.flags.group import Group
from launch.process import cli
from trainer.models.names import BUILT_IN, DECODERS, KERAS, check_images, check_name

if TYPE_CHECKING:
    from trainer.models.sizes import Size


def define_flags() -> absl_flags.FlagValues:
    """The command's flags."""
    values = absl_flags.FlagValues()
    add = Group(values, "models")
    add.integer("image_size", 0, 0, "Side of the images.\n0: what a network is made for.")
    add.integer("channels", 3, 1, "Channels of the images.")
    add.integer("classes", 0, 0, "Classes.\n0: 1,000, or 10 for networks for small images.")
    add.integer("verbosity", 0, 0, "TensorFlow's own messages.")
    return values


def carry_out(argv: Sequence[str], values: absl_flags.FlagValues) -> int:
    """Carries the command out and returns its exit code."""
    with cli.wrong_command():
        names = parse(values, argv) or [*BUILT_IN, *DECODERS]
        side = values.image_size
        shape = (side, side, values.channels) if side else None
        for name in names:
            _check(name, shape)
    cli.import_tensorflow(values.verbosity)
    from trainer.models.sizes import size_of

    print(f"{'name':28} {'input':>11} {'outputs':>7} {'parameters':>12} {'GMACs':>9}")
    for name in names:
        with cli.wrong_command():
            print(_row(size_of(name, shape, values.classes or None)), flush=True)
    print("\nGMACs: 10⁹ multiply-accumulates of an example forward; as FLOPs twice as many.")
    print(f"keras:NAME has {len(KERAS)} more: {', '.join(list(KERAS)[:3])}, … (docs/models.md)")
    return cli.FINISHED


def _check(name: str, shape: tuple[int, int, int] | None) -> None:
    try:
        check_name(name)
    except ValueError as error:
        raise ValueError(f"{name!r}: {error}") from None
    if shape and name not in DECODERS:
        check_images(name, shape)


def _row(size: "Size") -> str:
    of = "×".join(map(str, size.shape)) + (" tokens" if len(size.shape) == 1 else "")
    return (
        f"{size.name:28} {of:>11} {size.outputs:7,} {size.parameters:12,} "
        f"{size.products / 1e9:9.3g}"
    )


main = cli.entry_point("launch.models", define_flags, carry_out)

if __name__ == "__main__":
    cli.exit_with(main)
