"""One compact network: a shared encoder, a decoder per task.

The trunk is EfficientNet-lite0 (Tan & Le 2019) cut at stride 16, with a residual context block at stride 32. Decoders are U-Net shaped
(Ronneberger et al. 2015) and end at stride 2 (or coarser) with a pixel shuffle; the raw pixels enter there by pixel unshuffle, so that
thin vessels and microaneurysms are not lost to the stem.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from retsam.segmentation.weak import WeakHeads

# EfficientNet-lite0 up to stride 16: kernel, stride, expansion, in, out. Names of its published weights are kept.
_BLOCKS = (
    (3, 1, 1, 32, 16),
    (3, 2, 6, 16, 24),
    (3, 1, 6, 24, 24),
    (5, 2, 6, 24, 40),
    (5, 1, 6, 40, 40),
    (3, 2, 6, 40, 80),
    (3, 1, 6, 80, 80),
    (3, 1, 6, 80, 80),
    (5, 1, 6, 80, 112),
    (5, 1, 6, 112, 112),
    (5, 1, 6, 112, 112),
)
_SKIPS = {0: 16, 2: 24, 4: 40, 10: 112}  # block -> channels that the decoders read, at strides 2, 4, 8 and 16
_CONTEXT = 160
_DETAIL = 24
_THIN = 24
_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)


class TrunkBatchNorm(nn.BatchNorm2d):
    """Batch normalisation of the trunk, folded into its convolution wherever its statistics are fixed.

    While ``adapt`` is set and the network trains, it normalises by the batch, which keeps the pretrained layers out of saturation; without
    it the running statistics are used, in training as in prediction.
    """

    adapt = False

    def after(self, conv: nn.Conv2d, x: Tensor) -> Tensor:
        """``self(conv(x))``; as one convolution (gain into the weights, offset into the bias) where the statistics are fixed."""
        if self.adapt and self.training and torch.is_grad_enabled():
            return self(_convolved(conv, x, conv.weight, None))
        weight, bias = (conv.weight, conv.bias) if conv.bias is not None else self._folded(conv)
        return _convolved(conv, x, weight, bias)

    def _folded(self, conv: nn.Conv2d) -> tuple[Tensor, Tensor]:
        gain = self.weight * torch.rsqrt(self.running_var + self.eps)
        return conv.weight * gain.view(-1, 1, 1, 1), self.bias - self.running_mean * gain

    @torch.no_grad()
    def fold_into(self, conv: nn.Conv2d) -> None:
        """Fold for good, for inference."""
        weight, bias = self._folded(conv)
        conv.weight, conv.bias = nn.Parameter(weight, requires_grad=False), nn.Parameter(bias, requires_grad=False)


def _convolved(conv: nn.Conv2d, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    if conv.groups == conv.in_channels and x.device.type == "cpu" and torch.is_grad_enabled():
        # Here, not above: prediction needs no compiler, nor a folder that it may write its cache to.
        from retsam.segmentation.depthwise import depthwise

        return depthwise(x, weight, bias, conv.stride[0], conv.padding[0])
    return F.conv2d(x, weight, bias, conv.stride, conv.padding, conv.dilation, conv.groups)


def _relu6(x: Tensor) -> Tensor:
    return F.relu6(x, inplace=not torch.is_grad_enabled())


class _InvertedResidual(nn.Module):
    def __init__(self, kernel: int, stride: int, expansion: int, inputs: int, outputs: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.residual = stride == 1 and inputs == outputs
        if expansion > 1:
            self._expand_conv = nn.Conv2d(inputs, hidden, 1, bias=False)
            self._bn0 = TrunkBatchNorm(hidden, eps=1e-3, momentum=0.02)
        self._depthwise_conv = nn.Conv2d(hidden, hidden, kernel, stride, kernel // 2, groups=hidden, bias=False)
        self._bn1 = TrunkBatchNorm(hidden, eps=1e-3, momentum=0.02)
        self._project_conv = nn.Conv2d(hidden, outputs, 1, bias=False)
        self._bn2 = TrunkBatchNorm(outputs, eps=1e-3, momentum=0.02)

    def forward(self, x: Tensor) -> Tensor:
        y = x
        if hasattr(self, "_expand_conv"):
            y = _relu6(self._bn0.after(self._expand_conv, y))
        y = _relu6(self._bn1.after(self._depthwise_conv, y))
        y = self._bn2.after(self._project_conv, y)
        return x + y if self.residual else y


def _conv(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


class Encoder(nn.Module):
    """Trunk: six input channels (RGB and its local contrast) to features at strides 2 to 32, and detail at stride 2.

    Parameters
    ----------
    frozen : int
        Blocks, stem included, that are not trained. The first two, at stride 2, cost a quarter of a step, and ImageNet's edges serve
        the retina too; what they do not see enters by ``detail``.
    """

    def __init__(self, frozen: int = 0) -> None:
        super().__init__()
        self.frozen = frozen
        self._conv_stem = nn.Conv2d(6, 32, 3, 2, 1, bias=False)
        self._bn0 = TrunkBatchNorm(32, eps=1e-3, momentum=0.02)
        self._blocks = nn.ModuleList(_InvertedResidual(*spec) for spec in _BLOCKS)
        self.context = nn.Sequential(_conv(112, _CONTEXT, 2), _conv(_CONTEXT, _CONTEXT))
        self.detail = _conv(24, _DETAIL)
        # The trunk knows RGB; local contrast, in which arteries and veins look alike in every camera, joins it at stride 4.
        self.inject = nn.Sequential(_conv(_DETAIL, 32, 2), nn.Conv2d(32, 24, 1))
        nn.init.zeros_(self.inject[1].weight)
        nn.init.zeros_(self.inject[1].bias)

    def forward(self, x: Tensor) -> list[Tensor]:
        features = [self.detail(F.pixel_unshuffle(x, 2))]
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            x = _relu6(self._bn0.after(self._conv_stem, x))
        for index, block in enumerate(self._blocks):
            with torch.set_grad_enabled(torch.is_grad_enabled() and index + 1 >= self.frozen):
                x = block(x)
            if index == 1:
                x = x + self.inject(features[0])
            if index in _SKIPS:
                features.append(x)
        features.append(self.context(x))
        return features

    def adapt_statistics(self, adapt: bool) -> None:
        """Whether the blocks that are trained normalise by the batch (see :class:`TrunkBatchNorm`)."""
        for index, block in enumerate(self._blocks):
            for module in block.modules():
                if isinstance(module, TrunkBatchNorm):
                    module.adapt = adapt and index + 1 >= self.frozen

    def load_imagenet(self, state: Mapping[str, Tensor]) -> None:
        """Start from the published ImageNet weights of EfficientNet-lite0; the contrast channels start at zero."""
        own = self.state_dict()
        for name, value in state.items():
            if name == "_conv_stem.weight":
                own[name].zero_()
                own[name][:, :3].copy_(value)
            elif name in own:
                own[name].copy_(value)


class Refiner(nn.Module):
    """Second look at a decoder's last features: a small U-Net from stride 2 to 8 and back, whose answer is added to them.

    A first path tells what a pixel is from what lies around it; the second sees what the first one found, and joins a vessel's pieces or
    drops what leads nowhere (Galdran et al. 2022, W-Net; Li et al. 2020, IterNet). It starts as no change at all.

    Parameters
    ----------
    channels : int
        Of the features, at stride 2.
    widths : tuple of int
        Channels at strides 2, 4 and 8.
    """

    def __init__(self, channels: int, widths: tuple[int, int, int]) -> None:
        super().__init__()
        fine, middle, coarse = widths
        self.enter = _conv(channels + _DETAIL, fine)
        self.down = nn.Sequential(_conv(fine, middle, 2), _conv(middle, middle))
        self.deep = nn.Sequential(_conv(middle, coarse, 2), _conv(coarse, coarse))
        self.up = _conv(coarse + middle, middle)
        self.thin = nn.Conv2d(middle, _THIN, 1)
        self.leave = _conv(_THIN + fine, fine)
        self.add = nn.Conv2d(fine, channels, 1)
        nn.init.zeros_(self.add.weight)
        nn.init.zeros_(self.add.bias)

    def forward(self, x: Tensor, detail: Tensor) -> Tensor:
        fine = self.enter(torch.cat([x, detail], 1))
        middle = self.down(fine)
        coarse = F.interpolate(self.deep(middle), size=middle.shape[-2:], mode="bilinear", align_corners=False)
        middle = self.thin(self.up(torch.cat([coarse, middle], 1)))
        middle = F.interpolate(middle, size=fine.shape[-2:], mode="bilinear", align_corners=False)
        return x + self.add(self.leave(torch.cat([middle, fine], 1)))


class Decoder(nn.Module):
    """Path from stride 32 up to ``stride``, then a pixel shuffle to full resolution.

    Parameters
    ----------
    outputs : int
        Logits per pixel.
    stride : int
        2, 4 or 8: where the path ends.
    widths : tuple of int
        Channels at strides 16, 8, 4 and 2.
    shuffle : bool
        False leaves the logits at ``stride`` (heatmaps).
    pens : int
        Drawing conventions to choose from. Each data set's annotators draw vessels at their own width and stop at twigs of their own
        choice; a gain and an offset per channel and pen, ahead of the last two levels, let one network learn from all of them.
        A pen that is not given changes nothing (Perez et al. 2018, FiLM; dropped in part of training, so that no pen is an answer too).
    refine : tuple of int, optional
        Channels of a :class:`Refiner` over the last features; none by default.
    """

    def __init__(
        self,
        outputs: int,
        stride: int = 2,
        widths: tuple[int, ...] = (96, 64, 48, 32),
        shuffle: bool = True,
        pens: int = 0,
        refine: tuple[int, int, int] | None = None,
    ) -> None:
        super().__init__()
        if stride != 2 and (pens or refine):
            raise ValueError(f"pens and refine: expected a decoder that ends at stride 2, found stride {stride}")
        steps = {8: 2, 4: 3, 2: 4}[stride]
        skips = (112, 40, 24, 16 + _DETAIL)[:steps]
        channels = _CONTEXT
        self.steps = nn.ModuleList()
        for skip, width in zip(skips, widths, strict=False):
            self.steps.append(_conv(channels + skip, width))
            channels = width
            if skip == 24 and steps == 4:  # what stride 4 hands to stride 2 is thinned first: that level is the dearest
                self.thin = nn.Conv2d(width, _THIN, 1)
                channels = _THIN
        self.last = _conv(channels, channels)
        self.factor = stride if shuffle else 1
        self.head = nn.Conv2d(channels, outputs * self.factor**2, 1)
        if shuffle:  # start where most pixels are: background (Lin et al. 2017, focal loss, the prior of the last layer)
            nn.init.constant_(self.head.bias, -3.5)
        self.refine = Refiner(channels, refine) if refine else None
        if pens:
            self.pen = nn.Parameter(torch.zeros(pens, 2 * (widths[2] + channels)))

    def forward(self, features: list[Tensor], pens: Tensor | None = None) -> Tensor:
        """Logits; ``pens`` ``[B or 1, pens]`` holds the weight of each pen, all zero for none."""
        detail, s2, s4, s8, s16, x = features
        before = after = None
        if pens is not None:
            table = pens.to(self.pen.dtype) @ self.pen
            before, after = table.split([2 * self.thin.in_channels, table.shape[1] - 2 * self.thin.in_channels], 1)
        for step, skip in zip(self.steps, (s16, s8, s4, None), strict=False):
            if skip is None:
                skip = torch.cat([s2, detail], 1)
                x = self.thin(_modulate(x, before))
            x = F.interpolate(x, size=skip.shape[-2:], mode="bilinear", align_corners=False)
            x = step(torch.cat([x, skip], 1))
        if self.refine is not None:
            x = self.refine(x, detail)
        logits = self.head(_modulate(self.last(x), after))
        return F.pixel_shuffle(logits, self.factor) if self.factor > 1 else logits


def _modulate(x: Tensor, table: Tensor | None) -> Tensor:
    """``x`` times 1 + gain, plus offset, per channel."""
    if table is None:
        return x
    gain, offset = table.to(x.dtype)[:, :, None, None].chunk(2, 1)
    return x * (1 + gain) + offset


DECODERS: dict[str, dict] = {
    "vessels": {"outputs": 3, "stride": 2, "refine": (40, 56, 80)},
    "optic_nerve": {"outputs": 2, "stride": 2, "widths": (64, 48, 32, 24)},
    "macula": {"outputs": 1, "stride": 4, "widths": (64, 48, 32), "shuffle": False},
    "lesions_dr": {"outputs": 4, "stride": 2, "refine": (24, 40, 64)},
}
"""Decoder settings of each task of the default model."""


def decoders_of(state: Iterable[str]) -> dict[str, dict]:
    """Settings of the decoders that a weights file holds, by the names of its tensors: those of :data:`DECODERS`, without the refiner
    where the file is older than that."""
    names = list(state)
    out = {}
    for task, settings in DECODERS.items():
        if any(name.startswith(f"decoders.{task}.") for name in names):
            older = "refine" in settings and not any(name.startswith(f"decoders.{task}.refine.") for name in names)
            out[task] = settings | {"refine": None} if older else settings
    return out


WEAK = "weak"
"""Name by which the weak heads are asked for beside the tasks (see :mod:`retsam.segmentation.weak`)."""

VIEWS = {"fine": ("vessels", "lesions_dr"), "whole": ("optic_nerve", "macula"), "roi": ("optic_nerve",)}
"""View of the photograph -> the tasks that use it: the canonical frame, the whole frame at half its side, the disc's crop."""


