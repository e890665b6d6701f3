"""Registration that gets on with the upstream packages.

MaskFormer's and Mask2Former's own packages register classes of the same names in detectron2's
registries. The rule: rankseg_d2's class answers to the name, whichever package is imported first,
and a warning names the class that is passed over.
"""

import logging

logger = logging.getLogger(__name__)


def register(registry):
    """Class decorator: register under the class's name, before and after everybody else."""

    def decorate(cls):
        name = cls.__name__
        _yield_to_ours(registry)
        if name in registry:
            _passed_over(registry, name, registry.get(name))
            del registry._obj_map[name]
        registry._ours.discard(name)
        registry.register(cls)
        registry._ours.add(name)
        return cls

    return decorate


def _yield_to_ours(registry) -> None:
    """From now on, foreign registrations of a name of ours are ignored instead of fatal."""
    if hasattr(registry, "_ours"):
        return
    registry._ours = set()
    enter = registry._do_register

    def enter_unless_ours(name, obj):
        if name in registry._ours:
            _passed_over(registry, name, obj)
        else:
            enter(name, obj)

    registry._do_register = enter_unless_ours


def _passed_over(registry, name, obj) -> None:
    logger.warning(
        "%s: %s.%s is passed over for the class of that name in rankseg_d2",
        registry._name,
        obj.__module__,
        name,
    )
