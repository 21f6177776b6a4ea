"""Batches of augmented crops for one task, cut in background threads."""

from __future__ import annotations

import queue
import threading
from dataclasses import dataclass

import cv2
import numpy as np

from retsam.training import augment, labels
from retsam.training.config import TaskConfig
from retsam.training.frames import Frames
from retsam.training.paste import paste

FULL_SIDE = 512
"""Side of the whole-frame view at which disc and fovea are sought, px."""
ROI_SIDE = 384
"""Side of the disc's refinement crop, px."""
ROI_DISC = 160
"""Diameter of the disc in the refinement crop, px."""
LARGE_CROP = 480
"""Side of a crop in the frame for large photographs, px: a multiple of 32 and of the local contrast's reduction there."""
HEAT_STRIDE = 4
HEAT_SIGMA = 2.5  # cells of the heatmap


@dataclass
class Batch:
    """One step's input.

    Parameters
    ----------
    task : str
    rgb : ndarray of uint8, [B, H, W, 3]
    label : ndarray of uint8, [B, H, W]
    target : ndarray of float32, [B, h, w] or None
        Heatmaps (``macula``).
    pool : int
        Reduction of the local contrast (see :meth:`RetinaNetwork.forward`).
    weight : float
        Of its loss.
    pens : ndarray of float32, [B, pens] or None
        Weight of each pen (see :class:`retsam.segmentation.network.Decoder`).
    skeleton : float
        Weight of missed centrelines.
    """

    task: str
    rgb: np.ndarray
    label: np.ndarray
    target: np.ndarray | None
    pool: int
    weight: float = 1.0
    pens: np.ndarray | None = None
    skeleton: float = 0.0

    @property
    def name(self) -> str:
        """Name in the log: pseudo-labelled batches apart."""
        return self.task if self.weight == 1 else f"{self.task}_pseudo"


