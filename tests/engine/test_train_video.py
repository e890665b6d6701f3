"""Videos go through loader, model, windows and evaluators as images do."""

import json
import math
import threading
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image
from pycocotools import mask as mask_util
from support.end_to_end import decode, small_config
from support.toy import final_weights
from torch import nn

from rankseg_d2.config import get_config
from rankseg_d2.data.classes import load_classes
from rankseg_d2.data.datasets import register_all
from rankseg_d2.data.datasets.shapes import register_shapes
from rankseg_d2.data.formats.video_frames import LazyFrames
from rankseg_d2.engine import Trainer, train_or_evaluate
from rankseg_d2.modeling.meta_arch.rankseg import RankSegVideoMaskFormer
from rankseg_d2.modeling.video.windows import plan

CATEGORIES, THINGS, TOPK = 20, 14, 6
CONFIGS = ["r10t", "r10t_rankseg", "r10t_rankseg_gt"]
TASKS = {"semantic": ("sem_seg", CATEGORIES), "instance": ("instance", THINGS)}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """The folder of a few clips, registered as shapes20_video_..."""
    before, root = set(DatasetCatalog.list()), tmp_path_factory.mktemp("data")
    register_shapes(CATEGORIES, root=root, num_videos={"train": 4, "val": 2})
    yield root
    for name in set(DatasetCatalog.list()) - before:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def video_config(task, config, output_dir, **keys):
    """A shipped config of shapes, small, on these clips."""
    name, classes = TASKS[task]
    dataset = f"shapes{CATEGORIES}_video_{name}"
    own = {
        "DATASETS__TRAIN": f"('{dataset}_train',)",
        "DATASETS__TEST": f"('{dataset}_val',)",
        "MODEL__SEM_SEG_HEAD__NUM_CLASSES": classes,
        "MODEL__RANKSEG__TOPK": TOPK,
        "SOLVER__MAX_ITER": 2,
        "SOLVER__WARMUP_ITERS": 0,
    }
    return small_config(f"shapes/video_{task}/{config}", output_dir, **own | keys)


def train(cfg, resume=False):
    torch.manual_seed(0)
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=resume)
    trainer.train()
    return trainer


def rows_of(output_dir):
    return [json.loads(line) for line in Path(output_dir, "metrics.json").read_text().splitlines()]


def check_results(results, task, ranks):
    main = {"semantic": ("sem_seg/mIoU", "sem_seg/VC8"), "instance": ("segm/AP", "segm/AR10")}[task]
    for name in main:
        assert 0 <= results[name] <= 100, name
    assert ("multilabel/mAP" in results) is ranks
    if ranks:
        assert results["multilabel/k"] == TOPK
        assert 0 < results["multilabel/recall@k"] <= 100


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("config", CONFIGS)
def test_each_config_trains_and_evaluates(task, config, root, tmp_path):
    train(video_config(task, config, tmp_path))
    rows = rows_of(tmp_path)
    assert math.isfinite(rows[0]["total_loss"])
    check_results(rows[-1], task, ranks=config == "r10t_rankseg")
    assert [path.name for path in tmp_path.glob("val_*.jpg")] == [
        f"val_shapes{CATEGORIES}_video_{TASKS[task][0]}_val.jpg"
    ]


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_a_resumed_run_ends_with_the_weights_of_one_that_was_not_interrupted(task, root, tmp_path):
    whole = video_config(task, "r10t_rankseg", tmp_path / "whole", DATASETS__TEST="()")
    train(whole)
    part = video_config(
        task, "r10t_rankseg", tmp_path / "part", DATASETS__TEST="()", SOLVER__CHECKPOINT_PERIOD=1
    )
    torch.manual_seed(0)
    trainer = Trainer(part)
    trainer.max_iter = 1
    trainer.train()
    assert train(part, resume=True).start_iter == 1
    expected = final_weights(whole.OUTPUT_DIR)
    for name, weight in final_weights(part.OUTPUT_DIR).items():
        torch.testing.assert_close(weight, expected[name], rtol=0, atol=0, msg=name)


def run_train_net(cfg, **args):
    """What train_net.py does, with the config as a file."""
    config_file = Path(cfg.OUTPUT_DIR, "given.yaml")
    config_file.parent.mkdir(parents=True, exist_ok=True)
    config_file.write_text(cfg.dump())
    options = {"eval_only": False, "resume": False, "opts": []} | args
    return train_or_evaluate(SimpleNamespace(config_file=str(config_file), **options))


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_train_net_evaluates_a_checkpoint_to_the_results_of_its_training(task, root, tmp_path):
    cfg = video_config(task, "r10t_rankseg", tmp_path, SOLVER__MAX_ITER=1)
    run_train_net(cfg)
    results = run_train_net(cfg, eval_only=True, resume=True)
    at_the_end = rows_of(tmp_path)[-1]
    for group, metrics in results.items():
        for name, value in metrics.items():
            assert value == pytest.approx(at_the_end[f"{group}/{name}"], nan_ok=True), name


