"""The site's tables, as SQLAlchemy models."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from typing import Any, ClassVar

from sqlalchemy import DateTime, ForeignKey, MetaData, String, Text, TypeDecorator, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Instant(TypeDecorator[datetime]):
    """A timezone-aware instant; SQLite keeps no zone, so UTC is put back on the way out."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Any) -> datetime | None:
        """Store UTC, on SQLite without saying so."""
        if value is None:
            return None
        return value.astimezone(UTC).replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Any) -> datetime | None:
        """Give the zone back."""
        return value.replace(tzinfo=UTC) if value is not None and value.tzinfo is None else value


def now() -> datetime:
    """Return the current instant."""
    return datetime.now(UTC)


class Base(DeclarativeBase):
    """What all models share."""

    metadata = MetaData()
    type_annotation_map: ClassVar[dict[Any, Any]] = {datetime: Instant}


class Account(Base):
    """Somebody who can log in, with a password or through a provider."""

    __tablename__ = "account"
    __table_args__ = (UniqueConstraint("name"), UniqueConstraint("api_token"))

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(60))
    display_name: Mapped[str] = mapped_column(String(80))
    password: Mapped[str] = mapped_column(String(200), default="")
    provider: Mapped[str | None] = mapped_column(String(40))
    api_token: Mapped[str] = mapped_column(String(64), default=lambda: secrets.token_hex(16))
    created_at: Mapped[datetime] = mapped_column(default=now)
    last_login_at: Mapped[datetime | None] = mapped_column(default=None)


class Article(Base):
    """One article; paragraphs are separated by blank lines."""

    __tablename__ = "article"
    __table_args__ = (UniqueConstraint("slug"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    slug: Mapped[str] = mapped_column(String(80))
    section: Mapped[str] = mapped_column(String(40), index=True)
    kicker: Mapped[str] = mapped_column(String(80))
    title: Mapped[str] = mapped_column(String(200))
    standfirst: Mapped[str] = mapped_column(String(400))
    author: Mapped[str] = mapped_column(String(80))
    published_at: Mapped[datetime] = mapped_column(index=True)
    body: Mapped[str] = mapped_column(Text)


class Comment(Base):
    """What a reader had to say."""

    __tablename__ = "comment"

    id: Mapped[int] = mapped_column(primary_key=True)
    article_id: Mapped[int] = mapped_column(ForeignKey("article.id"), index=True)
    account_id: Mapped[int] = mapped_column(ForeignKey("account.id"))
    body: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(default=now)


class Match(Base):
    """One match of the endless match day (see `matchday`)."""

    __tablename__ = "match"

    id: Mapped[int] = mapped_column(primary_key=True)
    league: Mapped[str] = mapped_column(String(60))
    home: Mapped[str] = mapped_column(String(60))
    away: Mapped[str] = mapped_column(String(60))
    head_start: Mapped[int]


class Goal(Base):
    """One goal of a match, in playing minutes."""

    __tablename__ = "goal"

    id: Mapped[int] = mapped_column(primary_key=True)
    match_id: Mapped[int] = mapped_column(ForeignKey("match.id"), index=True)
    minute: Mapped[int]
    side: Mapped[str] = mapped_column(String(4))
    scorer: Mapped[str] = mapped_column(String(60))


class PageView(Base):
    """How often an article was opened: the incidental write that is dropped while the site is read-only."""

    __tablename__ = "page_view"

    article_id: Mapped[int] = mapped_column(ForeignKey("article.id"), primary_key=True)
    views: Mapped[int] = mapped_column(default=0)
