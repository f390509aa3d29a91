"""The flags of the data, and the settings that they make."""

from absl import flags

from input_pipeline.images.augment_text import parse_augment
from input_pipeline.settings import DataSettings
from input_pipeline.sources.holdout import parse_share
from launch.flags.group import Group
from launch.flags.parsing import one_of, parsed, path
from trainer.models.names import function_of
from trainer.plan.tasks import TASKS

_DATASET = (
    "digits, folder:DIR, tfds:NAME, tfrecord:GLOB, …\n"
    "digits: handwritten digits that come with the package;\n"
    "synthetic:HxWxC[xCLASSES]: patterns made on the fly;\n"
    "tfds:NAME[/CONFIG][:VERSION]: what TensorFlow Datasets has prepared in data_dir;\n"
    "folder:DIR: images in DIR/CLASS, or DIR/train/CLASS and, to evaluate, DIR/test or DIR/val;\n"
    "  or with masks, DIR/train/images and DIR/train/masks;\n"
    "tfrecord:GLOB,EVAL_GLOB: files of tf.train.Examples, local or gs://, s3://, hdfs://;\n"
    "parquet:GLOB: Parquet files with the images inside, as the Hugging Face hub has them;\n"
    "csv:FILE: a table of image files with columns path, label and maybe weight and split;\n"
    "idx:DIR: MNIST's format, train-images-idx3-ubyte and so on, gzip or not;\n"
    "arrays:FILE.npz: x_train, y_train, x_test, y_test, and weights, w_train, w_test;\n"
    "text:GLOB,EVAL_GLOB: text files, for a language model;\n"
    "python:module:function: called with train or eval, returns a Source."
)


def define_data_flags(values: flags.FlagValues) -> None:
    """Adds the flags of the data."""
    add = Group(values, "data", decisive=True)
    _define_splits(add)
    _define_records(add)
    _define_images(add)
    _define_text(add)


def _define_splits(add: Group) -> None:
    add.text("dataset", "digits", _DATASET)
    add.text(
        "task",
        "auto",
        "auto, regression, segmentation, …\n"
        "What is to be learned: classification, multi_label (of csv, labels joined by |), "
        "regression (of csv, columns of numbers), segmentation (of folder, masks beside images, or "
        "csv, paths of masks), language_model (of text), or "
        "python:module:function, which returns a trainer.tasks.task.Task;\n"
        "auto: classes, or what the dataset has.",
    )
    add.text(
        "data_dir",
        "",
        "Where TFDS keeps its data.\nDefault: its own, ~/tensorflow_datasets.",
        rare=True,
        decisive=False,
    )
    add.text(
        "train_split",
        "",
        "What to train on; default: train.\n"
        "tfds: a split or slices of it, train[:90%], train[1000:]+test; folder: a folder's name;\n"
        "csv: what the column of the split holds.",
        rare=True,
    )
    add.text(
        "eval_split",
        "",
        "What to evaluate on; default: test.\n"
        "Of tfds: else validation; of folder: else val, validation, eval, valid, …\n"
        "Where there is none: see --holdout.",
        rare=True,
    )
    add.text(
        "holdout",
        "",
        "Share held out to evaluate on: 10%.\n"
        "Of each class, chosen by --seed. Default: 10% where the dataset has no split to evaluate\n"
        "on; given, it is taken from the training records and such a split stays unused.",
        rare=True,
    )


def _define_records(add: Group) -> None:
    add.text(
        "features",
        "",
        "Features: image=NAME,label=NAME.\nOf tf.train.Examples; of csv and parquet, the columns.\n"
        "weight=NAME: a float of 0 or more that the loss and evaluation weigh an example by.",
        rare=True,
    )
    add.integer(
        "num_classes",
        0,
        0,
        "Classes of tfrecord, or of masks.\n"
        "0: as many as classes.txt has lines; of masks without one, what their numbers tell.",
        high=10_000_000,
        rare=True,
    )


def _define_text(add: Group) -> None:
    add.integer(
        "sequence_length",
        0,
        0,
        "Tokens of a row of text.\n0: 256. Each is told from those before it in its row.",
        high=1_000_000,
        rare=True,
    )
    add.text(
        "tokenizer",
        "",
        "A SentencePiece model's file.\nDefault: the bytes of the text are its tokens.",
        rare=True,
    )


def _define_images(add: Group) -> None:
    add.integer("image_size", 0, 0, "Side of the images.\n0: the dataset's own.")
    add.integer(
        "shuffle_block",
        0,
        0,
        "Permute blocks of records; 0: all records.\n"
        "For disks and stores where random reads are slow: 1024, say. Blocks are read in large\n"
        "pieces and 8 at a time shuffled into each other; 2 x 8 of them are kept in memory.",
        rare=True,
    )
    add.text(
        "augment",
        "none",
        "Augmentation, such as crop|flip.\nOf crop, flip, shift(PIXELS), "
        "jitter(BRIGHTNESS,CONTRAST,SATURATION,HUE), randaugment(LAYERS,MAGNITUDE), "
        "erase(PROBABILITY), joined by |.",
    )
    add.number("mixup", 0.0, "α of mixup, for example 0.2.\n0: none.", rare=True)
    add.number("cutmix", 0.0, "α of cutmix, for example 1.\n0: none.", rare=True)
    add.integer(
        "max_bad_records",
        0,
        0,
        "Unusable records to leave out.\nOf each split; one more ends the run.",
        rare=True,
    )


def data_settings(values: flags.FlagValues) -> DataSettings:
    """The settings that the parsed flags make.

    Raises:
      ValueError: a flag has a value that it cannot take.
    """
    parsed(values, "augment", parse_augment)
    if values.holdout:
        parsed(values, "holdout", parse_share)
    task = task_name(values)
    return DataSettings(
        dataset=values.dataset,
        data_dir=path(values, "data_dir"),
        train_split=values.train_split,
        eval_split=values.eval_split,
        holdout=values.holdout,
        seed=values.seed,
        features=values.features,
        num_classes=values.num_classes,
        image_size=values.image_size,
        shuffle_block=values.shuffle_block,
        augment=values.augment,
        mixup=values.mixup,
        cutmix=values.cutmix,
        max_bad_records=values.max_bad_records,
        targets=TASKS[task].targets if task in TASKS else "",
        sequence_length=values.sequence_length,
        tokenizer=values.tokenizer,
    )


def task_name(values: flags.FlagValues) -> str:
    """The task's name: `auto`, one that is built in, or python:module:function.

    Raises:
      ValueError: there is no such task.
    """
    if values.task.startswith("python:"):
        parsed(values, "task", function_of)
        return values.task
    return one_of("task", values.task, ("auto", *TASKS, "python:module:function"))
