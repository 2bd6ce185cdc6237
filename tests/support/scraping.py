"""What Prometheus reads from a ``/metrics``."""

import httpx
from prometheus_client.parser import text_string_to_metric_families

Numbers = dict[str, float]


def scrape(client: httpx.Client, url: str = "/metrics") -> Numbers:
    """Every sample as ``name``, or as ``name{value of its label}``; buckets are left out. The answer must be a 200."""
    answer = client.get(url)
    assert answer.status_code == 200, answer.text
    return numbers_in(answer.text)


def numbers_in(text: str) -> Numbers:
    """The same for a text."""
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    found = {
        sample.name + (f"{{{','.join(sample.labels.values())}}}" if sample.labels else ""): sample.value
        for sample in samples
        if not sample.name.endswith("_bucket")
    }
    assert len(found) == sum(not sample.name.endswith("_bucket") for sample in samples), "a sample came twice"
    return found


def buckets_in(text: str, name: str) -> dict[str, float]:
    """A histogram's cumulative buckets by their upper end."""
    [family] = [one for one in text_string_to_metric_families(text) if one.name == name]
    return {sample.labels["le"]: sample.value for sample in family.samples if sample.name == f"{name}_bucket"}
