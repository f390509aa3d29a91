"""The embedded handwritten digits; README.md beside this file says whose they are."""
