"""Reads zip and tar archives entry by entry, counting bytes while inflating, and never unpacks to names.

Every reason to refuse an archive is decided here or in `names`. It knows nothing of images or labels.
"""

from __future__ import annotations

import errno
import gzip
import io
import lzma
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, cast

from api.domain.archives import HEAD_BYTES, is_tar_header
from worker.ingest.limits import Limits
from worker.ingest.names import clean, unsafe_reason
from worker.ingest.report import RefusedError, Report

_ZIP_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA}
_FLAG_ENCRYPTED = 0x1
_FLAG_UTF8 = 0x800
# Where the end record of a zip may begin: before a comment of at most 64 KiB, after those of the 64-bit form.
_LOCATOR64_BYTES, _END64_BYTES = 20, 56
_END_BYTES = 22 + 0xFFFF + _LOCATOR64_BYTES + _END64_BYTES
_ZSTD_WINDOW_BYTES = 1 << 27
_SIGNATURES = (
    (b"PK\x03\x04", "zip"),
    (b"PK\x05\x06", "zip"),
    (b"\x1f\x8b", "tar.gz"),
    (b"\x28\xb5\x2f\xfd", "tar.zst"),
    (b"Rar!", "rar"),
    (b"7z\xbc\xaf\x27\x1c", "7z"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ", "xz"),
)
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    tarfile.TarError,
    gzip.BadGzipFile,
    EOFError,
    struct.error,
    NotImplementedError,
    UnicodeDecodeError,
    RuntimeError,
)


@dataclass(frozen=True)
class Item:
    """One regular file of an archive: cleaned name, size in bytes, and how to read it now."""

    name: str
    size: int
    open: Callable[[], IO[bytes]]


def archive_format(path: Path) -> str | None:
    """Tell an archive's format by its first bytes: zip, tar, tar.gz, tar.zst, another known name, or None."""
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    for signature, name in _SIGNATURES:
        if head.startswith(signature):
            return name
    if is_tar_header(head):
        return "tar"
    return "zip" if zipfile.is_zipfile(path) else None


def items(path: Path, limits: Limits, report: Report) -> Iterator[Item]:
    """Yield an archive's files in its own order; each must be read before the next is asked for.

    Raises RefusedError (with an entry in the report) for anything unsafe or beyond the limits. Iterate and
    read inside `naming_damage`, which does the same for what is damaged.
    """
    kind = archive_format(path)
    names = _Names(limits, report)
    if kind == "zip":
        yield from _zip_items(path, limits, report, names)
    elif kind in ("tar", "tar.gz", "tar.zst"):
        yield from _tar_items(path, kind, limits, report, names)
    else:
        raise _not_an_archive(kind, report)


@dataclass
class Place:
    """The entry that is being read."""

    name: str | None = None


@contextmanager
def naming_damage(report: Report) -> Iterator[Place]:
    """Turn what a damaged archive makes its readers raise into a refusal that names the entry."""
    place = Place()
    try:
        yield place
    except _DAMAGE as error:
        raise report.refuse(
            "ARCHIVE_CORRUPT",
            f"the archive is damaged: {str(error) or type(error).__name__}",
            file=place.name,
            fix="create the archive again and compare its size after the transfer",
        ) from error
    except OSError as error:
        # A zip's listing may send its reader to before the file's beginning; a disk says other things.
        if error.errno != errno.EINVAL:
            raise
        raise report.refuse(
            "ARCHIVE_CORRUPT", "the archive is damaged: its listing points outside of it", file=place.name
        ) from error
    except MemoryError as error:
        raise report.refuse("ARCHIVE_TOO_LARGE", "reading the archive needs too much memory") from error


def _not_an_archive(kind: str | None, report: Report) -> RefusedError:
    found = "it is of no known archive format" if kind is None else f"it is a {kind} file"
    return report.refuse(
        "ARCHIVE_FORMAT",
        f"the upload is not a zip, tar, tar.gz or tar.zst archive: {found}",
        value=kind,
        fix="pack the dataset folder as a zip",
    )


class _Names:
    """Checks each name once: safe, not seen before, and never both a file and a folder."""

    def __init__(self, limits: Limits, report: Report) -> None:
        self._limits = limits
        self._report = report
        self._files: set[str] = set()
        self._folders: set[str] = set()
        self._entries = 0

    def accept(self, raw: str, *, is_folder: bool) -> str:
        self._entries += 1
        if self._entries > self._limits.max_entries:
            raise self.too_many()
        reason = unsafe_reason(raw, self._limits)
        if reason is not None:
            raise self._report.refuse(
                "UNSAFE_PATH", f"unsafe entry: {reason}", file=raw, fix="pack with relative paths"
            )
        name = clean(raw)
        folders = _parents(name)
        if is_folder:
            folders += [name] if name else []
        elif name in self._files:
            raise self._report.refuse("DUPLICATE_ENTRY", "two entries have the same name", file=name)
        else:
            self._files.add(name)
        self._folders.update(folders)
        return name

    def too_many(self) -> RefusedError:
        text = f"the archive holds more than {self._limits.max_entries} entries"
        return self._report.refuse("ARCHIVE_TOO_MANY_ENTRIES", text, fix="divide the dataset")

    def check_clashes(self) -> None:
        for name in sorted(self._files & self._folders):
            raise self._report.refuse(
                "FILE_FOLDER_CLASH", "an entry is a file and a folder as well", file=name
            )


def _parents(name: str) -> list[str]:
    parts = name.split("/")[:-1]
    return ["/".join(parts[: i + 1]) for i in range(len(parts))]


