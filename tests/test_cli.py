import subprocess
import sys

import pytest
import yaml
from support.paths import ROOT

from rankseg_d2.cli import main
from rankseg_d2.config import get_config
from rankseg_d2.config_files import is_part, shipped_names

SHAPES = ("panoptic", "video_instance", "video_semantic")


def listed(capsys, *words):
    """The groups of names that `rankseg-d2 configs` writes."""
    assert main(["configs", *words]) == 0
    return [group.split("\n") for group in capsys.readouterr().out.rstrip("\n").split("\n\n")]


def test_configs_lists_every_name_once_models_by_folder_and_their_parts_last(capsys):
    *models, parts = listed(capsys)
    folders = [{name.rpartition("/")[0] for name in group} for group in models]
    assert all(len(group) == 1 for group in folders)
    assert len(set.union(*folders)) == len(folders)
    assert [name for group in (*models, parts) for name in group if is_part(name)] == parts
    assert sorted(sum(models, parts)) == shipped_names()
    assert ["toy/semantic/r18"] in models
    assert "ade20k/semantic/swin_l_rankseg_gt" in sum(models, [])


@pytest.mark.parametrize(
    "pattern, wanted",
    [
        ("coco/*_r101_*gt", [["coco/panoptic/maskformer_r101_rankseg_gt"]]),
        ("shapes/*r10t_rankseg_gt", [[f"shapes/{task}/r10t_rankseg_gt"] for task in SHAPES]),
        ("toy", [["toy/semantic/r18"], ["toy/semantic/base"]]),
        ("parts/crop", [["parts/crop480", "parts/crop512", "parts/crop640"]]),
    ],
)
def test_configs_takes_part_of_a_name(pattern, wanted, capsys):
    assert listed(capsys, pattern) == wanted


def test_configs_names_the_nearest_where_nothing_matches(capsys):
    assert main(["configs", "toy/semantic/r81"]) == 1
    written = capsys.readouterr()
    assert written.out == ""
    assert "*toy/semantic/r81*; the nearest names are toy/semantic/r18" in written.err


def test_configs_writes_the_keys_of_a_config(capsys, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("_BASE_: toy/semantic/r18\nSOLVER: {MAX_ITER: 7}\n")
    for name in ("toy/semantic/r18", str(path)):
        assert main(["configs", name]) == 0
        written = tmp_path / "written.yaml"
        written.write_text(text := capsys.readouterr().out)
        assert "&id" not in text
        found, wanted = (yaml.safe_load(get_config(one).dump()) for one in (written, name))
        assert found == wanted
    assert get_config(written).SOLVER.MAX_ITER == 7


def test_configs_is_quick_because_it_loads_no_torch():
    code = (
        "import sys\n"
        "from rankseg_d2.cli import main\n"
        "assert main(['configs']) == 0 and 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
