"""Designs a convolutional network and the approximate multipliers it computes with, together."""
