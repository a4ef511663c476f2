"""Asks every framework the same, and says where their verdicts differ."""

from __future__ import annotations

from .building import Verdict, built, put
from .drawing import STATES, Application, Asked, application, requests


def differences(seed: int, *, count: int) -> list[str]:
    """Draw an application and requests, ask, and return what differs, each with all that is needed to see it again.

    Args:
        seed: Draws both.
        count: How many requests are sent in each state.
    """
    app = application(seed)
    asked = requests(app, count)
    found: list[str] = []
    with built(app) as (switch, frameworks):
        for state in STATES:
            put(switch, state)
            for one in asked:
                verdicts = {framework.name: framework.ask(one) for framework in frameworks}
                if len(set(verdicts.values())) > 1:
                    found.append(_told(app, state, one, verdicts))
    return found


def _told(app: Application, state: str, asked: Asked, verdicts: dict[str, Verdict]) -> str:
    lines = [f"seed {app.seed}, {state}: {asked}"]
    lines += [f"  {name}: {verdict}" for name, verdict in verdicts.items()]
    return "\n".join(lines)
