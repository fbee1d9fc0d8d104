"""The documentation site: ``tox -e site``, or ``sphinx-build -W -n docs OUT``. It needs sphinx, myst-parser and furo."""

from __future__ import annotations

from zoo import __version__

project = "zoo"
author = "the zoo contributors"
release = version = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.viewcode"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"zoo {__version__}"
myst_heading_anchors = 4
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
default_role = "code"
nitpick_ignore_regex = [(r"py:.*", r".*")]
"""Types in signatures: other packages', and those that zoo.api does not offer, have no page. Links between pages are checked."""
