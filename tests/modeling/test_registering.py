import logging
import subprocess
import sys

import pytest
from detectron2.modeling import BACKBONE_REGISTRY, META_ARCH_REGISTRY, SEM_SEG_HEADS_REGISTRY
from detectron2.utils.registry import Registry

from rankseg_d2.modeling.meta_arch.mask_classification import MaskFormer
from rankseg_d2.modeling.registering import register

PASSED_OVER = "MODELS: mask_former.model.Model is passed over for the class of that name"

OURS = [
    (META_ARCH_REGISTRY, "MaskFormer"),
    (META_ARCH_REGISTRY, "VideoMaskFormer"),
    (META_ARCH_REGISTRY, "RankSegMaskFormer"),
    (META_ARCH_REGISTRY, "RankSegVideoMaskFormer"),
    (SEM_SEG_HEADS_REGISTRY, "MaskFormerHead"),
    (SEM_SEG_HEADS_REGISTRY, "PerPixelBaselineHead"),
    (SEM_SEG_HEADS_REGISTRY, "PerPixelBaselinePlusHead"),
    (SEM_SEG_HEADS_REGISTRY, "BasePixelDecoder"),
    (SEM_SEG_HEADS_REGISTRY, "TransformerEncoderPixelDecoder"),
    (SEM_SEG_HEADS_REGISTRY, "MSDeformAttnPixelDecoder"),
    (BACKBONE_REGISTRY, "D2SwinTransformer"),
]


def make_class(name, module):
    return type(name, (), {"__module__": module})


@pytest.fixture
def models():
    return Registry("MODELS")


def test_our_class_answers_to_a_name_that_is_taken(models, caplog):
    models.register(make_class("Model", "mask_former.model"))
    ours = register(models)(make_class("Model", "rankseg_d2.model"))
    assert models.get("Model") is ours
    assert PASSED_OVER in caplog.text


def test_our_class_keeps_its_name_when_others_want_it(models, caplog):
    ours = register(models)(make_class("Model", "rankseg_d2.model"))
    assert caplog.text == ""
    theirs = models.register()(make_class("Model", "mask_former.model"))
    models.register(theirs)
    assert models.get("Model") is ours
    assert caplog.text.count(PASSED_OVER) == 2


def test_our_later_class_of_a_name_replaces_the_earlier_one(models):
    register(models)(make_class("Model", "rankseg_d2.model"))
    newer = register(models)(make_class("Model", "rankseg_d2.model"))
    assert models.get("Model") is newer
    models.register(make_class("Model", "mask_former.model"))
    assert models.get("Model") is newer


def test_names_that_are_not_ours_still_must_not_be_taken_twice(models):
    register(models)(make_class("Model", "rankseg_d2.model"))
    other = make_class("Other", "mask_former.model")
    models.register(other)
    with pytest.raises(AssertionError, match="Other"):
        models.register(make_class("Other", "mask2former.model"))
    assert models.get("Other") is other


@pytest.mark.parametrize(("registry", "name"), OURS, ids=[name for _, name in OURS])
def test_upstream_packages_that_are_imported_later_are_passed_over(registry, name, caplog):
    before = registry.get(name)
    assert before.__module__.startswith("rankseg_d2.modeling.")
    with caplog.at_level(logging.WARNING):
        registry.register(make_class(name, "mask2former.upstream"))
    assert registry.get(name) is before
    assert f"mask2former.upstream.{name} is passed over" in caplog.text


def test_upstream_packages_that_are_imported_first_are_passed_over():
    script = """
import logging
logging.basicConfig(format="%(message)s")
import rankseg_d2  # makes detectron2 importable; registers nothing yet
from detectron2.modeling import META_ARCH_REGISTRY, SEM_SEG_HEADS_REGISTRY

for registry, name in ((META_ARCH_REGISTRY, "MaskFormer"),
                       (SEM_SEG_HEADS_REGISTRY, "MaskFormerHead")):
    registry.register(type(name, (), {"__module__": "mask_former.upstream"}))

import rankseg_d2.modeling.meta_arch.mask_classification as ours
assert META_ARCH_REGISTRY.get("MaskFormer") is ours.MaskFormer
assert SEM_SEG_HEADS_REGISTRY.get("MaskFormerHead").__module__ == "rankseg_d2.modeling.head"
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name in ("META_ARCH: mask_former.upstream.MaskFormer", "upstream.MaskFormerHead"):
        assert f"{name} is passed over for the class of that name in rankseg_d2" in done.stderr


def test_decorated_class_is_the_class_itself():
    assert MaskFormer.__name__ == "MaskFormer"
    assert META_ARCH_REGISTRY.get("MaskFormer") is MaskFormer
