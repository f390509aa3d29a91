"""What every command shares: --help, a quiet TensorFlow, sentences for mistakes, exit codes."""

import contextlib
import itertools
import logging
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import NoReturn, TypeVar

from absl import flags

from input_pipeline.bad_records import BadRecordError
from launch.flags.help import help_text
from launch.process.cuda_libraries import device_files, open_before_tensorflow
from launch.terminal import output

T = TypeVar("T")
Main = Callable[[Sequence[str]], int]  # takes the arguments, returns the exit code
_kept: list[object] = []
_importing: list[float] = []  # seconds of each import of TensorFlow, of which the first takes long
_LONGEST = 1_000  # characters of a line of a message
FINISHED, WRONG_COMMAND, FAILED, STOPPED, DIVERGED = 0, 2, 70, 75, 76


class WrongCommandError(Exception):
    """The command cannot be carried out as given; the message is one sentence for its author."""


class FailedError(Exception):
    """The run cannot go on; the message is one sentence for a person."""


class TryAgainError(Exception):
    """The run cannot go on for now, and the same command can; the message is one sentence."""


@contextlib.contextmanager
def wrong_command() -> Iterator[None]:
    """Around what only checks the input: a `ValueError` or `OSError` is the user's to mend."""
    try:
        yield
    except (ValueError, OSError) as error:
        said = str(error)
        if isinstance(error, OSError) and error.strerror:  # the system's own words
            what = error.filename or "what was to be written or read"
            said = f"{what} cannot be used ({error.strerror}); give another."
        raise WrongCommandError(presentable(said)) from error


def presentable(message: str) -> str:
    """A message as a terminal can show it, whatever was given: escapes for what is not a letter."""
    lines = []
    for line in message.split("\n"):
        shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)
        cut = len(shown) > _LONGEST
        lines.append(f"{shown[: _LONGEST // 2]} … {shown[-_LONGEST // 2 :]}" if cut else shown)
    return "\n".join(lines)


def entry_point(
    program: str,
    define_flags: Callable[[], flags.FlagValues],
    carry_out: Callable[[Sequence[str], flags.FlagValues], int],
) -> Main:
    """The `main` of a command: answers --help and --helpfull, else carries the command out.

    Args:
      program: how the command is called, such as `launch.plan`.
      define_flags: makes the command's flags.
      carry_out: takes the arguments and the flags, not parsed yet, and returns the exit code.
    """

    def main(argv: Sequence[str]) -> int:
        values = define_flags()
        # Behind a -- stands what is for another program.
        own = set(itertools.takewhile(lambda argument: argument != "--", argv))
        if own & {"--help", "-h", "--helpfull"}:
            print(help_text(values, program, full="--helpfull" in own))
            return FINISHED
        return carry_out(argv, values)

    return main


def exit_with(main: Main, *, trains: bool = False) -> NoReturn:
    """Runs a command and exits with its code; a user's mistake is a sentence and exit code 2.

    Args:
      main: of the command.
      trains: the command does more than to tell, so it does not wait for whoever reads its output,
        nor fail where it cannot be written. Any other does.
    """
    output.install(waits=not trains)
    # Where HOME is new or cannot be written, it tells of its font cache on stderr.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    if not trains:
        # As Ctrl-C, so that other processes and temporary folders of ours go with it.
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
                signal.signal(number, _as_ctrl_c)
    try:
        code = main(sys.argv[1:])
        if code == FINISHED and not trains and not output.is_whole():
            code = FAILED
    except WrongCommandError as error:
        print(f"error: {error}", file=sys.stderr)
        code = WRONG_COMMAND
    except (BadRecordError, FailedError) as error:
        print(f"error: {error}", file=sys.stderr)
        code = FAILED
    except TryAgainError as error:
        print(f"error: {error}", file=sys.stderr)
        code = STOPPED
    except KeyboardInterrupt:
        print(output.INTERRUPTED if trains else "stopped before its end", file=sys.stderr)
        code = STOPPED
    except SystemExit as ended:  # of argparse, which has said what is wrong
        code = ended.code if isinstance(ended.code, int) else FAILED
    except Exception:
        traceback.print_exc()
        code = FAILED
    output.leave(code, output.PATIENCE if trains else None)


def _as_ctrl_c(number: int, frame: FrameType | None) -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as behind a script's &
        raise KeyboardInterrupt
    signal.raise_signal(signal.SIGINT)


def keep(thing: T) -> T:
    """Keeps something alive until `exit_with` ends the process, which destroys nothing.

    An iterator over an endless input waits in its destructor until all its threads have stopped,
    and glibc 2.25 to 2.40 can lose the wake-up (https://sourceware.org/bugzilla/show_bug.cgi?id=25847):
    now and then the process then waits for ever, after all its work is done.
    """
    _kept.append(thing)
    return thing


@contextlib.contextmanager
def _without(package: str) -> Iterator[None]:
    """As if the package were not installed, unless it is imported already."""
    if package in sys.modules:
        yield
        return
    sys.modules[package] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[package]


def import_tensorflow(verbosity: int, *, charts: bool = False) -> None:
    """Imports TensorFlow; at verbosity 0 without the dozen lines that it prints doing so.

    Its C++ start-up writes to file descriptor 2 before any of its own switches takes effect, so
    that descriptor is held aside meanwhile, and shown after all if the import fails.

    Args:
      verbosity: 0 to 2, that of --verbosity.
      charts: whether Keras's own charts will work; to import what they are drawn by takes a fifth
        of the time, and no command draws them.
    """
    began = time.perf_counter()
    _before_tensorflow(verbosity)
    with contextlib.nullcontext() if verbosity > 1 else output.stderr_held_aside():
        with contextlib.nullcontext() if charts else _without("matplotlib"):
            import tensorflow as tf

        gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        from trainer.replicas.strategy import see_gpus

        # For what trains on none; a notebook may have begun to use them already.
        with contextlib.suppress(RuntimeError):
            see_gpus(gpus[:1])
    tf.get_logger().setLevel(("ERROR", "WARNING", "INFO")[min(verbosity, 2)])
    _importing.append(time.perf_counter() - began)


@contextlib.contextmanager
def own_code(verbosity: int) -> Iterator[None]:
    """Around what may import a user's own data, which may import TensorFlow before we do.

    Args:
      verbosity: as in `import_tensorflow`.
    """
    _before_tensorflow(verbosity)
    with contextlib.nullcontext() if verbosity > 1 else output.stderr_held_aside():
        yield


def _before_tensorflow(verbosity: int) -> None:
    os.environ["KERAS_BACKEND"] = "tensorflow"
    if verbosity == 0:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    elif verbosity == 1:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
    if device_files():
        open_before_tensorflow()


def importing_seconds() -> float:
    """How long this process has imported TensorFlow so far."""
    return sum(_importing)
