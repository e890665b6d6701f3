"""Malformed configs, options, data descriptions, json, images and weights, by chance.

    python tests/faults/malformed.py GROUP [--seconds 60] [--seed 0]

Every case must work or end in a sentence that this package raises. Prints one line of json.
"""

import argparse
import io
import json
import os
import pickle
import tempfile
from pathlib import Path

import rankseg_d2  # noqa: F401  (first: it makes `import detectron2` work anywhere)

# isort: split
import numpy as np
import torch
import yaml
from detectron2.data import DatasetCatalog
from PIL import Image
from support import own_data
from support.faults import ODD, changed, damaged, endless, run

from rankseg_d2 import build_model, get_config
from rankseg_d2.checkpoints import read_checkpoint
from rankseg_d2.config_files import shipped_configs_dir
from rankseg_d2.data.checks import check
from rankseg_d2.data.mappers import build_mapper
from rankseg_d2.data.own import register_own_data
from rankseg_d2.engine import build_lr_scheduler, build_optimizer

SMALL = "shapes/panoptic/r10t_rankseg"


def config_files(folder):
    """Text and values of yaml files."""
    texts = [path.read_text() for path in sorted(shipped_configs_dir().rglob("*.yaml"))]

    def make(rng):
        text = rng.choice(texts)
        kind = rng.random()
        if kind < 0.4:
            text = damaged(text.encode(), rng).decode("latin-1")
        elif kind < 0.7:
            lines = text.splitlines()
            lines.insert(rng.randrange(len(lines)), rng.choice(lines))
            text = "\n".join(lines)
        else:
            text = yaml.safe_dump(changed(yaml.safe_load(text) or {"SEED": 1}, rng))
        path = folder / f"{rng.randrange(10**9)}.yaml"

        def read():
            path.write_text(text)
            get_config(path)

        return read

    return make


def options(folder):
    """Values of keys: the model is built, takes a step and an image."""
    keys = sorted(
        f"{section}.{name}" if section else name for section, name in _leaves(get_config(SMALL))
    )
    keys = [key for key in keys if not key.startswith(("MODEL.R", "MODEL.A", "MODEL.P"))
            or "RANKSEG" in key or "RESNETS" in key or "PIXEL" in key]  # fmt: skip
    image = torch.randint(256, (3, 64, 64))

    def make(rng):
        key, value = rng.choice(keys), rng.choice(ODD)

        def build():
            cfg = get_config(SMALL, [key, value, "OUTPUT_DIR", str(folder / "out")])
            model = build_model(cfg)
            optimizer = build_optimizer(cfg, model)
            build_lr_scheduler(cfg, optimizer)
            build_mapper(cfg, is_train=True)
            model.eval()([{"image": image, "height": 64, "width": 64}])

        build.__doc__ = f"{key} {value!r}"[:200]
        return build

    return make


def _leaves(section, prefix=""):
    for name, value in section.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}.{name}" if prefix else name)
        else:
            yield prefix, name


def own_yaml(folder):
    """The yaml of an own data set."""
    path, _ = own_data.semantic(folder)
    return _changed_file(path, yaml.safe_load, yaml.safe_dump, path)


def coco(folder):
    """A json of COCO instances."""
    path, _ = own_data.instances(folder)
    return _changed_file(folder / "instances.json", json.loads, json.dumps, path)


def panoptic(folder):
    """A json of COCO panoptic segments."""
    path, _ = own_data.panoptic(folder)
    return _changed_file(folder / "panoptic.json", json.loads, json.dumps, path)


def label_images(folder):
    """Bytes of label images."""
    path, _ = own_data.semantic(folder)
    return _damaged_file(folder / "labels" / "000.png", path)


def panoptic_images(folder):
    """Bytes of panoptic PNG files."""
    path, _ = own_data.panoptic(folder)
    return _damaged_file(folder / "panoptic" / "000.png", path)


def images(folder):
    """Bytes of images."""
    path, _ = own_data.semantic(folder)
    return _damaged_file(folder / "images" / "000.jpg", path)


def weights(folder):
    """Bytes of weight files, and pickles that would run code."""
    tensors = {"a.weight": torch.arange(6.0).view(2, 3), "b": torch.zeros(1)}
    buffer = io.BytesIO()
    torch.save({"model": tensors}, buffer)
    arrays = pickle.dumps({"model": {name: x.numpy() for name, x in tensors.items()}})
    files = [buffer.getvalue(), arrays]
    try:
        from safetensors.torch import save

        files.append(save(tensors))
    except ImportError:
        pass

    def make(rng):
        marker = folder / f"{rng.randrange(10**9)}.ran"
        data = pickle.dumps({"model": Runs(marker)}, rng.randrange(5))
        if rng.random() < 0.9:
            data = damaged(rng.choice(files), rng)
        path = folder / f"{rng.randrange(10**9)}{rng.choice(('.pth', '.pkl', '.safetensors'))}"

        def read():
            path.write_bytes(data)
            try:
                read_checkpoint(path)
            finally:
                path.unlink()
                if marker.exists():
                    os._exit(99)  # code ran

        return read

    return make


class Runs:
    """Its pickle makes a file when it is loaded by pickle."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def _changed_file(path, load, dump, dataset):
    content = load(path.read_text())

    def make(rng):
        text = dump(changed(content, rng))
        if rng.random() < 0.2:
            text = damaged(text.encode(), rng).decode("latin-1")
        return _use(dataset, lambda: path.write_text(text))

    return make


def _damaged_file(path, dataset):
    data = path.read_bytes()
    pixels = np.array(Image.open(path))

    def make(rng):
        new = damaged(data, rng)
        if rng.random() < 0.2:
            buffer = io.BytesIO()
            kind = rng.choice(("PNG", "TIFF", "BMP", "GIF", "PPM"))
            size = rng.choice(((1, 1), (32, 24), (5000, 1)))
            Image.fromarray(pixels).resize(size).save(buffer, kind)
            new = buffer.getvalue()
        return _use(dataset, lambda: path.write_bytes(new))

    return make


def _use(dataset, write):
    """Check the data set, and map its records, after `write`."""

    def use():
        write()
        parts = check._find_parts(str(dataset))
        tallies = {
            part.name: check.scan(part.records, part.metadata, part.name, 1) for part in parts
        }
        check._all_faults(parts, tallies, str(dataset))
        names = register_own_data(dataset)
        task = {"coco": "instance", "coco_panoptic_seg": "panoptic"}
        kind = check.MetadataCatalog.get(names[0]).evaluator_type
        cfg = get_config("shapes/panoptic/r10t")
        cfg.DATASETS.TRAIN = (names[0],)
        cfg.INPUT.DATASET_MAPPER_NAME = f"mask_former_{task.get(kind, 'semantic')}"
        mapper = build_mapper(cfg, is_train=True)
        for record in DatasetCatalog.get(names[0]):
            mapper(record)

    return use


GROUPS = {
    group.__name__: group
    for group in (
        config_files,
        options,
        own_yaml,
        coco,
        panoptic,
        label_images,
        panoptic_images,
        images,
        weights,
    )
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("group", choices=GROUPS)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        os.chdir(folder)
        counts, bad = run(endless(GROUPS[args.group](folder), args.seed), args.seconds)
    print(json.dumps({"group": args.group, "counts": counts, "bad": bad}))  # noqa: T201


if __name__ == "__main__":
    main()
