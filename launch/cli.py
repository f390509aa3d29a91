"""What every entry point shares: a quiet TensorFlow, sentences for mistakes, exit codes."""

import contextlib
import logging
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from input_pipeline.faults import BadRecordError

T = TypeVar("T")
_kept: list[object] = []
_LONGEST = 1_000  # characters of a line of a message
FINISHED, WRONG_COMMAND, FAILED, STOPPED, DIVERGED = 0, 2, 70, 75, 76


class WrongCommandError(Exception):
    """The command cannot be carried out as given; the message is one sentence for its author."""


@contextlib.contextmanager
def wrong_command() -> Iterator[None]:
    """Around what only checks the input: a `ValueError` or `OSError` is the user's to mend."""
    try:
        yield
    except BrokenPipeError:  # is no mistake: exit_with knows what to do
        raise
    except (ValueError, OSError) as error:
        said = str(error)
        if isinstance(error, OSError) and error.strerror:  # the system's own words
            said = f"{error.filename} cannot be used ({error.strerror}); give another."
        raise WrongCommandError(presentable(said)) from error


def presentable(message: str) -> str:
    """A message as a terminal can show it, whatever was given: escapes for what is not a letter."""
    lines = []
    for line in message.split("\n"):
        shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)
        cut = len(shown) > _LONGEST
        lines.append(f"{shown[: _LONGEST // 2]} … {shown[-_LONGEST // 2 :]}" if cut else shown)
    return "\n".join(lines)


def exit_with(main: Callable[[Sequence[str]], int]) -> None:
    """Runs an entry point, exits with its code; a user's mistake is a sentence and exit code 2."""
    # Where HOME is new or cannot be written, it tells of its font cache on stderr.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    try:
        code = main(sys.argv[1:])
        sys.stdout.flush()
    except WrongCommandError as error:
        print(f"error: {error}", file=sys.stderr)
        code = WRONG_COMMAND
    except BadRecordError as error:
        print(f"error: {error}", file=sys.stderr)
        code = FAILED
    except KeyboardInterrupt:
        print("stopped before anything was changed", file=sys.stderr)
        code = STOPPED
    except BrokenPipeError:
        # The reader of our output has left (`| head`): nobody is there to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = FAILED
    except Exception:
        traceback.print_exc()
        code = FAILED
    sys.stdout.flush()
    sys.stderr.flush()
    # Not sys.exit: TensorFlow's threads can wait for the interpreter while it waits for them.
    os._exit(code)


def keep(thing: T) -> T:
    """Keeps something alive until `exit_with` ends the process, which destroys nothing.

    An iterator over an endless input waits in its destructor until all its threads have stopped,
    and glibc 2.25 to 2.40 can lose the wake-up (https://sourceware.org/bugzilla/show_bug.cgi?id=25847):
    now and then the process then waits for ever, after all its work is done.
    """
    _kept.append(thing)
    return thing


def import_tensorflow(verbosity: int) -> None:
    """Imports TensorFlow; at verbosity 0 without the dozen lines that it prints doing so.

    Its C++ start-up writes to file descriptor 2 before any of its own switches takes effect, so
    that descriptor is held aside meanwhile, and shown after all if the import fails.
    """
    os.environ["KERAS_BACKEND"] = "tensorflow"
    if verbosity == 0:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    elif verbosity == 1:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
    with contextlib.nullcontext() if verbosity > 1 else _stderr_held_aside():
        import tensorflow as tf

        tf.config.list_physical_devices()
    tf.get_logger().setLevel(("ERROR", "WARNING", "INFO")[min(verbosity, 2)])


@contextlib.contextmanager
def _stderr_held_aside() -> Iterator[None]:
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as aside:
        os.dup2(aside.fileno(), 2)
        try:
            yield
        except BaseException:
            aside.seek(0)
            os.write(kept, aside.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)
