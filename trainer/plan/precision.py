"""Precision and repeatability as lines of the plan; no TensorFlow."""

from trainer.plan.devices import Devices
from trainer.plan.settings import DeviceSettings

# The precision of the layers' arithmetic, and Keras's name for it; variables are float32 in all.
POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}

_AMPERE = (8, 0)  # the first compute capability whose tensor cores take bfloat16


def choose_precision(settings: DeviceSettings, devices: Devices) -> tuple[str, str]:
    """The layers' precision, and what it means.

    With --precision=auto that which the tensor cores of all GPUs take, and float32 on CPUs and on
    cards that nothing is known of.
    """
    precision, why = settings.precision, ""
    if precision == "auto" and devices.capability:
        precision = "bfloat16" if devices.capability >= _AMPERE else "float16"
        why = f" (auto: compute capability {'.'.join(map(str, devices.capability))})"
    precision = "float32" if precision == "auto" else precision
    return precision, precision_text(precision, settings.tf32, devices.kind) + why


def precision_text(precision: str, tf32: bool, kind: str) -> str:
    """Which part computes in which precision on devices of this kind, GPU or CPU."""
    inner = " (products in TensorFloat-32)" if tf32 and kind == "GPU" else ""
    if precision == "float32":
        return f"float32{inner}"
    scaled = ", dynamic loss scaling" if precision == "float16" else ""
    return f"{precision} layers; float32 variables, logits and loss{scaled}"


def repeats_text(deterministic: bool, kind: str) -> str:
    """Whether the same command on the same devices gives the same bits, and what may differ."""
    if deterministic:
        return "the same bits (--deterministic)"
    if kind == "GPU":
        what = "sums by atomics, the choice of convolution algorithms"
        return f"last bits may differ: {what}; not so with --deterministic"
    return (
        "the same bits, but where an operation's threads add in the order they finish; there only "
        "with --deterministic"
    )
