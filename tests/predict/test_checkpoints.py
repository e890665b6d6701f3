"""A predictor from a file alone, and from a config with weights."""

import numpy as np
import pytest
import torch
from detectron2.data import MetadataCatalog
from support import own_data
from support.packed import KEYS, OFFSET, make_run
from support.predicting import pixels

from rankseg_d2 import Predictor
from rankseg_d2.checkpoints import write_metadata
from rankseg_d2.engine import Checkpointer, pack
from rankseg_d2.predict import predictor as module
from rankseg_d2.predict.classes import Classes
from rankseg_d2.predict.loading import describe_classes
from rankseg_d2.ranking import Calibration


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    cfg, model = make_run(folder)
    return folder, cfg, model, pack(folder / "run")


def config_of(folder, *opts):
    return str(folder / "config.yaml"), {"opts": _words(folder) + list(opts)}


def _words(folder):
    keys = KEYS | {"OUTPUT_DIR": str(folder)}
    return [
        word for key, value in keys.items() if "NUM_CLASSES" not in key for word in (key, value)
    ]


def test_checkpoint_packed_file_and_config_give_the_same_results_bit_for_bit(run):
    folder, cfg, model, packed = run
    config, opts = config_of(folder)
    predictors = [
        Predictor.from_checkpoint(folder / "run/model_final.pth", device="cpu"),
        Predictor.from_checkpoint(str(packed), device="cpu"),
        Predictor.from_config(config, packed, device="cpu", **opts),
    ]
    image = pixels(4)
    by_hand = Predictor(model, cfg, predictors[0].classes)(image)
    for predictor in predictors:
        assert predictor.classes.names == tuple(own_data.CLASSES) and predictor.topk == 3
        assert predictor.classes.ids == tuple(range(OFFSET, OFFSET + 5))
        result = predictor(image)
        np.testing.assert_array_equal(result.semantic, by_hand.semantic)
        assert result.categories == by_hand.categories
        own = result.labels(own_ids=True)
        np.testing.assert_array_equal(own, by_hand.semantic.astype(int) + OFFSET)
        assert not predictor.model.training


def test_a_packed_file_needs_nothing_of_the_run(run, tmp_path, monkeypatch):
    _, _, _, packed = run
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(packed.read_bytes())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, "describe", lambda cfg: pytest.fail("needs the data set"))
    predictor = Predictor.from_checkpoint("copy.safetensors", device="cpu")
    assert not predictor.cfg.DATASETS.FILES


def test_the_calibration_of_a_file_is_used(run, tmp_path):
    _, _, _, packed = run
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(packed.read_bytes())
    write_metadata(copy, calibration=Calibration(3.0, (0.5,) * 5).to_json())
    one, other = (Predictor.from_checkpoint(x, device="cpu")(pixels()) for x in (packed, copy))
    for a, b in zip(one.categories, other.categories, strict=True):
        logit = np.log(a.probability / (1 - a.probability))
        assert b.probability == pytest.approx(1 / (1 + np.exp(-logit / 3 - 0.5)), rel=1e-5)


def test_weights_without_description_are_told_how_to_be_used(run, tmp_path):
    folder, cfg, model, _ = run
    Checkpointer(model, str(tmp_path)).save("plain")
    path = tmp_path / "plain.pth"
    message = r"does not say what model .*; use Predictor\.from_config\(CONFIG, weights=\.\.\.\)"
    with pytest.raises(ValueError, match=message):
        Predictor.from_checkpoint(path)
    config, opts = config_of(folder)
    found = Predictor.from_config(config, path, device="cpu", **opts)
    assert found.classes.names == tuple(own_data.CLASSES)


def test_names_can_be_given_where_no_data_set_has_them(run):
    folder, _, _, packed = run
    config, opts = config_of(folder)
    names = ["a", "b", "c", "d", "e"]
    own = {"opts": opts["opts"] + ["DATASETS.TRAIN", ("nobody",), "DATASETS.TEST", ()]}
    with pytest.raises(ValueError, match=r"do not name their classes; give classes=\[\.\.\.\]"):
        Predictor.from_config(config, packed, device="cpu", **own)
    with pytest.raises(ValueError, match="5 classes, but there are 2 names"):
        Predictor.from_config(config, packed, classes=["a", "b"], device="cpu", **opts)
    Checkpointer(run[2], str(folder)).save("plain")  # without names, so rows go by their numbers
    path = folder / "plain.pth"
    found = Predictor.from_config(config, path, classes=names, device="cpu", **opts)
    assert set(found(pixels()).names) <= set(names)
    assert found.classes.ids == tuple(range(5))


