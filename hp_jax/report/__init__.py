"""From a folder of results to tables, pictures and one HTML page."""
