"""Adapters with which scripts written for other packages run after their import is changed."""
