"""Counters on their way: from a process, with its report, to what is kept of a read-only time."""

from __future__ import annotations

from readonly.history import tally_of, tally_shortened, tally_since
from readonly.switch import Switch
from readonly.telling import LABELS_SENT


def test_what_was_counted_since() -> None:
    """By label, and without the labels that counted nothing since."""
    then = {"refused": 3, "refused_by_route": {"/a": 2, "/b": 1}}
    now = {"refused": 5, "refused_by_route": {"/a": 2, "/b": 2, "/c": 1}}
    assert tally_since(now, then) == {"refused": 2, "refused_by_route": {"/b": 1, "/c": 1}}


def test_few_labels_travel_and_their_sum_stays() -> None:
    """The largest ones; the others are one, also with what was one before."""
    counts = {"/a": 5, "/b": 4, "other": 3, "/c": 2, "/d": 1}
    assert tally_shortened({"refused_by_route": counts}, 2) == {"refused_by_route": {"/a": 5, "/b": 4, "other": 6}}
    assert tally_shortened({"refused_by_route": counts}, 3) == {"refused_by_route": {"/a": 5, "/b": 4, "other": 6}}
    assert tally_shortened({"refused": 15, "refused_by_route": counts}, 5) == {
        "refused": 15,
        "refused_by_route": counts,
    }


def test_a_report_stays_small_whatever_was_refused() -> None:
    """A thousand members send theirs; each route that somebody tries must not travel with every one of them."""
    switch = Switch.from_url("memory://")
    for number in range(150):
        switch.tally.refused(f"/route-{number}", "write")
    assert LABELS_SENT == 10
    tally = switch._telling.described()["tally"]
    assert (tally["refused"], len(tally["refused_by_route"])) == (150, LABELS_SENT + 1)
    assert tally_of([tally])["refused"] == sum(tally["refused_by_route"].values())
