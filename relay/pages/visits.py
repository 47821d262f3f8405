"""One request to the console: who asks, what they may use, and how they are answered.

`guarded` lets a handler run only for somebody who has signed in, and a handler of a POST only with the token of a form
of ours. Whoever has not signed in is sent to the sign-in page.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import cached_property
from hmac import compare_digest
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

import structlog
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from relay.pages.rendering import HEADERS, render
from relay.pages.sessions import COOKIE, FLASH, Sessions, Visitor, is_from
from relay.pages.things import HOME, Made, Things
from relay.store.base import StoreUnavailableError
from relay.store.console import Console

__all__ = [
    "HOME", "SIGN_IN", "FormError", "Handler", "Made", "Poster", "Visit", "guarded", "is_ours", "posted", "refused",
    "who",
]  # fmt: skip

log = structlog.get_logger("relay.console")

SIGN_IN = "/admin/sign-in"
#: A form: a payload to try is the longest.
_LONGEST_FORM = 2_000_000
_FLASH_S = 30


class FormError(Exception):
    """The form is not one of ours, or too long."""


class Visit:
    """A request to the console. `visitor` is who asks; nobody, on the page where one signs in."""

    def __init__(self, request: Request, things: Things, visitor: Visitor | None = None) -> None:
        self.request = request
        self.things = things
        self.known = visitor
        self.now_ms = things.clock()

    @property
    def visitor(self) -> Visitor:
        assert self.known is not None  # noqa: S101  only `guarded` handlers ask
        return self.known

    @property
    def console(self) -> Console:
        return self.things.store.console

    @property
    def query(self) -> Mapping[str, str]:
        return self.request.query_params

    @property
    def address(self) -> str:
        return self.request.client.host if self.request.client else ""

    @property
    def is_fragment(self) -> bool:
        """Whether a script asks for a part of a page."""
        return self.request.headers.get("hx-request") == "true"

    @cached_property
    def sessions(self) -> Sessions:
        token = self.things.settings.admin_token
        return Sessions(token.get_secret_value() if token else "")

    async def form(self) -> list[tuple[str, str]]:
        """The fields of a form. Raises `FormError`."""
        body = bytearray()
        async for chunk in self.request.stream():
            body += chunk
            if len(body) > _LONGEST_FORM:
                msg = "the form is longer than 2 MB"
                raise FormError(msg)
        return parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=5000)

    async def note(self, action: str, subject: str = "", **details: Any) -> None:
        """Put down in the audit log what is about to be done."""
        actor = self.known.actor if self.known else ""
        await self.console.note(actor=actor, action=action, subject=subject, details=details, address=self.address)
        log.info("console", action=action, subject=subject, actor=actor, **details)

    def page(self, template: str, *, status: int = 200, **values: Any) -> Response:
        """A page, or a part of one."""
        flash = self.sessions.open(self.request.cookies.get(FLASH), "flash")
        html = render(
            template, visitor=self.known, is_fragment=self.is_fragment,
            path=self.request.url.path, now_ms=self.now_ms, query=dict(self.query),
            flash=flash, csrf=self.known.csrf if self.known else "", **values,
        )  # fmt: skip
        response = HTMLResponse(html, status_code=status, headers=HEADERS)
        if flash is not None and not self.is_fragment:
            response.delete_cookie(FLASH, path=HOME)
        return response

    def go(self, where: str, said: str = "", *, tone: str = "ok") -> Response:
        """Elsewhere, with a word about what was done."""
        response = RedirectResponse(where, status_code=303, headers=HEADERS)
        if said:
            sealed = self.sessions.seal({"words": said, "tone": tone}, "flash")
            response.set_cookie(FLASH, sealed, max_age=_FLASH_S, path=HOME, httponly=True, samesite="lax",
                                secure=self.is_secure)  # fmt: skip
        return response

    @property
    def is_secure(self) -> bool:
        """Whether the browser speaks TLS, to us or to the proxy before us."""
        return "https" in {self.request.url.scheme, self.request.headers.get("x-forwarded-proto", "")}


Handler = Callable[[Visit], Awaitable[Response]]
Poster = Callable[[Visit, Sequence[tuple[str, str]]], Awaitable[Response]]


def who(visit: Visit) -> Visitor | None:
    """Who asks: by a session, or by the word of a proxy that is trusted."""
    settings = visit.things.settings
    name = settings.admin_user_header and visit.request.headers.get(settings.admin_user_header, "").strip()
    if name and is_from(visit.address, settings.admin_proxies):
        return visit.sessions.named(name)
    return visit.sessions.visitor(visit.request.cookies.get(COOKIE), now_ms=visit.now_ms)


def guarded(made: Made, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
    """For those who have signed in."""

    async def answer(request: Request) -> Response:
        visit = Visit(request, made())
        visitor = who(visit)
        if visitor is None:
            return _sign_in_first(request)
        return await _safely(Visit(request, visit.things, visitor), handler)

    return answer


def posted(made: Made, handler: Poster) -> Callable[[Request], Awaitable[Response]]:
    """For those who have signed in, and sent a form that we made for them."""

    async def with_form(visit: Visit) -> Response:
        try:
            fields = await visit.form()
        except FormError as error:
            return refused(visit, 413, str(error))
        if not is_ours(visit.request) or not compare_digest(dict(fields).get("csrf", ""), visit.visitor.csrf):
            words = "This form was not made here, or it is from an earlier session. Load the page again."
            return refused(visit, 403, words)
        return await handler(visit, fields)

    return guarded(made, with_form)


def is_ours(request: Request) -> bool:
    """Whether a form comes from a page of ours, as far as the browser tells."""
    if request.headers.get("sec-fetch-site", "same-origin") not in {"same-origin", "none"}:
        return False
    origin = request.headers.get("origin")
    return origin is None or urlsplit(origin).netloc == request.headers.get("host")


def refused(visit: Visit, status: int, words: str) -> Response:
    return visit.page("error.html", status=status, title="That did not work", words=words)


def _sign_in_first(request: Request) -> Response:
    if request.headers.get("hx-request") == "true":
        return Response(status_code=401, headers={**HEADERS, "hx-redirect": SIGN_IN})
    if request.method != "GET":
        return RedirectResponse(SIGN_IN, status_code=303, headers=HEADERS)
    where = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    return RedirectResponse(f"{SIGN_IN}?to={quote(where, safe='')}", status_code=303, headers=HEADERS)


async def _safely(visit: Visit, handler: Handler) -> Response:
    try:
        return await handler(visit)
    except StoreUnavailableError as error:
        return refused(visit, 503, f"The store is unavailable: {error}")
    except Exception:
        log.exception("a page of the console stumbled", path=visit.request.url.path)
        return refused(visit, 500, "The page stumbled; the log says over what.")
