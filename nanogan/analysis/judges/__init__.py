"""Classifiers that look at images in place of a person: of classes, and of attributes."""
