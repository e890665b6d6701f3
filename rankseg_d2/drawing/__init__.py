"""Pictures and charts of results, drawn by OpenCV and NumPy; all pictures are (H, W, 3) RGB bytes.

colors.py      a fixed colour for each class, tints for its instances
text.py        text of any script
painting.py    label maps -> colours
labels.py      where names stand
overlay.py     a result on its image
error_view.py  where a prediction is wrong
panels.py      ranked lists and legends beside a picture, sheets of pictures
axes.py        the frame of charts
charts.py      curves and bars
heat_map.py    confusion
"""

from .charts import bar_chart, dot_chart, plot_curves
from .colors import INK, MISSED, PAPER, RIGHT, WRONG, class_colors
from .error_view import WrongCategories, error_rows, error_view, wrong_categories
from .heat_map import heat_map
from .overlay import Segment, draw_overlay
from .painting import edges_of, hatch, label_picture, tinted
from .panels import CELL, GAP, Row, beside, draw_list, fit_into, lines_in, sheet

__all__ = [
    "CELL",
    "GAP",
    "INK",
    "MISSED",
    "PAPER",
    "RIGHT",
    "WRONG",
    "Row",
    "Segment",
    "WrongCategories",
    "bar_chart",
    "beside",
    "class_colors",
    "dot_chart",
    "draw_list",
    "draw_overlay",
    "edges_of",
    "error_rows",
    "error_view",
    "fit_into",
    "hatch",
    "heat_map",
    "label_picture",
    "lines_in",
    "plot_curves",
    "sheet",
    "tinted",
    "wrong_categories",
]