class RetinaNetwork(nn.Module):
    """Shared encoder and a decoder per task.

    Parameters
    ----------
    decoders : mapping of str to dict
        Task -> keyword arguments of :class:`Decoder`.
    weak : mapping of str to sequence of str, optional
        Task -> targets of the weak heads; none by default.
    pens : mapping of str to sequence of str, optional
        Task -> names of its drawing conventions (see :class:`Decoder`); none by default.
    """

    def __init__(
        self,
        decoders: Mapping[str, dict] = DECODERS,
        weak: Mapping[str, list[str]] | None = None,
        pens: Mapping[str, list[str]] | None = None,
    ) -> None:
        super().__init__()
        pens = pens or {}
        self.encoder = Encoder()
        self.decoders = nn.ModuleDict(
            {task: Decoder(**settings, pens=len(pens.get(task, ()))) for task, settings in decoders.items()}
        )
        self.weak = WeakHeads(weak) if weak else None
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_STD).view(1, 3, 1, 1), persistent=False)

    def forward(
        self, rgb: Tensor, fov: Tensor, tasks: Iterable[str], pool: int = 8, pens: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Logits of the named tasks.

        Parameters
        ----------
        rgb : Tensor, [B, 3, H, W]
            0-1; H and W multiples of 32.
        fov : Tensor, [B, 1, H, W]
            1 inside the field of view.
        tasks : iterable of str
            :data:`WEAK` among them asks for the weak heads.
        pool : int
            Reduction at which the neighbourhood of the local contrast is averaged: its side is ``17 * pool`` px, so 8 for a
            1,024 px frame and 4 for 512.
        pens : mapping of str to Tensor, optional
            Task -> weight of each of its pens, ``[B or 1, pens]``.

        Returns
        -------
        dict of str to Tensor
            Task -> logits ``[B, outputs, H, W]`` (heatmap tasks and weak heads at their stride).
        """
        x, features = self.encode(rgb, fov, pool)
        pens = pens or {}
        return {task: self.weak(x, features) if task == WEAK else self.decoders[task](features, pens.get(task)) for task in tasks}

    def encode(self, rgb: Tensor, fov: Tensor, pool: int = 8) -> tuple[Tensor, list[Tensor]]:
        """What the decoders read: the normalised input ``[B, 6, H, W]`` and the encoder's features."""
        x = torch.cat([(rgb - self.mean) / self.std, local_contrast(rgb, fov, pool)], 1) * fov
        x = x.contiguous(memory_format=torch.channels_last)
        if not torch.is_grad_enabled():
            x = x.to(self.encoder._conv_stem.weight.dtype)
        return x, self.encoder(x)

    def view_norms(self) -> dict[str, nn.BatchNorm2d]:
        """Normalisations that see the batch in training: what they see differs between the views, so each view has its statistics."""
        return {
            name: module
            for name, module in self.named_modules()
            if isinstance(module, nn.BatchNorm2d) and not isinstance(module, TrunkBatchNorm)
        }

    def for_inference(self, dtype: torch.dtype) -> RetinaNetwork:
        """Fold every normalisation into its convolution and convert to ``dtype``, in place: half the time of autocast on CPU."""
        self.eval().requires_grad_(False)
        self.encoder._bn0.fold_into(self.encoder._conv_stem)
        for block in self.encoder._blocks:
            for bn, conv in (("_bn0", "_expand_conv"), ("_bn1", "_depthwise_conv"), ("_bn2", "_project_conv")):
                if hasattr(block, bn):
                    getattr(block, bn).fold_into(getattr(block, conv))
        for module in list(self.modules()):
            if isinstance(module, nn.Sequential) and len(module) == 3 and isinstance(module[1], nn.BatchNorm2d):
                module[0], module[1] = nn.utils.fusion.fuse_conv_bn_eval(module[0], module[1]), nn.Identity()
        # Local contrast and the first normalisation stay in float32; only what follows is converted.
        self.encoder.to(dtype)
        self.decoders.to(dtype)
        if self.weak is not None:
            self.weak.to(dtype)
        return self.to(memory_format=torch.channels_last)


def local_contrast(rgb: Tensor, fov: Tensor, pool: int) -> Tensor:
    """Log of each pixel over the mean of its neighbourhood inside the field of view, clipped to +-0.6 and times 8.

    Removes the illumination and the camera's colour, keeps vessels and lesions (a homomorphic high-pass). The factor brings the
    difference of artery and vein, some 4 % of the red, to a third of a unit, where a network learns it.
    """
    small = F.avg_pool2d(rgb * fov, pool)
    weight = F.avg_pool2d(fov, pool)
    box = {"kernel_size": 17, "stride": 1, "padding": 8, "count_include_pad": False}
    mean = F.avg_pool2d(small, **box) / F.avg_pool2d(weight, **box).clamp_min(1e-3)
    mean = F.interpolate(mean, size=rgb.shape[-2:], mode="bilinear", align_corners=False)
    return 8 * torch.log((rgb + 0.02) / (mean + 0.02)).clamp(-0.6, 0.6)
