"""Segmentation: targets, network, weights, prediction."""

from retsam.segmentation.predict import Prediction, Segmenter, segment

__all__ = ["Prediction", "Segmenter", "segment"]
