"""The paper's experiments as named sets of runs, the records that they leave, and the page made of these."""
