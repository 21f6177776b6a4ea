"""From a photograph to probabilities and masks in the canonical frame."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from retsam.cohort.reading import read_photograph
from retsam.masks.frame import Frame
from retsam.masks.masks import Masks
from retsam.quality.field_of_view import FieldOfView, detect_field_of_view
from retsam.segmentation import postprocess
from retsam.segmentation.consistency import smooth_classes
from retsam.segmentation.landmarks import disc_circle, fovea_map, locate_fovea
from retsam.segmentation.looks import FRAME_SIDE, LARGE_SCALE, LARGEST_SIDE, Look, detail, looks
from retsam.segmentation.memory import keep_freed_memory
from retsam.segmentation.network import VIEWS, WEAK, RetinaNetwork, decoders_of
from retsam.segmentation.precision import fastest_dtype
from retsam.segmentation.targets import PEAK, TARGETS, TASKS
from retsam.segmentation.weak import enlarge, tidy
from retsam.segmentation.weights import DEFAULT_WEIGHTS, file_sha256, load_state, of_view, read_card

log = logging.getLogger(__name__)

WHOLE_SIDE = 512
"""Side of the whole-frame view in which disc and fovea are sought, px."""
ROI_SIDE, ROI_DISC = 384, 160
"""Side of the disc's refinement crop and diameter of the disc in it, px."""


