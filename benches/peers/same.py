"""How many label images of two folders are the same: `python -m peers.same ONE OTHER`.

Prints one JSON document. Names are those of the first folder.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from skimage.io import imread


def main() -> None:
    """Compares pixel for pixel."""
    one, other = map(Path, sys.argv[1:])
    pairs = [(path, other / path.name) for path in sorted(one.glob("*.png"))]
    same = sum(np.array_equal(imread(path), imread(beside)) for path, beside in pairs)
    print(json.dumps({"same": same, "of": len(pairs)}))


if __name__ == "__main__":
    main()
