"""HTML of the report: its style, texts in any language, tables.

Parts of a page and cells of a table are HTML; ``text``, ``name`` and ``sentence`` make it of what is not.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape

STYLE = """
:root { color-scheme: light dark; --ink: #1c2330; --dim: #5b667a; --rule: #d9dee7; --paper: #fff; --up: #16794c; --down: #b42318;
  --bar: #3b6fb6; --soft: #f5f7fa }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ef; --dim: #9aa4b5; --rule: #343c4a; --paper: #161a21; --up: #4cc38a; --down: #ff8b7e; --bar: #7aa9e6;
    --soft: #1f252f }
}
body { font: 15px/1.5 system-ui, "Noto Sans", "Noto Sans CJK SC", sans-serif; color: var(--ink);
  background: var(--paper); max-width: 940px; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem; margin-bottom: .2rem; overflow-wrap: anywhere } p, td { overflow-wrap: anywhere }
h2 { font-size: 1.2rem; margin-top: 2.2rem; border-bottom: 1px solid var(--rule) }
h3 { font-size: 1rem; margin-bottom: .3rem } p.dim, .dim { color: var(--dim) } .big { font-size: 2rem; font-weight: 600 }
.verdict { margin-top: 0 }
.wide { overflow-x: auto; container-type: inline-size } .scrolls { display: none; color: var(--dim); margin: 0 }
.wide table { border-collapse: collapse; margin: .6rem 0; min-width: 19rem; font-variant-numeric: tabular-nums }
td, th { padding: .2rem .8rem .2rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--rule) }
td.n, th.n { text-align: right } td.n { white-space: nowrap } .up { color: var(--up) } .down { color: var(--down) }
@container (max-width: 30rem) { td, th { padding-right: .4rem } }
@container (max-width: 18.99rem) { .scrolls { display: block; position: sticky; left: 0 } }
.q { background: var(--soft); border-radius: 6px; padding: .6rem .9rem; margin: .8rem 0 }
.q p { margin: .25rem 0 } code { overflow-wrap: anywhere }
figure { margin: .6rem 0; color: var(--dim); font-size: 13px } figure .plot { position: relative; margin-left: 2.6rem; height: 200px }
figure svg { display: block; width: 100%; height: 100% }
figure .tick { position: absolute; right: calc(100% + .5rem); transform: translateY(-50%) }
figure .scale { display: flex; justify-content: space-between; margin-left: 2.6rem }
figure .key { display: inline-block; width: .7rem; height: .7rem; margin-right: .35rem; opacity: .55 }
figcaption { margin-top: .4rem } figcaption span { margin-right: 1rem }
"""

IN_BACKQUOTES = re.compile("`([^`]+)`")


def document(title: str, parts: Iterable[str]) -> str:
    """The whole page; ``title`` is plain text."""
    body = "\n".join(parts)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"
    )


def text(content: str, *, most: int = 0, strong: bool = False) -> str:
    """A text of a data set: its own direction, whatever stands around it. ``most`` characters are shown, all if it is 0."""
    shown = escape(content if not most or len(content) <= most else f"{content[:most]} …")
    return f'<p dir="auto">{f"<strong>{shown}</strong>" if strong else shown}</p>'


def name(content: object) -> str:
    """An id or a name inside a sentence: whatever its direction is, the words around it stay where they are."""
    return f"<bdi>{escape(str(content))}</bdi>"


def sentence(content: str, names: Iterable[object] = ()) -> str:
    """A plain sentence; the ``names`` in it are set apart, and settings in backquotes become code."""
    found = IN_BACKQUOTES.sub(r"<code>\1</code>", escape(content))
    for each in dict.fromkeys(map(str, names)):
        quoted = f"&#x27;{escape(each)}&#x27;"
        found = found.replace(quoted, f"&#x27;{name(each)}&#x27;")
    return found


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, numeric: int) -> str:
    """The last ``numeric`` columns are numbers. Where it is wider than the page it scrolls, and says so."""

    def row(cells: Sequence[str], tag: str) -> str:
        first = len(cells) - numeric
        made = (f"<{tag}{' class=n' if i >= first else ''}>{cell}</{tag}>" for i, cell in enumerate(cells))
        return f"<tr>{''.join(made)}</tr>"

    top = row([escape(cell) for cell in head], "th") if any(head) else ""
    body = "".join(row(cells, "td") for cells in rows)
    return (
        '<div class="wide" tabindex="0" role="group"><p class="scrolls">This table scrolls sideways.</p>'
        f"<table>{top}{body}</table></div>"
    )


def signed(value: float) -> str:
    """A difference in the colour of its sign."""
    kind = "up" if value > 0 else "down" if value < 0 else "dim"
    return f'<span class="{kind}">{value:+.5f}</span>'
