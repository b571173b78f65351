"""A drawing as a file of its own: the style sheet of the page goes with it."""

import re
from importlib import resources

from markupsafe import Markup

from .svg import element

FONT = 'svg { font-family: system-ui, "Segoe UI", Roboto, Arial, "Liberation Sans", sans-serif; }'


def standalone(drawing: Markup) -> str:
    """The SVG `drawing` with the colours, light and dark, that the page would give it."""
    style = element("style", {}, Markup(f"{_page_style()}{FONT}\n"))
    opening, rest = drawing.split(">", 1)
    return f"{opening}>{style}{rest}\n"


def _page_style() -> str:
    """What stands between the page's style tags."""
    page = resources.files("cosearch.report").joinpath("report.html.j2").read_text("utf-8")
    found = re.search(r"<style>\n(.*?)</style>", page, re.DOTALL)
    assert found is not None
    return found[1]
