"""Prints what the network of a genotype costs, as JSON: ``python -m models.describe GENOTYPE.json``."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from pathlib import Path
from types import FrameType


def _at_least(minimum: int):
    def parse(text: str) -> int:
        value = int(text)
        if value < minimum:
            raise argparse.ArgumentTypeError(f"{value} is too small; the least is {minimum}")
        return value

    parse.__name__ = "whole number"
    return parse


def main() -> int:
    # Here, because they take seconds, in which Ctrl-C should not print a traceback.
    from models.errors import InvalidInput
    from models.images.describe import describe
    from models.images.families import FAMILIES, family_of
    from models.images.genotype import from_json

    parser = argparse.ArgumentParser(prog="python -m models.describe", description=__doc__)
    parser.add_argument("genotype", type=Path, metavar="GENOTYPE.json")
    default_channels = ", ".join(
        f"{family.published.channels} in {name}" for name, family in FAMILIES.items()
    )
    default_cells = ", ".join(
        f"{family.published.cells} per {family.cells_of} in {name}" for name, family in FAMILIES.items()
    )
    parser.add_argument(
        "--channels", type=_at_least(1), help=f"of the first cells (default: {default_channels})"
    )
    parser.add_argument("--cells", type=_at_least(1), help=f"(default: {default_cells})")
    parser.add_argument("--classes", type=_at_least(1), default=10, help="(default 10)")
    parser.add_argument("--image-size", type=_at_least(1), default=32, help="side in pixels (default 32)")
    options = parser.parse_args()
    try:
        content = json.loads(options.genotype.read_text())
        if not isinstance(content, dict):
            raise InvalidInput("genotype: expected a JSON object")
        genotype = from_json(content)
        family = family_of(genotype)
        cells = options.cells or family.published.cells
        if cells < family.minimum_cells:
            parser.error(f"argument --cells: {cells} is too small; the least is {family.minimum_cells}")
        counts = describe(
            genotype,
            channels=options.channels or family.published.channels,
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


def _end(number: int, _: FrameType | None) -> None:
    os.write(2, f"describe: interrupted by {signal.Signals(number).name}\n".encode())
    os._exit(128 + number)


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) != signal.SIG_IGN:  # which it is under nohup
            signal.signal(number, _end)
    sys.exit(main())
