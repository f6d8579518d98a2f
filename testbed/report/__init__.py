"""A run's folder in; summary.json, report.html, report.md, junit.xml and plots out. Rebuildable at any time."""
