"""`stickers`, a data set that is drawn on first use: emoji on grounds, 20 to 1,000 categories.

    emoji.json     Unicode's names, groups and sub-groups
    vocabulary.py  the categories, and which of them occur together
    pictures.py    where the pictures of emoji and the photos come from
    grounds.py     how grounds look
    scene.py       scenes, and their pictures at any time
    build.py       its splits

`rankseg_d2/data/drawn/` writes their files, `rankseg_d2/data/datasets/stickers.py` registers the
names.
"""
