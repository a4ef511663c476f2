"""One request and its response, for whoever speaks to a framework: facts in, a verdict out, the response treated.

`readonly.asgi` and `readonly.wsgi` use it, and so does an adapter that is neither. One `Handling` an application, then:

    exchange = Exchange(handling, facts, cookies=..., secure=..., client=...)   # facts.body, if `handling.wants_body`
    answer = exchange.begin()                       # or `await exchange.abegin()`; not None: send it, all is done
    request = ...                                   # hand on no more than `exchange.cookies` and `.bearer` leave of it
    with exchange.working():                        # around each step of the application, streaming included
        response = ...
    answer = exchange.replacement(response.status)  # a guard refused a write: send this 503 in place of its 500
    headers = exchange.headers(response.headers)    # cookies dropped, expired or stamped; how the site is, said
    exchange.end()                                  # in a finally, when the response is closed: it is drained till then

`handling.is_free(method)` says beforehand that a request needs none of this. Facts: `readonly.asgi.facts_of(scope)`,
`readonly.wsgi.facts_of(environ)`. A router that knows better only later: `exchange.look_again(endpoint)`.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any, Final

from .context import Work, enter, leave
from .drafts import Offer
from .gate import Act, Outcome, Verdict
from .handling import Handling, Judged
from .rejection import Answer, HeaderList
from .rules import Endpoint, Facts
from .state import State


class _Working:
    """Not `contextlib.contextmanager`: each part of a response is one such step, the last of which stops iteration."""

    __slots__ = ("_token", "_work")

    def __init__(self, work: Work) -> None:
        self._work = work

    def __enter__(self) -> None:
        self._token = enter(self._work)

    def __exit__(self, *exc: object) -> None:
        leave(self._token)


_NOBODY: Final = nullcontext()


class Exchange:
    """One request and its response. It belongs to one request: not to be shared or used again.

    Attributes:
        facts: The request.
        act: What the gate takes it for; known after `begin`.
        judged: What becomes of it; known after `begin`.
        key: What it is counted by while it is in flight as a write, else None.
        work: What a database guard sees of it; None where none is installed, or a read of a writable site.
    """

    __slots__ = (
        "_bypass",
        "_client",
        "_cookies",
        "_handling",
        "_looks_again",
        "_mount",
        "_refused_again",
        "_secure",
        "_through",
        "act",
        "facts",
        "judged",
        "key",
        "work",
    )

    def __init__(
        self,
        handling: Handling[Any],
        facts: Facts,
        *,
        cookies: Sequence[str] = (),
        secure: bool = False,
        client: str | None = None,
        bypass: bool = False,
        looks_again: bool = False,
        mount: str = "",
    ) -> None:
        """Take in a request.

        Args:
            handling: The application's.
            facts: The request, its body included if `handling.wants_body` asked for that.
            cookies: Each value of its Cookie header, as latin-1 text.
            secure: It came by https.
            client: The address at the other end of the connection, where the server tells.
            bypass: An adapter's own pass lets it through; what the record lets through is found without it.
            looks_again: `look_again` will be asked, inside `working`: the guard's view of it has to be there by then,
                for a read of a writable site, too.
            mount: Path of the application that the library's own routes are mounted in, such as SCRIPT_NAME.
        """
        self.facts = facts
        self.act: Act
        self.judged: Judged
        self.key: object = None
        self.work: Work | None = None
        self._handling = handling
        self._cookies = cookies
        self._secure = secure
        self._client = client
        self._bypass = bypass
        self._looks_again = looks_again
        self._mount = mount
        self._refused_again = False
        # What it is counted by as a write that a bypass lets through.
        self._through: object = None

    # --- the request -------------------------------------------------------------------------------------------------

    def begin(self) -> Answer | None:
        """Classify, count, look, judge; in that order. May block for the store's timeout, as `Switch.look` does.

        Returns:
            None if the application gets the request; else the answer, and nothing is in flight.
        """
        act = self.act = self._handling.gate.classify(self.facts)
        try:
            return self._begun(self._count_and_look() if act.may_write else self._look())
        except BaseException:
            self._uncount()
            raise

    async def abegin(self) -> Answer | None:
        """Do what `begin` does without blocking the event loop."""
        act = self.act = self._handling.gate.classify(self.facts)
        try:
            return self._begun(await self._acount_and_look() if act.may_write else await self._alook())
        except BaseException:
            self._uncount()
            raise

    @property
    def wants_form(self) -> bool:
        """True if what was typed is given back, now that it is refused: show `facts` the body first."""
        return self._handling.offer(self.judged, self.facts, secure=self._secure) is Offer.FORM

    def given_back(self) -> Answer:
        """Return the answer with what was typed. `facts.body` is the whole body, or says that it is not."""
        return self._handling.given_back(
            self.judged, self.facts, secure=self._secure, client=self._client, mount=self._mount
        )

    def look_again(self, endpoint: Endpoint | None) -> Answer | None:
        """Judge the request once more, now that the router is known that has the last word.

        It can refuse what was let through, and never the other way round. What was admitted stays admitted.

        Args:
            endpoint: What that router says.

        Returns:
            None if the request goes on; else the answer to it, and nothing is in flight.
        """
        act = self._write_after_all(endpoint)
        return None if act is None else self._begun_again(act, self._count_and_look())

    async def alook_again(self, endpoint: Endpoint | None) -> Answer | None:
        """Do what `look_again` does without blocking the event loop."""
        act = self._write_after_all(endpoint)
        return None if act is None else self._begun_again(act, await self._acount_and_look())

    @property
    def cookies(self) -> tuple[str, ...] | None:
        """The Cookie headers that the application may see, byte for byte but for what was taken out; None: all."""
        return self.judged.taken.cookies

    @property
    def bearer(self) -> bool:
        """False if the application may not see a bearer token."""
        return not self.judged.taken.bearer

    @property
    def counted(self) -> object:
        """What it is counted by while it is in flight, as a write that was admitted or let through; else None."""
        return self._through if self.key is None else self.key

    def working(self) -> AbstractContextManager[None]:
        """Let a database guard know, inside a with block, which request it works for. As often as there are steps."""
        return _NOBODY if self.work is None else _Working(self.work)

    # --- the response ------------------------------------------------------------------------------------------------

    @property
    def treats_response(self) -> bool:
        """False if the response leaves as it is, whatever it is: then nobody has to look at it."""
        judged = self.judged
        # For a write that was admitted, the site may be read-only when its response starts.
        late = self.key is not None and self._handling.cookies_matter
        return judged.state.read_only or self.work is not None or judged.taken.edits or late

    @property
    def treats_what_starts_now(self) -> bool:
        """False if a response that starts at this moment leaves as it is; for whoever holds the whole of it."""
        judged = self.judged
        return judged.state.read_only or judged.taken.edits or not self._handling.view.open or judged.noted is not None

    def replacement(self, status: int = 500) -> Answer | None:
        """Return the answer in place of the application's, if a guard has refused it a write; else None.

        Args:
            status: The application's. An exception that it raised is a 500.
        """
        if status < 500 or self.work is None or self.work.escape is None:
            return None
        return self._handling.escape(self.judged, self.facts)

    def headers(self, headers: HeaderList, status: int = 0) -> HeaderList:
        """Return the headers of a response that starts now, as they may leave.

        Args:
            headers: All of the application's, Set-Cookie included, names in any case. Those that stay are the very
                same pairs.
            status: Its status; 0 if it is not known.
        """
        if self._refused_again:
            # It is our own answer that comes back, with what middleware in between has put on it.
            return self._handling.sessions.answer(
                headers, replace(self.judged.taken, expire=()), self.judged.now, secure=self._secure
            )
        judged = self._handling.current(self.judged)
        return self._handling.response(headers, judged, secure=self._secure, status=status)

    def end(self) -> None:
        """Say that the request is over: its commit is decided, and nothing of it goes on. Twice does no harm."""
        work, self.work = self.work, None
        if work is not None:
            if work.escape is not None:
                work.name = self._handling.route(self.act, self.facts)  # which few ever need
                self._handling.count_escape(work, work.escape)
            work.end()
        self._uncount()
        judged: Judged | None = getattr(self, "judged", None)
        if judged is not None and judged.noted is not None:
            judged.noted.end()

    # --- inside ------------------------------------------------------------------------------------------------------

    def _uncount(self) -> None:
        key, self.key = self.counted, None
        self._through = None
        if key is not None:
            self._handling.switch.inflight.end(key)

    def _count_and_look(self) -> State:
        switch = self._handling.switch
        # Count, then look: a change that came before the look is seen by it, one after it sees the count.
        self.key = switch.inflight.begin()
        return self._admitted(switch.admit())

    async def _acount_and_look(self) -> State:
        switch = self._handling.switch
        self.key = switch.inflight.begin()
        return self._admitted(await switch.aadmit())

    def _admitted(self, closed: State | None) -> State:
        if closed is None:
            return self._handling.view.state
        self._uncount()
        self._handling.looked()
        return closed

    def _look(self) -> State:
        handling = self._handling
        if handling.view.open or not handling.due():
            return handling.view.state
        handling.looked()
        return handling.switch.look()

    async def _alook(self) -> State:
        handling = self._handling
        if handling.view.open or not handling.due():
            return handling.view.state
        handling.looked()
        return await handling.switch.alook()

    def _begun(self, state: State) -> Answer | None:
        self.judged = self._handling.judge(self.act, self.facts, self._cookies, state, bypass=self._bypass)
        if self.judged.by and self.act.may_write:
            self._let_through()
        if not self.judged.verdict.passed:
            return self._refused()
        self._let_work()
        return None

    def _let_through(self) -> None:
        # Count, then look: who takes a bypass back and sees nothing in flight is told the truth.
        switch, judged = self._handling.switch, self.judged
        self._through = switch.inflight.let(judged.by)
        if not switch.lets_through(judged.by):
            self._uncount()
            self.judged = replace(judged, verdict=Verdict(Outcome.READ_ONLY, self.act), holder="", by="")

    def _refused(self) -> Answer:
        self._uncount()
        return self._handling.refusal(self.judged, self.facts, secure=self._secure, client=self._client)

    def _let_work(self) -> None:
        switch = self._handling.switch
        bypass = self.judged.verdict.bypass
        matters = self.judged.state.read_only or self.key is not None or bypass or self._looks_again
        noted = self.judged.noted
        if (switch.guarded and matters) or noted is not None:
            self.work = Work(switch, key=self.counted, bypass=bypass, by=self.judged.by)
            self.work.noted = noted

    def _write_after_all(self, endpoint: Endpoint | None) -> Act | None:
        """Return what the request is by another endpoint, if that makes a write of what was taken for a read."""
        self.facts.endpoint = endpoint
        if self.key is not None or self.judged.verdict.look_away:
            return None
        act = self._handling.gate.classify(self.facts)
        return act if act.may_write else None

    def _begun_again(self, act: Act, state: State) -> Answer | None:
        judged = self._handling.judge(act, self.facts, self._cookies, state, bypass=self._bypass)
        if judged.verdict.passed:
            self.act = act
            if self.work is not None and self.key is not None:
                self.work.admit(self.key)
            if self.judged.noted is not None:
                self.judged.noted.act = act
            return None
        self.act, self.judged = act, judged
        self._refused_again = True
        answer = self._refused()
        self.end()
        return answer
