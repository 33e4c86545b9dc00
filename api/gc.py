"""`trainshed gc`: free the disk space of what nobody needs any more, or tell what would go.

The same as the collector beside every API does in small steps, at once and to the end. It may run while the
service is up, and while it is down; it must run where the data folder is.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from api.domain.blobs import BlobStore
from api.domain.errors import StoreUnavailable
from api.domain.settings import BOOK_NAME, Settings, settings_or_exit
from api.domain.store import Store, needs_migration, open_store
from api.sweep import Freed, Sweeper

EXIT_OK, EXIT_FAILED = 0, 1
SHOWN_OF_A_KIND = 20


def human_bytes(size: int) -> str:
    """Return a size as people write it, in units of 1000."""
    value, unit = float(size), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"


class Report:
    """What a pass told: the first of each kind line by line, all of them as sums."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.sizes: Counter[str] = Counter()

    def add(self, freed: Freed) -> str | None:
        """Take note; return the line to print, None where enough of this kind were printed."""
        self.counts[freed.kind] += 1
        self.sizes[freed.kind] += freed.size_bytes
        if self.counts[freed.kind] > SHOWN_OF_A_KIND:
            return None
        return f"{freed.kind:15} {human_bytes(freed.size_bytes):>9}  {freed.name}"

    def closing(self, *, dry_run: bool) -> Iterator[str]:
        """Give the sums, a line for each kind, and the sum of all."""
        for kind, count in sorted(self.counts.items()):
            yield f"{count} x {kind}: {human_bytes(self.sizes[kind])}"
        verb = "would free" if dry_run else "freed"
        yield f"{verb} {human_bytes(self.sizes.total())}"


def sweep(settings: Settings, store: Store, *, dry_run: bool, as_json: bool) -> int:
    """Do one pass and print it; return the exit code, 1 where something could not be removed."""
    sweeper = Sweeper(store, BlobStore(settings.blobs_dir), settings, dry_run=dry_run)
    found = (freed for freed in sweeper.run() if freed is not None)
    if as_json:
        items = [asdict(freed) for freed in found]
        total = sum(int(item["size_bytes"]) for item in items)
        told = {"dry_run": dry_run, "items": items, "size_bytes": total, "problems": sweeper.problems}
        print(json.dumps(told, indent=2))
    else:
        report = Report()
        for freed in found:
            if line := report.add(freed):
                print(line, flush=True)
        for line in report.closing(dry_run=dry_run):
            print(line)
        for problem in sweeper.problems:
            print(f"trainshed gc: {problem}", file=sys.stderr)
    return EXIT_FAILED if sweeper.problems else EXIT_OK


def main(arguments: Sequence[str] | None = None) -> int:
    """Free space; return the exit code: 1 where something failed, 2 where an option or a setting is wrong."""
    parser = argparse.ArgumentParser(prog="trainshed gc", description="Free disk space nobody needs.")
    parser.add_argument("--data", type=Path, help="data folder (default: TRAINSHED_DATA_DIR or ./data)")
    parser.add_argument("--dry-run", action="store_true", help="only tell what would go")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args(arguments)
    os.umask(0o077)
    base = settings_or_exit("trainshed gc")
    data_dir = (options.data or base.data_dir).absolute()
    settings = Settings(**base.model_dump(exclude_unset=True) | {"data_dir": data_dir})
    if settings.database_url is None and not (data_dir / BOOK_NAME).is_file():
        print(f"trainshed gc: there is no service's book in {data_dir}; use --data", file=sys.stderr)
        return EXIT_FAILED
    store = open_store(settings)
    try:
        if needs_migration(store):
            print("trainshed gc: the book is of another version; start the service once", file=sys.stderr)
            return EXIT_FAILED
        return sweep(settings, store, dry_run=options.dry_run, as_json=options.json)
    except StoreUnavailable as error:
        print(f"trainshed gc: {error.message}", file=sys.stderr)
        return EXIT_FAILED
    finally:
        store.close()


if __name__ == "__main__":
    sys.exit(main())
