"""Schedules: how long, at which learning rate."""

from .schedule import Schedule, build_schedule, parse_length

__all__ = ["Schedule", "build_schedule", "parse_length"]
