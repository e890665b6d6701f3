"""Images paired with polygons: COCO instance json, labelme, YOLO-seg; as objects or drawn."""

from collections.abc import Callable
from pathlib import Path

from ..formats.coco_instances import load_instances
from ..formats.drawn_labels import DrawnLabels
from ..formats.image_files import image_size
from ..formats.labelme import IGNORED, read_labelme
from ..formats.yolo import read_yolo
from .description import OwnData
from .pairing import IMAGES, Fault, Pairs, choose, chosen_records, files_below, image_name
from .splits import Split

_ENDINGS = {"labelme": ".json", "yolo": ".txt"}
_CLASS_LISTS = {"classes", "labels", "obj.names", "notes"}  # text files that tools write beside


def pair_instances(data: OwnData, split: Split) -> Pairs:
    """The images of a split with their objects as annotations."""
    if split.shapes == "json":
        return chosen_records(_of_json(data, split), split)
    return _of_files(data, split)


def pair_drawn(data: OwnData, split: Split) -> Pairs:
    """The images of a split with label maps that are drawn from their objects."""
    records, faults = pair_instances(data, split)
    return [_drawn(record, data, split) for record in records], faults


def _drawn(record: dict, data: OwnData, split: Split) -> dict:
    shapes = [(_label(note["category_id"], data), note.get("segmentation") or [])
              for note in record["annotations"]]
    source = record.get("label_file") or f"{split.labels} ({image_name(record, split.images)})"
    labels = DrawnLabels(source, shapes, (record["height"], record["width"]),
                         _label(data.values.background, data))
    kept = {key: record[key] for key in ("file_name", "image_id", "height", "width")}
    return kept | {"sem_seg_file_name": labels}


def _label(meaning: int, data: OwnData) -> int:
    return data.ignore_label if meaning == IGNORED else meaning


def _of_json(data: OwnData, split: Split) -> list[dict]:
    ids = {"thing_dataset_id_to_contiguous_id": data.category_ids}
    return load_instances(split.labels, split.images, ids)


def _of_files(data: OwnData, split: Split) -> Pairs:
    """The images of a folder with one file of shapes each; YOLO has none for an empty image."""
    images = files_below(split.images, data.image_suffix, IMAGES)
    labels = files_below(split.labels, data.label_suffix, (_ENDINGS[split.shapes],))
    names, faults = choose(images, split, data.image_suffix)
    if not isinstance(split.chosen, Path):
        alone = sorted(labels.keys() - images.keys())
        faults += [Fault("label without image", labels[name]) for name in alone
                   if Path(name).name not in _CLASS_LISTS]
    if not labels.keys() & images.keys():
        return [], faults  # another folder is meant
    read = _read_yolo if split.shapes == "yolo" else _read_labelme
    records = []
    for name in names:
        if name not in labels and split.shapes == "labelme":
            faults.append(Fault("image without label", images[name]))
            continue
        try:
            records.append(_record(name, images[name], labels.get(name), data, read))
        except (ValueError, KeyError, OSError) as error:
            faults.append(Fault("unreadable label", labels.get(name, images[name]),
                                str(error.args[0])))
    return records, faults


def _record(name: str, image: str, label: str | None, data: OwnData, read: Callable) -> dict:
    (height, width), shapes = read(label, image, data)
    keep_ignored = data.kind == "drawn"
    notes = [{"category_id": class_id, "segmentation": segmentation, "iscrowd": 0}
             for class_id, segmentation in shapes if class_id != IGNORED or keep_ignored]
    return {"file_name": image, "image_id": name, "height": height, "width": width,
            "annotations": notes, "label_file": label or image}


def _read_yolo(label: str | None, image: str, data: OwnData) -> tuple:
    size = image_size(image, "image")
    return size, read_yolo(Path(label), data.category_ids, size) if label else []


def _read_labelme(label: str, image: str, data: OwnData) -> tuple:
    return read_labelme(Path(label), data.values.by_label, lambda: image_size(image, "image"))
