"""The colours of every figure and page: Okabe and Ito's palette, which colour-blind people can tell apart."""

BLUE, ORANGE, GREEN, PURPLE, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#555555"
SKY, YELLOW = "#56B4E9", "#F0E442"  # lighter: for areas, never for lines
