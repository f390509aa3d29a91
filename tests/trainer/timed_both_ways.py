"""launch.train where --xla=auto times however short a run, and finds what is told.

    python -m tests.trainer.timed_both_ways RATIO FLAGS…

RATIO is the time of a compiled pass over that of one as it is; `real` to let it be measured.
"""

import sys

import trainer.plan.plan
from launch import train
from launch.process import cli

if __name__ == "__main__":
    ratio = sys.argv.pop(1)
    trainer.plan.plan._LEAST_TO_TIME = 0
    cli.import_tensorflow(0)
    import trainer.xla_choice

    trainer.xla_choice._WORTH_SECONDS = trainer.xla_choice._COMPILING = 0.0
    if ratio != "real":
        trainer.xla_choice._compare = lambda *_: (float(ratio), 1.0)
    cli.exit_with(train.main, trains=True)
