"""Checkpoints of other libraries as files of this package, and back."""
