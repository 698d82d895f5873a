"""The parts of a web page: escaped text, tables, figures, one style sheet, and a frame around them.

A page is one file that needs no network and no script (its own policy forbids both). It follows the reader's light or
dark setting, fits a phone and prints. Text from outside enters through `text` and nowhere else; every other argument is
HTML that this project wrote.
"""

import html
from collections.abc import Iterable

from phi_lab.report.plot_style import Figure, to_svg

STYLE = """
:root{color-scheme:light dark;--page:#fefefe;--ink:#1c2430;--soft:#5b6675;--line:#d5dbe3;
--card:#f5f7fa;--good:#00694d;--bad:#a84300}
@media screen and (prefers-color-scheme:dark){:root{--page:#12171e;--ink:#e8edf4;--soft:#a3afbf;
--line:#333d4a;--card:#1a212a;--good:#4fd1a5;--bad:#ff9a5c}svg{filter:brightness(1.15)}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:68rem;padding:2.5rem 1.25rem 4rem;background:var(--page);
color:var(--ink);font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
h1{font-size:2.1rem;line-height:1.2;margin:0}
h2{font-size:1.35rem;margin:3rem 0 .6rem;padding-top:1.2rem;border-top:1px solid var(--line)}
h3{font-size:1.05rem;margin:2rem 0 .4rem}
p{max-width:46rem;margin:.5rem 0}
.soft,caption,figcaption{color:var(--soft);font-size:.9rem}
figure{margin:1.25rem 0;overflow-x:auto}
svg{display:block;width:100%;min-width:36rem;height:auto}
svg text{font-family:system-ui,-apple-system,"Segoe UI",Roboto,sans-serif!important}
.wide{overflow-x:auto}.two{display:grid;grid-template-columns:repeat(2,minmax(0,1fr));gap:0 3rem}
@media(max-width:52rem){.two{grid-template-columns:minmax(0,1fr)}}
@media(max-width:36rem){dl dl{grid-template-columns:minmax(0,1fr)}dl dl dt{margin-top:.4rem}}
table{border-collapse:collapse;width:100%;margin:1rem 0;font-variant-numeric:tabular-nums}
caption{text-align:left;padding-bottom:.3rem}
td,th{padding:.4rem 0 .4rem 1.2rem;text-align:right;border-bottom:1px solid var(--line);
white-space:nowrap;vertical-align:top;font-weight:400}
thead th{color:var(--soft);font-size:.85rem;vertical-align:bottom}
tr>:first-child{text-align:left;padding-left:0;white-space:normal}tbody th{font-weight:600}
small{color:var(--soft);display:block;font-weight:400}
.tiles{display:flex;flex-wrap:wrap;gap:1rem;margin:1.5rem 0}
.tiles div{background:var(--card);border-radius:.6rem;padding:.9rem 1.2rem;flex:1 1 15rem}
.tiles b{display:block;font-size:1.5rem;line-height:1.4}
.right{color:var(--good)}.wrong{color:var(--bad)}
details{border:1px solid var(--line);border-radius:.6rem;margin:.6rem 0;padding:.6rem 1rem}
summary{cursor:pointer;overflow-wrap:anywhere}
pre{background:var(--card);border-radius:.4rem;padding:.5rem .8rem;margin:.2rem 0 .9rem;
white-space:pre-wrap;overflow-wrap:anywhere;max-height:18rem;overflow:auto;font-size:.85rem}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.1rem 1.5rem;margin:.5rem 0}
dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere}dl dl{margin:0}
@media print{body{max-width:none;padding:0;font-size:10pt}svg{min-width:0}pre{max-height:none}
.tiles div{flex-basis:9rem}h2,h3{break-after:avoid}.wide,figure,tr,pre{break-inside:avoid}
details::details-content{content-visibility:visible;block-size:auto}}
"""


def text(value: object) -> str:
    """A value escaped for HTML, also inside an attribute's quotes."""
    return html.escape(str(value))


def frame(title: str, body: str) -> str:
    """A whole page around the HTML `body`."""
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{text(title)}</title>'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        f"<style>{STYLE}</style></head><body><main>{body}</main></body></html>\n"
    )


def table(caption: str, head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table of HTML cells; the first cell of every row is its header."""
    top = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    lines = ""
    for first, *rest in rows:
        cells = "".join(f"<td>{cell}</td>" for cell in rest)
        lines += f'<tr><th scope="row">{first}</th>{cells}</tr>'
    return (
        f'<div class="wide"><table><caption>{caption}</caption>'
        f"<thead><tr>{top}</tr></thead><tbody>{lines}</tbody></table></div>"
    )


def picture(figure: Figure, name: str, caption: str) -> str:
    """A figure as inline SVG with its description for screen readers; a figure without one has its caption there."""
    # Text has the same size in every figure: 10 inches are the whole width of the page.
    width = f"max-width:{6.6 * figure.get_figwidth():.1f}rem"
    opening = f'<svg role="img" aria-label="{text(figure.alt or caption)}" style="{width}" '
    svg = to_svg(figure, name).replace("<svg ", opening, 1)
    return f"<figure>{svg}<figcaption>{text(caption)}</figcaption></figure>"


def settings(value: object) -> str:
    """Nested settings (dicts) as nested lists of terms."""
    if not isinstance(value, dict):
        return text(value)
    inner = "".join(f"<dt>{text(k)}</dt><dd>{settings(v)}</dd>" for k, v in value.items())
    return f"<dl>{inner}</dl>"


def folded_settings(value: dict) -> str:
    """Nested settings, folded until they are asked for."""
    return f"<details><summary>Every setting of this run</summary>{settings(value)}</details>"
