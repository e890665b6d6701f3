"""Pictures of training batches: labels are where they are, in the colours of their classes."""

import logging

import numpy as np
import pytest
import torch
from detectron2.data import MetadataCatalog
from detectron2.structures import BitMasks, Instances
from PIL import Image
from support.toy import ToyTrainer, final_weights, toy_config, train

from rankseg_d2.data.mappers.packed_masks import IdMapMasks
from rankseg_d2.drawing import GAP
from rankseg_d2.drawing.text import line_height
from rankseg_d2.engine.batch_pictures import MOST_IMAGES, SIDE, ClassTable, draw_batch
from rankseg_d2.engine.hooks import BatchPictures

NAMES = ["sky", "road", "cat"]
COLORS = np.array([(250, 0, 0), (0, 250, 0), (0, 0, 250)], np.uint8)
CLASSES = ClassTable(NAMES, COLORS, [False, False, True])
IMAGE = (40, 90, 200)  # RGB, of every pixel
CAPTION = line_height(13)
SIZE = 8  # of the images: each of their pixels is SIDE / 8 of the picture


def image(channels=IMAGE):
    return torch.tensor(channels, dtype=torch.uint8)[:, None, None].expand(3, SIZE, SIZE)


def instances(classes, masks):
    found = Instances((SIZE, SIZE))
    found.gt_classes, found.gt_masks = torch.tensor(classes), masks
    return found


def id_map(fill=255):
    ids = torch.full((SIZE, SIZE), fill, dtype=torch.uint8)
    ids[:4], ids[4:, :4] = 0, 1  # sky above, road below on the left, nothing on the right
    return ids


