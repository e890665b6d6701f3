"""The result of an image: labels, segments, instances and ranked categories, by name."""

import io
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageShow

from ..data.formats import rle
from ..drawing import Row, Segment, beside, draw_list, draw_overlay
from ..files import write_bytes
from . import formats
from .classes import Classes
from .explore import Explorable, make_page
from .saving import save

_SCORE = 0.5  # of the instances that are drawn
_ROWS = 20  # of the list beside a picture


@dataclass(frozen=True)
class Category:
    """One category of the ranking."""

    name: str
    number: int
    probability: float
    kept: bool  # among the κ that pixels may have
    present: bool  # some pixel has it


@dataclass(frozen=True, eq=False)
class Panoptic:
    """Segments that do not overlap."""

    ids: np.ndarray  # (H, W) int32, 0 for none
    segments: tuple[dict, ...]  # id, category_id (class number), isthing, name, score


class Part(NamedTuple):
    """A part of a person."""

    number: int  # its class
    score: float
    mask: np.ndarray  # (H, W) bool


@dataclass(frozen=True, eq=False)
class Instances:
    """Objects, best first; their masks are compressed, and dense on demand.

    Of human parsing they are persons, and have parts.
    """

    scores: np.ndarray  # (N,)
    categories: np.ndarray  # (N,) class numbers
    boxes: np.ndarray  # (N, 4) x0, y0, x1, y1
    rles: tuple[dict, ...]  # COCO's compressed RLE
    size: tuple[int, int]
    part_map: np.ndarray | None = None  # (H, W) the part of each pixel of all persons, 0 for none
    part_scores: np.ndarray | None = None  # (N, C), 0 for parts that a person does not have

    def __len__(self) -> int:
        return len(self.scores)

    def parts(self, i: int) -> list[Part]:
        """The parts of person i; none of other objects."""
        if self.part_map is None:
            return []
        parts = np.where(rle.decode(self.rles[i]), self.part_map, 0)  # (H, W)
        found = np.unique(parts[parts > 0]).tolist()
        return [Part(n, float(self.part_scores[i, n]), parts == n) for n in found]

    def likely(self) -> list[int]:
        """The numbers of those that are drawn and counted: with a score of 0.5 or more."""
        return np.flatnonzero(self.scores >= _SCORE).tolist()

    @property
    def masks(self) -> np.ndarray:
        """(N, H, W) bool."""
        masks = np.zeros((len(self), *self.size), bool)
        for mask, one in zip(masks, self.rles, strict=True):
            mask[:] = rle.decode(one)
        return masks


