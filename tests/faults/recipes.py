"""What the runs that are killed train, by name."""

import dataclasses

from input_pipeline.layout import Layout

GLOBAL_BATCH = 16
# The periods do not divide each other.
_COMMON = (
    "--device=cpu --dataset=python:tests.faults.digits:open_split --augment=shift(1)|flip "
    f"--model=mlp --dropout=0.2 --precision=float16 --global_batch={GLOBAL_BATCH} "
    "--train_for=140st --optimizer=sgd --momentum=0.9 --weight_decay=0.01 --clip_norm=0.5 "
    "--ema=0.9 --learning_rate=0.05 --lr_scaling=adascale --lr_reference_batch=8 --warmup=none "
    "--decay=python:tests.faults.schedule:make --plateau=reduce(factor=0.5,patience=1) "
    "--log_every=4st --eval_every=17st --checkpoint_every=6st --steps_per_loop=5 --keep=3"
)
_LARGE = "--precision=float32 --train_for=26st --eval_every=7st --checkpoint_every=4st --ema=0"


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A recipe.

    Attributes:
      flags: beside those that all have.
      micro_batch: the examples that a replica takes at a time.
      replicas: that its processes have.
    """

    flags: str = ""
    micro_batch: int = 2
    replicas: tuple[int, ...] = (1, 2, 4, 8)

    def command(self, replicas: int) -> list[str]:
        """The arguments of `launch.train`."""
        batch = [f"--micro_batch={self.micro_batch}", f"--replicas={replicas}"]
        return [*_COMMON.split(), *self.flags.split(), *batch]

    def layout(self) -> Layout:
        """The micro-batches of a step: all replicas together read them in the order of one."""
        return Layout(GLOBAL_BATCH, accumulate=GLOBAL_BATCH // self.micro_batch)


def _large(model: str, side: int) -> Recipe:
    return Recipe(f"{_LARGE} --model={model} --image_size={side}", 8, (1, 2))


def _of(source: str) -> str:
    return f"--dataset=python:tests.faults.digits:{source}"


RECIPES = {
    "classes": Recipe(),
    "regression": Recipe(_of("values")),
    "multi_label": Recipe(_of("labels")),
    "text": Recipe(f"{_of('text')} --model=decoder_s --augment=none {_LARGE}", 8, (1, 2)),
    "subclassed": Recipe(
        "--model=python:tests.faults.networks:small --dropout=0 --precision=float32"
    ),
    "unfreezing": Recipe(
        "--optimizer=adamw --lr_scaling=none --learning_rate=0.003 --freeze=dense1.* "
        "--unfreeze_at=60st"
    ),
    "resnet50": _large("resnet50", 8),
    "vit_ti16": _large("vit_ti16", 16),
    "MobileNetV2": _large("keras:MobileNetV2", 32),
}
