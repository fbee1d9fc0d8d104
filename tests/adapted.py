"""What every adapter is tested on."""

MODEL = "zoo-reranker-tiny"
QUERY = "what is panda?"
TEXTS = ["hi", "The giant panda is a bear species endemic to China.", "Grapes make wine.", "A panda eats bamboo."]
