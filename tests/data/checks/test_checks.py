import csv
import io
import itertools
import json
import os
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image
from support import own_data
from support.own_data import CLASSES, NAMES, write_image, write_label

from rankseg_d2.cli import main
from rankseg_d2.data.checks.stats import covering_kappa
from rankseg_d2.data.formats.label_images import suggest_keys

pytestmark = pytest.mark.usefixtures("clean_catalogs")


@pytest.fixture
def run(tmp_path, capsys):
    """Run a subcommand: its status, the json report, and what it wrote to the terminal."""

    def run(command, dataset, *options):
        report = tmp_path / "report.json"
        words = ["dataset", command, str(dataset), "--workers", "1", "--json", str(report)]
        status = main([*words, *map(str, options)])
        content = json.loads(report.read_text()) if report.exists() else None
        return status, content, capsys.readouterr()

    return run


def kinds(content):
    return dict(Counter(fault["kind"] for fault in content["faults"]))


# Check


def test_a_whole_data_set_has_no_faults_and_exact_counts(tmp_path, run):
    path, maps = own_data.semantic(tmp_path, 1, background="ignore", classes=[*CLASSES, "boat"])
    maps["000"][0, :7] = -1
    write_label(tmp_path / "labels/000.png", maps["000"] + 1)
    status, content, written = run("check", path)
    assert (status, kinds(content), content["fix"]) == (1, {"class in no split": 1}, None)
    assert content["faults"][0]["text"].startswith("boat: remove from the classes")
    assert run("check", path, "--splits", "val")[2].out.endswith("nothing is wrong\n")
    assert content["classes that never occur"] == ["boat"]
    assert [row["images"] for row in content["splits"]] == [8, 2]
    assert sum(row["ignored pixels"] for row in content["splits"]) == 7
    for row in content["classes"]:
        pixels = sum((ids == row["id"]).sum() for ids in maps.values())
        images = sum((ids == row["id"]).any() for ids in maps.values())
        assert row["pixels train"] + row["pixels val"] == pixels
        assert row["images train"] + row["images val"] == images


@pytest.mark.slow
def test_several_processes_count_the_same(tmp_path, run):
    path, _ = own_data.semantic(tmp_path)
    assert run("check", path, "--workers", 2)[1] == run("check", path)[1]


def test_unknown_values_are_named_with_file_and_fitting_offset(tmp_path, run):
    path, _ = own_data.semantic(tmp_path, 1)  # raw 1 to 5
    path.write_text(path.read_text().replace("label_offset: 1", "label_offset: 0"))
    status, content, written = run("check", path)
    assert status == 1
    pixels = {name: (own_data.label_map(i) == 4).sum() for i, name in enumerate(NAMES)}
    *faults, no_road = content["faults"]
    assert no_road["kind"] == "class in no split"
    assert {tuple(fault.values()) for fault in faults} == {
        ("unknown value", str(tmp_path / "labels" / f"{name}.png"), f"5: {count} pixels")
        for name, count in pixels.items() if count
    }
    assert content["fix"] == (
        "label_offset: 1 would fit: the values are 1 to 5, the number of classes is 5"
    )
    assert content["fix"] in written.out


@pytest.mark.parametrize(
    ("values", "num_classes", "offset", "expected"),
    [
        ({1, 4, 12}, 12, 0, "label_offset: 1 would fit"),
        ({3, 4, 5}, 3, 0, "label_offset: 3 would fit"),
        ({0, 1, 12}, 12, 0, "label_offset: 1, background: ignore would fit"),
        ({0, 11, 255}, 12, 0, "label_offset: 0, 255 in ignore would fit"),
        ({0, 11}, 12, 1, "label_offset: 0 would fit"),
        ({0, 5, 12, 255}, 12, 1, "label_offset: 1, background: ignore, 255 in ignore would fit"),
        ({0, 30, 70}, 12, 0, "no label_offset fits 12 classes and 3 values from 0 to 70"),
    ],
)
def test_the_fix_for_values(values, num_classes, offset, expected):
    assert suggest_keys(values, num_classes, offset).startswith(expected)


