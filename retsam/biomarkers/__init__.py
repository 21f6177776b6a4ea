"""Biomarkers of the eye from its masks: one registry, one function (:func:`retsam.biomarkers.measure.measure`)."""
