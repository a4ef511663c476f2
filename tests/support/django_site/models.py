"""The models of the tests' Django project."""

from __future__ import annotations

from django.db import models


class Article(models.Model):
    title = models.CharField(max_length=100)
    views = models.IntegerField(default=0)
    seen_at = models.DateTimeField(null=True)
    tags = models.ManyToManyField("Tag")


class Comment(models.Model):
    article = models.ForeignKey(Article, on_delete=models.CASCADE, related_name="comments")
    text = models.CharField(max_length=100)


class Tag(models.Model):
    name = models.CharField(max_length=100, unique=True)


class PageView(models.Model):
    path = models.CharField(max_length=100)
    article = models.ForeignKey(Article, null=True, on_delete=models.CASCADE)
    count = models.IntegerField(default=0)


class Event(models.Model):
    name = models.CharField(max_length=100)


class LiveEvent(Event):
    """A row in two tables."""

    watchers = models.IntegerField(default=0)


class HeadlinePageView(PageView):
    """Another class for the same table."""

    class Meta:  # noqa: D106 - Django's own
        proxy = True
