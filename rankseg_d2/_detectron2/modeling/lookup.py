from difflib import get_close_matches

from ..utils.registry import Registry


def find_registered(registry: Registry, key: str, name: str):
    """What `registry` has under the name that config key `key` gives, or a KeyError with help."""
    names = [known for known, _ in registry]
    if name in names:
        return registry.get(name)
    near = get_close_matches(name, names, n=3, cutoff=0.4) or sorted(names)
    raise KeyError(
        f"{key} is {name!r}, which nothing is registered as; near names: {', '.join(near)}; "
        "import the module that registers it before the model is built"
    )
