"""Runs PVBM on masks, in PVBM's own environment; started by `biomarkers.py`.

Usage: python pvbm_worker.py MASKS.npz OUT.json

The archive holds, for image i, `artery_i`, `vein_i` (uint8) and `disc_i` (x, y, radius). Everything that PVBM computes from an artery or
vein mask and the disc is computed once, as its documentation does. The recursion limit is raised: at its default PVBM stops on any
vessel of more than 1,000 px.
"""

import json
import resource
import sys
import threading
import time

import numpy as np
from PVBM.CentralRetinalAnalysis import CREVBMs
from PVBM.FractalAnalysis import MultifractalVBMs
from PVBM.GeometryAnalysis import GeometricalVBMs
from skimage.morphology import skeletonize

GEOMETRY = ("area", "tortuosity_index", "tortuosity_median", "length", "angle_median", "starts", "ends", "intersections")
FRACTALS = ("d0", "d1", "d2", "singularity_length")


def measure(artery, vein, disc):
    """All of PVBM's numbers for one eye; a call that raises leaves its error's name instead."""
    found = {}
    x, y, radius = (int(round(float(v))) for v in disc)
    for name, mask in (("artery", artery), ("vein", vein)):
        binary = mask.astype(np.float64)
        skeleton = skeletonize(mask > 0).astype(np.float64)
        try:
            numbers, _ = GeometricalVBMs().compute_geomVBMs(binary, skeleton, x, y, radius)
            found |= {f"{key}_{name}": float(value) for key, value in zip(GEOMETRY, numbers, strict=True)}
        except (RecursionError, ValueError, IndexError, ZeroDivisionError) as error:
            found[f"geometry_{name}_error"] = type(error).__name__
        try:
            numbers = MultifractalVBMs(n_rotations=25, optimize=True, min_proba=0.0001, maxproba=0.9999).compute_multifractals(binary)
            found |= {f"{key}_{name}": float(value) for key, value in zip(FRACTALS, numbers, strict=True)}
        except (ValueError, IndexError, ZeroDivisionError) as error:
            found[f"fractal_{name}_error"] = type(error).__name__
        try:
            numbers, _ = CREVBMs().compute_central_retinal_equivalents(binary, skeleton, x, y, radius, artery=name == "artery")
            if isinstance(numbers, dict):
                found |= {f"{key}_{name}": float(value) for key, value in numbers.items() if np.isscalar(value)}
        except (RecursionError, ValueError, IndexError, ZeroDivisionError) as error:
            found[f"equivalent_{name}_error"] = type(error).__name__
    return found


def main():
    archive = np.load(sys.argv[1])
    rows = []
    for i in range(sum(name.startswith("disc_") for name in archive.files)):
        start = time.process_time()
        values = measure(archive[f"artery_{i}"], archive[f"vein_{i}"], archive[f"disc_{i}"])
        rows.append({"cpu_s": time.process_time() - start, "values": values})
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0
    with open(sys.argv[2], "w") as out:
        json.dump({"rows": rows, "peak_mb": peak}, out)


if __name__ == "__main__":
    sys.setrecursionlimit(200_000)
    threading.stack_size(1 << 29)
    thread = threading.Thread(target=main)
    thread.start()
    thread.join()
