"""The embedded store: one real Redis per data directory behind a gateway that speaks the Upstash REST contract.

Read in this order: ``embedded`` (what a user of the store holds), ``service`` (the store's own process),
``redis_server`` (the one server child), ``upstream`` (the gateway's link to it), ``gateway``, ``rest`` and ``commands``
(the contract).
"""
