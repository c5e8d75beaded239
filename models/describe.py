"""What the network of a genotype costs: ``python -m models.describe GENOTYPE.json`` prints one JSON line."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from models.errors import InvalidInput
from models.images.describe import PUBLISHED_SIZES, describe
from models.images.genotype import from_json


def _at_least(minimum: int):
    def parse(text: str) -> int:
        value = int(text)
        if value < minimum:
            raise argparse.ArgumentTypeError(f"{value} is too small; the least is {minimum}")
        return value

    parse.__name__ = "whole number"
    return parse


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m models.describe", description=__doc__)
    parser.add_argument("genotype", type=Path, metavar="GENOTYPE.json")
    parser.add_argument(
        "--channels", type=_at_least(1), help="of the first cells (default 36; nasbench201: 16)"
    )
    parser.add_argument("--cells", type=_at_least(1), help="(default 20; nasbench201: 5, counted a stage)")
    parser.add_argument("--classes", type=_at_least(1), default=10, help="(default 10)")
    parser.add_argument("--image-size", type=_at_least(1), default=32, help="side in pixels (default 32)")
    options = parser.parse_args()
    try:
        content = json.loads(options.genotype.read_text())
        if not isinstance(content, dict):
            raise InvalidInput("genotype: expected a JSON object")
        genotype = from_json(content)
        size = PUBLISHED_SIZES[genotype.space]
        cells = options.cells or size.cells
        if cells < size.minimum_cells:
            parser.error(f"argument --cells: {cells} is too small; the least is {size.minimum_cells}")
        counts = describe(
            genotype,
            channels=options.channels or size.channels,
            cells=cells,
            classes=options.classes,
            image_size=options.image_size,
        )
    except OSError as error:
        print(f"error: {options.genotype}: {error.strerror}", file=sys.stderr)
        return 2
    except json.JSONDecodeError as error:
        print(f"error: {options.genotype} is not JSON: {error}", file=sys.stderr)
        return 2
    except InvalidInput as error:
        print(f"error: {options.genotype}: {error}", file=sys.stderr)
        return 2
    print(json.dumps(counts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
