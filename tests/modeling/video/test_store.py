"""How the results of videos are held, read and written."""

import numpy as np
import pytest
import torch
from PIL import Image
from support.videos import BOTH, decoded, run, video, video_model, windowed

from rankseg_d2.modeling.results.reading import encode_masks, label_maps, rle_masks
from rankseg_d2.modeling.video import store
from rankseg_d2.modeling.video.store import CompressedLabelMaps, LabelWriter
from rankseg_d2.modeling.video.windows import VideoWindows


@pytest.mark.parametrize("in_memory", [1, 2**24])
@pytest.mark.parametrize(("num_classes", "dtype"), [(124, np.uint8), (1284, np.uint16)])
def test_label_maps_are_a_sequence_of_arrays(monkeypatch, in_memory, num_classes, dtype):
    monkeypatch.setattr(store, "IN_MEMORY", in_memory)
    generator = np.random.default_rng(0)
    expected = [generator.integers(0, num_classes + 1, (9, 12)) for _ in range(5)]
    maps = CompressedLabelMaps(num_classes)
    for labels in expected:
        maps.append(labels)
    assert len(maps) == 5 and maps[0].dtype == dtype
    assert maps.store.file._rolled == (in_memory == 1)  # it is a file on disk
    for _ in range(2):
        np.testing.assert_array_equal(list(maps), expected)
    np.testing.assert_array_equal(maps[3:0:-2], expected[3:0:-2])
    np.testing.assert_array_equal(maps[-1], expected[-1])
    with pytest.raises(IndexError):
        maps[5]
    maps[2][:] = 0  # a copy
    np.testing.assert_array_equal(maps[2], expected[2])


def test_results_that_went_to_a_file_are_the_same(monkeypatch):
    model = windowed(BOTH, 3, 1)
    expected = run(model, video())[0]
    monkeypatch.setattr(store, "IN_MEMORY", 1)
    found = run(model, video())[0]
    assert found["pred_masks"] == expected["pred_masks"]
    np.testing.assert_array_equal(found["sem_seg_frames"][:], expected["sem_seg_frames"][:])


def test_label_maps_compress():
    maps = CompressedLabelMaps(124)
    labels = np.zeros((480, 853), np.int64)
    labels[100:300, 200:500] = 7
    for _ in range(20):
        maps.append(labels)
    assert maps.store.file.seek(0, 2) < 20 * labels.size / 50


def test_callbacks_get_each_label_map_as_soon_as_it_is_made(tmp_path):
    model = windowed({}, 3, 1)
    seen = []
    model.label_callbacks += [lambda sample, frame, labels: seen.append((frame, labels))]
    sample = video(frames=9, video_id="a")
    reads = []
    model.label_callbacks += [lambda *_: reads.append(len(sample["image"].reads))]
    model.label_callbacks += [LabelWriter(tmp_path)]
    result = run(model, sample)[0]
    assert [frame for frame, _ in seen] == list(range(9))
    assert reads[0] <= 5 and reads[-1] == 9  # one window of 2 new frames is read ahead
    for frame, labels in seen:
        np.testing.assert_array_equal(labels, result["sem_seg_frames"][frame])
        with Image.open(tmp_path / "a" / f"{frame:05d}.png") as image:
            np.testing.assert_array_equal(np.asarray(image), labels)
    assert len(list((tmp_path / "a").iterdir())) == 9


def test_label_images_have_the_names_of_the_frames(tmp_path):
    write = LabelWriter(tmp_path)
    labels = np.arange(12, dtype=np.uint16).reshape(3, 4) + 1000
    write({"file_names": ["x/00.jpg", "x/07.jpg"], "video_id": 3}, 1, labels)
    with Image.open(tmp_path / "3" / "07.png") as image:
        np.testing.assert_array_equal(np.asarray(image), labels)


@pytest.mark.parametrize("video_id", ["../evil", "/tmp/evil", "a/../../evil", ""])
def test_label_images_stay_in_their_folder(tmp_path, video_id):
    write = LabelWriter(tmp_path / "inside")
    with pytest.raises(ValueError, match="the video_id of a sample"):
        write({"file_names": ["x/00.jpg"], "video_id": video_id}, 0, np.zeros((3, 4), np.uint8))
    assert list(tmp_path.rglob("*")) == []


def test_results_of_clips_and_videos_read_alike():
    model = video_model(BOTH)
    clip = run(model, video(frames=3))[0]
    model.windows = VideoWindows(3, 0)
    found = run(model, video(frames=3))[0]
    assert rle_masks(clip) == rle_masks(found)
    for rles, masks in zip(rle_masks(clip), clip["pred_masks"], strict=True):
        np.testing.assert_array_equal(decoded(rles, masks.shape[1:]), masks.numpy())
    np.testing.assert_array_equal(label_maps(clip), label_maps(found))


def test_masks_without_a_pixel_have_no_rle():
    masks = torch.rand(5, 30, 17, generator=torch.Generator().manual_seed(0)) > 0.6
    masks[[1, 4]] = False
    rles = encode_masks(masks)
    assert [rle is None for rle in rles] == [False, True, False, False, True]
    assert all(rle["size"] == [30, 17] for rle in rles if rle)
    np.testing.assert_array_equal(decoded(rles, (30, 17)), masks.numpy())
    assert encode_masks(masks[:0]) == [] and encode_masks(masks[1:2]) == [None]
