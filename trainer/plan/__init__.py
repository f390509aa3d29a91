"""What was asked for and every number that follows from it; nothing here imports TensorFlow."""
