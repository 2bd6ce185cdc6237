"""The colours and line styles of every figure and page.

The palette is Okabe and Ito's, which colour-blind people can distinguish.
"""

from typing import Any

BLUE, ORANGE, GREEN, PURPLE, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#555555"
SKY, YELLOW = "#56B4E9", "#F0E442"  # lighter: for areas, never for lines

# Matplotlib styles with one meaning in every figure.
QUEUE: dict[str, Any] = {"color": BLUE, "linewidth": 3}
NAIVE: dict[str, Any] = {"color": ORANGE, "linewidth": 3, "linestyle": (0, (4, 1.5))}
OFFERED: dict[str, Any] = {"color": GREY, "linewidth": 2, "linestyle": ":"}
PREDICTED: dict[str, Any] = {"color": PURPLE, "linewidth": 2.5, "linestyle": (0, (1, 1))}
