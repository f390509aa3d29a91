"""The facts of a dataset that the plan needs and that every checkpoint keeps."""

import dataclasses

from trainer.files.from_json import Count


@dataclasses.dataclass(frozen=True)
class SplitDigests:
    """Digests that tell the examples of a split from others; empty where they are not known.

    None of them depends on where the data lie, nor on times: a copy has the same.
    """

    labels: str = ""  # of all labels in their order
    order: str = ""  # of what tells which example has which number
    contents: str = ""  # of what may change while every number means the same example


@dataclasses.dataclass(frozen=True)
class DatasetFacts:
    """Facts of the data: their sizes, names and digests.

    Every checkpoint keeps it: see `trainer.run_folder.same_data`.
    """

    name: str
    train_examples: Count
    eval_examples: Count
    num_classes: Count  # or other targets: labels, values, tokens that can follow
    # Height, width, channels, as the model sees them; of text the tokens of a row.
    image_shape: tuple[Count, Count, Count] | tuple[Count]
    shuffle_block: Count = 0  # records of the blocks that are permuted; 0: all records are
    left_out: Count = 0  # bad records that are in the files and not among the examples
    class_weights: tuple[float, ...] = ()  # of the training loss, by label; empty: all 1
    notes: tuple[str, ...] = ()  # how the examples were chosen: what was left out, or held out
    class_names: tuple[str, ...] = ()  # by label; empty where they are not known
    train: SplitDigests = SplitDigests()
    evaluation: SplitDigests = SplitDigests()
    targets: str = "class"  # what is to be told: see `input_pipeline.targets`
    # Of targets that are numbers: mean and standard deviation of those to train on.
    target_means: tuple[float, ...] = ()
    target_deviations: tuple[float, ...] = ()
    bytes_per_token: float = 1.0  # of the text to evaluate on
    as_given: bool = False  # in the order of a tf.data.Dataset of the user's own
