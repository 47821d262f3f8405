# The relay as an image: docker build -t webhook-relay . (docs/deploying.md says how to run it)
ARG BASE_IMAGE=python:3.11-slim

# --- build: the locked dependencies, then the relay itself, into one virtual environment ------------------------------
FROM ${BASE_IMAGE} AS build
ARG UV_VERSION=0.13.9
# Bytecode by hash: one that goes by the source's time is stale once a copy has rounded that time.
ENV UV_PROJECT_ENVIRONMENT=/opt/relay/.venv \
    UV_PYTHON_DOWNLOADS=never \
    UV_COMPILE_BYTECODE=1 \
    PYC_INVALIDATION_MODE=UNCHECKED_HASH \
    UV_LINK_MODE=copy \
    UV_NO_CACHE=1
RUN python3 -m venv /opt/uv && /opt/uv/bin/pip install --no-cache-dir --disable-pip-version-check "uv==${UV_VERSION}"
WORKDIR /src
COPY pyproject.toml uv.lock ./
RUN /opt/uv/bin/uv sync --locked --no-default-groups --extra otel --no-install-project
COPY README.md LICENSE ./
COPY relay relay
COPY mappers mappers
COPY tests/mappers tests/mappers
RUN /opt/uv/bin/uv sync --locked --no-default-groups --extra otel --no-editable

# --- the image: that environment, and a user who may write nothing but the volume -------------------------------------
FROM ${BASE_IMAGE}
RUN groupadd --gid 10001 relay \
    && useradd --uid 10001 --gid relay --home-dir /var/lib/relay --no-create-home --shell /usr/sbin/nologin relay \
    && install --directory --owner=relay --group=relay --mode=0700 /var/lib/relay
COPY --from=build /opt/relay/.venv /opt/relay/.venv
COPY --chmod=0644 deploy/healthcheck.py /opt/relay/healthcheck.py
ENV PATH=/opt/relay/.venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    RELAY_HOST=0.0.0.0 \
    RELAY_DATABASE_URL=sqlite:////var/lib/relay/relay.db
ARG VERSION=unreleased
ARG REVISION=unknown
LABEL org.opencontainers.image.title="relay" \
      org.opencontainers.image.description="Webhooks of payment, CRM and e-mail providers, as OpenAnalytics conversions." \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# The number, not the name: an orchestrator that demands a user other than root can tell.
USER 10001:10001
WORKDIR /var/lib/relay
VOLUME /var/lib/relay
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s --retries=3 CMD ["python", "/opt/relay/healthcheck.py"]
ENTRYPOINT ["relay"]
CMD ["serve"]
