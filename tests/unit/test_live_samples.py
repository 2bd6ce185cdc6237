"""The texts of the live views: readable at a distance, and a dash for each unknown number."""

from dataclasses import replace

from experiments.bench.record import RESULTS
from overload_demo.lab.result import SpikeResult, recorded_baseline
from overload_demo.live import feed as words
from overload_demo.live import sources
from overload_demo.live.feed import LiveSample

SAMPLE = LiveSample("queue", 12.0, 12_345, 6, 7_890, 3.25, 4_455, 0.0123, 0, 999.6, 1_234.5)
UNKNOWN = replace(SAMPLE, errors=None, acceptance_p99_s=None, lost=None)


def test_every_number_has_its_text() -> None:
    assert words.numbers(SAMPLE) == {
        "accepted": "12,345",
        "errors": "6",
        "depth": "7,890",
        "age": "3.2 s",
        "drain": "1,234",
        "p99": "12 ms",
        "lost": "0",
    }


def test_an_unknown_number_is_a_dash_and_never_a_zero() -> None:
    texts = words.numbers(UNKNOWN)

    assert [name for name, text in texts.items() if text == words.NOT_KNOWN] == ["errors", "p99", "lost"]
    assert set(words.numbers(None).values()) == {words.NOT_KNOWN}


def test_each_chart_has_a_text_alternative() -> None:
    labels = words.labels(SAMPLE, 10_000)

    assert labels["latency"].endswith("queue API: 99 % within 12 ms now.")
    assert labels["depth"].endswith("queue API: 7,890 jobs waiting now, 10,000 at most.")
    assert labels["rates"].endswith("queue API: 1,000 accepted and 1,234 done a second now, after 12 s.")
    assert labels.keys() == words.NOTHING_YET.keys()
    assert "naive API: 7,890 requests in flight" in words.labels(replace(SAMPLE, track="naive"), 10_000)["depth"]
    assert words.labels(UNKNOWN, 1)["latency"].endswith("queue API: nothing answered in the last second.")


def test_the_end_of_a_spike_shows_the_errors_of_the_predictions() -> None:
    result = SpikeResult.read(RESULTS / "spike.json").model_copy(
        update={"peak_queue_depth": 20_000, "seconds_to_empty": 50.0}
    )

    assert sources.spike_text(result) == (
        f"Absorbed: {result.accepted:,} of {result.offered:,} accepted, 0 lost. Peak 20,000. Empty after 50 s."
    )
    assert sources.spike_text(result, 30_000, 25).endswith(
        "Peak 20,000 (predicted 30,000, +50 %). Empty after 50 s (predicted 25, -50 %)."
    )
    assert sources.spike_text(result, 0, 0).endswith(
        "Peak 20,000 (predicted 0, -100 %). Empty after 50 s (predicted 0, -100 %)."
    )


def test_a_queue_that_never_grew_has_no_percentage() -> None:
    flat = SpikeResult.read(RESULTS / "spike.json").model_copy(update={"peak_queue_depth": 0})

    assert "Peak 0 (predicted 10)." in sources.spike_text(flat, 10)


def test_a_spike_that_was_not_absorbed_is_named_so() -> None:
    result = SpikeResult.read(RESULTS / "spike.json").model_copy(update={"verdict": "not absorbed", "lost": 3})

    assert sources.spike_text(result).startswith("Not absorbed: ")
    assert "3 lost" in sources.spike_text(result)


def test_the_end_of_the_naive_run_counts_the_clients_without_an_answer() -> None:
    run = next(run for run in recorded_baseline() if run.variant == "def-slot" and run.summary.accepted)
    sent, answered = run.summary.sent, run.summary.accepted

    assert sources.baseline_text(run) == (
        f"Without a queue: {answered:,} of {sent:,} answered in time, {sent - answered:,} clients got nothing."
    )
