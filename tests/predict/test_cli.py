"""`rankseg-d2 predict` and `pack`: folders to folders."""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from support import own_data
from support.packed import OFFSET, make_run
from support.paths import ROOT
from support.predicting import pixels, ranking_predictor
from support.small import VIDEO

from rankseg_d2 import Predictor, cli
from rankseg_d2.engine import pack
from rankseg_d2.predict import cli as predict_cli

NAMES = ["1.png", "2.png", "10.png", "set/a.jpg", "set/b.png"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    make_run(folder, "cli")
    return str(pack(folder / "run"))


@pytest.fixture
def photos(tmp_path):
    for i, name in enumerate(NAMES):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels(i)).save(path)
    return tmp_path / "photos"


@pytest.fixture
def predict(weights, photos, tmp_path):
    """Runs the command on the photos; the exit status."""

    def predict(*words, source=photos, out=tmp_path / "out"):
        where = [] if out is None else ["--out", str(out)]
        words = [str(source), "--weights", weights, "--device", "cpu", *where, *words]
        return cli.main(["predict", *words])

    return predict


def files(folder, pattern="**/*"):
    return sorted(str(p.relative_to(folder)) for p in folder.glob(pattern) if p.is_file())


def test_folders_are_mirrored_with_the_results_of_the_predictor(predict, weights, photos, tmp_path):
    assert predict() == 0
    wanted = [
        Path(n).with_suffix("").as_posix() + e for n in NAMES for e in (".png", "_overlay.jpg")
    ]
    assert files(tmp_path / "out") == sorted(wanted)
    predictor = Predictor.from_checkpoint(weights, device="cpu")
    for result in predictor(photos):
        found = Image.open(tmp_path / "out" / Path(result.name).with_suffix(".png"))
        np.testing.assert_array_equal(np.asarray(found), result.labels())


def test_wishes_batches_and_own_ids(predict, tmp_path):
    words = ["--deny", "road", "sky", "--topk", "2", "--prior", "tree=9", "--batch", "3"]
    assert predict(*words, "--save", "label_png", "categories", "--own-ids", "--threads", "1") == 0
    assert len(files(tmp_path / "out")) == 2 * len(NAMES)
    for path in (tmp_path / "out").rglob("*.png"):
        found = set(np.unique(np.asarray(Image.open(path))).tolist())
        assert found <= {OFFSET + 2, OFFSET + 3, OFFSET + 4} and len(found) <= 2
    rows = json.loads((tmp_path / "out/1_categories.json").read_text())
    assert sum(row["kept"] for row in rows) == 2


def test_save_explore_writes_a_page_for_each_image(predict, photos, tmp_path):
    assert predict("--save", "explore") == 0
    wanted = [f"{Path(name).with_suffix('').as_posix()}_explore.html" for name in NAMES]
    assert files(tmp_path / "out") == sorted(wanted)
    assert "<!doctype html>" in (tmp_path / "out" / wanted[0]).read_text(encoding="utf-8")


def test_a_bad_file_is_named_skipped_and_counted(predict, photos, tmp_path, capsys):
    (photos / "bad.jpg").write_bytes(b"nothing")
    for batch in ("1", "4"):
        assert predict("--batch", batch, "--overwrite") == 1
        text = capsys.readouterr().err
        assert f"skipped the image {photos}/bad.jpg cannot be read" in text
        assert text.endswith("1 of 6 images were skipped\n")
        assert len(files(tmp_path / "out")) == 2 * len(NAMES)


