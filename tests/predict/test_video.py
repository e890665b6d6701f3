"""Videos: their frames, results by windows, and image models frame by frame."""

import json
import threading
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco
from support.predicting import (
    ALL,
    NAMES,
    SIZE,
    by_hand,
    make_predictor,
    pixels,
    ranking_predictor,
)
from support.small import VIDEO

from rankseg_d2.modeling.video.store import CompressedLabelMaps
from rankseg_d2.modeling.video.windows import plan
from rankseg_d2.predict.frames import ImageFrames, VideoFile, open_video
from rankseg_d2.predict.video import Track

FRAMES = 13
WINDOW = {"TEST.VIDEO.WINDOW": 6, "TEST.VIDEO.OVERLAP": 2}
OBJECTS = {"MODEL.MASK_FORMER.TEST.INSTANCE_ON": True}


def frames_of(count=FRAMES, size=SIZE):
    return [pixels(i // 4, size) for i in range(count)]


def write_video(path, frames, fps=10):
    size = frames[0].shape[1::-1]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), fps, size)
    for frame in frames:
        writer.write(frame[..., ::-1].copy())
    writer.release()
    return path


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("videos") / "clip.v2.mp4", frames_of())


@pytest.fixture(scope="module")
def predictor():
    return ranking_predictor(VIDEO, WINDOW, OBJECTS)


@pytest.fixture(scope="module")
def result(predictor, clip):
    return predictor(clip)


@torch.no_grad()
def clip_by_hand(predictor, frames):
    """The output of the model for these frames, through its own windows."""
    sample = {"image": [prepared(predictor, x) for x in frames], "height": 32, "width": 48}
    return predictor.model([sample])[0]


def prepared(predictor, image):
    from detectron2.data import transforms as T

    keys = predictor.cfg.INPUT
    resize = T.ResizeShortestEdge(keys.MIN_SIZE_TEST, keys.MAX_SIZE_TEST).get_transform(image)
    return torch.from_numpy(np.array(resize.apply_image(image))).permute(2, 0, 1)


def test_frames_of_a_file_are_those_in_it_in_any_order(clip):
    frames, plain = VideoFile(str(clip)), cv2.VideoCapture(str(clip))
    assert len(frames) == FRAMES and frames.fps == 10
    wanted = [plain.read()[1][..., ::-1] for _ in range(FRAMES)]
    for number in (0, 1, 2, 7, 3, 12, 0, -1):
        np.testing.assert_array_equal(frames[number], wanted[number])
    with ThreadPoolExecutor(4) as pool:
        for found, frame in zip(pool.map(frames.__getitem__, range(FRAMES)), wanted, strict=True):
            np.testing.assert_array_equal(found, frame)
    with pytest.raises(IndexError):
        frames[FRAMES]
    assert np.abs(wanted[5].astype(int) - frames_of()[5]).mean() < 12  # RGB, not BGR


def test_reading_in_order_decodes_each_frame_once(clip, monkeypatch):
    frames = VideoFile(str(clip))
    assert len(frames) == FRAMES
    monkeypatch.setattr(frames, "_open", lambda: pytest.fail("opened again"))
    for number in range(FRAMES):
        assert frames[number].shape == (*SIZE, 3)


def test_files_that_are_no_videos_are_one_sentence(predictor, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "bad.mp4").write_bytes(b"no video" * 100)
    with pytest.raises(ValueError, match=r"the video .*bad\.mp4 cannot be read: it is damaged"):
        predictor(tmp_path / "bad.mp4")
    with pytest.raises(FileNotFoundError, match="the video .*no.mp4 does not exist"):
        predictor(tmp_path / "no.mp4")
    with pytest.raises(FileNotFoundError, match="has no images"):
        predictor(tmp_path / "folder", video=True)
    with pytest.raises(ValueError, match="the video video has no frames"):
        predictor([], video=True)
    with pytest.raises(TypeError, match="a video is a file, a folder of frames, a list of images"):
        predictor((x for x in frames_of()), video=True)


def test_a_result_is_that_of_the_model_called_by_hand(predictor, clip, result):
    frames = list(VideoFile(str(clip)))
    output = clip_by_hand(predictor, frames)
    assert len(result) == FRAMES and result.size == SIZE
    assert isinstance(result.semantic, CompressedLabelMaps)
    for found, wanted in zip(result.semantic, output["sem_seg_frames"], strict=True):
        np.testing.assert_array_equal(found, wanted)
    assert [track.score for track in result.tracks] == output["pred_scores"].tolist()
    assert [track.category for track in result.tracks] == output["pred_labels"].tolist()
    assert [list(track.rles) for track in result.tracks] == output["pred_masks"]
    kept = [one.number for one in result.categories if one.kept]
    assert kept == output["ranking"]["classes"].tolist()
    labels = np.stack(output["sem_seg_frames"])
    counts = np.bincount(labels.ravel(), minlength=7)[:7] / labels.size
    assert result.shares() == {i: share for i, share in enumerate(counts) if share}
    assert list(result.shares().values()) == sorted(counts[counts > 0], reverse=True)


