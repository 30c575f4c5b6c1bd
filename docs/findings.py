"""Write docs/findings.md from the catalogue: python docs/findings.py."""

from __future__ import annotations

import re
from pathlib import Path

from featstore.findings import CATALOGUE

HEAD = """\
# Findings

Whatever featstore meets that a reader of the answer must know has a code. The command that meets it prints it (in
full with an example: `featstore check DATA`), `--json` holds it, the run keeps it, and the report and the model card
repeat it without naming a file or a patient. This page is written from the catalogue by `python docs/findings.py`.

* **error**: every score on the data set would be false. `check` ends with exit code 5, and nothing is fitted.
* **warning**: it bears on what scores mean. The answer stands beside it.
* **note**: something was done to files, or left out; nothing needs to be done.

`--accept CODE` (repeat it for more) says that a warning or a note is known: it stays in the run and in the report,
marked as accepted, and is no longer spelt out on the screen. With `--accept FS102`, patients that share a picture are
not merged. An error cannot be accepted.

"""
GROUPS = {
    "FS1": "FS1xx: would a score on these data mean anything?",
    "FS2": "FS2xx: layouts and cells that may be meant otherwise",
    "FS3": "FS3xx: files and pixels",
    "FS4": "FS4xx: what a result can be used for",
}


FLAG = re.compile(r"--[a-z][a-z-]*(?: '[^']*')?")


def marked(text: str) -> str:
    """Text with its flags set as code, where a whole command line is not already."""
    parts = text.split("`")
    return "`".join(part if at % 2 else FLAG.sub(r"`\g<0>`", part) for at, part in enumerate(parts))


def page() -> str:
    """The whole page."""
    parts = [HEAD]
    for prefix, title in GROUPS.items():
        parts.append(f"## {title}\n")
        for code, kind in CATALOGUE.items():
            if code.startswith(prefix):
                anchor = f"({code.lower()})="
                parts.append(
                    f"{anchor}\n### {code} {kind.name}\n\n*{kind.severity}*. {marked(kind.meaning)}\n\n"
                    f"**What to do:** {marked(kind.remedy)}\n"
                )
    return "\n".join(parts)


if __name__ == "__main__":
    Path(__file__).with_suffix(".md").write_text(page(), encoding="utf-8")
