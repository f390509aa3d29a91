"""Every public layer of `keras.layers` in a branch of a model, by name.

A branch goes from the scaled images, float32 [rows, 8, 8, 4] in [0, 1], to anything with a first
dimension of rows.
"""

import inspect
from collections.abc import Callable, Mapping

import keras
from keras import layers, ops

Tensor = keras.KerasTensor
Branch = Callable[[Tensor], Tensor]
SHAPE = (8, 8, 4)

# Not layers that a TensorFlow network is made of: why.
LEFT_OUT = {
    "Layer": "the base class",
    "Wrapper": "a base class",
    "InputLayer": "every model has one",
    "JaxLayer": "of JAX",
    "FlaxLayer": "of JAX",
    "TorchModuleWrapper": "of PyTorch",
    "MaxNumBoundingBoxes": "takes bounding boxes, not tensors",
    "STFTSpectrogram": "needs SciPy",
    "StringLookup": "takes strings, which no source yields",
    "TFSMLayer": "a SavedModel for inference",
    "TextVectorization": "takes strings, which no source yields",
}
# Those that draw what cannot be divided over replicas: by what.
REFUSED = {
    "AugMix": "keras.random.gamma",
    "CutMix": "keras.random.beta",
    "MixUp": "keras.random.shuffle",
    "RandomElasticTransform": "a seed of its generator",
}
# Those that see their micro-batch as a whole, and so do the same to equal ones only.
OF_THE_BATCH = {"BatchNormalization", "Equalization"}


def words(x: Tensor) -> Tensor:
    """Integers, int32 [rows, 16] in [0, 16)."""
    return ops.cast(ops.reshape(x, (-1, 256))[:, :16] * 15.9, "int32")


def sequence(x: Tensor) -> Tensor:
    """Float32 [rows, 16, 16]."""
    return layers.Reshape((16, 16))(x)


def two(x: Tensor) -> list[Tensor]:
    """The tensor, and it the other way round."""
    return [x, ops.flip(x, axis=1)]


def volume(x: Tensor) -> Tensor:
    """Float32 [rows, 4, 8, 4, 2]."""
    return layers.Reshape((4, 8, 4, 2))(x)


def frames(x: Tensor, dimensions: int) -> Tensor:
    """Images of this many dimensions over time, float32 [rows, 2, …, 2]."""
    sizes = {1: (2, 64, 2), 2: (2, 8, 8, 2), 3: (2, 4, 4, 4, 2)}
    return layers.Reshape(sizes[dimensions])(x)


class _Inside(layers.Layer):
    """A layer that calls another one."""

    def __init__(self, layer: keras.Layer) -> None:
        super().__init__()
        self.layer = layer

    def call(self, inputs: Tensor, training: bool = False) -> Tensor:
        return self.layer(inputs, training=training)

    def compute_output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return shape


