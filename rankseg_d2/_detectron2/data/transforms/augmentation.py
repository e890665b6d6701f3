"""Augmentations: from an input and random numbers to a fixed transform."""

import inspect

import numpy as np
from fvcore.transforms.transform import Transform, TransformList

__all__ = ["AugInput", "Augmentation", "AugmentationList", "apply_augmentations"]
__all__ += ["apply_transform_gens"]


class Augmentation:
    """Subclasses define `get_transform(self, image, ...)`.

    Its argument names say which attributes of the AugInput it is given. Random numbers come
    from the global `np.random`, so that seeding that fixes every augmentation.
    """

    input_args = None

    def _init(self, params=None):
        """Store constructor arguments as attributes: call it with `locals()`."""
        for name, value in (params or {}).items():
            if name != "self" and not name.startswith("_"):
                setattr(self, name, value)

    def get_transform(self, *args) -> Transform:
        raise NotImplementedError

    def __call__(self, aug_input) -> Transform:
        """Draw a transform for `aug_input`, apply it there in place, and return it."""
        transform = self.get_transform(*_get_aug_input_args(self, aug_input))
        if not isinstance(transform, (Transform, TransformList)):
            raise TypeError(f"{self}.get_transform must return a Transform, got {transform!r}")
        aug_input.transform(transform)
        return transform

    def _rand_range(self, low=1.0, high=None, size=None):
        """A uniform draw from [0, low), or from [low, high) when `high` is given."""
        low, high = (0, low) if high is None else (low, high)
        return np.random.uniform(low, high, [] if size is None else size)

    def __repr__(self):
        arguments = []
        for name, parameter in inspect.signature(self.__init__).parameters.items():
            if not hasattr(self, name) or parameter.kind is parameter.VAR_POSITIONAL:
                return super().__repr__()
            value = getattr(self, name)
            if value is not parameter.default:
                arguments.append(f"{name}={value!r}")
        return f"{type(self).__name__}({', '.join(arguments)})"


class _TransformToAug(Augmentation):
    """The augmentation that always gives the same transform."""

    def __init__(self, tfm):
        self.tfm = tfm

    def get_transform(self, *args):
        return self.tfm


class AugmentationList(Augmentation):
    """Augmentations (and transforms) applied one after the other."""

    def __init__(self, augs):
        self.augs = [_transform_to_aug(aug) for aug in augs]

    def __call__(self, aug_input) -> TransformList:
        return TransformList([aug(aug_input) for aug in self.augs])

    def __repr__(self):
        return f"AugmentationList[{', '.join(map(str, self.augs))}]"


class AugInput:
    """What augmentations see and change: image (H, W[, C]), boxes (N, 4) XYXY, sem_seg (H, W).

    A subclass may hold more attributes, and change them in `transform`.
    """

    def __init__(self, image, *, boxes=None, sem_seg=None):
        if not isinstance(image, np.ndarray) or image.ndim not in (2, 3):
            got = getattr(image, "shape", type(image).__name__)
            raise TypeError(f"the image must be an array (H, W) or (H, W, C), got {got}")
        self.image = image
        self.boxes = boxes
        self.sem_seg = sem_seg

    def transform(self, tfm) -> None:
        """Apply `tfm` to every attribute, in place."""
        self.image = tfm.apply_image(self.image)
        if self.boxes is not None:
            self.boxes = tfm.apply_box(self.boxes)
        if self.sem_seg is not None:
            self.sem_seg = tfm.apply_segmentation(self.sem_seg)

    def apply_augmentations(self, augmentations) -> TransformList:
        """The same as `AugmentationList(augmentations)(self)`."""
        return AugmentationList(augmentations)(self)


def apply_augmentations(augmentations, inputs):
    """Augment an image array or an AugInput: (augmented array or input, TransformList)."""
    aug_input = AugInput(inputs) if isinstance(inputs, np.ndarray) else inputs
    transforms = aug_input.apply_augmentations(augmentations)
    return (inputs if aug_input is inputs else aug_input.image), transforms


apply_transform_gens = apply_augmentations  # its older name


def _get_aug_input_args(aug, aug_input):
    """The attributes of `aug_input` that `aug.get_transform` asks for."""
    if aug.input_args is None:
        parameters = inspect.signature(aug.get_transform).parameters.values()
        named = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
        aug.input_args = tuple(named) or ("image",)
    for name in aug.input_args:
        if not hasattr(aug_input, name):
            has = ", ".join(vars(aug_input))
            raise AttributeError(f"{aug} asks for {name!r} of an input that has only {has}")
    return [getattr(aug_input, name) for name in aug.input_args]


def _transform_to_aug(tfm_or_aug):
    if isinstance(tfm_or_aug, Augmentation):
        return tfm_or_aug
    if not isinstance(tfm_or_aug, (Transform, TransformList)):
        raise TypeError(f"expected an Augmentation or a Transform, got {tfm_or_aug!r}")
    return _TransformToAug(tfm_or_aug)
