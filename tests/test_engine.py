"""Who answers `import detectron2`: each question in a process of its own."""

import ast
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.paths import ROOT

import rankseg_d2
from rankseg_d2._engine import COUNTERPARTS, INSTALL_LINE

PACKAGE = Path(rankseg_d2.__file__).parent
EMBEDDED_FILES = sorted((PACKAGE / "_detectron2").rglob("*.py"))
HEAVY = ["timm", "cv2", "pycocotools", "scipy", "tensorboard", "torchvision", "matplotlib"]

# Load _engine.py alone: the choice of an engine needs nothing of the package.
CHOOSE = f"""
import importlib.util, sys
spec = importlib.util.spec_from_file_location("_engine", {str(PACKAGE / "_engine.py")!r})
_engine = importlib.util.module_from_spec(spec)
spec.loader.exec_module(_engine)
"""
HIDE_REAL = """
import importlib.machinery, sys
class Hide:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "detectron2":
            return importlib.machinery.ModuleSpec(name, None)  # as of a bare folder
sys.meta_path.insert(0, Hide)
"""
TELL = "_engine.install(); sys.stdout.write(_engine.engine_name())"


def python(code, engine="", folders=(), check=True):
    """Standard output of a python process (standard error, where it must fail)."""
    env = os.environ | {"RANKSEG_ENGINE": engine, "OMP_NUM_THREADS": "2"}
    env["PYTHONPATH"] = os.pathsep.join([*map(str, folders), str(PACKAGE.parent)])
    command = [sys.executable, *([str(code)] if isinstance(code, Path) else ["-c", code])]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=280)
    assert (done.returncode == 0) == check, done.stdout + done.stderr
    return done.stdout if check else done.stderr


@pytest.fixture
def regular_package(tmp_path):
    (tmp_path / "detectron2").mkdir()
    (tmp_path / "detectron2" / "__init__.py").write_text("__version__ = 'fake'\n")
    return tmp_path


# the choice


def test_without_a_wish_the_real_one_is_taken_where_it_is(regular_package):
    assert python(CHOOSE + TELL, folders=[regular_package]) == "detectron2"
    assert python(HIDE_REAL + CHOOSE + TELL) == "embedded"


def test_a_bare_folder_named_detectron2_does_not_count(tmp_path):
    (tmp_path / "detectron2" / "data").mkdir(parents=True)
    assert python(CHOOSE + TELL, folders=[tmp_path]) == rankseg_d2.engine_name()


def test_each_engine_can_be_forced(regular_package):
    for engine in ("embedded", "detectron2"):
        assert python(CHOOSE + TELL, engine, folders=[regular_package]) == engine


def test_an_unknown_engine_is_refused_with_the_known_ones():
    error = python("import rankseg_d2", "detectron3", check=False)
    assert "ValueError: RANKSEG_ENGINE='detectron3'" in error
    assert "embedded, detectron2" in error


def test_forcing_the_real_one_where_it_is_missing_shows_how_to_install_it():
    error = python(HIDE_REAL + "import rankseg_d2", "detectron2", check=False)
    assert "ImportError: RANKSEG_ENGINE=detectron2, but detectron2 is not installed" in error
    assert f"install it with `{INSTALL_LINE}`, or unset RANKSEG_ENGINE" in error


def test_forcing_the_embedded_one_after_the_real_one_is_refused(regular_package):
    code = "import detectron2, rankseg_d2"
    error = python(code, "embedded", folders=[regular_package], check=False)
    assert "ImportError: RANKSEG_ENGINE=embedded" in error
    assert "put `import rankseg_d2` before every `import detectron2`" in error


def test_asking_before_the_choice_is_an_error():
    error = python(CHOOSE + "_engine.engine_name()", check=False)
    assert "RuntimeError: no engine is chosen yet: import rankseg_d2 first" in error


def test_installing_twice_installs_one_finder():
    code = "_engine.install(); _engine.install()\n"
    count = "sum(type(f).__name__ == '_AliasFinder' for f in sys.meta_path)"
    assert python(CHOOSE + code + f"sys.stdout.write(str({count}))", "embedded") == "1"


# the alias


