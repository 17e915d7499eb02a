"""Files of llama.cpp: a model with its vocabulary, mostly quantised."""
