"""The published architecture: a Swin encoder with one U-Net decoder a task, and its public checkpoint.

Source: Wang et al. 2026, "A General Model for Retinal Segmentation and Quantification" (arXiv 2602.07012). The checkpoint is its authors',
under their own non-commercial licence; users download it themselves. Nothing is executed to load it: safetensors, or a PyTorch file
that ``torch.load(weights_only=True)`` accepts. Blocks come from MONAI, which needs einops for Swin (``pip install
retsam[training]``).
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn

from retsam.masks.frame import Frame
from retsam.quality.field_of_view import FieldOfView, detect_field_of_view
from retsam.segmentation.looks import FRAME_SIDE
from retsam.segmentation.predict import Prediction, device_of
from retsam.segmentation.targets import TARGETS
from retsam.segmentation.weights import file_sha256, open_tensors

SIDE = 640
MEAN, STD = (0.42575, 0.29737, 0.21294), (0.2767, 0.2024, 0.1686)
_PREFIXES = ("module.", "model.")


@dataclass(frozen=True)
class Head:
    """Outputs of one decoder.

    Parameters
    ----------
    channels : int
        Of the logits.
    targets : dict of str to tuple of int
        Target -> channels whose probabilities are added.
    threshold : float
        Under which its authors' inference drops a class.
    smallest : int
        Components of fewer pixels, at 640 px, are dropped.
    independent : bool
        Sigmoid; softmax otherwise.
    """

    channels: int
    targets: dict[str, tuple[int, ...]]
    threshold: float
    smallest: int
    independent: bool = False


HEADS: tuple[Head, ...] = (
    Head(2, {"artery": (0,), "vein": (1,)}, 0.3, 10, independent=True),
    # the authors take the likeliest of background, disc and cup; half of the probability is the same but where all three are alike
    Head(3, {"disc": (1, 2), "cup": (2,)}, 0.5, 50),
    Head(2, {"tessellation": (1,)}, 0.7, 20),
    Head(4, {"peripapillary_atrophy": (1,), "diffuse_atrophy": (2,), "patchy_atrophy": (3,)}, 0.5, 15),
    Head(5, {"hemorrhage": (1,), "hard_exudate": (2,), "cotton_wool_spot": (3,), "drusen": (4,)}, 0.7, 15),
)
"""Of the public checkpoint, in the order of its decoders."""


def _monai():
    try:
        import einops  # noqa: F401 (MONAI asks for it only in the forward pass)
        from monai.networks.blocks import UnetOutBlock, UnetrBasicBlock, UnetrUpBlock
        from monai.networks.nets.swin_unetr import SwinTransformer
    except ImportError as error:
        raise ImportError("the published architecture needs MONAI and einops: pip install 'retsam[training]'") from error
    return SwinTransformer, UnetrBasicBlock, UnetrUpBlock, UnetOutBlock


class Decoder(nn.Module):
    """U-Net decoder over the stages of the encoder; its own skip path takes the image itself.

    Parameters
    ----------
    width : int
        Channels of the first stage; they double four times.
    channels : int
        Of the logits.
    """

    def __init__(self, width: int, channels: int):
        super().__init__()
        _, basic, up, out = _monai()
        common = dict(spatial_dims=2, kernel_size=3, norm_name="instance", res_block=True)
        self.encoder1 = basic(in_channels=3, out_channels=width, stride=1, **common)
        self.encoder2 = basic(in_channels=width, out_channels=width, stride=1, **common)
        self.encoder3 = basic(in_channels=2 * width, out_channels=2 * width, stride=1, **common)
        self.encoder4 = basic(in_channels=4 * width, out_channels=4 * width, stride=1, **common)
        self.encoder10 = basic(in_channels=16 * width, out_channels=16 * width, stride=1, **common)
        self.decoder5 = up(in_channels=16 * width, out_channels=8 * width, upsample_kernel_size=2, **common)
        self.decoder4 = up(in_channels=8 * width, out_channels=4 * width, upsample_kernel_size=2, **common)
        self.decoder3 = up(in_channels=4 * width, out_channels=2 * width, upsample_kernel_size=2, **common)
        self.decoder2 = up(in_channels=2 * width, out_channels=width, upsample_kernel_size=2, **common)
        self.decoder1 = up(in_channels=width, out_channels=width, upsample_kernel_size=4, **common)
        self.out = out(spatial_dims=2, in_channels=width, out_channels=channels)

    def forward(self, image: torch.Tensor, stages: Sequence[torch.Tensor]) -> torch.Tensor:
        h0, h1, h2, h3, h4 = stages
        x = self.decoder5(self.encoder10(h4), h3)
        x = self.decoder4(x, self.encoder4(h2))
        x = self.decoder3(x, self.encoder3(h1))
        x = self.decoder2(x, self.encoder2(h0))
        return self.out(self.decoder1(x, self.encoder1(image)))


class PublishedNetwork(nn.Module):
    """Swin encoder, a decoder a task, and optionally the coordinate head of the fovea.

    Parameters
    ----------
    width : int
        Channels after patch embedding.
    depths, heads : tuple of int
        Blocks and attention heads of the four stages.
    window : int
    channels : tuple of int
        Logits of each decoder.
    coordinates : bool
        Whether there is a coordinate head.
    decoder_device : torch.device or str, optional
        ``meta`` builds the decoders without memory, to be filled by ``load_state_dict(..., assign=True)``.
    """

    def __init__(
        self,
        width: int = 128,
        depths: tuple[int, ...] = (2, 2, 18, 2),
        heads: tuple[int, ...] = (4, 8, 16, 32),
        window: int = 10,
        channels: tuple[int, ...] = tuple(head.channels for head in HEADS),
        coordinates: bool = False,
        decoder_device: torch.device | str = "cpu",
    ):
        super().__init__()
        swin = _monai()[0]
        self.swinViT = swin(3, width, (window, window), (4, 4), depths, heads, spatial_dims=2)
        with torch.device(decoder_device):
            self.decoder_modules = nn.ModuleList(Decoder(width, n) for n in channels)
            self.coordinate_head = CoordinateHead(16 * width) if coordinates else None

    def forward(self, image: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor | None]:
        """Logits of each decoder ``[B, channels, H, W]``, and the fovea ``[B, 2]`` relative to the image (x, y in 0-1) or None.

        ``image`` is ``[B, 3, H, W]``, normalised; H and W are multiples of 64.
        """
        stages = self.swinViT(image, normalize=True)
        coordinates = self.coordinate_head(stages[-1]) if self.coordinate_head is not None else None
        return [decoder(image, stages) for decoder in self.decoder_modules], coordinates


class CoordinateHead(nn.Module):
    """Fovea from the deepest stage: global average, then 512, 256 and 2 units."""

    def __init__(self, width: int, dropout: float = 0.1):
        super().__init__()
        hidden = [nn.Linear(width, 512), nn.ReLU(), nn.Dropout(dropout), nn.Linear(512, 256), nn.ReLU(), nn.Dropout(dropout)]
        self.coordinate_regressor = nn.Sequential(*hidden, nn.Linear(256, 2), nn.Sigmoid())

    def forward(self, deepest: torch.Tensor) -> torch.Tensor:
        return self.coordinate_regressor(deepest.mean((2, 3)))


def expected_tensors(coordinates: bool = False) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    """Names, shapes and types of the public checkpoint's tensors."""
    out = {}
    for line in files("retsam.segmentation").joinpath("published_tensors.tsv").read_text().splitlines():
        name, shape, dtype = line.split("\t")
        out[name] = tuple(map(int, shape.split("x"))), getattr(torch, dtype)
    if coordinates:
        for index, shape in ((0, (512, 2048)), (3, (256, 512)), (6, (2, 256))):
            name = f"coordinate_head.coordinate_regressor.{index}"
            out |= {f"{name}.weight": (shape, torch.float32), f"{name}.bias": (shape[:1], torch.float32)}
    return out


