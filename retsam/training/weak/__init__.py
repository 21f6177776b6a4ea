"""Training of heads without pixel masks: words about photographs, and lesions painted on healthy ones, on the frozen trunk."""
