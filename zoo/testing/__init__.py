"""For plugin authors: contract tests to subclass, and fakes that really compute. Nothing here is imported by a run."""
