"""Precision and repeatability as lines of the plan; no TensorFlow."""

# The precision of the layers' arithmetic, and Keras's name for it; variables are float32 in all.
POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}


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
