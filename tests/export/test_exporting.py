"""Exported files give the model's numbers, and what they say is enough for results."""

import json
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from support.export import CASES, INPUT, RANKED, SIZE, export_case, run_file
from support.packed import make_run
from support.predicting import NAMES, make_predictor, pixels, ranking_predictor
from support.small import VIDEO

from rankseg_d2 import Predictor, cli
from rankseg_d2.engine import pack
from rankseg_d2.export import export
from rankseg_d2.export.description import describe_export, multiple_of
from rankseg_d2.export.exporting import postprocess_path
from rankseg_d2.export.parity import check_parity, differences
from rankseg_d2.predict import onnx_model

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


FAST, *SLOW = CASES


@pytest.fixture(
    scope="module", params=[FAST, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]
)
def case(request, tmp_path_factory):
    """A predictor, its exported file, and the differences that the check has found."""
    return export_case(request.param, tmp_path_factory.mktemp("export"))


def test_the_check_passes_and_names_every_output(case):
    assert set(case.found) == set(case.outputs) and max(case.found.values()) < 1e-3


def test_the_file_says_names_sizes_and_options(case):
    said, model = case.said, case.predictor.model
    assert [row["name"] for row in said["classes"]] == NAMES
    assert said["pixel_mean"] == model.pixel_mean.flatten().tolist()
    assert said["multiple"] == multiple_of(model) and said["size"] in (None, [*SIZE])
    assert said["topk"] == (model.ranker.topk if model.ranks else None)
    assert said["channels"] == "RGB" and said["min_size"] == 64
    assert said["results"]["panoptic"] == model.result_options.panoptic
    assert said["flip_pairs"] == []


def test_numpy_gives_the_results_of_the_predictor(case):
    """The file beside the model, which has no other package than NumPy."""
    image = pixels(5)
    result, wanted = run_file(case, [image])[0], case.predictor(image)
    if wanted.semantic is not None:
        assert (result["semantic"] == wanted.semantic).mean() >= 0.999
    if wanted.panoptic is not None:
        ids, segments = result["panoptic"]
        assert (ids == wanted.panoptic.ids).mean() >= 0.999
        keys = ("id", "category_id", "isthing", "name")
        found, said = ([[s[key] for key in keys] for s in some]
                       for some in (segments, wanted.panoptic.segments))  # fmt: skip
        assert found == said and len(found) > 0
        scores = [s["score"] for s in wanted.panoptic.segments]
        assert [s["score"] for s in segments] == pytest.approx(scores, abs=1e-3)
    if wanted.instances is not None:
        found, instances = result["instances"], wanted.instances
        assert [one["category_id"] for one in found] == instances.categories.tolist()
        assert [one["score"] for one in found] == pytest.approx(instances.scores, abs=1e-3)
        assert (np.stack([one["mask"] for one in found]) == instances.masks).mean() >= 0.999
    if wanted.categories:
        kept = [one for one in wanted.categories if one.kept]
        assert [name for name, _ in result["categories"]] == [one.name for one in kept]
        chances = [one.probability for one in kept]
        assert [chance for _, chance in result["categories"]] == pytest.approx(chances, abs=1e-3)


def test_pictures_of_two_sizes_run_in_one_batch(case):
    together = run_file(case, [pixels(1), pixels(2, (24, 40))])
    assert [one["semantic"].shape for one in together] == [(32, 48), (24, 40)]
    alone = run_file(case, [pixels(1)])[0]
    assert (together[0]["semantic"] == alone["semantic"]).mean() >= 0.999


def test_a_predictor_of_the_file_gives_the_results_of_the_checkpoint(case):
    predictor, image = Predictor.from_onnx(case.path, device="cpu"), pixels(6)
    found, wanted = predictor(image), case.predictor(image)
    assert predictor.topk == case.predictor.topk and found.classes.names == wanted.classes.names
    assert found.classes.things == wanted.classes.things
    assert (found.semantic == wanted.semantic).mean() >= 0.999
    assert [one.name for one in found.categories] == [one.name for one in wanted.categories]
    if wanted.panoptic is not None:
        assert (found.panoptic.ids == wanted.panoptic.ids).mean() >= 0.999
        assert len(found.instances) == len(wanted.instances)


def test_classes_can_be_denied_without_a_ranking_only(case):
    predictor = Predictor.from_onnx(case.path, device="cpu")
    if case.name in RANKED:
        with pytest.raises(ValueError, match="ranks as it was exported: allow, deny, prior, topk"):
            predictor(pixels(6), deny=["road"])
    else:
        denied = predictor(pixels(6)).names[0]
        assert denied not in predictor(pixels(6), deny=[denied]).names


