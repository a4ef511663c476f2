"""The mapped classes of the tests' site."""

from __future__ import annotations

from sqlalchemy import Column, ForeignKey, Table
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship


class Base(DeclarativeBase):
    pass


class Story(Base):
    __tablename__ = "story"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    views: Mapped[int] = mapped_column(default=0)
    page_views: Mapped[list[PageView]] = relationship(back_populates="story", cascade="all, delete-orphan")


class PageView(Base):
    __tablename__ = "page_view"
    id: Mapped[int] = mapped_column(primary_key=True)
    story_id: Mapped[int | None] = mapped_column(ForeignKey("story.id"))
    path: Mapped[str | None]
    story: Mapped[Story | None] = relationship(back_populates="page_views")


class Account(Base):
    __tablename__ = "account"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    seen: Mapped[int | None] = mapped_column("last_seen")
    visits: Mapped[int] = mapped_column(default=0)


class Other(DeclarativeBase):
    pass


tagging = Table(
    "tagging",
    Other.metadata,
    Column("tagged_id", ForeignKey("tagged.id")),
    Column("tag_id", ForeignKey("tag.id")),
)


class Tag(Other):
    __tablename__ = "tag"
    id: Mapped[int] = mapped_column(primary_key=True)


class Tagged(Other):
    __tablename__ = "tagged"
    id: Mapped[int] = mapped_column(primary_key=True)
    tags: Mapped[list[Tag]] = relationship(secondary=tagging)