def at(picture, row, column, cell=(0, 0)):
    """The middle of a pixel of the image in a cell (row, column)."""
    side = SIDE // SIZE
    y = cell[0] * (SIDE + CAPTION + GAP) + CAPTION
    x = cell[1] * (SIDE + GAP)
    # A third of the way, where no name and no outline is.
    return picture[y + row * side + side // 3, x + column * side + side // 3].astype(int)


def mixture(category):
    return (np.array(IMAGE) + COLORS[category].astype(int)) / 2


KINDS = {
    "masks": lambda: {"instances": instances([0, 1], IdMapMasks(id_map(), [0, 1]))},
    "bits": lambda: {
        "instances": instances([0, 1], BitMasks(torch.stack([id_map() == 0, id_map() == 1])))
    },
    "label map": lambda: {"sem_seg": id_map()},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("is_bgr", [False, True])
def test_labels_are_mixed_with_the_image_where_they_are(kind, is_bgr):
    sample = {"image": image(IMAGE[::-1] if is_bgr else IMAGE)} | KINDS[kind]()
    picture = draw_batch([sample], CLASSES, is_bgr=is_bgr, marks_unlabelled=False)
    for row, column, category in ((1, 1, 0), (1, 6, 0), (7, 1, 1)):
        assert abs(at(picture, row, column) - mixture(category)).max() <= 1
    assert at(picture, 7, 6).tolist() == list(IMAGE)  # no label


@pytest.mark.parametrize("kind", KINDS)
def test_pixels_without_a_label_are_hatched(kind):
    picture = draw_batch([{"image": image()} | KINDS[kind]()], CLASSES)
    side = SIDE // SIZE
    area = picture[CAPTION + 5 * side : CAPTION + 8 * side, 5 * side : 8 * side].reshape(-1, 3)
    assert len(np.unique(area, axis=0)) == 2  # stripes, and what is between them
    assert not (area == IMAGE).all(1).any()
    assert abs(at(picture, 1, 1) - mixture(0)).max() <= 1


def test_large_images_shrink_and_labels_stay_in_place():
    size = 3 * SIDE
    labels = torch.zeros(size, size // 2, dtype=torch.int32)
    labels[size // 2 :] = 1
    sample = {"image": torch.zeros(3, size, size // 2, dtype=torch.uint8), "sem_seg": labels}
    picture = draw_batch([sample], CLASSES)
    above, below = picture[CAPTION + SIDE // 4, 3], picture[CAPTION + 3 * SIDE // 4, 3]
    assert (above, below) == (pytest.approx(COLORS[0] // 2), pytest.approx(COLORS[1] // 2))


def test_a_clip_is_a_row_of_its_frames():
    frames = [instances([2], BitMasks((id_map() == i)[None])) for i in (0, 1)]
    clip = {"image": [image(), image()], "instances": frames, "file_names": ["a/1.jpg", "a/2.jpg"]}
    picture = draw_batch([clip, clip], CLASSES, marks_unlabelled=False)
    for number in (0, 1):
        assert abs(at(picture, 1, 1, (number, 0)) - mixture(2)).max() <= 1
        assert at(picture, 7, 1, (number, 0)).tolist() == list(IMAGE)
        assert abs(at(picture, 7, 1, (number, 1)) - mixture(2)).max() <= 1
        assert at(picture, 1, 1, (number, 1)).tolist() == list(IMAGE)


def test_an_object_that_a_frame_does_not_show_keeps_its_tint_in_others():
    """Two cats; the first is not in the second frame."""
    empty, upper, lower = id_map() == 7, id_map() == 0, id_map() == 1
    masks = [torch.stack([upper, lower]), torch.stack([empty, lower])]
    frames = [instances([2, 2], BitMasks(mask)) for mask in masks]
    picture = draw_batch([{"image": [image()] * 2, "instances": frames}], CLASSES)
    assert at(picture, 7, 1, (0, 0)).tolist() == at(picture, 7, 1, (0, 1)).tolist()
    assert at(picture, 7, 1).tolist() != at(picture, 1, 1).tolist()


def test_many_images_and_images_without_labels():
    sample = {"image": image().float()}
    picture = draw_batch([sample] * (MOST_IMAGES + 3), CLASSES)
    assert len(picture) == 4 * (SIDE + CAPTION + GAP)
    picture = draw_batch([sample], CLASSES, marks_unlabelled=False)
    assert at(picture, 3, 3).tolist() == list(IMAGE)


# --- in a training --------------------------------------------------------------------------------


class Labelled(ToyTrainer):
    """The batches get labels, so that something is drawn."""

    def build_step_trainer(self, *args):
        step_trainer = super().build_step_trainer(*args)
        batches_from = step_trainer._batches_from

        def labelled(iteration):
            for batch in batches_from(iteration):
                yield [sample | {"sem_seg": torch.zeros(6, 6, dtype=torch.uint8)}
                       for sample in batch]  # fmt: skip

        step_trainer._batches_from = labelled
        return step_trainer


@pytest.fixture
def named_toy():
    MetadataCatalog.get("toy").stuff_classes = ["thing"]
    yield
    del MetadataCatalog.get("toy").stuff_classes


def test_the_first_three_batches_are_drawn_and_the_weights_stay(tmp_path, named_toy, monkeypatch):
    options = "MODEL.SEM_SEG_HEAD.NUM_CLASSES", 1
    trainer = train(toy_config(tmp_path / "with", *options), trainer_class=Labelled)
    files = sorted(path.name for path in (tmp_path / "with").glob("train_batch_*"))
    assert files == [f"train_batch_{i}.jpg" for i in range(3)]
    assert trainer._trainer.watch is None  # and costs nothing from then on
    picture = np.asarray(Image.open(tmp_path / "with" / files[0]))
    assert len(picture) > 2 * SIDE  # four images
    monkeypatch.setattr(BatchPictures, "COUNT", 0)
    train(toy_config(tmp_path / "without", *options), trainer_class=Labelled)
    assert not list((tmp_path / "without").glob("train_batch_*"))
    expected = final_weights(tmp_path / "without")
    for name, value in final_weights(tmp_path / "with").items():
        assert torch.equal(value, expected[name]), name


def test_a_resumed_run_draws_what_is_left_to_draw(tmp_path):
    class Stopped(ToyTrainer):
        def after_step(self):
            super().after_step()
            if self.iter == 1:
                self.checkpointer.save("model_0000001", iteration=1)
                raise OverflowError

    with pytest.raises(OverflowError):
        train(toy_config(tmp_path), trainer_class=Stopped)
    (tmp_path / "train_batch_0.jpg").unlink()
    train(toy_config(tmp_path), resume=True)
    assert not (tmp_path / "train_batch_0.jpg").exists()
    assert (tmp_path / "train_batch_2.jpg").exists()


def test_a_drawing_that_fails_is_one_warning(tmp_path, monkeypatch, caplog):
    def fail(*_, **__):
        raise ZeroDivisionError("no colours")

    monkeypatch.setattr("rankseg_d2.engine.hooks.draw_batch", fail)
    monkeypatch.setattr("rankseg_d2.engine.hooks.draw_curves", fail)
    monkeypatch.setattr(logging.getLogger("rankseg_d2"), "propagate", True)
    with caplog.at_level("WARNING", logger="rankseg_d2"):
        assert train(toy_config(tmp_path)).iter == 12
    warned = [record.getMessage() for record in caplog.records if "no colours" in record.message]
    assert [name for name in ("train_batch_0.jpg", "train_batch_1.jpg", "curves.png")
            if sum(name in line for line in warned) != 1] == []  # fmt: skip
    assert len(warned) == 4
    assert (tmp_path / "model_final.pth").is_file()


def test_other_processes_draw_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("rankseg_d2.engine.hooks.comm.is_main_process", lambda: False)
    trainer = ToyTrainer(toy_config(tmp_path))
    kinds = {type(hook).__name__ for hook in trainer._hooks}
    assert not kinds & {"ClassFile", "BatchPictures", "MetricsFiles"}
