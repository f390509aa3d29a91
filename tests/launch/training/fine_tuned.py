"""A fine-tuning by `launch.train`, whole, and killed in the middle and resumed; in one process.

    python -m tests.launch.training.fine_tuned REPLICAS FOLDER

FOLDER has `first.keras`, which is moved away before the run is resumed.
"""

import json
import pathlib
import shutil
import sys

from launch.process import cli
from tests.launch.in_one_process import carry_out

STEPS, KILLED_AT = 8, 4


def main() -> None:
    """Prints what each command has printed."""
    replicas, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    cli.import_tensorflow(0)
    first = folder / f"first_{replicas}.keras"
    shutil.copyfile(folder / "first.keras", first)

    def command(run: str) -> str:
        return (
            f"launch.train --device=cpu --replicas={replicas} --global_batch=64 --micro_batch=16 "
            f"--model=resnet20 --train_for={STEPS}st --checkpoint_every={KILLED_AT}st "
            f"--eval_every=0 --optimizer=adamw --learning_rate=0.01 --weight_decay=0.01 --ema=0.9 "
            f"--clip_norm=1 --l2=0.001 --threads=1 --init_from={first} --freeze=stem.*,stage1.* "
            f"--unfreeze_at=6st --layer_decay=0.8 --run_dir={folder / run}"
        )

    whole, killed = folder / f"whole_{replicas}", folder / f"killed_{replicas}"
    said = {"whole": carry_out(command(whole.name))}
    shutil.copytree(whole, killed)
    shutil.rmtree(killed / "checkpoints" / f"step-{STEPS}")
    (killed / "model.keras").unlink()
    first.unlink()
    said["killed"] = carry_out(command(killed.name))
    print(json.dumps(said))


if __name__ == "__main__":
    cli.exit_with(lambda argv: main() or cli.FINISHED)
