"""``python -m experiments.readme``: update the generated blocks of every document."""

import typer

from experiments.readme.documents import bring_up_to_date

if __name__ == "__main__":
    typer.run(bring_up_to_date)
