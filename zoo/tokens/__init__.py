"""From texts to token ids: a checkpoint's tokenizer as transformers sets it up, and the first ids of long texts."""
