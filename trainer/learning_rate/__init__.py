"""The learning rate on the device, and what moves it."""
