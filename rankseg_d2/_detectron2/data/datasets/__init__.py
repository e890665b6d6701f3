from .coco import load_coco_json, load_sem_seg, register_coco_instances
from .coco_panoptic import register_coco_panoptic

__all__ = ["load_coco_json", "load_sem_seg", "register_coco_instances", "register_coco_panoptic"]
