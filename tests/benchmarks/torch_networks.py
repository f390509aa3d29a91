"""Networks of `trainer.models` as one writes them in PyTorch, with the weights that Keras gave.

A module has the name of Keras's layer, `.` for `_`. Where a convolution strides, it is padded as in
TensorFlow.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn
from torch.nn import functional


class Convolution(nn.Module):
    """A convolution of pixels [n, c, h, w] of even sides, and its normalization."""

    def __init__(
        self, inputs: int, filters: int, kernel: int, stride: int = 1, epsilon: float = 1.001e-5
    ) -> None:
        super().__init__()
        padding = kernel // 2 if stride == 1 else 0
        self.conv = nn.Conv2d(inputs, filters, kernel, stride, padding, bias=False)
        self.norm = nn.BatchNorm2d(filters, eps=epsilon)
        before, after = (kernel - 2) // 2, (kernel - 1) // 2
        self.pad = (before, after) * 2 if stride == 2 and kernel > 1 else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.conv(functional.pad(x, self.pad) if self.pad else x))


class Bottleneck(nn.Module):
    """A block of `ResNet50`."""

    def __init__(self, inputs: int, filters: int, stride: int) -> None:
        super().__init__()
        self.conv1 = Convolution(inputs, filters, 1)
        self.conv2 = Convolution(filters, filters, 3, stride)
        self.conv3 = Convolution(filters, 4 * filters, 1)
        same = inputs == 4 * filters
        self.shortcut = nn.Identity() if same else Convolution(inputs, 4 * filters, 1, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv3(functional.relu(self.conv2(functional.relu(self.conv1(x)))))
        return functional.relu(y + self.shortcut(x))


class ResNet50(nn.Module):
    """`resnet50`: uint8 [n, 3, h, w] to logits [n, classes]."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.stem, inputs = Convolution(3, 64, 7, 2), 64
        self.blocks = nn.ModuleDict()
        for stage, (filters, count) in enumerate(
            zip((64, 128, 256, 512), (3, 4, 6, 3), strict=True), 1
        ):
            for block in range(1, count + 1):
                stride = 2 if stage > 1 and block == 1 else 1
                self.blocks[f"stage{stage}_block{block}"] = Bottleneck(inputs, filters, stride)
                inputs = 4 * filters
        self.logits = nn.Linear(inputs, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.stem(x / 127.5 - 1))
        x = functional.max_pool2d(
            functional.pad(x, (0, 1, 0, 1)), 3, 2
        )  # what is padded, 0, is no maximum
        for block in self.blocks.values():
            x = block(x)
        return self.logits(x.mean((2, 3)))


class CNN(nn.Module):
    """`cnn`: uint8 [n, channels, h, w] to logits [n, classes]."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        for number, (filters, stride) in enumerate([(32, 1), (32, 1), (64, 2), (64, 1)], 1):
            setattr(self, f"conv{number}", Convolution(channels, filters, 3, stride, 1e-3))
            channels = filters
        self.logits = nn.Linear(channels, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x / 127.5 - 1
        for layer in (self.conv1, self.conv2, self.conv3, self.conv4):
            x = functional.silu(layer(x))
        return self.logits(x.mean((2, 3)))


class Basic(nn.Module):
    """A block of `ResNet20`."""

    def __init__(self, inputs: int, filters: int, stride: int) -> None:
        super().__init__()
        self.conv1 = Convolution(inputs, filters, 3, stride, 1e-3)
        self.conv2 = Convolution(filters, filters, 3, 1, 1e-3)
        same = inputs == filters
        self.shortcut = nn.Identity() if same else Convolution(inputs, filters, 1, stride, 1e-3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv2(functional.relu(self.conv1(x)))
        return functional.relu(y + self.shortcut(x))


class ResNet20(nn.Module):
    """`resnet20`: uint8 [n, 3, h, w] to logits [n, classes]."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.stem, inputs = Convolution(3, 16, 3, 1, 1e-3), 16
        self.blocks = nn.ModuleDict()
        for stage, filters in enumerate((16, 32, 64), 1):
            for block in range(1, 4):
                stride = 2 if stage > 1 and block == 1 else 1
                self.blocks[f"stage{stage}_block{block}"] = Basic(inputs, filters, stride)
                inputs = filters
        self.logits = nn.Linear(inputs, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.stem(x / 127.5 - 1))
        for block in self.blocks.values():
            x = block(x)
        return self.logits(x.mean((2, 3)))


def transformer(width: int, heads: int, blocks: int, epsilon: float) -> nn.ModuleDict:
    """Blocks that normalize first; each takes and gives [n, length, width]."""
    options = {"norm_first": True, "batch_first": True, "layer_norm_eps": epsilon}
    return nn.ModuleDict(
        {
            f"block{number}": nn.TransformerEncoderLayer(
                width, heads, 4 * width, dropout=0.0, activation="gelu", **options
            )
            for number in range(1, blocks + 1)
        }
    )


