"""A trained model as one file for onnxruntime or torch.export, and NumPy code beside it.

network.py      what is exported: from prepared frames to logits, flat tensors with names
tracing.py      the network as a graph, for any batch and for sizes that vary
formats.py      the graph as a file, and running that file
parity.py       the file against the model
description.py  what the file says of itself: classes, preprocessing, options of the results
postprocess.py  written beside the file: pictures -> input, outputs -> results, with NumPy alone
exporting.py    all steps in turn
"""


def __getattr__(name):
    # On demand, so that `rankseg-d2 --help` needs no engine.
    if name == "export":
        from .exporting import export

        return export
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = ["export"]