def test_the_file_beside_the_model_imports_numpy_only(case):
    code = "import sys; before = set(sys.modules); import numpy; after = set(sys.modules)\n"
    code += f"import runpy; runpy.run_path({str(postprocess_path(case.path))!r})\n"
    code += "print({m.split('.')[0] for m in set(sys.modules) - after} - sys.stdlib_module_names)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
    assert len(postprocess_path(case.path).read_text().splitlines()) < 150


@pytest.mark.slow
def test_torch_export_gives_the_same_results_by_name(tmp_path):
    predictor, path = ranking_predictor(), tmp_path / "model.pt2"
    found = export(predictor, path, format="torch_export", size=SIZE)
    assert max(found.values()) < 1e-4
    files = {"rankseg": ""}
    module = torch.export.load(path, extra_files=files).module()
    assert json.loads(files["rankseg"])["topk"] == 4
    outputs = module(torch.randn(3, 3, 64, 96))
    assert outputs["class_logits"].shape == (3, 10, 5) and outputs["categories"].shape == (3, 4)


@pytest.mark.slow
def test_a_model_for_videos_takes_clips_of_one_length(tmp_path):
    predictor, path = make_predictor(VIDEO, INPUT), tmp_path / "model.onnx"
    export(predictor, path, frames=2, size=SIZE, tolerance=0.01)  # processors round differently
    case = export_case("video", tmp_path, predictor, path)
    frames = [pixels(1), pixels(2)]
    result = run_file(case, [frames])[0]
    samples = [predictor.sample(frame) for frame in frames]
    sample = samples[0] | {"image": [one["image"] for one in samples]}
    with torch.no_grad():
        wanted = predictor.model([sample])[0]["sem_seg_labels"].numpy()
    assert wanted.shape == (2, 32, 48) and (result["semantic"] == wanted).mean() >= 0.999
    with pytest.raises(ValueError, match="the model takes clips of 2 frames"):
        run_file(case, [frames[:1]])
    with pytest.raises(ValueError, match="takes clips of 2 frames; whole videos need the check"):
        Predictor.from_onnx(path)


def test_only_a_file_of_one_size_refuses_larger_pictures(case):
    if case.said["size"] is None:
        predictor = Predictor.from_onnx(case.path, device="cpu")
        assert predictor(pixels(3, (48, 32))).semantic.shape == (48, 32)
        return
    with pytest.raises(ValueError, match="images of at most 64 x 96 pixels, and this one has 96"):
        Predictor.from_onnx(case.path, device="cpu")(pixels(3, (48, 32)))
    with pytest.raises(ValueError, match=r"the model takes pictures of at most \[64, 96\] pixels"):
        run_file(case, [pixels(3, (48, 32))])


# Parity.


@pytest.fixture
def ranked_outputs():
    scores = torch.tensor([[3.0, 2.0, 1.0], [5.0, 4.0, 4.00001]])
    categories = torch.tensor([[0, 1], [0, 2]])
    return {"pixel_logits": torch.ones(2, 2, 4, 4), "category_scores": scores,
            "categories": categories}  # fmt: skip


def test_two_categories_with_one_score_may_change_their_ranks(ranked_outputs):
    found = ranked_outputs | {"categories": torch.tensor([[0, 1], [0, 1]])}
    found["pixel_logits"] = torch.stack([torch.ones(2, 4, 4), torch.zeros(2, 4, 4)])
    assert max(differences(ranked_outputs, found, 1e-3).values()) < 1e-4


def test_another_ranking_is_a_difference(ranked_outputs):
    found = ranked_outputs | {"categories": torch.tensor([[0, 2], [0, 2]])}
    assert differences(ranked_outputs, found, 1e-3)["categories"] > 0.3


def test_differences_are_relative_to_large_numbers():
    wanted = {"a": torch.tensor([1000.0, 0.1]), "b": torch.zeros(2)}
    found = {"a": torch.tensor([1001.0, 0.1]), "b": torch.full((2,), torch.nan)}
    values = differences(wanted, found, 1e-3)
    assert values["a"] == pytest.approx(1e-3) and not values["b"] <= 1e-3
    assert differences(wanted, {"a": torch.ones(3), "b": torch.ones(2)}, 1)["a"] == float("inf")


def test_a_difference_is_one_sentence_with_the_name_and_the_number():
    def network(images):
        return {"class_logits": images, "mask_logits": images}

    def run(images):
        return {"class_logits": images, "mask_logits": images + 0.5}

    with pytest.raises(ValueError, match=r"differs from the model: mask_logits by 0\.5 for an inp"):
        check_parity(run, network, [torch.zeros(1, 3, 32, 32)])


