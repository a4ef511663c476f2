"""Asks every framework the same, and says where their verdicts differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from .building import CORS, REFUSALS, Verdict, built, put
from .drawing import PREFLIGHT, STATES, Application, Asked, application, requests

# Where a framework leads a request: the outcome, the view, and for a preflight where its path leads.
Lead = tuple[str, str, str]


@dataclass
class Comparison:
    """What was found.

    Attributes:
        asked: How many requests there were, each sent in every state.
        alike: How many of them are routed alike by all frameworks, so that all verdicts were compared.
        refused: How many verdicts were refusals.
        differences: What differs, each with all that is needed to see it again.
    """

    asked: int = 0
    alike: int = 0
    refused: int = 0
    differences: list[str] = field(default_factory=list)


def compared(seed: int, *, count: int) -> Comparison:
    """Draw an application and requests, ask, and compare.

    What a request leads to is the framework's affair: one merges slashes, one answers OPTIONS by itself. That is seen
    while the site is writable, and frameworks that agree on it must agree on everything else. None may refuse then.

    Args:
        seed: Draws both.
        count: How many requests are sent in each state.
    """
    app = application(seed)
    asked = requests(app, count)
    leads: list[dict[str, Lead]] = []
    found = Comparison()
    with built(app) as (switch, frameworks):
        for state in STATES:
            put(switch, state)
            answers = {framework.name: framework.ask(asked) for framework in frameworks}
            rows = [dict(zip(answers, row, strict=True)) for row in zip(*answers.values(), strict=True)]
            if not leads:
                paths = {
                    framework.name: framework.ask([_to_its_path(one) for one in asked]) for framework in frameworks
                }
                leads = [
                    {name: _lead(verdict, paths[name][number]) for name, verdict in row.items()}
                    for number, row in enumerate(rows)
                ]
            for one, verdicts, led in zip(asked, rows, leads, strict=True):
                found.refused += sum(verdict.outcome in REFUSALS for verdict in verdicts.values())
                if _differ(verdicts, led) and not _is_answered_by_nobody(one, led):
                    found.differences.append(_told(app, state, one, verdicts))
    found.asked = len(asked)
    found.alike = sum(len(set(led.values())) == 1 for led in leads)
    return found


def _to_its_path(asked: Asked) -> Asked:
    """Return what goes to the same path and is no preflight."""
    headers = [header for header in asked.request.headers if header not in PREFLIGHT]
    return replace(asked, request=replace(asked.request, method="GET", headers=headers))


def _lead(verdict: Verdict, path: Verdict) -> Lead:
    # Preflights are answered in front of all views: whether slashes are merged does not show in their answers.
    return verdict.outcome, verdict.view, f"{path.outcome} {path.view}" if verdict.view == CORS else ""


def _differ(verdicts: Mapping[str, Verdict], leads: Mapping[str, Lead]) -> bool:
    """Return whether frameworks that lead a request to the same place differ, or a verdict leads it elsewhere."""
    groups: dict[Lead, set[Verdict]] = {}
    for name, verdict in verdicts.items():
        groups.setdefault(leads[name], set()).add(verdict)
        if verdict.outcome not in REFUSALS and (verdict.outcome, verdict.view) != leads[name][:2]:
            return True
    return any(len(group) > 1 for group in groups.values()) or any(outcome in REFUSALS for outcome, *_ in groups)


def _is_answered_by_nobody(asked: Asked, leads: Mapping[str, Lead]) -> bool:
    """Return whether nothing takes an OPTIONS: whether a view that is marked as a write would, not all can tell."""
    return asked.request.method == "OPTIONS" and not any(view for _, view, _ in leads.values())


def _told(app: Application, state: str, asked: Asked, verdicts: Mapping[str, Verdict]) -> str:
    lines = [f"seed {app.seed}, {state}: {asked}"]
    lines += [f"  {name}: {verdict}" for name, verdict in verdicts.items()]
    return "\n".join(lines)
