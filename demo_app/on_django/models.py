"""The site's tables as Django's models. They are there already: every framework's version has the same ones."""

from __future__ import annotations

import secrets
from typing import ClassVar

from django.contrib.auth.base_user import AbstractBaseUser, BaseUserManager
from django.db import models
from django.utils import timezone

from demo_app import passwords


def new_token() -> str:
    """Return a token for the API."""
    return secrets.token_hex(16)


class Account(AbstractBaseUser):
    """Somebody who can log in, with a password or through a provider."""

    id: int
    name = models.CharField(max_length=60, unique=True)
    display_name = models.CharField(max_length=80)
    password = models.CharField(max_length=200, default="")
    provider = models.CharField(max_length=40, null=True)
    api_token = models.CharField(max_length=64, unique=True, default=new_token)
    created_at = models.DateTimeField(default=timezone.now)
    last_login = models.DateTimeField(null=True, db_column="last_login_at")

    USERNAME_FIELD = "name"
    REQUIRED_FIELDS: ClassVar[list[str]] = []
    objects = BaseUserManager()

    class Meta:
        """Made by `demo_app.models`."""

        managed = False
        db_table = "account"

    def __str__(self) -> str:
        return str(self.name)

    def set_password(self, raw_password: str | None) -> None:
        """Hash it as every framework's version does."""
        self.password = passwords.hashed(raw_password) if raw_password else ""

    def check_password(self, raw_password: str | None) -> bool:
        """Compare it as every framework's version does."""
        return raw_password is not None and passwords.matches(raw_password, self.password)


class Article(models.Model):
    """One article; paragraphs are separated by blank lines."""

    id: int
    slug = models.CharField(max_length=80, unique=True)
    section = models.CharField(max_length=40)
    kicker = models.CharField(max_length=80)
    title = models.CharField(max_length=200)
    standfirst = models.CharField(max_length=400)
    author = models.CharField(max_length=80)
    published_at = models.DateTimeField()
    body = models.TextField()

    class Meta:
        """Made by `demo_app.models`."""

        managed = False
        db_table = "article"

    def __str__(self) -> str:
        return str(self.title)


class Comment(models.Model):
    """What a reader had to say."""

    id: int
    article = models.ForeignKey(Article, models.DO_NOTHING)
    account = models.ForeignKey(Account, models.DO_NOTHING)
    body = models.TextField()
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        """Made by `demo_app.models`."""

        managed = False
        db_table = "comment"

    def __str__(self) -> str:
        return str(self.body)


class Match(models.Model):
    """One match of the endless match day (see `matchday`)."""

    id: int
    league = models.CharField(max_length=60)
    home = models.CharField(max_length=60)
    away = models.CharField(max_length=60)
    head_start = models.IntegerField()

    class Meta:
        """Made by `demo_app.models`."""

        managed = False
        db_table = "match"

    def __str__(self) -> str:
        return f"{self.home} against {self.away}"


class Goal(models.Model):
    """One goal of a match, in playing minutes."""

    match = models.ForeignKey(Match, models.DO_NOTHING)
    minute = models.IntegerField()
    side = models.CharField(max_length=4)
    scorer = models.CharField(max_length=60)

    class Meta:
        """Made by `demo_app.models`."""

        managed = False
        db_table = "goal"

    def __str__(self) -> str:
        return f"{self.minute} {self.scorer}"


class PageView(models.Model):
    """How often an article was opened: the incidental write that is dropped while the site is read-only."""

    article = models.OneToOneField(Article, models.DO_NOTHING, primary_key=True)
    article_id: int
    views = models.IntegerField(default=0)

    class Meta:
        """Made by `demo_app.models`."""

        managed = False
        db_table = "page_view"

    def __str__(self) -> str:
        return f"{self.article_id}: {self.views}"
