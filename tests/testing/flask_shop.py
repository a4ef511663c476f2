"""The shop of the walk's tests, on Flask."""

from __future__ import annotations

from flask import Blueprint, Flask, redirect, request, session
from flask.typing import ResponseReturnValue
from flask.views import MethodView

from readonly import reads
from readonly_flask import ReadOnly
from testing.shop import POLICY, Shop


def site(shop: Shop) -> Flask:
    """The shop on Flask."""
    app = Flask("shop", static_folder=None)
    app.secret_key = "only for tests"
    cart = Blueprint("cart", __name__, url_prefix="/cart")

    @app.get("/")
    def front() -> ResponseReturnValue:
        return f"{shop.front()}, {session.get('who', 'nobody')}"

    class Items(MethodView):
        """A class with two methods."""

        def get(self, number: int) -> ResponseReturnValue:
            """Read."""
            found = shop.item(number)
            return (found, 200) if found else ("no such item", 404)

        def post(self, number: int) -> ResponseReturnValue:
            """Write."""
            return shop.buy(number)

    app.add_url_rule("/items/<int:number>", view_func=Items.as_view("item"))

    @cart.get("/<int:number>")
    def add(number: int) -> ResponseReturnValue:
        return shop.cart(number)

    @app.post("/search")
    @reads
    def search() -> ResponseReturnValue:
        return shop.search(request.form["words"])

    @app.post("/export")
    def export() -> ResponseReturnValue:
        return f"{shop.export()} {request.get_json()['since']}"

    @app.post("/login")
    def login() -> ResponseReturnValue:
        session["who"] = "sam"
        return redirect("/", 303)

    @app.get("/healthz")
    def health() -> ResponseReturnValue:
        return shop.health()

    app.register_blueprint(cart)
    ReadOnly(app, switch=shop.switch, policy=POLICY)
    return app
