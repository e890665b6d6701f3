"""Which part of a data set an image or video falls into, by a hash of its name."""

import hashlib


def position(name: str) -> float:
    """A number in [0, 1) that follows from the name: the same for ever, on every machine.

    What is held out by a range of positions stays held out when the data set grows.
    """
    digest = hashlib.sha256(name.encode()).digest()
    return int.from_bytes(digest[:7], "big") / 2**56  # exact in a float
