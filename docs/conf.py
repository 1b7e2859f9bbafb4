"""Sphinx configuration: MyST pages, the API from the docstrings."""

from pathlib import Path

project = "torchext"
author = "the torchext authors"
release = version = (Path(__file__).parents[1] / "version.txt").read_text().strip()

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
]
myst_enable_extensions = ["dollarmath", "colon_fence", "fieldlist"]
myst_heading_anchors = 3
# Pages also link to source files and to anchors that GitHub renders; those are no pages here.
suppress_warnings = ["myst.xref_missing", "myst.header", "toc.empty_glob", "ref.term", "ref.ref"]
exclude_patterns = ["_build"]

autodoc_default_options = {
    "members": True,
    "show-inheritance": True,
    # inherited from scikit-learn, which documents them
    "exclude-members": "set_fit_request, set_partial_fit_request, set_score_request, set_predict_request",
}
autodoc_typehints = "description"
autodoc_mock_imports: list[str] = []
napoleon_custom_sections = ["Source", "Determinism"]
napoleon_use_rtype = False

html_theme = "furo"
html_title = f"torchext {version}"