def test_folders_lists_and_arrays_of_frames_give_the_same(predictor, tmp_path):
    frames = frames_of(8)
    for i, frame in enumerate(frames):
        Image.fromarray(frame).save(tmp_path / f"f{i + 3}.png")  # f10 comes after f9
    wanted = predictor(frames, video=True)
    array, tensor = np.stack(frames), torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)
    for source in (tmp_path, f"{tmp_path}/*.png", array, tensor):
        found = predictor(source, video=True)
        for one, other in zip(wanted.semantic, found.semantic, strict=True):
            np.testing.assert_array_equal(one, other)
    assert [one.name for one in wanted][:2] == ["video/00000", "video/00001"]
    assert next(iter(predictor(tmp_path, video=True))).name == f"{tmp_path.name}/f3.png"


def test_frames_are_read_once_and_only_a_window_ahead(predictor, monkeypatch):
    reads, done, network = [], [], predictor.model.network
    get = ImageFrames.__getitem__
    monkeypatch.setattr(ImageFrames, "__getitem__", lambda self, i: reads.append(i) or get(self, i))

    def counted(frames, num_frames):
        done.append(len(reads))
        return network(frames, num_frames)

    monkeypatch.setattr(predictor.model, "network", counted)
    predictor(frames_of(30), video=True)
    assert reads == [0, *range(30)]  # the first one for its size
    assert len(done) == 7
    assert all(count <= 1 + 6 + 4 * (i + 1) for i, count in enumerate(done))


def test_the_next_window_is_read_while_one_runs(predictor, monkeypatch):
    asked, get, network = defaultdict(threading.Event), ImageFrames.__getitem__, []
    windows = plan(30, 6, 2)

    def noted(self, index):
        asked[index].set()
        return get(self, index)

    def run(*args):
        """Ends only after the next window has been asked for."""
        network.append(args)
        if len(network) < len(windows):
            assert asked[windows[len(network)].seen.stop - 1].wait(60)
        return forward(*args)

    forward = predictor.model.network
    monkeypatch.setattr(ImageFrames, "__getitem__", noted)
    monkeypatch.setattr(predictor.model, "network", run)
    predictor(frames_of(30), video=True)
    assert len(network) == len(windows) == 7


def test_models_that_take_videos_as_a_whole_take_windows_here():
    whole = ranking_predictor(VIDEO)
    assert whole.model.windows is None
    frames = frames_of(12)
    found = whole(frames, video=True)
    windowed = ranking_predictor(VIDEO, {"TEST.VIDEO.WINDOW": 8, "TEST.VIDEO.OVERLAP": 4})
    for one, other in zip(found.semantic, windowed(frames, video=True).semantic, strict=True):
        np.testing.assert_array_equal(one, other)
    assert whole.model.windows is None and found.tracks is None


def test_wishes_hold_for_videos(predictor, clip):
    best = predictor(clip).names[0]
    result = predictor(clip, deny=[best], topk=2)
    assert best not in result.names and result.excluded == (best,)
    assert sum(one.kept for one in result.categories) == 2
    assert all(track.name != best for track in result.tracks)


def test_models_of_images_give_a_result_for_each_frame(clip):
    predictor = make_predictor()
    results = predictor(clip, batch=2)
    frames = list(VideoFile(str(clip)))
    first = next(results)
    np.testing.assert_array_equal(first.image, frames[0])
    found = [first, *results]
    assert [one.name for one in found] == [f"clip.v2/{i:05d}" for i in range(FRAMES)]
    for one, frame in zip(found, frames, strict=True):
        np.testing.assert_array_equal(one.image, frame)
    alone = by_hand(predictor, frames[6])["sem_seg_labels"].numpy()
    assert (found[6].semantic == alone).mean() > 0.99


def test_a_frame_is_the_result_of_an_image(result, clip):
    frame = result.frame(7)
    np.testing.assert_array_equal(frame.image, VideoFile(str(clip))[7])
    np.testing.assert_array_equal(frame.semantic, result.semantic[7])
    here = [track for track in result.tracks if track.rles[7] is not None]
    assert len(frame.instances) == len(here) > 0
    for track, mask, box in zip(here, frame.instances.masks, frame.instances.boxes, strict=True):
        np.testing.assert_array_equal(mask, coco.decode(track.rles[7]).astype(bool))
        y, x = np.nonzero(mask)
        assert box.tolist() == [x.min(), y.min(), x.max() + 1, y.max() + 1]
    assert frame.categories == result.categories
    assert result.frame(-1).name == f"clip.v2/{FRAMES - 1:05d}"
    json.dumps(frame.to_dict(), allow_nan=False)