def _zip_items(path: Path, limits: Limits, report: Report, names: _Names) -> Iterator[Item]:
    # A listing is read as a whole, at half a kilobyte an entry: an honest giant is refused before.
    if _declared_entries(path) > limits.max_entries:
        raise names.too_many()
    with zipfile.ZipFile(path) as archive:
        infos = archive.infolist()
        accepted = [(names.accept(_zip_name(info), is_folder=_is_folder(info)), info) for info in infos]
        for name, info in accepted:
            _check_zip_entry(name, info, limits, report)
        _check_zip_total(infos, limits, report)
        names.check_clashes()
        for name, info in accepted:
            if not _is_folder(info):
                yield Item(name, info.file_size, partial(archive.open, info))


def _is_folder(info: zipfile.ZipInfo) -> bool:
    return info.filename.endswith("/")  # its own is_dir() fails at an empty name


def _declared_entries(path: Path) -> int:
    """Return how many entries a zip says it has, which may be a lie; 0 where it says nothing."""
    with path.open("rb") as file:
        start = max(0, path.stat().st_size - _END_BYTES)
        file.seek(start)
        tail = file.read()
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or at + 12 > len(tail):
        return 0
    count = int.from_bytes(tail[at + 10 : at + 12], "little")
    far = at - _LOCATOR64_BYTES - _END64_BYTES
    if count == 0xFFFF and far >= 0 and tail[far : far + 4] == b"PK\x06\x06":
        count = int.from_bytes(tail[far + 32 : far + 40], "little")
    return count


def _zip_name(info: zipfile.ZipInfo) -> str:
    """Return the name as stored, read as UTF-8 where it is (many tools forget the flag)."""
    raw = info.orig_filename
    if info.flag_bits & _FLAG_UTF8:
        return raw
    try:
        return raw.encode("cp437").decode("utf-8")
    except UnicodeError:
        return raw


def _check_zip_entry(name: str, info: zipfile.ZipInfo, limits: Limits, report: Report) -> None:
    if info.flag_bits & _FLAG_ENCRYPTED:
        raise report.refuse(
            "ENCRYPTED_ENTRY", "the entry is encrypted", file=name, fix="pack without a password"
        )
    file_type = stat.S_IFMT(info.external_attr >> 16)
    if file_type not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise report.refuse("LINK_ENTRY", "the entry is a link or a device", file=name, fix="pack the files")
    if info.compress_type not in _ZIP_METHODS:
        raise report.refuse(
            "COMPRESSION_METHOD",
            f"unsupported compression method {info.compress_type}",
            file=name,
            value=info.compress_type,
            fix="pack with deflate",
        )
    if info.file_size > limits.ratio_free_bytes and info.file_size > limits.max_ratio * info.compress_size:
        raise report.refuse(
            "ARCHIVE_BOMB",
            f"the entry inflates {info.file_size // max(info.compress_size, 1)}-fold",
            file=name,
            value=info.file_size,
        )
    if info.compress_size > info.file_size + info.file_size // 2 + 4096:
        raise report.refuse(
            "ARCHIVE_CORRUPT",
            f"the entry declares {info.file_size} bytes but holds {info.compress_size} compressed ones",
            file=name,
        )


def _check_zip_total(infos: list[zipfile.ZipInfo], limits: Limits, report: Report) -> None:
    total = sum(info.file_size for info in infos)
    if total > limits.max_total_bytes:
        raise report.refuse(
            "ARCHIVE_TOO_LARGE",
            f"the archive declares {total} bytes, more than {limits.max_total_bytes}",
            value=total,
        )
    end = -1
    for info in sorted(infos, key=lambda i: i.header_offset):
        if info.header_offset < end:
            raise report.refuse("ARCHIVE_BOMB", "entries of the archive overlap", file=info.filename)
        end = info.header_offset + 30 + info.compress_size


class _Counted(io.RawIOBase):
    """Passes an inflating stream through, refusing once it yields too many bytes for what was packed."""

    def __init__(self, stream: IO[bytes], allowed_bytes: int, report: Report) -> None:
        self._stream = stream
        self._left = allowed_bytes
        self._report = report

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(min(size, 1 << 20) if size >= 0 else 1 << 20)
        self._left -= len(data)
        if self._left < 0:
            raise self._report.refuse("ARCHIVE_BOMB", "the archive inflates to more bytes than are allowed")
        return data


@contextmanager
def _inflated(path: Path, kind: str) -> Iterator[IO[bytes]]:
    if kind == "tar":
        with path.open("rb") as plain:
            yield plain
    elif kind == "tar.gz":
        with gzip.open(path, "rb") as unzipped:
            yield cast("IO[bytes]", unzipped)
    else:
        import zstandard

        decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_BYTES)
        try:
            with (
                path.open("rb") as packed,
                decompressor.stream_reader(packed, read_across_frames=True) as stream,
            ):
                yield cast("IO[bytes]", stream)
        except zstandard.ZstdError as error:
            raise EOFError(str(error)) from error


def _tar_items(path: Path, kind: str, limits: Limits, report: Report, names: _Names) -> Iterator[Item]:
    allowed = min(limits.max_total_bytes, limits.ratio_free_bytes + limits.max_ratio * path.stat().st_size)
    with _inflated(path, kind) as stream:
        counted = cast("IO[bytes]", _Counted(stream, allowed, report))
        with tarfile.open(fileobj=counted, mode="r|") as archive:
            for member in archive:
                name = names.accept(member.name, is_folder=member.isdir())
                if member.isdir():
                    continue
                if not member.isreg() or member.issparse():
                    raise report.refuse("LINK_ENTRY", "the entry is a link or a device", file=name)
                content = archive.extractfile(member)
                assert content is not None
                yield Item(name, member.size, partial(_same, content))
                cast(Any, archive).members = []  # it would keep every header of a large archive
    names.check_clashes()


def _same(stream: IO[bytes]) -> IO[bytes]:
    return stream
