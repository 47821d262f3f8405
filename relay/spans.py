"""Spans, and their ids: told to a collector by OTLP over HTTP, when what they tell of is over.

The ids are made of the row ids of deliveries and batches, so that processes and replicas agree on them, and nothing
more is stored. What is sent where, how often and how much of it is for the standard's own OTEL_* variables to say.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import threading
from collections.abc import AsyncIterator, Iterable, Mapping
from secrets import randbits
from typing import Any

import structlog
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    get_current_span,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from structlog.typing import EventDict

from relay import __version__
from relay.settings import SettingsError

#: When something began and ended, in Unix nanoseconds.
Times = tuple[int, int]

#: For no longer than this does a shutdown wait for the collector.
_FLUSH_S = 3.0
#: Unless OTEL_* says otherwise: room for some full batches, each with all its links.
_MOST_SPANS = 20_000
_MOST_LINKS = 1000
_SPAN_BITS = 64

_propagator = TraceContextTextMapPropagator()


@contextlib.asynccontextmanager
async def exporting() -> AsyncIterator[Spans]:
    """Spans that go to the collector while the block runs; those that are left in the end, as far as there is time.

    Log lines that name a delivery or a batch say their trace meanwhile. Raises `SettingsError` for OTEL_* that are
    wrong.
    """
    provider, ids = _provider()
    processors = structlog.get_config()["processors"]
    processors.insert(0, with_trace_id)  # into that very list: loggers in use hold it
    try:
        yield Spans(provider, ids)
    finally:
        processors.remove(with_trace_id)
        thread = threading.Thread(target=provider.shutdown, name="spans", daemon=True)
        thread.start()
        await asyncio.to_thread(thread.join, _FLUSH_S)


def _provider() -> tuple[TracerProvider, _Ids]:
    given = Resource.create({"service.name": "relay", "service.version": __version__})
    ids = _Ids()
    try:
        limits = SpanLimits(max_links=None if "OTEL_SPAN_LINK_COUNT_LIMIT" in os.environ else _MOST_LINKS)
        provider = TracerProvider(
            resource=given.merge(OTELResourceDetector().detect()), id_generator=ids, span_limits=limits,
            shutdown_on_exit=False,
        )  # fmt: skip
        most = None if "OTEL_BSP_MAX_QUEUE_SIZE" in os.environ else _MOST_SPANS
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(), max_queue_size=most))
    except ValueError as error:
        raise SettingsError([f"the OTEL_* variables cannot be used: {error}. Correct them."]) from error
    return provider, ids


# --- ids --------------------------------------------------------------------------------------------------------------


def trace_of_delivery(delivery: int) -> int:
    """Its row id in the upper half, to be read off; in the lower one what samplers by ratio look at."""
    return delivery << _SPAN_BITS | _drawn("delivery", delivery)


def trace_of_batch(batch: int) -> int:
    """The same for a batch."""
    return batch << _SPAN_BITS | _drawn("batch", batch)


def drawn_trace() -> int:
    """Of what leaves nothing in the store."""
    return randbits(2 * _SPAN_BITS) or 1


def _drawn(*words: str | int) -> int:
    """64 bits that look random and are the same wherever they are made."""
    digest = hashlib.blake2b(" ".join(map(str, words)).encode(), digest_size=_SPAN_BITS // 8).digest()
    return int.from_bytes(digest, "big") or 1


def in_hex(trace: int) -> str:
    """As logs and collectors write it."""
    return f"{trace:032x}"


def with_trace_id(_logger: object, _method: str, entry: EventDict) -> EventDict:
    """A processor of log lines: one that names a delivery or a batch names its trace too."""
    for word, trace_of in (("batch", trace_of_batch), ("delivery", trace_of_delivery)):
        if isinstance(row := entry.get(word), int):
            entry["trace_id"] = in_hex(trace_of(row))
    return entry


class _Ids(IdGenerator):
    """Gives the span that is about to begin the ids that are meant for it."""

    def __init__(self) -> None:
        self.trace = self.span = 0

    def generate_trace_id(self) -> int:
        return self.trace

    def generate_span_id(self) -> int:
        return self.span

    def is_trace_id_random(self) -> bool:
        return True


class Spans:
    """Tells of what is over. Only the event loop's thread does so."""

    def __init__(self, provider: TracerProvider, ids: _Ids) -> None:
        self._tracer = provider.get_tracer("relay", __version__)
        self._sampler = provider.sampler
        self._ids = ids

    def context(self, trace: int, span: int) -> SpanContext:
        """Of a span of ours, wherever it was made: a root is sampled by its trace id, and what is below it likewise."""
        decision = self._sampler.should_sample(Context(), trace, "receive").decision
        flags = TraceFlags(TraceFlags.SAMPLED if decision is Decision.RECORD_AND_SAMPLE else TraceFlags.DEFAULT)
        return SpanContext(trace, span, is_remote=True, trace_flags=flags)

    def delivery(self, delivery: int) -> SpanContext:
        """Of the span with which the trace of this delivery begins."""
        return self.context(trace_of_delivery(delivery), _drawn("receive", delivery))

    def forwarded(self, delivery: SpanContext, event: int, batch: int, attempt: int) -> SpanContext:
        """Of the span in that trace which tells of one call with this event."""
        return self.context(delivery.trace_id, _drawn("forward", event, batch, attempt))

    def batch(self, batch: int, attempt: int) -> SpanContext:
        """Of the span which tells of one call as a whole."""
        return self.context(trace_of_batch(batch), _drawn("batch", batch, attempt))

    def without_delivery(self, trace: int) -> SpanContext:
        """Of the only span of a trace that has been drawn."""
        return self.context(trace, randbits(_SPAN_BITS) or 1)

    def tell(
        self,
        name: str,
        times: Times,
        *,
        below: SpanContext | None = None,
        as_: SpanContext | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        links: Iterable[SpanContext] = (),
        failed: bool = False,
        about: Mapping[str, Any],
    ) -> SpanContext:
        """A span `below` another one, or at the root, `as_` the context that others know it by. Returns its context."""
        self._ids.trace = as_.trace_id if as_ else 0
        self._ids.span = as_.span_id if as_ else randbits(_SPAN_BITS) or 1
        context = Context() if below is None else set_span_in_context(NonRecordingSpan(below), Context())
        attributes = {name: value for name, value in about.items() if value is not None}
        span = self._tracer.start_span(
            name, context, kind=kind, attributes=attributes, links=[Link(link) for link in links], start_time=times[0]
        )
        if failed:
            span.set_status(Status(StatusCode.ERROR))
        span.end(times[1])
        return span.get_span_context()


def caller(headers: Iterable[tuple[bytes, bytes]]) -> SpanContext | None:
    """The span of whoever calls, as W3C's `traceparent` says it."""
    said = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers}
    found = get_current_span(_propagator.extract(said, Context())).get_span_context()
    return found if found.is_valid else None
