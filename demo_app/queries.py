"""Every question the site asks its database and every change it makes, for a plain SQLAlchemy session.

An asynchronous site calls these through `AsyncSession.run_sync`. A function either reads or writes, never both: on
SQLite a transaction that has read and then wants to write can be told "locked" at once, without a wait for its turn.
"""

from __future__ import annotations

from collections import defaultdict
from datetime import timedelta
from typing import Any, Final

from sqlalchemy import ColumnElement, Select, func, insert, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from demo_app import matchday, passwords, story
from demo_app.models import Account, Article, Comment, Goal, Match, PageView, now
from demo_app.shown import ShownAccount, ShownArticle, ShownCard, ShownComment, ShownGoal, ShownMatch
from demo_app.trouble import no_article, no_section

LATEST_COMMENTS: Final = 40
"""How many comments an article's page shows: under load there are hundreds."""


# --- articles --------------------------------------------------------------------------------------------------------


def _cards() -> Select[Any]:
    comments = (
        select(func.count(Comment.id)).where(Comment.article_id == Article.id).correlate(Article).scalar_subquery()
    )
    return select(
        Article.id,
        Article.slug,
        Article.section,
        Article.kicker,
        Article.title,
        Article.standfirst,
        Article.author,
        Article.published_at,
        comments,
    )


def latest(session: Session, *, section: str | None = None, limit: int = 20) -> list[ShownCard]:
    """Return the newest articles, of one section or of all."""
    query = _cards().order_by(Article.published_at.desc()).limit(limit)
    if section is not None:
        query = query.where(Article.section == section)
    return [ShownCard(*row) for row in session.execute(query)]


def most_read(session: Session, *, limit: int = 5) -> list[ShownCard]:
    """Return the articles that were opened most often."""
    query = _cards().join(PageView, PageView.article_id == Article.id).order_by(PageView.views.desc()).limit(limit)
    return [ShownCard(*row) for row in session.execute(query)]


def search(session: Session, words: str, *, limit: int = 20) -> list[ShownCard]:
    """Return the newest articles that hold every one of these words in title, standfirst or body."""
    terms = words.split()[:8]
    if not terms:
        return []
    query = _cards().order_by(Article.published_at.desc()).limit(limit)
    for term in terms:
        query = query.where(
            or_(
                Article.title.icontains(term, autoescape=True),
                Article.standfirst.icontains(term, autoescape=True),
                Article.body.icontains(term, autoescape=True),
            )
        )
    return [ShownCard(*row) for row in session.execute(query)]


def _article(session: Session, which: ColumnElement[bool]) -> ShownArticle | None:
    row = session.execute(
        select(
            Article.id,
            Article.slug,
            Article.section,
            Article.kicker,
            Article.title,
            Article.standfirst,
            Article.author,
            Article.published_at,
            Article.body,
            func.coalesce(PageView.views, 0),
        )
        .outerjoin(PageView, PageView.article_id == Article.id)
        .where(which)
    ).first()
    if row is None:
        return None
    # The last two columns are the text in one piece and the counter.
    return ShownArticle(*row[:8], tuple(row[8].split("\n\n")), row[9])


def article_by_slug(session: Session, slug: str) -> ShownArticle | None:
    """Return one article, or None."""
    return _article(session, Article.slug == slug)


def article_by_id(session: Session, article_id: int) -> ShownArticle | None:
    """Return one article, or None."""
    return _article(session, Article.id == article_id)


def comments(session: Session, article_id: int, *, limit: int = LATEST_COMMENTS) -> list[ShownComment]:
    """Return the newest comments of an article, newest first."""
    query = (
        select(Comment.id, Account.display_name, Comment.body, Comment.created_at)
        .join(Account, Account.id == Comment.account_id)
        .where(Comment.article_id == article_id)
        .order_by(Comment.id.desc())
        .limit(limit)
    )
    return [ShownComment(*row) for row in session.execute(query)]


def count_view(session: Session, article_id: int) -> None:
    """Count one more reader of an article. Its result is not looked at: while read-only the statement is dropped."""
    upsert: Any = (sqlite if session.get_bind().dialect.name == "sqlite" else postgresql).insert(PageView)
    session.execute(
        upsert.values(article_id=article_id, views=1).on_conflict_do_update(
            index_elements=[PageView.article_id], set_={"views": PageView.views + 1}
        )
    )


def add_comment(session: Session, *, article_id: int, account_id: int, body: str) -> int:
    """Store a comment and return its id."""
    comment = Comment(article_id=article_id, account_id=account_id, body=body)
    session.add(comment)
    session.flush()
    return comment.id


# --- scores ----------------------------------------------------------------------------------------------------------


def scores(session: Session, *, at: float) -> list[ShownMatch]:
    """Return every match as it stands at `at` (Unix time in seconds)."""
    goals: defaultdict[int, list[ShownGoal]] = defaultdict(list)
    for match_id, minute, side, scorer in session.execute(
        select(Goal.match_id, Goal.minute, Goal.side, Goal.scorer).order_by(Goal.minute)
    ):
        goals[match_id].append(ShownGoal(minute, side, scorer))
    rows = session.execute(select(Match.id, Match.league, Match.home, Match.away, Match.head_start).order_by(Match.id))
    return [
        matchday.as_it_stands(
            id=id, league=league, home=home, away=away, head_start=head_start, goals=goals[id], now=at
        )
        for id, league, home, away, head_start in rows
    ]


