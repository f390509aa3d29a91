"""What is known elsewhere: peaks of cards, and published speeds to stand beside ours."""

import re

# TFLOP/s of a card, dense, by NVIDIA's data sheets (which give those with sparsity, twice as much,
# from Hopper on and for Ada): float32 outside of the tensor cores, TensorFloat-32, bfloat16. The
# first entry counts whose words are all in the card's name. Turing and Volta have neither of the
# last two.
PEAKS: dict[str, dict[str, float]] = {
    "H200 NVL": {"float32": 60, "tf32": 418, "bfloat16": 836},
    "H200": {"float32": 67, "tf32": 495, "bfloat16": 989},
    "H100 PCIe": {"float32": 51, "tf32": 378, "bfloat16": 756},
    "H100 NVL": {"float32": 60, "tf32": 418, "bfloat16": 836},
    "H100": {"float32": 67, "tf32": 495, "bfloat16": 989},
    "A100": {"float32": 19.5, "tf32": 156, "bfloat16": 312},
    "A30": {"float32": 10.3, "tf32": 82, "bfloat16": 165},
    "A10": {"float32": 31.2, "tf32": 62.5, "bfloat16": 125},
    "L40S": {"float32": 91.6, "tf32": 183, "bfloat16": 362},
    "L4": {"float32": 30.3, "tf32": 60, "bfloat16": 121},
    "T4": {"float32": 8.1},
    "V100 SXM2": {"float32": 15.7},
}

# By network and precision: what others have published.
REFERENCES = {
    ("resnet50_224", "bfloat16"): "A100, mixed: 2,375 and 2,470 images/s; 8 GPUs 7.3, 6.7 times",
    ("resnet50_224", "tf32"): "A100, TF32: 909 and 938 images/s",
    ("vit_s16", "bfloat16"): "H100, ViT-5-Small, compiled: 8,003 images/s",
    ("decoder_125m", "bfloat16"): "A100: 136,334 tokens/s a GPU at 42.8 % of the peak",
}


def peak_of(card: str, precision: str) -> float | None:
    """FLOP/s of a card by its name, such as `NVIDIA A100-SXM4-80GB`; None: not known.

    Args:
      precision: float32, tf32 or bfloat16.
    """
    words = set(re.split(r"[\s-]+", card))
    for name, peaks in PEAKS.items():
        if set(name.split()) <= words:
            return peaks[precision] * 1e12 if precision in peaks else None
    return None


def share_of_peak(products: float, examples: float, peak: float | None) -> str:
    """Of a card's peak, what forward and backward pass of the model take: `41 %`, or `unknown`.

    Args:
      products: multiply-accumulates of an example's forward pass; the backward pass has twice as
        many, and each is two FLOPs.
      examples: a second, of one card.
    """
    return f"{6 * products * examples / peak:.1%}".replace("%", " %") if peak else "unknown"
