"""Fewer points of a curve, the extremes among them."""

import numpy as np

from launch.reports.log import Curve


def thinned(curve: Curve, most: int) -> Curve:
    """At most `most` points (of at least 8): first, last, and of each stretch the lowest, the
    highest, and one that is not finite where there is any, so that no spike and no gap is lost."""
    if len(curve.steps) <= most:
        return curve
    stretches = np.array_split(np.arange(len(curve.steps)), max(1, (most - 2) // 3))
    kept = {0, len(curve.steps) - 1}
    for stretch in stretches:
        values = curve.values[stretch]
        lost = np.isnan(values)
        if lost.any():
            kept.add(int(stretch[np.argmax(lost)]))
        if not lost.all():
            kept |= {int(stretch[np.nanargmin(values)]), int(stretch[np.nanargmax(values)])}
    order = sorted(kept)
    return Curve(curve.steps[order], curve.values[order])
