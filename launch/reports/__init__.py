"""What runs have left behind, read and compared: as a table and as a page; no TensorFlow."""
