"""Published models in an object store: `settings.models_url`, one folder for each job. The storage then holds copies.

A model is in the object store when its manifest is: the manifest is written last, and removed first.
"""
