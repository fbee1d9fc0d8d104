"""The export through torch and optimum: the reference that other exporters are compared with."""
