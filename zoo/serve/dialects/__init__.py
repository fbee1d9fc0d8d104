"""The forms in which clients ask and want to be answered. Each module is one family."""
