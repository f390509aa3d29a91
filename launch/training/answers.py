"""What a model answers to each example of a source, in a pass of its own with a bar."""

from typing import TYPE_CHECKING

import numpy as np
import tqdm

if TYPE_CHECKING:
    from trainer.answers import Kept
    from trainer.evaluation import Evaluation
    from trainer.replicas.streams import Stream


def every_answer(
    pass_: "Evaluation",
    stream: "Stream",
    batches: int,
    examples: int,
    kept: "Kept | None" = None,
) -> dict[str, np.ndarray]:
    """What `trainer.answers.answer_all` finds, without what pads the pass.

    Args:
      pass_: the evaluation whose model is asked.
      stream: of all examples.
      batches: of it, for each replica.
      examples: of the source.
      kept: what is kept of the outputs and the batch; None: all outputs, and the labels.

    Returns:
      That, by name [examples, …].
    """
    from trainer.answers import answer_all, outputs_and_labels

    with tqdm.tqdm(
        total=batches, desc="answers", unit=" batches", leave=False, delay=1, disable=None
    ) as bar:
        kept = kept or outputs_and_labels
        found = answer_all(pass_, stream, batches, kept, went_on=lambda _: bar.update())
    own = found["position"] < examples
    return {name: values[own] for name, values in found.items()}
