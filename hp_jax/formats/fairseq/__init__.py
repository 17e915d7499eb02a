"""fairseq's files."""
