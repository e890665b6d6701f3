"""Data sets that are drawn on first use, as real files; `shapes` and `stickers` say what is drawn.

    layout.py  what scenes have in common
    split.py   a split's folder: made once, whole or not at all
    images.py  the files of images
    videos.py  the files of videos
"""
