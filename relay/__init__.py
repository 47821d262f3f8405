"""The relay: webhooks in, events out, each fact once."""

from importlib.metadata import version

__version__ = version("webhook-relay")
