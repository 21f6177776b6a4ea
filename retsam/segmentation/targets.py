"""The taxonomy: which targets exist, which decoder answers for them, and where the mask store keeps them.

Source: Wang et al. 2026, "A General Model for Retinal Segmentation and Quantification" (arXiv 2602.07012): 5 anatomical structures,
4 phenotypes and 22 lesion types; targets of one task share a decoder, tasks do not.
"""

from __future__ import annotations

TASKS: dict[str, tuple[str, ...]] = {
    "vessels": ("artery", "vein", "vessel"),
    "optic_nerve": ("disc", "cup"),
    "macula": ("fovea",),
    "tessellation": ("tessellation",),
    "myopia": ("peripapillary_atrophy", "diffuse_atrophy", "patchy_atrophy"),
    "lesions_dr": (
        "microaneurysm",
        "hemorrhage",
        "hard_exudate",
        "cotton_wool_spot",
        "laser_spot",
        "fibrous_proliferation",
        "venous_beading",
    ),
    "lesions_amd": ("drusen", "patchy_hemorrhage", "pigmentary_change", "geographic_atrophy"),
    "lesions_other": (
        "epiretinal_membrane",
        "macular_hole",
        "retinal_scar",
        "myelinated_nerve_fiber",
        "edema",
        "arteriovenous_nicking",
        "vascular_sheathing",
        "vitreous_degeneration",
        "choroidal_atrophy",
        "artifact",
        "other_lesion",
    ),
}
"""Task (one decoder) -> its targets. ``vessel`` is either of artery and vein, trained directly too."""

TARGETS: tuple[str, ...] = tuple(target for targets in TASKS.values() for target in targets)
"""Every canonical target name."""

TASK_OF: dict[str, str] = {target: task for task, targets in TASKS.items() for target in targets}

CATEGORY: dict[str, str] = {
    target: "anatomy" if task in ("vessels", "optic_nerve", "macula") else "phenotype" if task in ("tessellation", "myopia") else "lesion"
    for target, task in TASK_OF.items()
}
"""Target -> ``anatomy``, ``phenotype`` or ``lesion``."""

PEAK = "_peak"
"""Ending of the key, among thresholds, of what the probability of a lesion must reach somewhere for it to count."""
PEAKED: tuple[str, ...] = ("microaneurysm", "hemorrhage", "hard_exudate", "cotton_wool_spot")
"""Targets that may have such a threshold: lesions that were drawn one by one."""

STORE_GROUPS: dict[str, tuple[str, ...]] = {
    "anatomy": ("artery", "vein", "vessel", "disc", "cup", "fov"),
    "phenotypes": ("tessellation", "peripapillary_atrophy", "diffuse_atrophy", "patchy_atrophy"),
    "lesions_dr": TASKS["lesions_dr"],
    "lesions_amd": TASKS["lesions_amd"],
    "lesions_other": TASKS["lesions_other"],
}
"""Array of the mask store -> the targets of its bits, lowest first. The fovea is a point and has no plane."""

STATUSES: tuple[str, ...] = ("supervised", "weak", "not_available")
"""How a shipped head was trained: on pixel masks, on image-level or synthetic labels, or not at all."""