@pytest.mark.parametrize("task", TASKS)
def test_one_window_over_the_video_writes_the_files_of_the_whole_video(task, root, tmp_path):
    files = []
    for window in (0, 100):
        keys = {"TEST__VIDEO__WINDOW": window, "TEST__SAVE_PREDICTIONS": True}
        cfg = video_config(task, "r10t_rankseg", tmp_path / str(window), **keys)
        torch.manual_seed(0)
        Trainer.test(cfg, Trainer.build_model(cfg))
        folder = Path(cfg.OUTPUT_DIR, "inference")
        written = [path for path in folder.rglob("*") if path.suffix in (".json", ".csv", ".png")]
        files.append({path.relative_to(folder): path.read_bytes() for path in written})
    assert len(files[0]) > 5 and files[0] == files[1]


def test_the_evaluation_reads_the_next_window_while_one_runs(root, tmp_path, monkeypatch):
    keys = {"TEST__VIDEO__WINDOW": 3, "TEST__VIDEO__OVERLAP": 1, "DATALOADER__NUM_WORKERS": 1}
    cfg = video_config("semantic", "r10t_rankseg", tmp_path, TEST__PICTURES=0, **keys)
    model = Trainer.build_model(cfg)
    asked, read, network = defaultdict(threading.Event), LazyFrames.__getitem__, model.network
    expected = [
        record["file_names"][window.seen.stop - 1]
        for record in DatasetCatalog.get(cfg.DATASETS.TEST[0])
        for window in plan(record["length"], 3, 1)
    ]
    followers = [*expected[1:], None]

    def get(self, index):
        asked[self.paths[index]].set()
        return read(self, index)

    def run(*args):
        """Ends only after the next window of the video has been asked for."""
        now, following = expected.pop(0), followers.pop(0)
        if following and Path(following).parent == Path(now).parent:
            assert asked[following].wait(60)
        return network(*args)

    monkeypatch.setattr(LazyFrames, "__getitem__", get)
    monkeypatch.setattr(model, "network", run)
    Trainer.test(cfg, model)
    assert not expected


class Perfect(nn.Module):
    """Says what the labels of a data set of videos say, in the format of the models' results."""

    def __init__(self, dataset_name, num_classes):
        super().__init__()
        records = DatasetCatalog.get(dataset_name)
        self.records = {record["video_id"]: record for record in records}
        self.num_classes = num_classes

    def forward(self, batched_inputs):
        (sample,) = batched_inputs  # one video at a time
        record = self.records[sample["video_id"]]
        assert len(sample["image"]) == record["length"]
        tell = self.label_maps if "sem_seg_file_names" in record else self.instances
        result, present = tell(record)
        scores = torch.zeros(self.num_classes)
        scores[sorted(present)] = 1.0
        classes = scores.argsort(descending=True)[: len(present)]
        return [result | {"ranking": {"scores": scores, "classes": classes}}]

    def label_maps(self, record):
        values = [np.asarray(Image.open(name)) for name in record["sem_seg_file_names"]]
        present = set(np.unique(values).tolist()) - {0}  # 0 is void
        frames = [np.where(value > 0, value - 1, 0).astype(np.uint8) for value in values]
        return {"sem_seg_frames": frames}, {value - 1 for value in present}

    def instances(self, record):
        size = record["height"], record["width"]
        classes, tracks = {}, {}
        for time, objects in enumerate(record["annotations"]):
            for entry in objects:
                mask = np.asfortranarray(decode(entry["segmentation"], *size), np.uint8)
                track = tracks.setdefault(entry["id"], [None] * record["length"])
                track[time] = mask_util.encode(mask)
                classes[entry["id"]] = entry["category_id"]
        result = {
            "image_size": size,
            "pred_scores": torch.ones(len(tracks)),
            "pred_labels": torch.tensor([classes[i] for i in tracks]),
            "pred_masks": list(tracks.values()),
        }
        return result, set(classes.values())


@pytest.mark.parametrize("task", TASKS)
def test_a_perfect_model_gets_100_percent(task, root, tmp_path):
    cfg = video_config(task, "r10t_rankseg", tmp_path)
    results = Trainer.test(cfg, Perfect(cfg.DATASETS.TEST[0], TASKS[task][1]))
    main = {"semantic": ("sem_seg", ["mIoU", "VC8"]), "instance": ("segm", ["AP", "AP50", "AP75"])}
    group, names = main[task]
    for name in names:
        assert results[group][name] == pytest.approx(100), name
    for name in ("mAP", "LRAP", "recall@k", "precision@k"):
        assert results["multilabel"][name] == pytest.approx(100), name


