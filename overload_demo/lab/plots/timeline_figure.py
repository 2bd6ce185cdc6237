"""One job on a time line."""

from overload_demo.errors import ConfigurationError
from overload_demo.lab.colours import BLUE, GREEN, GREY, ORANGE
from overload_demo.lab.job_timeline import JobLife
from overload_demo.lab.plots.accessible_figure import PREDICTED, AccessibleFigure, drawing, legend

_MARKS = {"accepted": (ORANGE, "o"), "started": (BLUE, "s"), "completed": (GREEN, "D")}


def life(job: JobLife | None, *, answer_s: float | None = None) -> AccessibleFigure:
    """One job from its 202 to its result: a bar for the wait, a bar for the work, marks for the stored times.

    ``answer_s`` is a prediction: so many seconds, the POST was expected to take; drawn where its answer was expected.
    Raises :class:`ConfigurationError` for a job that is not known or has not ended.
    """
    if job is None or not job.completed_at or not job.started_at:
        raise ConfigurationError("a job that has not ended has no life to draw yet: ask for it again")
    moments = job.seconds()
    started_s, ended_s = moments["started"], moments["completed"]
    with drawing(height=3.4, title=f"One job: {started_s:.3f} s waiting, {ended_s - started_s:.3f} s at work") as (
        figure,
        axes,
    ):
        axes.barh(0, started_s, 0.4, color=GREY, alpha=0.35, hatch="//", edgecolor="white", label="waits in the queue")
        axes.barh(0, ended_s - started_s, 0.4, left=started_s, color=BLUE, alpha=0.5, label="the worker works")
        for name, (colour, marker) in _MARKS.items():
            label = f"{name}: {moments[name]:.3f} s"
            axes.plot([moments[name]], [0], marker, color=colour, markersize=13, label=label, clip_on=False)
        if answer_s is not None:
            axes.axvline(answer_s, label=f"202 predicted: {answer_s:.3f} s", **PREDICTED)
        axes.set(yticks=[], ylim=(-0.4, 0.4), xlabel="seconds since it was accepted: the client is free from here on")
        axes.spines["left"].set_visible(False)
        legend(axes, columns=3)
    alt = (
        f"Time line of job {job.job_id}: accepted at 0 s, started at {started_s:.3f} s, completed at {ended_s:.3f} s,"
        f" status {job.status}."
    )
    if answer_s is not None:
        alt += f" The 202 was predicted after {answer_s:.3f} s."
    return AccessibleFigure(figure, alt, f"{job.job_id}, times as the store keeps them, to the millisecond.")
