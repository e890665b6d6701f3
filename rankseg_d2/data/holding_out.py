"""Assign images and videos to parts of a data set by a hash of their names."""

import hashlib


def position(name: str) -> float:
    """A number in [0, 1) that depends on the name only, so it is the same on every machine.

    A name stays in its range of positions when the data set grows.
    """
    digest = hashlib.sha256(name.encode()).digest()
    return int.from_bytes(digest[:7], "big") / 2**56  # exact in a float
