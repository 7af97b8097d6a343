"""The report: ratios with their spread, pictures and tables of any result lines, measured or simulated."""
