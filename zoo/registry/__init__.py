"""Who is installed and who takes part in a run: hook specifications, the catalogue, model cards, the stages of one run."""
