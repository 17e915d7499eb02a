"""What is kept on disk: results, models and training states, small files, and hashes of what they
came from."""
