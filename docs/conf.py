"""How the documentation site is built: ``make docs``. Nothing is fetched while building."""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import reference  # noqa: E402  # beside this file, where Sphinx does not look

project = "featstore"
author = "the featstore authors"
release = metadata.version("featstore")

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = f"featstore {release}"
html_show_copyright = False
html_copy_source = False

# Pages link to each other and to headings as they do where the sources are read; a link to nowhere is a warning.
myst_heading_anchors = 4

# The tutorial is executed at every build, in a folder of its own; an error in it fails the build.
nb_execution_mode = "force"
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_merge_streams = True

# A name in single backticks becomes a link where the site has a page for it, and is code elsewhere: hence the
# references that docstrings and signatures make may lead nowhere. Those that the pages make may not.
default_role = "py:obj"
nitpick_ignore_regex = [("py:(class|exc|obj|data|meth|attr|mod)", ".*")]
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_attr_annotations = False
autodoc_typehints_format = "short"
maximum_signature_line_length = 90
autodoc_member_order = "bysource"
autodoc_default_options = {"exclude-members": "set_fit_request, set_score_request"}


def setup(_app: object) -> None:
    """Write the pages that are made from the code."""
    reference.write(HERE / "api")