@dataclass(frozen=True, eq=False)
class ImageResult:
    """What a model sees in an image.

    Attributes:
        image: (H, W, 3) RGB.
        name: its path below the folder that was given, or a number.
        path: of its file; "" without one.
        semantic: (H, W) class numbers, C for none; None if the model gives none.
        panoptic: segments, or None.
        instances: objects, or None.
        categories: the ranked list, best first; () if the model does not rank.
        excluded: names of the categories that were not allowed.
        likely_excluded: names of those of them that are likely present.
        speed: milliseconds of each stage.
    """

    image: np.ndarray = field(repr=False)
    classes: Classes = field(repr=False)
    name: str = ""
    path: str = ""
    semantic: np.ndarray | None = None
    panoptic: Panoptic | None = None
    instances: Instances | None = None
    categories: tuple[Category, ...] = ()
    excluded: tuple[str, ...] = ()
    likely_excluded: tuple[str, ...] = ()
    speed: Mapping[str, float] = field(default_factory=dict)
    explorable: Explorable | None = field(default=None, repr=False)  # what `explore` needs

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.image.shape[:2]

    @property
    def names(self) -> tuple[str, ...]:
        """The categories that some pixel has, the largest first."""
        return tuple(self.classes.names[number] for number in self.shares())

    def shares(self) -> dict[int, float]:
        """Class number -> its share of the pixels, for the classes that some pixel has.

        The largest comes first.
        """
        return self._shares

    @cached_property
    def _shares(self) -> dict[int, float]:
        labels, count = self.labels(), len(self.classes)
        counts = np.bincount(labels.ravel(), minlength=count)[:count].tolist()
        some = sorted((i for i in range(count) if counts[i]), key=lambda i: -counts[i])
        return {i: counts[i] / labels.size for i in some}

    def labels(self, own_ids: bool = False) -> np.ndarray:
        """The class number of each pixel, C for none; or the data set's own ids.

        Without a semantic result they come from the segments, else from the likely instances.
        """
        count = len(self.classes)
        if self.semantic is not None:
            labels = self.semantic
        elif self.panoptic is not None:
            table = np.full(max([s["id"] for s in self.panoptic.segments], default=0) + 1, count)
            for segment in self.panoptic.segments:
                table[segment["id"]] = segment["category_id"]
            labels = table[self.panoptic.ids]
        else:
            labels = np.full(self.size, count)
            for i in reversed(self.instances.likely()):
                labels[rle.decode(self.instances.rles[i])] = self.instances.categories[i]
        if own_ids:
            return self.classes.own_ids(labels)
        return labels.astype(np.uint8 if count < 2**8 else np.uint16)

    def plot(self, kind: str | None = None, *, ranking: bool = True, **options: Any) -> np.ndarray:
        """The image with a result on it, and the ranked list beside it: (H, W, 3) RGB.

        kind: "semantic", "panoptic" or "instances"; by default the most detailed one.
        """
        picture = draw_overlay(
            self.image, names=self.classes.names, colors=self.classes.colors,
            **self._drawn(kind or self._kinds()[0]), **options,
        )  # fmt: skip
        rows = list_rows(self.classes, self.categories, self.shares()) if ranking else []
        return beside(picture, draw_list(rows, height=picture.shape[0])) if rows else picture

    def _kinds(self) -> list[str]:
        things = self.classes.things
        kinds = ("panoptic", "instances", "semantic") if things else ("semantic", "instances")
        return [kind for kind in kinds if getattr(self, kind) is not None]

    def _drawn(self, kind: str) -> dict[str, Any]:
        """The arguments of `draw_overlay`."""
        if kind not in self._kinds():
            raise ValueError(
                f"this result has no {kind!r}, only {', '.join(self._kinds())}; what a model gives "
                "is set by MODEL.MASK_FORMER.TEST"
            )
        if kind == "semantic":
            return {"labels": self.semantic}
        if kind == "panoptic":
            segments = [
                Segment(s["category_id"], id=s["id"], is_thing=s["isthing"])
                for s in self.panoptic.segments
            ]
            return {"ids": self.panoptic.ids, "segments": segments}
        found, segments = self.instances, []
        for i in found.likely():
            number, mask, score = found.categories[i], rle.decode(found.rles[i]), found.scores[i]
            segments.append(Segment(int(number), mask=mask, score=float(score)))
            segments += [  # on top of the person
                Segment(part.number, mask=part.mask, score=part.score, is_thing=False)
                for part in found.parts(i)
            ]
        return {"segments": segments}

    def show(self) -> None:
        """Open the plot in the system's viewer; in a notebook, the result shows itself."""
        on_linux = sys.platform.startswith("linux")
        if on_linux and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            raise RuntimeError("there is no display to show a picture on; use save() or plot()")
        if not ImageShow.show(Image.fromarray(self.plot()), title=self.name):
            raise RuntimeError("there is no program to show a picture with; use save() or plot()")

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        Image.fromarray(self.plot()).save(file, "png")
        return file.getvalue()

    def save(
        self,
        folder: str | os.PathLike,
        *,
        label_png: bool = True,
        overlay: bool = True,
        coco: bool = False,
        panoptic_png: bool = False,
        categories: bool = False,
        explore: bool = False,
        own_ids: bool = False,
        overwrite: bool = False,
    ) -> list[Path]:
        """Write files of the result below a folder, in the folders of its name; their paths.

        FileExistsError where one exists with other content, unless `overwrite` is set.

        Args:
            label_png: <name>.png: the class number of each pixel (8 or 16 bits), 255 or 65535 for
                none; with `own_ids` the data set's own ids and its ignore label.
            overlay: <name>_overlay.jpg: the plot.
            coco: <name>_coco.json: COCO's results of the instances or segments.
            panoptic_png: <name>_panoptic.png and .json: COCO's panoptic format.
            categories: <name>_categories.json: the ranked list.
            explore: <name>_explore.html: the page of `explore`.
        """
        return save(
            self, folder, label_png=label_png, overlay=overlay, coco=coco,
            panoptic_png=panoptic_png, categories=categories, explore=explore, own_ids=own_ids,
            overwrite=overwrite,
        )  # fmt: skip

    def explore(self, path: str | os.PathLike) -> Path:
        """Write a page in which to play with the ranking of this image, an HTML file; its path."""
        page, path = self.page(), Path(path)
        write_bytes(path, page)
        return path

    def page(self) -> bytes:
        """The page that `explore` writes."""
        if self.explorable is None:
            raise ValueError(
                "this result has not kept what its page needs; predict with "
                "predictor(source, explorable=True)"
            )
        return make_page(self, self.explorable)

    def to_dict(self) -> dict:
        """Plain JSON types: categories, segments, and instances with RLE."""
        return formats.to_dict(self)

    def to_coco(self, image_id: int | str = 0) -> list[dict]:
        """COCO's results of the instances, else of the segments, with the data set's ids."""
        return formats.to_coco(self, image_id)

    def to_hf(self) -> Any:
        """What Hugging Face's post_process functions give: a dict of segments, or a label map."""
        return formats.to_hf(self)

    def to_supervision(self) -> Any:
        """supervision's Detections."""
        return formats.to_supervision(self)

    def __repr__(self) -> str:
        height, width = self.size
        found = []
        if self.panoptic is not None:
            found.append(f"{len(self.panoptic.segments)} segments")
        if self.instances is not None:
            found.append(f"{len(self.instances.likely())} likely instances")
        parts = [f"{width} x {height}", *found, in_words(self.classes, self.shares())]
        milliseconds = sum(self.speed.values())
        if milliseconds:
            parts.append(f"{milliseconds:.0f} ms")
        return f"{type(self).__name__}({self.name}: {'; '.join(parts)})"


def in_words(classes: Classes, shares: Mapping[int, float]) -> str:
    """The largest classes and their shares, for `repr`."""
    words = [f"{classes.names[n]} {100 * share:.0f} %" for n, share in shares.items()]
    more = f" and {len(words) - 5} more" if len(words) > 5 else ""
    return (", ".join(words[:5]) or "nothing") + more


def list_rows(
    classes: Classes, categories: Sequence[Category], shares: Mapping[int, float]
) -> list[Row]:
    """The ranked list; without a ranking, the classes by area."""
    names, colors = classes.names, classes.colors
    if not categories:
        return [Row(names[n], colors[n], share) for n, share in list(shares.items())[:_ROWS]]
    return [
        Row(one.name, colors[one.number] if one.present else None, one.probability, one.kept)
        for one in categories[:_ROWS]
    ]
