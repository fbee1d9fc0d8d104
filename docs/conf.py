"""The documentation site: ``tox -e site``, or ``sphinx-build -W -n docs OUT``. It needs sphinx, myst-parser and furo."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from search_words import EnglishAndChinese

from zoo import __version__

project = "zoo"
author = "the zoo contributors"
release = version = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.viewcode"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"zoo {__version__}"
html_search_language = "en-zh"
myst_heading_anchors = 4
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
default_role = "code"
nitpick_ignore_regex = [(r"py:.*", r".*")]
"""Types in signatures: other packages', and those that zoo.api does not offer, have no page. Links between pages are checked."""


def setup(app: Any) -> None:
    """Sphinx calls it before it reads the settings above."""
    app.add_search_language(EnglishAndChinese)
