"""What the user asked for of the data, as plain values."""

from dataclasses import dataclass


@dataclass(frozen=True)
class DataSettings:
    """The dataset and what is done to its training images.

    Attributes:
        dataset: which dataset, `digits` or `synthetic:HxWxC[xCLASSES]`.
        data_dir: the folder that holds datasets which are not part of the package.
        augment: operations on training images, for example `shift(1)|flip`, or `none`.
        image_size: height and width of the images that the model sees; 0: the dataset's own.
        mixup: α of mixup's Beta(α, α); 0: none.
        cutmix: α of cutmix's Beta(α, α); 0: none.
        max_bad_records: how many records of a split may be bad and are left out.
    """

    dataset: str
    data_dir: str = ""
    augment: str = "none"
    image_size: int = 0
    mixup: float = 0.0
    cutmix: float = 0.0
    max_bad_records: int = 0
