from .colors import class_colors
from .overlay import Segment, draw_overlay
from .error_view import *
from .panels import *
