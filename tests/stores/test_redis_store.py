"""The Redis store on a real server: the contract, and what servers do to it."""

from __future__ import annotations

import pytest

from readonly.stores import Store, store_from_url
from readonly.testing import StoreContract


class TestRedisStore(StoreContract):
    """The contract."""

    @pytest.fixture(autouse=True)
    def _url(self, redis_url: str) -> None:
        self.url = redis_url

    def make_store(self) -> Store:
        return store_from_url(self.url)
