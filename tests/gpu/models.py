"""Networks that are measured on GPUs and that `--model` has no name for."""

import keras

from trainer.models.decoder import decoder
from trainer.models.own import ModelSpec


def decoder_125m(spec: ModelSpec) -> keras.Model:
    """GPT of 125 M as MosaicML's LLM Foundry measures it, with 12 blocks of width 768.

    With 50,304 tokens and rows of 2,048 a token takes part in the products of 124 M parameters; the
    table of tokens, 39 M, is not tied to the logits here and comes on top.
    """
    sizes = {"width": 768, "heads": 12, "blocks": 12}
    return decoder("decoder_125m", spec.shape[0], spec.outputs, dropout=0.0, **sizes)
