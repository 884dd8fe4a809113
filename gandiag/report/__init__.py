"""Reports: records, gate results, training logs and runs as text, HTML, Markdown, JSON and JUnit XML."""
