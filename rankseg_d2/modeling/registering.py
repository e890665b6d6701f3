"""Registration of our classes in detectron2's registries, under upstream's names."""

from collections.abc import Callable

from detectron2.utils.registry import Registry


def register(registry: Registry) -> Callable:
    """Decorator: register a class or function under its name."""

    def decorate(entry):
        name = entry.__name__
        if name in registry:
            raise ImportError(
                f"{registry.get(name).__module__} has registered {name} in detectron2's registry "
                f"{registry._name}, where rankseg_d2 registers a class of that name. Use one of "
                "the two packages in a process, not both."
            )
        registry.register(entry)
        return entry

    return decorate
