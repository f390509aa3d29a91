"""Several commands in one process: python -m tests.launch.in_one_process COMMANDS.json

Starting TensorFlow takes longer than what a test does with it. All have to ask for the same
devices. The file has command lines by name, such as `launch.verify RUN_DIR`; `flip` in place of
`launch.train` is one in which a bit of a weight flips (`tests.trainer.actions.flip_a_bit`), and
`wrongly` before a command has its device compute so (`tests.trainer.compute_wrongly`).
"""

import contextlib
import importlib
import io
import json
import pathlib
import shlex
import sys
import unittest.mock

from launch.process import cli
from tests.trainer import compute_wrongly
from tests.trainer.actions.flip_a_bit import faulty


def carry_out(line: str) -> tuple[int, str]:
    """A command's exit code and what it has printed."""
    import keras

    import trainer.run
    from trainer.step import TrainStep

    words = shlex.split(line)
    wrongly = words[0] == "wrongly"
    module, *arguments = words[wrongly:]
    build = trainer.run.build_run
    if module == "flip":
        module, build = "launch.train", faulty(build, 0, 12)
    main = importlib.import_module(module).main
    with (
        contextlib.redirect_stdout(io.StringIO()) as out,
        unittest.mock.patch("trainer.run.build_run", build),
        unittest.mock.patch("trainer.run.build_step", trainer.run.build_step),
        unittest.mock.patch.object(TrainStep, "forward_backward", TrainStep.forward_backward),
    ):
        if wrongly:  # in the first micro-batch of step 4
            compute_wrongly.plant(0, 3, "192")
        try:
            code = main(arguments)
        except cli.WrongCommandError as error:
            print(f"error: {error}")
            code = cli.WRONG_COMMAND
        except cli.FailedError as error:
            print(f"error: {error}")
            code = cli.FAILED
    keras.utils.clear_session()
    return code, out.getvalue()


def main() -> None:
    """Carries the commands out and prints what came of them as JSON, by name."""
    lines = json.loads(pathlib.Path(sys.argv[1]).read_text(encoding="utf-8"))
    cli.import_tensorflow(0)
    print(json.dumps({name: carry_out(line) for name, line in lines.items()}))


if __name__ == "__main__":
    cli.exit_with(lambda argv: main() or cli.FINISHED)
