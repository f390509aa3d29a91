"""What the user asked for of the data, as plain values."""

from dataclasses import dataclass


@dataclass(frozen=True)
class DataSettings:
    """The dataset and what is done to its training images.

    Attributes:
        dataset: which dataset, `digits` or `synthetic:HxWxC[xCLASSES]`.
        data_dir: the folder that holds datasets which are not part of the package.
        augment: operations on training images, for example `shift(1)|flip`, or `none`.
    """

    dataset: str
    data_dir: str = ""
    augment: str = "none"
