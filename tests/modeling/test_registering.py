import pytest
from detectron2.modeling import BACKBONE_REGISTRY, META_ARCH_REGISTRY, SEM_SEG_HEADS_REGISTRY
from detectron2.utils.registry import Registry

import rankseg_d2.modeling  # noqa: F401  (registers the models)
from rankseg_d2.modeling.registering import register

OURS = [
    (META_ARCH_REGISTRY, "MaskFormer"),
    (META_ARCH_REGISTRY, "VideoMaskFormer"),
    (META_ARCH_REGISTRY, "RankSegMaskFormer"),
    (META_ARCH_REGISTRY, "RankSegVideoMaskFormer"),
    (META_ARCH_REGISTRY, "PixelClassifier"),
    (META_ARCH_REGISTRY, "RankSegPixelClassifier"),
    (SEM_SEG_HEADS_REGISTRY, "MaskFormerHead"),
    (SEM_SEG_HEADS_REGISTRY, "PerPixelBaselineHead"),
    (SEM_SEG_HEADS_REGISTRY, "PerPixelBaselinePlusHead"),
    (SEM_SEG_HEADS_REGISTRY, "BasePixelDecoder"),
    (SEM_SEG_HEADS_REGISTRY, "TransformerEncoderPixelDecoder"),
    (SEM_SEG_HEADS_REGISTRY, "MSDeformAttnPixelDecoder"),
    (BACKBONE_REGISTRY, "D2SwinTransformer"),
    (BACKBONE_REGISTRY, "TimmBackbone"),
]


@pytest.mark.parametrize(("registry", "name"), OURS, ids=[name for _, name in OURS])
def test_ours_answer_to_upstreams_names(registry, name):
    assert registry.get(name).__module__.startswith("rankseg_d2.modeling.")
    assert registry.get(name).__name__ == name


def test_a_decorated_class_stays_itself():
    registry = Registry("MODELS")

    @register(registry)
    class Model:
        pass

    assert registry.get("Model") is Model


def test_a_name_that_another_package_has_taken_is_an_error_with_both_names():
    registry = Registry("MODELS")
    registry.register(type("Model", (), {"__module__": "mask_former.model"}))
    with pytest.raises(ImportError, match="mask_former.model has registered Model in .* MODELS"):
        register(registry)(type("Model", (), {"__module__": "rankseg_d2.model"}))
