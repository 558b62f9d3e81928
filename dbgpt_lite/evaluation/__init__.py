"""Exams that the project ships with, and the commands that ask them."""