def _given() -> dict[str, Branch]:
    """The layers that are called with something else than an image, or made with arguments."""
    branches: dict[str, Branch] = {
        "Activation": lambda x: layers.Activation("gelu")(x),
        "ActivityRegularization": lambda x: layers.ActivityRegularization(l2=0.01)(x),
        "AlphaDropout": lambda x: layers.AlphaDropout(0.2)(x),
        "AdditiveAttention": lambda x: layers.AdditiveAttention(dropout=0.2)(two(sequence(x))),
        "Attention": lambda x: layers.Attention(dropout=0.2)(two(sequence(x))),
        "Bidirectional": lambda x: layers.Bidirectional(layers.GRU(3, dropout=0.2))(sequence(x)),
        "CategoryEncoding": lambda x: layers.CategoryEncoding(16, "count")(words(x)),
        "CenterCrop": lambda x: layers.CenterCrop(5, 5)(x),
        "Concatenate": lambda x: layers.Concatenate(axis=1)(two(x)),
        "Dense": lambda x: layers.Dense(3)(x),
        "Discretization": lambda x: layers.Discretization([0.2, 0.5, 0.7])(x),
        "Dropout": lambda x: layers.Dropout(0.2)(x),
        "EinsumDense": lambda x: layers.EinsumDense("abc,cd->abd", (16, 5))(sequence(x)),
        "Embedding": lambda x: layers.Embedding(16, 5)(words(x)),
        "GaussianDropout": lambda x: layers.GaussianDropout(0.2)(x),
        "GaussianNoise": lambda x: layers.GaussianNoise(0.2)(x),
        # In a functional model Keras 3.15 takes it for a cycle.
        "Equalization": lambda x: _Inside(layers.Equalization((0, 1)))(x[..., :3]),
        "GRU": lambda x: layers.GRU(3, dropout=0.2, recurrent_dropout=0.2)(sequence(x)),
        "GRUCell": lambda x: layers.RNN(layers.GRUCell(3, dropout=0.2))(sequence(x)),
        "GroupNormalization": lambda x: layers.GroupNormalization(2)(x),
        "GroupQueryAttention": lambda x: layers.GroupQueryAttention(4, 4, 2, dropout=0.2)(
            sequence(x), ops.flip(sequence(x), axis=1)
        ),
        "HashedCrossing": lambda x: layers.HashedCrossing(8)((words(x)[:, 0], words(x)[:, 1])),
        "Hashing": lambda x: layers.Hashing(8)(words(x)),
        "IntegerLookup": lambda x: layers.IntegerLookup(vocabulary=list(range(12)))(words(x)),
        "LSTM": lambda x: layers.LSTM(3, dropout=0.2, recurrent_dropout=0.2)(sequence(x)),
        "LSTMCell": lambda x: layers.RNN(layers.LSTMCell(3, dropout=0.2))(sequence(x)),
        "Lambda": lambda x: layers.Lambda(lambda y: y * 2)(x),
        "Masking": lambda x: layers.GRU(3)(layers.Masking(0.0)(sequence(x))),
        "MelSpectrogram": lambda x: layers.MelSpectrogram(
            num_mel_bins=4, sampling_rate=100, sequence_stride=16, fft_length=32
        )(layers.Flatten()(x)),
        "MultiHeadAttention": lambda x: layers.MultiHeadAttention(2, 4, dropout=0.2)(
            sequence(x), ops.flip(sequence(x), axis=1), use_causal_mask=True
        ),
        "Normalization": lambda x: layers.Normalization(mean=0.5, variance=0.1)(x),
        "Permute": lambda x: layers.Permute((2, 1, 3))(x),
        "Pipeline": lambda x: layers.Pipeline([layers.RandomFlip(), layers.Rescaling(2.0)])(x),
        "RNN": lambda x: layers.RNN(layers.SimpleRNNCell(3))(sequence(x)),
        "RepeatVector": lambda x: layers.RepeatVector(2)(layers.Flatten()(x)),
        "Rescaling": lambda x: layers.Rescaling(2.0)(x),
        "Reshape": lambda x: layers.Reshape((4, 64))(x),
        "Resizing": lambda x: layers.Resizing(5, 6)(x),
        "ReversibleEmbedding": lambda x: layers.ReversibleEmbedding(16, 5)(words(x)),
        "SimpleRNN": lambda x: layers.SimpleRNN(3, dropout=0.2, recurrent_dropout=0.2)(sequence(x)),
        "SimpleRNNCell": lambda x: layers.RNN(layers.SimpleRNNCell(3, dropout=0.2))(sequence(x)),
        "SpectralNormalization": lambda x: layers.SpectralNormalization(layers.Dense(5))(x),
        "StackedRNNCells": lambda x: layers.RNN(
            layers.StackedRNNCells([layers.GRUCell(3, dropout=0.2), layers.LSTMCell(3)])
        )(sequence(x)),
        "TimeDistributed": lambda x: layers.TimeDistributed(layers.Dense(3))(sequence(x)),
        "Dot": lambda x: layers.Dot(axes=2)(two(sequence(x))),
    }
    for name in ("Add", "Average", "Maximum", "Minimum", "Multiply", "Subtract"):
        branches[name] = lambda x, n=name: getattr(layers, n)()(two(x))
    for name, arguments in _BY_RANK.items():
        for rank, given in (("1D", sequence), ("2D", lambda x: x), ("3D", volume)):
            named = name + rank if name != "ConvTranspose" else f"Conv{rank}Transpose"
            branches[named] = lambda x, n=named, a=arguments, g=given: getattr(layers, n)(*a)(g(x))
    for rank in (1, 2, 3):
        branches[f"ConvLSTM{rank}D"] = lambda x, r=rank: getattr(layers, f"ConvLSTM{r}D")(
            2, 2, dropout=0.2, recurrent_dropout=0.2
        )(frames(x, r))
    for name, arguments in _OF_IMAGES.items():
        # Colours are three.
        branches[name] = lambda x, n=name, a=arguments: getattr(layers, n)(**a)(x[..., :3])
    return branches