@dataclass
class Prediction:
    """What the network says of one photograph.

    Parameters
    ----------
    probabilities : dict of str to ndarray of float32, [side, side]
        Target -> probability in the canonical frame, zero outside the field of view.
    fov : ndarray of bool, [side, side]
    frame : Frame
    fovea : tuple of float or None
        ``(x, y)`` in frame px; None where none was found.
    fovea_confidence : float
        Probability that the fovea lies within half a disc diameter of the point.
    thresholds, status : dict
        Of the model card.
    """

    probabilities: dict[str, np.ndarray]
    fov: np.ndarray
    frame: Frame
    fovea: tuple[float, float] | None
    fovea_confidence: float
    thresholds: dict[str, float]
    status: dict[str, str]
    calibration: dict[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def confidence(self) -> dict[str, float]:
        """Expected Dice of each head's mask, from its probabilities and the card's calibration.

        Weak heads have none: nobody drew the masks that could calibrate it.
        """
        return self._confidence(self._planes())

    def _planes(self) -> dict[str, np.ndarray]:
        planes = postprocess.to_planes(self.probabilities, self.fov, self.thresholds)
        tidy(planes, tuple(name for name in self.probabilities if self.status.get(name) == "weak"))
        return planes

    def _confidence(self, planes: dict[str, np.ndarray]) -> dict[str, float]:
        return {name: self._expected_dice(name, plane) for name, plane in planes.items() if self.status.get(name) != "weak"}

    def _expected_dice(self, name: str, plane: np.ndarray) -> float:
        raw = postprocess.expected_dice(self.probabilities[name], plane)
        gain, offset = self.calibration.get(name, (1.0, 0.0))
        return float(np.clip(gain * raw + offset, 0, 1))

    def masks(
        self,
        image_id: str = "",
        eye: str | None = None,
        um_per_px: float | None = None,
    ) -> Masks:
        """Threshold the probabilities.

        Parameters
        ----------
        image_id, eye, um_per_px
            Passed on to the masks.

        Returns
        -------
        Masks
        """
        planes = self._planes()
        return Masks(
            planes=planes,
            fov=self.fov,
            frame=self.frame,
            fovea=self.fovea,
            fovea_confidence=self.fovea_confidence,
            eye=eye,
            image_id=image_id,
            um_per_px=um_per_px,
            status=dict(self.status),
            confidence=self._confidence(planes),
        )


class Segmenter:
    """The shipped network, ready to predict.

    Parameters
    ----------
    weights : path, optional
        ``.safetensors`` file with its card beside it; the shipped one by default.
    device : {'auto', 'cpu', 'cuda'}
        On a CPU this process keeps the memory that it frees (see :func:`retsam.segmentation.memory.keep_freed_memory`).
    precision : {'auto', 'float32', 'bfloat16'}
    batch_size : int
    flips : bool or 'auto'
        Average with the mirrored photograph; ``auto`` leaves it to :func:`retsam.segmentation.looks.looks`, at which sizes too.
    tasks : sequence of str, optional
        Only these decoders, ``weak`` for the weak heads; all that the weights have by default. What is left out has no plane.
    pen : str, optional
        Draw vessels as the annotators of this data set did, with the thresholds that fit it; no data set's by default.
    unbiased : bool
        In no one's pen, vessels at the thresholds of unbiased length and area rather than of the best overlap (a pen's always are).
    thresholds : dict of str to float, optional
        Over those of the card.

    Attributes
    ----------
    pens : dict of str to list of str
        Task -> pens that the weights know.
    """

    def __init__(
        self,
        weights: str | Path | None = None,
        device: str = "auto",
        precision: str = "auto",
        batch_size: int = 1,
        flips: bool | Literal["auto"] = "auto",
        tasks: Sequence[str] | None = None,
        pen: str | None = None,
        unbiased: bool = False,
        thresholds: Mapping[str, float] | None = None,
    ) -> None:
        path = Path(weights) if weights else DEFAULT_WEIGHTS
        if not path.exists():
            raise FileNotFoundError(f"{path}: no such weights file; give one with --weights, or reinstall the package")
        state, self.metadata = load_state(path)
        self.card = read_card(path)
        self.weights_path, self.weights_sha256 = path, file_sha256(path)
        self.model_name = str(self.card.get("name", path.stem))
        self.target_status = {name: self.card["heads"].get(name, {}).get("status", "not_available") for name in TARGETS}
        self.calibration = {name: tuple(entry["calibration"]) for name, entry in self.card["heads"].items() if "calibration" in entry}
        self.decoders = decoders_of(state)
        self.tasks = [task for task in [*self.decoders, WEAK] if tasks is None or task in tasks]
        self.weak: dict[str, list[str]] = self.metadata.get("weak") or {}
        self.pens: dict[str, list[str]] = self.metadata.get("pens") or {}
        self.batch_size, self.flips = batch_size, flips
        self.unbiased, self._given_thresholds = unbiased, dict(thresholds or {})
        self.device = device_of(device)
        self.dtype = _dtype(precision, self.device)
        if self.device.type == "cpu":
            keep_freed_memory()
        self.networks = {view: self._network(path, state, view).for_inference(self.dtype) for view in VIEWS}
        self.use_pen(pen)

    def _network(self, path: Path, state: dict[str, torch.Tensor], view: str) -> RetinaNetwork:
        """The network of one view: its statistics, and its trunk where it has one of its own."""
        weak = self.weak if view == "whole" else None
        network = RetinaNetwork(self.decoders, weak, self.pens)
        missing = {name for name, _ in network.named_parameters()} - set(state)
        if missing:
            raise ValueError(f"{path}: expected the default network's weights, {len(missing)} tensors are missing: {sorted(missing)[:3]}")
        network.load_state_dict(of_view(state, view), strict=False)
        return network.to(self.device)

    def use_pen(self, pen: str | None) -> None:
        """Draw in another pen from here on (see the class); None for no data set's.

        Raises
        ------
        ValueError
            If the weights do not know the pen.
        """
        known = sorted({name for names in self.pens.values() for name in names})
        if pen is not None and pen not in known:
            raise ValueError(f"segmentation.pen is {pen!r}; {self.weights_path.name} knows {', '.join(known) or 'no pens'}")
        self.pen, self.thresholds = pen, {}
        for name, entry in self.card["heads"].items():
            if "threshold" in entry:
                self.thresholds[name] = float(entry["threshold"])
            if entry.get("peak") is not None:
                self.thresholds[name + PEAK] = float(entry["peak"])
        sure, twigs = self._vessel_thresholds()
        if sure is not None:
            self.thresholds["vessel"] = float(sure)
        if twigs is not None:
            self.thresholds[postprocess.TWIGS] = float(twigs)
        self.thresholds |= self._given_thresholds
        self._pens = {}
        for task, names in self.pens.items():
            if pen in names:
                self._pens[task] = torch.tensor([[float(name == pen) for name in names]], device=self.device)

    def _vessel_thresholds(self) -> tuple[float | None, float | None]:
        """Of sure vessels and of twigs, in the pen of now."""
        vessel = self.card["heads"].get("vessel", {})
        if self.pen in vessel.get("pens", {}):
            return vessel["pens"][self.pen], vessel.get("pen_twigs", {}).get(self.pen)
        if not self.unbiased:
            return vessel.get("threshold"), vessel.get("twigs")
        if "unbiased" not in vessel:
            raise ValueError(
                f"segmentation.unbiased: the card of {self.weights_path.name} has no thresholds of unbiased length and area; "
                "`retsam train thresholds` chooses them"
            )
        return vessel["unbiased"]["threshold"], vessel["unbiased"]["twigs"]

    @torch.inference_mode()
    def predict(self, images: Sequence[np.ndarray], fovs: Sequence[FieldOfView | None] | None = None) -> list[Prediction]:
        """Segment photographs.

        Parameters
        ----------
        images : sequence of ndarray of uint8, [H, W, 3]
        fovs : sequence of FieldOfView or None, optional
            Detected where missing.

        Returns
        -------
        list of Prediction
        """
        fovs = list(fovs) if fovs is not None else [None] * len(images)
        inputs = [prepare(image, fov) for image, fov in zip(images, fovs, strict=True)]
        return self.predict_prepared(inputs)

    @torch.inference_mode()
    def predict_prepared(self, inputs: Sequence[PreparedImage]) -> list[Prediction]:
        """As :meth:`predict`, for photographs that :func:`prepare` has put in their frames (so that other threads can do it)."""
        out = []
        for start in range(0, len(inputs), self.batch_size):
            out += self._predict_batch(inputs[start : start + self.batch_size])
        return out

    def _predict_batch(self, inputs: Sequence[PreparedImage]) -> list[Prediction]:
        rgb = np.stack([item.rgb for item in inputs])
        fov = np.stack([item.fov for item in inputs])
        whole_rgb = np.stack([cv2.resize(x, (WHOLE_SIDE, WHOLE_SIDE), interpolation=cv2.INTER_AREA) for x in rgb])
        whole_fov = fov[:, ::2, ::2]
        # The disc says how to look at vessels and lesions, so it is sought whether or not it is asked for.
        tasks = [task for task in ("optic_nerve", "macula") if task in self.decoders] + [WEAK] * (WEAK in self.tasks and bool(self.weak))
        whole = self.logits("whole", whole_rgb, whole_fov, tasks, 4)
        detailed = np.array([detail(item.frame.scale) != "small" for item in inputs])
        heats: list[np.ndarray | None] = [None] * len(inputs)
        discs: list[tuple[float, float, float] | None] = [None] * len(inputs)
        if "macula" in whole:
            whole["macula"] = self._mirrored_too("whole", whole_rgb, whole_fov, "macula", 4, whole["macula"], detailed)
            heats = [fovea_map(heat) for heat in whole["macula"][:, 0]]
        if "optic_nerve" in whole:
            # Outside the field of view the loss never looked, and neither may the answer.
            coarse = torch.sigmoid(whole["optic_nerve"]).cpu().numpy() * whole_fov[:, None]
            discs = [disc_circle(plane[0], fovea=heat) for plane, heat in zip(coarse, heats, strict=True)]
        fine = self._fine(inputs, rgb, fov, discs)
        probabilities: list[dict[str, np.ndarray]] = [{} for _ in inputs]
        for task, logits in fine.items():
            values = torch.sigmoid(logits).cpu().numpy()
            for index in range(len(inputs)):
                for channel, target in enumerate(TASKS[task][: values.shape[1]]):
                    probabilities[index][target] = values[index, channel] * fov[index]
        if "vessels" in fine:
            for planes, inside in zip(probabilities, fov, strict=True):
                of = self.thresholds
                vessel = postprocess.vessel_mask(planes["vessel"], inside, of.get("vessel", 0.5), of.get(postprocess.TWIGS))
                planes["artery"], planes["vein"] = smooth_classes(planes["artery"], planes["vein"], vessel)
        if "optic_nerve" in self.tasks:
            for index, planes in enumerate(self._refine_disc(rgb, fov, coarse, discs, detailed)):
                probabilities[index].update(planes)
        if WEAK in whole:
            values = torch.sigmoid(whole[WEAK]).cpu().numpy()
            for channel, target in enumerate(self.networks["whole"].weak.targets):
                if self.target_status[target] == "not_available":  # not worth enlarging
                    continue
                for index in range(len(inputs)):
                    probabilities[index][target] = enlarge(values[index, channel], rgb.shape[1]) * fov[index]
        # A decoder answers for all its targets, also for those that nothing taught or judged.
        probabilities = [{t: plane for t, plane in planes.items() if self.target_status[t] != "not_available"} for planes in probabilities]
        predictions = []
        for index, item in enumerate(inputs):
            fovea, confidence = locate_fovea(whole["macula"][index, 0], disc=discs[index]) if "macula" in self.tasks else (None, 0.0)
            predictions.append(
                Prediction(
                    probabilities[index], item.fov, item.frame, fovea, confidence, self.thresholds, self.target_status, self.calibration
                )
            )
        return predictions

    def _fine(
        self, inputs: Sequence[PreparedImage], rgb: np.ndarray, fov: np.ndarray, discs: Sequence[tuple[float, float, float] | None]
    ) -> dict[str, torch.Tensor]:
        """Logits of vessels and lesions in the canonical frame.

        How a photograph is looked at is its own affair: what a mask shows must not depend on which others share its batch.
        """
        plans = [self._looks(item, disc) for item, disc in zip(inputs, discs, strict=True)]
        merged: dict[str, torch.Tensor] = {}
        for plan in dict.fromkeys(plans):
            at = [index for index, other in enumerate(plans) if other == plan]
            for task, logits in self._looked_at([inputs[i] for i in at], rgb[at], fov[at], plan).items():
                merged.setdefault(task, logits.new_empty((len(inputs), *logits.shape[1:])))[torch.tensor(at, device=logits.device)] = logits
        return merged

    def _looks(self, item: PreparedImage, disc: tuple[float, float, float] | None) -> tuple[Look, ...]:
        plan = looks(item.frame.scale, None if disc is None else disc[2] * FRAME_SIDE / WHOLE_SIDE)
        if self.flips == "auto":
            return plan
        # One look a task; with its mirrored copy, which `_run` adds, where that is asked for.
        seen: set[str] = set()
        single = []
        for look in plan:
            tasks = tuple(task for task in look.tasks if task not in seen)
            seen |= set(tasks)
            single += [replace(look, mirrored=False, tasks=tasks)] if tasks else []
        return tuple(single)

    def _looked_at(
        self, inputs: Sequence[PreparedImage], rgb: np.ndarray, fov: np.ndarray, plan: Sequence[Look]
    ) -> dict[str, torch.Tensor]:
        """Mean logits over the looks at photographs that are looked at in one way."""
        found: dict[str, list[torch.Tensor]] = {}
        for look in plan:
            tasks = [task for task in look.tasks if task in self.tasks]
            if not tasks:
                continue
            source = np.stack([item.large for item in inputs]) if look.side > FRAME_SIDE and inputs[0].large is not None else rgb
            copies, inside = (resized(images, look.side) for images in (source, fov))
            if look.mirrored:
                copies, inside = copies[:, :, ::-1], inside[:, :, ::-1]
            for task, logits in self.logits("fine", copies, inside, tasks, look.pool).items():
                logits = logits.flip(-1) if look.mirrored else logits
                if look.side != FRAME_SIDE:
                    larger = look.side > FRAME_SIDE
                    logits = F.interpolate(logits, size=rgb.shape[1:3], mode="bilinear", align_corners=False, antialias=larger)
                found.setdefault(task, []).append(logits)
        return {task: sum(several) / len(several) for task, several in found.items()}

    def logits(
        self, view: str, rgb: np.ndarray, fov: np.ndarray, tasks: list[str], pool: int, mirror: bool | None = None
    ) -> dict[str, torch.Tensor]:
        """Logits of a batch in one view, as it is given: a study's photographs go through :meth:`predict`.

        Parameters
        ----------
        view : str
            Of :data:`retsam.segmentation.network.VIEWS`.
        rgb : ndarray of uint8, [B, H, W, 3]
        fov : ndarray of bool, [B, H, W]
        tasks : list of str
        pool : int
            Reduction at which local contrast is averaged (:meth:`retsam.segmentation.network.RetinaNetwork.forward`).
        mirror : bool, optional
            The mean over the batch and its mirror image; by default with ``flips`` set.

        Returns
        -------
        dict of str to Tensor of float32, [B, targets, H, W]
        """
        if mirror is None:
            mirror = self.flips is True
        if not tasks:
            return {}
        x = torch.from_numpy(np.ascontiguousarray(rgb)).to(self.device).permute(0, 3, 1, 2).float() / 255
        mask = torch.from_numpy(np.ascontiguousarray(fov)).to(self.device).float().unsqueeze(1)
        x = x.contiguous(memory_format=torch.channels_last)
        pens = self._pens if view == "fine" else None
        out = {task: value.float() for task, value in self.networks[view](x, mask, tasks, pool, pens).items()}
        if mirror:
            mirrored = self.networks[view](x.flip(-1).contiguous(memory_format=torch.channels_last), mask.flip(-1), tasks, pool, pens)
            out = {task: (value + mirrored[task].float().flip(-1)) / 2 for task, value in out.items()}
        return out

    def _mirrored_too(
        self, view: str, rgb: np.ndarray, fov: np.ndarray, task: str, pool: int, logits: torch.Tensor, detailed: np.ndarray
    ) -> torch.Tensor:
        """Logits averaged with the mirrored copy's for the photographs that are ``detailed``, where ``flips`` leaves the choice to us."""
        at = np.flatnonzero(detailed)
        if self.flips == "auto" and len(at):
            other = self.logits(view, rgb[at][:, :, ::-1], fov[at][:, :, ::-1], [task], pool)[task].flip(-1)
            logits[at] = (logits[at] + other) / 2
        return logits

    def _refine_disc(
        self,
        rgb: np.ndarray,
        fov: np.ndarray,
        coarse: np.ndarray,
        discs: list[tuple[float, float, float] | None],
        detailed: np.ndarray,
    ) -> list[dict[str, np.ndarray]]:
        """Second look at the disc, at a scale at which every disc is 160 px across; the coarse answer where no disc is in sight."""
        side = rgb.shape[1]
        found = [index for index, circle in enumerate(discs) if circle is not None]
        crops, masks, matrices = [], [], []
        for index in found:
            x, y, diameter = ((v + 0.5) * side / WHOLE_SIDE - 0.5 if i < 2 else v * side / WHOLE_SIDE for i, v in enumerate(discs[index]))
            scale = ROI_DISC / diameter
            matrix = np.array([[scale, 0, (ROI_SIDE - 1) / 2 - scale * x], [0, scale, (ROI_SIDE - 1) / 2 - scale * y]])
            crops.append(cv2.warpAffine(rgb[index], matrix, (ROI_SIDE, ROI_SIDE), flags=cv2.INTER_LINEAR))
            masks.append(cv2.warpAffine(fov[index].astype(np.uint8), matrix, (ROI_SIDE, ROI_SIDE), flags=cv2.INTER_NEAREST) > 0)
            matrices.append(matrix)
        planes = [
            {name: cv2.resize(coarse[i, c], (side, side), interpolation=cv2.INTER_LINEAR) for c, name in enumerate(TASKS["optic_nerve"])}
            for i in range(len(rgb))
        ]
        if found:
            views = "roi", np.stack(crops), np.stack(masks)
            logits = self.logits(*views, ["optic_nerve"], 8)["optic_nerve"]
            logits = self._mirrored_too(*views, "optic_nerve", 8, logits, detailed[found])
            for index, matrix, crop in zip(found, matrices, logits.cpu().numpy(), strict=True):
                for channel, name in enumerate(TASKS["optic_nerve"]):
                    fine = cv2.warpAffine(
                        crop[channel],
                        matrix,
                        (side, side),
                        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
                        borderMode=cv2.BORDER_CONSTANT,
                        borderValue=-20.0,
                    )
                    planes[index][name] = fov[index] / (1 + np.exp(-fine))
        return planes


@dataclass
class PreparedImage:
    """A photograph in its canonical frame: ``rgb`` uint8 and ``fov`` bool, both of side :data:`retsam.segmentation.looks.FRAME_SIDE`; of a
    large one also ``large``, uint8 of side :data:`retsam.segmentation.looks.LARGEST_SIDE`."""

    rgb: np.ndarray
    fov: np.ndarray
    frame: Frame
    large: np.ndarray | None = None


def resized(images: np.ndarray, side: int) -> np.ndarray:
    """Photographs ``[B, H, W, 3]``, or masks ``[B, H, W]`` by nearest neighbours, at another side."""
    if images.shape[1] == side:
        return images
    if images.dtype == bool:
        return np.stack([cv2.resize(x.astype(np.uint8), (side, side), interpolation=cv2.INTER_NEAREST) > 0 for x in images])
    mode = cv2.INTER_AREA if side < images.shape[1] else cv2.INTER_CUBIC
    return np.stack([cv2.resize(x, (side, side), interpolation=mode) for x in images])


def prepare(image: np.ndarray, fov: FieldOfView | None = None) -> PreparedImage:
    """Find the field of view where it is not given, and resample the photograph into its frame."""
    fov = fov or detect_field_of_view(image)
    frame = Frame.from_field_of_view(fov, FRAME_SIDE)
    large = Frame.from_field_of_view(fov, LARGEST_SIDE).warp(image) if frame.scale >= LARGE_SCALE else None
    return PreparedImage(frame.warp(image), frame.warp(fov.mask(), nearest=True), frame, large)


def device_of(name: str) -> torch.device:
    """The device that ``auto``, ``cpu`` or ``cuda`` means on this machine.

    Raises
    ------
    ValueError
        If a GPU is asked for and there is none.
    """
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"segmentation.device is `{name}`, but torch sees no GPU; use `auto` or `cpu`")
    return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)


