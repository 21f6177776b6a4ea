"""Segmentation: targets, network, weights, prediction.

Public names are imported on first use, so that reading a configuration does not wait for torch.
"""

__all__ = ["Prediction", "Segmenter", "segment"]


def __getattr__(name):
    if name in __all__:
        from retsam.segmentation import predict

        return getattr(predict, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