class TaskSampler:
    """Draws crops of one task.

    Parameters
    ----------
    task : str
    frames : Frames
    settings : TaskConfig
    loss_weight : float
        Of its batches' loss; under 1 for pseudo-labels.
    alarms : dict of int to ndarray, optional
        Of :func:`retsam.training.mine.false_alarms`: where crops of healthy photographs are centred.
    """

    def __init__(
        self,
        task: str,
        frames: Frames,
        settings: TaskConfig,
        loss_weight: float = 1.0,
        alarms: dict[int, np.ndarray] | None = None,
    ) -> None:
        self.task, self.frames, self.settings, self.loss_weight = task, frames, settings, loss_weight
        weight = frames.table["weight"].to_numpy(float)
        self.p = weight / weight.sum()
        whole = weight * ~frames.table["dataset"].isin(["refuge_roi"]).to_numpy()
        self.p_whole = whole / whole.sum()
        self.pens = sorted(settings.datasets) if settings.pen else []
        self.spots: dict[int, dict[str, np.ndarray]] = {}
        self.alarms = alarms or {}
        if task == "lesions_dr":
            self._find_spots()

    def _find_spots(self) -> None:
        """A sample of each lesion's pixels in each frame, so that crops can be centred on them, each kind as often."""
        rng = np.random.default_rng(0)
        for index in np.flatnonzero(~self.frames.table["negative"].to_numpy(bool)):
            label = np.asarray(self.frames.label[index])
            found = {}
            for name, bit in labels.LESION_BITS.items():
                ys, xs = np.nonzero(label & bit)
                if name != "known" and len(xs):
                    pick = rng.integers(0, len(xs), 400)
                    found[name] = np.stack([xs[pick], ys[pick]], 1)
            self.spots[int(index)] = found

    def finish(self) -> None:
        """From here on the crops of the run's last part, where the task has such."""
        if self.settings.finish is not None:
            self.settings = self.settings.model_copy(update=self.settings.finish.model_dump())

    def batch(self, rng: np.random.Generator, roi: bool | None = None) -> Batch:
        """One augmented batch; ``roi`` decides the disc's view, which is drawn where it is None."""
        settings, frame_side = self.settings, self.settings.frame
        if roi is None:
            roi = self.task == "optic_nerve" and rng.random() < settings.roi
        side = ROI_SIDE if roi and settings.roi < 1 else settings.crop
        p = self.p if roi or self.task != "optic_nerve" else self.p_whole
        crops, masks, heats, pens = [], [], [], []
        for index in rng.choice(len(p), settings.batch, p=p):
            matrix = self._matrix(rng, int(index), side, roi)
            rgb, label = augment.warp(self.frames.rgb[index], self.frames.label[index], matrix, side)
            if self.spots and rng.random() < settings.paste:
                donor = int(rng.choice(list(self.spots)))
                other = augment.warp(self.frames.rgb[donor], self.frames.label[donor], self._matrix(rng, donor, side, False), side)
                rgb, label = paste(rgb, label, *other, rng.uniform(0.9, 1.1))
            crops.append(augment.recolour(rng, rgb, (label & labels.FOV_BIT) > 0, settings.degrade))
            masks.append(label)
            if self.pens:
                pens.append(self._pen(rng, str(self.frames.table["dataset"].iloc[int(index)])))
            if self.task == "macula":
                row = self.frames.table.iloc[int(index)]
                heats.append(_heatmap(matrix @ [row["point_x"], row["point_y"], 1.0], side))
        whole = self.task in ("optic_nerve", "macula") and not roi
        pool = 4 if whole else max(4, frame_side // 128)
        heat, pen = (np.stack(parts) if parts else None for parts in (heats, pens))
        return Batch(self.task, np.stack(crops), np.stack(masks), heat, pool, self.loss_weight, pen, settings.skeleton)

    def _pen(self, rng: np.random.Generator, dataset: str) -> np.ndarray:
        """Weight of each pen for a crop: its data set's, or none. Labels of a network, or of a data set without a pen, have none."""
        own = rng.random() < self.settings.pen and self.loss_weight == 1
        return np.array([own and name == dataset for name in self.pens], np.float32)

    def _matrix(self, rng: np.random.Generator, index: int, side: int, roi: bool) -> np.ndarray:
        settings, middle = self.settings, (self.settings.frame - 1) / 2
        low, high = settings.scale
        scale = np.exp(rng.uniform(np.log(low), np.log(high)))
        row = self.frames.table.iloc[index]
        if roi and row["point_size"] > 0:
            # A run on close-ups alone has its `scale` for them; beside the whole view, whose scale that is, they have this one.
            low, high = settings.scale if settings.roi == 1 else (0.7, 1.4)
            scale = np.exp(rng.uniform(np.log(low), np.log(high))) * ROI_DISC / row["point_size"]
            centre = np.array([row["point_x"], row["point_y"]]) + rng.uniform(-0.3, 0.3, 2) * row["point_size"]
        elif self.task in ("optic_nerve", "macula"):
            scale *= side / settings.frame
            centre = middle + rng.uniform(-0.08, 0.08, 2) * settings.frame
        elif self.spots.get(index) and rng.random() < 0.75:
            kinds = list(self.spots[index])
            places = self.spots[index][kinds[rng.integers(len(kinds))]]
            centre = places[rng.integers(len(places))] + rng.uniform(-0.3, 0.3, 2) * side / scale
        elif index in self.alarms and rng.random() < settings.mine:
            places = self.alarms[index]
            centre = places[rng.integers(len(places))] + rng.uniform(-0.3, 0.3, 2) * side / scale
        else:
            angle, radius = rng.uniform(0, 2 * np.pi), 0.42 * settings.frame * np.sqrt(rng.random())
            centre = middle + radius * np.array([np.cos(angle), np.sin(angle)])
        rotation = rng.uniform(-settings.rotation, settings.rotation)
        return augment.crop_affine(rng, centre, side, scale, rotation, rng.random() < 0.5)


def _heatmap(xy: np.ndarray, side: int) -> np.ndarray:
    """Gaussian at the fovea on the heatmap's grid, summing to one; all zero where the crop left it out."""
    cells = side // HEAT_STRIDE
    x, y = (xy + 0.5) / HEAT_STRIDE - 0.5
    grid = np.arange(cells)
    heat = np.exp(-((grid[None] - x) ** 2 + (grid[:, None] - y) ** 2) / (2 * HEAT_SIGMA**2))
    inside = 0 <= x < cells and 0 <= y < cells
    return (heat / heat.sum() if inside else np.zeros_like(heat)).astype(np.float32)


class BatchStream:
    """Endless batches, tasks drawn by their share, prepared by background threads.

    OpenCV and torch release the interpreter lock, so threads suffice, and share the memory-mapped frames.
    """

    def __init__(self, samplers: dict[str, TaskSampler], shares: dict[str, float], seed: int, loaders: int = 1) -> None:
        self._samplers, self._tasks = samplers, list(samplers)
        share = np.array([shares[task] for task in self._tasks], float)
        self._p = share / share.sum()
        self._queue: queue.Queue = queue.Queue(maxsize=4)
        self._stop = threading.Event()
        cv2.setNumThreads(1)
        self._threads = [threading.Thread(target=self._run, args=(np.random.default_rng([seed, i]),), daemon=True) for i in range(loaders)]
        for thread in self._threads:
            thread.start()

    def _run(self, rng: np.random.Generator) -> None:
        while not self._stop.is_set():
            try:
                item = self._samplers[self._tasks[rng.choice(len(self._tasks), p=self._p)]].batch(rng)
            except BaseException as error:  # handed to the training loop, which raises it
                item = error
            while not self._stop.is_set():
                try:
                    self._queue.put(item, timeout=0.5)
                    break
                except queue.Full:
                    continue

    def next(self) -> Batch:
        """The next batch; an error of a background thread is raised here."""
        item = self._queue.get()
        if isinstance(item, BaseException):
            raise item
        return item

    def close(self) -> None:
        """Stop the threads."""
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=5)
