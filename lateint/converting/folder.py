"""A folder that a stranger may have made: its files are read without unpickling, and within bounds."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SMALL_JSON = 1 << 22  # bytes of settings
LARGE_JSON = 1 << 25  # bytes of lengths: 10 M documents in a chunk
ZIP = b"PK\x03\x04"  # what torch wrote before says itself how much memory it wants
MAPPED = 1 << 20  # bytes from which an array is mapped


class Folder:
    """Files of one folder; each is refused with a sentence that names it.

    Raises:
        FileNotFoundError: a file is not there.
        ValueError: a file is not what it should be, or a link that leads out of the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def has(self, name: str) -> bool:
        return os.path.lexists(self.path / name)

    def file(self, name: str) -> Path:
        """A regular file of the folder."""
        path = self.path / name
        try:
            target = path.resolve(strict=True)
        except FileNotFoundError:
            raise FileNotFoundError(f"{path} is missing") from None
        except (OSError, RuntimeError) as error:
            raise ValueError(f"{path} cannot be followed: {error}") from None
        if not target.is_relative_to(self.path.resolve()):
            raise ValueError(
                f"{path} is a link out of the folder, to {target}; copy the folder with what its links lead to"
            )
        if not target.is_file():
            raise ValueError(f"{path} must be a regular file")
        return target

    def json(self, name: str, most: int = SMALL_JSON) -> Any:
        """What a JSON file of at most ``most`` bytes holds."""
        path = self.file(name)
        if (size := path.stat().st_size) > most:
            raise ValueError(f"{path} must have at most {most:,} bytes, got {size:,}")
        try:
            return json.loads(path.read_bytes())
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path} is not readable JSON: {error}") from None

    def array(self, name: str, axes: int, *dtypes: str) -> NDArray[Any]:
        """The array of a ``.npy`` file, mapped if it is large; its dtype must be one of ``dtypes``."""
        path = self.file(name)
        try:
            mode = "r" if path.stat().st_size >= MAPPED else None
            array = np.load(path, mmap_mode=mode, allow_pickle=False)  # type: ignore[arg-type]
        except Exception as error:  # a damaged header makes numpy raise almost anything
            first = str(error).split("\n")[0][:200]
            raise ValueError(f"{path} is not a readable .npy file: {first}") from None
        if not isinstance(array, np.ndarray):
            raise ValueError(f"{path} must be a .npy file, got an archive")
        return checked(array, path, axes, dtypes)

    def tensors(self, name: str) -> Any:
        """What a file of torch holds: tensors, or tuples of them. No code in it runs."""
        try:
            import torch
        except ImportError:
            raise ImportError(
                "an index of ColBERT is read with torch, which is not installed: pip install torch"
            ) from None
        path = self.file(name)
        with path.open("rb") as file:
            if file.read(4) != ZIP:
                raise ValueError(f"{path} must be a file that torch 1.6 or newer wrote")
        try:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except Exception as error:  # a damaged file makes torch raise almost anything
            first = str(error).strip().split("\n")[0][:200]
            raise ValueError(f"{path} is not a readable file of tensors: {type(error).__name__}: {first}") from None

    def tensor(self, name: str, axes: int, *dtypes: str, of: Any = None) -> NDArray[Any]:
        """The tensor of a file, or ``of`` what it holds, as an array."""
        import torch

        path = self.file(name)
        tensor = self.tensors(name) if of is None else of
        if not isinstance(tensor, torch.Tensor) or tensor.layout != torch.strided or tensor.is_quantized:
            raise ValueError(f"{path} must hold a dense tensor, got {type(tensor).__name__}")
        if not tensor.is_contiguous() or tensor.numel() * tensor.element_size() > path.stat().st_size:
            raise ValueError(f"{path} must hold all numbers of a tensor of shape {tuple(tensor.shape)}")
        if tensor.dtype == torch.bfloat16:
            tensor = tensor.float()
        try:
            return checked(tensor.detach().numpy(), path, axes, dtypes)
        except TypeError as error:
            raise ValueError(f"{path} must hold numbers: {error}") from None


def checked(array: NDArray[Any], path: Path, axes: int, dtypes: tuple[str, ...]) -> NDArray[Any]:
    """An array, if it has the axes and one of the dtypes that it should have."""
    if array.ndim != axes or array.dtype.str not in dtypes:
        raise ValueError(
            f"{path} must have {axes} {'axes' if axes > 1 else 'axis'} of {' or '.join(dtypes)}, "
            f"got shape {array.shape} of {array.dtype.str}"
        )
    return array


def natural(value: Any, name: str, path: Path, most: int) -> int:
    """An integer from 0 to ``most`` that a file has under ``name``."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        raise ValueError(f"{path}: {name} must be an integer from 0 to {most:,}, got {str(value)[:50]}")
    return value
