"""Elements of an SVG drawing as text: attributes and text are escaped, numbers are short.

Colours are classes that the page's style sheet defines, so that a drawing follows its theme.
"""

from collections.abc import Mapping

from markupsafe import Markup, escape

Attributes = Mapping[str, "str | float"]


def element(name: str, attributes: Attributes, *children: "str | Markup") -> Markup:
    """One element; children that are plain text are escaped."""
    shown = "".join(f' {key}="{escape(_value(value))}"' for key, value in attributes.items())
    inside = "".join(escape(child) for child in children)
    return Markup(f"<{name}{shown}>{inside}</{name}>" if inside else f"<{name}{shown}/>")


def drawing(width: float, height: float, label: str, *children: Markup) -> Markup:
    """A drawing of ``width`` × ``height`` units; ``label`` is read to who does not see it."""
    attributes: Attributes = {
        "xmlns": "http://www.w3.org/2000/svg",
        "viewBox": f"0 0 {_value(width)} {_value(height)}",
        "width": width,
        "role": "img",
        "aria-label": label,
    }
    return element("svg", attributes, *children)


def text(
    x: float, y: float, words: "str | Markup", style: str = "", anchor: str = "start"
) -> Markup:
    """Text at its baseline; ``style`` is a class, ``anchor`` start, middle or end."""
    return element("text", {"x": x, "y": y, "class": style, "text-anchor": anchor}, words)


def line(x1: float, y1: float, x2: float, y2: float, style: str) -> Markup:
    return element("line", {"x1": x1, "y1": y1, "x2": x2, "y2": y2, "class": style})


def rectangle(
    x: float, y: float, width: float, height: float, style: str, radius: float = 0
) -> Markup:
    return element(
        "rect",
        {"x": x, "y": y, "width": max(width, 0), "height": height, "rx": radius, "class": style},
    )


def path(commands: str, style: str) -> Markup:
    return element("path", {"d": commands, "class": style})


def group(*children: Markup, hint: str = "") -> Markup:
    """Elements together, with a ``hint`` shown under the pointer."""
    title = (element("title", {}, hint),) if hint else ()
    return element("g", {}, *title, *children)


def number(value: float) -> str:
    """A coordinate with at most two decimals."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if value % 1 else f"{value:.0f}"


def _value(value: "str | float") -> str:
    return value if isinstance(value, str) else number(value)
