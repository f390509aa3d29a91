"""Trains every task twice, whole and killed in between: python -m tests.trainer.tasks.each_task DIR

All in one process, on two replicas. What was killed is what a kill leaves: the checkpoint of the
middle, and a log that has gone further. With `1` behind DIR those of `ON_ONE` once, on one replica.
"""

import importlib
import os
import pathlib
import shlex
import shutil
import sys

import numpy as np
import PIL.Image

from launch.process import cli
from tests import pages
from tests.helpers import REPOSITORY

COMMON = (
    "--device=cpu --global_batch=16 --micro_batch=4 --train_for=8st --lr_scaling=none "
    "--learning_rate=0.01 --optimizer=adamw --log_every=3st --eval_every=8st --checkpoint_every=4st"
)
TEXT = f"text:{REPOSITORY}/launch/process/*.py"
TASKS = {
    "regression": "--task=regression --dataset=arrays:values.npz --model=mlp --dropout=0.2",
    "multi_label": "--task=multi_label --dataset=arrays:labels.npz --model=mlp",
    "segmentation": "--dataset=folder:masks --model=python:pixels:build '--augment=flip|shift(1)'",
    "language_model": f"--dataset={TEXT} --model=decoder_s --sequence_length=16 --dropout=0.1",
    "own_data": "--dataset=python:own_data:source --model=mlp",
    "own": "--task=python:contrastive:task --dataset=digits --model=mlp",
    "two_heads": "--task=python:two_heads:task --model=python:two_heads:model --dataset=digits",
}
# Those that no row of `tests.trainer.matrix_rows` has.
ON_ONE = ("own_data", "own", "two_heads")
FILES = {"contrastive.py": "docs/tasks.md", "two_heads.py": "docs/tasks.md"}
FILES["own_data.py"] = "docs/notebook.md"


# A model of pixels of one's own.
PIXELS = """
import keras
from keras import layers

def build(spec):
    images = keras.Input(spec.shape, dtype=spec.dtype)
    x = layers.Conv2D(8, 3, padding="same")(layers.Rescaling(1 / 255)(images))
    x = layers.Dropout(0.1)(layers.ReLU()(layers.BatchNormalization()(x)))
    return keras.Model(images, layers.Conv2D(spec.outputs, 1, dtype="float32")(x))
"""


def write_data() -> None:
    """Pictures with numbers and labels that follow from them, and the task of the documentation."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (70, 4, 4), "uint8")
    for name, image in zip("ab", images[50:52], strict=True):
        PIL.Image.fromarray(image).save(f"{name}.png")
    values = np.stack([images[:, 0, 0], 5.0 - images[:, 1, 1]], axis=1)
    for name, targets in {"values": values, "labels": values > values.mean(axis=0)}.items():
        train, test = slice(0, 50), slice(50, None)
        np.savez(
            f"{name}.npz",
            x_train=images[train],
            y_train=targets[train],
            x_test=images[test],
            y_test=targets[test],
        )
    write_masks(random)
    pathlib.Path("pixels.py").write_text(PIXELS, encoding="utf-8")
    for name, page in FILES.items():
        files = dict(block.file for block in pages.blocks(page) if block.file)
        pathlib.Path(name).write_text(files[name], encoding="utf-8")
    sys.path.insert(0, "")


def write_masks(random: np.random.Generator) -> None:
    """Pictures of 16 × 16 whose mask follows from their levels, and where nothing is labelled."""
    for number in range(70):
        split = "train" if number < 50 else "test"
        picture = random.integers(0, 256, (4, 4, 3), "uint8").repeat(4, 0).repeat(4, 1)
        mask = picture[..., 0] // 86
        mask[number % 16] = 255
        for name, image in (("images", picture), ("masks", mask)):
            folder = pathlib.Path("masks", split, name)
            folder.mkdir(parents=True, exist_ok=True)
            PIL.Image.fromarray(image).save(folder / f"{number}.png")


def train(task: str, folder: str, replicas: int = 2) -> None:
    """Trains, or goes on, in a folder of this name."""
    carry_out(f"launch.train {COMMON} {TASKS[task]} --replicas={replicas} --run_dir={folder}")


def carry_out(line: str) -> None:
    """Carries a command out, which has to end with 0."""
    import keras

    module, *arguments = shlex.split(line)
    code = importlib.import_module(module).main(arguments)
    assert code == 0, (line, code)
    keras.utils.clear_session()


def main() -> None:
    """Leaves the folders TASK and TASK-killed in the folder given, or TASK-one."""
    os.chdir(sys.argv[1])
    write_data()
    cli.import_tensorflow(0)
    if sys.argv[2:] == ["1"]:
        for task in ON_ONE:
            train(task, f"{task}-one", 1)
        return
    for task in TASKS:
        train(task, task)
        shutil.copytree(task, f"{task}-killed")
        left = pathlib.Path(f"{task}-killed")
        shutil.rmtree(left / "checkpoints/step-8")
        (left / "model.keras").unlink()
        train(task, left.name)
        out = f"{task}-evaluated" if task == "segmentation" else "none"
        carry_out(f"launch.evaluate {task} --replicas=2 --out={out} --json={task}.json")
    carry_out("launch.predict segmentation masks/test/images --out=told")
    carry_out("launch.predict segmentation/model.keras masks/test/images --out=told_by_file")
    carry_out("launch.export segmentation --format=saved_model --out=exported")
    for task in ("regression", "multi_label"):
        carry_out(f"launch.predict {task} a.png b.png --top=2 --out={task}.csv")


if __name__ == "__main__":
    cli.exit_with(lambda argv: main() or cli.FINISHED)
