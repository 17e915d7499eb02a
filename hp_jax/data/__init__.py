"""From labelled text to padded batches: `glue.read`, `tokenizer.encode`, `batching.batches`; numpy
on the host."""
