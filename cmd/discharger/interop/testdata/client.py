"""Plays a client with the stock Python bakery: a discharge, two refreshes, a
logout, and one try after that."""

import json

import macaroonbakery.bakery as bakery
from macaroonbakery import _utils

from common import Client, refused, say, task, third_party

todo = task()
access = bakery.Macaroon.from_dict(todo['access'])
client = Client(todo['mode'])

for _ in range(3):
    macaroons = bakery.discharge_all(access, client.discharge)
    say('discharged', macaroons=[json.loads(_utils.macaroon_to_json_string(m)) for m in macaroons])

client.logout(todo['logout'], *third_party(access))
refused(access, client)
