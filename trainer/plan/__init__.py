"""Settings, and every number that follows from them; nothing here imports TensorFlow."""