def test_both_names_lead_to_the_same_modules():
    python(
        """
import rankseg_d2, importlib, pkgutil, sys
assert rankseg_d2.engine_name() == "embedded"
import detectron2.utils.comm
from detectron2 import evaluation
import rankseg_d2._detectron2 as embedded
assert detectron2 is embedded
names = [m.name for m in pkgutil.walk_packages(embedded.__path__, embedded.__name__ + ".")]
assert len(names) > 20, names
for i, name in enumerate(names):
    alias = "detectron2" + name.removeprefix(embedded.__name__)
    order = (alias, name) if i % 2 else (name, alias)  # either may come first
    first, second = map(importlib.import_module, order)
    assert first is second is sys.modules[name] is sys.modules[alias], name
    assert first.__name__ == first.__spec__.name == name
    parent, _, child = alias.rpartition(".")
    assert getattr(sys.modules[parent], child) is first, name
""",
        "embedded",
    )


MISSING = {
    "import detectron2.projects.point_rend": "detectron2.projects",
    "from detectron2 import model_zoo": "detectron2.model_zoo",
    "from detectron2.config import CfgNode, LazyConfig": "detectron2.config.LazyConfig",
    "from detectron2.data import refresh": "detectron2.data.refresh",
    "from detectron2.evaluation import COCOEvaluator": "detectron2.evaluation.COCOEvaluator",
    "from detectron2.layers import ROIAlign, nms": "detectron2.layers.ROIAlign",
    "from detectron2.modeling import GeneralizedRCNN": "detectron2.modeling.GeneralizedRCNN",
    "from detectron2.utils import visualizer": "detectron2.utils.visualizer",
    "from detectron2.utils.visualizer import Visualizer": "detectron2.utils.visualizer",
    "from detectron2.utils.logger import log_every_n": "detectron2.utils.logger.log_every_n",
}


def test_a_missing_name_is_an_import_error_with_the_way_out():
    code = f"""
import rankseg_d2, sys
for line in {list(MISSING)}:
    try:
        exec(line)
    except ImportError as error:
        sys.stdout.write(f"{{error}}\\n")
"""
    errors = python(code, "embedded").splitlines()
    for name, error in zip(MISSING.values(), errors, strict=True):
        ours = f"use {COUNTERPARTS[name]}, or " if name in COUNTERPARTS else ""
        assert error == (
            f"the embedded engine of rankseg_d2 has no {name!r}; {ours}install the real "
            f"detectron2: `{INSTALL_LINE}`"
        )


def test_a_missing_attribute_is_an_attribute_error():
    python(
        """
import rankseg_d2, copy, inspect, pickle
import detectron2.data, detectron2.evaluation, detectron2.utils.logger
from detectron2.engine import *
from detectron2.utils.logger import *
assert setup_logger is detectron2.utils.logger.setup_logger
assert DefaultTrainer is detectron2.engine.DefaultTrainer
for module in (detectron2, detectron2.data, detectron2.evaluation, detectron2.utils.logger):
    for name in ("COCOEvaluator", "__wrapped__", "__getstate__x__"):
        assert not hasattr(module, name)
    assert inspect.getmembers(module) and inspect.getsourcefile(module)
metadata = detectron2.data.Metadata(name="x")
assert copy.deepcopy(metadata) == pickle.loads(pickle.dumps(metadata)) == metadata
""",
        "embedded",
    )


def test_each_counterpart_is_a_class_of_ours():
    assert "detectron2.evaluation.COCOEvaluator" in COUNTERPARTS
    for theirs, ours in COUNTERPARTS.items():
        module, _, name = ours.rpartition(".")
        assert isinstance(getattr(importlib.import_module(module), name), type), theirs


def test_an_optional_import_can_still_be_tried():
    python(
        """
import rankseg_d2
try:
    import detectron2.model_zoo
except ImportError as error:
    assert error.name == "detectron2.model_zoo"
else:
    raise AssertionError
import detectron2.config
""",
        "embedded",
    )


USER_SCRIPT = """
import rankseg_d2

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode as CN, configurable, get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog, build_detection_test_loader
from detectron2.data import detection_utils, transforms as T
from detectron2.data.common import DatasetFromList, MapDataset
from detectron2.engine import DefaultTrainer, default_argument_parser, default_setup, hooks, launch
from detectron2.evaluation import DatasetEvaluator, DatasetEvaluators, inference_on_dataset
from detectron2.layers import Conv2d, ShapeSpec, get_norm
from detectron2.modeling import BACKBONE_REGISTRY, META_ARCH_REGISTRY, build_model
from detectron2.solver import build_lr_scheduler
from detectron2.structures import BitMasks, Boxes, ImageList, Instances
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from detectron2.utils.logger import setup_logger


class Mapper:
    def __call__(self, number):
        instances = Instances((4, 5))
        instances.gt_boxes = Boxes(torch.tensor([[0.0, 0.0, number, number]]))
        instances.gt_masks = BitMasks(torch.ones(1, 4, 5, dtype=torch.bool))
        return instances


def batch_of(items):
    return items


def main(methods):
    DatasetCatalog.register("mine", lambda: [1, 2, 3])
    MetadataCatalog.get("mine").thing_classes = ["a"]
    assert MetadataCatalog.get("mine").thing_classes == ["a"]
    dataset = MapDataset(DatasetFromList(DatasetCatalog.get("mine")), Mapper())
    assert get_cfg().MODEL.META_ARCHITECTURE
    for method in methods:
        loader = torch.utils.data.DataLoader(
            dataset, num_workers=1, collate_fn=batch_of, multiprocessing_context=method
        )
        batches = list(loader)
        assert [b[0].gt_boxes.tensor[0, 2].item() for b in batches] == [1, 2, 3]
        assert all(type(b[0]) is Instances for b in batches), method
        assert all(type(b[0].gt_masks) is BitMasks for b in batches), method


if __name__ == "__main__":
    main(["fork", "spawn"])
"""