def test_every_kind_of_fault_is_found_with_its_file(tmp_path, run):
    path, _ = own_data.semantic(tmp_path)
    images, labels = tmp_path / "images", tmp_path / "labels"
    (labels / "000.png").unlink()
    (images / "001.jpg").unlink()
    write_image(images / "002.jpg", (30, 32))
    whole = (images / "003.jpg").read_bytes()
    (images / "003.jpg").write_bytes(whole[: len(whole) // 2])
    (labels / "004.png").write_bytes(b"no png")
    Image.new("RGB", own_data.SIZE[::-1], (9, 0, 0)).save(labels / "005.png")
    write_label(labels / "006.png", np.full(own_data.SIZE, 77))
    status, content, written = run("check", path)
    assert status == 1
    assert {(fault["kind"], fault["file"].rpartition("/")[2]) for fault in content["faults"]} == {
        ("image without label", "000.jpg"),
        ("label without image", "001.png"),
        ("size mismatch", "002.jpg"),
        ("unreadable image", "003.jpg"),
        ("unreadable label", "004.png"),
        ("unreadable label", "005.png"),
        ("unknown value", "006.png"),
    }
    assert len(content["faults"]) == 7  # of what does not pair, both splits know
    texts = {fault["kind"]: fault["text"] for fault in content["faults"]}
    assert texts["size mismatch"].startswith("it is 32 x 30, the label is 32 x 24; `resize_labels")
    assert "7 faults" in written.out


def test_an_image_that_exif_turns_fits_its_label(tmp_path, run):
    path, _ = own_data.semantic(tmp_path)
    turned = Image.new("RGB", own_data.SIZE)  # height and width change places
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(tmp_path / "images/000.jpg", exif=exif)
    assert run("check", path)[1]["faults"] == []


def test_an_image_of_16_bits_is_a_fault(tmp_path, run):
    path, _ = own_data.semantic(tmp_path)
    (tmp_path / "images/000.jpg").unlink()
    Image.fromarray(np.zeros(own_data.SIZE, np.uint16)).save(tmp_path / "images/000.png")
    (fault,) = run("check", path)[1]["faults"]
    assert fault["kind"] == "unreadable image"
    assert "000.png has more than 8 bits per pixel" in fault["text"]


def test_an_empty_split_is_a_fault(tmp_path, run):
    path, _ = own_data.semantic(tmp_path, splits={"train": 0.99, "val": 0.01})
    status, content, _ = run("check", path)
    assert (status, kinds(content)) == (1, {"empty split": 1})
    assert "falls into the part 'val' (0.01 of 10 images)" in content["faults"][0]["text"]


def test_instances_are_counted_by_their_masks(tmp_path, run):
    path, content = own_data.instances(tmp_path, splits={"train": 1.0})
    status, report, _ = run("check", path)
    assert (status, report["faults"]) == (0, [])
    assert [(row["pixels train"], row["images train"]) for row in report["classes"]] == [
        (800, 10), (400, 5)
    ]  # fmt: skip
    (tmp_path / "images/004.jpg").unlink()
    content["images"][0]["height"] = 25
    del content["annotations"][1]["segmentation"]  # of 001, as in a data set of boxes
    own_data.write_json(tmp_path / "instances.json", content)
    status, report, _ = run("check", path)
    assert status == 1
    assert {fault["kind"]: fault["text"] for fault in report["faults"]} == {
        "missing image": "",
        "size mismatch": "it is 32 x 24, the label is 32 x 25",
        "annotation without mask": "1 of them",
    }


def test_panoptic_png_files_and_json_must_agree(tmp_path, run):
    path, content = own_data.panoptic(tmp_path, splits={"train": 1.0})
    status, report, _ = run("check", path)
    assert (status, kinds(report)) == (1, {"class in no split": 1})
    rows = [(row["class"], row["pixels train"], row["images train"]) for row in report["classes"]]
    assert rows == [("sky", 3200, 10), ("car", 1200, 10), ("bus", 0, 0)]  # buses are crowds
    assert report["splits"][0]["ignored pixels"] == 10 * (24 * 32 - 320 - 120)
    content["annotations"][3]["segments_info"][1]["id"] = 999
    del content["annotations"][7]
    own_data.write_json(tmp_path / "panoptic.json", content)
    (tmp_path / "panoptic/005.png").unlink()
    status, report, _ = run("check", path)
    assert status == 1
    assert {(fault["kind"], fault["file"].rpartition("/")[2]): fault["text"]
            for fault in report["faults"]} == {
        ("json and PNG differ", "003.png"): "1 segments only in the json, such as id 999; "
                                            "1 segments only in the PNG, such as id 303",
        ("image without label", "007.jpg"): f"in {tmp_path / 'panoptic.json'}",
        ("missing label", "005.png"): "",
        ("class in no split", "my.yaml"): report["faults"][-1]["text"],
    }  # fmt: skip


def test_a_registered_data_set_is_checked_by_name(tmp_path, run):
    path, maps = own_data.semantic(tmp_path)
    records = [
        {"file_name": str(tmp_path / f"images/{name}.jpg"),
         "sem_seg_file_name": str(tmp_path / f"labels/{name}.png")}
        for name in NAMES
    ]  # fmt: skip
    DatasetCatalog.register("by_hand", lambda: records)
    status, _, written = run("check", "by_hand")
    assert (status, "has neither stuff_classes nor" in written.err) == (1, True)
    MetadataCatalog.get("by_hand").set(stuff_classes=CLASSES, ignore_label=255)
    status, content, _ = run("check", "by_hand")
    assert (status, content["faults"]) == (0, [])
    total = sum(row["pixels by_hand"] for row in content["classes"])
    assert total == len(maps) * own_data.SIZE[0] * own_data.SIZE[1]
    status, _, written = run("check", "by_hnd")
    assert (status, "by_hand" in written.err) == (1, True)


def test_wrong_calls_end_in_one_sentence(tmp_path, run):
    path, _ = own_data.semantic(tmp_path)
    status, _, written = run("check", path, "--splits", "test")
    assert (status, written.out) == (1, "")
    assert "--splits: 'test' is not known; the nearest names are train, val" in written.err
    status, _, written = run("check", tmp_path / "gone.yaml")
    assert status == 1
    assert "gone.yaml does not exist" in written.err
    assert "Traceback" not in written.err


# Statistics


@pytest.mark.parametrize("share", [0.5, 0.95, 0.99, 0.999, 1.0])
def test_kappa_is_the_least_number_that_covers_the_share(share):
    rng = np.random.default_rng(0)
    for total in (1, 20, 100, 1000):
        numbers = rng.integers(0, 12, total)
        needed = -(-round(share * 1000) * total // 1000)  # images, rounded up
        expected = next(k for k in range(13) if (numbers <= k).sum() >= needed)
        assert covering_kappa(np.bincount(numbers, minlength=13), share) == expected


def test_statistics_equal_a_count_by_hand(tmp_path, run):
    path, maps = own_data.semantic(tmp_path, splits={"train": 1.0})
    matrix_file = tmp_path / "out/pairs.npz"
    status, content, written = run("stats", path, "--matrix", matrix_file, "--pairs", 4)
    present = [sorted(set(ids.ravel().tolist())) for ids in maps.values()]
    facts = content["splits"]["train"]
    sizes = sorted(map(len, present))
    assert status == 0
    assert (facts["images"], facts["mean"], facts["max"]) == (10, np.mean(sizes), sizes[-1])
    assert facts["kappa"] == {"0.95": sizes[9], "0.99": sizes[9], "0.999": sizes[9]}
    for row in facts["curve"]:
        assert row["images"] == sizes.count(row["categories"])
        fewer = sum(size <= row["categories"] for size in sizes)
        assert row["percent with so many or fewer"] == pytest.approx(100 * fewer / 10)
    pairs = Counter(pair for ids in present for pair in itertools.combinations(ids, 2))
    assert [row["images"] for row in facts["pairs"]] == [n for _, n in pairs.most_common(4)]
    for row in facts["pairs"]:
        a, b = CLASSES.index(row["class"]), CLASSES.index(row["and"])
        assert pairs[a, b] == row["images"]
    saved = np.load(matrix_file)
    assert saved["classes"].tolist() == CLASSES
    for (a, b), count in pairs.items():
        assert saved["images"][a, b] == saved["images"][b, a] == count
    assert "kappa 99.9 %" in written.out
    assert "least number k such that" in content["kappa"]


def test_the_matrix_as_csv_is_the_same(tmp_path, run):
    path, _ = own_data.semantic(tmp_path)
    for name in ("m.npz", "m.csv"):
        assert run("stats", path, "--matrix", tmp_path / name)[0] == 0
    rows = list(csv.reader(io.StringIO((tmp_path / "m.csv").read_text())))
    assert rows[0] == ["class", *CLASSES]
    assert [row[0] for row in rows[1:]] == CLASSES
    numbers = np.array([row[1:] for row in rows[1:]], np.int64)
    np.testing.assert_array_equal(numbers, np.load(tmp_path / "m.npz")["images"])
    with pytest.raises(SystemExit):
        run("stats", path, "--matrix", "m.txt")


def test_statistics_of_one_split_do_not_need_images(tmp_path, run):
    path, _ = own_data.semantic(tmp_path)
    for image in (tmp_path / "images").iterdir():
        image.write_bytes(b"")
    status, content, _ = run("stats", path, "--splits", "val")
    assert (status, list(content["splits"])) == (0, ["val"])
    assert content["splits"]["val"]["images"] == 2


def test_stats_and_check_count_the_same_faults(tmp_path, run):
    path, _ = own_data.semantic(tmp_path)
    (tmp_path / "images/001.jpg").write_bytes(b"")
    (tmp_path / "labels/002.png").unlink()
    (tmp_path / "labels/no_image.png").write_bytes((tmp_path / "labels/003.png").read_bytes())
    _, content, _ = run("check", path)
    _, _, written = run("stats", path)
    assert len(content["faults"]) == 3 and "\n3 faults: " in written.out


def test_class_names_with_commas_are_told_apart(tmp_path, run):
    names = [*CLASSES, "door, double door", "boat"]
    path, _ = own_data.semantic(tmp_path, classes=names)
    _, _, written = run("check", path)
    assert "2 classes never occur: door, double door; boat\n" in written.out


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
@pytest.mark.parametrize("words", [["--help"], ["stats", "--help"], ["check", "{yaml}"]])
def test_a_terminal_without_utf_8_is_no_error(tmp_path, encoding, words):
    path, _ = own_data.semantic(tmp_path, classes=[*CLASSES[:-1], "Straße κ 道"])
    words = [word.format(yaml=path) for word in words]
    found = subprocess.run(
        [sys.executable, "-m", "rankseg_d2.cli", "dataset", *words],
        capture_output=True,
        env=os.environ | {"PYTHONIOENCODING": encoding},
    )
    assert found.returncode == 0, found.stderr.decode(errors="replace")
    assert b"Traceback" not in found.stderr


@pytest.mark.timeout(60)  # a count for each name would take minutes
@pytest.mark.parametrize(
    ("count", "words", "message"),
    [(70_000, ["check"], "70000 classes do not fit into label images of 16 bits"),
     (9_000, ["stats", "--matrix", "m.npz"], "has 9000 classes; a matrix of their pairs can have")],
)  # fmt: skip
def test_too_many_classes_are_a_sentence(tmp_path, run, count, words, message):
    (tmp_path / "names.txt").write_text("".join(f"class {i}\n" for i in range(count)))
    path, _ = own_data.semantic(tmp_path, classes="names.txt")
    status, _, written = run(words[0], path, *words[1:])
    assert status == 1 and message in written.err


@pytest.mark.timeout(60)
def test_ten_thousand_classes_have_statistics(tmp_path, run):
    (tmp_path / "names.txt").write_text("".join(f"class {i}\n" for i in range(10_000)))
    path, maps = own_data.semantic(tmp_path, classes="names.txt", splits={"train": 1.0})
    status, content, _ = run("stats", path, "--pairs", 1)
    present = [sorted(set(ids.ravel().tolist())) for ids in maps.values()]
    pairs = Counter(pair for ids in present for pair in itertools.combinations(ids, 2))
    assert status == 0
    facts, = content["splits"]["train"]["pairs"]
    assert facts["images"] == pairs.most_common(1)[0][1]