class ViT(nn.Module):
    """`vit_ti16`, `vit_s16`: uint8 [n, 3, h, w] to logits [n, classes]."""

    def __init__(self, classes: int, places: int, width: int) -> None:
        super().__init__()
        self.block0_patches = nn.Conv2d(3, width, 16, 16)
        self.block0_class_token = nn.Embedding(1, width)
        self.block0_positions = nn.Embedding(places, width)
        self.blocks = transformer(width, width // 64, 12, 1e-6)
        self.norm = nn.LayerNorm(width, 1e-6)
        self.logits = nn.Linear(width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.block0_patches(x / 127.5 - 1).flatten(2).transpose(1, 2)
        token = self.block0_class_token.weight.expand(len(x), 1, -1)
        x = torch.cat([token, x], 1) + self.block0_positions.weight
        for block in self.blocks.values():
            x = block(x)
        return self.logits(self.norm(x[:, 0]))


class Decoder(nn.Module):
    """A decoder with heads of 64: int [n, length] to logits [n, length, tokens]."""

    def __init__(self, tokens: int, length: int, width: int, blocks: int) -> None:
        super().__init__()
        self.tokens_table = nn.Embedding(tokens, width)
        self.positions_table = nn.Embedding(length, width)
        self.blocks = transformer(width, width // 64, blocks, 1e-5)
        self.norm = nn.LayerNorm(width, 1e-5)
        self.logits = nn.Linear(width, tokens, bias=False)
        mask = nn.Transformer.generate_square_subsequent_mask(length)
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.tokens_table(x) + self.positions_table.weight
        for block in self.blocks.values():
            x = block(x, src_mask=self.mask, is_causal=True)
        return self.logits(self.norm(x))


def make_network(name: str, weights: Mapping[str, np.ndarray]) -> nn.Module:
    """The network of this name with these weights, by their paths in Keras."""
    if name == "resnet50":
        network = ResNet50(len(weights["logits/bias"]))
    elif name == "resnet20":
        network = ResNet20(len(weights["logits/bias"]))
    elif name == "cnn":
        network = CNN(weights["conv1/kernel"].shape[2], len(weights["logits/bias"]))
    elif name.startswith("vit_"):
        places = weights["block0_positions/embeddings"].shape
        network = ViT(len(weights["logits/bias"]), *places)
    else:
        tokens, width = weights["tokens_table/embeddings"].shape
        blocks = sum(path.endswith("_dense1/kernel") for path in weights)
        network = Decoder(tokens, len(weights["positions_table/embeddings"]), width, blocks)
    with torch.no_grad():
        take(network, dict(weights))
    return network


def take(network: nn.Module, left: dict[str, np.ndarray]) -> None:
    """Copies every weight to its place.

    Raises:
      ValueError: one has no place.
    """
    for place, module in network.named_modules():
        layer = place.removeprefix("blocks.").replace(".", "_").removesuffix("_conv")
        layer = layer.replace("linear", "dense")
        layer = layer.replace("self_attn_out_proj", "attention/attention_output")
        for kind, name in NAMES.items():
            if f"{layer}/{kind}" in left and hasattr(module, name):
                getattr(module, name).copy_(laid_out(left.pop(f"{layer}/{kind}"), kind))
        if isinstance(module, nn.MultiheadAttention):
            layer = layer.replace("self_attn", "attention")
            for kind, whole in (("kernel", module.in_proj_weight), ("bias", module.in_proj_bias)):
                parts = zip(("query", "key", "value"), whole.chunk(3), strict=True)
                for part, rows in parts:
                    array = left.pop(f"{layer}/{part}/{kind}")
                    rows.copy_(laid_out(array.reshape(*array.shape[:-2], -1), kind))
    if left:
        raise ValueError(f"PyTorch's network has no {', '.join(left)}")


# Of a module of PyTorch, by Keras's.
NAMES = {"kernel": "weight", "bias": "bias", "embeddings": "weight"}
NAMES |= {"gamma": "weight", "beta": "bias"}
NAMES |= {"moving_mean": "running_mean", "moving_variance": "running_var"}


def laid_out(array: np.ndarray, kind: str) -> torch.Tensor:
    """A kernel as PyTorch has it: of a convolution [out, in, h, w], of a layer [out, in]."""
    if kind != "kernel":
        return torch.from_numpy(array)
    if array.ndim == 4:
        return torch.from_numpy(array.transpose(3, 2, 0, 1))
    # That behind an attention is [heads, width of a head, out].
    return torch.from_numpy(array.reshape(-1, array.shape[-1]).T)
