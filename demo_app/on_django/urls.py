"""The site's addresses, on Django."""

from __future__ import annotations

from django.urls import path
from django.views.static import serve

from demo_app import pages
from demo_app.on_django import accounts, api, news

handler404 = "demo_app.on_django.parts.not_found"

urlpatterns = [
    path("", news.front, name="front"),
    path("sections/<section>", news.section, name="section"),
    path("articles/<slug>", news.article, name="article"),
    path("articles/<slug>/comments", news.comment, name="comment"),
    path("scores", news.scores, name="scores"),
    path("scores.json", news.scores_json, name="scores-json"),
    path("search", news.search, name="search"),
    path("healthz", news.healthz, name="healthz"),
    path("login", accounts.LogIn.as_view(), name="login"),
    path("register", accounts.Register.as_view(), name="register"),
    path("logout", accounts.log_out, name="logout"),
    path("account", accounts.AccountPage.as_view(), name="account"),
    path("oauth/<provider>", accounts.oauth_choose, name="oauth-choose"),
    path("oauth/<provider>/authorize", accounts.oauth_authorize, name="oauth-authorize"),
    path("oauth/<provider>/callback", accounts.oauth_callback, name="oauth-callback"),
    path("api/articles", api.articles, name="api-articles"),
    path("api/articles/<int:id>", api.article, name="api-article"),
    path("api/articles/<int:id>/comments", api.Comments.as_view(), name="api-comments"),
    path("api/scores", news.scores_json, name="api-scores"),
    path("api/account", api.account, name="api-account"),
    # A site of this size may serve its three files by itself.
    path("static/<path:path>", serve, {"document_root": pages.STATIC}, name="static"),
]
