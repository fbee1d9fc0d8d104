"""From a checkpoint to the file that a device opens: steps, their order, their proof, and the store that keeps the results."""
