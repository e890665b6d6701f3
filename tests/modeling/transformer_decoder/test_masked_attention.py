import pytest
import torch

from rankseg_d2.modeling.transformer_decoder import MultiScaleMaskedTransformerDecoder


@pytest.mark.parametrize("frames", [1, 3])
@pytest.mark.parametrize("layers", [1, 2, 4])
@torch.no_grad()
def test_the_last_prediction_alone_is_the_last_of_all(layers, frames):
    """In double precision, for a mask's value near 0 may be rounded to the other side."""
    torch.manual_seed(0)
    decoder = MultiScaleMaskedTransformerDecoder(
        8, num_classes=5, hidden_dim=16, num_queries=7, nheads=2, dim_feedforward=32,
        dec_layers=layers, pre_norm=False, mask_dim=6, enforce_input_project=False,
    ).double().eval()  # fmt: skip
    features = torch.randn(2 * frames, 6, 24, 40).double()
    scales = [torch.randn(2 * frames, 8, *size).double() for size in [(3, 5), (6, 10), (13, 19)]]
    every = decoder(scales, features, frames)
    last = decoder(scales, features, frames, every_layer=False)
    assert len(every.masks) == len(every.queries) == layers + 1
    assert len(last.masks) == len(last.queries) == 1
    assert last.masks[0].allclose(every.masks[-1], rtol=0, atol=1e-9)
    assert last.queries[0].allclose(every.queries[-1], rtol=0, atol=1e-9)
    decoder.whole_masks = True
    assert decoder(scales, features, frames, every_layer=False).masks[0].equal(every.masks[-1])
    assert len(last.layers) == len(every.layers) == layers
