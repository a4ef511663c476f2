"""The models of the tests' Django project."""

from __future__ import annotations

from typing import Any

from django.db import models


class Article(models.Model):
    comments: Any
    pageview_set: Any
    title: Any = models.CharField(max_length=100)
    views: Any = models.IntegerField(default=0)
    seen_at: Any = models.DateTimeField(null=True)
    tags: Any = models.ManyToManyField("Tag")


class Comment(models.Model):
    article: Any = models.ForeignKey(Article, on_delete=models.CASCADE, related_name="comments")
    text: Any = models.CharField(max_length=100)


class Tag(models.Model):
    name: Any = models.CharField(max_length=100, unique=True)


class PageView(models.Model):
    path: Any = models.CharField(max_length=100)
    article: Any = models.ForeignKey(Article, null=True, on_delete=models.CASCADE)
    count: Any = models.IntegerField(default=0)


class Event(models.Model):
    name: Any = models.CharField(max_length=100)


class LiveEvent(Event):
    """A row in two tables."""

    watchers: Any = models.IntegerField(default=0)


class HeadlinePageView(PageView):
    """Another class for the same table."""

    class Meta:  # noqa: D106 - Django's own
        proxy = True
