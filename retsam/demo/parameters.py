"""What a rendered eye is made of: anatomy, disease and camera, each a frozen record.

Lengths inside the eye are millimetres on the retina (`_mm`) or micrometres (`_um`), so that calibre and lesion size do not
depend on the size of the picture.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields

__all__ = ["CAMERAS", "Camera", "EyeParameters", "LESIONS", "MM_PER_DEGREE"]

#: Retinal millimetres seen per degree of field (emmetropic eye, 0.29 mm a degree; Bennett et al. 1994).
MM_PER_DEGREE = 0.29

#: Lesions that the renderer can draw, by their canonical target names.
LESIONS = ("microaneurysm", "hemorrhage", "hard_exudate", "cotton_wool_spot", "drusen")


@dataclass(frozen=True)
class Camera:
    """A fundus camera: framing, colour and what it does to the light.

    Attributes
    ----------
    name : str
    field_degrees : float
        Angle of view; 45 degrees show about 13 mm of retina.
    fov : {'circle', 'cut_off'}
        Whole circle, or circle cut off above and below.
    aspect : float
        Height of the picture over its width.
    fov_radius : float
        Radius of the circle over the width of the picture.
    tint : tuple of float
        Colour of the healthy fundus, RGB in 0..1, at full illumination.
    black_level : float
        Value outside the circle, 0..1.
    blur_um : float
        Gaussian sigma of the optics on the retina.
    noise : float
        Standard deviation of the sensor's noise at mid grey, 0..1.
    vignette : float
        Loss of light at the edge of the field, 0..1.
    edge_glow : float
        Strength of the crescent of stray light at the edge, 0..1.
    sharpen : float
        Unsharp masking done by the camera's software.
    jpeg_quality : int
    notch : bool
        A small tab at the upper right, as many cameras mark their pictures.
    """

    name: str = "clinic"
    field_degrees: float = 45.0
    fov: str = "circle"
    aspect: float = 1.0
    fov_radius: float = 0.485
    tint: tuple[float, float, float] = (0.60, 0.29, 0.15)
    black_level: float = 0.01
    blur_um: float = 11.0
    noise: float = 0.012
    vignette: float = 0.35
    edge_glow: float = 0.15
    sharpen: float = 0.3
    jpeg_quality: int = 92
    notch: bool = False

    def __post_init__(self) -> None:
        if self.fov not in ("circle", "cut_off"):
            raise ValueError(f"Camera.fov: expected 'circle' or 'cut_off', found {self.fov!r}")
        if not 20 <= self.field_degrees <= 60:
            raise ValueError(f"Camera.field_degrees: expected 20 to 60, found {self.field_degrees}")


CAMERAS: dict[str, Camera] = {
    camera.name: camera
    for camera in (
        Camera("clinic", tint=(0.58, 0.29, 0.14), noise=0.010, notch=True),
        Camera(
            "screening",
            field_degrees=45,
            fov="cut_off",
            aspect=0.72,
            fov_radius=0.475,
            tint=(0.50, 0.26, 0.12),
            blur_um=13.0,
            noise=0.015,
            vignette=0.42,
            edge_glow=0.05,
            notch=True,
        ),
        Camera(
            "hospital",
            field_degrees=50,
            fov="cut_off",
            aspect=0.80,
            fov_radius=0.48,
            tint=(0.55, 0.24, 0.12),
            blur_um=10.0,
            noise=0.010,
            vignette=0.25,
            edge_glow=0.3,
        ),
        Camera(
            "handheld",
            field_degrees=45,
            tint=(0.50, 0.30, 0.19),
            black_level=0.03,
            blur_um=18.0,
            noise=0.022,
            vignette=0.5,
            edge_glow=0.35,
            sharpen=0.6,
            jpeg_quality=85,
        ),
    )
}


@dataclass(frozen=True)
class EyeParameters:
    """One eye and the way it is photographed.

    Attributes
    ----------
    eye : {'R', 'L'}
    size : int
        Width of the picture in pixels, 512 to 2000.
    camera : Camera
    centre : float
        Where the camera looks, along the line from the disc (0) to the fovea (1).
    centre_offset_mm : tuple of float
        Further offset of the camera, temporal and inferior positive.
    rotation : float
        Roll of the eye about its optical axis in degrees, excyclotorsion positive.
    disc_height_mm, disc_width_mm : float
        Axes of the disc's ellipse (before tilt).
    disc_tilt : float
        Degrees between the disc's long axis and the eye's vertical.
    cdr_vertical, cdr_horizontal : float
        Cup-to-disc ratio of diameters; 0 draws no cup.
    cup_shift : tuple of float
        Centre of the cup off the centre of the disc, as a share of the room that the rim leaves (temporal, inferior).
    fovea_distance_mm, fovea_angle : float
        From the centre of the disc; degrees below the horizontal.
    artery_width_um, vein_width_um : float
        Width of the widest arteriole and venule where it crosses the margin of the disc.
    murray_exponent : float
        x of ``d0**x = d1**x + d2**x`` at each bifurcation.
    branching : float
        Relative number of bifurcations per length.
    tortuosity : float
        Relative size of the wandering of vessels; 1 is ordinary.
    arcade_height_mm : float
        Greatest height of the temporal arcades over the line from disc to fovea.
    tessellation : float
        Visibility of choroidal vessels, 0..1.
    ppa_mm : float
        Width of the temporal crescent of peripapillary atrophy.
    pigmentation : float
        Darkness of the fundus, 0 (blond) to 1.
    media_opacity : float
        Haze of a cataract, 0..1.
    lesions : dict of str to int
        Number of each lesion of `LESIONS` to place inside the field of view.
    brightness : float
        Gain of the exposure; 1 is well exposed.
    defocus_um : float
        Further blur on the retina.
    """

    eye: str = "R"
    size: int = 768
    camera: Camera = field(default_factory=lambda: CAMERAS["clinic"])
    centre: float = 0.75
    centre_offset_mm: tuple[float, float] = (0.0, 0.0)
    rotation: float = 0.0
    disc_height_mm: float = 1.85
    disc_width_mm: float = 1.70
    disc_tilt: float = 0.0
    cdr_vertical: float = 0.42
    cdr_horizontal: float = 0.44
    cup_shift: tuple[float, float] = (0.25, 0.0)
    fovea_distance_mm: float = 4.55
    fovea_angle: float = 6.5
    artery_width_um: float = 114.0
    vein_width_um: float = 139.0
    murray_exponent: float = 2.7
    branching: float = 1.0
    tortuosity: float = 1.0
    arcade_height_mm: float = 3.7
    tessellation: float = 0.15
    ppa_mm: float = 0.0
    pigmentation: float = 0.4
    media_opacity: float = 0.0
    lesions: dict[str, int] = field(default_factory=dict)
    brightness: float = 1.0
    defocus_um: float = 0.0

    def __post_init__(self) -> None:
        limits = {
            "size": (256, 4096),
            "centre": (-0.5, 1.5),
            "disc_height_mm": (1.0, 3.0),
            "disc_width_mm": (1.0, 3.0),
            "cdr_vertical": (0.0, 0.95),
            "cdr_horizontal": (0.0, 0.95),
            "fovea_distance_mm": (3.5, 6.0),
            "artery_width_um": (40.0, 250.0),
            "vein_width_um": (40.0, 300.0),
            "murray_exponent": (1.5, 4.0),
            "branching": (0.2, 3.0),
            "tortuosity": (0.0, 5.0),
            "arcade_height_mm": (2.0, 6.0),
            "tessellation": (0.0, 1.0),
            "ppa_mm": (0.0, 1.5),
            "pigmentation": (0.0, 1.0),
            "media_opacity": (0.0, 1.0),
            "brightness": (0.01, 3.0),
            "defocus_um": (0.0, 500.0),
        }
        faults = [
            f"{name}: expected {low} to {high}, found {getattr(self, name)}"
            for name, (low, high) in limits.items()
            if not low <= getattr(self, name) <= high
        ]
        if self.eye not in ("R", "L"):
            faults.append(f"eye: expected 'R' or 'L', found {self.eye!r}")
        faults += [f"lesions: unknown lesion {name!r}; known are {', '.join(LESIONS)}" for name in set(self.lesions) - set(LESIONS)]
        faults += [f"lesions: {name} must not be negative, found {count}" for name, count in self.lesions.items() if count < 0]
        if faults:
            raise ValueError("EyeParameters: " + "; ".join(faults))

    def flat(self) -> dict[str, object]:
        """Scalar fields as one row of a table (camera by its name, lesions as ``n_<lesion>``)."""
        row: dict[str, object] = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if item.name == "camera":
                row["camera"] = value.name
            elif item.name == "lesions":
                row.update({f"n_{name}": int(value.get(name, 0)) for name in LESIONS})
            elif isinstance(value, tuple):
                row.update({f"{item.name}_{axis}": part for axis, part in zip(("x", "y"), value, strict=True)})
            else:
                row[item.name] = value
        return row
