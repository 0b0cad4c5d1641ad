"""A review page in one HTML file, for where there is no network: `flywheel label page`.

Input: items to judge. Output: an HTML file that asks for nothing outside itself and saves JSONL
that `flywheel label import` reads. docs/exchange.md says how it is used.
"""

from flywheel.label.page.building import PageSpec, build_page, write_page

__all__ = ["PageSpec", "build_page", "write_page"]
