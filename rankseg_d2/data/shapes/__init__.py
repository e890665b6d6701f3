"""`shapes`, a data set that is drawn on first use: real files, any number of categories.

    patterns.py    shapes, textures and colours
    vocabulary.py  the categories, and which of them are seen together
    scene.py       scenes and their pictures at any time
    build.py       the files of images
    clips.py       the files of videos

Its names are registered in `rankseg_d2/data/datasets/shapes.py`.
"""