def test_weights_of_another_model_are_refused(run, tmp_path):
    folder, _, _, packed = run
    make_run(tmp_path, "plain", **{"MODEL.RANKSEG.FLAG": False})
    config, opts = config_of(folder)
    path = tmp_path / "run/model_final.pth"
    with pytest.raises(ValueError, match=r"model_final\.pth lacks \d+ of the model's \d+ "):
        Predictor.from_config(config, path, device="cpu", **opts)
    assert Predictor.from_checkpoint(path, device="cpu").topk is None


@pytest.mark.parametrize("asked, wanted", [
    (None, torch.bfloat16), ("float32", torch.float32), (torch.float16, torch.float16),
])  # fmt: skip
def test_the_type_is_the_configs_unless_another_is_asked_for(asked, wanted, run):
    config, opts = config_of(run[0], "MODEL.DTYPE", "bfloat16")
    found = Predictor.from_config(config, run[3], device="cpu", dtype=asked, **opts)
    assert found.model.dtype == wanted
    assert Predictor.from_checkpoint(run[3], device="cpu", dtype=asked).model.dtype == (
        wanted if asked else torch.float32
    )


@pytest.mark.parametrize(
    "change, message",
    [({"dtype": "int8"}, "dtype must be float32, bfloat16, float16, not 'int8'"),
     ({"dtype": torch.int8}, "dtype must be float32")],
)  # fmt: skip
def test_bad_options(change, message, run):
    with pytest.raises(ValueError, match=message):
        Predictor.from_checkpoint(run[3], **change)


def test_bad_files(run, tmp_path):
    with pytest.raises(FileNotFoundError, match="no.pth"):
        Predictor.from_checkpoint(tmp_path / "no.pth")
    with pytest.raises(ValueError, match="weights is empty; name the file"):
        Predictor.from_config(config_of(run[0])[0], "", device="cpu", **config_of(run[0])[1])
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(run[3].read_bytes()[:100])
    with pytest.raises(ValueError, match="damaged.safetensors"):
        Predictor.from_checkpoint(damaged)
    newer = tmp_path / "newer.safetensors"
    newer.write_bytes(run[3].read_bytes())
    write_metadata(newer, format=99)
    with pytest.raises(ValueError, match="was written by a newer version; update rankseg_d2"):
        Predictor.from_checkpoint(newer)


def test_two_predictors_do_not_share_their_things(run):
    first = Predictor.from_checkpoint(run[3], device="cpu")
    things = first.model.result_options.thing_ids
    describe_classes(Classes.of([{"name": "x", "isthing": True}]))
    assert first.model.result_options.thing_ids == things == frozenset()


@pytest.mark.parametrize("is_old", [False, True])
def test_flips_swap_the_pairs_of_the_data_set(is_old, tmp_path):
    """Files of older versions do not say the pairs, but name the data set."""
    name = f"flipped_{is_old}"
    aug = {"TEST.AUG.ENABLED": True, "TEST.AUG.MIN_SIZES": (32,), "TEST.AUG.FLIP": True}
    cfg, model = make_run(tmp_path, name, flip_pairs=[["car", "bus"]], **aug)
    packed = pack(tmp_path / "run")
    if is_old:
        write_metadata(packed, flip_pairs=None)
    else:
        MetadataCatalog.pop(f"{name}_train")
    found = Predictor.from_checkpoint(packed, device="cpu")
    assert found.classes.flip_pairs == ((2, 3),)
    wanted = Predictor(model, cfg, found.classes)  # has the pairs of DATASETS.TEST
    for predictor in (found, wanted):
        assert tuple(predictor._passes.flip_pairs) == ((2, 3),)
    np.testing.assert_array_equal(found(pixels()).semantic, wanted(pixels()).semantic)


def test_pairs_of_another_class_list_are_not_used():
    MetadataCatalog.get("renamed").set(stuff_classes=["a", "b"], flip_pairs=((0, 1),))
    said = {"classes": [{"name": "a"}, {"name": "b"}], "config": "DATASETS: {TRAIN: [renamed]}"}
    assert Classes.described(said).flip_pairs == ((0, 1),)
    said["classes"][1]["name"] = "c"
    assert Classes.described(said).flip_pairs == ()
    MetadataCatalog.pop("renamed")
