"""`shapes`, a data set that is drawn on first use: real files, 10 to 2,000 categories.

    patterns.py    shapes, textures and colours
    vocabulary.py  the categories, and which of them occur together
    scene.py       scenes, and their pictures at any time
    build.py       the files of images
    videos.py      the files of videos

`rankseg_d2/data/datasets/shapes.py` registers its names.
"""
