"""One set of colours for every figure, recorded or live: Okabe and Ito's, which colour-blind people can tell apart."""

BLUE, ORANGE, GREEN, PURPLE, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#555555"
