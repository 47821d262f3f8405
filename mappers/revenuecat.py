"""RevenueCat. https://www.revenuecat.com/docs/integrations/webhooks/event-types-and-fields (read 2026-11-23).

In: what happened to a purchase in any of the stores. Out: sales by the store's transaction, refunds and steps of a
subscription. A transaction is named together with its time, because some stores keep one id over all renewals.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from relay.contract import (
    Draft,
    Learned,
    Notification,
    Person,
    Provider,
    SecretShape,
    conversion,
    event,
    field,
)
from relay.money import exponent, from_major
from relay.signatures import either, header_token, timestamped_pairs

provider = Provider(
    name="revenuecat",
    title="RevenueCat",
    docs="https://www.revenuecat.com/docs/integrations/webhooks",
    # The signature came in 2026 and must be switched on; before and without it there is the header alone.
    verifier=either(
        timestamped_pairs(header="X-RevenueCat-Webhook-Signature", tolerance_s=300),
        header_token("Authorization"),
    ),
    notification_id=field("event.id"),
    notification_type=field("event.type"),
    is_test=lambda item: "SANDBOX" in (environment := item.body["event"].get("environment"), environment),
    secret=SecretShape(
        meaning="RevenueCat > your project > Integrations > Webhooks: the signing secret, or the authorization header",
        mistaken={"sk_": "a secret API key", "appl_": "a public SDK key", "goog_": "a public SDK key"},
    ),
)
