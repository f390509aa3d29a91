"""Why more replicas are not as much faster as there are more of them, in a sentence each.

The rules are those of docs/time.md. What is lost against the step of the fewest replicas,
shared out, is parted into the wait for data, the sum over the replicas, and the network; the
largest of them is the cause.
"""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from launch.training.parts import StepParts

# Of what so many more replicas could do; from here on nothing is said.
EFFICIENT = 0.8
# Times as fast, around 1: neither faster nor slower.
SLOWER, FASTER = 0.95, 1.05
# Times as long for the same examples a replica: the replicas are not in each other's way.
APART = 1.3
DATA, SUM, NETWORK = "data", "sum", "network"


@dataclasses.dataclass(frozen=True)
class Loss:
    """What a step on more replicas loses, in seconds by cause."""

    fewer: "StepParts"
    more: "StepParts"

    @property
    def speedup(self) -> float:
        """Times as fast, with the same batch."""
        return self.fewer.step / self.more.step

    @property
    def ratio(self) -> float:
        """Times as many replicas."""
        return self.more.replicas / self.fewer.replicas

    @property
    def efficient(self) -> bool:
        """Whether there is nothing to be said."""
        return self.speedup >= EFFICIENT * self.ratio

    def cause(self) -> str:
        """DATA, SUM or NETWORK."""
        lost = {
            DATA: self.more.waiting - self.fewer.waiting / self.ratio,
            SUM: self.more.all_reduce - self.fewer.all_reduce,
            NETWORK: self.more.network - self.fewer.network / self.ratio,
        }
        return max(lost, key=lost.get)


def verdict(strong: Sequence["StepParts"], weak: Sequence["StepParts"], cores: int) -> list[str]:
    """A sentence on the fewest replicas that are out of order, and on the most if it is another.

    Args:
      strong: with one batch, on ascending numbers of replicas.
      weak: with as many examples a replica, on the same numbers where that could be timed.
      cores: that this process may use.
    """
    losses = [Loss(strong[0], more) for more in strong[1:]]
    wrong = [loss for loss in losses if not loss.efficient]
    shown = wrong[:1] + [loss for loss in wrong[-1:] if loss.cause() != wrong[0].cause()]
    return [sentence(loss, _as_long(loss, weak), cores) for loss in shown]


def _as_long(loss: Loss, weak: Sequence["StepParts"]) -> float:
    """How many times as long the network takes for as many examples a replica; 1: not known."""
    took = {one.replicas: one.network for one in weak}
    fewer, more = took.get(loss.fewer.replicas), took.get(loss.more.replicas)
    return more / fewer if fewer and more else 1.0


def sentence(loss: Loss, as_long: float, cores: int) -> str:
    """How much faster it is, why not more, and what to do.

    Args:
      as_long: times that the network takes, on more replicas, for as many examples each.
      cores: that this process may use.
    """
    why = {DATA: data_text, SUM: sum_text}.get(loss.cause())
    return f"{speed_text(loss)}: {why(loss) if why else network_text(loss, as_long, cores)}."


def speed_text(loss: Loss) -> str:
    """Such as `2 replicas are 1.2 times as fast as 1, not 2 times`."""
    more, fewer = loss.more.replicas, loss.fewer.replicas
    if loss.speedup < SLOWER:
        return f"{more} replicas are slower than {fewer}, {loss.speedup:.2f} times as fast"
    if loss.speedup < FASTER:
        return f"{more} replicas are no faster than {fewer}"
    times = f"not {loss.ratio:.3g} times"
    return f"{more} replicas are {loss.speedup:.2f} times as fast as {fewer}, {times}"


def data_text(loss: Loss) -> str:
    """The step waits for its data."""
    more = loss.more
    batch, share = more.global_batch, more.waiting / more.step
    text = (
        f"each step waits {share:.0%} of its time for data, of which {batch / more.data:,.0f} "
        f"examples/s come with nothing beside, and {batch / more.from_memory:,.0f} could be trained"
    )
    if more.device == "CPU":
        return f"{text}; the same cores prepare the data and train"
    return f"{text}; more cores, or less work for them (launch.benchmark input)"


def sum_text(loss: Loss) -> str:
    """The sum over the replicas takes long."""
    more = loss.more
    text = (
        f"{more.all_reduce / more.step:.0%} of each step is the all-reduce of "
        f"{more.parameters:,} numbers, {1000 * more.all_reduce:,.3g} ms; a larger --global_batch "
        "has fewer of them"
    )
    if more.gradient_dtype == "float32":
        text += ", and --gradient_dtype=bfloat16 sends half as much"
    return text


def network_text(loss: Loss, as_long: float, cores: int) -> str:
    """The network does not get shorter with a replica's share of the batch."""
    more, fewer = loss.more, loss.fewer
    shares = [one.global_batch // one.replicas for one in (fewer, more)]
    text = (
        f"a replica's {shares[1]:,} examples take the network {1000 * more.network:,.3g} ms, and "
        f"{shares[0]:,} took {1000 * fewer.network:,.3g} ms"
    )
    if as_long <= APART:
        return f"{text}: too few of them; a larger --global_batch"
    in_the_way = f"{as_long:.2g} times as long for as many examples each"
    if more.device == "CPU":
        return (
            f"{text}; the replicas share {cores} cores, and take {in_the_way}: CPU replicas are "
            "for trying out"
        )
    less = "more --steps_per_loop" if more.trial.xla == "on" else "--xla=on, more --steps_per_loop"
    return (
        f"{text}; the replicas hold each other up, {in_the_way}: the host has to start all their "
        f"work ({less})"
    )
