#!/usr/bin/env python3
"""Runs a sale with a take-over on three nodes under a real Prometheus. Then checks every expression of the
dashboards and rules, and with --pictures draws each dashboard into a file.

    grafana/check.py [--seconds 60] [--port 18200] [--programs target/release] [--pictures FOLDER]
"""

import argparse
import pathlib
import sys

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE / "code"))

import expressions
import sale


def main() -> int:
    """Returns 1 if anything is wrong, otherwise 0."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--port", type=int, default=18200)
    parser.add_argument("--programs", type=pathlib.Path, default=HERE.parent / "target" / "release")
    parser.add_argument("--pictures", type=pathlib.Path)
    arguments = parser.parse_args()
    with sale.sale(arguments.programs, arguments.seconds, arguments.port) as (source, nodes, begin, end):
        wrong = expressions.check(source, nodes, begin, end)
        if arguments.pictures:
            import pictures

            pictures.draw_all(source, begin, end, arguments.pictures)
    print(*wrong, sep="\n")
    print(f"{len(wrong)} expressions or metrics are wrong" if wrong else "all expressions have data")
    return min(len(wrong), 1)


if __name__ == "__main__":
    sys.exit(main())
