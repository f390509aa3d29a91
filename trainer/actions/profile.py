"""Profiles a span of steps for TensorBoard: each with its marker, and the host's work between.

TensorFlow's own profiler does it; a step's parts are the name scopes `forward`, `backward` and
`update` (`trainer.step`) and `all_reduce` (`trainer.replicas.all_reduce`).
"""

import contextlib
import importlib.util
import math
import pathlib
from collections.abc import Callable, Iterator

import tensorflow as tf

from trainer.files.whole_files import write_bytes
from trainer.loop import Block
from trainer.plan.span import Span


class Profile:
    """Profiles the steps of a span into RUN_DIR/profile, where TensorBoard's plugin looks.

        profile.begin_at(first)
        with profile.step(done):
            rows = train_loop(stream, 1)
        for action in (profile.end, …, profile.begin): action(block)

    Whatever the profiler has against it is a warning: a run does not end of it.

    Args:
      span: the steps; none in a process that does not write the run's folder.
      run_dir: the run's folder.
      first: the step that the process begins after.
      say: prints a line for a person.
    """

    def __init__(
        self, span: Span, run_dir: pathlib.Path, first: int, say: Callable[[str], None]
    ) -> None:
        self._span, self._run_dir, self._first, self._say = span, run_dir, first, say
        self._tried = self._running = False
        self._begun = self._done = first

    def next_boundary(self, step: int) -> float:
        """The first step after `step` that no block may cross; within the span that is the next.

        A device loop is one call, and has one marker.
        """
        if self._span.has_next(step):
            return step + 1
        return self._span.begin if step < self._span.begin else math.inf

    def step(self, done: int) -> contextlib.AbstractContextManager[object]:
        """Around the step that follows so many steps done: its marker, if it is profiled."""
        if not self._running:
            return contextlib.nullcontext()
        return tf.profiler.experimental.Trace("train", step_num=done + 1, _r=1)

    def begin_at(self, step: int) -> None:
        """Starts the profiler if the step after this one is the first to profile."""
        if step == self._first and 0 < self._span.end <= step:
            self._say(f"nothing to profile: {self._span} came before step {step:,}")
        if self._tried or not self._span.has_next(step):
            return
        self._tried = True  # once: what fails would fail again before the next step
        with self._warned("cannot be profiled"):
            tf.profiler.experimental.start(str(self._folder))
            self._running, self._begun, self._done = True, step, step
            left = Span(step, self._span.end)
            of = f", the rest of {self._span}" if step > self._span.begin else ""
            self._say(f"profiling {left}{of}")

    def begin(self, block: Block) -> None:
        """The last action before the next block; see `begin_at`."""
        self.begin_at(block.last)

    def end(self, block: Block) -> None:
        """The first action after a block: writes the profile if that was its last step."""
        self._done = block.last
        if not self._span.has_next(block.last):
            self.close()

    def close(self) -> None:
        """Stops the profiler, if it runs, and writes what it has."""
        if not self._running:
            return
        self._running = False
        done = Span(self._begun, self._done)
        with self._warned("left no profile"):
            before = set(self._written())
            # Without a step, where the first one has raised, there is nothing to look at.
            tf.profiler.experimental.stop(save=done.end > done.begin)
            for path in set(self._written()) - before:
                group_by_markers(path)
                self._say(f"profiled {done}: see TensorBoard's tab Profile")
                if importlib.util.find_spec("xprof") is None:
                    self._say("the tab comes with pip install 'lockstep[profile]'")

    @property
    def _folder(self) -> pathlib.Path:
        return self._run_dir / "profile"

    def _written(self) -> Iterator[pathlib.Path]:
        return self._folder.glob("plugins/profile/*/*.xplane.pb")

    @contextlib.contextmanager
    def _warned(self, what: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # TensorFlow's, CUPTI's, the disk's: none is worth a run
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            self._say(f"warning: {self._span} {what} ({reason.rstrip('.')}); training goes on")


def group_by_markers(path: pathlib.Path) -> None:
    """Has a profile's events counted to the step whose marker they are in.

    The plugin takes every iteration of a loop in a graph for a step if it sees one, and then no
    marker: the device loop is such a loop. It knows them by the name of a statistic, which gets
    another one here.

    Raises:
      ImportError: this TensorFlow has no description of the file.
      OSError: it cannot be read or written.
    """
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    space = xplane_pb2.XSpace.FromString(path.read_bytes())
    for plane in space.planes:
        for statistic in plane.stat_metadata.values():
            if statistic.name == "iter_num":
                statistic.name = "iteration"
    write_bytes(path, space.SerializeToString())
