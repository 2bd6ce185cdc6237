"""``python -m experiments.readme``: write the generated blocks of every document anew."""

import typer

from experiments.readme.documents import bring_up_to_date


def main() -> None:
    """Bring README.md, experiments/README.md and notebooks/README.md up to date with the recorded runs."""
    bring_up_to_date()


if __name__ == "__main__":
    typer.run(main)