def is_published(path: str | Path) -> bool:
    """Whether a weights file is of the published architecture, by its format and the names of its tensors; tensors are not read."""
    path = Path(path)
    if path.suffix != ".safetensors":
        return path.suffix in (".ckpt", ".pt", ".pth")
    with open_tensors(path) as file:
        return any(name.endswith("swinViT.patch_embed.proj.weight") for name in file.keys())


def read_checkpoint(path: str | Path) -> dict[str, torch.Tensor]:
    """Tensors of the public checkpoint, under their plain names.

    Parameters
    ----------
    path : path
        ``.safetensors``, or a PyTorch (Lightning) file with tensors at its top or under ``state_dict``.

    Raises
    ------
    ValueError
        If the file is damaged, no checkpoint, or holds anything that would need code to be run, or its tensors are not those of the
        published architecture: names and shapes that are missing, left over or different are listed.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        with open_tensors(path) as file:
            state = {name: file.get_tensor(name) for name in file.keys()}
    else:
        content = _load_tensors(path)
        state = content.get("state_dict", content) if isinstance(content, dict) else {}
        state = {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}
    state = {_plain(name): value for name, value in state.items()}
    expected = expected_tensors(any(name.startswith("coordinate_head.") for name in state))
    faults = [f"missing {name} {shape}" for name, (shape, _) in expected.items() if name not in state]
    faults += [f"unexpected {name} {tuple(value.shape)}" for name, value in state.items() if name not in expected]
    for name, (shape, _) in expected.items():
        if name in state and tuple(state[name].shape) != shape:
            faults.append(f"{name} is {tuple(state[name].shape)}, expected {shape}")
    if faults:
        more = f"\n  and {len(faults) - 10} more" if len(faults) > 10 else ""
        raise ValueError(f"{path}: not the public checkpoint, {len(faults)} differences:\n  " + "\n  ".join(faults[:10]) + more)
    return {name: value.to(expected[name][1]) for name, value in state.items()}


# The beginnings of what `torch.save` writes: an archive, and before version 1.6 a pickle.
_ARCHIVE, _PICKLE = b"PK\x03\x04", b"\x80"


def _load_tensors(path: Path) -> object:
    """Content of a PyTorch file, without running any of it.

    Raises
    ------
    ValueError
        See :func:`read_checkpoint`.
    """
    with path.open("rb") as file:
        start = file.read(8)
    if not start:
        raise ValueError(f"{path}: expected a checkpoint, found an empty file; download it again")
    if not start.startswith((_ARCHIVE, _PICKLE)):
        raise ValueError(f"{path}: expected a PyTorch checkpoint, found a file that begins with {start!r}; is it the right one?")
    try:
        # Files of the old format cannot be mapped into memory.
        return torch.load(path, map_location="cpu", weights_only=True, mmap=start.startswith(_ARCHIVE))
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 (bytes that went missing are found anywhere)
        if isinstance(error, pickle.UnpicklingError) and "Unsupported" in str(error):
            # torch's own text goes on to advise loading the file with its code.
            named = re.search(r"GLOBAL (\S+)", str(error))
            raise ValueError(
                f"{path}: cannot be loaded as plain tensors: it holds objects that need code to be run{f' ({named[1]})' if named else ''}, "
                "which is refused; convert it to safetensors on a machine that you can afford to lose, and give that file"
            ) from None
        raise ValueError(f"{path}: expected a PyTorch checkpoint, found one that is cut short or damaged; download it again") from error


def _plain(name: str) -> str:
    while name.startswith(_PREFIXES):
        name = name.split(".", 1)[1]
    return name


def load_published(path: str | Path) -> PublishedNetwork:
    """The network with the public checkpoint's tensors; memory holds them once."""
    state = read_checkpoint(path)
    network = PublishedNetwork(coordinates=any(name.startswith("coordinate_head.") for name in state), decoder_device="meta")
    network.load_state_dict(state, strict=True, assign=True)
    return network.eval()


