"""A page in which a person plays with the ranking of one image, in a browser, without a network.

stored.py        what is kept of a prediction, so that other rankings need no network
packing.py       arrays as text
page.py          all of it in one file of HTML
resizing.js      maps at other sizes
segmentation.js  the model's arithmetic after the network
drawing.js       labels as a picture
controls.js      what a person can do
"""

from .page import make_page
from .stored import Explorable, check_explorable, predict_explorable

__all__ = ["Explorable", "check_explorable", "make_page", "predict_explorable"]
