"""How noisy the gradient is: the gradient noise scale and AdaScale's gain, from two numbers.

The step's one all-reduce brings the sum of the micro-batches' square gradient norms along. With it
and the square norm of the summed gradient, two unbiased estimators (McCandlish et al. 2018,
https://arxiv.org/abs/1812.06162, appendix A) tell noise and signal apart:

    noise  = tr(Σ), the variance of a single example's gradient
    signal = |G|², the square norm of the true gradient

They need the parts of the gradient to be gradients of micro-batches on their own. Under a
BatchNormalization that is synchronized over several replicas they are not: a replica's part is that
of the whole batch's loss along its own examples' paths, and the parts are correlated (measured on
digits: the signal comes out negative). There nothing is measured, and the run says so.
"""

import numpy as np
import tensorflow as tf

from trainer.replicas.variables import host_variable


class GradientNoise:
    """Running averages of noise and signal, saved in checkpoints.

    Created outside of a strategy's scope.

    Args:
      global_batch: examples an update.
      micro_batches: replicas × accumulation; 1 where they cannot be told apart, and nothing is
        measured.
      largest_gain: AdaScale's, global batch / reference batch; 1 without AdaScale.
    """

    def __init__(self, global_batch: int, micro_batches: int, largest_gain: float) -> None:
        self._batch, self._micro_batches = float(global_batch), float(micro_batches)
        self._largest_gain = float(largest_gain)
        # AdaScale's own smoothing (Johnson et al. 2020, section 3.2); the noise scale alone is
        # steadier with a longer one.
        self._keep = max(0.0, 1.0 - largest_gain / 1000) if self.adascale else 0.99
        # Noise, signal, and the weight that both carry: less than 1 in the first updates.
        self.averages = host_variable(np.zeros(3), "gradient_noise")

    @property
    def measured(self) -> bool:
        """Whether there are micro-batches to compare."""
        return self._micro_batches > 1

    @property
    def adascale(self) -> bool:
        """Whether the gain can be more than 1."""
        return self._largest_gain > 1

    def update(
        self, micro_square: tf.Tensor, square: tf.Tensor, finite: tf.Tensor | bool = True
    ) -> None:
        """Takes one step's square norms in, both float32 [], if they and `finite`, bool [], are.

        Parts that cancel in the sum can have squares beyond a float32 where its own is not.

        Args:
          micro_square: the sum over micro-batches of |g|², g being the micro-batch's part of the
            summed gradient (its own mean gradient / micro_batches).
          square: |ḡ|², the square norm of the summed gradient.
        """
        count, micro_batch = self._micro_batches, self._batch / self._micro_batches
        mean_square = count * tf.cast(micro_square, tf.float64)
        square = tf.cast(square, tf.float64)
        noise = (mean_square - square) / (1 / micro_batch - 1 / self._batch)
        signal = (count * square - mean_square) / (count - 1)
        now = tf.stack([noise, signal, tf.ones_like(noise)])
        before = self.averages.read_value()
        after = self._keep * before + (1 - self._keep) * now
        finite &= tf.math.is_finite(micro_square)
        self.averages.assign(tf.where(finite, after, before))

    def noise_scale(self) -> tf.Tensor:
        """The gradient noise scale in examples, float32 []: infinite where no signal is seen."""
        noise, signal, _ = tf.unstack(self.averages.read_value())
        scale = tf.maximum(noise, 0.0) / tf.maximum(signal, 0.0)
        return tf.cast(tf.where(signal > 0, scale, np.inf), tf.float32)

    def columns(self) -> dict[str, tf.Tensor]:
        """The columns of the step's row: none where the noise is not measured."""
        return {"noise_scale": self.noise_scale()} if self.measured else {}

    def gain(self) -> tf.Tensor:
        """AdaScale's gain, float64 [], between 1 and global batch / reference batch.

        It is 1 without AdaScale, and until there is a finite step to tell it from.
        """
        if not self.adascale:
            return tf.ones([], tf.float64)
        noise, signal, weight = tf.unstack(self.averages.read_value())
        # The variance at the reference batch, and the floors of the paper's appendix B.
        reference = self._batch / self._largest_gain
        variance = tf.maximum(tf.math.divide_no_nan(noise, weight) / reference, 1e-6)
        signal = tf.maximum(tf.math.divide_no_nan(signal, weight), 0.0)
        gain = (variance + signal) / (variance / self._largest_gain + signal)
        return tf.where(weight > 0, gain, 1.0)
