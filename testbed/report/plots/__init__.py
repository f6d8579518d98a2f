"""The report's pictures: hand-made SVG, the same bytes for the same data, readable in light and dark."""
