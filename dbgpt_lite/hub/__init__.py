"""A model of a hub -> a folder of MODELS_DIR. The part of the app that fetches models, when asked to."""
