"""Drawn shapes whose biomarkers are known: what the code of this room is checked against."""
