"""Which numbers a network computes in."""

from __future__ import annotations

import torch


def fastest_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the device computes it natively, else float32.

    A processor without it emulates it: a training step then took more than 14 s where float32 takes 4.

    Parameters
    ----------
    device : torch.device

    Returns
    -------
    torch.dtype
    """
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported()
    else:
        native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if native else torch.float32


def autocast(device: torch.device) -> torch.autocast:
    """Context in which convolutions compute in :func:`fastest_dtype`."""
    dtype = fastest_dtype(device)
    return torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16)
