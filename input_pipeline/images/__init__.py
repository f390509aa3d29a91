"""From the bytes of an image file to augmented, mixed pixels."""
