"""Config nodes as flat lists of keys."""


def leaves(section, prefix=""):
    """(full key, value) of each key of a nested dict that is not a section."""
    for name, value in section.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