def test_a_file_that_cannot_be_written_is_named_and_counted(predict, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/set").write_text("a file where a folder must be")
    assert predict() == 1
    text = capsys.readouterr().err
    assert "out/set: " in text and text.endswith("2 of 5 images were skipped\n")


def test_files_that_exist_are_kept_continued_or_overwritten(predict, tmp_path, capsys):
    assert predict() == 0
    out = tmp_path / "out"
    (out / "1.png").unlink()
    (out / "2.png").write_bytes(b"mine")
    assert predict() == 1
    assert (
        "1_overlay.jpg exists; go on with what is missing by --continue" in capsys.readouterr().err
    )
    assert not (out / "1.png").exists()

    times = {name: (out / name).stat().st_mtime_ns for name in files(out)}
    assert predict("--continue") == 0
    assert (out / "1.png").exists() and (out / "2.png").read_bytes() == b"mine"
    changed = {n for n, time in times.items() if (out / n).stat().st_mtime_ns != time}
    assert changed <= {"1_overlay.jpg"}

    assert predict("--overwrite") == 0
    assert Image.open(out / "2.png").size == (48, 32)


def test_nothing_left_to_do_loads_no_model(predict, monkeypatch):
    assert predict() == 0
    monkeypatch.setattr(Predictor, "from_checkpoint", lambda *args, **more: pytest.fail("loaded"))
    assert predict("--continue") == 0


def test_shards_share_the_images(predict, tmp_path, monkeypatch):
    for part in (1, 2):
        assert predict("--shard", f"{part}/2", out=tmp_path / str(part)) == 0
    found = [files(tmp_path / str(part), "**/*.png") for part in (1, 2)]
    assert sorted(found[0] + found[1]) == sorted(str(Path(n).with_suffix(".png")) for n in NAMES)
    assert abs(len(found[0]) - len(found[1])) <= 1

    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in (0, 1):  # as torchrun sets them
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("LOCAL_RANK", str(rank))
        assert predict(out=tmp_path / f"rank{rank}") == 0
        assert files(tmp_path / f"rank{rank}", "**/*.png") == found[rank]
    assert predict("--shard", "8/8", out=tmp_path / "8") == 0
    assert files(tmp_path / "8") == []


def test_json_is_one_line_per_image(predict, capsys):
    assert predict("--json", out=None) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["name"] for line in lines] == NAMES
    assert all(line["height"] == 32 and line["classes"] for line in lines)
    assert all(row["id"] >= OFFSET for line in lines for row in line["classes"])


def test_what_is_excluded_but_likely_there_is_counted(predict, capsys):
    assert predict("--json", out=None) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    name = lines[0]["categories"][0]["name"]
    chances = [row["probability"] for x in lines for row in x["categories"] if row["name"] == name]
    count = sum(chance > 0.5 for chance in chances)
    assert count > 0
    assert predict("--json", "--deny", name, out=None) == 0
    text = capsys.readouterr().err
    assert f"{name} is excluded, but is likely present in {count} images\n" in text


def test_one_image_and_a_pattern(predict, photos, tmp_path):
    assert predict(source=photos / "1.png", out=tmp_path / "one") == 0
    assert files(tmp_path / "one") == ["1.png", "1_overlay.jpg"]
    assert predict(source=f"{photos}/**/*.jpg", out=tmp_path / "two") == 0
    assert files(tmp_path / "two") == ["a.png", "a_overlay.jpg"]


def test_images_in_the_folder_of_the_results_are_left_out(predict, photos):
    out = photos / "out"
    for _ in range(2):
        assert predict("--overwrite", out=out) == 0
        assert len(files(out)) == 2 * len(NAMES)


def test_names_with_odd_characters(predict, photos, tmp_path, capsys):
    odd = ["a b.jpg", "ü 漢.png", "[1] *.png", "100%.png", "a'\"b.png"]
    for name in odd:
        Image.fromarray(pixels()).save(tmp_path / name)
    folder = tmp_path / "odd [x]"
    folder.mkdir()
    for name in odd:
        (tmp_path / name).rename(folder / name)
    assert predict("--json", source=folder) == 0
    names = [json.loads(line)["name"] for line in capsys.readouterr().out.splitlines()]
    assert sorted(names) == sorted(odd)
    assert len(files(tmp_path / "out")) == 2 * len(odd)


