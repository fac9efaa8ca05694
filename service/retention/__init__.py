"""Retention: removing what has been kept for as long as the settings say. One module for each kind of thing.

Each sweep takes a bounded step, in short transactions, and can be killed anywhere or run twice at once: the next one
goes on. None touches what a job that has not ended needs, and published models are not theirs to remove.
"""
