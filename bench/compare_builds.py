#!/usr/bin/env python3
"""Compares two builds of firstcome: runs `firstcome-bench compare` with each in turn, and prints a Markdown
table of every figure per second with the ratio of the second build to the first.

A build is given as the directory where cargo puts its programs: firstcome, firstcome-bench and
examples/bare_route. Each round measures both builds, in alternating order, because the machine's speed
changes from minute to minute. Each ratio is of two figures from the same round. The table has the median of
the ratios with minimum and maximum.

    python3 bench/compare_builds.py former/target/dist target/dist --rounds 5 -- --what routes --duration 3s
"""

import argparse
import re
import statistics
import subprocess
import sys
from pathlib import Path

NUMBER = re.compile(r"[0-9]+(\.[0-9]+)?")
RATE = "per second"


def measure(build, options):
    """Returns the rates of one run by the names of their rows."""
    command = [build / "firstcome-bench", "compare", "--rounds", "1", *options]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    rates, header = {}, None
    for line in output.splitlines():
        if not line.startswith("|"):
            header = None
            continue
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if header is None:
            header = cells
        elif not set(line) <= set("|-: "):
            rates.update(rates_of(header, cells))
    if not rates:
        sys.exit(f"no rates in the output of {build}:\n{output}")
    return rates


def rates_of(header, cells):
    """Yields each rate of a row. The name of a rate begins with the cells before the first rate."""
    first = next((place for place, title in enumerate(header) if RATE in title), len(header))
    name = ", ".join(cells[:first])
    for title, cell in list(zip(header, cells))[first:]:
        number = NUMBER.match(cell)
        if RATE in title and number:
            detail = title.replace(RATE, "").strip(" ,")
            yield (f"{name}, {detail}" if detail else name), float(number.group())


def spread(values, form):
    least, median, most = (format(f(values), form) for f in (min, statistics.median, max))
    return f"{median} ({least}–{most})"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("first", type=Path, help="directory with the programs of the first build")
    parser.add_argument("second", type=Path, help="directory with the programs of the second build")
    parser.add_argument("--rounds", type=int, default=5, help="rounds, each of which measures both builds")
    parser.epilog = "What follows -- are options of `firstcome-bench compare`."
    given = sys.argv[1:]
    end = given.index("--") if "--" in given else len(given)
    arguments, options = parser.parse_args(given[:end]), given[end + 1 :]
    builds = [arguments.first.resolve(), arguments.second.resolve()]
    rounds = []
    for number in range(arguments.rounds):
        order = builds if number % 2 == 0 else builds[::-1]
        measured = {build: measure(build, options) for build in order}
        rounds.append([measured[build] for build in builds])
        print(f"round {number + 1} of {arguments.rounds}", file=sys.stderr, flush=True)
    print("| figure | first, per second | second, per second | second / first |\n|---|---|---|---|")
    for name in rounds[0][0]:
        pairs = [(first[name], second[name]) for first, second in rounds if name in first and name in second]
        if pairs:
            firsts, seconds = zip(*pairs)
            ratios = [second / first for first, second in pairs]
            print(f"| {name} | {spread(firsts, '.0f')} | {spread(seconds, '.0f')} | {spread(ratios, '.2f')} |")


main()