@pytest.mark.parametrize(
    "words, message",
    [
        (["--deny", "rod"], "deny: 'rod' is not known; the nearest names are road"),
        (["--topk", "4"], r"topk must be in [1, 3]"),
        (["--save", "panoptic_png"], "panoptic_png needs panoptic results"),
    ],
)
def test_mistakes_are_one_sentence(words, message, predict, capsys):
    assert predict(*words) == 1
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_wrong_sources_and_folders(predict, photos, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert predict(source=tmp_path / "empty") == 1
    assert "empty has no images: no file in it ends in .bmp" in capsys.readouterr().err
    assert predict(out=photos) == 1
    assert "--out is the folder of the images" in capsys.readouterr().err
    assert predict(out=None) == 1
    assert "give --out DIR for files, or --json for lines of json" in capsys.readouterr().err
    assert predict(out=photos / "1.png" / "out") == 1
    assert "1.png/out cannot be made: Not a directory; name another" in capsys.readouterr().err


def test_two_images_with_one_stem_are_refused(predict, photos, tmp_path, capsys):
    Image.fromarray(pixels()).save(photos / "1.jpg")
    assert predict() == 1
    text = capsys.readouterr().err
    assert "1.jpg" in text and "1.png" in text and "would both be written to" in text
    assert files(tmp_path / "out") == []


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs permissions as on Unix")
def test_a_folder_without_write_permission_is_named(predict, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(os, "access", lambda *args: False)  # root may write everywhere
    assert predict() == 1
    text = capsys.readouterr().err
    assert "--out" in text and "may not be written; name a folder where you may" in text


@pytest.mark.parametrize("word", ["0/2", "3/2", "a/2", "2", "1/0"])
def test_shards_that_are_none(word):
    with pytest.raises(argparse.ArgumentTypeError, match="is not I/N with I from 1 to N"):
        predict_cli._shard(word)


def test_numbers_and_factors_that_are_none():
    with pytest.raises(argparse.ArgumentTypeError, match="'0' is not a number from 1 on"):
        predict_cli._count("0")
    with pytest.raises(argparse.ArgumentTypeError, match="'dog' is not NAME=FACTOR"):
        predict_cli._factor("dog")
    assert predict_cli._factor("a=b=2") == ("a=b", 2.0)


def test_pack_says_what_it_wrote(weights, tmp_path, capsys):
    run = str(Path(weights).parent)
    path = tmp_path / "small.safetensors"
    assert cli.main(["pack", run, "--output", str(path)]) == 0
    assert capsys.readouterr().out.startswith(f"wrote {path} (") and path.is_file()
    assert cli.main(["pack", str(tmp_path)]) == 1
    assert "has no checkpoint" in capsys.readouterr().err


def test_weights_without_description_go_with_a_config(weights, photos, tmp_path, capsys):
    from safetensors.torch import load_file, save_file

    plain = tmp_path / "plain.safetensors"
    save_file(load_file(weights), plain)
    assert cli.main(["predict", str(photos), "--weights", str(plain), "--json"]) == 1
    assert "in `rankseg-d2 predict`, --config CONFIG" in capsys.readouterr().err


def test_help_is_quick_and_tells_the_options():
    code = (
        "import sys\n"
        "from rankseg_d2.cli import main\n"
        "try: main(['predict', '--help'])\n"
        "except SystemExit: assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for option in ("--continue", "--shard I/N", "--recall", "--own-ids", "--prior"):
        assert option in done.stdout
    assert own_data.CLASSES[0] not in done.stdout


def test_a_video_by_a_model_of_images_is_frames(predict, clip, tmp_path):
    assert predict(source=clip) == 0
    wanted = [f"clip/{i:05d}{end}" for i in range(5) for end in (".png", "_overlay.jpg")]
    assert files(tmp_path / "out") == sorted(wanted)
    (tmp_path / "out/clip/00003.png").unlink()
    assert predict("--continue", source=clip) == 0
    assert files(tmp_path / "out") == sorted(wanted)


def test_a_video_by_a_model_for_videos(predict, clip, tmp_path, capsys, monkeypatch):
    window = {"TEST.VIDEO.WINDOW": 3, "TEST.VIDEO.OVERLAP": 1}
    made = ranking_predictor(VIDEO, window)
    monkeypatch.setattr(Predictor, "from_checkpoint", lambda *args, **more: made)
    assert predict("--json", "--topk", "2", source=clip) == 0
    wanted = ["clip_overlay.mp4", *(f"clip/{i:05d}.png" for i in range(5))]
    assert files(tmp_path / "out") == sorted(wanted)
    said = json.loads(capsys.readouterr().out)
    assert said["frames"] == 5 and sum(row["kept"] for row in said["categories"]) == 2
    assert predict(source=clip) == 1
    assert "exists; go on with what is missing by --continue" in capsys.readouterr().err
    assert predict("--overwrite", source=clip) == 0
    times = {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in wanted}
    assert predict("--continue", source=clip) == 0
    assert "nothing is left to do of" in capsys.readouterr().err
    assert times == {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in wanted}
    (tmp_path / "out/clip/00003.png").unlink()
    assert predict("--continue", source=clip) == 0
    assert files(tmp_path / "out") == sorted(wanted)
    assert made.model.label_callbacks == []
    assert predict("--video", out=tmp_path / "folder") == 0
    assert len(files(tmp_path / "folder", "photos/**/*.png")) == len(NAMES)


@pytest.fixture
def clips(tmp_path):
    """A folder of three videos, of 2, 3 and 4 frames, one of them in a folder of its own."""
    for count, name in ((2, "a.mp4"), (3, "b.v2.mp4"), (4, "more/a.mp4")):
        write_clip(tmp_path / "clips" / name, count)
    (tmp_path / "clips/notes.txt").write_text("no video")
    return tmp_path / "clips"


LENGTHS = {"a": 2, "b.v2": 3, "more/a": 4}


def frames_of(*names):
    return sorted(f"{name}/{i:05d}.png" for name in names for i in range(LENGTHS[name]))


@pytest.fixture(params=["images", "videos"])
def kind(request, monkeypatch):
    """The kind of model that the weights are of."""
    if request.param == "videos":
        window = {"TEST.VIDEO.WINDOW": 3, "TEST.VIDEO.OVERLAP": 1}
        made = ranking_predictor(VIDEO, window)
        monkeypatch.setattr(Predictor, "from_checkpoint", lambda *args, **more: made)
    return request.param


def test_a_folder_of_videos(predict, clips, kind, tmp_path, capsys):
    assert predict("--json", source=clips) == 0
    overlays = {
        "images": [name.replace(".png", "_overlay.jpg") for name in frames_of(*LENGTHS)],
        "videos": [f"{name}_overlay.mp4" for name in LENGTHS],
    }[kind]
    assert files(tmp_path / "out") == sorted(frames_of(*LENGTHS) + overlays)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(lines) == {"images": 9, "videos": 3}[kind]
    if kind == "videos":
        assert {one["name"]: one["frames"] for one in lines} == {
            f"{name}.mp4": count for name, count in LENGTHS.items()
        }
    assert predict("--save", "label_png", source=f"{clips}/**/*.mp4", out=tmp_path / "two") == 0
    assert files(tmp_path / "two") == frames_of(*LENGTHS)


def test_a_folder_of_videos_goes_on_with_what_is_missing(predict, clips, kind, tmp_path, capsys):
    assert predict(source=clips) == 0
    out = tmp_path / "out"
    assert predict(source=clips) == 1
    assert "exists; go on with what is missing by --continue" in capsys.readouterr().err
    (out / "b.v2/00001.png").unlink()
    times = {name: (out / name).stat().st_mtime_ns for name in files(out)}
    assert predict("--continue", source=clips) == 0
    assert files(out, "**/*.png") == frames_of(*LENGTHS)
    changed = {name for name, time in times.items() if (out / name).stat().st_mtime_ns != time}
    assert all(name.startswith("b.v2") for name in changed)


def test_shards_share_the_videos_of_a_folder(predict, clips, kind, tmp_path):
    only = ("--save", "label_png")
    for part, names in ((1, ("a", "more/a")), (2, ("b.v2",))):
        out = tmp_path / str(part)
        assert predict(*only, "--shard", f"{part}/2", source=clips, out=out) == 0
        assert files(out) == frames_of(*names)
    assert predict(*only, "--shard", "4/4", source=clips, out=tmp_path / "none") == 0
    assert files(tmp_path / "none") == []


def test_shards_of_one_video_are_of_its_frames_for_a_model_of_images(predict, clip, kind, tmp_path):
    found = []
    for part in (1, 2):
        out = tmp_path / str(part)
        assert predict("--save", "label_png", "--shard", f"{part}/2", source=clip, out=out) == 0
        found.append([int(Path(name).stem) for name in files(out)])
    assert found == {"images": [[0, 2, 4], [1, 3]], "videos": [[0, 1, 2, 3, 4], []]}[kind]


def test_an_unreadable_video_is_named_and_skipped(predict, clips, kind, tmp_path, capsys):
    (clips / "b.v2.mp4").write_bytes(b"no video" * 99)
    assert predict("--save", "label_png", source=clips) == 1
    text = capsys.readouterr().err
    assert "b.v2.mp4 cannot be read: it is damaged, no video" in text
    assert "1 of 3 videos were skipped" in text
    assert files(tmp_path / "out") == frames_of("a", "more/a")
    assert predict(source=clips / "b.v2.mp4") == 1
    assert "b.v2.mp4 cannot be read" in capsys.readouterr().err.splitlines()[-1]


def test_videos_of_one_stem_are_refused(predict, clips, tmp_path, capsys):
    write_clip(clips / "a.mkv.mp4", 2)
    (clips / "a.mkv.mp4").rename(clips / "a.avi")
    assert predict(source=clips) == 1
    assert "would be written to the same files" in capsys.readouterr().err
    assert files(tmp_path / "out") == []


def test_videos_in_the_folder_of_the_results_are_left_out(predict, clips, kind):
    out = clips / "out"
    assert predict("--overwrite", source=clips, out=out) == 0
    (out / "a/00001.png").unlink()
    assert predict("--overwrite", source=clips, out=out) == 0
    assert files(out, "**/*.png") == frames_of(*LENGTHS)
    assert not list(out.rglob("*overlay*overlay*"))


def write_clip(path, count):
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 10, (48, 32))
    for i in range(count):
        writer.write(pixels(i))
    writer.release()
    return path


@pytest.fixture
def clip(tmp_path):
    return write_clip(tmp_path / "clip.mp4", 5)
