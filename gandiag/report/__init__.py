"""From a record to text, HTML and Markdown."""
