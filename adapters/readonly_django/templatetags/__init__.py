"""`{% load readonly %}`."""
