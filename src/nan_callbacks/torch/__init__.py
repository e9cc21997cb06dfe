"""Torch mechanics, shared by every adapter that trains with torch: measure, gate, snapshot."""
