"""What an engine takes on the disk: `python -m peers.installed DISTRIBUTION...`.

Prints one JSON document: versions of the named distributions, and the bytes of all that they
need, by the records of what pip installed. Without Python itself (about 50 MB).
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def closure(names: list[str]) -> dict[str, Distribution]:
    """The named distributions and, over and over, what they require here."""
    found: dict[str, Distribution] = {}
    wanted = list(names)
    while wanted:
        name = canonicalize_name(wanted.pop())
        if name in found:
            continue
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:
            continue
        for line in found[name].requires or []:
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                wanted.append(requirement.name)
    return found


def size(one: Distribution) -> int:
    """Bytes of its files; compiled Python (.pyc) is not counted, wherever it was made."""
    paths = (Path(str(file.locate())) for file in one.files or [] if file.suffix != ".pyc")
    return sum(path.stat().st_size for path in paths if path.is_file())


def main() -> None:
    """Prints versions and bytes."""
    names = sys.argv[1:]
    needed = closure(names)
    print(
        json.dumps(
            {
                "versions": {name: distribution(name).version for name in names},
                "bytes": sum(map(size, needed.values())),
                "distributions": len(needed),
            }
        )
    )


if __name__ == "__main__":
    main()
