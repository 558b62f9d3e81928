"""Kinds of arguments that several commands take."""

import argparse


def positive(given: str) -> int:
    """A whole number from 1. Raises ArgumentTypeError, whose words argparse shows."""
    try:
        number = int(given)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{given!r} is not a whole number from 1")
    return number
