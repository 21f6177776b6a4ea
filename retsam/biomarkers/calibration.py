"""Micrometres per pixel of a photograph, from something in it whose size is known."""

from __future__ import annotations

#: Bennett's factor: millimetres of retina a degree are 0.01306 * (axial length in mm - 1.82).
BENNETT_MM_PER_DEGREE = 0.01306
BENNETT_OFFSET_MM = 1.82

#: Axial length of the average adult eye, mm.
MEAN_AXIAL_LENGTH_MM = 23.8


def um_per_px_from_disc(disc_diameter_px: float, disc_diameter_um: float = 1800.0) -> float:
    """Pixel size from the optic disc's diameter.

    Parameters
    ----------
    disc_diameter_px : float
        Mean of its axes in pixels (`px_per_dd` of the biomarker table).
    disc_diameter_um : float
        Its true diameter, as from OCT of the same eye; 1800 is a population's mean, and single eyes differ from it by 15 %.

    Returns
    -------
    float
        Micrometres per pixel.
    """
    if disc_diameter_px <= 0 or disc_diameter_um <= 0:
        raise ValueError(f"diameters must be above 0, found {disc_diameter_px} px and {disc_diameter_um} um")
    return disc_diameter_um / disc_diameter_px


def um_per_px_from_field(fov_diameter_px: float, field_degrees: float, axial_length_mm: float = MEAN_AXIAL_LENGTH_MM) -> float:
    """Pixel size from the camera's angle of view and the eye's axial length (Bennett 1994).

    The ETDRS standard is a camera of 30 degrees; most cohorts use 45. Valid where the retina is about flat: up to 60 degrees.

    Parameters
    ----------
    fov_diameter_px : float
        Diameter of the field of view in pixels (`fov_diameter_px` of the biomarker table).
    field_degrees : float
        The camera's angle.
    axial_length_mm : float
        Of this eye; 23.8 is the average adult's.

    Returns
    -------
    float
        Micrometres per pixel.
    """
    if fov_diameter_px <= 0:
        raise ValueError(f"fov_diameter_px must be above 0, found {fov_diameter_px}")
    if not 10 <= field_degrees <= 60:
        raise ValueError(f"field_degrees must lie between 10 and 60, found {field_degrees}; wider fields are not flat")
    if not 15 <= axial_length_mm <= 40:
        raise ValueError(f"axial_length_mm must lie between 15 and 40, found {axial_length_mm}")
    return 1000 * BENNETT_MM_PER_DEGREE * (axial_length_mm - BENNETT_OFFSET_MM) * field_degrees / fov_diameter_px
