import shutil
from pathlib import Path

import pytest

from rankseg_d2 import config_files
from rankseg_d2.config import get_config
from rankseg_d2.config_files import read_sources, shipped_configs_dir, shipped_names


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """The folder of the shipped configs of an installed package, to change."""
    package = tmp_path.resolve() / "site-packages/rankseg_d2"
    shutil.copytree(shipped_configs_dir(), package / "configs")
    monkeypatch.setattr(config_files, "__file__", str(package / "config_files.py"))
    return package / "configs"


def ranking(cfg):
    return cfg.MODEL.RANKSEG.FLAG, cfg.MODEL.RANKSEG.TOPK, cfg.MODEL.RANKSEG.USE_GT


# Names and paths


@pytest.mark.parametrize("name", ["toy/semantic/r18", "toy/semantic/r18.yaml"])
def test_a_shipped_config_is_found_by_name_from_any_folder(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg = get_config(name)
    assert (cfg.MODEL.RESNETS.DEPTH, cfg.SOLVER.MAX_ITER) == (18, 120)


def test_an_existing_file_wins_over_a_shipped_name(write, tmp_path, monkeypatch):
    write("SEED: 7\n", "toy/semantic/r18.yaml")
    monkeypatch.chdir(tmp_path)
    assert get_config("toy/semantic/r18.yaml").SEED == 7
    assert get_config(Path("toy/semantic/r18.yaml").resolve()).SEED == 7


@pytest.mark.parametrize(
    "name, near",
    [
        ("toy/semantik/r81", "toy/semantic/r18"),
        ("ade20k/semantic/swin_xl_rankseg", "ade20k/semantic/swin_l_rankseg"),
        ("coco/panoptic/r50_rankseg_tg.yaml", "coco/panoptic/r50_rankseg_gt"),
    ],
)
def test_a_missing_config_names_the_nearest_shipped_ones(name, near):
    with pytest.raises(FileNotFoundError, match=rf"{name} .*nearest .* are .*\b{near}\b"):
        get_config(name)


def test_an_installed_package_has_the_configs_inside(shipped):
    assert shipped_configs_dir() == shipped
    assert get_config("toy/semantic/r18").SOLVER.MAX_ITER == 120


# Overlays


@pytest.mark.parametrize("end", ["", ".yaml"])
def test_a_name_with_a_suffix_has_the_overlay_of_its_data_set(end):
    assert ranking(get_config(f"ade20k/semantic/swin_l{end}")) == (False, 0, False)
    assert ranking(get_config(f"ade20k/semantic/swin_l_rankseg{end}")) == (True, 150, False)
    assert ranking(get_config(f"ade20k/semantic/swin_l_rankseg_gt{end}")) == (True, 150, True)
    assert get_config("ade20k/semantic/swin_l_rankseg").MODEL.SWIN.EMBED_DIM == 192


def test_the_overlay_of_the_folder_wins_over_that_of_the_data_set():
    folders = ("panoptic", "video_semantic", "video_instance")
    cfgs = [get_config(f"shapes/{folder}/r10t_rankseg") for folder in folders]
    assert [cfg.MODEL.RANKSEG.TOPK for cfg in cfgs] == [75, 75, 50]


def test_the_overlay_of_a_family_wins_over_those_of_all_models():
    assert ranking(get_config("ade20k/semantic/deeplab_r101c_rankseg")) == (True, 50, False)
    assert ranking(get_config("ade20k/semantic/deeplab_r101c_rankseg_gt")) == (True, 50, True)
    assert ranking(get_config("coco_lvis/semantic/deeplab_r101c_rankseg")) == (True, 100, False)
    assert "rankseg_deeplab" in shipped_names()
    assert "rankseg_deeplab_rankseg" not in shipped_names()


def test_an_overlay_is_found_by_path_too(monkeypatch):
    path = "ade20k/semantic/swin_l_rankseg.yaml"
    by_name = get_config(path)
    monkeypatch.chdir(shipped_configs_dir().parent)
    assert get_config(f"configs/{path}") == by_name
    monkeypatch.chdir(shipped_configs_dir() / "coco")
    assert get_config(f"../{path}") == by_name
    monkeypatch.chdir("/")
    assert get_config(shipped_configs_dir() / path) == by_name


def test_an_overlay_is_found_through_a_link_to_the_shipped_folder(tmp_path):
    (tmp_path / "link").symlink_to(shipped_configs_dir())
    assert ranking(get_config(tmp_path / "link/vspw/semantic/r50_rankseg.yaml"))[1] == 124


@pytest.mark.parametrize("base", ["{0}", "{0}.yaml", "{1}/{0}.yaml"])
@pytest.mark.parametrize("name", ["vspw/semantic/r50_rankseg", "coco/panoptic/r50_rankseg_gt"])
def test_an_overlay_may_be_a_base(name, base, write):
    base = base.format(name, shipped_configs_dir())
    cfg = get_config(write(f"_BASE_: {base}\nMODEL: {{RANKSEG: {{TOPK: 7}}}}\n"))
    assert cfg == get_config(name, ["MODEL.RANKSEG.TOPK", 7])


def test_an_overlay_may_be_the_base_of_a_file_beside_it(shipped):
    (shipped / "vspw/semantic/mine.yaml").write_text("_BASE_: r50_rankseg_gt.yaml\nSEED: 5\n")
    cfg = get_config("vspw/semantic/mine")
    assert (*ranking(cfg), cfg.SEED) == (True, 124, True, 5)


def test_a_missing_base_with_a_suffix_names_the_file_that_wants_it(write):
    with pytest.raises(FileNotFoundError, match=r"r51_rankseg \(_BASE_ of .*mine\.yaml\).*r50_"):
        get_config(write("_BASE_: vspw/semantic/r51_rankseg\n"))


def test_a_real_file_wins_over_the_overlay_also_below_the_oracle(shipped):
    text = "_BASE_: [r50.yaml, ../rankseg.yaml]\nMODEL: {RANKSEG: {TOPK: 9}}\n"
    (shipped / "vspw/semantic/r50_rankseg.yaml").write_text(text)
    assert ranking(get_config("vspw/semantic/r50_rankseg")) == (True, 9, False)
    assert ranking(get_config("vspw/semantic/r50_rankseg_gt")) == (True, 9, True)
    (shipped / "vspw/semantic/r50_rankseg_gt.yaml").write_text("SEED: 3\n")
    assert ranking(get_config("vspw/semantic/r50_rankseg_gt")) == (False, 0, False)
    assert ranking(get_config("vspw/semantic/r101_rankseg_gt")) == (True, 124, True)
    assert shipped_names().count("vspw/semantic/r50_rankseg") == 1


def test_a_new_backbone_is_one_file_and_so_is_the_overlay_of_a_new_data_set(shipped):
    before = set(shipped_names())
    (shipped / "vspw/semantic/r18.yaml").write_text("_BASE_: r50.yaml\n")
    (shipped / "toy/rankseg.yaml").write_text("_BASE_: ../parts/rankseg.yaml\n")
    assert set(shipped_names()) - before == {
        *(f"vspw/semantic/r18{suffix}" for suffix in ("", "_rankseg", "_rankseg_gt")),
        *(f"toy/semantic/r18{suffix}" for suffix in ("_rankseg", "_rankseg_gt")),
        "toy/rankseg",
    }
    assert ranking(get_config("vspw/semantic/r18_rankseg_gt")) == (True, 124, True)
    assert ranking(get_config("toy/semantic/r18_rankseg")) == (True, 0, False)


@pytest.mark.parametrize(
    "name",
    [
        "toy/semantic/r18_rankseg",
        "toy/semantic/r18_rankseg_gt",
        "ade20k/semantic/base_rankseg",
        "ade20k/semantic/maskformer_base_rankseg_gt",
        "ade20k/semantic/r50_gt",
        "ade20k/semantic/r50_rankseg_rankseg",
        "ade20k/semantic/r50_rankseg_gt_rankseg",
        "ade20k/semantic/_rankseg",
        "ade20k/rankseg_gt",
        "ade20k/rankseg_rankseg",
        "parts/backbones/r50_rankseg",
    ],
)
def test_what_has_no_overlay_or_is_no_model_has_no_suffix(name):
    assert name not in shipped_names()
    with pytest.raises(FileNotFoundError, match=rf"{name}\.yaml is neither a file nor a shipped"):
        get_config(f"{name}.yaml")


def test_files_elsewhere_have_no_overlays(write):
    path = write("_BASE_: vspw/semantic/r50\n", "vspw/semantic/mine.yaml")
    write("MODEL: {RANKSEG: {FLAG: True}}\n", "vspw/semantic/rankseg.yaml")
    with pytest.raises(FileNotFoundError, match="mine_rankseg"):
        get_config(path.replace("mine", "mine_rankseg"))


def test_a_suffix_is_added_to_the_output_folder_that_a_config_names(shipped):
    (shipped / "shapes/panoptic/r18.yaml").write_text("_BASE_: r10t.yaml\n")  # inherits it
    for name in ("r10t", "r18"):
        for suffix in ("", "_rankseg", "_rankseg_gt"):
            cfg = get_config(f"shapes/panoptic/{name}{suffix}")
            assert f"output/shapes/r10t{suffix}" == cfg.OUTPUT_DIR
    assert get_config("vspw/semantic/r50_rankseg").OUTPUT_DIR == "./output"


def test_an_error_in_a_config_below_an_overlay_names_its_file(shipped):
    (shipped / "vspw/semantic/wrong.yaml").write_text("SEEED: 1\n")
    with pytest.raises(KeyError, match=r"semantic/wrong\.yaml: unknown key SEEED"):
        get_config("vspw/semantic/wrong_rankseg_gt")


def test_the_sources_are_the_files_in_their_order_and_then_the_opts():
    names = [name for name, _ in read_sources("ytvis_2021/instance/r50_rankseg_gt", ["SEED=1"])]
    assert [Path(name).name for name in names][-8:] == [
        "rankseg.yaml",  # of parts, of 2019, of 2021
        "rankseg.yaml",
        "rankseg.yaml",
        "r50_rankseg.yaml",
        "rankseg_gt.yaml",  # of all data sets, of 2021
        "rankseg_gt.yaml",
        "r50_rankseg_gt.yaml",
        "opts",
    ]
    assert Path(names[-9]).name == "r50.yaml"


# _BASE_


def test_later_bases_and_the_file_itself_win(write):
    write("SEED: 1\nVIS_PERIOD: 1\nSOLVER: {GAMMA: 0.5}\n", "bases/a.yaml")
    write("SEED: 2\nVIS_PERIOD: 2\n", "bases/b.yaml")
    cfg = get_config(write("_BASE_: [bases/a.yaml, bases/b.yaml]\nSEED: 3\n"))
    assert (cfg.SEED, cfg.VIS_PERIOD, cfg.SOLVER.GAMMA) == (3, 2, 0.5)


def test_a_base_may_be_a_shipped_config_or_below_the_home_folder(write, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write("VIS_PERIOD: 5\n", "home.yaml")
    cfg = get_config(write("_BASE_: [toy/semantic/base, ~/home.yaml]\n"))
    assert (cfg.SOLVER.MAX_ITER, cfg.VIS_PERIOD) == (120, 5)


def test_a_cycle_of_bases_is_refused(write):
    write("_BASE_: b.yaml\n", "a.yaml")
    with pytest.raises(ValueError, match=r"b\.yaml: _BASE_ leads back .*b\.yaml <- .*a\.yaml"):
        get_config(write("_BASE_: ./a.yaml\n", "b.yaml"))


def test_two_bases_with_one_base_are_no_cycle(write):
    write("SEED: 1\n", "root.yaml")
    write("_BASE_: root.yaml\n", "a.yaml")
    write("_BASE_: root.yaml\n", "b.yaml")
    assert get_config(write("_BASE_: [a.yaml, b.yaml]\n")).SEED == 1


def test_a_missing_base_names_the_file_that_wants_it(write):
    with pytest.raises(FileNotFoundError, match=r"nix\.yaml \(_BASE_ of .*mine\.yaml\)"):
        get_config(write("_BASE_: nix.yaml\n"))


def test_a_base_that_is_no_name_is_refused(write):
    with pytest.raises(ValueError, match=r"mine\.yaml: _BASE_ must be a file name.*got 3"):
        get_config(write("_BASE_: 3\n"))
