"""The embedded subset of detectron2's interface: what rankseg_d2 and a usual training script use.

Written from detectron2's documented behaviour, with its module paths, names, signatures, config
keys and numbers, so that code written for one engine runs on the other. It is frozen: no new
feature is added here. What rankseg_d2 does better lives outside and runs on both engines.
"""

__version__ = "0.6"
