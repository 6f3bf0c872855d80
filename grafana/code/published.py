"""Where docs/runbook.md is published. The file runbook_url is the only place to set it."""

import pathlib
import re

from source import HERE

RUNBOOK = (HERE / "runbook_url").read_text().strip()


def linking_files() -> list[pathlib.Path]:
    """Returns the files whose alerts link to the runbook."""
    return sorted((HERE / "prometheus").glob("*/*.yml"))


def linked(text: str) -> str:
    """Returns a text of alerts with links to where the runbook is published."""
    return re.sub(r"(runbook_url: *'?)[^'#\s]+#", lambda found: f"{found[1]}{RUNBOOK}#", text)