# What the layers for one, two and three dimensions are made with.
_BY_RANK = {
    "AdaptiveAveragePooling": (2,),
    "AdaptiveMaxPooling": (2,),
    "AveragePooling": (2,),
    "Conv": (3, 2),
    "ConvTranspose": (3, 2),
    "Cropping": (),
    "DepthwiseConv": (2,),
    "GlobalAveragePooling": (),
    "GlobalMaxPool": (),
    "MaxPool": (2,),
    "SeparableConv": (3, 2),
    "SpatialDropout": (0.3,),
    "UpSampling": (),
    "ZeroPadding": (),
}
_OF_IMAGES = {
    "AugMix": {"value_range": (0, 1)},
    "AutoContrast": {"value_range": (0, 1)},
    "ContrastLimitedAdaptiveHistogramEqualization": {"value_range": (0, 1)},
    "RandAugment": {"value_range": (0, 1)},
    "RandomBrightness": {"factor": 0.2, "value_range": (0, 1)},
    "RandomColorDegeneration": {"factor": 0.2},
    "RandomColorJitter": {
        "value_range": (0, 1),
        "brightness_factor": 0.2,
        "contrast_factor": 0.2,
        "saturation_factor": 0.2,
        "hue_factor": 0.2,
    },
    "RandomContrast": {"factor": 0.2, "value_range": (0, 1)},
    "RandomCrop": {"height": 6, "width": 6},
    "RandomElasticTransform": {"factor": 0.5, "value_range": (0, 1)},
    "RandomErasing": {"factor": 0.5, "value_range": (0, 1)},
    "RandomGaussianBlur": {"factor": 0.5, "value_range": (0, 1)},
    "RandomGrayscale": {"factor": 0.5},
    "RandomHue": {"factor": 0.2, "value_range": (0, 1)},
    "RandomInvert": {"factor": 0.5, "value_range": (0, 1)},
    "RandomPerspective": {"factor": 0.5},
    "RandomPosterization": {"factor": 4, "value_range": (0, 1)},
    "RandomRotation": {"factor": 0.2},
    "RandomSaturation": {"factor": 0.2, "value_range": (0, 1)},
    "RandomSharpness": {"factor": 0.2, "value_range": (0, 1)},
    "RandomShear": {"x_factor": 0.2, "y_factor": 0.2},
    "RandomTranslation": {"height_factor": 0.2, "width_factor": 0.2},
    "RandomZoom": {"height_factor": 0.2},
    "Solarization": {"value_range": (0, 1)},
}


def branches() -> Mapping[str, Branch]:
    """Each layer that is not left out, by name; of those that have several by the first."""
    public = inspect.getmembers(layers, inspect.isclass)
    by_class = {layer: name for name, layer in reversed(public) if issubclass(layer, keras.Layer)}
    names, given = set(by_class.values()) - LEFT_OUT.keys(), _given()
    return {name: given.get(name, lambda x, n=name: getattr(layers, n)()(x)) for name in names}
