"""Writing files so that a reader sees the old one or the new one, never a part."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A new path beside ``path``: write there; it takes the place of ``path`` at the end.

    If the block raises, what was written is removed and ``path`` stays as it was.

    Raises:
        OSError: it cannot be written; the error names the file.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield beside
        os.chmod(beside, 0o666 & ~_umask())  # some writers make private files
        with open(beside, "rb") as file:
            os.fsync(file.fileno())
        os.replace(beside, path)
    except OSError as error:
        if error.filename is None and error.errno is not None:
            error.filename = str(path)  # a write to an open file does not say to which
        raise
    finally:
        with suppress(OSError):
            beside.unlink(missing_ok=True)


def make_folder(path: str | os.PathLike[str], flag: str) -> Path:
    """Make a folder and those above it, unless it is there.

    Args:
        flag: that named it, for the message.

    Raises:
        ValueError: it cannot be made.
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        file = next((p for p in (path, *path.parents) if p.exists() and not p.is_dir()), path)
        raise ValueError(f"{flag}: {file} is a file, expected a directory") from None
    except OSError as error:
        raise ValueError(f"{flag}: {error.filename} cannot be made ({error.strerror})") from None
    return path


def check_output(path: str | os.PathLike[str], flag: str) -> None:
    """See that a file can be written where the work to come will want it to be.

    Folders that it needs are made, as they would be then.

    Args:
        flag: that named it, for the message.

    Raises:
        ValueError: it cannot.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{flag}: {path} is a directory, expected a file's name")
    make_folder(path.parent, flag)
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        beside.touch()
        beside.unlink()
    except OSError as error:
        raise ValueError(f"{flag}: {path} cannot be written ({error.strerror})") from None


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a UTF-8 text file with :func:`replacing`."""
    with replacing(path) as beside:
        beside.write_text(text, encoding="utf-8", newline="\n")


def write_tensors(
    path: str | os.PathLike[str], tensors: dict[str, Tensor], metadata: dict[str, str]
) -> None:
    """Write a safetensors file with :func:`replacing`."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with replacing(path) as beside:
        try:
            save_file(tensors, str(beside), metadata=metadata)
        except SafetensorError as error:  # its own kind, for a full disk too
            raise OSError(f"{path}: cannot be written ({error})") from error


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
