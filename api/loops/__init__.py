"""Loops that keep the service moving: nudges out, lost claims back, rubbish away; one copy of each."""
