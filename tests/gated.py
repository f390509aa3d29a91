"""`python -m gated MODULE …`: a command of ours whose training waits at the gates of `Gate`.

A gate is a named pipe in RUN_DIR/control. After what the run itself does there after every block,
and before its first step, it reads each until nobody has it open any more.
"""

import runpy
import sys

from trainer.actions.control import Control


def _with_gates() -> None:
    take_up = Control.take_up

    def take_up_and_wait(self: Control, step: int) -> None:
        take_up(self, step)
        for gate in sorted(self.folder.glob("gate-*")):
            gate.read_bytes()
            gate.unlink(missing_ok=True)

    Control.take_up = take_up_and_wait


if __name__ == "__main__":
    _with_gates()
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
