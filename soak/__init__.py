"""`make soak`: mixed load while everything around it fails, and then the proof that nothing was lost or doubled."""