@pytest.fixture(scope="module")
def public(root):
    """The same clips in the places of VSPW and YouTube-VIS."""
    for name in ("train", "val"):  # they are drawn
        DatasetCatalog.get(f"shapes{CATEGORIES}_video_sem_seg_{name}")
    clips = root / "shapes" / str(CATEGORIES) / "video_train"
    (root / "VSPW_480p").mkdir()
    (root / "VSPW_480p" / "data").symlink_to(clips / "data")
    for split in ("train", "val"):
        (root / "VSPW_480p" / f"{split}.txt").symlink_to(clips / "train.txt")
    (root / "ytvis_2019" / "train").mkdir(parents=True)
    (root / "ytvis_2019" / "train" / "JPEGImages").symlink_to(clips / "data")
    content = json.loads((clips / "instances.json").read_text())
    names = load_classes("ytvis2019_40")
    content["categories"] = [{"id": entry["id"], "name": entry["name"]} for entry in names]
    (root / "ytvis_2019" / "train.json").write_text(json.dumps(content))
    register_all(root)
    yield root
    register_all()


@pytest.mark.parametrize(
    ("config", "task"),
    [("vspw/semantic/r50_rankseg", "semantic"), ("ytvis_2019/instance/r50_rankseg", "instance")],
)
def test_the_configs_of_the_public_data_sets_train_and_evaluate(config, task, public, tmp_path):
    test = "ytvis_2019_train" if task == "instance" else "vspw_val"
    cfg = small_config(
        config, tmp_path, DATASETS__TEST=f"('{test}',)", MODEL__RANKSEG__TOPK=TOPK,
        MODEL__META_ARCHITECTURE="VideoMaskFormer", SOLVER__IMS_PER_BATCH=1
    )  # fmt: skip
    trainer = train(cfg)
    assert isinstance(trainer.model, RankSegVideoMaskFormer)
    check_results(rows_of(tmp_path)[-1], task, ranks=True)


def test_a_video_model_begins_from_all_of_an_image_model_but_its_classes(root, tmp_path):
    image_model = Trainer.build_model(small_config("coco/panoptic/r50", tmp_path))
    torch.save({"model": image_model.state_dict()}, tmp_path / "image.pth")
    cfg = small_config(
        "ytvis_2019/instance/r50", tmp_path, MODEL__WEIGHTS=str(tmp_path / "image.pth"),
        DATASETS__TRAIN=f"('shapes{CATEGORIES}_video_instance_train',)", DATASETS__TEST="()",
        MODEL__SEM_SEG_HEAD__NUM_CLASSES=THINGS,
    )  # fmt: skip
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=False)
    begun, given = trainer.model.state_dict(), image_model.state_dict()
    assert begun.keys() == given.keys()
    changed = {name for name, weight in begun.items() if not torch.equal(weight, given[name])}
    classifier = "sem_seg_head.predictor.class_embed"
    assert changed == {f"{classifier}.weight", f"{classifier}.bias", "criterion.empty_weight"}


def test_an_image_mapper_says_which_one_a_video_needs(root, tmp_path):
    keys = {"INPUT__DATASET_MAPPER_NAME": "mask_former_semantic"}
    cfg = video_config("semantic", "r10t", tmp_path, **keys)
    with pytest.raises(ValueError, match="DATASET_MAPPER_NAME to video_semantic"):
        train(cfg)


def test_several_passes_need_the_video_as_a_whole(root, tmp_path):
    keys = {"TEST__SLIDING_WINDOW__ENABLED": True, "TEST__SLIDING_WINDOW__SIZE": [64, 64]}
    keys["TEST__SLIDING_WINDOW__STRIDE"] = [64, 64]
    cfg = video_config("semantic", "r10t_rankseg", tmp_path, **keys)
    with pytest.raises(ValueError, match="SlidingWindow takes a video as a whole.*WINDOW 0"):
        Trainer.test(cfg, Trainer.build_model(cfg))
    cfg = video_config("semantic", "r10t_rankseg", tmp_path, TEST__VIDEO__WINDOW=0, **keys)
    results = Trainer.test(cfg, Trainer.build_model(cfg))
    assert 0 <= results["sem_seg"]["mIoU"] <= 100


def test_video_configs_of_shapes_ask_for_as_many_categories_as_there_are():
    for task, classes in (("semantic", 100), ("instance", 70)):
        cfg = get_config(f"shapes/video_{task}/r10t")
        metadata = MetadataCatalog.get(cfg.DATASETS.TRAIN[0])
        names = metadata.thing_classes if task == "instance" else metadata.stuff_classes
        assert len(names) == cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES == classes
