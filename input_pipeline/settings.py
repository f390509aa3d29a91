"""The settings of the data, as plain values."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class DataSettings:
    """The dataset and what is done to its training images.

    Attributes:
      dataset: which dataset, one of the forms in `sources.DATASETS`.
      data_dir: the folder that holds the datasets of TFDS; empty: its own default.
      train_split: what to train on, a split of TFDS such as `train[:90%]` or the name of a
        folder in folder:DIR; empty: `train`.
      eval_split: what to evaluate on; empty: the first of `test` and `validation` that exists.
      holdout: the share of a dataset's training records to evaluate on instead, such as `10%`;
        empty: 10 % where it has no split to evaluate on, else none.
      seed: chooses the records that are held out.
      features: where a tf.train.Example holds image, label and, if it has one, its weight:
        `image=NAME,label=NAME,weight=NAME`; empty: what TFDS says, else `image` and `label`.
      num_classes: the number of classes of TFRecord files or masks; 0: that of their classes.txt.
      image_size: height and width of the images that the model sees; 0: the dataset's own.
      shuffle_block: records of the blocks that are permuted and shuffled into each other, where
        random reads are slow; 0: all records are shuffled.
      augment: operations on training images, for example `shift(1)|flip`, or `none`.
      mixup: α of mixup's Beta(α, α); 0: none.
      cutmix: α of cutmix's Beta(α, α); 0: none.
      targets: what is to be told, one of `targets.TARGETS`; empty: what the dataset has.
      sequence_length: of text, the tokens that are told of a row; 0: 256.
      tokenizer: of text, the path of a SentencePiece model; empty: its bytes are the tokens.
      max_bad_records: how many records of a split may be bad and are left out.
    """

    dataset: str
    data_dir: str = ""
    train_split: str = ""
    eval_split: str = ""
    holdout: str = ""
    seed: int = 0
    features: str = ""
    num_classes: int = 0
    image_size: int = 0
    shuffle_block: int = 0
    augment: str = "none"
    mixup: float = 0.0
    cutmix: float = 0.0
    max_bad_records: int = 0
    targets: str = ""
    sequence_length: int = 0
    tokenizer: str = ""
