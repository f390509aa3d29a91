"""Under which tag TensorBoard shows a metric, so that its first page has the order people ask in.

TensorBoard sorts tags by name and opens the first two groups of them. So what is asked first has a
number: the loss, the task's own metric, the learning rate, the gradient, the speed, what happened.
"""

OVERVIEW, DETAILS = "1_overview", "2_details"
# Of texts, too, TensorBoard opens the first two.
EVENTS = "2_events"
# How many things happened since the row before: marks below the curves.
MARKS = "events"
_FIRST = ("loss", "", "learning_rate", "gradient_norm", "noise_scale", "examples_per_second")
_FIRST += ("input_wait_fraction", "step_ms", MARKS)  # the second place is the headline's

_DESCRIPTIONS = {
    "loss": "What training minimizes. `train`: the mean over the steps since the row before; "
    "`eval`: an exact pass over all evaluation examples.",
    "learning_rate": "`train`: the rate that the optimizer applied in this very step. `plan`: what "
    "was planned before the first one, to the end of the run.",
    "momentum": "`train`: the momentum applied in this step. `plan`: the planned one.",
    "gradient_norm": "The gradient's global norm before clipping, a mean since the row before.",
    "noise_scale": "The gradient noise scale: about the batch beyond which more examples a step "
    "pay little.",
    "examples_per_second": "Training examples per second, without evaluation and saving.",
    "input_wait_fraction": "The share of the steps' time in which they waited for data.",
    "step_ms": "Milliseconds a step.",
    MARKS: "How many things happened since the row before: a start, a request, a rollback, a cut "
    "of the rate, a new phase. What they were is under Text, `2_events`.",
    "nonfinite_steps": "Steps so far that were not finite and changed nothing.",
    "loss_scale": "The factor of the loss with float16.",
    "progress": "The updates that the schedule counts.",
    "gain": "AdaScale's gain: how many updates of the reference batch a step counts for.",
}


def tag_of(name: str, headline: str) -> str:
    """The tag of a metric.

    Args:
      name: of the metric, without `train/` or `eval/`, which are runs of TensorBoard's.
      headline: the name of the task's metric.
    """
    places = {first or headline: place for place, first in enumerate(_FIRST, 1)}
    places["loss"] = 1
    return f"{OVERVIEW}/{places[name]}_{name}" if name in places else f"{DETAILS}/{name}"


def name_of(tag: str) -> str:
    """The metric's name, of a tag."""
    group, _, name = tag.partition("/")
    return name.partition("_")[2] if group == OVERVIEW else name


def description_of(name: str, headline: str) -> str:
    """What the metric is, in Markdown; "" where its name says all there is to say."""
    if name in _DESCRIPTIONS:
        return _DESCRIPTIONS[name]
    if name == f"best_{headline}":
        return "The best evaluation so far; its model is in `best`."
    if name == headline:
        return "The metric that tells the best evaluation."
    if name.startswith("learning_rate/"):
        return "The rate of a group of variables."
    if name.startswith("update_ratio/"):
        return "‖update‖ / ‖weights‖ of a layer in this step; about 0.001 is usual."
    if name == "time/goodput":
        return "The share of the run's whole time, restarts included, in which steps were computed."
    if name.startswith("time/"):
        return "Seconds of the run's whole time that went there, over all its starts."
    if name.endswith("_raw"):
        return "Of the weights that train, where those evaluated are averages."
    return ""
