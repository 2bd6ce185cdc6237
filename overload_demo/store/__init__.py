"""The embedded store: one real Redis per data directory behind a gateway that speaks the Upstash REST contract.

Read in this order: ``embedded`` (what a user of the store holds), ``service`` (the store's own process),
``redis_server`` (the one server child), ``upstream`` and ``resp`` (the gateway's links to it), ``gateway`` (the
contract), ``rest`` and ``commands`` (what is asked), ``replies`` and ``events`` (what is answered).
"""