def _dtype(precision: str, device: torch.device) -> torch.dtype:
    if precision != "auto":
        return getattr(torch, precision)
    dtype = fastest_dtype(device)
    if dtype == torch.float32:
        log.warning("%s has no bfloat16 arithmetic: segmenting in float32, several times as slow", device.type.upper())
    return dtype


def segment(
    image: np.ndarray | str | Path, eye: str | None = None, um_per_px: float | None = None, segmenter: Segmenter | None = None
) -> Masks:
    """Segment one colour fundus photograph with the shipped model.

    Parameters
    ----------
    image : ndarray of uint8, [H, W, 3], or path
        RGB, or a file to read (its pixel spacing is used where ``um_per_px`` is not given).
    eye : {'R', 'L'}, optional
    um_per_px : float, optional
        Micrometres per pixel of the photograph, where known.
    segmenter : Segmenter, optional
        To use other weights, or to load them once for many photographs.

    Returns
    -------
    Masks
        In the canonical frame; ``masks.frame`` maps to the photograph.

    Raises
    ------
    ValueError
        If the image is not ``uint8 [H, W, 3]``.
    UnreadablePhotograph
        If a path cannot be read as a photograph.
    """
    if isinstance(image, str | Path):
        photograph = read_photograph(image)
        image, um_per_px = photograph.rgb, um_per_px or photograph.um_per_px
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"expected an RGB photograph, uint8 [H, W, 3]; found {image.dtype} {image.shape}")
    segmenter = segmenter or default_segmenter()
    return segmenter.predict([image])[0].masks(eye=eye, um_per_px=um_per_px)


_default: Segmenter | None = None


def default_segmenter() -> Segmenter:
    """The shipped model, loaded once a process."""
    global _default
    if _default is None:
        _default = Segmenter()
    return _default
