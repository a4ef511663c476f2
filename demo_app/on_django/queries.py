"""Every question the site asks its database and every change it makes: `demo_app.queries`, by Django's ORM."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from django.db.models import Count, F, Q

from demo_app import matchday, story
from demo_app.on_django.models import Account, Article, Comment, Goal, Match, PageView
from demo_app.queries import LATEST_COMMENTS
from demo_app.shown import ShownAccount, ShownArticle, ShownCard, ShownComment, ShownGoal, ShownMatch
from demo_app.trouble import no_article, no_section

_CARD = ("id", "slug", "section", "kicker", "title", "standfirst", "author", "published_at")


# --- articles --------------------------------------------------------------------------------------------------------


def _cards(found: Any, limit: int) -> list[ShownCard]:
    counted = found.annotate(comments=Count("comment")).values_list(*_CARD, "comments")
    return [ShownCard(*row) for row in counted[:limit]]


def latest(*, section: str | None = None, limit: int = 20) -> list[ShownCard]:
    """Return the newest articles, of one section or of all."""
    found = Article.objects.order_by("-published_at")
    return _cards(found if section is None else found.filter(section=section), limit)


def most_read(*, limit: int = 5) -> list[ShownCard]:
    """Return the articles that were opened most often."""
    return _cards(Article.objects.filter(pageview__isnull=False).order_by("-pageview__views"), limit)


def search(words: str, *, limit: int = 20) -> list[ShownCard]:
    """Return the newest articles that hold every one of these words in title, standfirst or body."""
    terms = words.split()[:8]
    if not terms:
        return []
    found = Article.objects.order_by("-published_at")
    for term in terms:
        found = found.filter(Q(title__icontains=term) | Q(standfirst__icontains=term) | Q(body__icontains=term))
    return _cards(found, limit)


def _article(**which: Any) -> ShownArticle | None:
    row = Article.objects.filter(**which).values(*_CARD, "body", "pageview__views").first()
    if row is None:
        return None
    body, views = row.pop("body"), row.pop("pageview__views")
    return ShownArticle(**row, paragraphs=tuple(body.split("\n\n")), views=views or 0)


def article_by_slug(slug: str) -> ShownArticle | None:
    """Return one article, or None."""
    return _article(slug=slug)


def article_by_id(article_id: int) -> ShownArticle | None:
    """Return one article, or None."""
    return _article(id=article_id)


def comments(article_id: int, *, limit: int = LATEST_COMMENTS) -> list[ShownComment]:
    """Return the newest comments of an article, newest first."""
    found = Comment.objects.filter(article_id=article_id).order_by("-id")
    rows = found.values_list("id", "account__display_name", "body", "created_at")
    return [ShownComment(*row) for row in rows[:limit]]


def count_view(article_id: int) -> None:
    """Count one more reader of an article."""
    if not PageView.objects.filter(article_id=article_id).update(views=F("views") + 1):
        PageView.objects.create(article_id=article_id, views=1)


def add_comment(*, article_id: int, account_id: int, body: str) -> int:
    """Store a comment and return its id.

    Raises:
        django.db.IntegrityError: There is no such article.
    """
    return int(Comment.objects.create(article_id=article_id, account_id=account_id, body=body).id)


# --- scores ----------------------------------------------------------------------------------------------------------


def scores(*, at: float) -> list[ShownMatch]:
    """Return every match as it stands at `at` (Unix time in seconds)."""
    goals: defaultdict[int, list[ShownGoal]] = defaultdict(list)
    for match_id, minute, side, scorer in Goal.objects.order_by("minute").values_list(
        "match_id", "minute", "side", "scorer"
    ):
        goals[match_id].append(ShownGoal(minute, side, scorer))
    found = Match.objects.order_by("id").values("id", "league", "home", "away", "head_start")
    return [matchday.as_it_stands(**match, goals=goals[match["id"]], now=at) for match in found]


# --- what pages show -------------------------------------------------------------------------------------------------


def front_page(*, at: float) -> dict[str, Any]:
    """Return what the front page shows at a moment (Unix time in seconds)."""
    return {"articles": latest(), "most_read": most_read(), "matches": scores(at=at)}


def section_page(section: str) -> dict[str, Any]:
    """Return what a section's page shows.

    Raises:
        Trouble: There is no such section.
    """
    if section not in {known.slug for known in story.SECTIONS}:
        raise no_section()
    return {"section": section, "articles": latest(section=section)}


def article_page(slug: str) -> dict[str, Any]:
    """Return what an article's page shows.

    Raises:
        Trouble: There is no such article.
    """
    article = article_by_slug(slug)
    if article is None:
        raise no_article()
    more = [card for card in latest(section=article.section) if card.id != article.id]
    return {"article": article, "comments": comments(article.id), "more": more[:3]}


# --- accounts --------------------------------------------------------------------------------------------------------


def shown(account: Account) -> ShownAccount:
    """Return what pages are told of an account."""
    return ShownAccount(account.id, account.name, account.display_name, account.api_token, account.provider)


def add_account(*, name: str, display_name: str, password: str = "", provider: str | None = None) -> Account:
    """Store a new account.

    Raises:
        django.db.IntegrityError: The name is taken.
    """
    account = Account(name=name, display_name=display_name, provider=provider)
    account.set_password(password)
    account.save(force_insert=True)
    return account


def rename(account_id: int, display_name: str) -> None:
    """Change the name under which somebody comments."""
    Account.objects.filter(id=account_id).update(display_name=display_name)
