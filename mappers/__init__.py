"""Provider modules: one file a provider. A file dropped in here is found at the next start."""
