"""Precision and repeatability as lines of the plan; no TensorFlow."""

# The precision of the layers' arithmetic, and Keras's name for it; variables are float32 in all.
POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}

_AMPERE = (8, 0)  # the first compute capability whose tensor cores take bfloat16


def choose_precision(asked: str, kind: str, capability: tuple[int, ...]) -> tuple[str, str]:
    """The layers' precision, and what there is to say of its choice.

    Args:
      asked: by --precision; auto: what the GPUs' tensor cores take, and float32 on CPUs.
      kind: of the devices, GPU or CPU.
      capability: the compute capability of the oldest GPU, major and minor; empty: not known.
    """
    if asked != "auto":
        return asked, ""
    if kind != "GPU" or not capability:
        return "float32", ""
    precision = "bfloat16" if capability >= _AMPERE else "float16"
    return precision, f" (auto: compute capability {'.'.join(map(str, capability))})"


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
