"""The service over HTTP. Thin: translate, authenticate, authorise, hand over."""
