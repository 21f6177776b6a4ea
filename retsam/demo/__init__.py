"""A cohort rendered with known truth: photographs, masks, biomarkers and the effects of disease on them."""

from retsam.demo.parameters import CAMERAS, LESIONS, Camera, EyeParameters
from retsam.demo.render import RenderedEye, render_eye

__all__ = ["CAMERAS", "LESIONS", "Camera", "EyeParameters", "RenderedEye", "render_eye"]
