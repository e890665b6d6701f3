"""Which results are wanted, and how they are made: MODEL.MASK_FORMER.TEST and more."""

from dataclasses import dataclass

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog

from ..family import is_mask2former


@dataclass(frozen=True)
class ResultOptions:
    """Which results are wanted, and how they are made."""

    semantic: bool = True
    panoptic: bool = False
    instance: bool = False
    entity: bool = False  # instances that do not overlap
    parsing: bool = False  # instances are the things, persons, and the other classes are parts
    object_mask_threshold: float = 0.0  # panoptic: queries need a higher score
    overlap_threshold: float = 0.0  # panoptic: segments need this share of their mask's area
    covered_only: bool = True  # panoptic: no pixels outside of a segment's own mask (Mask2Former)
    resize_first: bool = False  # semantic: masks to the output's size before the sigmoid, not after
    score_threshold: float = 0.0  # instances with a lower score are dropped
    rescore: bool = False  # entities: the score times the mean probability of the final mask
    detections_per_image: int = 100
    detections_per_video: int = 10
    semantic_scores: bool = True  # semantic: the categories' scores beside the labels
    full_scores: bool = False  # with a ranking: give `sem_seg` of all C categories too
    thing_ids: frozenset[int] | None = None  # None: not known, and panoptic results need it
    # Without a ranking: classes that no pixel gets (with one, `Ranker.excluded` are not ranked).
    excluded: frozenset[int] = frozenset()

    def __post_init__(self):
        others = self.semantic or self.panoptic or self.instance or self.parsing
        if self.entity and others:
            raise ValueError(
                "MODEL.MASK_FORMER.TEST.ENTITY_ON is for models of one class, whose only results "
                "are entities; set SEMANTIC_ON, PANOPTIC_ON, INSTANCE_ON and PARSING_ON False"
            )
        counts = {
            "TEST.DETECTIONS_PER_IMAGE": self.detections_per_image,
            "MODEL.MASK_FORMER.TEST.DETECTIONS_PER_VIDEO": self.detections_per_video,
        }
        for key, count in counts.items():
            if count < 0:
                raise ValueError(f"{key} must be at least 0, but is {count}; 100 and 10 are usual")
        if self.parsing and (self.panoptic or self.instance):
            raise ValueError(
                "MODEL.MASK_FORMER.TEST.PARSING_ON gives persons as instances already; set "
                "PANOPTIC_ON and INSTANCE_ON False"
            )

    @classmethod
    def from_config(cls, cfg: CfgNode) -> "ResultOptions":
        mask_former = cfg.MODEL.MASK_FORMER
        test = mask_former.TEST
        before = test.SEM_SEG_POSTPROCESSING_BEFORE_INFERENCE
        return cls(
            semantic=test.SEMANTIC_ON,
            panoptic=test.PANOPTIC_ON,
            instance=test.INSTANCE_ON,
            entity=test.ENTITY_ON,
            parsing=test.PARSING_ON,
            object_mask_threshold=test.OBJECT_MASK_THRESHOLD,
            overlap_threshold=test.OVERLAP_THRESHOLD,
            covered_only=is_mask2former(cfg),
            # Panoptic and instance results take masks of the output's size, so all do.
            resize_first=before or test.PANOPTIC_ON or test.INSTANCE_ON or test.PARSING_ON,
            score_threshold=test.SCORE_THRESHOLD,
            rescore=test.MASK_RESCORE,
            detections_per_image=cfg.TEST.DETECTIONS_PER_IMAGE,
            detections_per_video=test.DETECTIONS_PER_VIDEO,
            semantic_scores=test.SEMANTIC_SCORES,
            full_scores=cfg.MODEL.RANKSEG.FULL_SCORES,
            thing_ids=_find_thing_ids([*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST]),
        )

    def things(self) -> frozenset[int]:
        """Ids of the thing classes; ValueError if they are not known."""
        if self.thing_ids is None:
            raise ValueError(
                f"MODEL.MASK_FORMER.TEST.{'PARSING' if self.parsing else 'PANOPTIC'}_ON needs to "
                "know which classes are things, but "
                "the metadata of no data set in DATASETS.TRAIN and DATASETS.TEST has "
                "thing_dataset_id_to_contiguous_id; set it ({} if all classes are stuff), or the "
                "key to False"
            )
        return self.thing_ids


def _find_thing_ids(datasets: list[str]) -> frozenset[int] | None:
    """Ids of the thing classes, from the first data set whose metadata has them."""
    for name in datasets:
        ids = MetadataCatalog.get(name).get("thing_dataset_id_to_contiguous_id")
        if ids is not None:
            return frozenset(ids.values())
    return None
