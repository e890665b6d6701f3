from fvcore.transforms.transform import *  # noqa: F403

from .augmentation import *  # noqa: F403
from .augmentation_impl import *  # noqa: F403
from .transform import *  # noqa: F403