@pytest.mark.slow
@pytest.mark.parametrize("engine", sorted({"embedded", rankseg_d2.engine_name()}))
def test_a_users_script_and_its_data_workers_run(engine, tmp_path):
    script = tmp_path / "train.py"
    script.write_text(USER_SCRIPT)
    python(script, engine)


def test_pickles_of_the_embedded_engine_load_before_any_detectron2_import(tmp_path):
    file = tmp_path / "boxes.pkl"
    python(
        "import rankseg_d2, pickle, torch\nfrom detectron2.structures import Boxes\n"
        f"pickle.dump(Boxes(torch.ones(1, 4)), open({str(file)!r}, 'wb'))",
        "embedded",
    )
    python(
        f"import pickle\nboxes = pickle.load(open({str(file)!r}, 'rb'))\n"
        "from detectron2.structures import Boxes\nassert type(boxes) is Boxes and len(boxes) == 1",
        "embedded",
    )


# the order of imports


def documented(language):
    """The code blocks of docs/engine.md in a language."""
    text = (ROOT / "docs" / "engine.md").read_text()
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def sorted_by_ruff(code, folder, settings):
    (folder / "ruff.toml").write_text(settings)
    command = [sys.executable, "-m", "ruff", "check", "--fix-only", "--select", "I,F401", "--quiet"]
    command += ["--config", str(folder / "ruff.toml"), "--stdin-filename", "train.py", "-"]
    done = subprocess.run(command, input=code, capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_ruff_keeps_the_documented_order_of_imports(tmp_path):
    pytest.importorskip("ruff")
    marked = documented("python")[0] + "print(detectron2, DefaultTrainer)\n"
    unmarked = marked.replace("\n# isort: split\n", "")
    settings = documented("toml")[0].partition("\n\n")[0].replace("tool.ruff.", "")
    assert sorted_by_ruff(marked, tmp_path, "").startswith("import rankseg_d2")
    assert sorted_by_ruff(unmarked, tmp_path, settings).startswith("import rankseg_d2")
    assert sorted_by_ruff(unmarked, tmp_path, "").startswith("import detectron2")  # else no need


# what the import costs


@pytest.mark.parametrize(
    ("modules", "heavy"),
    [("rankseg_d2", set()), ("rankseg_d2.engine, rankseg_d2.cli", {"cv2"})],  # which is quick
)
def test_importing_the_package_and_its_commands_imports_nothing_heavy(modules, heavy):
    code = f"import sys, {modules}; sys.stdout.write(repr({set(HEAVY)} & sys.modules.keys()))"
    assert python(code, "embedded") == repr(heavy)


def test_importing_the_whole_embedded_engine_imports_nothing_heavy():
    code = f"""
import sys, rankseg_d2, importlib, pkgutil
import rankseg_d2._detectron2 as embedded
for module in pkgutil.walk_packages(embedded.__path__, embedded.__name__ + "."):
    importlib.import_module(module.name)
    loaded = {set(HEAVY)} & sys.modules.keys()
    assert not loaded, (module.name, loaded)
"""
    python(code, "embedded")


@pytest.mark.parametrize("file", EMBEDDED_FILES, ids=lambda f: str(f.relative_to(PACKAGE)))
def test_embedded_modules_import_each_other_relatively(file):
    imported = []
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            imported += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            imported.append(node.module)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            imported += re.findall(r"^(?:import|from) (detectron2\S*)", node.value)
    roots = {name.partition(".")[0] for name in imported}
    assert "detectron2" not in roots
    assert not [name for name in imported if name.startswith("rankseg_d2._detectron2")]
