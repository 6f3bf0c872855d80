#!/usr/bin/env python3
"""Turns a copy of the sources into the next version, which has one more link version and one more migration.

    next_version.py <directory of the copy>

cluster-config/test rolls a build of it over a running cluster and back.
"""

import pathlib
import re
import sys

# A migration that follows the rule for releases: it adds a column that the present version does not know.
COLUMN = "next_version"
MIGRATIONS = {
    "mysql": f"""SET @statement = IF(
    (SELECT COUNT(*) FROM information_schema.COLUMNS
     WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = 'issuances' AND COLUMN_NAME = '{COLUMN}') = 0,
    'ALTER TABLE issuances ADD COLUMN {COLUMN} INT NOT NULL DEFAULT 0',
    'DO 0');
PREPARE statement FROM @statement;
EXECUTE statement;
DEALLOCATE PREPARE statement;
""",
    "sqlite": f"ALTER TABLE issuances ADD COLUMN {COLUMN} INTEGER NOT NULL DEFAULT 0;\n",
}


def replaced(pattern, replacement, text):
    """Replaces the only match of a pattern. Exits if there is not exactly one."""
    changed, places = re.subn(pattern, replacement, text)
    if places != 1:
        sys.exit(f"{places} places match {pattern}")
    return changed


def main():
    actors = pathlib.Path(sys.argv[1]) / "actors/src"
    hello = actors / "link/hello.rs"
    text = hello.read_text()
    present = int(re.search(r"VERSIONS: &\[u32\] = &\[(\d+)", text).group(1))
    versions = rf"\g<1>{present + 1}, {present}]"
    hello.write_text(replaced(r"(VERSIONS: &\[u32\] = &\[)\d+[^\]]*\]", versions, text))
    migrations = actors / "store/migrations.rs"
    text = migrations.read_text()
    for dialect, statements in MIGRATIONS.items():
        folder = actors / "store/migrations" / dialect
        number = 1 + max(int(file.name[:4]) for file in folder.glob("*.sql"))
        (folder / f"{number:04}_next.sql").write_text(statements)
        entry = f'    ({number}, "next", include_str!("migrations/{dialect}/{number:04}_next.sql")),\n'
        pattern = rf"(const {dialect.upper()}: \[File; )\d+(\] = \[\n(?:.*\n)*?)(\];)"
        text = replaced(pattern, lambda match: f"{match[1]}{number}{match[2]}{entry}{match[3]}", text)
    migrations.write_text(text)
    print(f"link version {present + 1}, schema {number}")


if __name__ == "__main__":
    main()
