"""Generation: prefill and decode, sampling, continuous batching, and prefixes that many variants share."""
