"""Files that serve a release: an app for FastAPI, and model repositories of inference servers."""
