"""Every so often: a histogram of each layer's weights, and how much a step has changed them.

The change is that of a single step: no block crosses the one before it, nor its end.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from trainer.loop import Block
from trainer.plan.plan import Plan
from trainer.replicas.variables import first_copy
from trainer.run_folder.boards import histogram_value
from trainer.run_folder.journal import Journal

_BINS = 30
Weights = dict[str, np.ndarray]


class Histograms:
    """Writes `weights/LAYER` for TensorBoard, and rows of `update_ratio/LAYER`, ‖Δw‖ / ‖w‖.

    Args:
      plan: of the run; `plan.histograms_every` says how often, 0: never.
      layers: the variables that train, by layer.
      first: the step that the training goes on from.
    """

    def __init__(
        self,
        plan: Plan,
        layers: Mapping[str, Sequence[tf.Variable]],
        first: int,
        journal: Journal,
    ) -> None:
        self._plan, self._layers, self._journal = plan, layers, journal
        self._before: Weights = {}
        self._keep(first)

    def next_due(self, step: int) -> float:
        """The first step after `step` that no block may cross."""
        if not self._plan.histograms_every:
            return np.inf
        due = self._plan.next_due(step, self._plan.histograms_every)
        return due - 1 if due - 1 > step else due

    def __call__(self, block: Block) -> None:
        """Writes what is due after this block."""
        if self._is_due(block.last) and self._before:
            self._write(block.last)
        self._keep(block.last)

    def _is_due(self, step: int) -> bool:
        every = self._plan.histograms_every
        return bool(every) and self._plan.due(step, every)

    def _keep(self, step: int) -> None:
        """Keeps the weights where the next step is one to compare."""
        self._before = self._weights() if self._is_due(step + 1) else {}

    def _weights(self) -> Weights:
        """All weights of each layer, float64 [n]."""
        return {
            name: np.concatenate(
                [first_copy(v).value().numpy().astype(np.float64).ravel() for v in variables]
            )
            for name, variables in self._layers.items()
        }

    def _write(self, step: int) -> None:
        ratios = {}
        for name, weights in self._weights().items():
            norm = np.linalg.norm(weights)
            change = np.linalg.norm(weights - self._before[name])
            ratios[f"update_ratio/{name}"] = float(change / norm) if norm else float("nan")
            finite = weights[np.isfinite(weights)]
            if len(finite):
                value = histogram_value(f"weights/{name}", buckets(finite))
                self._journal.metrics.boards.add("train", step, value)
        self._journal.rows({step: ratios})


def buckets(values: np.ndarray) -> np.ndarray:
    """A histogram: float64 [bins, 3] of left edge, right edge and count."""
    counts, edges = np.histogram(values, _BINS)
    return np.stack([edges[:-1], edges[1:], counts], axis=1)
