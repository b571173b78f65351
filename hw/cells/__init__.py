"""The embedded cell library and the figures it is written from."""