class _PublishedPrediction(Prediction):
    """Arteries and veins as the authors' inference has them: each where it reaches its threshold, whatever the other says."""

    independent_classes = True

    def _planes(self) -> dict[str, np.ndarray]:
        planes = super()._planes()
        return planes | {name: (self.probabilities[name] >= self.thresholds[name]) & self.fov for name in ("artery", "vein")}


class PublishedSegmenter:
    """The public checkpoint behind the same interface as :class:`retsam.segmentation.predict.Segmenter`.

    Parameters
    ----------
    weights : path
        The downloaded checkpoint.
    device : {'auto', 'cpu', 'cuda'}
    batch_size : int
    network : PublishedNetwork, optional
        Instead of reading ``weights``.
    """

    def __init__(self, weights: str | Path | None, device: str = "auto", batch_size: int = 1, network: PublishedNetwork | None = None):
        if network is None and weights is None:
            raise ValueError("the published model ships no weights: give the checkpoint that you downloaded")
        self.device = device_of(device)
        self.network = load_published(weights) if network is None else network.eval()
        self.weights_sha256 = file_sha256(weights) if weights is not None else None
        self.network.to(self.device)
        self.batch_size, self.model_name = batch_size, "published"
        self.pens: dict[str, list[str]] = {}
        self.thresholds = {target: head.threshold for head in HEADS for target in head.targets} | {"vessel": HEADS[0].threshold}
        found = {*self.thresholds, *(["fovea"] if self.network.coordinate_head is not None else [])}
        self.target_status = {target: "supervised" if target in found else "not_available" for target in TARGETS}
        self.card = {"name": self.model_name, "licence": "of the checkpoint's authors", "frame_side": FRAME_SIDE}

    def use_pen(self, pen: str | None) -> None:
        """There are none to choose from.

        Raises
        ------
        ValueError
            If one is asked for.
        """
        if pen is not None:
            raise ValueError(f"the published checkpoint knows no pens, found {pen!r}")

    @torch.inference_mode()
    def predict(self, images: Sequence[np.ndarray], fovs: Sequence[FieldOfView | None] | None = None) -> list[Prediction]:
        """As :meth:`retsam.segmentation.predict.Segmenter.predict`: probabilities in the canonical frame."""
        fovs = [fov or detect_field_of_view(image) for image, fov in zip(images, fovs or [None] * len(images), strict=True)]
        out = []
        for start in range(0, len(images), self.batch_size):
            part = slice(start, start + self.batch_size)
            boxes = [_box(fov) for fov in fovs[part]]
            batch = torch.stack([_normalised(image, box) for image, box in zip(images[part], boxes, strict=True)]).to(self.device)
            logits, points = self.network(batch)
            values = [torch.sigmoid(x) if head.independent else x.softmax(1) for x, head in zip(logits, HEADS, strict=True)]
            for i, (fov, box) in enumerate(zip(fovs[part], boxes, strict=True)):
                planes = _targets([value[i].float().cpu().numpy() for value in values])
                point = None if points is None else points[i].float().cpu().numpy()
                out.append(self._prediction(planes, point, fov, box))
        return out

    def _prediction(self, planes: dict[str, np.ndarray], point: np.ndarray | None, fov: FieldOfView, box) -> Prediction:
        frame = Frame.from_field_of_view(fov, FRAME_SIDE)
        left, top, width, height = box
        # frame px -> native px -> px of the 640 x 640 input, pixel centres throughout
        sx, sy = SIDE / width, SIDE / height
        matrix = np.array(
            [[frame.scale * sx, 0, (frame.tx - left + 0.5) * sx - 0.5], [0, frame.scale * sy, (frame.ty - top + 0.5) * sy - 0.5]]
        )
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        inside = frame.warp(fov.mask(), nearest=True)
        probabilities = {name: cv2.warpAffine(plane, matrix, (FRAME_SIDE, FRAME_SIDE), flags=flags) for name, plane in planes.items()}
        fovea = None
        if point is not None:
            x, y = frame.to_frame((left + point[0] * width - 0.5, top + point[1] * height - 0.5))
            fovea = (float(x), float(y))
        masked = {name: np.where(inside, plane, 0).astype(np.float16) for name, plane in probabilities.items()}
        # the coordinate head gives no confidence; one half says so without hiding the point
        return _PublishedPrediction(masked, inside, frame, fovea, 0.5 if fovea else 0.0, self.thresholds, self.target_status)


