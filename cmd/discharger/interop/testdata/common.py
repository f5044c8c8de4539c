"""What the scripts of the stock Python bakery have in common.

The bakery's client has no way to log out and none to keep refresh tokens.
Here both are written with the functions that it builds its own requests with,
so that ids and tokens are encoded as it encodes them.
"""

import base64
import json
import sys

import macaroonbakery.bakery as bakery
import macaroonbakery.httpbakery as httpbakery
import requests
from macaroonbakery.httpbakery import _client


def task():
    return json.load(sys.stdin)


def say(step, **what):
    print(json.dumps(dict(what, step=step)), flush=True)


class Client:
    """A stock client with what it lacks for mode rotate."""

    def __init__(self, mode):
        # No interaction methods.
        self.stock = httpbakery.Client(interaction_methods=[])
        self.rotate = mode == 'rotate'
        self.token = None

    def discharge(self, caveat, payload):
        """Gets a discharge, as bakery.discharge_all wants it."""
        if not self.rotate:
            return self.stock.acquire_discharge(caveat, payload)
        answer = self.ask(caveat, payload)
        if answer.status_code != 200:
            raise RuntimeError(answer.text)
        body = answer.json()
        token = body['RefreshToken']
        self.token = httpbakery.DischargeToken(
            kind='refresh', value=base64.urlsafe_b64decode(token + '=' * (-len(token) % 4)))
        return bakery.Macaroon.from_dict(body['Macaroon'])

    def ask(self, caveat, payload):
        return self.stock._acquire_discharge_with_token(caveat, payload, self.token)

    def logout(self, url, caveat, payload):
        form = {}
        _client._add_json_binary_field(caveat.caveat_id_bytes, form, 'id')
        if payload is not None:
            form['caveat64'] = base64.urlsafe_b64encode(payload).decode('ascii')
        if self.token is not None:
            _client._add_json_binary_field(self.token.value, form, 'token')
            form['token-kind'] = self.token.kind
        answer = requests.post(url, data=form)
        say('logged-out', **seen(answer))


def seen(answer):
    """What there is to see of an HTTP answer."""
    return dict(
        status=answer.status_code,
        content_type=answer.headers.get('Content-Type'),
        body=answer.text,
    )


def third_party(access):
    """The caveat that has to be discharged, and what of it is outside."""
    for caveat in access.macaroon.caveats:
        if caveat.location:
            return caveat, access.caveat_data.get(caveat.caveat_id)
    raise ValueError('no third-party caveat')


def refused(access, client):
    """Tries to get a discharge that there is none of any more."""
    caveat, payload = third_party(access)
    what = seen(client.ask(caveat, payload))
    try:
        bakery.discharge_all(access, client.stock.acquire_discharge)
        say('discharged', macaroons=[])
    except Exception as error:
        say('refused', error=type(error).__name__, message=str(error), **what)
