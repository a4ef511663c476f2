"""The application of the tests' Django project."""

from __future__ import annotations

from django.apps import AppConfig


class NewsConfig(AppConfig):
    name = "support.django_site"
    label = "news"
