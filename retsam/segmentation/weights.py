"""Weights on disk: half-precision safetensors and a model card beside them. Loading never executes a pickle."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

DEFAULT_WEIGHTS = Path(__file__).parent / "weights" / "retsam-base.safetensors"
"""Weights that ship with the package; ``retsam-base.json`` beside them is the model card."""


def save_weights(path: Path, model: nn.Module, metadata: Mapping[str, object], extra: Mapping[str, torch.Tensor] | None = None) -> None:
    """Write a model's floating-point tensors in half precision, renamed into place; the same content is the same file, byte by byte.

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
    # Not safetensors' own `save_file`: its file can be read by its owner only.
    temporary.write_bytes(_sorted_header(save(tensors, {key: json.dumps(value) for key, value in metadata.items()})))
    os.replace(temporary, path)


def _sorted_header(content: bytes) -> bytes:
    """A safetensors file with its metadata in order: safetensors writes them as they come out of a hash table, each time in another one.

    The file begins with the length of its header (eight bytes), which is JSON, filled up with spaces to a multiple of eight.
    """
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    metadata = header.pop("__metadata__", {})
    text = json.dumps({"__metadata__": dict(sorted(metadata.items())), **header}, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + content[end:]


@contextmanager
def open_tensors(path: str | Path) -> Iterator[safe_open]:
    """A safetensors file, opened.

    Raises
    ------
    ValueError
        Naming the file, if it is damaged or no safetensors file.
    """
    try:
        with safe_open(path, "pt") as file:
            yield file
    except SafetensorError as error:
        raise ValueError(
            f"{path}: expected a whole .safetensors file, found one that is cut short or of another format ({error}); copy it again"
        ) from error


def load_state(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, object]]:
    """Tensors (float32) and metadata of a weights file.

    Raises
    ------
    ValueError
        If the file is not safetensors (nothing else is read, because other formats can execute code), or not what retsam writes.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"{path}: expected a .safetensors file; convert other formats elsewhere, they can execute code when loaded")
    with open_tensors(path) as file:
        try:
            metadata = {key: json.loads(value) for key, value in (file.metadata() or {}).items()}
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}: expected weights that retsam wrote, with metadata in JSON; found {file.metadata()}") from error
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
    ValueError
        If it is no JSON, or tells of no heads.
    """
    card = Path(path).with_suffix(".json")
    if not card.exists():
        raise FileNotFoundError(f"{card}: expected the model card of {Path(path).name} (thresholds and status of each head)")
    return read_heads(card)


def read_heads(path: Path) -> dict:
    """A model card, by its own name (see :func:`read_card`)."""
    try:
        card = json.loads(Path(path).read_text())
    except ValueError as error:
        raise ValueError(f"{path}: expected a model card in JSON: {error}") from error
    heads = card.get("heads") if isinstance(card, dict) else None
    if not isinstance(heads, dict) or not all(isinstance(entry, dict) for entry in heads.values()):
        raise ValueError(f"{path}: expected a model card, with `heads` (status and threshold of each head); found none")
    return card