def _box(fov: FieldOfView) -> tuple[int, int, int, int]:
    """Lit part of the photograph: left, top, width, height in whole px."""
    left, top = max(0, int(fov.left)), max(0, int(fov.top))
    right, bottom = min(fov.width, int(np.ceil(fov.right))), min(fov.height, int(np.ceil(fov.bottom)))
    return left, top, max(1, right - left), max(1, bottom - top)


def _normalised(image: np.ndarray, box: tuple[int, int, int, int]) -> torch.Tensor:
    left, top, width, height = box
    crop = cv2.resize(image[top : top + height, left : left + width], (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    return torch.from_numpy(((crop.astype(np.float32) / 255 - MEAN) / STD).astype(np.float32).transpose(2, 0, 1))


def _targets(values: list[np.ndarray]) -> dict[str, np.ndarray]:
    """Probabilities by target, small components removed as the authors' inference does."""
    out = {}
    for head, value in zip(HEADS, values, strict=True):
        for target, channels in head.targets.items():
            plane = value[list(channels)].sum(0)
            kept = (plane >= head.threshold).astype(np.uint8)
            count, labels, stats, _ = cv2.connectedComponentsWithStats(kept, connectivity=8)
            small = stats[:, cv2.CC_STAT_AREA] < head.smallest
            small[0] = False
            out[target] = np.where(small[labels], 0, plane).astype(np.float32) if count > 1 else plane.astype(np.float32)
    return out | {"vessel": np.maximum(out["artery"], out["vein"])}
