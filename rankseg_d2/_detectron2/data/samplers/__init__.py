from .distributed_sampler import *  # noqa: F403
