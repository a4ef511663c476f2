"""A rehearsal's report as one HTML file: no script, nothing from elsewhere, and every word of a visitor's escaped."""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Iterable, Sequence

from .rehearsal import Found
from .rehearsal_advice import Advice, advice, lines, notes
from .rehearsal_counts import Route

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --quiet: #8888 }
html { background: Canvas; color: CanvasText }
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 64rem; padding: 0 1rem }
h1 { font-size: 1.6rem } h2 { font-size: 1.2rem; margin-top: 2rem }
table { border-collapse: collapse; width: 100% } .wide { overflow-x: auto }
th, td { border-bottom: 1px solid var(--line); padding: .35rem .6rem; text-align: left; vertical-align: top }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums }
code, pre { font: .9em ui-monospace, monospace; overflow-wrap: anywhere }
.where { white-space: nowrap }
td code { overflow-wrap: break-word } td:last-child code { overflow-wrap: anywhere }
td:nth-child(n+3):last-child { min-width: 12rem }
pre { background: var(--line); border-radius: .4rem; padding: .8rem; white-space: pre-wrap }
.verdict { border-left: .4rem solid #b45309; padding-left: .8rem } .clean { border-color: #15803d }
"""


# What is not shown, or shows the rest in another order.
_UNSEEN = ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")


def escape(text: str) -> str:
    """Return text for an element or an attribute, with what nobody would see of it made visible."""
    seen = (c.encode("unicode_escape").decode() if unicodedata.category(c) in _UNSEEN else c for c in text)
    return html.escape("".join(seen))


def page(site: str, found: Found) -> str:
    """Return the report as an HTML document.

    Args:
        site: The site's name.
        found: What was found.
    """
    what = advice(found.numbers)
    numbers = found.numbers
    rehearsal = found.rehearsal
    end = "so far" if found.going_on else f"until {found.at:%Y-%m-%d %H:%M:%S} UTC"
    facts = [
        ("Requests", f"{numbers.requests}"),
        ("With a session", f"{numbers.signed_in}, of about {numbers.readers.number()} readers"),
        ("Signed out by it", f"{numbers.signed_out}"),
        ("With a bearer token", f"{numbers.bearers}, {numbers.running_out.number()} tokens running out"),
        ("Work outside of requests", f"{sum(numbers.jobs.values())}"),
        ("Processes", f"{found.members}"),
    ]
    body = [
        f"<h1>Rehearsal of {escape(site)}</h1>",
        f"<p>{escape(rehearsal.by)}, from {rehearsal.since:%Y-%m-%d %H:%M:%S} UTC {end}. Nothing was refused.</p>",
        _verdict(what, numbers.requests),
        _table(("What", "How many"), [(escape(name), escape(value)) for name, value in facts]),
    ]
    if what:
        body += (
            ["<h2>To add</h2>", f"<pre>{chr(10).join(escape(one) for one in lines(what))}</pre>"] if lines(what) else []
        )
        body += [
            "<h2>Why</h2>",
            _table(
                ("Where", "What", "Why"),
                [
                    (f'<code class="where">{escape(a.where)}</code>', f"<code>{escape(a.value)}</code>", escape(a.why))
                    for a in what
                ],
            ),
        ]
    body += ["<h2>Routes</h2>", _routes(numbers.routes)]
    if numbers.jobs:
        rows = [(f"<code>{escape(name)}</code>", str(number)) for name, number in sorted(numbers.jobs.items())]
        body += ["<h2>Work that would have waited or been refused</h2>", _table(("Work", "Times"), rows)]
    said = [*notes(numbers), *found.without]
    if said:
        body += ["<h2>To know</h2>", "<ul>", *(f"<li>{escape(one)}</li>" for one in said), "</ul>"]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>Rehearsal of {escape(site)}</title><style>{_STYLE}</style></head><body><main>\n"
        + "\n".join(body)
        + "\n</main></body></html>\n"
    )


def _verdict(what: Sequence[Advice], requests: int) -> str:
    if not what and not requests:
        return '<p class="verdict">Nothing was asked of the site yet, so this says nothing.</p>'
    if not what:
        return '<p class="verdict clean"><strong>Clean.</strong> All that would have been refused is declared.</p>'
    return f'<p class="verdict"><strong>{len(what)} things to do</strong> before the site is switched.</p>'


def _routes(routes: dict[str, Route]) -> str:
    rows = []
    for rule, route in sorted(routes.items(), key=lambda item: (-item[1].refused, -item[1].wrote, item[0])):
        tables = "<br>".join(
            f"<code>{escape(table)}</code>" + (f" at <code>{escape(where)}</code>" if where else "")
            for table, where in route.tables.items()
        )
        families = ", ".join(f"{escape(name)} {number}" for name, number in sorted(route.families.items()))
        rows.append(
            (f"<code>{escape(rule)}</code>", escape(route.act), str(route.refused), families, str(route.wrote), tables)
        )
    if not rows:
        return "<p>Nothing but reads.</p>"
    return _table(("Route", "Taken for", "Would be refused", "By", "Wrote", "What, and where"), rows, numbers=(2, 4))


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: Sequence[int] = ()) -> str:
    def cell(tag: str, index: int, text: str) -> str:
        return f'<{tag} class="n">{text}</{tag}>' if index in numbers else f"<{tag}>{text}</{tag}>"

    top = "".join(cell("th", n, escape(name)) for n, name in enumerate(head))
    lines_ = ["<tr>" + "".join(cell("td", n, text) for n, text in enumerate(row)) + "</tr>" for row in rows]
    # What scrolls on a phone has to be reached by keys as well.
    opened = f'<div class="wide" role="region" aria-label="{escape(head[0])}" tabindex="0">'
    return f"{opened}<table><thead><tr>{top}</tr></thead><tbody>{''.join(lines_)}</tbody></table></div>"
