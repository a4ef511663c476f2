"""The one Django project of all tests: settings can be given once a process, so they are here for everybody.

    from support.django_site import configure
    configure()  # at the top of a conftest, before anything that imports a model

What a test needs otherwise it overrides (`django.test.override_settings`), and puts its databases in place with
`support.django_site.aliases`.
"""

from __future__ import annotations

from typing import Any

SETTINGS: dict[str, Any] = {
    "SECRET_KEY": "not secret",
    "ALLOWED_HOSTS": ["*"],
    "USE_TZ": True,
    "ROOT_URLCONF": "support.django_site.urls",
    "INSTALLED_APPS": [
        "django.contrib.admin",
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.sessions",
        "django.contrib.messages",
        "django.contrib.staticfiles",
        "allauth",
        "allauth.account",
        "allauth.socialaccount",
        "allauth.socialaccount.providers.github",
        "rest_framework",
        "rest_framework.authtoken",
        "support.django_site.apps.NewsConfig",
        "readonly_django",
    ],
    "MIDDLEWARE": [
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.common.CommonMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
        "allauth.account.middleware.AccountMiddleware",
    ],
    "TEMPLATES": [
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "APP_DIRS": True,
            "OPTIONS": {
                "context_processors": [
                    "django.template.context_processors.request",
                    "django.contrib.auth.context_processors.auth",
                    "django.contrib.messages.context_processors.messages",
                    "readonly_django.context_processors.readonly",
                ]
            },
        }
    ],
    "DATABASES": {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    # Nothing is guarded, and no store is asked, until a test says so.
    "READONLY": {"STORE": "memory://?site=django-tests", "GUARD": False},
    "DEFAULT_AUTO_FIELD": "django.db.models.BigAutoField",
    "STATIC_URL": "/static/",
    # Not by a test: each change of it leaves a variable in the context, which asgiref goes through at every step.
    "LANGUAGE_CODE": "en",
    "LANGUAGES": [("en", "English"), ("de", "Deutsch")],
    "SOCIALACCOUNT_PROVIDERS": {"github": {"APPS": [{"client_id": "x", "secret": "y"}]}},
    "PASSWORD_HASHERS": ["django.contrib.auth.hashers.MD5PasswordHasher"],
}


def configure() -> None:
    """Set Django up, if nobody has yet."""
    import django
    from django.conf import settings

    if not settings.configured:
        settings.configure(**SETTINGS)
        django.setup()