def test_files_of_a_video(result, tmp_path, monkeypatch):
    paths = result.save(tmp_path, coco=True, categories=True, own_ids=True)
    names = {str(path.relative_to(tmp_path)) for path in paths}
    ends = ("overlay.mp4", "coco.json", "categories.json")
    frames = {f"clip.v2/{i:05d}.png" for i in range(FRAMES)}
    assert names == frames | {f"clip.v2_{end}" for end in ends}
    label = np.asarray(Image.open(tmp_path / "clip.v2/00004.png"))
    np.testing.assert_array_equal(label, result.semantic[4].astype(int) + 10)

    entries = json.loads((tmp_path / "clip.v2_coco.json").read_text())
    for entry, track in zip(entries, result.tracks, strict=True):
        assert set(entry) == {"video_id", "category_id", "score", "segmentations"}
        assert entry["category_id"] == NAMES.index(track.name) + 10
        assert len(entry["segmentations"]) == FRAMES
        for number, one in enumerate(entry["segmentations"]):
            mask = track.mask(number)
            assert (one is None) == (mask is None)
            if one is not None:
                np.testing.assert_array_equal(coco.decode(one).astype(bool), mask)

    found = VideoFile(str(tmp_path / "clip.v2_overlay.mp4"))
    plot = result.plot(5)
    assert len(found) == FRAMES and found.fps == 10
    assert [side % 2 for side in found[0].shape[:2]] == [0, 0]
    assert np.abs(found[5][:32, :48].astype(int) - plot[:32, :48]).mean() < 25

    with pytest.raises(FileExistsError, match="clip.v2_overlay.mp4 exists with other content"):
        result.save(tmp_path)
    result.save(tmp_path, overwrite=True)
    monkeypatch.setattr(cv2.VideoWriter, "isOpened", lambda self: False)
    with pytest.raises(OSError, match=r"b\.mp4 cannot be written: OpenCV cannot make"):
        result.save_video(tmp_path / "b.mp4")
    assert not list(tmp_path.glob("*b.mp4")) and not list(tmp_path.glob(".*"))
    with pytest.raises(ValueError, match=r"the video to write, .*a\.avi, must end in \.mp4"):
        result.save_video(tmp_path / "a.avi")


def test_the_video_itself_is_never_overwritten(predictor, tmp_path):
    path = write_video(tmp_path / "a_overlay.mp4", frames_of(3))
    other = write_video(tmp_path / "a.mp4", frames_of(3))
    before = path.read_bytes()
    video = replace(open_video(path), name="a.mp4")
    result = replace(predictor(other), video=video)
    with pytest.raises(FileExistsError, match="a_overlay.mp4 is the image itself"):
        result.save(tmp_path, overwrite=True)
    assert path.read_bytes() == before


def test_a_track_has_one_colour_in_all_frames(result):
    square = np.zeros(SIZE, np.uint8)
    square[4:28, 4:20] = 1
    left = coco.encode(np.asfortranarray(square))
    right = coco.encode(np.asfortranarray(square[:, ::-1]))
    some = [left if i < 2 else None for i in range(FRAMES)]
    tracks = (Track(2, "car", 0.9, tuple(some)), Track(2, "car", 0.8, (right,) * FRAMES))
    made = replace(result, tracks=tracks, video=open_video([np.zeros((*SIZE, 3), np.uint8)] * 13))
    plain = {"ranking": False, "outlines": False, "text": False}
    both, one = made.plot(1, **plain), made.plot(2, **plain)
    np.testing.assert_array_equal(both[10, 36], one[10, 36])
    assert both[10, 10].any() and not one[10, 10].any()
    assert (both[10, 10] != both[10, 36]).any()
    assert made.frame(1).instances.boxes.tolist() == [[4, 4, 20, 28], [28, 4, 44, 28]]
    assert made.frame(2).instances.boxes.tolist() == [[28, 4, 44, 28]]


def test_repr_and_json(result):
    assert repr(result).startswith("VideoResult(clip.v2.mp4: 13 frames of 48 x 32; ")
    assert f"{result.names[0]} " in repr(result)
    found = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert found["frames"] == FRAMES and found["fps"] == 10
    assert len(found["tracks"]) == len(result.tracks)
    assert [row["name"] for row in found["classes"]] == list(result.names)
    assert result.speed["frame"] > 0


def test_bad_videos_and_models(predictor):
    mixed = [*frames_of(2), *frames_of(2, (40, 48))]
    with pytest.raises(ValueError, match="video/00002 is 48 x 40, but the first frame 48 x 32"):
        predictor(mixed, video=True)
    with pytest.raises(ValueError, match="this model is for videos: give the path of a video"):
        predictor(pixels())
    panoptic = make_predictor(VIDEO, ALL)
    with pytest.raises(ValueError, match=r"set MODEL\.MASK_FORMER\.TEST\.PANOPTIC_ON False"):
        panoptic(frames_of(2), video=True)
