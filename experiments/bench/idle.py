"""Latency of an accepted job without other load: ``python -m experiments.bench.idle``.

One client on one connection, one request after the other: a job posted, against a request that the API answers without
the store plus one durable SET through the gateway, the least that an accepted job needs.
"""

import json
import statistics
from functools import partial
from pathlib import Path

import typer

from experiments.bench.record import Folder, Rounds, Row, recording
from experiments.bench.servers import folder_in, our_api, p50_of, store_on_a_port
from overload_demo.load.clients import sample_body

REQUESTS = 500
BARE = "/jobs/none"  # no valid id: a 404 without a store request


def main(pairs: Rounds = 5, folder: Folder = Path()) -> None:
    """Measure all three in turn, and record the ratio."""
    with recording("idle", folder) as (rows, notes), folder_in(folder) as own:
        with store_on_a_port(own) as store, our_api(own) as (url, _):
            durable = json.dumps(["SET", "bench", "x" * 100]).encode()
            token, as_json = {"Authorization": f"Bearer {store['token']}"}, {"Content-Type": "application/json"}
            posted_s, bare_s, set_s, p50_s = [], [], [], partial(p50_of, times=REQUESTS)
            for _ in range(pairs):
                posted_s.append(p50_s(url, "/jobs", "POST", sample_body(42), as_json, status=202)[1])
                bare_s.append(p50_s(url, BARE, status=404)[1])
                set_s.append(p50_s(store["url"], "/", "POST", durable, token)[1])
        what = "a job posted when idle, p50 ÷ (bare GET of the API + durable SET through the gateway)"
        pairs_s = [(posted, bare + durable) for posted, bare, durable in zip(posted_s, bare_s, set_s, strict=True)]
        bounds = {"at_least": 1.5, "aim": 1.0, "less_is_better": True}
        rows.append(Row.of_pairs(what, pairs_s, factor=1000, unit="ms", **bounds))
        notes["bare GET, ms"] = round(1000 * statistics.median(bare_s), 3)
        notes["durable SET, ms"] = round(1000 * statistics.median(set_s), 3)


if __name__ == "__main__":
    typer.run(main)
