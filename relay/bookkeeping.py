"""Which provider's books the relay can read, and how they are read from the event loop.

In: a source with its API key. Out: `OpenBooks`, whose questions run on a thread of their own, since the readers block.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from relay.books import Books, BooksError
from relay.sources import Source

T = TypeVar("T")


def _stripe(api_key: str, source: Source, accounts: Sequence[str]) -> Books:
    from relay.stripe_books import StripeBooks  # noqa: PLC0415  the package `stripe` costs a third of a second

    return StripeBooks(api_key, api_base=source.api_base, accounts=accounts)


#: How the books of a provider are opened.
READERS: Mapping[str, Callable[[str, Source, Sequence[str]], Books]] = {"stripe": _stripe}


def books_of(source: Source, *, accounts: Sequence[str] = ()) -> Books:
    """The books of a source. `accounts`: connected accounts to read besides its own. Raises `BooksError`."""
    read = READERS.get(source.provider)
    if read is None:
        msg = f"The relay cannot read the books of {source.provider}; it can read those of {', '.join(READERS)}."
        raise BooksError(msg)
    if source.api_key is None:
        msg = f"The source {source.slug} has no API key to read the books of {source.provider} with."
        raise BooksError(msg)
    return read(source.api_key.get_secret_value(), source, accounts)


class OpenBooks:
    """Books behind their thread."""

    def __init__(self, books: Books, thread: ThreadPoolExecutor) -> None:
        self.books = books
        self._thread = thread

    async def ask(self, question: Callable[[], T]) -> T:
        """The answer to a question that blocks."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, question)

    async def pages(self, pages: Iterator[Sequence[T]]) -> AsyncIterator[Sequence[T]]:
        """What an iterator that blocks yields."""
        while (page := await self.ask(lambda: next(pages, None))) is not None:
            yield page


@contextlib.asynccontextmanager
async def opened(books: Books) -> AsyncIterator[OpenBooks]:
    """The books while the block runs. A question that is open when it ends is not waited for."""
    thread = ThreadPoolExecutor(1, thread_name_prefix="books")
    try:
        yield OpenBooks(books, thread)
    finally:
        books.stop()
        thread.submit(books.close)
        thread.shutdown(wait=False)
