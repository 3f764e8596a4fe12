"""What report.py is made of: contents, tables, pictures, the page."""
