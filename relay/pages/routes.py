"""The addresses of the console, and its door: signing in and out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import FileResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from relay.pages import auditing, books, finding, overview, refusal, refusals, remapping, repairing, sources, trying
from relay.pages.rendering import HEADERS, STATIC
from relay.pages.sessions import COOKIE, SESSION_S, TRIES, TRIES_OF_ALL, WINDOW_MS
from relay.pages.visits import (
    HOME,
    SIGN_IN,
    FormError,
    Handler,
    Made,
    Poster,
    Visit,
    guarded,
    is_ours,
    posted,
    who,
)

_KINDS = {".css": "text/css", ".js": "text/javascript", ".woff2": "font/woff2", ".svg": "image/svg+xml"}
_FOR_EVER = "public, max-age=31536000, immutable"


def page_routes(made: Made) -> list[BaseRoute]:
    """The routes under `/admin`. `made` gives what the pages are made of, once the app has started."""

    def get(path: str, handler: Handler) -> Route:
        return Route(HOME + path, guarded(made, handler), methods=["GET"])

    def post(path: str, handler: Poster) -> Route:
        return Route(HOME + path, posted(made, handler), methods=["POST"])

    return [
        Route(SIGN_IN, _open(made, _show_sign_in), methods=["GET"]),
        Route(SIGN_IN, _open(made, _sign_in), methods=["POST"]),
        Route(HOME + "/static/{name}", _static, methods=["GET"]),
        post("/sign-out", _sign_out),
        get("", overview.show),
        get("/", overview.show),
        get("/deliveries", finding.show_list),
        post("/find", finding.find),
        get("/deliveries/{delivery:int}", finding.show_story),
        post("/deliveries/{delivery:int}/reveal", finding.reveal),
        get("/events/{event}", finding.show_event),
        get("/repair", repairing.show),
        post("/repair/resend", repairing.resend),
        post("/repair/remap", repairing.map_again),
        post("/repair/settle", repairing.settle),
        post("/repair/retry", refusals.retry),
        post("/repair/replay", remapping.apply),
        get("/refused/{row:int}", refusal.show),
        post("/refused/{row:int}/reveal", refusal.reveal),
        get("/books", books.show),
        post("/books/compare", books.compare),
        post("/books/fetch", books.fetch),
        get("/sources", sources.show),
        post("/sources/{slug}/test", sources.test),
        get("/try", trying.show),
        post("/try", trying.tried),
        get("/audit", auditing.show),
        get("/help", _help),
    ]


def _open(made: Made, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        return await handler(Visit(request, made()))

    return answer


async def _help(visit: Visit) -> Response:
    return visit.page("help.html")


async def _static(request: Request) -> Response:
    path = STATIC / request.path_params["name"]
    if path.suffix not in _KINDS or not path.is_file():
        return Response(status_code=404)
    headers = {"cache-control": _FOR_EVER, "x-content-type-options": "nosniff"}
    return FileResponse(path, media_type=_KINDS[path.suffix], headers=headers)


# --- the door ---------------------------------------------------------------------------------------------------------


async def _show_sign_in(visit: Visit) -> Response:
    if who(visit) is not None:
        return visit.go(HOME)
    return visit.page("sign_in.html", to=_within(visit.query.get("to", HOME)), problem="")


async def _sign_in(visit: Visit) -> Response:
    try:
        fields = dict(await visit.form())
    except FormError:
        fields = {}
    to = _within(fields.get("to", HOME))
    if not is_ours(visit.request):
        return visit.page("sign_in.html", status=403, to=HOME, problem="That form was not made here.")
    since = visit.now_ms - WINDOW_MS
    of_address = await visit.console.count_deeds("sign-in refused", since_ms=since, address=visit.address)
    if of_address >= TRIES or await visit.console.count_deeds("sign-in refused", since_ms=since) >= TRIES_OF_ALL:
        words = "Too many tries with a wrong token. Wait a quarter of an hour."
        answer = visit.page("sign_in.html", status=429, to=to, problem=words)
        answer.headers["retry-after"] = str(WINDOW_MS // 1000)
        return answer
    if not visit.sessions.fits(fields.get("token", "").strip()):
        await visit.note("sign-in refused")
        return visit.page("sign_in.html", status=401, to=to, problem="That is not the token.")
    name = fields.get("name", "").strip()[:60] or "operator"
    await visit.console.note(actor=name, action="signed in", address=visit.address)
    answer = visit.go(to)
    answer.set_cookie(COOKIE, visit.sessions.begin(name, now_ms=visit.now_ms), max_age=SESSION_S, path=HOME,
                      httponly=True, samesite="lax", secure=visit.is_secure)  # fmt: skip
    return answer


async def _sign_out(visit: Visit, _fields: object) -> Response:
    await visit.note("signed out")
    answer = RedirectResponse(SIGN_IN, status_code=303, headers=HEADERS)
    answer.delete_cookie(COOKIE, path=HOME)
    return answer


def _within(where: str) -> str:
    """A page of the console, and nothing else: nobody is sent elsewhere after signing in."""
    return where if where.startswith((HOME + "/", HOME + "?")) or where == HOME else HOME
