"""`shapes`, a data set that is drawn on first use: real files, 10 to 2,000 categories.

    patterns.py    shapes, textures and colours
    vocabulary.py  the categories, and which of them occur together
    scene.py       scenes, and their pictures at any time
    build.py       its splits

`rankseg_d2/data/drawn/` writes their files, `rankseg_d2/data/datasets/shapes.py` registers the
names.
"""
