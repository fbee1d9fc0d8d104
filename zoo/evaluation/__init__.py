"""Reranking labelled data sets: reading them, scoring, the journal, metrics and reports."""