# --- what pages show -------------------------------------------------------------------------------------------------


def front_page(session: Session, *, at: float) -> dict[str, Any]:
    """Return what the front page shows at a moment (Unix time in seconds)."""
    return {"articles": latest(session), "most_read": most_read(session), "matches": scores(session, at=at)}


def section_page(session: Session, section: str) -> dict[str, Any]:
    """Return what a section's page shows.

    Raises:
        Trouble: There is no such section.
    """
    if section not in {known.slug for known in story.SECTIONS}:
        raise no_section()
    return {"section": section, "articles": latest(session, section=section)}


def article_page(session: Session, slug: str) -> dict[str, Any]:
    """Return what an article's page shows.

    Raises:
        Trouble: There is no such article.
    """
    article = article_by_slug(session, slug)
    if article is None:
        raise no_article()
    more = [card for card in latest(session, section=article.section) if card.id != article.id]
    return {"article": article, "comments": comments(session, article.id), "more": more[:3]}


# --- accounts --------------------------------------------------------------------------------------------------------


def _account(session: Session, which: ColumnElement[bool]) -> ShownAccount | None:
    row = session.execute(
        select(Account.id, Account.name, Account.display_name, Account.api_token, Account.provider).where(which)
    ).first()
    return None if row is None else ShownAccount(*row)


def account_by_id(session: Session, account_id: int) -> ShownAccount | None:
    """Return one account, or None."""
    return _account(session, Account.id == account_id)


def account_by_name(session: Session, name: str) -> ShownAccount | None:
    """Return one account, or None."""
    return _account(session, Account.name == name)


def account_by_token(session: Session, token: str) -> ShownAccount | None:
    """Return the account that this API token belongs to, or None."""
    return _account(session, Account.api_token == token)


def account_by_password(session: Session, name: str, password: str) -> ShownAccount | None:
    """Return the account if name and password fit, else None; it says nothing about which of them was wrong."""
    row = session.execute(select(Account.id, Account.password).where(Account.name == name)).first()
    if row is None or not passwords.matches(password, row.password):
        return None
    return account_by_id(session, row.id)


def add_account(
    session: Session, *, name: str, display_name: str, password: str = "", provider: str | None = None
) -> int:
    """Store a new account, logged in from the start, and return its id.

    Raises:
        sqlalchemy.exc.IntegrityError: If the name is taken.
    """
    account = Account(
        name=name,
        display_name=display_name,
        password=passwords.hashed(password) if password else "",
        provider=provider,
        last_login_at=now(),
    )
    session.add(account)
    session.flush()
    return account.id


def note_login(session: Session, account_id: int) -> None:
    """Write down that somebody has just logged in."""
    session.execute(update(Account).where(Account.id == account_id).values(last_login_at=now()))


def rename(session: Session, account_id: int, display_name: str) -> None:
    """Change the name under which somebody comments."""
    session.execute(update(Account).where(Account.id == account_id).values(display_name=display_name))


# --- the first day ---------------------------------------------------------------------------------------------------


def seed(session: Session) -> None:
    """Fill empty tables with the story."""
    opened_at = now()
    session.add_all(
        Article(
            slug=article.slug,
            section=article.section,
            kicker=article.kicker,
            title=article.title,
            standfirst=article.standfirst,
            author=article.author,
            published_at=opened_at - timedelta(hours=article.hours_ago),
            body="\n\n".join(article.paragraphs),
        )
        for article in story.ARTICLES
    )
    session.add_all(
        Account(
            name=reader.name,
            display_name=reader.display_name,
            password=passwords.hashed(reader.name),
        )
        for reader in story.all_readers()
    )
    session.flush()
    articles = {row.slug: row.id for row in session.execute(select(Article.slug, Article.id))}
    accounts = {row.name: row.id for row in session.execute(select(Account.name, Account.id))}
    # The first article starts as the most read one; the exact figures are nothing but a plausible beginning.
    session.execute(
        insert(PageView),
        [
            {"article_id": articles[article.slug], "views": 900 // (place + 1)}
            for place, article in enumerate(story.ARTICLES)
        ],
    )
    session.add_all(
        Comment(
            article_id=articles[comment.article],
            account_id=accounts[comment.by],
            body=comment.body,
            created_at=opened_at - timedelta(minutes=7 * (len(story.COMMENTS) - place)),
        )
        for place, comment in enumerate(story.COMMENTS)
    )
    for match in story.MATCHES:
        stored = Match(league=match.league, home=match.home, away=match.away, head_start=match.head_start)
        session.add(stored)
        session.flush()
        session.add_all(
            Goal(match_id=stored.id, minute=goal.minute, side=goal.side, scorer=goal.scorer) for goal in match.goals
        )
