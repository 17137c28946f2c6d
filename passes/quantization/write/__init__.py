"""How a form is written into a graph."""