def test_a_file_that_differs_is_not_kept(tmp_path, monkeypatch):
    from rankseg_d2.export import exporting
    from rankseg_d2.export.formats import Format

    def write(program, names, description, path):
        path.write_bytes(b"graph")

    def load(path):
        return lambda images: {name: torch.zeros(0) for name in ("class_logits", "mask_logits")}

    monkeypatch.setattr(exporting, "trace", lambda *args: None)
    monkeypatch.setattr(exporting, "format_named", lambda name: Format(".onnx", write, load))
    with pytest.raises(ValueError, match="class_logits by inf .* --no-check keeps it unchecked"):
        export(make_predictor(), tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []
    export(make_predictor(), tmp_path / "model.onnx", check=False)
    names = ["model.onnx", "model_postprocess.py"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names


# Wrong input.


def test_wrong_arguments_are_one_sentence(tmp_path):
    predictor = make_predictor()
    for options, message in (
        ({"format": "tflite"}, "--format: 'tflite' is not known; the nearest names are"),
        ({"format": "torch_export"}, r"must end in \.pt2 \(torch_export\)"),
        ({"size": (64, 100)}, "--size must be two multiples of 32, height and width; got 64 and"),
        ({"frames": 2}, "--frames 2 is for models of videos; leave it out"),
    ):
        with pytest.raises((ValueError, KeyError), match=message):
            export(predictor, tmp_path / "model.onnx", **options)
    with pytest.raises(ValueError, match="--frames must be at least 1; got 0"):
        export(make_predictor(VIDEO, INPUT), tmp_path / "model.onnx", frames=0)


def test_what_cannot_be_exported_says_what_and_why(tmp_path, monkeypatch):
    predictor = make_predictor()

    def forward(x):
        raise NotImplementedError("no such operator")

    monkeypatch.setattr(predictor.model.backbone, "forward", forward)
    with pytest.raises(RuntimeError, match="cannot export this MaskFormer with SmallBackbone; it"):
        export(predictor, tmp_path / "model.onnx")


def test_a_missing_package_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ImportError, match="need onnxruntime.*pip install onnx onnxscript onnxrunt"):
        Predictor.from_onnx(tmp_path / "model.onnx")


def test_files_that_are_not_exported_ones_are_one_sentence(tmp_path):
    with pytest.raises(FileNotFoundError, match="none.onnx does not exist; name a file of"):
        Predictor.from_onnx(tmp_path / "none.onnx")
    (tmp_path / "bad.onnx").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="onnxruntime cannot read .*bad.onnx"):
        Predictor.from_onnx(tmp_path / "bad.onnx")
    with pytest.raises(ValueError, match="this onnxruntime does not run on tpu, only by .*CPU"):
        (tmp_path / "bad.onnx").write_bytes(b"nothing")
        Predictor.from_onnx(tmp_path / "bad.onnx", device="tpu")


def test_the_command_takes_a_checkpoint_and_writes_beside_it(tmp_path, monkeypatch, capsys):
    from rankseg_d2.export import exporting
    from rankseg_d2.export.formats import Format

    said = {}

    def write(program, names, description, path):
        said.update(json.loads(description))

    make_run(tmp_path, "export")
    weights = pack(tmp_path / "run")
    monkeypatch.setattr(exporting, "trace", lambda *args: None)
    monkeypatch.setattr(exporting, "format_named", lambda name: Format(".onnx", write, None))
    assert cli.main(["export", "--weights", str(weights), "--no-check", "--size", "64", "96"]) == 0
    assert "wrote" in capsys.readouterr().out and weights.with_suffix(".onnx").exists()
    wanted = Predictor.from_checkpoint(weights, device="cpu")
    assert [row["name"] for row in said["classes"]] == list(wanted.classes.names)
    assert [row["id"] for row in said["classes"]] == list(wanted.classes.ids)
    assert said["size"] == [64, 96] and str(tmp_path) not in json.dumps(said)


def test_the_command_needs_a_config_for_other_keys(tmp_path, capsys):
    words = ["export", "--weights", str(tmp_path / "a.pth"), "--set", "MODEL.DEVICE=cpu"]
    assert cli.main(words) == 1
    assert "name the CONFIG of the weights too" in capsys.readouterr().err


def test_flips_of_an_exported_model_swap_the_pairs(monkeypatch):
    predictor = make_predictor({"TEST.AUG.ENABLED": True})
    predictor.classes = replace(predictor.classes, flip_pairs=((2, 3),))
    content = {"rankseg": describe_export(predictor, None, None)}
    meta = SimpleNamespace(custom_metadata_map=content)
    session = SimpleNamespace(get_modelmeta=lambda: meta, get_outputs=lambda: [])
    monkeypatch.setattr(onnx_model, "_session", lambda path, device: session)
    found = Predictor.from_onnx("model.onnx")
    assert found.classes.flip_pairs == found._passes.flip_pairs == ((2, 3),)
