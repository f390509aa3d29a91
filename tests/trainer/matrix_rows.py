"""The rows of the matrix: recipes, each of which is trained on several numbers of replicas."""

import dataclasses

EVERYTHING = (
    "--device=cpu --lr_scaling=none --warmup=10% --decay=cosine --momentum=0.9 --weight_decay=0.01 "
    "--ema=0.9 --label_smoothing=0.1"
)
POWERS = (1, 2, 4, 8)


@dataclasses.dataclass(frozen=True)
class Row:
    """A recipe: a network and flags beside `EVERYTHING`, and the replicas that can share it.

    Attributes:
      overflows: whether examples weigh so much in some steps that a float16 gradient overflows.
      mixed: whether examples have two labels, as after mixup and cutmix.
      side: of the images, which are square and gray.
      targets: what the examples have, one of `input_pipeline.targets.TARGETS`.
      gain: the most steps that a step counts for, which AdaScale ends a run the sooner by.
    """

    flags: str
    network: str = "small"
    micro_batches: int = 8
    replicas: tuple[int, ...] = POWERS
    class_weights: tuple[float, ...] = ()
    overflows: bool = False
    mixed: bool = False
    side: int = 4
    targets: str = "class"
    gain: int = 1
    steps: int = 12  # where not asked for otherwise


SGD = "--optimizer=sgd --learning_rate=0.05"
# Muon orthogonalizes matrices, Adafactor has sums over rows and columns, Ftrl no decay of its own.
OPTIMIZERS = {
    "sgd": f"{SGD} --clip_norm=0.1",
    "adamw": "--optimizer=adamw --learning_rate=0.01 --clip_value=0.01",
    "lamb": "--optimizer=lamb --learning_rate=0.01 --clip_adaptive=0.01",
    "lars": "--optimizer=lars --learning_rate=0.5",
    "muon": "--optimizer=muon --learning_rate=0.01",
    "adafactor": "--optimizer=adafactor --learning_rate=0.01",
}
OTHER_OPTIMIZERS = {
    "sgd, plain": "'--optimizer=sgd(momentum=0,nesterov=false)' --learning_rate=0.05",
    "adam, amsgrad": "'--optimizer=adam(amsgrad=true)' --learning_rate=0.01",
    "nadam": "--optimizer=nadam --learning_rate=0.01",
    "adamax": "--optimizer=adamax --learning_rate=0.01",
    "lion": "--optimizer=lion --learning_rate=0.001",
    "schedule_free_adamw": "--optimizer=schedule_free_adamw --learning_rate=0.01",
    "rmsprop": "'--optimizer=rmsprop(momentum=0.9,centered=true)' --learning_rate=0.001",
    "adagrad": "--optimizer=adagrad --learning_rate=0.05",
    "adadelta": "--optimizer=adadelta --learning_rate=0.5",
    "ftrl": "--optimizer=ftrl --learning_rate=0.05 --warmup=none --decay=constant --weight_decay=0",
}
FROZEN = "--optimizer=adamw --learning_rate=0.001 --unfreeze_at=4st"
OPTIONS = {
    "mixed": Row(SGD, mixed=True, class_weights=(2.5, 1.0, 0.2, 1.0)),
    "float16": Row(f"{SGD} --precision=float16 --clip_norm=1", overflows=True),
    "bfloat16": Row(f"{SGD} --precision=bfloat16"),
    "adascale": Row(f"{SGD} --lr_scaling=adascale --lr_reference_batch=8", gain=4),
    "pieces": Row(f"{SGD} --pack_mb=0.0001 --l2=0.01 --clip_norm=0.1"),
    "xla": Row(f"{SGD} --xla=on", steps=6),
    # Neither of three nor of six is every R-th micro-batch a subtree: all parts are gathered.
    "twelve": Row(f"{SGD} --clip_norm=0.1", micro_batches=12, replicas=(1, 2, 3, 4, 6, 12)),
    "mlp": Row(f"{SGD} --dropout=0.2", "mlp"),
    "cnn": Row(f"{SGD} --dropout=0.2", "cnn", side=8),
    "transformer": Row("--optimizer=adamw --learning_rate=0.01 --clip_norm=1", "transformer"),
    "resnet20": Row(f"{SGD} --dropout=0.2", "resnet20", side=8),
    "regression": Row(f"{SGD} --label_smoothing=0 --clip_norm=0.1", targets="values"),
    "multi_label": Row(f"{SGD} --label_smoothing=0 --clip_norm=0.1", targets="labels"),
    "segmentation": Row(f"{SGD} --label_smoothing=0", "small_unet", side=8, targets="masks"),
    "language_model": Row(
        "--label_smoothing=0 --optimizer=adamw --learning_rate=0.01 --dropout=0.1",
        "decoder_s",
        targets="tokens",
        steps=6,
    ),
    "subclassed": Row(SGD, "subclassed"),
    "small_vit": Row(f"{FROZEN} --freeze=block1.* --clip_norm=1", "small_vit", side=32),
}
ROWS = {name: Row(flags) for name, flags in OPTIMIZERS.items()} | OPTIONS
# Of the slow arm alone.
MORE_ROWS = {name: Row(flags) for name, flags in OTHER_OPTIMIZERS.items()} | {
    "cnn, float16": Row(f"{SGD} --precision=float16", "cnn", side=8, overflows=True),
    "cnn, bfloat16": Row(f"{SGD} --precision=bfloat16", "cnn", side=8),
    "cnn, xla": Row(f"{SGD} --xla=on", "cnn", side=8),
    "cnn, adascale": Row(
        f"{SGD} --lr_scaling=adascale --lr_reference_batch=8", "cnn", side=8, gain=4
    ),
    "cnn, pieces": Row(f"{SGD} --pack_mb=0.01 --l2=0.001", "cnn", side=8),
    "transformer, mixed": Row(
        "--optimizer=lamb --learning_rate=0.01 --clip_adaptive=0.01",
        "transformer",
        mixed=True,
        class_weights=(2.5, 1.0, 0.2, 1.0),
    ),
    "transformer, float16": Row(f"{SGD} --precision=float16", "transformer", overflows=True),
    "transformer, xla": Row("--optimizer=adamw --learning_rate=0.01 --xla=on", "transformer"),
    "unet_s": Row(f"{SGD} --label_smoothing=0", "unet_s", side=16, targets="masks", steps=6),
    "vit_ti16": Row(f"{FROZEN} --freeze=block[1-9].*", "vit_ti16", 2, (1, 2), side=16, steps=6),
    "resnet50": Row(SGD, "resnet50", 2, (1, 2), side=32, steps=4),
    "keras:MobileNetV2": Row(SGD, "keras:MobileNetV2", 2, (1, 2), side=32, steps=4),
    "resnet20, twelve": Row(SGD, "resnet20", 12, (1, 3, 6), side=8),
}
