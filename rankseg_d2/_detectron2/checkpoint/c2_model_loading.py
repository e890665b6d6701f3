"""Weights whose names are not the model's: Caffe2's names, and names without the outer modules."""

import logging
import re

_BRANCHES = {
    "branch1": "shortcut",
    "branch2a": "conv1",
    "branch2b": "conv2",
    "branch2c": "conv3",
}
_NORM = {
    "s": "weight",
    "gamma": "weight",
    "b": "bias",
    "beta": "bias",
    "rm": "running_mean",
    "running_mean": "running_mean",
    "riv": "running_var",
    "running_var": "running_var",
}
_NORM_NAME = re.compile(rf"(.+)_[bg]n_({'|'.join(_NORM)})")
_CONV_NAME = re.compile(r"(.+)_(w|b|bias)")


def convert_basic_c2_names(original_keys):
    """res2_0_branch2a_w -> res2.0.conv1.weight, res_conv1_bn_s -> stem.conv1.norm.weight, …"""
    return [_convert(name) for name in original_keys]


def convert_c2_detectron_names(weights):
    """A Caffe2 ResNet's weights under our names, and {our name: Caffe2's name}."""
    originals = dict(zip(convert_basic_c2_names(weights), weights, strict=True))
    return {name: weights[original] for name, original in originals.items()}, originals


def align_and_update_state_dicts(model_state_dict, ckpt_state_dict, c2_conversion=True):
    """The checkpoint's weights, renamed to the model's names.

    A name of the model takes the longest name of the checkpoint that equals it or that is what is
    left of it when outer modules are cut off (`backbone.res2.0.conv1.weight` takes
    `res2.0.conv1.weight`). Weights that match nothing, or have another shape, keep their names.
    """
    logger = logging.getLogger(__name__)
    weights, originals = ckpt_state_dict, {}
    if c2_conversion:
        logger.info("Renaming Caffe2 weights ...")
        weights, originals = convert_c2_detectron_names(ckpt_state_dict)

    users = {}  # name in the checkpoint -> name in the model
    for name, parameter in sorted(model_state_dict.items()):
        found = next((suffix for suffix in _suffixes(name) if suffix in weights), None)
        if found is None:
            continue
        if weights[found].shape != parameter.shape:
            logger.warning(
                f"{originals.get(found, found)} has the shape {tuple(weights[found].shape)} in the "
                f"checkpoint and {name} {tuple(parameter.shape)} in the model: it is not loaded."
            )
        elif found in users:
            raise ValueError(
                f"the checkpoint's {originals.get(found, found)} fits two weights of the model, "
                f"{users[found]} and {name}; rename it in the file to the one that is meant"
            )
        else:
            users[found] = name
    if not users:
        logger.warning("No weights in checkpoint matched with model.")
    logger.info(f"{len(users)} of {len(model_state_dict)} weights of the model found by suffix.")
    return {users.get(name, name): value for name, value in weights.items()}


def _suffixes(name):
    """a.b.c -> a.b.c, b.c, c"""
    parts = name.split(".")
    return (".".join(parts[i:]) for i in range(len(parts)))


def _convert(name):
    if match := _NORM_NAME.fullmatch(name):
        return f"{_convert_module(match[1])}.norm.{_NORM[match[2]]}"
    if match := _CONV_NAME.fullmatch(name):
        return f"{_convert_module(match[1])}.{'weight' if match[2] == 'w' else 'bias'}"
    return _convert_module(name)


def _convert_module(name):
    if name in ("conv1", "res_conv1"):
        return "stem.conv1"
    if name == "pred":
        return "linear"
    return ".".join(_BRANCHES.get(part, part) for part in name.split("_"))
