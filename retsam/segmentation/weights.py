"""Weights on disk: half-precision safetensors and a model card beside them. Loading never executes a pickle."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

DEFAULT_WEIGHTS = Path(__file__).parent / "weights" / "retsam-base.safetensors"
"""Weights that ship with the package; ``retsam-base.json`` beside them is the model card."""


def save_weights(
    path: Path, model: nn.Module, metadata: Mapping[str, object], extra: Mapping[str, torch.Tensor] | None = None
) -> None:
    """Write a model's floating-point tensors in half precision, renamed into place.

    Parameters
    ----------
    path : Path
        ``.safetensors`` file.
    model : nn.Module
    metadata : mapping
        JSON-able values, kept in the file's header.
    extra : mapping of str to Tensor, optional
        Further tensors, such as the statistics of each view.
    """
    tensors = {
        name: value.detach().to("cpu", torch.float16).contiguous()
        for name, value in {**model.state_dict(), **(extra or {})}.items()
        if value.dtype.is_floating_point
    }
    temporary = Path(f"{path}.tmp")
    save_file(tensors, temporary, {key: json.dumps(value) for key, value in metadata.items()})
    os.replace(temporary, path)


def load_state(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, object]]:
    """Tensors (float32) and metadata of a weights file.

    Raises
    ------
    ValueError
        If the file is not safetensors: nothing else is read, because other formats can execute code.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"{path}: expected a .safetensors file; convert other formats elsewhere, they can execute code when loaded")
    with safe_open(path, "pt") as file:
        metadata = {key: json.loads(value) for key, value in (file.metadata() or {}).items()}
        return {name: file.get_tensor(name).float() for name in file.keys()}, metadata


def of_view(state: Mapping[str, torch.Tensor], view: str) -> dict[str, torch.Tensor]:
    """The tensors that the network of one view loads: the shared ones, and over them those that stand in the file for that view alone."""
    prefix = f"views.{view}."
    own = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    return {name: value for name, value in state.items() if not name.startswith("views.")} | own


def file_sha256(path: Path) -> str:
    """Hash by which stores and provenance name the weights."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def read_card(path: Path) -> dict:
    """Model card beside a weights file.

    Raises
    ------
    FileNotFoundError
        If there is none: weights without thresholds and status of their heads cannot be used.
    """
    card = Path(path).with_suffix(".json")
    if not card.exists():
        raise FileNotFoundError(f"{card}: expected the model card of {Path(path).name} (thresholds and status of each head)")
    return json.loads(card.read_text())
