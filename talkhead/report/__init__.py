"""From finished runs to tables and plots: metrics.json in, markdown, CSV and PNG out."""
